"""What a model repository may hold: its small files are checked here before a library reads them.

Anyone can publish a repository. The libraries hang on some numbers, abort the process on some tokenizers, follow names
out of the folder, run code that a configuration names, and fill tensors that are missing with noise.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeGuard

from tabml.errors import CorruptModelError, InvalidNameError, ModelKindError, UnsafeModelError
from tabml.files.types import check_name

MAX_JSON_BYTES = 64 << 20
MAX_TOKENIZER_BYTES = 256 << 20
_MAX_DEPTH = 16
_MAX_COUNT = 1024
_MAX_SIZE = 1 << 24
_MAX_EXPERTS = 1 << 16
_MAX_OTHER_SIZE = 1 << 26
_MAX_HEADER = 100 << 20
_MAX_TENSORS = 200_000
_MAX_EXPANSION = 64.0
_MAX_RULES = 256
_MAX_PATTERN = 1000
_MAX_PADDING = 1 << 20
_MAX_MULTIPLE = 1 << 16
_MAX_WORD = 1000
_MAX_PIECE = 64
_MAX_DIMENSIONS = 64
_MAX_KEPT = 256 << 20
_MAX_LISTED = 4 << 20
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_MODEL_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHARD = re.compile(r"[\w.-]+\.safetensors")
_STRICT_COUNTS = re.compile(
    r"(num_hidden|num|n|encoder|decoder|num_encoder|num_decoder)_layers?|num_layers|n_layers?|num_blocks|"
    r"(num|n|num_attention|num_key_value|encoder_attention|decoder_attention)_heads?|depth"
)
_COUNTS = re.compile(r"layers|heads|experts|depth|(num|n)_(blocks|stages|repeats)")
_STRICT_SIZES = re.compile(
    r"hidden_size|d_model|n_embd|n_inner|intermediate_size|d_ff|ffn_dim|vocab_size|n_positions|d_kv|"
    r"max_position_embeddings|n_ctx|embedding_size|embed_dim|dim|.*_ffn_dim"
)
_SIZES = re.compile(r"(size|dim|position|positions|embeddings?|embd|rank|ctx|width|channels|labels|buckets)s?(_|$)")
_LAYER = re.compile(r"[\w.]+")
_MAX_PATTERNS, _MAX_ALPHA = 10_000, 65536
_CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")
_ATTENTIONS = (None, "eager", "sdpa")


def _line(what: str) -> str:
    """One line, whatever the file's names and values hold."""
    return what if what.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in what)


def _corrupt(name: str, what: str) -> NoReturn:
    raise CorruptModelError(_line(f"{name}: {what}"))


def _unsafe(name: str, what: str) -> NoReturn:
    raise UnsafeModelError(_line(f"{name}: {what}"))


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _corrupt(name, "must be a JSON object")
    return value


def _refuse_code(found: Mapping[str, Any], name: str) -> None:
    for key in _CODE_KEYS:
        if found.get(key):
            _unsafe(name, f"{key} asks for code of the repository to run, which tabml never does")


def check_config(config: Any, repo: str) -> dict[str, Any]:
    """``config.json``, when a library can be trusted with it.

    Raises:
        CorruptModelError: it is no object, or a number in it is impossible.
        UnsafeModelError: it asks for code.
    """
    name = f"{repo}/config.json"
    found = _object(config, name)
    weights = found.get("transformers_weights")
    if weights is not None and not (isinstance(weights, str) and _SHARD.fullmatch(weights)):
        _unsafe(name, f"transformers_weights={weights!r:.60} must be the plain name of a .safetensors file")
    _check_values(found, name, 0)
    return found


