"""Output that must match a JSON Schema or a regular expression, as a grammar that every engine can read."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from tabml.errors import MissingExtraError, OptionError
from tabml.generation.options import GenerationOptions

TOO_COMPLICATED = "is more complicated than llguidance can follow; make it simpler"
_MOST_REMAINDERS, _MOST_PLACES = 100_000, 20
_DATA = ("const", "enum", "default", "examples")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_JOINING = ("allOf", "anyOf", "oneOf", "if", "then", "else")
_MOST_JOINED = 300
_PLACE = re.compile(r"\s*((\d+)? \||\^\s*$)")
_BEGIN = re.compile(r"^(at \d+\(\d+\): )?(failed to compile JSON schema: )?")
_JSON_OBJECT = '{"type": "object"}'


def lark(options: GenerationOptions) -> str | None:
    """The grammar in llguidance's dialect of Lark, compiled once to see that it is one; None when none is asked for.

    Raises:
        OptionError: the schema or expression can't be compiled, or no text matches it.
        MissingExtraError: llguidance is not installed.
    """
    kind = options.grammar
    if kind is None:
        return None
    try:
        from llguidance import LLMatcher, LLTokenizer
    except ImportError as problem:
        raise MissingExtraError("text", "llguidance") from problem
    try:
        if kind == "regex":
            begin = json.loads(LLMatcher.grammar_from_regex(options.regex))["grammars"][0]["lark_grammar"]
        else:
            schema = json.loads(str(options.json_schema if kind == "json_schema" else _JSON_OBJECT))
            _check_multiples(schema)
            begin = f"start: %json {json.dumps(schema)}"
        grammar = f"%llguidance {{}}\n{begin}"
        tokenizer = LLTokenizer("byte")
        matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        said = matcher.get_error()
    except ValueError as problem:
        said = str(problem)
    if said:
        raise OptionError(f"{kind}: {_without_place(said)}")
    if not matcher.is_accepting() and _only(matcher.compute_bitmask(), tokenizer.eos_token):
        raise OptionError(f"{kind}: no text matches it")
    return grammar


def _without_place(said: str) -> str:
    """What llguidance says, without where it is in a grammar that the caller never wrote."""
    lines = [line for line in said.splitlines() if not _PLACE.match(line)]
    return _BEGIN.sub("", " ".join(" ".join(lines).split()))[:200]


def _only(mask: bytes, token: int) -> bool:
    """Whether a mask allows this token alone."""
    bits = int.from_bytes(mask, "little")
    return bits == 1 << token


def _check_multiples(schema: Any) -> None:
    """Refuse numbers for which llguidance would make a state for each remainder: a million take 20 seconds."""
    left = [schema] if '"multipleOf"' in json.dumps(schema) else []
    while left:
        part = left.pop()
        if isinstance(part, list):
            left.extend(part)
        elif isinstance(part, dict):
            _check_joined(_joined(part, schema))
            for key, value in part.items():
                if key in _BY_NAME and isinstance(value, dict):
                    left.extend(value.values())
                elif key not in _DATA:
                    left.append(value)


def _joined(part: dict[str, Any], schema: Any) -> set[Decimal]:
    """The numbers that a value must be a multiple of at the same time, by one object of a schema and those it joins."""
    found: set[Decimal] = set()
    seen: set[int] = set()
    left: list[Any] = [part]
    while left:
        each = left.pop()
        if not isinstance(each, dict) or id(each) in seen:
            continue
        seen.add(id(each))
        if len(seen) > _MOST_JOINED:
            raise ValueError(f"it joins more than {_MOST_JOINED} schemas, and has multipleOf; make it simpler")
        said = each.get("multipleOf")
        if isinstance(said, int | float) and not isinstance(said, bool) and 0 < said < math.inf:
            found.add(Decimal(str(said)))
        for key in _JOINING:
            inner = each.get(key)
            left.extend(inner if isinstance(inner, list) else [inner])
        left.append(_referred(each.get("$ref"), schema))
    return found


def _referred(reference: Any, schema: Any) -> Any:
    """What a reference within the schema leads to."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    for part in reference[2:].split("/"):
        schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    return schema


def _check_joined(found: set[Decimal]) -> None:
    places = max((-int(each.normalize().as_tuple().exponent) for each in found), default=0)
    if places > _MOST_PLACES or math.lcm(*(int(each.scaleb(max(0, places))) for each in found)) > _MOST_REMAINDERS:
        shown = ", ".join(sorted(map(str, found))[:5])
        raise ValueError(
            f"multipleOf {shown} has too many remainders; their least common multiple can be {_MOST_REMAINDERS} at the most"
        )


class Follower:
    """Sees whether an answer that grows keeps to its grammar."""

    def __init__(self, grammar: str) -> None:
        from llguidance import LLMatcher, LLTokenizer

        self._native = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(grammar), log_level=0)

    def add(self, text: str) -> bool:
        """Go on by ``text``; False when it can't be, or nobody can tell."""
        content = text.encode()
        return bool(self._native.try_consume_tokens(list(content)) == len(content))
