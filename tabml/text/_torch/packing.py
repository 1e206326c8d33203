"""Linear layers in the layouts that the CPU multiplies fastest: the matrix products are what a token costs.

The same arithmetic in the layouts of MKL and oneDNN, which come with stock torch (private operators: :func:`layouts` tries each
once, and what fails is not used), or with weights as they are; float16 weights, int8 weights with a scale a row, int4 weights with
scale and zero a group of 32. All but oneDNN's are what the compiled kernels multiply: see :mod:`tabml.text._torch.kernels.door`.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from tabml.text._torch.attention import multiplies_bfloat16
from tabml.text._torch.kernels import door
from tabml.text._torch.kernels.door import MOST_ROWS, Weights
from tabml.text._torch.mkl import MklLinear
from tabml.text._torch.originals import Originals, span_of
from tabml.text._torch.stack import knows

log = logging.getLogger("tabml.text")

_GROUP = 32
_MOST_HALF = 65504.0
_LEAST = 64
_LEAST_PANEL = 16
_MOST_BYTES = 1 << 16
"""Inputs whose products of bytes have a sum of 32 bits."""
_FAR_OFF = 0.05
_CLEARLY = 1.25
"""How much quicker oneDNN has to be than MKL: of two that are about as quick a machine always takes the same."""
_TRIED_ROWS = (1, 16)
_SKIPPED_INT4 = ("lm_head", "embed_out", "output_projection")


class BlockedLinear(nn.Module):
    """``nn.Linear`` with its weight in oneDNN's layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer(
            "packed", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1), persistent=False
        )
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class CompiledLinear(nn.Module):
    """A linear layer that a kernel multiplies with few rows; with many, weights that are unpacked are quicker."""

    weights: Weights

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if not door.suits(linear):
            raise NotImplementedError(f"{linear} is not for compiled kernels")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias

    def _pack(self, form: str, packed: torch.Tensor, scales: torch.Tensor | None = None) -> None:
        self.packed = packed
        self.weights = Weights(
            form, packed.data_ptr(), self.in_features, self.out_features, scales=scales, bias=self.bias, keep=packed
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b."""
        _check(x, self.in_features)
        few, kernels = x.numel() <= MOST_ROWS * self.in_features, door.TOKENS.ready()
        if few and kernels is not None:
            return self.weights.times(kernels, x)
        if few and self.packed.dtype is x.dtype:
            return nn.functional.linear(x, self.packed, self.bias)  # nothing to unpack for so little
        y = self._product(x if multiplies_bfloat16() else x.float())
        return (y if self.bias is None else y.add_(self.bias)).to(x.dtype)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.unpacked(x.dtype))

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights as they are multiplied, (outputs, inputs)."""
        return self.packed.to(dtype)


def _check(x: torch.Tensor, columns: int) -> None:
    if x.shape[-1] != columns or not x.is_cpu:
        raise RuntimeError(f"{tuple(x.shape)} on {x.device} for weights with {columns} columns on a CPU")


def _suits_bytes(linear: nn.Linear) -> bool:
    return (
        door.suits(linear, _LEAST_PANEL)
        and linear.out_features % _LEAST_PANEL == 0
        and linear.in_features <= _MOST_BYTES
    )


def _int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers from -127 to 127, and the float32 scale of each row."""
    wide = weight.detach().float()
    scale = wide.abs().amax(1).clamp(min=1e-8) / 127
    return (wide / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


class RowsLinear(CompiledLinear):
    """Weights as they are: nothing of the original is let go."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self._pack(str(linear.weight.dtype).removeprefix("torch."), linear.weight)


class HalfLinear(CompiledLinear):
    """Weights as float16: half the memory to read, on any processor; activations as they are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self._pack("float16", nn.Buffer(linear.weight.detach().to(torch.float16, copy=True)))


class Int8Linear(CompiledLinear):
    """Weights as int8 with a float32 scale for each row; activations as they are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        rounded, scale = _int8(linear.weight)
        self.scale = nn.Buffer(scale)
        self._pack("int8", nn.Buffer(rounded), scale)

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights, rounded."""
        return self.packed.to(dtype).mul_(self.scale[:, None])

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.packed.to(x.dtype)).mul_(self.scale)  # fewer numbers to scale


class BytesLinear(nn.Module):
    """The same weights where whole texts are read: activations are rounded to 8 bits a row too, a product of bytes is exact."""

    def __init__(self, linear: nn.Linear, kernels: door.TextKernels) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        if not _suits_bytes(linear):
            raise NotImplementedError(f"{linear} is not for products of bytes")
        self._kernels = kernels
        rounded, scale = _int8(linear.weight)
        end = self.out_features // kernels.panel * kernels.panel
        parts = zip(rounded.split([end, self.out_features - end]), (kernels.panel, _LEAST_PANEL), strict=True)
        self.packed = nn.Buffer(
            torch.cat(
                [part.view(-1, wide, self.in_features // 4, 4).transpose(1, 2).reshape(-1) for part, wide in parts]
            )
        )
        self.bias = linear.bias
        sums = rounded.sum(1, dtype=torch.int32).view(torch.float32)
        self.weights = Weights(
            "bytes", self.packed.data_ptr(), self.in_features, self.out_features,
            scales=torch.stack((scale, sums)), bias=linear.bias, keep=self.packed,
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b."""
        _check(x, self.in_features)
        wide = x.float().contiguous()
        y = wide.new_empty((*x.shape[:-1], self.out_features))
        rows = wide.numel() // self.in_features
        room = torch.empty(rows * (self.in_features + 8), dtype=torch.uint8)
        self._kernels.quantized_linear(
            self._kernels.shares.panels, self.weights.numbers.data_ptr(), wide.data_ptr(), rows, y.data_ptr(),
            torch.get_num_threads(), room.data_ptr(),
        )  # fmt: skip
        return (y if self.bias is None else y.add_(self.bias)).to(x.dtype)


class Int4Linear(CompiledLinear):
    """Weights as int4, for each group of 32 a scale and a zero, bfloat16: w = q · scale + zero; activations as they are.

    A byte has the i-th of a group below, and the one 16 behind it above.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        grouped = linear.weight.detach().float().view(linear.out_features, -1, _GROUP)
        low, high = grouped.amin(-1), grouped.amax(-1)
        scale, zero = ((high - low) / 15).clamp(min=1e-8).bfloat16(), low.bfloat16()
        codes = ((grouped - zero.float()[..., None]) / scale.float()[..., None]).round_().clamp_(0, 15).to(torch.uint8)
        self.scales = nn.Buffer(torch.stack([scale, zero], -1))
        self._pack("int4", nn.Buffer(codes[..., : _GROUP // 2] | codes[..., _GROUP // 2 :] << 4), self.scales)

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights, rounded."""
        weight = torch.cat((self.packed & 15, self.packed >> 4), -1).to(dtype)
        return weight.mul_(self.scales[..., :1]).add_(self.scales[..., 1:]).view(self.out_features, self.in_features)


_LAYOUTS: dict[str, tuple[type[nn.Module], torch.dtype]] = {
    "mkl": (MklLinear, torch.float32),
    "blocked float32": (BlockedLinear, torch.float32),
    "blocked bfloat16": (BlockedLinear, torch.bfloat16),
}


@cache
def layouts() -> frozenset[str]:
    """What this torch and processor can do: ``mkl``, ``blocked float32``, ``blocked bfloat16``."""
    found = set()
    for name, (kind, dtype) in _LAYOUTS.items():
        linear = nn.Linear(64, 64, dtype=dtype)
        x = torch.ones(3, 64, dtype=dtype)
        try:
            with torch.inference_mode():
                close = torch.allclose(kind(linear)(x).float(), linear(x).float(), atol=0.2)
        except (RuntimeError, AttributeError, NotImplementedError):
            continue
        if close:
            found.add(name)
    return frozenset(found)


@cache
def mkl_is_quick() -> bool:
    """Whether MKL multiplies float32 about as fast as oneDNN on this processor, or faster, by a trial of 50 ms.

    On a Xeon of 2019 (AVX512 without bfloat16) MKL takes 0.5 to 0.75 of oneDNN's time for 1 to 512 rows.
    """
    if not {"mkl", "blocked float32"} <= layouts():
        return "mkl" in layouts()
    share = 1.0
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        linear = nn.Linear(1024, 1024, bias=False, dtype=torch.float32)
        layers = {kind: [kind(linear) for _ in range(3)] for kind in (MklLinear, BlockedLinear)}
        for rows in _TRIED_ROWS:
            x = torch.ones(rows, linear.in_features, dtype=torch.float32)
            seconds = {kind: min(_seconds(each, x) for _ in range(5)) for kind, each in layers.items()}
            share *= seconds[MklLinear] / seconds[BlockedLinear]
    return share <= _CLEARLY ** len(_TRIED_ROWS)


def _seconds(layers: Sequence[nn.Module], x: torch.Tensor) -> float:
    began = time.perf_counter()
    for layer in layers:
        layer(x)
    return time.perf_counter() - began


def packing_suits_many_rows() -> bool:
    """Whether a layout of float32 is quicker for whole texts too, not only for single tokens.

    Measured with all-MiniLM-L6-v2: MKL's always; oneDNN's saves 6 to 13 % of a batch's processor time with AVX512 (Zen 4),
    nothing with AVX2.
    """
    if mkl_is_quick():
        return True
    return "blocked float32" in layouts() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def pack(model: nn.Module, kind: str | None, originals: Originals | None = None, *, many_rows: bool = False) -> int:
    """Replace the model's linear layers; gives how many. See :func:`packing`."""
    return sum(1 for _ in packing(model, kind, originals, many_rows=many_rows))


def packing(
    model: nn.Module,
    kind: str | None,
    originals: Originals | Callable[[], Originals] | None = None,
    *,
    many_rows: bool = False,
) -> Iterator[str]:
    """Replace the model's linear layers, one with each value that is taken; gives their names.

    Embeddings that share their weight with the output layer keep it; with the same arithmetic both read it. With ``int4`` the output layer gets int8: it
    is the one whose errors change the words.

    Args:
        model: Changed in place.
        kind: One of QUANTIZATIONS or ``float16``; None for the same arithmetic.
        originals: Gets the memory of each weight once its copy is made; or makes that when the first is taken.
        many_rows: Whether it reads whole texts at once, and seldom a single token.
    """
    return _packing(model, kind or "", originals, many_rows)


def _packing(
    model: nn.Module, wanted: str, made: Originals | Callable[[], Originals] | None, many_rows: bool
) -> Iterator[str]:
    originals = made() if callable(made) else made
    as_bytes = many_rows and knows(model)  # of others too much would be lost
    tables = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    for name in [name for name, layer in model.named_modules() if type(layer) is nn.Linear]:
        place = name if type(model.get_submodule(name)) is nn.Linear else f"{name}.inner"  # an adapter came around it
        layer = model.get_submodule(place)
        if min(layer.in_features, layer.out_features) < _LEAST:
            continue
        packed = (
            _packed(name, layer, wanted, as_bytes) if wanted else _same(layer, many_rows, id(layer.weight) in tables)
        )
        if packed is None:
            continue
        weight, span = weakref.ref(layer.weight), span_of(layer.weight)
        mapped = layer.weight.untyped_storage()  # what is given back must not be somebody else's by then
        parent, _, attribute = place.rpartition(".")
        setattr(model.get_submodule(parent) if parent else model, attribute, packed)
        del layer
        if originals is not None and weight() is None:
            originals.release(span)
        del mapped
        yield name


def _packed(name: str, layer: nn.Linear, wanted: str, as_bytes: bool) -> Any:
    if wanted == "int8" and as_bytes and _suits_bytes(layer):
        kernels = door.TEXTS.wait()
        if kernels is not None and _multiplies_bytes(kernels):
            return BytesLinear(layer, kernels)
    if not door.suits(layer):
        return None
    if wanted == "float16":
        return HalfLinear(layer) if float(layer.weight.detach().abs().max()) <= _MOST_HALF else None
    return Int4Linear(layer) if wanted == "int4" and not name.endswith(_SKIPPED_INT4) else Int8Linear(layer)


@cache
def _multiplies_bytes(kernels: door.TextKernels) -> bool:
    """Whether the kernels do here, and rightly."""
    if not kernels.multiplies_bytes:
        return False
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        linear, x = nn.Linear(64, 80, dtype=torch.float32), torch.randn(7, 64, dtype=torch.float32)
        wanted, found = linear(x), BytesLinear(linear, kernels)(x)
    right = bool((found - wanted).norm() <= _FAR_OFF * wanted.norm())
    if not right:
        log.warning("products of bytes are off on this processor; activations are not rounded")
    return right


def _same(layer: nn.Linear, many_rows: bool, shared: bool) -> Any:
    """The layer in the layout that is quickest with the same arithmetic; None where that is its own."""
    dtype, rows = layer.weight.dtype, door.suits(layer) and door.possible()
    table = shared and rows and not many_rows  # would be there twice, and few rows are as quick
    if dtype is torch.float32 and mkl_is_quick() and not table:
        return MklLinear(layer)
    blocked = many_rows and (dtype is torch.float32 or multiplies_bfloat16())
    if rows and not blocked:
        return RowsLinear(layer)
    return BlockedLinear(layer) if f"blocked {str(dtype).removeprefix('torch.')}" in layouts() else None


def weight_bytes(model: nn.Module) -> int:
    """Bytes of weights that one token reads: all of them, but of embeddings one row."""
    found = 0
    for layer in model.modules():
        tables = {id(layer.weight)} if isinstance(layer, nn.Embedding) else set()
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            size = tensor.numel() * tensor.element_size()
            found += size // len(tensor) if id(tensor) in tables else size
        found += getattr(layer, "packed_bytes", 0)
    return found
