"""Shapes that a model was seen to bear, where its inputs take any length: two short arrays may have a product of gigabytes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tabml._litert.probe import try_model
from tabml._litert.specs import Signature

_MOST_KEPT = 32
_Shapes = tuple[tuple[int, ...], ...]


class KnownShapes:
    """What one model has run with, here or in a process that may die of it. Thread-safe."""

    def __init__(self, content: bytes, signatures: Sequence[Signature]) -> None:
        """Only the shapes of the file are known yet.

        Args:
            content: The .tflite file.
            signatures: Of it, as loaded.
        """
        self._content = content
        self._lock = threading.Lock()
        self._known: list[list[_Shapes]] = [[tuple(spec.shape for spec in each.inputs)] for each in signatures]

    def check(self, number: int, signature: Signature, arrays: Sequence[NDArray[Any]]) -> None:
        """Nothing, when the model bears arrays of these shapes, or has borne longer ones; else it is tried with them.

        Args:
            number: Of the signature.
            signature: Itself.
            arrays: What it is to run on.

        Raises:
            OptionError: LiteRT can't run the model with these shapes, dies of them, or needs too much memory.
            CapacityError: no process can be started.
            CallCancelledError: the current cancellation was set.
        """
        wanted = tuple(array.shape for array in arrays)
        with self._lock:
            if any(_within(wanted, known) for known in self._known[number]):
                return
        try_model(
            self._content,
            signature=number,
            shapes={spec.name: shape for spec, shape in zip(signature.inputs, wanted, strict=True)},
        )
        with self._lock:
            longer = [known for known in self._known[number] if not _within(known, wanted)]
            self._known[number] = [wanted, *longer][:_MOST_KEPT]


def _within(shapes: _Shapes, others: _Shapes) -> bool:
    return all(
        len(shape) == len(other) and all(length <= most for length, most in zip(shape, other, strict=True))
        for shape, other in zip(shapes, others, strict=True)
    )
