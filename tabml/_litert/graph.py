"""The door to LiteRT: one graph in memory, one call at a time, nothing near it that it can't bear.

LiteRT checks neither the type nor the length of what it is given, resizes silently, and one interpreter in two
threads answers wrongly or raises. Importing it costs 0.1 s.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tabml._imports import silence
from tabml.errors import (
    InferenceError,
    MissingExtraError,
    ModelClosedError,
    ModelForkedError,
    ModelLoadError,
    OptionError,
)

try:
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    raise MissingExtraError("vision", "ai-edge-litert") from None

Answer = TypeVar("Answer")

MAX_THREADS = 64

for _library in Path(ai_edge_litert.__path__[0]).glob("libpywrap_litert_common.*"):
    silence(ctypes.CDLL(str(_library)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output."""

    name: str
    """As the model calls it."""
    shape: tuple[int, ...]
    """Its dimensions."""
    dtype: np.dtype[Any]
    """Of its elements."""
    scale: float = 0.0
    """Of quantised values: real = scale · (stored − zero_point); 0 where it isn't quantised."""
    zero_point: int = 0
    """See ``scale``."""


class LiteGraph:
    """A model for LiteRT. Calls from several threads run one after another; graphs in different threads side by side."""

    def __init__(self, model: bytes | memoryview, *, threads: int = 1) -> None:
        """Load it.

        Args:
            model: The bytes of a .tflite file that someone vouches for; used where they lie.
            threads: How many threads share one call, 1 to 64.

        Raises:
            OptionError: ``threads`` is outside its range.
            ModelLoadError: LiteRT refused the model.
        """
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
            raise OptionError(f"threads={threads!r} must be a whole number from 1 to {MAX_THREADS}")
        self._model = bytes(model)  # LiteRT takes nothing else; bytes stay where they are
        self._lock = threading.Lock()
        self._process = os.getpid()
        try:
            self._interpreter: Any = Interpreter(model_content=self._model, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as problem:
            said = " ".join(str(problem).split())[:300]
            raise ModelLoadError(f"LiteRT can't open the model: {said}") from problem
        given, got = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs: tuple[TensorSpec, ...] = tuple(map(_spec, given))
        """What it takes, in the model's order."""
        self.outputs: tuple[TensorSpec, ...] = tuple(map(_spec, got))
        """What it gives, in the model's order."""
        self._in = [self._interpreter.tensor(each["index"]) for each in given]
        self._out = [self._interpreter.tensor(each["index"]) for each in got]

    def run(self, arrays: Sequence[NDArray[Any]], read: Callable[[Sequence[NDArray[Any]]], Answer]) -> Answer:
        """Run the model once.

        Args:
            arrays: One for each of ``inputs``, of exactly its shape and dtype.
            read: Turns the outputs into an answer; the arrays it is given are LiteRT's own memory and live only
                during this call: copy what is kept.

        Raises:
            InferenceError: an array has another shape or dtype, or LiteRT failed.
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that loaded the model.
        """
        if len(arrays) != len(self.inputs):
            raise InferenceError(f"the model takes {len(self.inputs)} arrays, not {len(arrays)}")
        for spec, array in zip(self.inputs, arrays, strict=True):
            if array.dtype != spec.dtype or array.shape != spec.shape:
                raise InferenceError(
                    f"input {spec.name!r} must be {spec.dtype} {spec.shape}, not {array.dtype} {array.shape}"
                )
        with self._lock:
            if self._interpreter is None:
                raise ModelClosedError("the model is closed; open a new one")
            if self._process != os.getpid():
                raise ModelForkedError(
                    "the model was opened before fork() and can't be used in the child; open one there"
                )
            for place, array in zip(self._in, arrays, strict=True):
                place()[...] = array
            try:
                self._interpreter.invoke()
            except (ValueError, RuntimeError) as problem:
                raise InferenceError(f"LiteRT failed: {' '.join(str(problem).split())[:300]}") from problem
            return read([place() for place in self._out])

    def close(self) -> None:
        """Free the model, after a call that is running; twice is fine."""
        with self._lock:
            was_open, self._interpreter = self._interpreter is not None, None
            self._in = self._out = []
            self._model = b""
        if was_open:
            with suppress(AttributeError, OSError):  # glibc keeps what is freed, unless asked
                ctypes.CDLL(None).malloc_trim(0)


def _spec(details: Any) -> TensorSpec:
    scale, zero_point = details["quantization"]
    return TensorSpec(
        name=details["name"],
        shape=tuple(map(int, details["shape"])),
        dtype=np.dtype(details["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )
