"""Packed linear layers against plain ones: how far each format is off, and what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tabml.text import GenerationOptions, TextEmbedder, TextGenerator

SAME = {"mkl", "blocked"}
KINDS = {"mkl": 1e-6, "blocked": 1e-6, "float16": 1e-3, "int8": 0.02, "int4": 0.2}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_layer_is_as_far_off_as_its_format(kind: str, bias: bool) -> None:
    import torch

    from tabml.text._torch.packing import _KINDS, kernels

    if kind not in kernels():
        pytest.skip(f"this processor has no {kind}")
    torch.manual_seed(0)
    layer_kind, dtype = _KINDS[kind]
    linear = torch.nn.Linear(128, 96, bias=bias)
    with torch.inference_mode():
        for shape in ((1, 128), (3, 7, 128), (1, 1, 128)):
            x = torch.randn(shape)
            packed = layer_kind(linear.to(dtype))(x.to(dtype)).float()
            wanted = linear.float()(x)
            assert packed.shape == wanted.shape
            error = float((packed - wanted).norm() / wanted.norm())
            assert error < KINDS[kind]
            assert kind in SAME or error > 1e-7  # or it would be no packing


def test_weights_that_float16_cannot_hold_stay_as_they_are() -> None:
    import torch

    from tabml.text._torch.packing import HalfLinear, kernels, pack

    assert "float16" in kernels()
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    with torch.no_grad():
        model[1].weight[0, 0] = 1e6
    assert pack(model, "float16") == 1
    assert isinstance(model[0], HalfLinear)
    assert isinstance(model[1], torch.nn.Linear)


def test_float16_on_a_cpu_halves_what_a_token_reads(tmp_path: Path) -> None:
    from tabml.bench.peers import random_llama

    random_llama(tmp_path / "model", 1 << 22, 2)
    read: dict[str, Any] = {}
    texts = {}
    for dtype in ("float32", "float16"):
        with TextGenerator(tmp_path / "model", dtype=dtype) as model:
            texts[dtype] = model.generate("w1 w2 w3", GenerationOptions(temperature=0, max_new_tokens=8)).text
            read[dtype] = model._ready().engine.bytes_a_token  # type: ignore[attr-defined]
    assert read["float16"] < 0.6 * read["float32"]
    assert texts["float16"] == texts["float32"]


def test_embeddings_of_float16_weights_point_where_they_did(minilm: Path) -> None:
    texts = ["a cat sat on the mat", "stocks fell today", "x"]
    with TextEmbedder(minilm) as whole, TextEmbedder(minilm, dtype="float16") as half:
        cosines = (whole.embed(texts).vectors * half.embed(texts).vectors).sum(1)
    assert cosines.min() > 0.9999
    assert cosines.max() < 1.0 + 1e-6
