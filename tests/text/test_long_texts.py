"""Texts that are many times too long: refused or cut without being tokenized to their end, and cut where they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tabml.errors import OptionError
from tabml.text import GenerationOptions, TextEmbedder, TextGenerator
from tabml.text._torch.encoders import SafeTokenizer

TinyModels = Callable[[str], Path]

PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["hello you ", " ", "\n", "aaaa", "e\u0301", "漢字", "🙂🙂", "\u200b", "[SEP]", "x" * 300, "\x00"]),
)


@pytest.fixture(params=["right", "left"])
def side(request: pytest.FixtureRequest, tokenizer: SafeTokenizer) -> Iterator[str]:
    """On which a tokenizer cuts."""
    tokenizer.native.truncation_side = request.param
    yield request.param
    tokenizer.native.truncation_side = "right"


@pytest.fixture(scope="module", params=["sentence_bert", "cross_encoder", "sentence_t5", "nllb", "gpt2", "llama_chat"])
def tokenizer(request: pytest.FixtureRequest, tiny: TinyModels) -> SafeTokenizer:
    import transformers

    return SafeTokenizer(transformers.AutoTokenizer.from_pretrained(tiny(request.param)), 16)


def plain(tokenizer: SafeTokenizer, *texts: str) -> list[int]:
    """What transformers makes of the whole text."""
    found: Any = tokenizer(*([text] for text in texts), truncation="longest_first", max_length=tokenizer.limit)[
        "input_ids"
    ][0]
    return list(found)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, min_size=1, max_size=8), times=st.integers(1, 100), short=st.text(max_size=20))
def test_what_is_cut_is_what_was_cut_before(
    tokenizer: SafeTokenizer, side: str, pieces: list[str], times: int, short: str
) -> None:
    text = "".join(pieces) * times
    expected = plain(tokenizer, text)
    if not expected:
        return
    (found,) = tokenizer.encode([text], truncate=True)
    assert list(found.inputs["input_ids"]) == expected
    (pair,) = tokenizer.encode([text], [short], truncate=True)
    assert list(pair.inputs["input_ids"]) == plain(tokenizer, text, short)


def test_a_text_without_tokens_in_its_beginning_is_read_to_its_end(tiny: TinyModels) -> None:
    with TextEmbedder(tiny("sentence_bert")) as model:
        text = " " * 100_000 + "hello you"
        assert abs(model.embed([text]).vectors - model.embed(["hello you"]).vectors).max() < 1e-6


def test_what_is_too_long_is_told_by_its_beginning(tiny: TinyModels) -> None:
    with (
        TextEmbedder(tiny("sentence_bert")) as model,
        pytest.raises(OptionError, match=r"texts\[1\] has more than \d+ tokens; this model reads"),
    ):
        model.embed(["hello", "hello you " * 100_000])
    with TextGenerator(tiny("llama_chat")) as generator:
        for call in (
            lambda: generator.generate("hello you " * 800_000),
            lambda: generator.chat([{"role": "user", "content": "hello you " * 300_000}]),
        ):
            with pytest.raises(OptionError, match=r"prompt begins with .* and goes on; the context of"):
                call()
        assert generator.generate("hello", GenerationOptions(max_new_tokens=1)).text is not None
