"""Vectors by kernels alone, from tokens on: what the model's own forward and the pooling give, and only where tables have it all."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import bert_like  # noqa: E402

from tabml.text import TextEmbedder  # noqa: E402
from tabml.text._torch import packing, stack  # noqa: E402
from tabml.text._torch.encoders import Encoded  # noqa: E402
from tabml.text._torch.kernels import door  # noqa: E402
from tabml.text._torch.sentence import Pooling  # noqa: E402
from tabml.text._torch.whole import WholeTexts  # noqa: E402

LENGTHS = (3, 40, 1, 17)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> door.TextKernels:
    """Loaded; layers are packed by MKL, whatever is quicker here."""
    if "mkl" not in packing.layouts():
        pytest.skip("this torch has no MKL in it")
    monkeypatch.setattr(packing, "mkl_is_quick", lambda: True)
    found = door.TEXTS.wait()
    assert found is not None
    return found


def made(kind: str, form: str = "float32", **changed: Any) -> Any:
    """A small model, packed and stacked."""
    model = bert_like.build(kind, max_position_embeddings=64, **({"embedding_size": 96} | changed))
    if form == "int8":
        model = model.bfloat16()
    packing.pack(model, None if form == "float32" else form, many_rows=True)
    stack.stacked(model)
    return model


def texts(lengths: Sequence[int] = LENGTHS, types: bool = True) -> list[Encoded]:
    """Of these lengths; the second half of each is another one."""
    chosen = np.random.default_rng(3)
    return [
        Encoded(
            {"input_ids": chosen.integers(3, 128, length).tolist()}
            | ({"token_type_ids": [int(at > length // 2) for at in range(length)]} if types else {})
        )
        for length in lengths
    ]


def by_torch(model: Any, batch: Sequence[Encoded], mode: str) -> Any:
    """The same by the model's own forward, and the pooling of sentence-transformers."""
    pad = model.config.pad_token_id or 0
    mask = torch.arange(max(one.length for one in batch)) < torch.tensor([one.length for one in batch])[:, None]
    features = {}
    for name in batch[0].inputs:
        features[name] = torch.full(mask.shape, pad if name == "input_ids" else 0)
        features[name][mask] = torch.tensor([value for one in batch for value in one.inputs[name]])
    with torch.inference_mode():
        tokens = model(**features, attention_mask=mask.long()).last_hidden_state
        return Pooling([mode])(tokens, mask.long(), 0).float()


@pytest.mark.parametrize("form", ["float32", "int8"])
@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("kind", bert_like.KINDS)
def test_vectors_are_those_of_the_models_own_forward(
    kind: str, mode: str, form: str, kernels: door.TextKernels
) -> None:
    if form == "int8" and not kernels.multiplies_bytes:
        pytest.skip("this processor has no VNNI")
    model = made(kind, form)
    whole = WholeTexts.of(model, (mode,))
    assert whole is not None
    several = kind not in ("distilbert", "roberta", "xlm-roberta", "camembert", "data2vec")
    batch = texts(types=several)
    plain = partial(by_torch, model, mode=mode)
    found, wanted = whole(batch, plain), plain(batch)
    assert found is not None
    assert float((found - wanted).norm() / wanted.norm()) < (1e-6 if form == "float32" else 0.05)
    if several:
        assert not torch.allclose(whole(texts(types=False), plain), found, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "changed", "modes"),
    [
        ("bert", {}, ("max",)),
        ("bert", {}, ("mean", "cls")),
        ("bert", {"hidden_act": "relu"}, ("mean",)),
        ("electra", {"embedding_size": 32}, ("mean",)),
        ("ernie", {"use_task_id": True}, ("mean",)),
    ],
    ids=["max", "two", "layers", "projection", "tasks"],
)
def test_models_of_another_kind_go_the_other_way(kind: str, changed: dict[str, Any], modes: tuple[str, ...]) -> None:
    assert WholeTexts.of(made(kind, **changed), modes) is None


@pytest.mark.parametrize(
    ("kind", "ids", "types"),
    [
        ("bert", [5, 128], [0, 0]),
        ("bert", [5, -1], [0, 0]),
        ("bert", [5, 6], [0, 2]),
        ("bert", [5] * 65, [0] * 65),
        ("bert", [], []),
        ("roberta", [5] * 63, [0] * 63),
        ("roberta", [5, 1, 6], [0] * 3),
    ],
    ids=["id", "negative", "type", "position", "nothing", "position of roberta", "padding of roberta"],
)
def test_what_tables_do_not_have_is_not_looked_up(kind: str, ids: list[int], types: list[int]) -> None:
    model = made(kind)
    whole, plain = WholeTexts.of(model, ("mean",)), partial(by_torch, model, mode="mean")
    assert whole is not None
    fine = Encoded({"input_ids": [5, 6], "token_type_ids": [0, 0]})
    assert whole([fine], plain) is not None
    assert whole([fine, Encoded({"input_ids": ids, "token_type_ids": types})], plain) is None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, bool]]]:
    """For each batch how many texts, and whether kernels computed it."""
    seen: list[tuple[int, bool]] = []
    call = WholeTexts.__call__

    def watched(self: WholeTexts, batch: Sequence[Encoded], plain: Any) -> Any:
        found = call(self, batch, plain)
        seen.append((len(batch), found is not None))
        return found

    monkeypatch.setattr(WholeTexts, "__call__", watched)
    return seen


def test_real_weights_give_the_same_vectors(
    minilm: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[int, bool]]
) -> None:
    said = ["a cat sat on the mat", "stocks fell today", "", "eine Katze " * 40, "x"]
    with monkeypatch.context() as patch, TextEmbedder(minilm) as model:
        patch.setattr(door, "TEXTS", door.Loader(lambda: pytest.fail("loaded")))
        wanted = model.embed(said).vectors
    assert not any(computed for _, computed in asked)
    asked.clear()
    with TextEmbedder(minilm) as model:
        first, found, single = model.embed(said).vectors, model.embed(said).vectors, model.embed(said[:1]).vectors
        np.testing.assert_allclose(model.embed(said, normalize=False, dimensions=8).vectors.shape, (5, 8))
    assert all(computed for _, computed in asked)
    for each in (first, found):
        np.testing.assert_allclose(each, wanted, atol=1e-6)
    np.testing.assert_allclose(single, wanted[:1], atol=1e-6)


def test_kernels_that_compute_something_else_are_not_believed(
    minilm: Path,
    kernels: door.TextKernels,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: list[tuple[int, bool]],
) -> None:
    with TextEmbedder(minilm) as model:
        wanted = model.embed(["a cat sat on the mat"]).vectors
    asked.clear()

    def wrong(x: int, starts: int, count: int, width: int, mean: int, y: int) -> None:
        kernels.pool(x, starts, count, width, 1 - mean, y)

    monkeypatch.setattr(door.TEXTS, "found", kernels._replace(pool=wrong))
    with TextEmbedder(minilm) as model, caplog.at_level(logging.WARNING, "tabml.text"):
        for _ in range(3):
            np.testing.assert_allclose(model.embed(["a cat sat on the mat"]).vectors, wanted, atol=1e-6)
    assert caplog.text.count("off by") == 1
    assert not any(computed for _, computed in asked)


def test_a_closed_model_lets_its_weights_go(minilm: Path) -> None:
    with TextEmbedder(minilm) as model:
        for _ in range(3):
            model.embed(["a cat"])
        gone = weakref.ref(model._ready().encoder.model.embeddings.word_embeddings)
        assert gone() is not None
    gc.collect()
    assert gone() is None
