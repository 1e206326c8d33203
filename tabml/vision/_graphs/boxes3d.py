"""Boxes in three dimensions: a detector finds objects, another model nine points of each one's box, and EPnP lifts them.

Objectron: Ahmadyan et al., 2020, arXiv:2012.09988 (two stages); the steps are those of MediaPipe's ``objectron`` module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tabml._litert import LiteGraph
from tabml.errors import ModelLoadError
from tabml.vision._graphs.graph import Graph, expect_shapes
from tabml.vision._graphs.objects import Boxes, suppressed
from tabml.vision._graphs.regions import Float32, Pixels, scaled, sigmoid, stretched

CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float) / 2
"""Shape (8, 3): points 1 to 8 of a box whose sides are 1; x to the right, y up, z to the front. Point 0 is its middle."""
LABELS = (
    "", "Bicycle", "Boot", "Laptop", "Person", "Chair", "Cattle", "Desk", "Cat", "Computer mouse", "Computer monitor", "Box",
    "Mug", "Coffee cup", "Stationary bicycle", "Table", "Bottle", "High heels", "Vehicle", "Footwear", "Dog", "Book", "Camera",
    "Car",
)  # fmt: skip
"""The detector's classes, of Open Images V4; the first is none."""
_DETECTOR_SIDE, _SIDE, _POINTS = 300, 224, 9
_STRIDES, _RATIOS, _SCALES = (16, 32, 64, 128, 256, 512), (1.0, 2.0, 0.5, 3.0, 0.3333), (0.2, 0.95)
_PLACE, _SIZE = 10.0, 5.0  # what raw centres and sizes are divided by
_SUPPRESSION = 0.4
_MARGIN = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lifted:
    """A box in front of the camera; lengths are known up to one scale for all."""

    points: Float32
    """Shape (9, 3): its middle and corners. x to the right, y up, z towards the camera: all are negative."""
    rotation: Float32
    """Shape (3, 3): from the box's axes to the camera's."""
    size: Float32
    """Shape (3,): along its own x, y and z."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundBox:
    """One object."""

    index: int
    """Of :data:`LABELS`."""
    score: float
    """The detector's, 0 to 1."""
    presence: float
    """How surely the box is there, 0 to 1."""
    corners: Float32
    """Shape (4,): left, top, right, bottom of the detector's box; shares of the picture."""
    keypoints: Float32
    """Shape (9, 2): middle and corners in the picture; shares of it."""


