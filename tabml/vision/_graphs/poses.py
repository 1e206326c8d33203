"""Bodies: a detector finds the hips and the size, the landmark model 33 points in what they enclose.

BlazePose (Bazarevsky et al., 2020, arXiv:2006.10204); constants of MediaPipe's pose landmarker graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tabml._litert import LiteGraph
from tabml._litert.bundle import members
from tabml.vision._graphs.detection import POSE, SsdDetector
from tabml.vision._graphs.following import Follower, LowPass, OneEuro, replaced
from tabml.vision._graphs.graph import Graph, expect_shapes
from tabml.vision._graphs.regions import Float32, Pixels, Region, cut, heading, padding, sigmoid

_SIDE = 256
_POINTS = 33
_AUXILIARY = 2  # the centre of the hips and a point that gives size and rotation
_ALL_POINTS = 39
_GRID = 64
_REACH = 3  # cells of the heat map around a landmark, each way
_MIN_HEAT = 0.5
_MARGIN = 1.25
_SUPPRESSION = 0.5
_VISIBILITY_WEIGHT = np.float32(0.1)
_SHAPES = [
    (1, _SIDE, _SIDE, 3), (1, 5 * _ALL_POINTS), (1, 1), (1, _SIDE, _SIDE, 1), (1, _GRID, _GRID, _ALL_POINTS),
    (1, 3 * _ALL_POINTS),
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Body:
    """One body."""

    points: Float32
    """Shape (33, 3), normalised; z on the scale of x."""
    world: Float32
    """Shape (33, 3), metres."""
    visibility: Float32
    """Shape (33,), 0 to 1."""
    presence: Float32
    """Shape (33,), 0 to 1."""
    next_region: Region
    """Where to look for it in the next frame."""


class BodyLandmarks:
    """The landmark model over one region of a picture."""

    def __init__(self, model: bytes | memoryview, *, threads: int, min_confidence: float) -> None:
        """Load it.

        Raises:
            ModelLoadError: it is another model.
        """
        self._graph = LiteGraph(model, threads=threads)
        expect_shapes(self._graph, _SHAPES)
        self._min_confidence = min_confidence

    def find(self, pixels: Pixels, region: Region) -> Body | None:
        """The body in the region; None when the model sees none."""
        tensor = cut(pixels, region, _SIDE, replicate=True, low=0.0)
        return self._graph.run([tensor], lambda out: self._body(out, region))

    def close(self) -> None:
        """Free the model; twice is fine."""
        self._graph.close()

    def _body(self, out: Any, region: Region) -> Body | None:
        raw, flag, _, heat, world = out
        if not float(flag[0, 0]) > self._min_confidence:
            return None
        values = raw.reshape(_ALL_POINTS, 5)[: _POINTS + _AUXILIARY]
        refined = refine(values[:, :3] / np.float32(_SIDE), heat[0])
        points = region.project(refined)
        likely = sigmoid(values[:_POINTS, 3:])
        return Body(
            points=points[:_POINTS],
            world=region.turn(world.reshape(_ALL_POINTS, 3)[:_POINTS]),
            visibility=likely[:, 0],
            presence=likely[:, 1],
            next_region=around(points[_POINTS:, :2], region.picture),
        )


def around(points: Float32, picture: tuple[int, int]) -> Region:
    """The region of a body.

    Source: MediaPipe's ``alignment_points_to_rects_calculator``.

    Args:
        points: Shape (2 or more, 2), normalised: the middle of the hips, then a point on the circle around the body.
        picture: Width and height, pixels.
    """
    width, height = picture
    centre, far = points[:2] * np.array(picture, np.float32)
    away = far - centre
    side = np.sqrt(away[0] * away[0] + away[1] * away[1]) * np.float32(2)
    return Region(
        x=centre[0] / width,
        y=centre[1] / height,
        width=side / width,
        height=side / height,
        rotation=heading(centre, far, math.pi / 2),
        picture=picture,
    ).grown(_MARGIN)


def refine(points: Float32, heat: Float32) -> Float32:
    """Move each point to the centre of mass of its heat map nearby, where that is hot enough.

    Source: MediaPipe's ``refine_landmarks_from_heatmap_calculator``, kernel 7.

    Args:
        points: Shape (n, 3), shares of the region.
        heat: Shape (rows, columns, m), m ≥ n: logits, one layer a point.
    """
    rows, columns, _ = heat.shape
    refined = points.copy()
    column, row = (points[:, 0] * columns).astype(int), (points[:, 1] * rows).astype(int)
    for index in np.flatnonzero((column >= 0) & (column < columns) & (row >= 0)):
        left, top = max(0, column[index] - _REACH), max(0, row[index] - _REACH)
        weights = sigmoid(heat[top : row[index] + _REACH + 1, left : column[index] + _REACH + 1, index])
        if weights.size and weights.max() >= _MIN_HEAT:
            high, wide = weights.shape
            total = summed(weights)
            refined[index, 0] = summed(weights * np.arange(left, left + wide, dtype=np.float32)) / columns / total
            refined[index, 1] = summed(weights * np.arange(top, top + high, dtype=np.float32)[:, None]) / rows / total
    return refined


def summed(values: Float32) -> np.float32:
    """One after another in 32 bits, as C does; numpy's own sum adds in pairs."""
    total: np.float32 = np.add.accumulate(values.ravel())[-1]
    return total


