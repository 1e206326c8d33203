"""``tokenizer.json``: what makes the tokenizers library abort the process, or grow without end."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tabml.text.checks.refusals import corrupt, object_of, unsafe

_MAX_DEPTH = 16
_MAX_EXPANSION = 64.0
_MAX_RULES = 256
_MAX_PATTERN = 1000
_MAX_PADDING = 1 << 20
_MAX_MULTIPLE = 1 << 16
_MAX_WORD = 1000
_MAX_PIECE = 64
_MAX_PIECES = 256
_MAX_ADDED = 1 << 15


def check_tokenizer(content: bytes, repo: str) -> None:
    """``tokenizer.json``, when the native library lives through it.

    Fixed padding of 10^10, rules that blow up a text and tables that lie about their size abort the process.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: a rule would fill the memory.
    """
    name = f"{repo}/tokenizer.json"
    try:
        read = json.loads(content)
    except (ValueError, RecursionError) as problem:
        corrupt(name, f"is not JSON: {problem}")
    found = object_of(read, name)
    _check_vocabulary(found.get("model"), name)
    added = found.get("added_tokens")
    if added is not None and not (isinstance(added, list) and all(map(_is_added, added))):
        corrupt(name, "added_tokens must be a list of objects with an id and a content")
    if added is not None and len(added) > _MAX_ADDED:
        corrupt(name, f"has {len(added)} added_tokens; the limit is {_MAX_ADDED}")
    _check_padding(found, name)
    expansion = 1.0
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        for count, rule in enumerate(_rules(found.get(part), name, 0)):
            if count == _MAX_RULES:
                unsafe(name, f"{part} has more than {_MAX_RULES} rules")
            _check_rule(rule, part, name)
            expansion *= _growth(rule, part, name)
            if expansion > _MAX_EXPANSION:
                unsafe(name, f"its rules can make a text {expansion:.3g} times as long")


def _is_added(token: Any) -> bool:
    return isinstance(token, dict) and _is_id(token.get("id")) and isinstance(token.get("content"), str)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _check_vocabulary(model: Any, name: str) -> None:
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list) or not model["vocab"]:
        corrupt(name, "has no model with a vocabulary")
    kind, vocab, merges = model.get("type"), model["vocab"], model.get("merges") or []
    if kind not in (None, "BPE", "WordPiece", "WordLevel", "Unigram"):  # files of old have no type
        corrupt(name, f"model.type={kind!r:.40} must be BPE, WordPiece, WordLevel or Unigram")
    if (kind == "Unigram") != isinstance(vocab, list) and kind is not None:
        corrupt(name, f"the vocabulary of {kind} is of another kind")
    if isinstance(vocab, dict):
        good = all(map(_is_id, vocab.values()))
    else:
        good = all(
            isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and type(row[1]) in (int, float)
            for row in vocab
        )
    if not good:
        corrupt(name, "the vocabulary must give each token an id, or a score in a list")
    prefix = model.get("continuing_subword_prefix") or ""
    if not isinstance(merges, list) or not all(map(_is_merge, merges)):
        corrupt(name, "merges must be a list of pairs")
    if not isinstance(prefix, str) or len(prefix) > _MAX_PIECE:
        corrupt(name, "continuing_subword_prefix must be a short text")
    if merges and prefix and not all(_second(merge).startswith(prefix) for merge in merges):
        corrupt(name, f"a merge does not begin with continuing_subword_prefix={prefix!r:.40}")
    word = model.get("max_input_chars_per_word")
    if word is not None and not (type(word) is int and 0 <= word <= _MAX_WORD):
        unsafe(name, f"max_input_chars_per_word={word!r:.40} must be a whole number from 0 to {_MAX_WORD}")


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
            corrupt(name, f"{part} must be an object")
        strategy = value.get("strategy")
        numbers.append(("pad_to_multiple_of", value.get("pad_to_multiple_of"), _MAX_MULTIPLE))
        numbers.append(("padding", strategy.get("Fixed") if isinstance(strategy, dict) else None, _MAX_PADDING))
        numbers.append(("max_length", value.get("max_length"), (1 << 63) - 1))
        numbers.append(("stride", value.get("stride"), _MAX_PADDING))
    for key, value, most in numbers:
        if value is not None and not (type(value) is int and 0 <= value <= most):
            unsafe(name, f"{key}={value!r:.40} must be a whole number from 0 to {most}")


def _rules(rule: Any, name: str, depth: int) -> Iterator[Mapping[str, Any]]:
    """A rule and those in it."""
    if rule is None:
        return
    if depth > _MAX_DEPTH or not isinstance(rule, dict):
        corrupt(name, "has rules that are no objects, or nested too deeply")
    yield rule
    for key in ("normalizers", "pretokenizers", "decoders", "processors"):
        inner = rule.get(key)
        if inner is None:
            continue
        if not isinstance(inner, list):
            corrupt(name, f"{key} must be a list")
        for each in inner:
            yield from _rules(each, name, depth + 1)


def _check_rule(rule: Mapping[str, Any], part: str, name: str) -> None:
    """What the library panics at, which is no ``Exception``."""
    kind = rule.get("type")
    if kind == "FixedLength" and not (type(length := rule.get("length")) is int and length > 0):
        corrupt(name, "a FixedLength rule needs a length of at least 1")
    if kind == "Strip" and part == "decoder":
        start, stop = rule.get("start"), rule.get("stop")
        if not (type(start) is int and type(stop) is int and 0 <= start <= 1 and 0 <= stop <= 1 and start + stop < 2):
            unsafe(name, f"a Strip rule of start={start!r:.20} and stop={stop!r:.20} ends the process on short tokens")
    if kind == "TemplateProcessing":
        known, pieces = rule.get("special_tokens") or {}, []
        for key in ("single", "pair"):
            pieces += [each for each in rule.get(key) or [] if isinstance(each, dict)]
        count = len(pieces) + sum(
            len(each["ids"])
            for each in (known.values() if isinstance(known, dict) else ())
            if isinstance(each, dict) and isinstance(each.get("ids"), list)
        )
        if count > _MAX_PIECES:
            corrupt(name, f"a TemplateProcessing rule has {count} pieces; the limit is {_MAX_PIECES}")
        for piece in pieces:
            token = piece.get("SpecialToken")
            if token is not None and not (
                isinstance(token, dict)
                and isinstance(known, dict)
                and isinstance(known.get(str(token.get("id"))), dict)
            ):
                corrupt(name, f"a TemplateProcessing rule uses {token!r:.60}, which its special_tokens don't have")


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
            corrupt(name, "a Replace rule needs a pattern and a content")
        if expression is not None:
            if len(expression) > _MAX_PATTERN:
                unsafe(name, f"a pattern has more than {_MAX_PATTERN} characters")
            if simple := _PLAIN_PATTERN.fullmatch(expression):
                return max(1.0, len(content) / int(simple[1] or 1))
            return max(1.0, float(len(content)) + 1)  # it may match nothing between all characters
        return max(1.0, len(content) / len(plain)) if plain else float(len(content)) + 1
    if kind == "Prepend":
        prefix = rule.get("prepend")
        if not isinstance(prefix, str) or len(prefix) > _MAX_PATTERN:
            corrupt(name, "a Prepend rule needs a short text")
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
        corrupt(name, "precompiled_charsmap must be base64")
    size = int.from_bytes(content[:4], "little")
    if len(content) < 8 or size % 4 or not 4 <= size <= len(content) - 4:
        corrupt(name, f"precompiled_charsmap says that {size} of its {len(content)} bytes are a trie")
    try:
        content[4 + size :].decode()
    except UnicodeDecodeError:
        corrupt(name, "the texts of precompiled_charsmap are not UTF-8")
    longest = max(map(len, content[4 + size :].split(b"\0")))
    if longest > _MAX_PIECE:
        unsafe(name, f"precompiled_charsmap puts {longest} bytes in place of a character; the limit is {_MAX_PIECE}")
    return max(4, longest)
