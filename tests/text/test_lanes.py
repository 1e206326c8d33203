"""Parts of a batch side by side: the same numbers, the process's threads as they were, errors, the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabml.errors import InferenceError, ModelClosedError
from tabml.text import Reranker, TextClassifier, TextEmbedder, TokenClassifier
from tabml.text.batching import shares

TEXTS = [" ".join(["the lazy dog"] * (1 + at % 5)) for at in range(60)]
TinyModels = Callable[[str], Path]


@pytest.fixture
def three_threads() -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@given(st.lists(st.integers(1, 300)), st.integers(1, 5), st.integers(1, 100))
def test_parts_have_every_item_once_and_about_the_same_cost(costs: list[int], count: int, least: int) -> None:
    parts = shares(costs, count, least)
    assert sorted(at for part in parts for at in part) == list(range(len(costs)))
    assert len(parts) in (1, count)
    if len(parts) > 1:
        assert sum(costs) >= count * least
        assert max(len(part) * max(costs[at] for at in part) for part in parts) <= 1.6 * sum(costs) / count


def test_what_is_about_equal_is_shared() -> None:
    assert shares([20, 30, 20, 30], 2, 50) == [[1, 3], [0, 2]]
    assert shares([20, 30, 20, 30], 2, 51) == [[0, 1, 2, 3]]
    assert shares([100, 5, 5], 2, 50) == [[0, 1, 2]]


@pytest.fixture
def parts_seen(monkeypatch: pytest.MonkeyPatch, three_threads: None) -> list[tuple[int, int]]:
    """For each part the number of texts and of threads that computed it."""
    import torch

    from tabml.text._torch.encoders import Encoder

    seen: list[tuple[int, int]] = []
    call = Encoder.__call__

    def watched(self: Encoder, features: dict[str, Any]) -> Any:
        seen.append((len(features["input_ids"]), torch.get_num_threads()))
        return call(self, features)

    monkeypatch.setattr(Encoder, "__call__", watched)
    return seen


@pytest.mark.parametrize("recipe", ["sentence_bert", "sentence_dense", "sentence_causal", "sentence_t5"])
def test_vectors_of_parts_are_those_of_one_text_alone(
    recipe: str, tiny: TinyModels, parts_seen: list[tuple[int, int]]
) -> None:
    with TextEmbedder(tiny(recipe)) as model:
        alone = np.stack([model.embed([text], truncate=True)[0] for text in TEXTS])
        assert {threads for _, threads in parts_seen} == {3}
        parts_seen.clear()
        together = model.embed(TEXTS, truncate=True).vectors
        assert [threads for _, threads in parts_seen].count(1) >= 3
        assert sum(count for count, _ in parts_seen) == len(TEXTS)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_classes_ranks_and_entities_of_parts_are_those_of_one_text_alone(
    tiny: TinyModels, parts_seen: list[tuple[int, int]]
) -> None:
    with TextClassifier(tiny("classifier")) as model:
        wanted = [model.classify([text])[0].labels for text in TEXTS]
        for found, labels in zip(model.classify(TEXTS), wanted, strict=True):
            assert [one.label for one in found.labels] == [one.label for one in labels]
            assert [one.score for one in found.labels] == pytest.approx([one.score for one in labels], abs=1e-5)
    with Reranker(tiny("cross_encoder")) as ranker:
        alone = [ranker.rank("a fox", [text])[0].score for text in TEXTS]
        assert {one.index: one.score for one in ranker.rank("a fox", TEXTS)} == pytest.approx(
            dict(enumerate(alone)), abs=1e-5
        )
    with TokenClassifier(tiny("token_classifier")) as tagger:
        long = " ".join(TEXTS)
        parts_seen.clear()
        entities = tagger.extract([long], stride=8)[0]
        assert 1 in {threads for _, threads in parts_seen}
    import torch

    torch.set_num_threads(1)
    with TokenClassifier(tiny("token_classifier")) as tagger:
        assert [(one.label, one.start) for one in tagger.extract([long], stride=8)[0]] == [
            (one.label, one.start) for one in entities
        ]


def test_threads_that_come_later_compute_with_as_many_threads_as_before(tiny: TinyModels, three_threads: None) -> None:
    import torch

    with TextEmbedder(tiny("sentence_bert")) as model:
        model.embed(TEXTS)
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == torch.get_num_threads() == 3


def test_two_models_share_the_threads(tiny: TinyModels, three_threads: None) -> None:
    def lanes() -> int:
        return sum(thread.name.startswith("tabml lane") for thread in threading.enumerate())

    with TextEmbedder(tiny("sentence_bert")) as one, TextEmbedder(tiny("bert")) as other:
        one.embed(TEXTS)
        before = lanes()
        with ThreadPoolExecutor(2) as callers:
            list(callers.map(lambda model: model.embed(TEXTS), [one, other] * 5))
        assert lanes() == before


def test_a_part_that_fails_fails_the_call_and_not_the_model(
    tiny: TinyModels, three_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tabml.text._torch.encoders import Encoder

    with TextEmbedder(tiny("sentence_bert")) as model:
        wanted = model.embed(TEXTS).vectors
        call = Encoder.__call__

        def failing(self: Encoder, features: dict[str, Any]) -> Any:
            if features["input_ids"].shape[1] > 15:
                raise InferenceError("no")
            return call(self, features)

        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "__call__", failing)
            with pytest.raises(InferenceError, match="no"):
                model.embed(TEXTS)
        np.testing.assert_allclose(model.embed(TEXTS).vectors, wanted, atol=1e-6)


def test_a_model_whose_positions_change_with_the_length_computes_one_part_at_a_time() -> None:
    import torch
    import transformers

    from tabml.text._torch.lanes import lanes_of

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    plain = transformers.LlamaModel(transformers.LlamaConfig(vocab_size=64, **sizes))
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    changing = transformers.LlamaModel(transformers.LlamaConfig(vocab_size=64, rope_parameters=rope, **sizes))
    assert lanes_of(plain, torch.device("cpu")) == torch.get_num_threads()
    assert lanes_of(changing, torch.device("cpu")) == 1
    assert lanes_of(plain, torch.device("meta")) == 1


def test_a_model_with_one_lane_computes_every_batch_with_all_threads(
    tiny: TinyModels, parts_seen: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tabml.text._torch import encoders

    monkeypatch.setattr(encoders, "lanes_of", lambda model, device: 1)
    monkeypatch.setattr(encoders, "_CPU_TOKENS", 32)
    with TextEmbedder(tiny("sentence_bert")) as model:
        model.embed(TEXTS, truncate=True)
    assert len(parts_seen) > 2
    assert {threads for _, threads in parts_seen} == {3}


def test_a_model_that_closes_finishes_its_parts(tiny: TinyModels, three_threads: None) -> None:
    model = TextEmbedder(tiny("sentence_bert")).load()
    wanted = model.embed(TEXTS).vectors
    with ThreadPoolExecutor(2) as callers:
        jobs = [callers.submit(model.embed, TEXTS) for _ in range(6)]
        jobs[0].result()
        model.close()
    for job in jobs:
        try:
            np.testing.assert_allclose(job.result().vectors, wanted, atol=1e-6)
        except ModelClosedError:
            continue