def anchors() -> Float32:
    """Shape (1917, 4): x and y of the centre, width and height; shares of the input.

    SSD's (Liu et al., 2016, arXiv:1512.02325) with the smallest grid reduced to three, as in TensorFlow's object detection API.
    """
    steps = len(_STRIDES) - 1
    sizes = [_SCALES[0] + (_SCALES[1] - _SCALES[0]) * at / steps for at in range(steps + 1)] + [1.0]
    rows = []
    for layer, stride in enumerate(_STRIDES):
        if layer:
            kinds = [(sizes[layer], ratio) for ratio in _RATIOS] + [(math.sqrt(sizes[layer] * sizes[layer + 1]), 1.0)]
        else:
            kinds = [(0.1, 1.0), (sizes[0], 2.0), (sizes[0], 0.5)]
        cells = -(-_DETECTOR_SIDE // stride)
        for y in range(cells):
            for x in range(cells):
                for size, ratio in kinds:
                    wide, high = size * math.sqrt(ratio), size / math.sqrt(ratio)
                    rows.append(((x + 0.5) / cells, (y + 0.5) / cells, wide, high))
    return np.array(rows, np.float32)


class BoxGraph(Graph):
    """Answers with a list of :class:`FoundBox`."""

    def __init__(
        self,
        detector: bytes | memoryview,
        model: bytes | memoryview,
        *,
        labels: tuple[str, ...],
        threads: int,
        max_objects: int,
        min_detection: float,
        min_presence: float,
    ) -> None:
        """Load both models.

        Args:
            detector: MediaPipe's SSD of Open Images.
            model: One of Objectron's, of two stages.
            labels: Which of :data:`LABELS` the second model knows.
            threads: How many threads share one call.
            max_objects: How many are given at most.
            min_detection: For an object to be found at all, 0 to 1.
            min_presence: For its box to be believed, 0 to 1.

        Raises:
            ModelLoadError: one is another model.
        """
        self._detector = LiteGraph(detector, threads=threads)
        side, classes = _DETECTOR_SIDE, len(LABELS)
        expect_shapes(self._detector, [(1, side, side, 3), (1, 1917, 4), (1, 1917, classes)])
        try:
            self._points = LiteGraph(model, threads=threads)
            expect_shapes(self._points, [(1, _SIDE, _SIDE, 3), (1, 2 * _POINTS), (1, 1)])
        except ModelLoadError:
            self._detector.close()
            raise
        self._anchors = anchors()
        self._wanted = np.array([LABELS.index(name) for name in labels])
        self._most, self._min_detection, self._min_presence = max_objects, min_detection, min_presence
        super().__init__(self._detector, self._points)

    def _find(self, pixels: Pixels, after_ms: int) -> list[FoundBox]:
        seen = scaled(stretched(pixels, _DETECTOR_SIDE, _DETECTOR_SIDE), low=-1.0, high=1.0)
        boxes = self._detector.run([seen], lambda out: self._boxes(out[0][0], out[1][0]))
        found = []
        for corners, score, index in zip(boxes.corners, boxes.scores.tolist(), boxes.classes.tolist(), strict=True):
            tensor, back = _cut(pixels, corners)
            raw, presence = self._points.run(
                [tensor], lambda out: (out[0].reshape(_POINTS, 2).copy(), float(out[1].item()))
            )
            if presence >= self._min_presence and np.isfinite(raw).all():
                points = (raw @ back[:, :2].T + back[:, 2]) / (pixels.shape[1], pixels.shape[0])
                found.append(
                    FoundBox(
                        index=index,
                        score=score,
                        presence=presence,
                        corners=corners,
                        keypoints=points.astype(np.float32),
                    )
                )
        return found

    def _boxes(self, raw: Float32, scores: Float32) -> Boxes:
        likely = scores[:, self._wanted].max(axis=1)
        rows = np.flatnonzero(sigmoid(likely) >= self._min_detection)
        classes = self._wanted[scores[rows][:, self._wanted].argmax(axis=1)]
        where = self._anchors[rows]
        middle = raw[rows][:, [1, 0]] / _PLACE * where[:, 2:] + where[:, :2]
        half = np.exp(raw[rows][:, [3, 2]] / _SIZE) * where[:, 2:] / 2
        corners = np.clip(np.concatenate([middle - half, middle + half], axis=1), 0, 1)
        sound = np.isfinite(corners).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
        found = Boxes(corners=corners[sound], scores=sigmoid(likely[rows])[sound], classes=classes[sound])
        return suppressed(found, _SUPPRESSION, self._most)


def _cut(pixels: Pixels, corners: Float32) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What the second model looks at, and the way back from its pixels to the picture's, shape (2, 3).

    The box, half as large again, in the middle of a black square; beyond the picture's edge its nearest pixels.
    """
    height, width, _ = pixels.shape
    left, top, right, bottom = (corners * (width, height, width, height)).tolist()
    wide, high = max(2.0, (right - left) * _MARGIN), max(2.0, (bottom - top) * _MARGIN)
    start_x, start_y = (left + right - wide) / 2, (top + bottom - high) / 2
    scale = _SIDE / max(wide, high)
    inner = max(1, round(wide * scale)), max(1, round(high * scale))
    pad_x, pad_y = (_SIDE - inner[0]) // 2, (_SIDE - inner[1]) // 2
    way = np.array([[1 / scale, 0, start_x + 0.5 / scale - 0.5], [0, 1 / scale, start_y + 0.5 / scale - 0.5]])
    part = cv2.warpAffine(
        pixels, way, inner, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    square = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    square[pad_y : pad_y + inner[1], pad_x : pad_x + inner[0]] = part
    back = np.array([[1 / scale, 0, start_x - pad_x / scale], [0, 1 / scale, start_y - pad_y / scale]])
    return scaled(square, low=0.0, high=1.0), back


def lift(keypoints: Float32, focal: tuple[float, float]) -> Lifted | None:
    """The box whose corners are seen there; None where no box in front of the camera is.

    The proportions come from the linear step of EPnP (Lepetit, Moreno-Noguer and Fua, IJCV 2009) with the box's middle and three of its
    faces' middles as control points, whose eigenvector is theirs up to one scale (MobilePose: Hou et al., 2020, arXiv:2003.03522); the
    pose of the box of these proportions is OpenCV's EPnP.

    Args:
        keypoints: Shape (9, 2): middle and corners; shares of the picture.
        focal: Focal lengths across and down, in halves of the picture's width and height.
    """
    ndc = (keypoints[1:].astype(float) * 2 - 1) * (1, -1)
    weights = np.column_stack([1 - 2 * CORNERS.sum(axis=1), 2 * CORNERS])
    rows = np.zeros((16, 12))
    rows[0::2, 0::3], rows[0::2, 2::3] = focal[0] * weights, ndc[:, :1] * weights
    rows[1::2, 1::3], rows[1::2, 2::3] = focal[1] * weights, ndc[:, 1:] * weights
    if not np.isfinite(rows).all():
        return None
    control = np.linalg.eigh(rows.T @ rows)[1][:, 0].reshape(4, 3)
    size = 2 * np.linalg.norm(control[1:] - control[0], axis=1)
    if min(size) < 1e-6 or abs(control[0, 2]) < 1e-9:
        return None
    box = CORNERS * size
    camera = np.diag([focal[0], focal[1], 1.0])
    seen = np.ascontiguousarray(ndc * (1, -1))
    try:
        good, turn, shift = cv2.solvePnP(box, seen, camera, None, flags=cv2.SOLVEPNP_EPNP)
        turn, shift = cv2.solvePnPRefineLM(box, seen, camera, None, turn, shift)
    except cv2.error:
        return None
    if not good or not np.isfinite(turn).all() or not np.isfinite(shift).all() or float(shift[2, 0]) <= 0:
        return None
    flip = np.diag([1.0, -1.0, -1.0])  # OpenCV's cameras look along z, with y down
    rotation: Any = flip @ cv2.Rodrigues(turn)[0]
    middle = flip @ shift[:, 0]
    points = np.vstack([middle, box @ rotation.T + middle])
    return Lifted(
        points=points.astype(np.float32), rotation=rotation.astype(np.float32), size=np.asarray(size, np.float32)
    )
