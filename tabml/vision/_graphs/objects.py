"""Objects: one detector model over the whole picture; boxes are decoded and suppressed here.

The steps are those of MediaPipe's ``detection_postprocessing_graph``: every box has its likeliest class, and a box that
overlaps a likelier one too much is left out, whatever their classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tabml._litert import LiteGraph
from tabml.errors import ModelLoadError
from tabml.vision._graphs.graph import Graph, PictureInput
from tabml.vision._graphs.metadata import Decoding, Metadata, read_metadata
from tabml.vision._graphs.regions import Float32, Pixels, sigmoid

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """What was found, the likeliest first; shares of the picture."""

    corners: Float32
    """Shape (n, 4): left, top, right, bottom."""
    scores: Float32
    """Shape (n,), 0 to 1."""
    classes: Integers
    """Shape (n,)."""

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> Boxes:
        return Boxes(corners=self.corners[rows], scores=self.scores[rows], classes=self.classes[rows])


class ObjectGraph(Graph):
    """Answers with :class:`Boxes`."""

    def __init__(
        self,
        model: bytes | memoryview,
        *,
        threads: int,
        min_score: float,
        min_suppression: float,
        max_results: int | None,
        allow: Sequence[str] = (),
        deny: Sequence[str] = (),
    ) -> None:
        """Load a detector with TFLite metadata.

        Args:
            model: The bytes of a .tflite file.
            threads: How many threads share one call.
            min_score: Objects that score less, or nothing, are left out, 0 to 1.
            min_suppression: Boxes that overlap a likelier one more (intersection over union) are left out.
            max_results: How many are given at most; None for all.
            allow: Names of classes; others are left out, unless there are none here.
            deny: Names of classes that are left out.

        Raises:
            ModelLoadError: LiteRT refused the model, or it is no detector that can be read here.
            OptionError: a name is none of the model's classes.
        """
        content = bytes(model)
        self._metadata = read_metadata(content)
        self.labels = self._metadata.labels
        """Names of the classes."""
        self._graph = LiteGraph(content, threads=threads)
        super().__init__(self._graph)
        try:
            self._input = PictureInput(self._graph, low=self._metadata.low, high=self._metadata.high)
            self._places = _outputs(self._graph, self._metadata)
        except ModelLoadError:
            self.close()
            raise
        self._min_score, self._min_suppression = np.float32(min_score), min_suppression
        self._most = max_results
        self._left_out = frozenset(
            index for index, name in enumerate(self.labels) if name in deny or (allow and name not in allow)
        )

    def _find(self, pixels: Pixels, after_ms: int) -> Boxes:
        return self._graph.run([self._input.of(pixels)], self._boxes)

    def _boxes(self, out: Sequence[NDArray[Any]]) -> Boxes:
        arrays = [out[place] for place in self._places]
        if self._metadata.decoding is None:
            return self._given(*arrays)
        found = self._decoded(arrays[0][0], arrays[1][0], self._metadata.decoding)
        return suppressed(found, self._min_suppression, self._most)

    def _decoded(self, raw: Float32, scores: Float32, how: Decoding) -> Boxes:
        """Boxes that score enough, in any order."""
        highest = scores.max(axis=1)
        if how.sigmoid:
            highest = sigmoid(highest)
        rows = np.flatnonzero((highest >= self._min_score) & (highest > 0))
        classes = scores[rows].argmax(axis=1)
        if self._left_out:
            kept = scores[rows].copy()
            kept[:, list(self._left_out)] = -np.inf
            classes, best = kept.argmax(axis=1), kept.max(axis=1)
            highest[rows] = sigmoid(best) if how.sigmoid else best
            enough = highest[rows] >= self._min_score
            rows, classes = rows[enough], classes[enough]
        x, y, width, height = how.scales
        values = raw[rows] / np.array([y, x, height, width], np.float32)
        anchors = how.anchors[rows]
        middle = values[:, [1, 0]] * anchors[:, 2:] + anchors[:, :2]
        size = (np.exp(values[:, [3, 2]]) if how.exponential else values[:, [3, 2]]) * anchors[:, 2:]
        corners = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
        sound = np.isfinite(corners).all(axis=1) & (size >= 0).all(axis=1)
        return Boxes(corners=corners[sound], scores=highest[rows][sound], classes=classes[sound])

    def _given(self, boxes: Float32, classes: Float32, scores: Float32, count: Float32) -> Boxes:
        """Those of a model that decodes and suppresses by itself."""
        most = min(max(0, int(count.ravel()[0])), boxes.shape[1])
        corners = boxes[0, :most][:, list(self._metadata.corners)]
        found = Boxes(
            corners=corners.copy(), scores=scores[0, :most].copy(), classes=classes[0, :most].astype(np.int64)
        )
        kept = (found.scores >= self._min_score) & (found.scores > 0) & np.isfinite(found.corners).all(axis=1)
        kept &= ~np.isin(found.classes, list(self._left_out))
        return found[np.flatnonzero(kept)[: self._most]]


def suppressed(found: Boxes, min_suppression: float, most: int | None = None) -> Boxes:
    """The likeliest boxes, without those that overlap a likelier one more than ``min_suppression``.

    Source: MediaPipe's ``non_max_suppression_calculator``, its default algorithm.

    Args:
        found: In any order, with scores above 0.
        min_suppression: Intersection over union.
        most: How many at most; None for all.
    """
    sides = found.corners[:, 2:] - found.corners[:, :2]
    boxes = np.concatenate([found.corners[:, :2], sides], axis=1)
    if not len(found):
        return found
    likeliest: Any = cv2.dnn.NMSBoxes  # takes arrays, whatever its stub says
    return found[np.asarray(likeliest(boxes, found.scores, 0.0, min_suppression), np.int64)[:most]]


def _outputs(graph: LiteGraph, metadata: Metadata) -> list[int]:
    """Which outputs are the boxes and the scores; of models that suppress, the boxes, classes, scores and their number."""
    shapes = [spec.shape for spec in graph.outputs]
    how = metadata.decoding
    if how is not None:
        boxes, scores = (1, len(how.anchors), 4), (1, len(how.anchors), how.classes)
        if len(shapes) == 2 and set(shapes) == {boxes, scores}:
            named = list(metadata.outputs)
            by_name = ["location", "score"]
            if boxes == scores:
                return [named.index(name) for name in by_name] if set(named) == set(by_name) else [0, 1]
            return [shapes.index(boxes), shapes.index(scores)]
    elif len(shapes) == 4:
        names = ("location", "category", "score", "number of detections")
        places = (
            [metadata.outputs.index(name) for name in names] if set(names) == set(metadata.outputs) else [0, 1, 2, 3]
        )
        count = shapes[places[0]][1] if len(shapes[places[0]]) == 3 else -1
        if [shapes[place] for place in places[:3]] == [(1, count, 4), (1, count), (1, count)]:
            return places
    raise ModelLoadError(f"a model of another kind: its outputs are {shapes}, not boxes and scores")
