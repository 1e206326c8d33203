"""LoRA adapters beside linear layers that stay as they are: y = W x + scale · B A x (Hu et al. 2021).

Rows of one batch may have different adapters, so nothing is merged; and a packed weight couldn't be.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from tabml.errors import CorruptModelError, ModelKindError
from tabml.text.repository import ADAPTER_WEIGHTS, Repository

_NAME = re.compile(r"base_model\.model\.(?P<layer>[\w.]+)\.lora_(?P<part>[AB])\.weight")


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """The weights of one adapter."""

    name: str
    """As requests call it."""
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    """For each layer Aᵀ (in, r), and scale · Bᵀ (r, out)."""
    number: int = field(default_factory=itertools.count(1).__next__)
    """Of this load: another of the same name has another."""


class Adapted(nn.Module):
    """A linear layer that adds what the adapters of the rows say."""

    def __init__(self, inner: nn.Module, name: str, rows: Rows) -> None:
        super().__init__()
        self.inner = inner
        self._name, self._rows = name, rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b, and scale · (x · Aᵀ) · Bᵀ in the rows of an adapter."""
        y: torch.Tensor = self.inner(x)
        for adapter, rows in self._rows.chosen:
            pair = adapter.layers.get(self._name)
            if pair is None:
                continue
            if rows is None:
                return y + x @ pair[0] @ pair[1]
            y[rows] += x[rows] @ pair[0] @ pair[1]
        return y


class Rows(threading.local):
    """Which rows of this thread's next forward pass have which adapter."""

    def __init__(self) -> None:
        self.chosen: list[tuple[Adapter, list[int] | None]] = []
        """None for all rows."""

    def choose(self, adapters: Sequence[Adapter | None]) -> None:
        """Say it: an adapter, or None, for each row."""
        kinds = [each for each in dict.fromkeys(adapters) if each is not None]
        if len(kinds) == 1 and None not in adapters:
            self.chosen = [(kinds[0], None)]
            return
        self.chosen = [(kind, [row for row, each in enumerate(adapters) if each is kind]) for kind in kinds]


def read_adapter(repository: Repository, name: str, model: nn.Module) -> Adapter:
    """An adapter out of its files, for a model.

    Args:
        repository: With the adapter fetched.
        name: What requests will call it.
        model: That it is for.

    Raises:
        CorruptModelError: its tensors don't fit the model, or each other.
        ModelKindError: it has tensors that are not those of plain LoRA on linear layers.
    """
    config = repository.config
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(repository.path / ADAPTER_WEIGHTS).items():
        match = _NAME.fullmatch(key)
        if match is None:
            raise ModelKindError(f"{repository.name}: {key!r:.120} is no tensor of plain LoRA on linear layers")
        found.setdefault(match["layer"], {})[match["part"]] = tensor
    if not found:
        raise CorruptModelError(f"{repository.name} has no tensors")
    return Adapter(name, {layer: _pair(repository.name, model, layer, parts, config) for layer, parts in found.items()})


def _pair(
    name: str, model: nn.Module, layer: str, parts: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        target = inner_of(model.get_submodule(layer))
    except AttributeError:
        raise CorruptModelError(f"{name}: this model has no layer {layer!r:.120}; the adapter is for another") from None
    wide = _shape(target)
    if wide is None:
        raise ModelKindError(f"{name}: {layer!r:.120} is a {type(target).__name__}; adapters of linear layers are read")
    if parts.keys() != {"A", "B"}:
        raise CorruptModelError(f"{name}: {layer!r:.120} has only one of lora_A and lora_B")
    down, up = parts["A"], parts["B"]
    if down.ndim != 2 or up.ndim != 2 or down.shape[1] != wide[0] or up.shape != (wide[1], down.shape[0]):
        raise CorruptModelError(
            f"{name}: {layer!r:.120} has A {tuple(down.shape)} and B {tuple(up.shape)}; the layer is {wide[1]} x {wide[0]}"
        )
    rank = int(_of_pattern(config.get("rank_pattern"), layer, config["r"]))
    if rank != down.shape[0]:
        raise CorruptModelError(f"{name}: {layer!r:.120} has rank {down.shape[0]}; adapter_config.json says {rank}")
    alpha = _of_pattern(config.get("alpha_pattern"), layer, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    parameter = next(model.parameters())
    place: dict[str, Any] = {"device": parameter.device, "dtype": parameter.dtype}
    return down.t().to(**place).contiguous(), (up.t().float() * scale).to(**place).contiguous()


def _of_pattern(pattern: Mapping[str, float] | None, layer: str, usual: float) -> float:
    """The value of the first key that the layer's name ends with, as PEFT reads it."""
    for key, value in (pattern or {}).items():
        if layer == key or layer.endswith(f".{key}"):
            return value
    return usual


def _shape(layer: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer, packed or not; None for others."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)
    if type(layer).__name__ == "Conv1D":  # GPT-2's
        return int(layer.nx), int(layer.nf)
    return None


def inner_of(layer: nn.Module) -> nn.Module:
    """The layer itself, without what was put around it."""
    return layer.inner if isinstance(layer, Adapted) else layer


def put_into(model: nn.Module, adapter: Adapter, rows: Rows) -> None:
    """Have the layers of an adapter look at the rows; those that do already stay."""
    for name in adapter.layers:
        layer = model.get_submodule(name)
        if not isinstance(layer, Adapted):
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent) if parent else model, attribute, Adapted(layer, name, rows))
