"""Answers out of a context, against the same sums done by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.errors import ModelKindError, OptionError
from tabml.text.questions import QuestionAnswerer

QUESTION = "what jumps over the dog?"
SHORT = "the quick brown fox jumps over Zoë in 日本"
LONG = "the quick brown fox jumps over 日本 Zoë ☃ . hello world how are you today ? " * 10
TinyModels = Callable[[str], Path]


def by_hand(folder: Path, context: str, most_tokens: int, impossible: bool) -> dict[tuple[int, int], float]:
    """Scores of all spans: softmax in each window over its context (and the first token), then the product."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    room = 64 - len(tokenizer(QUESTION, add_special_tokens=False).input_ids) - 3
    given = tokenizer(
        [QUESTION],
        [context],
        truncation="only_second",
        max_length=64,
        stride=min(32, room - 1),
        return_overflowing_tokens=True,
    )
    found: dict[tuple[int, int], float] = {}
    nothing = 1.0
    for row, encoding in enumerate(given.encodings):
        inputs = {key: torch.tensor([given[key][row]]) for key in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.inference_mode():
            output = model(**inputs)
        kept = np.array([part == 1 for part in encoding.sequence_ids])
        kept[0] = impossible
        start, end = (
            torch.tensor(np.where(kept, scores[0].numpy(), -1e4)).softmax(-1).numpy()
            for scores in (output.start_logits, output.end_logits)
        )
        if impossible:
            nothing = min(nothing, float(start[0] * end[0]))
        for first in range(1, len(kept)):
            for last in range(first, min(first + most_tokens, len(kept))):
                if kept[first] and kept[last]:
                    begin = encoding.word_to_chars(encoding.word_ids[first], 1)[0]
                    stop = encoding.word_to_chars(encoding.word_ids[last], 1)[1]
                    found[begin, stop] = max(found.get((begin, stop), 0.0), float(start[first] * end[last]))
    if impossible:
        found[0, 0] = nothing
    return found


@pytest.mark.parametrize("context", [SHORT, LONG])
@pytest.mark.parametrize("impossible", [False, True])
@pytest.mark.parametrize("most", [1, 15])
def test_the_best_spans_are_those_done_by_hand(context: str, impossible: bool, most: int, tiny: TinyModels) -> None:
    folder = tiny("question_answerer")
    with QuestionAnswerer(folder) as model:
        found = model.answer(QUESTION, context, top_k=5, max_answer_tokens=most, impossible=impossible)
    wanted = by_hand(folder, context, most, impossible)
    best = sorted(wanted.values(), reverse=True)
    assert found[0].score == pytest.approx(best[0], rel=1e-4)
    for one in found:
        assert wanted[one.start, one.end] == pytest.approx(one.score, rel=1e-4)
        assert one.text == context[one.start : one.end]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len({(one.start, one.end) for one in found}) == len(found)


def test_answers_end_at_words(tiny: TinyModels) -> None:
    with QuestionAnswerer(tiny("question_answerer")) as model:
        for one in model.answer(QUESTION, SHORT, top_k=20):
            assert one.start == 0 or not SHORT[one.start - 1].isalpha() or not SHORT[one.start].isascii()


@pytest.mark.parametrize(
    ("question", "context", "options"),
    [
        ("", SHORT, {}),
        (QUESTION, " ", {}),
        (5, SHORT, {}),
        (QUESTION, [SHORT], {}),
        (QUESTION, "\udc00", {}),
        (QUESTION, "a" * (2 << 20), {}),
        ("what is it? " * 50, SHORT, {}),
        (QUESTION, SHORT, {"top_k": 0}),
        (QUESTION, SHORT, {"max_answer_tokens": 0}),
    ],
)
def test_bad_input_is_refused(question: Any, context: Any, options: dict[str, Any], tiny: TinyModels) -> None:
    with QuestionAnswerer(tiny("question_answerer")) as model, pytest.raises(OptionError):
        model.answer(question, context, **options)


def test_the_async_twin_gives_the_same(tiny: TinyModels) -> None:
    with QuestionAnswerer(tiny("question_answerer")) as model:
        assert asyncio.run(model.answer_async(QUESTION, SHORT, top_k=2)) == model.answer(QUESTION, SHORT, top_k=2)


def test_a_model_of_another_kind_is_refused(tiny: TinyModels) -> None:
    with QuestionAnswerer(tiny("masked")) as model, pytest.raises(ModelKindError, match="fill-mask"):
        model.load()


def test_a_context_without_tokens_is_told(tiny: TinyModels) -> None:
    with (
        QuestionAnswerer(tiny("question_answerer")) as model,
        pytest.raises(OptionError, match="context has no tokens"),
    ):
        model.answer("who?", "\u200b\u200b")
