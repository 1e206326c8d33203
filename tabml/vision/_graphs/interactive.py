"""Masks of what is pointed at: one model over the picture and a fourth channel, in which the place is marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tabml._litert import LiteGraph
from tabml.errors import ModelLoadError
from tabml.vision._graphs.masks import activated, mask_count
from tabml.vision._graphs.metadata import read_metadata
from tabml.vision._graphs.regions import Float32, Pixels, scaled
from tabml.vision._pixels import check_pixels

Answer = TypeVar("Answer")
Points = Sequence[tuple[float, float]]
"""x and y of places, shares of the picture."""

_MARKED_AT = 512
"""Marks are one pixel wide, to each side, in a picture of this size; in a larger one they grow with it."""


class InteractiveGraph:
    """Answers with confidences at the model's own size: float32, shape (rows, columns, classes)."""

    def __init__(self, model: bytes | memoryview, *, threads: int) -> None:
        """Load a segmenter whose input has four channels, with TFLite metadata.

        Raises:
            ModelLoadError: LiteRT refused the model, or it is no interactive segmenter.
        """
        content = bytes(model)
        metadata = read_metadata(content)
        self._low, self._high = metadata.low, metadata.high
        self._activation = metadata.activation or "none"
        self.labels = metadata.labels
        """Names of the classes."""
        self._graph = LiteGraph(content, threads=threads)
        try:
            taken = [(spec.shape, spec.dtype) for spec in self._graph.inputs]
            shape, dtype = taken[0] if len(taken) == 1 else ((), None)
            if len(shape) != 4 or shape[::3] != (1, 4) or min(shape) < 1 or dtype != np.float32:
                raise ModelLoadError(
                    f"a model of another kind: it takes {taken}, not one picture of four channels; "
                    "for those of three there is Segmenter"
                )
            _, self._rows, self._columns, _ = shape
            self.classes = mask_count(self._graph, self.labels)
            """How many masks there are."""
        except ModelLoadError:
            self.close()
            raise

    def run(
        self, pixels: Pixels, convert: Callable[[Any], Answer], *, after_ms: int = 33, points: Points = ((0.5, 0.5),)
    ) -> Answer:
        """Run the model on one picture.

        Args:
            pixels: Shape (height, width, 3), uint8, RGB, C-contiguous.
            convert: Turns the confidences into a value.
            after_ms: Nothing is kept between pictures.
            points: Where what is meant lies.

        Raises:
            FrameError: the array is not as above.
            InferenceError: LiteRT failed.
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that loaded the model.
        """
        check_pixels(pixels)
        given = self._input(pixels, points)
        return convert(self._graph.run([given], lambda out: activated(out[-1][0], self._activation)))

    def close(self) -> None:
        """Free the model, after a call that is running; twice is fine."""
        self._graph.close()

    def _input(self, pixels: Pixels, points: Points) -> Float32:
        """Averaged where the picture is larger both ways, as MediaPipe's ``image_transformation_calculator`` does."""
        height, width, _ = pixels.shape
        shrinks = width > self._columns and height > self._rows
        how, size = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR, (self._columns, self._rows)
        small, marks = (cv2.resize(each, size, interpolation=how) for each in (pixels, marked(width, height, points)))
        return scaled(np.dstack([small, marks]), low=self._low, high=self._high)


def marked(width: int, height: int, points: Points) -> NDArray[np.uint8]:
    """A black picture of this size with a white disc at each place.

    Source: MediaPipe's ``interactive_segmenter_graph`` (a scribble is its points, nothing between them); but that a place on the
    right or lower edge itself is marked too, where MediaPipe's disc lies outside.
    """
    canvas = np.zeros((height, width), np.uint8)
    radius = _rounded(max(width / _MARKED_AT, height / _MARKED_AT, 1.0))
    for x, y in points:
        column, row = _rounded(float(np.float32(x)) * width), _rounded(float(np.float32(y)) * height)
        cv2.circle(canvas, (min(column, width - 1), min(row, height - 1)), radius, 255, -1)
    return canvas


def _rounded(value: float) -> int:
    return math.floor(value + 0.5)
