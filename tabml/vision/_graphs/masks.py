"""Masks: one segmentation model over the whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tabml._litert import LiteGraph
from tabml.errors import ModelLoadError
from tabml.vision._graphs.graph import Graph, PictureInput
from tabml.vision._graphs.metadata import read_metadata
from tabml.vision._graphs.regions import Float32, Pixels, sigmoid

_FAR = 60.0
"""Differences whose exponentials are still told from zero in float32 (e^-60 = 9e-27)."""


class SegmentGraph(Graph):
    """Answers with confidences at the model's own size: float32, shape (rows, columns, classes), or of what is meant."""

    meant: tuple[int, ...] = ()
    """Classes whose confidences are added up: then the answer has shape (rows, columns, 1). All by themselves when empty."""

    def __init__(self, model: bytes | memoryview, *, threads: int) -> None:
        """Load a segmenter with TFLite metadata.

        Raises:
            ModelLoadError: LiteRT refused the model, or it is no segmenter.
        """
        content = bytes(model)
        metadata = read_metadata(content)
        if metadata.activation is None:
            raise ModelLoadError("a model of another kind: its metadata are no segmenter's")
        self._activation = metadata.activation
        self.labels = metadata.labels
        """Names of the classes."""
        self._graph = LiteGraph(content, threads=threads)
        self._powers: Float32 | None = None
        super().__init__(self._graph)
        try:
            self._input = PictureInput(self._graph, low=metadata.low, high=metadata.high)
            self.classes = mask_count(self._graph, self.labels)
            """How many masks there are."""
        except ModelLoadError:
            self.close()
            raise

    def _find(self, pixels: Pixels, after_ms: int) -> Float32:
        return self._graph.run([self._input.of(pixels)], lambda out: self._answer(out[-1][0]))

    def _answer(self, raw: Any) -> Float32:
        if not self.meant:
            return activated(raw, self._activation)
        if self._activation != "softmax":
            some: Float32 = activated(raw, self._activation)[:, :, self.meant].sum(axis=2, keepdims=True)
            return some
        if self._powers is None:  # new memory of this size for each frame would cost a quarter of the frame's time
            self._powers = np.empty((raw.shape[0] * raw.shape[1], raw.shape[2]), np.float32)
        totals = powers(raw, self._powers)
        shares: Float32 = self._powers[:, self.meant].sum(axis=1, keepdims=True) / totals
        return shares.reshape(*raw.shape[:2], 1)


def mask_count(graph: LiteGraph, labels: Sequence[str]) -> int:
    """How many masks a model answers with; they are its last output, after a score of their quality where it has one.

    Raises:
        ModelLoadError: it answers with something else, or has other than so many names.
    """
    given = [(spec.shape, spec.dtype) for spec in graph.outputs]
    shape, dtype = given[-1] if len(given) in (1, 2) else ((), None)
    if len(shape) != 4 or shape[0] != 1 or min(shape) < 1 or dtype != np.float32:
        raise ModelLoadError(f"a model of another kind: it answers with {given}, not with masks")
    if labels and len(labels) != shape[3]:
        raise ModelLoadError(f"the model has {shape[3]} masks and {len(labels)} names")
    return shape[3]


def activated(raw: Any, activation: Literal["none", "sigmoid", "softmax"]) -> Float32:
    """A model's own numbers as confidences, shape (rows, columns, classes)."""
    if activation == "sigmoid":
        return sigmoid(raw)
    if activation == "softmax":
        return softmax(raw)
    return np.array(raw, np.float32)


def enlarged(mask: Float32, width: int, height: int) -> Float32:
    """A mask at another size, bilinear, as MediaPipe's ``tensors_to_segmentation_calculator`` does it."""
    if mask.shape == (height, width):
        return np.array(mask, np.float32)
    return np.asarray(
        cv2.resize(np.ascontiguousarray(mask), (width, height), interpolation=cv2.INTER_LINEAR), np.float32
    )


def likeliest(confidences: Float32, width: int, height: int) -> NDArray[np.uint8]:
    """The class of each pixel of a picture: the one whose enlarged confidence is highest, the first of equals.

    Only classes that can win are enlarged: a winner of n has at least 1 / n, and no more than somewhere before.
    """
    rows, columns, count = confidences.shape
    if (rows, columns) == (height, width):
        whole: NDArray[np.uint8] = confidences.argmax(axis=2).astype(np.uint8)
        return whole
    peaks = confidences.reshape(-1, count).max(axis=0)
    able = np.flatnonzero(peaks >= min(1 / count, float(peaks.max())) * 0.999).tolist()
    highest = enlarged(confidences[:, :, able[0]], width, height)
    found = np.full((height, width), able[0], np.uint8)
    for index in able[1:]:
        layer = enlarged(confidences[:, :, index], width, height)
        higher = cv2.compare(layer, highest, cv2.CMP_GT)
        cv2.copyTo(np.full_like(found, index), higher, found)
        cv2.max(highest, layer, highest)
    return found


def softmax(raw: Any) -> Float32:
    """Of each pixel, shape (rows, columns, classes)."""
    found = np.empty((raw.shape[0] * raw.shape[1], raw.shape[2]), np.float32)
    found /= powers(raw, found)
    return found.reshape(raw.shape)


def powers(raw: Any, out: Float32) -> Float32:
    """The exponentials of each pixel, shape (rows · columns, classes), into ``out``, and their sums, shape (…, 1)."""
    flat = np.ascontiguousarray(raw, np.float32).reshape(out.shape)
    highest = flat.max()
    if highest - flat.min() > _FAR:
        highest = flat.max(axis=1, keepdims=True)
    np.subtract(flat, highest, out=out)
    cv2.exp(out, dst=out)
    return np.asarray(
        cv2.reduce(out, 1, cv2.REDUCE_SUM), np.float32
    )  # a BLAS's threads would spin into the next frame's
