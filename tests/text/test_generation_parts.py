"""What generation is made of: options, sampling, streaming text, tool calls."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabml.errors import OptionError
from tabml.generation.options import GenerationOptions
from tabml.generation.streaming import Detokenizer, StopScanner
from tabml.generation.tools import parse_tool_calls

BAD: list[dict[str, Any]] = [
    *({name: value} for name in ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty",
                                 "frequency_penalty", "presence_penalty", "max_time_s")
      for value in (math.nan, math.inf, -math.inf, -3, "1", True, 10**6)),
    *({name: value} for name in ("top_k", "max_new_tokens", "min_new_tokens", "n", "num_beams", "logprobs", "seed",
                                 "no_repeat_ngram_size") for value in (-1, 1.5, "1", True, 1 << 70)),
    {"temperature": 1e-40}, {"top_p": 0}, {"typical_p": 0}, {"repetition_penalty": 0}, {"max_new_tokens": 0},
    {"n": 0}, {"n": 1000}, {"num_beams": 0}, {"logprobs": 21}, {"min_new_tokens": 300},
    {"stop": [""]}, {"stop": ["x"] * 65}, {"stop": ["x" * 1025]}, {"stop": [1]}, {"bad_words": [None]},
    {"stop_token_ids": [-1]}, {"stop_token_ids": [1.5]}, {"stop_token_ids": "12"},
    {"logit_bias": {1: math.nan}}, {"logit_bias": {1: 101}}, {"logit_bias": {-1: 1}}, {"logit_bias": [1]},
    {"logit_bias": dict.fromkeys(range(2000), 1.0)},
    {"json_schema": "{"}, {"json_schema": "[1]"}, {"json_schema": {"a": {1, 2}}}, {"regex": ""}, {"regex": 5},
    {"regex": "a" * 70_000}, {"json_object": True, "regex": "a"}, {"num_beams": 2, "regex": "a"},
    {"num_beams": 2, "n": 3},
]  # fmt: skip


@pytest.mark.parametrize("options", BAD, ids=lambda each: repr(each)[:60])
def test_an_option_out_of_range_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        GenerationOptions(**options)
    assert any(name in str(caught.value) for name in options)
    assert len(str(caught.value)) < 300


def test_options_are_values() -> None:
    options = GenerationOptions(stop="end", json_schema={"type": "object"}, logit_bias={3: 1})
    assert options.stop == ("end",)
    assert json.loads(str(options.json_schema)) == {"type": "object"}
    assert options.changed() == {"stop": ("end",), "json_schema": '{"type": "object"}', "logit_bias": {3: 1.0}}
    assert GenerationOptions(temperature=0).greedy
    assert not GenerationOptions().greedy


WARPED: list[tuple[dict[str, Any], list[str]]] = [
    ({"top_p": 0.6}, ["TopP"]),
    ({"top_p": 0.999}, ["TopP"]),
    ({"top_k": 7}, ["TopK"]),
    ({"top_k": 20, "top_p": 0.5}, ["TopK", "TopP"]),
    ({"min_p": 0.1}, ["MinP"]),
    ({"typical_p": 0.5}, ["Typical"]),
    ({"temperature": 0.5, "top_p": 0.8}, ["Temperature", "TopP"]),
    ({"top_p": 0.9, "typical_p": 0.5}, ["TopP", "Typical"]),
    ({"top_p": 0.9, "min_p": 0.2}, ["TopP", "MinP"]),
    ({"temperature": 2.0, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.9},
     ["Temperature", "TopK", "TopP", "MinP", "Typical"]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "warpers"), WARPED, ids=lambda each: str(each)[:50])
def test_tokens_are_drawn_from_the_distribution_of_transformers(
    options: dict[str, Any], warpers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers

    from tabml.text._torch.sampling import Sampler

    arguments = {
        "TopP": "top_p",
        "TopK": "top_k",
        "MinP": "min_p",
        "Typical": "typical_p",
        "Temperature": "temperature",
    }
    chain = [getattr(transformers, f"{name}LogitsWarper")(options[arguments[name]]) for name in warpers]
    torch.manual_seed(1)
    scores = torch.randn(2000) * 3
    want = scores[None].clone()
    for warper in chain:
        want = warper(torch.zeros(1, 1, dtype=torch.long), want)
    probabilities = want[0].softmax(-1)
    drawn: list[Any] = []
    real = torch.searchsorted

    def watched(total: Any, *arguments: Any, **options: Any) -> Any:
        drawn.append(total[0].diff(prepend=torch.zeros(1)).float())
        return real(total, *arguments, **options)

    monkeypatch.setattr(torch, "searchsorted", watched)
    sampler = Sampler(GenerationOptions(seed=1, **options), [1], vocabulary=2000, end_ids=(0,))
    chosen = {sampler.choose(scores.clone()) for _ in range(50)}
    assert all(probabilities[token] > 0 for token in chosen)
    found, expected = (each[each > 0].sort().values for each in (drawn[0], probabilities))
    assert torch.allclose(found, expected, atol=1e-6)


def test_tokens_come_as_often_as_they_should() -> None:
    import torch

    from tabml.text._torch.sampling import Sampler, draw

    probabilities = torch.tensor([0.5, 0.0, 0.25, 0.15, 0.1])
    samplers = [Sampler(GenerationOptions(seed=seed), [1], vocabulary=5, end_ids=(0,)) for seed in range(4000)]
    counts = torch.bincount(torch.tensor(draw(samplers, probabilities.log().expand(4000, 5))), minlength=5) / 4000
    assert torch.allclose(counts, probabilities, atol=0.03)
    assert counts[1] == 0


def test_company_changes_no_draw() -> None:
    """Answers of all options at once, a flat distribution among them, where the best few hundred aren't enough."""
    import torch

    from tabml.text._torch.sampling import Sampler, draw

    torch.manual_seed(2)
    options = [{}, *(options for options, _ in WARPED), {"typical_p": 0.7}, {"top_k": 256}, {"top_k": 5000}]
    scores = torch.randn(len(options) * 2, 3000) * torch.tensor([0.1, 4.0]).repeat(len(options))[:, None]

    def samplers() -> list[Any]:
        return [
            Sampler(GenerationOptions(seed=at, **each), [1], vocabulary=3000, end_ids=(0,))
            for at, each in enumerate(each for each in options for _ in range(2))
        ]

    alone = samplers()
    together = samplers()
    for _ in range(5):
        assert draw(together, scores) == [each.choose(row.clone()) for each, row in zip(alone, scores, strict=True)]


