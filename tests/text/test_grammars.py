"""Schemas and expressions before any model sees them: what can't be compiled soon, or be matched at all, is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tabml.errors import OptionError
from tabml.text import GenerationOptions
from tabml.text.grammars import lark


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "number", "multipleOf": 0.01}, {"type": "integer", "multipleOf": 1000}, {"properties": {"multipleOf": {"type": "string"}}},
     {"allOf": [{"type": "integer", "multipleOf": each} for each in (2, 3, 5)]},
     {"properties": {"a": {"type": "number", "multipleOf": 0.0001}, "b": {"type": "integer", "multipleOf": 5000}}},
     {"const": {"multipleOf": 1_000_000}}, {"anyOf": [{"const": f"{each}"} for each in range(500)]}, {"type": "string", "maxLength": 100_000}],
    ids=lambda schema: json.dumps(schema)[:60],
)  # fmt: skip
def test_usual_schemas_pass(schema: dict[str, Any]) -> None:
    assert "%json" in (lark(GenerationOptions(json_schema=json.dumps(schema))) or "")


@pytest.mark.parametrize(
    "schema",
    [{"type": "integer", "multipleOf": 999_983}, {"properties": {"default": {"type": "integer", "multipleOf": 999_983}}},
     {"type": "number", "multipleOf": 1e-300},
     {"allOf": [{"type": "integer", "multipleOf": each} for each in (97, 89, 83)]}, {"type": "number", "multipleOf": 1e300},
     {"$ref": "#/$defs/a", "multipleOf": 997, "$defs": {"a": {"type": "integer", "multipleOf": 991}}}],
    ids=lambda schema: json.dumps(schema)[:60],
)  # fmt: skip
def test_numbers_that_would_compile_for_half_a_minute_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"^json_schema: multipleOf .* too many remainders"):
        lark(GenerationOptions(json_schema=json.dumps(schema)))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "#"}, "no text matches it"),
        ({"enum": []}, "Unsatisfiable schema: anyOf is empty"),
        (
            {"type": "integer", "minimum": 5, "maximum": 3},
            r"Unsatisfiable schema: minimum \(5\) is greater than maximum \(3\)",
        ),
        ({"type": "zzz"}, "Invalid type: zzz"),
    ],
)
def test_schemas_that_nothing_matches_are_told_in_the_callers_words(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=f"^json_schema: {said}$"):
        lark(GenerationOptions(json_schema=json.dumps(schema)))


@pytest.mark.parametrize(
    ("regex", "said"), [(r"[^\s\S]", "no text matches it"), ("(", 'invalid regex "\\(".*unclosed group')]
)
def test_so_are_expressions(regex: str, said: str) -> None:
    with pytest.raises(OptionError, match=f"^regex: {said}"):
        lark(GenerationOptions(regex=regex))


def test_an_expression_may_match_nothing_at_all() -> None:
    assert lark(GenerationOptions(regex="a*"))
