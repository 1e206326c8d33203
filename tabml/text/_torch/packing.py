"""Linear layers in the layouts that the CPU multiplies fastest: the matrix products are what a token costs.

Kernels that come with stock torch: the layouts of MKL and oneDNN (the same arithmetic), float16 weights (FBGEMM's), int8
weights with a scale a row, int4 weights with scale and zero point a group of 32. Most are torch's private operators:
:func:`kernels` tries each once, and what fails is not used.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from tabml.errors import OptionError
from tabml.text._torch.mkl import MklLinear
from tabml.text._torch.originals import Originals, span_of

_GROUP = 32
_MOST_HALF = 65504.0
_LEAST = 64
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


class HalfLinear(nn.Module):
    """Weights as float16, activations and sums in float32, by FBGEMM: half the memory to read, on any processor."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach().float(), bias)
        self.packed_bytes = 2 * linear.weight.numel()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b."""
        return torch.ops.quantized.linear_dynamic_fp16(x, self.packed)


class Int8Linear(nn.Module):
    """Weights as int8 with a scale for each row, activations in bfloat16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-8) / 127
        self.register_buffer("packed", (weight / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b."""
        rows = x.reshape(-1, self.in_features)
        y = torch._weight_int8pack_mm(rows, self.packed, self.scale).view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


class Int4Linear(nn.Module):
    """Weights as int4, for each group of 32 a scale and a zero point: w = (q - 8) · scale + zero."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        grouped = linear.weight.detach().float().view(self.out_features, self.in_features // _GROUP, _GROUP)
        low, high = grouped.amin(-1), grouped.amax(-1)
        scale = ((high - low) / 15).clamp(min=1e-8)
        codes = ((grouped - low[..., None]) / scale[..., None]).round_().clamp_(0, 15)
        codes = codes.view(self.out_features, self.in_features).to(torch.int32)
        self.register_buffer("packed", torch._convert_weight_to_int4pack_for_cpu(codes, 1))
        zero = low + 8 * scale
        self.register_buffer("scales", torch.stack([scale.t(), zero.t()], -1).contiguous().bfloat16())
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b."""
        rows = x.reshape(-1, self.in_features)
        y = torch._weight_int4pack_mm_for_cpu(rows, self.packed, _GROUP, self.scales)
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


_KINDS: dict[str, tuple[type[nn.Module], torch.dtype]] = {
    "mkl": (MklLinear, torch.float32),
    "blocked": (BlockedLinear, torch.float32),
    "blocked bfloat16": (BlockedLinear, torch.bfloat16),
    "float16": (HalfLinear, torch.float32),
    "int8": (Int8Linear, torch.bfloat16),
    "int4": (Int4Linear, torch.bfloat16),
}


@cache
def kernels() -> frozenset[str]:
    """What this torch and processor can do: ``mkl``, ``blocked``, ``blocked bfloat16``, ``float16``, ``int8``, ``int4``."""
    found = set()
    for name, (kind, dtype) in _KINDS.items():
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
def float32_layout() -> str:
    """``mkl`` or ``blocked``: that which multiplies faster on this processor, by a trial of 50 ms.

    On a Xeon of 2019 (AVX512 without bfloat16) MKL takes 0.5 to 0.75 of oneDNN's time for 1 to 512 rows.
    """
    if not {"mkl", "blocked"} <= kernels():
        return "mkl" if "mkl" in kernels() else "blocked"
    share = 1.0
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        linear = nn.Linear(1024, 1024, bias=False)
        layers = {kind: [kind(linear) for _ in range(3)] for kind in (MklLinear, BlockedLinear)}
        for rows in _TRIED_ROWS:
            x = torch.ones(rows, linear.in_features)
            seconds = {kind: min(_seconds(each, x) for _ in range(5)) for kind, each in layers.items()}
            share *= seconds[MklLinear] / seconds[BlockedLinear]
    return "blocked" if share > _CLEARLY ** len(_TRIED_ROWS) else "mkl"


def _seconds(layers: Sequence[nn.Module], x: torch.Tensor) -> float:
    began = time.perf_counter()
    for layer in layers:
        layer(x)
    return time.perf_counter() - began


def packing_suits_many_rows() -> bool:
    """Whether the layout of float32 is quicker for whole texts too, not only for single tokens.

    Measured with all-MiniLM-L6-v2: MKL's always; oneDNN's saves 6 to 13 % of a batch's processor time with AVX512 (Zen 4),
    nothing with AVX2.
    """
    layout = float32_layout()
    return layout in kernels() and (layout == "mkl" or torch.backends.cpu.get_cpu_capability().startswith("AVX512"))


def pack(model: nn.Module, kind: str | None, originals: Originals | None = None) -> int:
    """Replace the model's linear layers; gives how many. See :func:`packing`."""
    return sum(1 for _ in packing(model, kind, originals))


def packing(
    model: nn.Module, kind: str | None, originals: Originals | Callable[[], Originals] | None = None
) -> Iterator[str]:
    """Replace the model's linear layers, one with each value that is taken; gives their names.

    Embeddings that share their weight with the output layer keep it. With ``int4`` the output layer gets int8: it
    is the one whose errors change the words.

    Args:
        model: Changed in place.
        kind: One of QUANTIZATIONS or ``float16``; None for the same arithmetic.
        originals: Gets the memory of each weight once its copy is made; or makes that when the first is taken.

    Raises:
        OptionError: ``kind`` is not possible with this torch and processor.
    """
    if kind is not None and kind not in kernels():
        raise OptionError(f"quantization={kind!r} is not possible with this torch and processor")
    return _packing(model, kind or "", originals)


def _packing(model: nn.Module, wanted: str, made: Originals | Callable[[], Originals] | None) -> Iterator[str]:
    originals = made() if callable(made) else made
    for name in [name for name, layer in model.named_modules() if type(layer) is nn.Linear]:
        place = name if type(model.get_submodule(name)) is nn.Linear else f"{name}.inner"  # an adapter came around it
        layer = model.get_submodule(place)
        if min(layer.in_features, layer.out_features) < _LEAST:
            continue
        packed = _packed(name, layer, wanted)
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


def _packed(name: str, layer: nn.Linear, wanted: str) -> Any:
    if not wanted:
        dtype = layer.weight.dtype
        kind = float32_layout() if dtype is torch.float32 else f"blocked {str(dtype).removeprefix('torch.')}"
        return _KINDS[kind][0](layer) if kind in kernels() else None
    if wanted == "float16":
        return HalfLinear(layer) if float(layer.weight.detach().abs().max()) <= _MOST_HALF else None
    if wanted == "int4" and layer.in_features % _GROUP == 0 and not name.endswith(_SKIPPED_INT4):
        return Int4Linear(layer)
    return Int8Linear(layer)


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
