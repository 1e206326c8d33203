"""Single-shot detectors: anchors, decoding and weighted suppression of what they find.

BlazeFace (Bazarevsky et al., 2019, arXiv:1907.05047) describes the anchors and the suppression that averages
overlapping boxes by score instead of keeping one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tabml._litert import LiteGraph
from tabml.errors import ModelLoadError
from tabml.vision._graphs.regions import Float32, Pixels, cut, sigmoid


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a detector's outputs mean."""

    side: int
    """Input side, pixels."""
    layers: tuple[tuple[int, int], ...]
    """Stride of each grid of anchors in pixels, and anchors a cell."""
    keypoints: int
    """Keypoints of each detection."""
    low: float
    """What black is in the model's input; white is 1."""

    def anchors(self) -> Float32:
        """Shape (n, 2): the anchors' centres, shares of the input; their size is the input's."""
        grids = []
        for stride, count in self.layers:
            cells = -(-self.side // stride)
            line = (np.arange(cells, dtype=np.float32) + 0.5) / cells
            centres = np.stack([np.tile(line, cells), np.repeat(line, cells)], axis=1)
            grids.append(np.repeat(centres, count, axis=0))
        return np.concatenate(grids).astype(np.float32)

    def fits(self, shapes: list[tuple[int, ...]], count: int) -> bool:
        """Whether a model of these inputs and outputs has this head and ``count`` anchors."""
        side, columns = self.side, 4 + 2 * self.keypoints
        return shapes == [(1, side, side, 3), (1, count, columns), (1, count, 1)]


FACE_SHORT = Head(side=128, layers=((8, 2), (16, 6)), keypoints=6, low=-1.0)
FACE_FULL = Head(side=192, layers=((4, 1),), keypoints=6, low=-1.0)
PALM = Head(side=192, layers=((8, 2), (16, 6)), keypoints=7, low=0.0)
POSE = Head(side=224, layers=((8, 2), (16, 2), (32, 6)), keypoints=4, low=-1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """What a detector found, the likeliest first; shares of the square that it saw, the picture in its middle."""

    boxes: Float32
    """Shape (n, 4): left, top, width, height."""
    keypoints: Float32
    """Shape (n, k, 2)."""
    scores: Float32
    """Shape (n,), 0 to 1."""

    def __len__(self) -> int:
        return len(self.scores)

    def in_picture(self, width: int, height: int) -> Detections:
        """The same as shares of the picture.

        Source: MediaPipe's ``detection_projection_calculator``.
        """
        size = np.array([width, height], np.float32)
        longer, one = size.max(), np.float32(1)
        scale, start = longer * (one / size), (np.float32(-0.5) * longer + np.float32(0.5) * size) * (one / size)
        starts = self.boxes[:, :2] * scale + start
        ends = (self.boxes[:, :2] + self.boxes[:, 2:]) * scale + start
        return Detections(
            boxes=np.concatenate([starts, ends - starts], axis=1),
            keypoints=self.keypoints * scale + start,
            scores=self.scores,
        )


class SsdDetector:
    """One detector model over whole pictures."""

    def __init__(
        self,
        model: bytes | memoryview,
        *heads: Head,
        threads: int,
        min_confidence: float,
        min_suppression: float,
    ) -> None:
        """Load it.

        Args:
            model: The bytes of a .tflite file.
            heads: What it may be; the one whose shapes fit is used.
            threads: How many threads share one call.
            min_confidence: Detections that score less are left out, 0 to 1.
            min_suppression: Boxes that overlap more (intersection over union) are averaged into one.

        Raises:
            ModelLoadError: LiteRT refused the model, or it is none of ``heads``.
        """
        self._graph = LiteGraph(model, threads=threads)
        shapes = [spec.shape for spec in (*self._graph.inputs, *self._graph.outputs)]
        for head in heads:
            anchors = head.anchors()
            if head.fits(shapes, len(anchors)):
                break
        else:
            self._graph.close()
            raise ModelLoadError(f"a model of another kind: its tensors are {shapes}")
        self._head = head
        self._anchors = anchors
        self._min_confidence = np.float32(min_confidence)
        self._min_suppression = min_suppression

    def find(self, pixels: Pixels) -> Detections:
        """What is in the picture, shape (height, width, 3), RGB."""
        head = self._head
        tensor = cut(pixels, None, head.side, replicate=False, low=head.low)
        likely = self._graph.run([tensor], lambda out: self._likely(out[0][0], out[1][0, :, 0]))
        return merged(likely, self._min_suppression)

    def close(self) -> None:
        """Free the model; twice is fine."""
        self._graph.close()

    def _likely(self, raw: Float32, logits: Float32) -> Detections:
        """Decode what scores enough."""
        scores = sigmoid(logits)
        likely = np.flatnonzero(scores >= self._min_confidence)
        values = raw[likely] / np.float32(self._head.side)
        points = values.reshape(len(likely), 2 + self._head.keypoints, 2)
        centres, halves = points[:, 0] + self._anchors[likely], points[:, 1] / 2
        starts, ends = centres - halves, centres + halves
        sound = (ends >= starts).all(axis=1)
        return Detections(
            boxes=np.concatenate([starts, ends - starts], axis=1)[sound],
            keypoints=points[sound, 2:] + self._anchors[likely[sound], None],
            scores=scores[likely[sound]],
        )


def merged(found: Detections, min_suppression: float) -> Detections:
    """Weighted suppression: every group of boxes that overlap the likeliest one becomes their mean by score.

    Source: MediaPipe's ``non_max_suppression_calculator``.

    Args:
        found: In any order; a group keeps its highest score.
        min_suppression: Intersection over union above which boxes are one group.

    Returns:
        The groups, the likeliest first.
    """
    count = len(found)
    starts, ends = found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:]
    ones = np.ones((count, 1), np.float32)
    values = np.concatenate([starts, ends, found.keypoints.reshape(count, 2 * found.keypoints.shape[1]), ones], axis=1)
    order = np.argsort(-found.scores, kind="stable")
    kept: list[Float32] = []
    best: list[np.float32] = []
    while len(order):
        first = order[0]
        close = overlaps(values[first, :4], values[order, :4]) > min_suppression
        group = order[close]
        best.append(found.scores[first])
        if not len(group):
            kept.append(values[first])
            break
        sums = (values[group] * found.scores[group, None]).sum(axis=0)
        kept.append(sums / sums[-1])
        order = order[~close]
    if not kept:
        return found
    means = np.stack(kept)
    return Detections(
        boxes=np.concatenate([means[:, :2], means[:, 2:4] - means[:, :2]], axis=1),
        keypoints=means[:, 4:-1].reshape(len(means), *found.keypoints.shape[1:]),
        scores=np.array(best, np.float32),
    )


def overlaps(box: Float32, boxes: Float32) -> Float32:
    """Intersection over union of one box, shape (4,), with each of ``boxes``, shape (n, 4); 0 where both are empty."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared: Float32 = np.where((sides > 0).all(axis=1), sides.prod(axis=1), np.float32(0))
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - shared
    share: Float32 = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return share
