"""What a model repository may hold: its small files are checked here before a library reads them.

Anyone can publish a repository. The libraries hang on some numbers, abort the process on some tokenizers, follow names
out of the folder, run code that a configuration names, and fill tensors that are missing with noise.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeGuard

from tabml.errors import CorruptModelError, InvalidNameError, UnsafeModelError
from tabml.files.types import check_name

MAX_JSON_BYTES = 64 << 20
MAX_TOKENIZER_BYTES = 256 << 20
_MAX_DEPTH = 16
_MAX_COUNT = 1024
_MAX_SIZE = 1 << 24
_MAX_HEADER = 100 << 20
_MAX_TENSORS = 200_000
_MAX_EXPANSION = 64.0
_MAX_RULES = 256
_MAX_PATTERN = 1000
_MAX_PADDING = 1 << 20
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_MODEL_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHARD = re.compile(r"[\w.-]+\.safetensors")
_COUNTS = re.compile(r"(^|_)(n_layers?|layers|n_heads?|heads|depth)$|num_.*(layers|heads)$|num_key_value_heads$")
_SIZES = re.compile(
    r"^(hidden_size|d_model|n_embd|n_inner|intermediate_size|d_ff|ffn_dim|vocab_size|n_positions|head_dim|d_kv|"
    r"max_position_embeddings|n_ctx|embedding_size|embed_dim|dim|.*_ffn_dim)$"
)
_CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")
_ATTENTIONS = (None, "eager", "sdpa")


def _corrupt(name: str, what: str) -> NoReturn:
    raise CorruptModelError(f"{name}: {what}")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _corrupt(name, "must be a JSON object")
    return value


def _refuse_code(found: Mapping[str, Any], name: str) -> None:
    for key in _CODE_KEYS:
        if found.get(key):
            raise UnsafeModelError(f"{name}: {key} asks for code of the repository to run, which tabml never does")


def check_config(config: Any, repo: str) -> dict[str, Any]:
    """``config.json``, when a library can be trusted with it.

    Raises:
        CorruptModelError: it is no object, or a number in it is impossible.
        UnsafeModelError: it asks for code.
    """
    name = f"{repo}/config.json"
    found = _object(config, name)
    _refuse_code(found, name)
    if found.get("quantization_config") is not None:
        raise UnsafeModelError(
            f"{name}: weights that are quantised already are not supported; take the plain model and quantization='int8'"
        )
    kind = found.get("model_type")
    if kind is not None and not (isinstance(kind, str) and _MODEL_TYPE.fullmatch(kind)):
        _corrupt(name, f"model_type={kind!r:.60} must be a plain name")
    classes = found.get("architectures")
    if classes is not None and not (
        isinstance(classes, list) and all(isinstance(each, str) and _IDENTIFIER.fullmatch(each) for each in classes)
    ):
        _corrupt(name, f"architectures={classes!r:.60} must be a list of class names")
    _check_numbers(found, name, 0)
    return found


def _check_numbers(found: Mapping[str, Any], name: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        _corrupt(name, f"is nested more than {_MAX_DEPTH} times")
    for key, value in found.items():
        if key.endswith(("attn_implementation", "attn_implementation_internal")):
            if value not in _ATTENTIONS:
                raise UnsafeModelError(f"{name}: {key}={value!r:.60} names code to fetch; tabml chooses by itself")
        elif isinstance(value, dict):
            _refuse_code(value, f"{name}: {key}")
            _check_numbers(value, name, depth + 1)
        elif isinstance(value, bool) or value is None:
            continue
        elif _COUNTS.search(key) and isinstance(value, int | float):
            _check_range(name, key, value, _MAX_COUNT)
        elif _SIZES.match(key) and isinstance(value, int | float):
            _check_range(name, key, value, _MAX_SIZE)
        elif isinstance(value, float) and not math.isfinite(value):
            _corrupt(name, f"{key}={value!r} must be a finite number")
        elif isinstance(value, int) and abs(value) >= 1 << 63:
            _corrupt(name, f"{key} has more than 64 bits")


def _check_range(name: str, key: str, value: float, most: int) -> None:
    if not (isinstance(value, int) or float(value).is_integer()) or not 1 <= value <= most:
        _corrupt(name, f"{key}={value!r:.40} must be a whole number from 1 to {most}")


def check_generation_config(config: Any, repo: str) -> None:
    """``generation_config.json``, where there is one.

    Raises:
        CorruptModelError: it is no object, or a number in it is impossible.
        UnsafeModelError: it asks for code.
    """
    if config is None:
        return
    name = f"{repo}/generation_config.json"
    found = _object(config, name)
    _refuse_code(found, name)
    _check_numbers(found, name, 0)


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
        if key.endswith("_file") and isinstance(value, str):
            try:
                check_name(key, value)
            except InvalidNameError as problem:
                raise UnsafeModelError(f"{name}: {problem}") from None


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
            raise UnsafeModelError(f"{name}: type={kind!r:.80} must be a class of sentence_transformers")
        path = module.get("path")
        if path:
            try:
                folders.append(check_name("path", path))
            except InvalidNameError as problem:
                raise UnsafeModelError(f"{name}: {problem}") from None
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
        if shard in shards:
            continue
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise UnsafeModelError(f"{name}: {shard!r:.80} must be the plain name of a .safetensors file")
        shards.add(shard)
    if len(shards) > 4096:
        _corrupt(name, f"names {len(shards)} files; the limit is 4096")
    return sorted(shards)


def check_tokenizer(content: bytes, repo: str) -> None:
    """``tokenizer.json``, when the native library lives through it.

    Fixed padding of 10^10 and rules that blow up a text abort the process.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: a rule would fill the memory.
    """
    name = f"{repo}/tokenizer.json"
    try:
        found = _object(json.loads(content), name)
    except (ValueError, RecursionError) as problem:
        _corrupt(name, f"is not JSON: {problem}")
    model = found.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list) or not model["vocab"]:
        _corrupt(name, "has no model with a vocabulary")
    if not isinstance(model.get("merges", []), list):
        _corrupt(name, "merges must be a list")
    if not isinstance(found.get("added_tokens") or [], list):
        _corrupt(name, "added_tokens must be a list")
    _check_padding(found, name)
    expansion = 1.0
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        for count, rule in enumerate(_rules(found.get(part), name, 0)):
            if count == _MAX_RULES:
                raise UnsafeModelError(f"{name}: {part} has more than {_MAX_RULES} rules")
            expansion *= _growth(rule, name)
    if expansion > _MAX_EXPANSION:
        raise UnsafeModelError(f"{name}: its rules can make a text {expansion:.3g} times as long")


def _check_padding(found: Mapping[str, Any], name: str) -> None:
    padding, truncation = found.get("padding"), found.get("truncation")
    numbers: list[tuple[str, Any]] = []
    if isinstance(padding, dict):
        strategy = padding.get("strategy")
        numbers.append(("pad_to_multiple_of", padding.get("pad_to_multiple_of")))
        numbers.append(("padding", strategy.get("Fixed") if isinstance(strategy, dict) else None))
    if isinstance(truncation, dict):
        numbers.append(("stride", truncation.get("stride")))
    for key, value in numbers:
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_PADDING:
            raise UnsafeModelError(f"{name}: {key}={value!r:.40} must be a whole number from 0 to {_MAX_PADDING}")


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


def _growth(rule: Mapping[str, Any], name: str) -> float:
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
                raise UnsafeModelError(f"{name}: a pattern has more than {_MAX_PATTERN} characters")
            return max(1.0, float(len(content)) + 1)  # it may match nothing between all characters
        return max(1.0, len(content) / len(plain)) if plain else float(len(content)) + 1
    if kind == "Prepend":
        prefix = rule.get("prepend")
        if not isinstance(prefix, str) or len(prefix) > _MAX_PATTERN:
            _corrupt(name, "a Prepend rule needs a short text")
    return 1.0


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
    if bits is None or not (_wholes(shape) and _wholes(offsets) and len(offsets) == 2):
        _corrupt(name, f"{key[:80]!r} has no good dtype, shape and data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * bits // 8:
        _corrupt(name, f"{key[:80]!r} has {end - begin} bytes for the shape {shape!r:.60} of {found['dtype']}")
    return begin, end


def _wholes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 1 << 48 for each in value)


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


def check_gguf(path: Path, name: str) -> dict[str, Any]:
    """A GGUF file, by its header; gives its metadata, of lists only their lengths.

    Raises:
        CorruptModelError: header and file contradict each other.
    """
    with path.open("rb") as source:
        return _Gguf(source, name).read()


class _Gguf:
    """Walks the header within bounds."""

    def __init__(self, source: BinaryIO, name: str) -> None:
        self._source, self._name = source, name
        self._size = os.fstat(source.fileno()).st_size

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
            found[key] = self._value(self._number("<I"))
        ends = [self._tensor() for _ in range(tensors)]
        alignment = found.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
            _corrupt(self._name, f"general.alignment={alignment!r:.40} must be a whole number")
        begin = -(-self._source.tell() // alignment) * alignment
        if begin + max(ends, default=0) > self._size:
            _corrupt(self._name, f"ends at byte {self._size}; its tensors need {begin + max(ends)}")
        return found

    def _bytes(self, count: int) -> bytes:
        if count > self._size:
            _corrupt(self._name, f"is cut short: {count} bytes are missing")
        content = self._source.read(count)
        if len(content) != count:
            _corrupt(self._name, "is cut short within its header")
        return content

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _text(self) -> str:
        length = self._number("<Q")
        if length > 64 << 20:
            _corrupt(self._name, f"has a text of {length} bytes")
        return self._bytes(length).decode(errors="replace")

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            _corrupt(self._name, f"has metadata of type {kind}")
        inner, count = self._number("<I"), self._number("<Q")
        if count > 16 << 20:
            _corrupt(self._name, f"has a list of {count} values")
        if inner in _SCALARS:
            self._bytes(count * struct.calcsize(_SCALARS[inner]))
        elif inner == _STRING:
            for _ in range(count):
                self._bytes(self._number("<Q"))
        else:
            _corrupt(self._name, f"has a list of type {inner}")
        return count

    def _tensor(self) -> int:
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
        if shape and shape[0] % elements:
            _corrupt(self._name, f"{key[:80]!r}: rows of {shape[0]} are no whole blocks of {elements}")
        end: int = offset + math.prod(shape) // elements * size
        return end