def test_scores_that_are_no_numbers_are_no_token() -> None:
    import torch

    from tabml.text._torch.sampling import NONE_LEFT, Sampler, draw

    for options in ({}, {"top_p": 0.5}, {"top_k": 3}, {"typical_p": 0.5}):
        sampler = Sampler(GenerationOptions(seed=1, **options), [1], vocabulary=50, end_ids=(0,))
        assert draw([sampler], torch.full((1, 50), math.nan)) == [NONE_LEFT]


def bytes_of(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


@given(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"]), max_size=30), st.text(max_size=5))
def test_the_pieces_of_a_text_are_whole_characters_and_join(text: str, prompt: str) -> None:
    """The hardest tokenizer: one token a byte."""
    words = Detokenizer(bytes_of, list(prompt.encode(errors="ignore")))
    pieces = [words.add(byte) for byte in text.encode()]
    assert "".join(pieces) + words.rest() == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_characters_come_at_last() -> None:
    words = Detokenizer(bytes_of, [])
    assert "".join(words.add(0xFF) for _ in range(20)) + words.rest() == "\ufffd" * 20


@given(
    st.lists(st.text("abc", max_size=4), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_a_stop_is_found_wherever_pieces_cut_it(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    scanner, shown, ended = StopScanner(stops), "", False
    for at, piece in enumerate(pieces):
        new, ended = scanner.add(piece)
        shown += new
        if ended:
            text = "".join(pieces[: at + 1])
            break
        assert not any(stop in shown for stop in stops)
    found = [text.index(stop) for stop in stops if stop in text]
    assert ended == bool(found)
    assert shown + ("" if ended else scanner.rest()) == (text[: min(found)] if found else text)


CALLS = [
    '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
    '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}',
    '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]',
    '<|python_tag|>{"name": "add", "parameters": {"a": 1}}',
    '<function=add>{"a": 1}</function>',
    '{"name": "add", "parameters": {"a": 1}}',
    '{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}',
]


@pytest.mark.parametrize("text", CALLS)
def test_a_tool_call_is_read_as_models_write_it(text: str) -> None:
    before, calls = parse_tool_calls(text)
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("add", {"a": 1})]
    assert before == ""


def test_several_calls_after_a_text() -> None:
    text, calls = parse_tool_calls(f"I will add.\n{CALLS[0]}\n{CALLS[0].replace('add', 'sub')}")
    assert text == "I will add."
    assert [(call.name, call.id) for call in calls] == [("add", "call_0"), ("sub", "call_1")]


@pytest.mark.parametrize(
    "text", ["hello", '{"a": 1}', "[1, 2]", "<tool_call>broken", '{"name": 3, "arguments": {}}', "[" * 100_000, ""]
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert parse_tool_calls(text) == (text, ())


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            f'hi {CALLS[0]} mid <tool_call>{{"name": broken}}</tool_call>',
            'hi\nmid <tool_call>{"name": broken}</tool_call>',
        ),
        (f"{CALLS[0]} and that is all", "and that is all"),
        ('[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": 2}}, {"nme": "b"}]', '{"nme": "b"}'),
        (
            '<function=add>{"a": 1, "b": 2}</function> then <function=g>{bad</function>',
            "then <function=g>{bad</function>",
        ),
    ],
)
def test_what_is_no_call_beside_a_good_one_stays_text(text: str, left: str) -> None:
    found, calls = parse_tool_calls(text)
    assert found == left
    assert [call.name for call in calls] == ["add"]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n<function=add>{"a": 1}</function>\n</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"code": "<function=x>{}</function>"}}</tool_call>',
        '<function=add>{"s": "</tool_call>"}</function>',
    ],
)
def test_a_call_within_a_call_is_none_of_its_own(text: str) -> None:
    left, calls = parse_tool_calls(text)
    assert left == ""
    assert [call.name for call in calls] == ["add"]