def _check_values(found: Mapping[str, Any], name: str, depth: int) -> None:
    """An object of a configuration and those in it."""
    if depth > _MAX_DEPTH:
        _corrupt(name, f"is nested more than {_MAX_DEPTH} times")
    _refuse_code(found, name)
    for key, value in found.items():
        if "attn_implementation" in key:
            if isinstance(value, list | dict) or value not in _ATTENTIONS:
                _unsafe(name, f"{key}={value!r:.60} names code to fetch; tabml chooses by itself")
        elif key in ("quantization_config", "compression_config"):
            if value is not None:
                _unsafe(
                    name,
                    "pre-quantised weights are not supported; take the plain model and quantization='int8' or 'int4'",
                )
        elif key == "model_type":
            if value is not None and (depth == 0 or value != "") and not _is_model_type(value):
                _corrupt(name, f"model_type={value!r:.60} must be a plain name")
        elif key == "architectures":
            if value is not None and not (
                isinstance(value, list) and all(isinstance(each, str) and _IDENTIFIER.fullmatch(each) for each in value)
            ):
                _corrupt(name, f"architectures={value!r:.60} must be a list of class names")
        elif isinstance(value, dict):
            _check_values(value, name, depth + 1)
        elif value is not None and _STRICT_COUNTS.fullmatch(key):
            _check_range(name, key, value, _MAX_COUNT)
        elif value is not None and _STRICT_SIZES.fullmatch(key):
            _check_range(name, key, value, _MAX_SIZE)
        else:
            _check_value(value, name, key, depth)


def _is_model_type(value: Any) -> bool:
    return isinstance(value, str) and _MODEL_TYPE.fullmatch(value) is not None


