"""Batches in few shapes that are recorded, as on a GPU, against what the same models give without."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traced

from tabml.text import (
    QuestionAnswerer,
    Reranker,
    TextClassifier,
    TextEmbedder,
    TokenClassifier,
    ZeroShotClassifier,
)  # fmt: skip

DEVICE = os.environ.get("TABML_TEST_DEVICE", "cpu")
TEXTS = ["hello", "the quick brown fox jumps over the lazy dog", "日本", "a photo of a cat. " * 3, "hello world " * 5]
TinyModels = Callable[[str], Path]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The recordings of all models that are loaded within; on a CPU programs of torch's operators."""
    from tabml.text._torch import encoders
    from tabml.text._torch.recording import Recordings, recordings_for

    made: list[Any] = []

    def make(device: Any) -> Any:
        made.append(recordings_for(device) if DEVICE == "cuda" else Recordings(traced.recorder))
        return made[-1]

    monkeypatch.setattr(encoders, "recordings_for", make)
    monkeypatch.setattr(encoders, "lanes_of", lambda model, device: 1)
    yield made
    assert any(each._recorded for each in made), "nothing was recorded, so the test showed nothing"


def numbers(results: Any) -> Any:
    """All floats of results, as an array."""
    found = [getattr(each, "score", each) for each in results]
    return np.array(found, np.float64)


@pytest.mark.parametrize("recipe", ["sentence_bert", "sentence_dense", "sentence_causal", "sentence_t5"])
def test_vectors_are_the_same(recipe: str, tiny: TinyModels, recorded: list[Any], monkeypatch: Any) -> None:
    with monkeypatch.context() as plain:
        plain.setattr("tabml.text._torch.encoders.recordings_for", lambda device: None)
        with TextEmbedder(tiny(recipe), device="cpu") as model:
            wanted = model.embed(TEXTS, truncate=True).vectors
            alone = [model.embed([text], prompt="query: ", truncate=True).vectors[0] for text in TEXTS]
    with TextEmbedder(tiny(recipe), device=DEVICE) as model:
        for _ in range(4):
            np.testing.assert_allclose(model.embed(TEXTS, truncate=True).vectors, wanted, atol=1e-5)
            for count in (1, 3, 5):  # rows that are no text's
                np.testing.assert_allclose(
                    model.embed(TEXTS[-count:], truncate=True).vectors, wanted[-count:], atol=1e-5
                )
            for text, vector in zip(TEXTS, alone, strict=True):
                np.testing.assert_allclose(
                    model.embed([text], prompt="query: ", truncate=True).vectors[0], vector, atol=1e-5
                )


@pytest.mark.parametrize("recipe", ["cross_encoder", "causal_reranker"])
def test_ranks_are_the_same(recipe: str, tiny: TinyModels, recorded: list[Any], monkeypatch: Any) -> None:
    with monkeypatch.context() as plain:
        plain.setattr("tabml.text._torch.encoders.recordings_for", lambda device: None)
        with Reranker(tiny(recipe), device="cpu") as model:
            wanted = {one.index: one.score for one in model.rank("where is the fox?", TEXTS)}
    with Reranker(tiny(recipe), device=DEVICE) as model:
        for _ in range(4):
            found = {one.index: one.score for one in model.rank("where is the fox?", TEXTS)}
            assert found == pytest.approx(wanted, abs=1e-5)


def test_labels_entities_and_answers_are_the_same(tiny: TinyModels, recorded: list[Any], monkeypatch: Any) -> None:
    def ask(device: str) -> list[Any]:
        found: list[Any] = []
        with TextClassifier(tiny("classifier"), device=device) as model:
            found += [numbers(each.labels) for _ in range(4) for each in model.classify(TEXTS)]
        with ZeroShotClassifier(tiny("inference_bart"), device=device) as model:
            found += [
                numbers(each.labels)
                for _ in range(4)
                for each in model.classify(TEXTS, ["fox", "cat", "nothing of it"])
            ]
        with TokenClassifier(tiny("token_classifier"), device=device) as model:
            found += [numbers(each) for _ in range(4) for each in model.extract(TEXTS)]
        with QuestionAnswerer(tiny("question_answerer"), device=device) as model:
            found += [numbers(model.answer("who jumps?", text, top_k=3)) for _ in range(4) for text in TEXTS]
        return found

    with monkeypatch.context() as plain:
        plain.setattr("tabml.text._torch.encoders.recordings_for", lambda device: None)
        wanted = ask("cpu")
    for one, other in zip(ask(DEVICE), wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert len(recorded) == 4


def test_batches_are_rounded_up_to_few_shapes() -> None:
    from tabml.text._torch.encoders import _RECORDED_TOKENS, _shape

    for rows in range(1, 300):
        for longest in (1, 2, 16, 17, 60, 100, 119, 120, 121):
            shape = _shape(rows, longest, 120)
            if shape is None:
                assert rows * longest > _RECORDED_TOKENS // 4 or rows > 256 or longest > 120
            else:
                assert shape[0] >= rows
                assert longest <= shape[1] <= 120, "a model has no position behind its last"
                assert shape[0] * shape[1] <= _RECORDED_TOKENS


def test_texts_of_all_lengths_are_one_batch_where_padding_is_free(tiny: TinyModels, recorded: list[Any]) -> None:
    with TextEmbedder(tiny("sentence_bert"), device=DEVICE) as model:
        served, sizes = model._ready().served, []
        compute = served.queue._compute
        served.queue._compute = lambda batch: (sizes.append(len(batch)), compute(batch))[1]
        for _ in range(3):
            model.embed(TEXTS)
    assert sizes == [len(TEXTS)] * 3


def test_recordings_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tabml.text._torch import recording

    monkeypatch.setattr(recording, "_MOST", 5)
    made: list[int] = []

    def recorder() -> Any:
        made.append(0)

        def record(compute: Callable[[], Any]) -> Any:
            made[-1] += 1
            return (lambda: None), compute()

        return record

    recordings = recording.Recordings(recorder)
    for shape in range(12):
        for _ in range(4):
            assert recordings.computed(shape, lambda shape=shape: (torch.tensor(shape),))[0] == shape
    assert made == [5, 5, 2]
