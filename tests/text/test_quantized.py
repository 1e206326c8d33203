"""Products of bytes against whole numbers, and which encoders compute with them."""

from __future__ import annotations

import ctypes
import logging
import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import bert_like  # noqa: E402

from tabml.text._torch import packing, stack  # noqa: E402
from tabml.text._torch.kernels import door  # noqa: E402

GUARD = bytes(range(256))


@pytest.fixture
def kernels() -> door.TextKernels:
    """Skips where the processor has no instruction for it."""
    found = door.TEXTS.wait()
    assert found is not None
    if not found.multiplies_bytes:
        pytest.skip("this processor has no VNNI")
    return found


def linear(inputs: int, outputs: int, bias: bool = True) -> Any:
    torch.manual_seed(inputs * outputs)
    return torch.nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def in_whole_numbers(x: Any, weight: Any) -> Any:
    """x · Wᵀ as it should be rounded."""
    scale = weight.abs().amax(1) / 127
    w = (weight / scale[:, None]).round()
    low, high = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
    step = (high - low) / 255
    step[step == 0] = 1
    zero = (-low / step).round()
    q = ((x / step[:, None]) + zero[:, None]).round().clamp(0, 255)
    return ((q - zero[:, None]).double() @ w.double().t()) * step[:, None] * scale


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (96, 80), (384, 16), (160, 208), (1536, 384)])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 11, 100])
def test_products_are_those_of_rounded_numbers(
    rows: int, inputs: int, outputs: int, threads: int, kernels: door.TextKernels
) -> None:
    plain = linear(inputs, outputs, bias=False)
    x = torch.randn(rows, inputs) * torch.logspace(-3, 3, rows)[:, None] + torch.randn(rows, 1)
    found, wanted = packing.BytesLinear(plain, kernels)(x), in_whole_numbers(x, plain.weight)
    # a number in the middle of two may be rounded to either
    off = (found - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert off.median() < 1e-5
    assert off.max() < 5e-3
    exact = x @ plain.weight.t()
    assert float((found - exact).norm() / exact.norm()) < 0.02


def test_rows_may_be_alike_or_of_one_sign(kernels: door.TextKernels) -> None:
    plain = linear(64, 96)
    layer = packing.BytesLinear(plain, kernels)
    x = torch.stack([torch.zeros(64), torch.ones(64), -torch.ones(64), 5 + torch.rand(64), -5 - torch.rand(64)])
    found = layer(x)
    assert torch.allclose(found[0], plain.bias)
    assert float((found - plain(x)).norm() / plain(x).norm()) < 0.01
    assert layer(x[None, :2, None]).shape == (1, 2, 1, 96)
    assert layer(x[:0]).shape == (0, 96)
    assert layer(x.bfloat16()).dtype is torch.bfloat16
    with pytest.raises(RuntimeError, match="64 columns"):
        layer(torch.zeros(2, 32))


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stays_none_in_its_row_alone(strange: float, kernels: door.TextKernels) -> None:
    layer = packing.BytesLinear(linear(64, 64), kernels)
    x = torch.randn(3, 64)
    wanted = layer(x)
    x[1, 7] = strange
    found = layer(x)
    assert not found[1].isfinite().any()
    assert torch.equal(found[::2], wanted[::2])


def test_nothing_is_written_behind_what_is_asked_for(kernels: door.TextKernels) -> None:
    rows, inputs, outputs = 11, 96, 208
    layer, x = packing.BytesLinear(linear(inputs, outputs), kernels), torch.randn(11, 96)
    sizes = 4 * rows * outputs, rows * (inputs + 8)
    y, room = (torch.zeros(size + len(GUARD), dtype=torch.uint8) for size in sizes)
    behind = [(ctypes.c_char * len(GUARD)).from_address(each.data_ptr() + size) for each, size in zip((y, room), sizes, strict=True)]  # fmt: skip
    for each in behind:
        each.raw = GUARD
    kernels.quantized_linear(
        kernels.shares.panels, layer.weights.numbers.data_ptr(), x.data_ptr(), rows, y.data_ptr(), 1, room.data_ptr()
    )
    assert y[: sizes[0]].any()
    assert all(each.raw == GUARD for each in behind)


class BertLayer(torch.nn.Sequential):
    """What :mod:`packing` knows by its name."""


def read(model: Any) -> Any:
    """The vectors of the tokens of some texts."""
    mask = torch.arange(19) < torch.tensor([3, 19, 11, 1])[:, None]
    ids = torch.randint(3, 128, mask.shape, generator=torch.Generator().manual_seed(2)).masked_fill(~mask, 0)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
def test_layers_that_are_computed_together_give_what_single_ones_do(
    form: str, threads: int, kernels: door.TextKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, model = read(bert_like.build("bert")), bert_like.build("bert").to(getattr(torch, form))
    assert packing.pack(model, "int8", many_rows=True) == 2 * 6 + 1
    wanted = read(model)
    assert stack.stacked(model) == 2
    sizes: list[int] = []

    def room_of(rows: int, **named: int) -> int:
        sizes.append(4 * kernels.room_of(rows, **named))
        return sizes[-1] // 4 + len(GUARD) // 4

    def layers(*given: Any) -> None:
        behind = (ctypes.c_char * len(GUARD)).from_address(given[-1] + sizes[-1])
        behind.raw = GUARD
        kernels.encoder_layers(*given)
        assert behind.raw == GUARD

    monkeypatch.setattr(door.TEXTS, "found", kernels._replace(encoder_layers=layers, room_of=room_of))
    found = read(model)
    assert len(sizes) == 2  # the trial, and this
    assert found.dtype is wanted.dtype
    size = float(exact.norm())
    assert float((found.float() - wanted.float()).norm()) / size < 0.05
    assert float((found.float() - exact).norm()) / size < 0.05


@pytest.mark.parametrize(
    ("kind", "many_rows", "multiplies", "wanted"),
    [
        ("int8", True, True, "BytesLinear"),
        ("int8", True, False, "Int8Linear"),
        ("int8", False, True, "Int8Linear"),
        ("int4", True, True, "Int4Linear"),
    ],
)
def test_only_int8_encoders_of_processors_that_can_multiply_bytes(
    kind: str, many_rows: bool, multiplies: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = door.TEXTS.wait()
    assert found is not None
    monkeypatch.setattr(door.TEXTS, "found", found._replace(multiplies_bytes=multiplies))
    model = BertLayer(linear(64, 64))
    packing.pack(model, kind, many_rows=many_rows)
    assert type(model[0]).__name__ == wanted


def test_kernels_that_compute_something_else_are_not_believed(
    kernels: door.TextKernels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(share: int, linear: int, x: int, rows: int, *given: int) -> None:
        kernels.quantized_linear(share, linear, x, rows - 1, *given)

    monkeypatch.setattr(door.TEXTS, "found", kernels._replace(quantized_linear=wrong))
    model = BertLayer(linear(64, 64), linear(64, 64))
    with caplog.at_level(logging.WARNING, "tabml.text"):
        packing.pack(model, "int8", many_rows=True)
    assert [type(layer).__name__ for layer in model] == ["Int8Linear"] * 2
    assert caplog.text.count("products of bytes are off") == 1


def test_models_of_other_kinds_keep_their_activations(kernels: door.TextKernels) -> None:
    """Some of them lose too much: SmolLM2-135M's vectors have cosines of 0.994."""
    model = torch.nn.Sequential(linear(64, 64))
    packing.pack(model, "int8", many_rows=True)
    assert type(model[0]).__name__ == "Int8Linear"


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 72), (65568, 64)], ids=["panels", "sums of 32 bits"])
def test_layers_that_do_not_fit_keep_their_activations(inputs: int, outputs: int, kernels: door.TextKernels) -> None:
    model = BertLayer(linear(inputs, outputs))
    packing.pack(model, "int8", many_rows=True)
    assert type(model[0]).__name__ == "Int8Linear"
    with pytest.raises(NotImplementedError, match="not for products of bytes"):
        packing.BytesLinear(linear(inputs, outputs), kernels)


def test_sums_do_not_overflow_at_the_most_inputs(kernels: door.TextKernels) -> None:
    layer = torch.nn.Linear(65536, 16, bias=False).requires_grad_(False)
    layer.weight[:] = 1
    x = torch.ones(2, 65536)
    x[1] = -1
    assert torch.allclose(packing.BytesLinear(layer, kernels)(x), layer(x), rtol=1e-5)


def test_a_model_waits_only_for_the_kernels_it_needs(
    minilm: Any, kernels: door.TextKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tabml.text import TextEmbedder

    def refused() -> door.Kernels:
        raise AssertionError("nobody asked for these")

    monkeypatch.setattr(door, "TOKENS", door.Loader(refused))
    texts = ["a cat sat on the mat", "stocks fell today", ""]
    with TextEmbedder(minilm) as plain, TextEmbedder(minilm, quantization="int8") as model:
        wanted, found = plain.embed(texts).vectors, model.embed(texts).vectors
    assert float((wanted * found).sum(1).min()) > 0.99
    assert door.TOKENS.found is None
