"""Packed linear layers against plain ones: how far each format is off, and what it holds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tabml.text import GenerationOptions, TextEmbedder, TextGenerator

FORMATS = {
    "mkl": ("MklLinear", "float32", 1e-6),
    "blocked float32": ("BlockedLinear", "float32", 1e-6),
    "blocked bfloat16": ("BlockedLinear", "bfloat16", 0.01),
    "rows float32": ("RowsLinear", "float32", 1e-6),
    "rows bfloat16": ("RowsLinear", "bfloat16", 0.01),
    "float16": ("HalfLinear", "float32", 1e-3),
    "int8": ("Int8Linear", "float32", 0.01),
    "int4": ("Int4Linear", "float32", 0.1),
}
"""Class, number format of the model, and how far off the products may be."""
SHAPES = ((1, 128), (3, 7, 128), (1, 1, 128), (128,), (40, 128), (0, 128))


@pytest.fixture(params=[False, True], ids=["plain", "compiled"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the compiled kernels and without, as before they are loaded."""
    from tabml.text._torch.kernels import door

    assert door.TOKENS.wait() is not None
    if not request.param:
        monkeypatch.setattr(door.TOKENS, "found", None)
    return bool(request.param)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_a_packed_layer_is_as_far_off_as_its_format(form: str, bias: bool) -> None:
    import torch

    from tabml.text._torch import packing

    name, dtype, most = FORMATS[form]
    if form in packing._LAYOUTS and form not in packing.layouts():
        pytest.skip(f"this torch and processor have no {form}")
    torch.manual_seed(0)
    linear = torch.nn.Linear(128, 97, bias=bias).requires_grad_(False)
    number = getattr(torch, dtype)
    packed = getattr(packing, name)(copy.deepcopy(linear).to(number))
    for shape in SHAPES:
        x = torch.randn(shape)
        found, wanted = packed(x.to(number)), linear(x)
        assert found.shape == wanted.shape
        assert found.dtype is number
        if x.numel():
            error = float((found.float() - wanted).norm() / wanted.norm())
            assert error < most
            assert most < 1e-5 or error > 1e-6  # or it would be no packing


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", ["RowsLinear", "HalfLinear", "Int8Linear", "Int4Linear"])
def test_what_does_not_fit_is_refused_before_a_kernel_reads_it(name: str) -> None:
    import torch

    from tabml.text._torch import packing

    packed = getattr(packing, name)(torch.nn.Linear(64, 96).requires_grad_(False))
    for x in (torch.ones(2, 63), torch.ones(2, 64, device="meta")):
        with pytest.raises(RuntimeError, match="64 columns"):
            packed(x)
    with pytest.raises(NotImplementedError, match="not for compiled kernels"):
        getattr(packing, name)(torch.nn.Linear(33, 96).requires_grad_(False))


@pytest.mark.parametrize("name", ["RowsLinear", "HalfLinear", "Int8Linear", "Int4Linear"])
def test_kernels_give_what_the_unpacked_weights_do(name: str) -> None:
    """For every number of rows, of outputs that are no multiple of what a kernel computes at a time, by any number of threads."""
    import torch

    from tabml.text._torch import packing
    from tabml.text._torch.kernels import door

    assert door.TOKENS.wait() is not None
    usual = torch.get_num_threads()
    torch.manual_seed(0)
    try:
        for inputs, outputs in ((32, 4), (96, 7), (64, 130), (576, 1537)):
            packed = getattr(packing, name)(torch.nn.Linear(inputs, outputs).requires_grad_(False))
            weight = packed.unpacked(torch.float32)
            for rows in (1, 2, 3, 4, 5, 8, 31, 32, 33):
                torch.set_num_threads(1 + rows % 3)
                x = torch.randn(rows, inputs)
                wanted = torch.nn.functional.linear(x, weight, packed.bias)
                assert float((packed(x) - wanted).norm() / wanted.norm()) < 2e-6
                turned = torch.randn(inputs, rows).t()
                wanted = torch.nn.functional.linear(turned, weight, packed.bias)
                assert float((packed(turned) - wanted).norm() / wanted.norm()) < 2e-6
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize("possible", [False, True])
def test_weights_stay_in_rows_only_where_kernels_may_be_had(possible: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tabml.text._torch import packing
    from tabml.text._torch.kernels import door

    monkeypatch.setattr(door, "possible", lambda: possible)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64)).bfloat16().requires_grad_(False)
    packing.pack(model, None)
    others = "BlockedLinear" if "blocked bfloat16" in packing.layouts() else "Linear"
    assert type(model[0]).__name__ == ("RowsLinear" if possible else others)


def test_weights_that_float16_cannot_hold_stay_as_they_are() -> None:
    import torch

    from tabml.text._torch.packing import HalfLinear, pack

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    with torch.no_grad():
        model[1].weight[0, 0] = 1e6
    assert pack(model, "float16") == 1
    assert isinstance(model[0], HalfLinear)
    assert isinstance(model[1], torch.nn.Linear)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_layers_of_shapes_that_no_kernel_knows_stay_as_they_are(kind: str) -> None:
    import torch

    from tabml.text._torch.packing import pack

    model = torch.nn.Sequential(torch.nn.Linear(64, 100), torch.nn.Linear(100, 64))
    assert pack(model, kind) == 1
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
