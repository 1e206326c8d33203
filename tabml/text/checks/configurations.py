"""Configurations, of models, tokenizers, adapters and layouts: numbers that hang, names that lead out, code that would run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tabml.errors import InvalidNameError, ModelKindError
from tabml.files.types import check_name
from tabml.text.checks.refusals import corrupt, line, object_of, unsafe

_MAX_DEPTH = 16
_MAX_COUNT = 1024
_MAX_SIZE = 1 << 24
_MAX_EXPERTS = 1 << 16
_MAX_OTHER_SIZE = 1 << 26
_MAX_LABELS = 1 << 16
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TOKENIZER = re.compile(r"(?!Auto)[A-Za-z_]\w*(Tokenizer|TokenizerFast|Backend)", re.ASCII)
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
_MAX_PATTERNS, _MAX_ALPHA, _MAX_RANK = 10_000, 65536, 65536
_PLAIN_BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")
_FLAGS = ("return_dict", "use_return_dict", "output_hidden_states", "output_attentions", "use_cache", "torchscript",
          "tie_word_embeddings", "is_encoder_decoder", "is_decoder", "add_cross_attention")  # fmt: skip
_MOST_ENDS = 256
_MOST_ADDED = 1 << 15
_LABELS = ("id2label", "label2id")
_CLASS_OF_CODE = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*", re.ASCII)
_CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")
_ATTENTIONS = (None, "eager", "sdpa")


def _refuse_code(found: Mapping[str, Any], name: str, *, is_trusted: bool = False) -> None:
    for key in _CODE_KEYS:
        if found.get(key) and not (is_trusted and key == "auto_map"):
            unsafe(
                name,
                f"{key} asks for code to run; that of the repository itself does, for programs that say "
                "trust_remote_code=True, and no other",
            )
    if is_trusted and found.get("auto_map") is not None:
        modules_of(found, name)


def modules_of(found: Mapping[str, Any], name: str) -> set[str]:
    """The files of code that ``auto_map`` names, which lie beside the configuration.

    Raises:
        CorruptModelError: ``auto_map`` is not what it should be.
        UnsafeModelError: it names code of another repository.
    """
    files = set()
    for said in object_of(found.get("auto_map") or {}, f"{name}: auto_map").values():
        for each in said if isinstance(said, list) else [said]:
            if each is None:
                continue
            if not isinstance(each, str) or not _CLASS_OF_CODE.fullmatch(each):
                unsafe(name, f"auto_map names {each!r:.80}; only classes of files beside it run, as 'file.Class'")
            files.add(f"{each.partition('.')[0]}.py")
    return files


def check_config(config: Any, repo: str, *, trusts_code: bool = False) -> dict[str, Any]:
    """``config.json``, when a library can be trusted with it.

    Args:
        config: Its content.
        repo: For messages.
        trusts_code: Whether code of the repository may run.

    Raises:
        CorruptModelError: it is no object, or a number in it is impossible.
        UnsafeModelError: it asks for code.
    """
    name = f"{repo}/config.json"
    found = object_of(config, name)
    weights = found.get("transformers_weights")
    if weights is not None and not (isinstance(weights, str) and _SHARD.fullmatch(weights)):
        unsafe(name, f"transformers_weights={weights!r:.60} must be the plain name of a .safetensors file")
    _check_values(found, name, 0, trusts_code=trusts_code)
    return found


def _check_values(found: Mapping[str, Any], name: str, depth: int, *, trusts_code: bool = False) -> None:
    """An object of a configuration and those in it."""
    if depth > _MAX_DEPTH:
        corrupt(name, f"is nested more than {_MAX_DEPTH} times")
    _refuse_code(found, name, is_trusted=trusts_code and depth == 0)
    for key, value in found.items():
        if "attn_implementation" in key:
            if isinstance(value, list | dict) or value not in _ATTENTIONS:
                unsafe(name, f"{key}={value!r:.60} names code to fetch; tabml chooses by itself")
        elif key in ("quantization_config", "compression_config"):
            if value is not None:
                unsafe(
                    name,
                    "pre-quantised weights are not supported; take the plain model and quantization='int8' or 'int4'",
                )
        elif key in _FLAGS:
            if value is not None and not (isinstance(value, int) and value in (0, 1)):
                corrupt(name, f"{key}={value!r:.40} must be true or false")
        elif key.endswith("_token_id"):
            if not _are_ids(value):
                corrupt(name, f"{key}={value!r:.60} must be the number of a token, or a list of such")
        elif key == "sliding_window":
            windows = value if isinstance(value, list) else [value]
            if any(each is not None and type(each) not in (int, bool) for each in windows):
                corrupt(name, f"{key}={value!r:.40} must be a number of tokens, or one for each layer")
        elif key == "model_type":
            if value is not None and (depth == 0 or value != "") and not _is_model_type(value):
                corrupt(name, f"model_type={value!r:.60} must be a plain name")
        elif key == "architectures":
            if value is not None and not (
                isinstance(value, list) and all(isinstance(each, str) and _IDENTIFIER.fullmatch(each) for each in value)
            ):
                corrupt(name, f"architectures={value!r:.60} must be a list of class names")
        elif isinstance(value, dict):
            if key in _LABELS and len(value) > _MAX_LABELS:
                corrupt(name, f"{key} has {len(value)} labels; the limit is {_MAX_LABELS}")
            _check_values(value, name, depth + 1)
        elif value is not None and _STRICT_COUNTS.fullmatch(key):
            _check_range(name, key, value, _MAX_COUNT)
        elif value is not None and _STRICT_SIZES.fullmatch(key):
            _check_range(name, key, value, _MAX_SIZE)
        else:
            _check_value(value, name, key, depth)


def _are_ids(value: Any) -> bool:
    """Whether it is a token, several, or none (which some write as -1 or -100)."""
    if isinstance(value, list):
        return len(value) <= _MOST_ENDS and all(each is not None and _are_ids(each) for each in value)
    return value is None or (type(value) is int and abs(value) < 1 << 32)


def _is_model_type(value: Any) -> bool:
    return isinstance(value, str) and _MODEL_TYPE.fullmatch(value) is not None


def _check_value(value: Any, name: str, key: str, depth: int) -> None:
    """A value whose key does not say that it must be at least 1, or the values of a list."""
    if isinstance(value, str | bool) or value is None:
        return
    if isinstance(value, list):
        if depth >= _MAX_DEPTH:
            corrupt(name, f"is nested more than {_MAX_DEPTH} times")
        for each in value:
            if isinstance(each, dict):
                _check_values(each, name, depth + 1)
            else:
                _check_value(each, name, key, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            corrupt(name, f"{key}={value!r} must be a finite number")
    elif isinstance(value, int):
        most = _limit(key)
        if abs(value) > most:
            corrupt(name, f"{key}={str(value)[:40]} must be at most {most}")


def _limit(key: str) -> int:
    """Of a number that may be 0 or negative, as some are to say "none"."""
    if key == "num_labels":
        return _MAX_LABELS
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
            corrupt(name, f"{key}={each!r:.40} must be a whole number from 1 to {most}")


def check_adapter_config(config: Any, repo: str) -> dict[str, Any]:
    """``adapter_config.json`` of PEFT, when it is one of plain LoRA.

    Raises:
        CorruptModelError: it is no object, or a value in it is impossible.
        UnsafeModelError: it asks for code.
        ModelKindError: it is of another kind of adapter.
    """
    name = f"{repo}/adapter_config.json"
    found = object_of(config, name)
    _refuse_code(found, name)
    if found.get("peft_type") != "LORA":
        raise ModelKindError(line(f"{name}: peft_type={found.get('peft_type')!r:.40} is not supported; LORA is"))
    for key, plain in (("use_dora", False), ("bias", "none"), ("modules_to_save", None), ("use_qalora", False),
                       ("lora_bias", False), ("alora_invocation_tokens", None), ("trainable_token_indices", None),
                       ("layer_replication", None), ("target_parameters", None), ("use_bdlora", False),
                       ("arrow_config", None)):  # fmt: skip
        if found.get(key, plain) not in (plain, None, []):
            raise ModelKindError(line(f"{name}: {key}={found[key]!r:.60} is not supported; plain LoRA is"))
    begun = found.get("init_lora_weights")
    if begun not in _PLAIN_BEGINNINGS:
        raise ModelKindError(
            line(
                f"{name}: init_lora_weights={begun!r:.40} goes with weights of the model that were changed too; save it "
                "as plain LoRA, in PEFT by path_initial_model_for_weight_conversion"
            )
        )
    for key, check in (("rank_pattern", _check_rank), ("alpha_pattern", _check_alpha)):
        pattern = found.get(key) or {}
        if not isinstance(pattern, dict) or len(pattern) > _MAX_PATTERNS:
            corrupt(name, f"{key}={pattern!r:.60} must map names to numbers")
        for part, value in pattern.items():
            if not _LAYER.fullmatch(part):
                raise ModelKindError(line(f"{name}: {key} has {part!r:.60}; only names of layers are read"))
            check(name, f"{key} of {part[:60]}", value)
    _check_rank(name, "r", found.get("r"))
    _check_alpha(name, "lora_alpha", found.get("lora_alpha"))
    return found


def _check_rank(name: str, key: str, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= _MAX_RANK:
        corrupt(name, f"{key}={value!r:.40} must be a whole number from 1 to {_MAX_RANK}")


def _check_alpha(name: str, key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_ALPHA:
        corrupt(name, f"{key}={value!r:.40} must be a number above 0, at most {_MAX_ALPHA}")


def check_generation_config(config: Any, repo: str) -> None:
    """``generation_config.json``, where there is one.

    Raises:
        CorruptModelError: it is no object, or a number in it is impossible.
        UnsafeModelError: it asks for code.
    """
    if config is None:
        return
    name = f"{repo}/generation_config.json"
    _check_values(object_of(config, name), name, 0)


_CONTENTS = ("vocab", "merges", "tokenizer_object")


def check_tokenizer_config(config: Any, repo: str, *, trusts_code: bool = False) -> None:
    """``tokenizer_config.json``, where there is one.

    Args:
        config: Its content.
        repo: For messages.
        trusts_code: Whether code of the repository may run.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: it asks for code, or for files elsewhere.
    """
    if config is None:
        return
    name = f"{repo}/tokenizer_config.json"
    found = object_of(config, name)
    _refuse_code(found, name, is_trusted=trusts_code)
    kind = found.get("tokenizer_class")
    if kind is not None and not (isinstance(kind, str) and _TOKENIZER.fullmatch(kind)):
        corrupt(name, f"tokenizer_class={kind!r:.60} must be the name of a class of tokenizers")
    added = found.get("added_tokens_decoder")
    if added is not None and (not isinstance(added, dict) or len(added) > _MOST_ADDED):
        corrupt(name, f"added_tokens_decoder must be an object of at most {_MOST_ADDED} tokens")
    length = found.get("model_max_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int | float)):
        corrupt(name, f"model_max_length={length!r:.40} must be a number of tokens")
    for key in _CONTENTS:  # transformers opens what they name, wherever that is
        if found.get(key) is not None:
            unsafe(name, f"{key} must not be here: a tokenizer's content is read from files of its own")
    for key, value in found.items():
        if key.endswith(("_file", "_files")):
            for each in value if isinstance(value, list) else [value]:
                if each is not None:
                    _check_file(name, key, each)


def _check_file(name: str, key: str, value: Any) -> str:
    try:
        return check_name(key, value)
    except InvalidNameError as problem:
        unsafe(name, str(problem))


def check_modules(modules: Any, repo: str) -> list[str]:
    """The folders that ``modules.json`` of sentence-transformers names.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: it names a class of another package, or a folder elsewhere.
    """
    name = f"{repo}/modules.json"
    if not isinstance(modules, list) or len(modules) > 32:
        corrupt(name, "must be a list of at most 32 modules")
    folders = []
    for module in modules:
        kind = object_of(module, name).get("type")
        parts = kind.split(".") if isinstance(kind, str) else []
        if len(parts) < 2 or parts[0] != "sentence_transformers" or not all(map(_IDENTIFIER.fullmatch, parts)):
            unsafe(name, f"type={kind!r:.80} must be a class of sentence_transformers")
        path = module.get("path")
        if path:
            folders.append(_check_file(name, "path", path))
    return folders
