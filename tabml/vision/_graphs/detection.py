"""Single-shot detectors: anchors, decoding and weighted suppression of what they find.

BlazeFace (Bazarevsky et al., 2019, arXiv:1907.05047) describes the anchors and the suppression that averages
overlapping boxes by score instead of keeping one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tabml._litert import LiteGraph
from tabml.errors import ModelLoadError
from tabml.vision._graphs.regions import Float32, Pixels, cut, sigmoid, whole


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
    """What a detector found, the likeliest first."""

    boxes: Float32
    """Shape (n, 4): left, top, right, bottom, pixels of the picture."""
    keypoints: Float32
    """Shape (n, k, 2), pixels of the picture."""
    scores: Float32
    """Shape (n,), 0 to 1."""

    def __len__(self) -> int:
        return len(self.scores)


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
        height, width, _ = pixels.shape
        head, region = self._head, whole(width, height)
        tensor = cut(pixels, region, head.side, replicate=False, low=head.low)
        corners, points, scores = self._graph.run([tensor], lambda out: self._likely(out[0][0], out[1][0, :, 0]))
        corners, points, scores = merged(corners, points, scores, self._min_suppression)
        size = np.float32(region.width)
        origin = np.array([region.x - region.width / 2, region.y - region.height / 2], np.float32)
        return Detections(
            boxes=(corners.reshape(-1, 2, 2) * size + origin).reshape(-1, 4),
            keypoints=points * size + origin,
            scores=scores,
        )

    def close(self) -> None:
        """Free the model; twice is fine."""
        self._graph.close()

    def _likely(self, raw: Float32, logits: Float32) -> tuple[Float32, Float32, Float32]:
        """Decode what scores enough: corners (n, 4) and keypoints (n, k, 2) as shares of the input, scores (n,)."""
        scores = sigmoid(logits)
        likely = np.flatnonzero(scores >= self._min_confidence)
        values = (raw[likely] / np.float32(self._head.side)).reshape(len(likely), 2 + self._head.keypoints, 2)
        centres, sizes = values[:, 0] + self._anchors[likely], values[:, 1]
        sound = (sizes >= 0).all(axis=1)
        centres, halves = centres[sound], sizes[sound] / 2
        points = values[sound, 2:] + self._anchors[likely[sound], None]
        corners: Float32 = np.concatenate([centres - halves, centres + halves], axis=1)
        return corners, points, scores[likely[sound]]


def merged(
    corners: Float32, points: Float32, scores: Float32, min_suppression: float
) -> tuple[Float32, Float32, Float32]:
    """Weighted suppression: every group of boxes that overlap the likeliest one becomes their mean by score.

    Args:
        corners: Shape (n, 4): left, top, right, bottom.
        points: Shape (n, k, 2).
        scores: Shape (n,); a group keeps its highest.
        min_suppression: Intersection over union above which boxes are one group.

    Returns:
        The same three, for m groups, the likeliest first.
    """
    order = np.argsort(-scores, kind="stable")
    values = np.concatenate([corners, points.reshape(len(points), points.shape[1] * 2)], axis=1)
    kept: list[Float32] = []
    best: list[np.float32] = []
    while len(order):
        close = overlaps(corners[order[0]], corners[order]) > min_suppression
        group = order[close]
        best.append(scores[order[0]])
        if not len(group):
            kept.append(values[order[0]])
            break
        weights = scores[group]
        kept.append((values[group] * weights[:, None]).sum(axis=0) / weights.sum())
        order = order[~close]
    if not kept:
        return corners[:0], points[:0], scores[:0]
    means = np.stack(kept).astype(np.float32)
    return means[:, :4], means[:, 4:].reshape(len(means), *points.shape[1:]), np.array(best, np.float32)


def overlaps(box: Float32, boxes: Float32) -> Float32:
    """Intersection over union of one box, shape (4,), with each of ``boxes``, shape (n, 4); 0 where both are empty."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared: Float32 = np.where((sides > 0).all(axis=1), sides.prod(axis=1), np.float32(0))
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - shared
    share: Float32 = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return share