def _check_value(value: Any, name: str, key: str, depth: int) -> None:
    """A value whose key does not say that it must be at least 1, or the values of a list."""
    if isinstance(value, str | bool) or value is None:
        return
    if isinstance(value, list):
        if depth >= _MAX_DEPTH:
            _corrupt(name, f"is nested more than {_MAX_DEPTH} times")
        for each in value:
            if isinstance(each, dict):
                _check_values(each, name, depth + 1)
            else:
                _check_value(each, name, key, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            _corrupt(name, f"{key}={value!r} must be a finite number")
    elif isinstance(value, int):
        most = _limit(key)
        if abs(value) > most:
            _corrupt(name, f"{key}={str(value)[:40]} must be at most {most}")


def _limit(key: str) -> int:
    """Of a number that may be 0 or negative, as some are to say "none"."""
    if _SIZES.search(key):
        return _MAX_OTHER_SIZE
    if "experts" in key:
        return _MAX_EXPERTS
    return _MAX_COUNT if _COUNTS.search(key) else (1 << 63) - 1


def _check_range(name: str, key: str, value: Any, most: int) -> None:
    """A number from 1 to ``most``, or a list of such, one for each layer."""
    for each in value if isinstance(value, list) else [value]:
        whole = type(each) is int or (type(each) is float and each.is_integer())
        if not whole or not 1 <= each <= most:
            _corrupt(name, f"{key}={each!r:.40} must be a whole number from 1 to {most}")


def check_adapter_config(config: Any, repo: str) -> dict[str, Any]:
    """``adapter_config.json`` of PEFT, when it is one of plain LoRA.

    Raises:
        CorruptModelError: it is no object, or a value in it is impossible.
        UnsafeModelError: it asks for code.
        ModelKindError: it is of another kind of adapter.
    """
    name = f"{repo}/adapter_config.json"
    found = _object(config, name)
    _refuse_code(found, name)
    if found.get("peft_type") != "LORA":
        raise ModelKindError(_line(f"{name}: peft_type={found.get('peft_type')!r:.40} is not supported; LORA is"))
    for key, plain in (("use_dora", False), ("bias", "none"), ("modules_to_save", None), ("use_qalora", False),
                       ("alora_invocation_tokens", None), ("trainable_token_indices", None)):  # fmt: skip
        if found.get(key, plain) not in (plain, None, []):
            raise ModelKindError(_line(f"{name}: {key}={found[key]!r:.60} is not supported; plain LoRA is"))
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = found.get(key) or {}
        if not isinstance(pattern, dict) or len(pattern) > _MAX_PATTERNS:
            _corrupt(name, f"{key}={pattern!r:.60} must map names to numbers")
        for part, value in pattern.items():
            if not _LAYER.fullmatch(part):
                raise ModelKindError(_line(f"{name}: {key} has {part!r:.60}; only names of layers are read"))
            _check_alpha(name, f"{key} of {part[:60]}", value)
    _check_alpha(name, "lora_alpha", found.get("lora_alpha"))
    return found


def _check_alpha(name: str, key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_ALPHA:
        _corrupt(name, f"{key}={value!r:.40} must be a number above 0, at most {_MAX_ALPHA}")


def check_generation_config(config: Any, repo: str) -> None:
    """``generation_config.json``, where there is one.

    Raises:
        CorruptModelError: it is no object, or a number in it is impossible.
        UnsafeModelError: it asks for code.
    """
    if config is None:
        return
    name = f"{repo}/generation_config.json"
    _check_values(_object(config, name), name, 0)


def check_tokenizer_config(config: Any, repo: str) -> None:
    """``tokenizer_config.json``, where there is one.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: it asks for code, or for files elsewhere.
    """
    if config is None:
        return
    name = f"{repo}/tokenizer_config.json"
    found = _object(config, name)
    _refuse_code(found, name)
    kind = found.get("tokenizer_class")
    if kind is not None and not (isinstance(kind, str) and _IDENTIFIER.fullmatch(kind)):
        _corrupt(name, f"tokenizer_class={kind!r:.60} must be a class name")
    added = found.get("added_tokens_decoder")
    if added is not None and (not isinstance(added, dict) or len(added) > 1_000_000):
        _corrupt(name, "added_tokens_decoder must be an object of at most a million tokens")
    for key, value in found.items():
        if key.endswith(("_file", "_files")):
            for each in value if isinstance(value, list) else [value]:
                if each is not None:
                    _check_file(name, key, each)


def _check_file(name: str, key: str, value: Any) -> str:
    try:
        return check_name(key, value)
    except InvalidNameError as problem:
        _unsafe(name, str(problem))


def check_modules(modules: Any, repo: str) -> list[str]:
    """The folders that ``modules.json`` of sentence-transformers names.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: it names a class of another package, or a folder elsewhere.
    """
    name = f"{repo}/modules.json"
    if not isinstance(modules, list) or len(modules) > 32:
        _corrupt(name, "must be a list of at most 32 modules")
    folders = []
    for module in modules:
        kind = _object(module, name).get("type")
        parts = kind.split(".") if isinstance(kind, str) else []
        if len(parts) < 2 or parts[0] != "sentence_transformers" or not all(map(_IDENTIFIER.fullmatch, parts)):
            _unsafe(name, f"type={kind!r:.80} must be a class of sentence_transformers")
        path = module.get("path")
        if path:
            folders.append(_check_file(name, "path", path))
    return folders


def check_index(index: Any, repo: str) -> list[str]:
    """The files that ``model.safetensors.index.json`` names, sorted.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: a name is not that of a safetensors file beside it.
    """
    name = f"{repo}/model.safetensors.index.json"
    weights = _object(index, name).get("weight_map")
    if not isinstance(weights, dict) or not 0 < len(weights) <= 1_000_000:
        _corrupt(name, "weight_map must be an object that says where each tensor is")
    shards = set()
    for shard in weights.values():
        if not isinstance(shard, str):
            _unsafe(name, f"{shard!r:.80} must be the plain name of a .safetensors file")
        if shard in shards:
            continue
        if not _SHARD.fullmatch(shard):
            _unsafe(name, f"{shard!r:.80} must be the plain name of a .safetensors file")
        shards.add(shard)
    if len(shards) > 4096:
        _corrupt(name, f"names {len(shards)} files; the limit is 4096")
    return sorted(shards)


def check_tokenizer(content: bytes, repo: str) -> None:
    """``tokenizer.json``, when the native library lives through it.

    Fixed padding of 10^10, rules that blow up a text and tables that lie about their size abort the process.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: a rule would fill the memory.
    """
    name = f"{repo}/tokenizer.json"
    try:
        found = _object(json.loads(content), name)
    except (ValueError, RecursionError) as problem:
        _corrupt(name, f"is not JSON: {problem}")
    _check_vocabulary(found.get("model"), name)
    added = found.get("added_tokens")
    if added is not None and not (isinstance(added, list) and all(map(_is_added, added))):
        _corrupt(name, "added_tokens must be a list of objects with an id and a content")
    _check_padding(found, name)
    expansion = 1.0
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        for count, rule in enumerate(_rules(found.get(part), name, 0)):
            if count == _MAX_RULES:
                _unsafe(name, f"{part} has more than {_MAX_RULES} rules")
            _check_rule(rule, part, name)
            expansion *= _growth(rule, part, name)
            if expansion > _MAX_EXPANSION:
                _unsafe(name, f"its rules can make a text {expansion:.3g} times as long")


def _is_added(token: Any) -> bool:
    return isinstance(token, dict) and _is_id(token.get("id")) and isinstance(token.get("content"), str)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _check_vocabulary(model: Any, name: str) -> None:
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list) or not model["vocab"]:
        _corrupt(name, "has no model with a vocabulary")
    kind, vocab, merges = model.get("type"), model["vocab"], model.get("merges") or []
    if kind not in (None, "BPE", "WordPiece", "WordLevel", "Unigram"):  # files of old have no type
        _corrupt(name, f"model.type={kind!r:.40} must be BPE, WordPiece, WordLevel or Unigram")
    if (kind == "Unigram") != isinstance(vocab, list) and kind is not None:
        _corrupt(name, f"the vocabulary of {kind} is of another kind")
    if isinstance(vocab, dict):
        good = all(map(_is_id, vocab.values()))
    else:
        good = all(
            isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and type(row[1]) in (int, float)
            for row in vocab
        )
    if not good:
        _corrupt(name, "the vocabulary must give each token an id, or a score in a list")
    prefix = model.get("continuing_subword_prefix") or ""
    if not isinstance(merges, list) or not all(map(_is_merge, merges)):
        _corrupt(name, "merges must be a list of pairs")
    if not isinstance(prefix, str) or len(prefix) > _MAX_PIECE:
        _corrupt(name, "continuing_subword_prefix must be a short text")
    if merges and prefix and not all(_second(merge).startswith(prefix) for merge in merges):
        _corrupt(name, f"a merge does not begin with continuing_subword_prefix={prefix!r:.40}")
    word = model.get("max_input_chars_per_word")
    if word is not None and not (type(word) is int and 0 <= word <= _MAX_WORD):
        _unsafe(name, f"max_input_chars_per_word={word!r:.40} must be a whole number from 0 to {_MAX_WORD}")


def _is_merge(merge: Any) -> bool:
    if isinstance(merge, str):
        return " " in merge or merge.startswith("#version")
    return isinstance(merge, list) and len(merge) == 2 and isinstance(merge[0], str) and isinstance(merge[1], str)


def _second(merge: Any) -> str:
    return str(merge[1]) if isinstance(merge, list) else merge.partition(" ")[2]


def _check_padding(found: Mapping[str, Any], name: str) -> None:
    numbers: list[tuple[str, Any, int]] = []
    for part in ("padding", "truncation"):
        value = found.get(part)
        if value is None:
            continue
        if not isinstance(value, dict):
            _corrupt(name, f"{part} must be an object")
        strategy = value.get("strategy")
        numbers.append(("pad_to_multiple_of", value.get("pad_to_multiple_of"), _MAX_MULTIPLE))
        numbers.append(("padding", strategy.get("Fixed") if isinstance(strategy, dict) else None, _MAX_PADDING))
        numbers.append(("max_length", value.get("max_length"), (1 << 63) - 1))
        numbers.append(("stride", value.get("stride"), _MAX_PADDING))
    for key, value, most in numbers:
        if value is not None and not (type(value) is int and 0 <= value <= most):
            _unsafe(name, f"{key}={value!r:.40} must be a whole number from 0 to {most}")


def _rules(rule: Any, name: str, depth: int) -> Iterator[Mapping[str, Any]]:
    """A rule and those in it."""
    if rule is None:
        return
    if depth > _MAX_DEPTH or not isinstance(rule, dict):
        _corrupt(name, "has rules that are no objects, or nested too deeply")
    yield rule
    for key in ("normalizers", "pretokenizers", "decoders", "processors"):
        inner = rule.get(key)
        if inner is None:
            continue
        if not isinstance(inner, list):
            _corrupt(name, f"{key} must be a list")
        for each in inner:
            yield from _rules(each, name, depth + 1)


def _check_rule(rule: Mapping[str, Any], part: str, name: str) -> None:
    """What the library panics at, which is no ``Exception``."""
    kind = rule.get("type")
    if kind == "FixedLength" and not (type(length := rule.get("length")) is int and length > 0):
        _corrupt(name, "a FixedLength rule needs a length of at least 1")
    if kind == "Strip" and part == "decoder":
        start, stop = rule.get("start"), rule.get("stop")
        if not (type(start) is int and type(stop) is int and 0 <= start <= 1 and 0 <= stop <= 1 and start + stop < 2):
            _unsafe(name, f"a Strip rule of start={start!r:.20} and stop={stop!r:.20} ends the process on short tokens")
    if kind == "TemplateProcessing":
        known, pieces = rule.get("special_tokens") or {}, []
        for key in ("single", "pair"):
            pieces += [each for each in rule.get(key) or [] if isinstance(each, dict)]
        for piece in pieces:
            token = piece.get("SpecialToken")
            if token is not None and not (
                isinstance(token, dict)
                and isinstance(known, dict)
                and isinstance(known.get(str(token.get("id"))), dict)
            ):
                _corrupt(name, f"a TemplateProcessing rule uses {token!r:.60}, which its special_tokens don't have")


_PLAIN_PATTERN = re.compile(r"(?:\\[sdwSDW]|[^\\\[\](){}.*+?|^$])(?:\+|\{([1-9]\d{0,3}),\d*\})?")
"""Regular expressions of one character and how often: the only ones whose shortest match is told here."""


def _growth(rule: Mapping[str, Any], part: str, name: str) -> float:
    """How much longer a rule can make a text."""
    kind = rule.get("type")
    if kind == "Replace":
        content, pattern = rule.get("content"), rule.get("pattern")
        plain = pattern.get("String") if isinstance(pattern, dict) else None
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        if not isinstance(content, str) or not isinstance(plain if plain is not None else expression, str):
            _corrupt(name, "a Replace rule needs a pattern and a content")
        if expression is not None:
            if len(expression) > _MAX_PATTERN:
                _unsafe(name, f"a pattern has more than {_MAX_PATTERN} characters")
            if simple := _PLAIN_PATTERN.fullmatch(expression):
                return max(1.0, len(content) / int(simple[1] or 1))
            return max(1.0, float(len(content)) + 1)  # it may match nothing between all characters
        return max(1.0, len(content) / len(plain)) if plain else float(len(content)) + 1
    if kind == "Prepend":
        prefix = rule.get("prepend")
        if not isinstance(prefix, str) or len(prefix) > _MAX_PATTERN:
            _corrupt(name, "a Prepend rule needs a short text")
        return max(1.0, float(len(prefix)))  # before each piece between added tokens
    if kind == "ByteLevel" and part in ("normalizer", "pre_tokenizer"):
        return 2.0  # bytes that are no letters become two; again, if it stands there again
    if kind == "BertNormalizer":
        return 5 / 3  # spaces around Chinese characters
    if kind == "Precompiled":
        return _longest_piece(rule.get("precompiled_charsmap"), name) / 4  # NFKC: 33 bytes for 3
    return 1.0


def _longest_piece(table: Any, name: str) -> int:
    """Bytes of the longest text that a table of SentencePiece puts in; it is its trie's size, the trie, and the texts."""
    try:
        content = base64.b64decode(table, validate=True)
    except (TypeError, ValueError, binascii.Error):
        _corrupt(name, "precompiled_charsmap must be base64")
    size = int.from_bytes(content[:4], "little")
    if len(content) < 8 or size % 4 or not 4 <= size <= len(content) - 4:
        _corrupt(name, f"precompiled_charsmap says that {size} of its {len(content)} bytes are a trie")
    try:
        content[4 + size :].decode()
    except UnicodeDecodeError:
        _corrupt(name, "the texts of precompiled_charsmap are not UTF-8")
    longest = max(map(len, content[4 + size :].split(b"\0")))
    if longest > _MAX_PIECE:
        _unsafe(name, f"precompiled_charsmap puts {longest} bytes in place of a character; the limit is {_MAX_PIECE}")
    return max(4, longest)


_SIZE_OF = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E3M2": 6, "F6_E2M3": 6, "F4": 4,
}  # fmt: skip
"""Bits of an element (the safetensors format, 0.8)."""


