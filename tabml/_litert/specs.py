"""What a model takes and gives, as values, and the options that every graph has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import OptionError

MAX_THREADS = 64
_ENOUGH_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output."""

    name: str
    """As the signature calls it, or the model where it has none."""
    shape: tuple[int, ...]
    """Its dimensions; where they may have any length, those of the last run, before it 1. Of an output whose size
    depends on the values, those LiteRT gives it beforehand."""
    dtype: np.dtype[Any]
    """Of its elements; ``S`` where they are byte strings."""
    scale: float = 0.0
    """Of quantised values: real = scale · (stored − zero_point); 0 where it isn't quantised, or by channels."""
    zero_point: int = 0
    """See ``scale``."""
    shape_signature: tuple[int, ...] = ()
    """The shape as the model has it: −1 where any length will do."""

    @property
    def is_quantized(self) -> bool:
        """Whether whole numbers stand for real ones."""
        return bool(self.scale) and self.dtype.kind in "iu"

    @property
    def is_dynamic(self) -> bool:
        """Whether some of its dimensions may have any length."""
        return -1 in self.shape_signature

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape can be given without :meth:`LiteModel.resize`."""
        if shape == self.shape:
            return True
        return len(shape) == len(self.shape_signature) and all(
            given >= 1 if fixed == -1 else given == now
            for given, fixed, now in zip(shape, self.shape_signature, self.shape, strict=True)
        )

    def holds(self, dtype: np.dtype[Any]) -> bool:
        """Whether an array of this type can be given: the very same, but byte strings of any length."""
        return dtype == self.dtype or dtype.kind == self.dtype.kind == "S"

    def quantize(self, values: NDArray[Any]) -> NDArray[Any]:
        """Real numbers as the model stores them: rounded to the nearest, and to even between two; clipped to the type.

        Source: Jacob et al., 2018, arXiv:1712.05877, equation 1.

        Raises:
            OptionError: the tensor isn't quantised, or a number is NaN.
        """
        self._check_quantized()
        stored = np.rint(np.asarray(values, np.float64) / self.scale) + self.zero_point
        if np.isnan(stored).any():
            raise OptionError(f"{self.name!r} has a NaN among its values")
        limits = np.iinfo(self.dtype)
        found: NDArray[Any] = np.clip(stored, limits.min, limits.max).astype(self.dtype)
        return found

    def dequantize(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """What the model stores as real numbers: scale · (stored − zero_point).

        Raises:
            OptionError: the tensor isn't quantised.
        """
        self._check_quantized()
        values: NDArray[np.float32] = (np.asarray(stored, np.float32) - np.float32(self.zero_point)) * np.float32(
            self.scale
        )
        return values

    def _check_quantized(self) -> None:
        if not self.is_quantized:
            raise OptionError(f"{self.name!r} holds {self.dtype} and has no scale: it isn't quantised")

    def __str__(self) -> str:
        dimensions = ", ".join("any" if length == -1 else str(length) for length in self.shape_signature or self.shape)
        return f"{self.dtype} ({dimensions})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One way of calling a model."""

    name: str
    """As the model calls it; empty for the main graph itself, whose tensors have their own names."""
    inputs: tuple[TensorSpec, ...]
    """What it takes, in the model's order."""
    outputs: tuple[TensorSpec, ...]
    """What it gives, in the model's order."""


def thread_count(name: str, value: int | None) -> int:
    """``value``, when it is a whole number from 1 to :data:`MAX_THREADS`; the cores at hand, at most 8, when None.

    Raises:
        OptionError: it is something else.
    """
    if value is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, _ENOUGH_THREADS)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_THREADS:
        raise OptionError(f"{name}={value!r} must be a whole number from 1 to {MAX_THREADS}, or None for every core")
    return value
