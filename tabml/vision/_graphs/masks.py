"""Masks: one segmentation model over the whole picture."""

from __future__ import annotations

from typing import Any

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
    """Answers with confidences at the model's own size: float32, shape (rows, columns, classes)."""

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
        super().__init__(self._graph)
        try:
            self._input = PictureInput(self._graph, low=metadata.low, high=metadata.high)
            shapes = [(spec.shape, spec.dtype) for spec in self._graph.outputs]
            if len(shapes) != 1 or len(shapes[0][0]) != 4 or shapes[0][0][0] != 1 or shapes[0][1] != np.float32:
                raise ModelLoadError(f"a model of another kind: it answers with {shapes}, not with masks")
            self.classes = int(shapes[0][0][3])
            """How many masks there are."""
            if self.labels and len(self.labels) != self.classes:
                raise ModelLoadError(f"the model has {self.classes} masks and {len(self.labels)} names")
        except ModelLoadError:
            self.close()
            raise

    def _find(self, pixels: Pixels, after_ms: int) -> Float32:
        return self._graph.run([self._input.of(pixels)], lambda out: self._confidences(out[0][0]))

    def _confidences(self, raw: Any) -> Float32:
        if self._activation == "sigmoid":
            return sigmoid(raw)
        if self._activation == "softmax":
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
    flat = np.ascontiguousarray(raw, np.float32).reshape(-1, raw.shape[2])
    highest = flat.max()
    if highest - flat.min() > _FAR:
        highest = flat.max(axis=1, keepdims=True)
    flat = flat - highest
    powers = np.asarray(cv2.exp(flat), np.float32)
    powers /= cv2.reduce(powers, 1, cv2.REDUCE_SUM)  # a BLAS's threads would spin into the next frame's
    return powers.reshape(raw.shape)
