"""Shapes that a model was seen to bear, where its inputs take any length: two short arrays may have a product of gigabytes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from tabml._litert.probe import try_model
from tabml._litert.specs import Signature

_MOST_SEEN, _MOST_LONGEST = 4096, 256
_Shapes = tuple[tuple[int, ...], ...]


class KnownShapes:
    """What one model has run with, here or in a process that may die of it. Thread-safe."""

    def __init__(self, content: bytes, signatures: Sequence[Signature], *, threads: int) -> None:
        """Only the shapes of the file are known yet.

        Args:
            content: The .tflite file.
            signatures: Of it, as loaded.
            threads: That share one run.
        """
        self._content, self._threads = content, threads
        self._lock = threading.Lock()
        own = [tuple(spec.shape for spec in each.inputs) for each in signatures]
        self._seen: list[dict[_Shapes, None]] = [{shapes: None} for shapes in own]
        self._longest: list[list[_Shapes]] = [[shapes] for shapes in own]

    def check(self, number: int, signature: Signature, arrays: Sequence[NDArray[Any]]) -> None:
        """Nothing, when the model bears arrays of these shapes, or has borne longer ones; else it is tried with them.

        Args:
            number: Of the signature.
            signature: Itself.
            arrays: What it is to run on.

        Raises:
            OptionError: LiteRT can't run the model with these shapes, dies of them, or needs too much memory or time.
            CapacityError: no process can be started.
            CallCancelledError: the current cancellation was set.
        """
        wanted = tuple(array.shape for array in arrays)
        with self._lock:
            known = wanted in self._seen[number] or any(_within(wanted, longer) for longer in self._longest[number])
        if not known:
            named = {spec.name: shape for spec, shape in zip(signature.inputs, wanted, strict=True)}
            try_model(self._content, signature=number, shapes=named, threads=self._threads)
        self._add(number, wanted)

    def try_out(self, number: int, signature: Signature, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Try these shapes, whatever is known.

        Raises:
            OptionError: as of :meth:`check`.
            CapacityError: no process can be started.
            CallCancelledError: the current cancellation was set.
        """
        try_model(self._content, signature=number, shapes=shapes, threads=self._threads)
        self._add(number, tuple(shapes[spec.name] for spec in signature.inputs))

    def _add(self, number: int, shapes: _Shapes) -> None:
        with self._lock:
            seen = self._seen[number]
            if shapes in seen:
                return
            while len(seen) >= _MOST_SEEN:
                del seen[next(iter(seen))]
            seen[shapes] = None
            longest = self._longest[number]
            if not any(_within(shapes, longer) for longer in longest):
                kept = [other for other in longest if not _within(other, shapes)]
                self._longest[number] = [shapes, *kept][:_MOST_LONGEST]


def _within(shapes: _Shapes, others: _Shapes) -> bool:
    return all(
        len(shape) == len(other) and all(length <= most for length, most in zip(shape, other, strict=True))
        for shape, other in zip(shapes, others, strict=True)
    )