class PoseGraph(Graph):
    """Answers with a list of :class:`Body`."""

    def __init__(
        self,
        model: bytes | memoryview,
        *,
        threads: int,
        num_poses: int,
        min_detection: float,
        min_presence: float,
        min_tracking: float | None = None,
        search_interval: int = 1,
    ) -> None:
        """Load a pose landmarker bundle.

        Args:
            model: Its bytes.
            threads: How many threads share one call.
            num_poses: How many bodies are found at most.
            min_detection: For a body to be found at all.
            min_presence: For its landmarks to be believed.
            min_tracking: For video: how much a body found anew overlaps a followed one to take its place. None
                for single pictures.
            search_interval: For video: while some but not all are followed, search every so many frames.

        Raises:
            ModelLoadError: it is another bundle.
        """
        parts = members(model, "pose_detector.tflite", "pose_landmarks_detector.tflite")
        self._detector = SsdDetector(
            parts[0], POSE, threads=threads, min_confidence=min_detection, min_suppression=_SUPPRESSION
        )
        self._landmarks = BodyLandmarks(parts[1], threads=threads, min_confidence=min_presence)
        self._most = num_poses
        self._min_tracking = min_tracking
        self._follower = Follower(most=num_poses, search_interval=search_interval)
        self._smoothing = BodySmoothing() if min_tracking is not None and num_poses == 1 else None
        super().__init__(self._detector, self._landmarks)

    def _find(self, pixels: Pixels, after_ms: int) -> list[Body]:
        if self._min_tracking is None:
            return self._bodies(pixels, self._search(pixels))
        found = self._search(pixels) if self._follower.wants_search() else []
        bodies = self._bodies(pixels, replaced(self._follower.regions, found, self._min_tracking))
        self._follower.expect([body.next_region for body in bodies])
        if self._smoothing is not None:
            return self._smoothing(bodies, after_ms)
        return bodies

    def _forget(self) -> None:
        self._follower.forget()
        if self._smoothing is not None:
            self._smoothing = BodySmoothing()

    def _search(self, pixels: Pixels) -> list[Region]:
        height, width, _ = pixels.shape
        left, top = padding(width, height)
        keypoints = (self._detector.find(pixels).keypoints - (left, top)) / (1 - (left + left), 1 - (top + top))
        return [around(points, (width, height)) for points in keypoints.astype(np.float32)[: self._most]]

    def _bodies(self, pixels: Pixels, regions: list[Region]) -> list[Body]:
        found = (self._landmarks.find(pixels, region) for region in regions[: self._most])
        return [body for body in found if body is not None]


class BodySmoothing:
    """One body from frame to frame; see ``pose_landmarks_detector_graph`` of MediaPipe for the constants."""

    def __init__(self) -> None:
        self._at_ms = 0
        self._visibility = LowPass()
        self._world = OneEuro(min_cutoff=0.1, beta=40.0)
        self._points = OneEuro(min_cutoff=0.05, beta=80.0)

    def __call__(self, bodies: list[Body], after_ms: int) -> list[Body]:
        """The body smoothed; a frame without one begins anew."""
        self._at_ms += after_ms
        if not bodies:
            self._points = OneEuro(min_cutoff=0.05, beta=80.0)
            return []
        (body,) = bodies
        region = body.next_region
        width, height = region.picture
        size = np.array([width, height, width], np.float32)
        scale = (region.width * width + region.height * height) / 2
        return [
            Body(
                points=self._points(body.points * size, self._at_ms, scale) / size,
                world=self._world(body.world, self._at_ms),
                visibility=self._visibility(body.visibility, _VISIBILITY_WEIGHT),
                presence=body.presence,
                next_region=region,
            )
        ]