def check_safetensors(path: Path, name: str) -> None:
    """A safetensors file, by its header: what a library maps must be there.

    Raises:
        CorruptModelError: header and file contradict each other.
    """
    with path.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        head = source.read(8)
        (length,) = struct.unpack("<Q", head) if len(head) == 8 else (-1,)
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            _corrupt(name, f"has a header of {length} bytes, and {size} in all")
        try:
            header = _object(json.loads(source.read(length)), name)
        except (ValueError, RecursionError) as problem:
            _corrupt(name, f"its header is not JSON: {problem}")
    header.pop("__metadata__", None)
    if len(header) > _MAX_TENSORS:
        _corrupt(name, f"has {len(header)} tensors; the limit is {_MAX_TENSORS}")
    spans = [_span(key, tensor, name) for key, tensor in header.items()]
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            _corrupt(name, f"has a hole or an overlap at byte {at} of its tensors")
        at = end
    if at != size - 8 - length:
        _corrupt(name, f"has {size - 8 - length} bytes of tensors; its header says {at}")


def _span(key: str, tensor: Any, name: str) -> tuple[int, int]:
    """Where a tensor begins and ends."""
    found: dict[str, Any] = tensor if isinstance(tensor, dict) else {}
    shape, offsets = found.get("shape"), found.get("data_offsets")
    bits = _SIZE_OF.get(str(found.get("dtype")))
    if bits is None or not (_wholes(shape, _MAX_DIMENSIONS) and _wholes(offsets, 2) and len(offsets) == 2):
        _corrupt(name, f"{key[:80]!r} has no good dtype, shape and data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * bits // 8:
        _corrupt(name, f"{key[:80]!r} has {end - begin} bytes for the shape {shape!r:.60} of {found['dtype']}")
    return begin, end


def _wholes(value: Any, most: int) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or len(value) > most:
        return False
    return all(type(each) is int and 0 <= each < 1 << 48 for each in value)


_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""ggml's types: elements and bytes of a block (gguf 0.19, ``GGML_QUANT_SIZES``)."""


def check_gguf(path: Path, name: str, keep: Collection[str] = ()) -> dict[str, Any]:
    """A GGUF file, by its header; gives its metadata.

    Args:
        path: The file.
        name: For messages.
        keep: Keys whose lists are given too; of others only the length.

    Raises:
        CorruptModelError: header and file contradict each other.
    """
    with path.open("rb") as source:
        return _Gguf(source, name, keep).read()


class _Gguf:
    """Walks the header within bounds."""

    def __init__(self, source: BinaryIO, name: str, keep: Collection[str]) -> None:
        self._source, self._name, self._keep = source, name, keep
        self._size = os.fstat(source.fileno()).st_size
        self._kept = 0
        self._listed = 0

    def read(self) -> dict[str, Any]:
        if self._source.read(4) != b"GGUF":
            _corrupt(self._name, "is not a GGUF file")
        version = self._number("<I")
        tensors, pairs = (self._number("<Q"), self._number("<Q")) if version in (2, 3) else (-1, -1)
        if not (0 <= tensors <= 100_000 and 0 <= pairs <= 100_000):
            _corrupt(self._name, f"is of version {version} with {tensors} tensors and {pairs} values of metadata")
        found = {}
        for _ in range(pairs):
            key = self._text()
            if key in found:
                _corrupt(self._name, f"has {key[:80]!r} twice")
            found[key] = self._value(self._number("<I"), whole=key in self._keep)
        alignment = found.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            _corrupt(self._name, f"general.alignment={alignment!r:.40} must be a power of two")
        ends = [self._tensor(alignment) for _ in range(tensors)]
        begin = -(-self._source.tell() // alignment) * alignment
        if begin + max(ends, default=0) > self._size:
            _corrupt(self._name, f"ends at byte {self._size}; its tensors need {begin + max(ends, default=0)}")
        return found

    def _bytes(self, count: int) -> bytes:
        if count > self._size:
            _corrupt(self._name, f"is cut short: {count} bytes are missing")
        content = self._source.read(count)
        if len(content) != count:
            _corrupt(self._name, "is cut short within its header")
        return content

    def _skip(self, count: int) -> None:
        if count <= 1 << 16:  # reading is quicker than seeking
            self._bytes(count)
        elif count > self._size - self._source.tell():
            _corrupt(self._name, "is cut short within its header")
        else:
            self._source.seek(count, os.SEEK_CUR)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _text(self) -> str:
        length = self._number("<Q")
        if length > 64 << 20:
            _corrupt(self._name, f"has a text of {length} bytes")
        self._kept += length
        if self._kept > _MAX_KEPT:
            _corrupt(self._name, f"has more than {_MAX_KEPT} bytes of names and texts")
        return self._bytes(length).decode(errors="replace")

    def _value(self, kind: int, *, whole: bool) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            _corrupt(self._name, f"has metadata of type {kind}")
        inner, count = self._number("<I"), self._number("<Q")
        if count > 16 << 20:
            _corrupt(self._name, f"has a list of {count} values")
        if inner == _STRING or whole:
            self._listed += count
            if self._listed > _MAX_LISTED:
                _corrupt(self._name, f"has lists of more than {_MAX_LISTED} values")
        if inner in _SCALARS:
            form = _SCALARS[inner]
            if whole:
                return [value for (value,) in struct.iter_unpack(form, self._bytes(count * struct.calcsize(form)))]
            self._skip(count * struct.calcsize(form))
        elif inner == _STRING:
            if whole:
                return [self._text() for _ in range(count)]
            for _ in range(count):
                self._skip(self._number("<Q"))
        else:
            _corrupt(self._name, f"has a list of type {inner}")
        return count

    def _tensor(self, alignment: int) -> int:
        """Where it ends, from where tensors begin."""
        key = self._text()
        dimensions = self._number("<I")
        if dimensions > 4:
            _corrupt(self._name, f"{key[:80]!r} has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        kind, offset = self._number("<I"), self._number("<Q")
        if kind not in _BLOCKS or any(not 1 <= each < 1 << 40 for each in shape):
            _corrupt(self._name, f"{key[:80]!r} is of type {kind} and shape {shape!r:.60}")
        elements, size = _BLOCKS[kind]
        if offset % alignment:
            _corrupt(self._name, f"{key[:80]!r} begins at byte {offset}, which is no multiple of {alignment}")
        if shape and shape[0] % elements:
            _corrupt(self._name, f"{key[:80]!r}: rows of {shape[0]} are no whole blocks of {elements}")
        end: int = offset + math.prod(shape) // elements * size
        return end
