"""What the graphs share: one picture at a time, checked, over models that are freed together."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tabml._litert import LiteGraph
from tabml.errors import ModelLoadError
from tabml.vision._graphs.regions import Pixels, scaled, stretched
from tabml.vision._pixels import check_pixels

Answer = TypeVar("Answer")


def expect_shapes(graph: LiteGraph, shapes: list[tuple[int, ...]]) -> None:
    """Close the graph unless its inputs and outputs have these shapes.

    Raises:
        ModelLoadError: they haven't.
    """
    given = [spec.shape for spec in (*graph.inputs, *graph.outputs)]
    if given != shapes:
        graph.close()
        raise ModelLoadError(f"a model of another kind: its tensors are {given}, not {shapes}")


class PictureInput:
    """The input of a model that takes one whole picture, stretched to its size."""

    def __init__(self, graph: LiteGraph, *, low: float, high: float) -> None:
        """Look at the model.

        Args:
            graph: The model.
            low: What black becomes, where it takes floats.
            high: What white becomes.

        Raises:
            ModelLoadError: it takes something else.
        """
        shapes = [spec.shape for spec in graph.inputs]
        if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][::3] != (1, 3) or min(shapes[0]) < 1:
            raise ModelLoadError(f"a model of another kind: it takes {shapes}, not one picture")
        dtype = graph.inputs[0].dtype
        if dtype not in (np.uint8, np.float32):
            raise ModelLoadError(f"a model of another kind: it takes {dtype}")
        _, self._rows, self._columns, _ = shapes[0]
        self._raw, self._low, self._high = dtype == np.uint8, low, high

    def of(self, pixels: Pixels) -> NDArray[Any]:
        """The picture as the model takes it."""
        upright = stretched(pixels, self._columns, self._rows)
        return upright[None] if self._raw else scaled(upright, low=self._low, high=self._high)


class Part(Protocol):
    """A model of a graph."""

    def close(self) -> None: ...


class Graph(ABC):
    """A task of :mod:`tabml.vision._model` made of LiteRT models."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts
        self._lock = threading.Lock()

    @abstractmethod
    def _find(self, pixels: Pixels, after_ms: int) -> Any:
        """What is in the picture."""

    def _forget(self) -> None:  # noqa: B027
        """For video: begin anew with the next frame."""

    def run(self, pixels: Pixels, convert: Callable[[Any], Answer], *, after_ms: int = 33) -> Answer:
        """Run the graph on one picture.

        Args:
            pixels: Shape (height, width, 3), uint8, RGB, C-contiguous.
            convert: Turns what was found into a value.
            after_ms: For video: milliseconds since the picture before, at least 1.

        Raises:
            FrameError: the array is not as above.
            InferenceError: LiteRT failed.
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that loaded the models.
        """
        check_pixels(pixels)
        with self._lock:
            try:
                found = self._find(pixels, max(1, after_ms))
            except BaseException:
                self._forget()
                raise
        return convert(found)

    def forget(self) -> None:
        """For video: begin anew with the next picture, after a call that is running."""
        with self._lock:
            self._forget()

    def close(self) -> None:
        """Free the models, after a call that is running; twice is fine."""
        with self._lock:
            for part in self._parts:
                part.close()
