"""Faces as meshes: a detector finds faces, the landmark model 478 points in each, others expressions and the head.

Attention Mesh (Grishchenko et al., 2020, arXiv:2006.10962); constants of MediaPipe's face landmarker graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tabml._litert import LiteGraph
from tabml._litert.bundle import members
from tabml.vision._graphs.detection import FACE_FULL, FACE_SHORT, SsdDetector
from tabml.vision._graphs.following import Follower, OneEuro, replaced
from tabml.vision._graphs.geometry import HeadGeometry
from tabml.vision._graphs.graph import Graph, Part, expect_shapes
from tabml.vision._graphs.regions import Float32, Pixels, Region, cut, heading, sigmoid

_SIDE = 256
_POINTS = 478
_SUPPRESSION = 0.5
_MARGIN = 1.5
_RIGHT_EYE, _LEFT_EYE = 0, 1  # of a detection's keypoints
_RIGHT_CORNER, _LEFT_CORNER = 33, 263
_SHAPES = [(1, _SIDE, _SIDE, 3), (1, 1, 1, 3 * _POINTS), (1, 1, 1, 1), (1, 1)]
_EXPRESSIONS = 52
_HALF = np.float32(2)
_TELLING = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80, 81,
    82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153, 154,
    155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263,
    267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321,
    323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387,
    388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
])  # fmt: skip
"""The landmarks that the blendshape model reads (``face_blendshapes_graph``)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundMesh:
    """One face."""

    points: Float32
    """Shape (478, 3), normalised; z on the scale of x."""
    score: float
    """How surely it is a face, 0 to 1."""
    next_region: Region
    """Where to look for it in the next frame."""
    expressions: Float32 | None = None
    """Shape (52,), 0 to 1: the blendshapes, when asked for."""
    transform: Float32 | None = None
    """Shape (4, 4), from the canonical face to the camera, when asked for and the face is more than a dot."""


class MeshLandmarks:
    """The landmark model over one region of a picture."""

    def __init__(self, model: bytes | memoryview, *, threads: int, min_confidence: float) -> None:
        """Load it.

        Raises:
            ModelLoadError: it is another model.
        """
        self._graph = LiteGraph(model, threads=threads)
        expect_shapes(self._graph, _SHAPES)
        self._min_confidence = min_confidence

    def find(self, pixels: Pixels, region: Region) -> FoundMesh | None:
        """The face in the region; None when the model sees none."""
        tensor = cut(pixels, region, _SIDE, replicate=True, low=0.0)
        return self._graph.run([tensor], lambda out: self._mesh(out, region))

    def close(self) -> None:
        """Free the model; twice is fine."""
        self._graph.close()

    def _mesh(self, out: Any, region: Region) -> FoundMesh | None:
        raw, flag, _ = out
        score = float(sigmoid(flag[0, 0, 0])[0])
        if not score > self._min_confidence:
            return None
        points = region.map(raw.reshape(_POINTS, 3) / np.float32(_SIDE))
        return FoundMesh(points=points, score=score, next_region=around(points, region.picture))


def around(points: Float32, picture: tuple[int, int]) -> Region:
    """The region of a face.

    Source: MediaPipe's ``landmarks_to_detection_calculator`` and ``detections_to_rects_calculator``.

    Args:
        points: Shape (478, 2 or more), normalised.
        picture: Width and height, pixels.
    """
    size = np.array(picture, np.float32)
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    (width, height), (x, y) = high - low, low
    corners = points[[_RIGHT_CORNER, _LEFT_CORNER], :2] * size
    return Region(
        x=x + width / _HALF,
        y=y + height / _HALF,
        width=width,
        height=height,
        rotation=heading(corners[0], corners[1], 0.0),
        picture=picture,
    ).grown(_MARGIN)


class Expressions:
    """The model of 52 blendshapes."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        """Load it.

        Raises:
            ModelLoadError: it is another model.
        """
        self._graph = LiteGraph(model, threads=threads)
        expect_shapes(self._graph, [(1, len(_TELLING), 2), (_EXPRESSIONS,)])

    def read(self, points: Float32, picture: tuple[int, int]) -> Float32:
        """Shape (52,), 0 to 1.

        Args:
            points: Shape (478, 3), normalised.
            picture: Width and height, pixels.
        """
        telling = points[_TELLING, :2] * np.array(picture, np.float32)
        return self._graph.run([telling[None]], lambda out: out[0].copy())

    def close(self) -> None:
        """Free the model; twice is fine."""
        self._graph.close()


class MeshGraph(Graph):
    """Answers with a list of :class:`FoundMesh`."""

    def __init__(
        self,
        model: bytes | memoryview,
        *,
        expressions: bool,
        transform: bool,
        threads: int,
        num_faces: int,
        min_detection: float,
        min_presence: float,
        min_tracking: float | None = None,
        search_interval: int = 1,
    ) -> None:
        """Load a face landmarker bundle.

        Args:
            model: Its bytes.
            expressions: Also read each face's blendshapes.
            transform: Also place each head.
            threads: How many threads share one call.
            num_faces: How many faces are found at most.
            min_detection: For a face to be found at all.
            min_presence: For its landmarks to be believed.
            min_tracking: For video: how much a face found anew overlaps a followed one to take its place. None for
                single pictures.
            search_interval: For video: while some but not all are followed, search every so many frames.

        Raises:
            ModelLoadError: it is another bundle.
        """
        detector, landmarks = members(model, "face_detector.tflite", "face_landmarks_detector.tflite")
        self._detector = SsdDetector(
            detector, FACE_SHORT, FACE_FULL, threads=threads, min_confidence=min_detection, min_suppression=_SUPPRESSION
        )
        self._landmarks = MeshLandmarks(landmarks, threads=threads, min_confidence=min_presence)
        parts: list[Part] = [self._detector, self._landmarks]
        self._expressions: Expressions | None = None
        if expressions:
            self._expressions = Expressions(*members(model, "face_blendshapes.tflite"), threads=threads)
            parts.append(self._expressions)
        self._geometry: HeadGeometry | None = None
        if transform:
            self._geometry = HeadGeometry(*members(model, "geometry_pipeline_metadata_landmarks.binarypb"))
        self._most = num_faces
        self._min_tracking = min_tracking
        self._follower = Follower(most=num_faces, search_interval=search_interval)
        self._smoothing = MeshSmoothing() if min_tracking is not None and num_faces == 1 else None
        super().__init__(*parts)

    def _find(self, pixels: Pixels, after_ms: int) -> list[FoundMesh]:
        if self._min_tracking is None:
            faces = self._faces(pixels, self._search(pixels))
        else:
            found = self._search(pixels) if self._follower.wants_search() else []
            faces = self._faces(pixels, replaced(self._follower.regions, found, self._min_tracking))
            self._follower.expect([face.next_region for face in faces])
            if self._smoothing is not None:
                faces = self._smoothing(faces, after_ms)
        return [self._described(face) for face in faces]

    def _forget(self) -> None:
        self._follower.forget()
        if self._smoothing is not None:
            self._smoothing = MeshSmoothing()

    def _search(self, pixels: Pixels) -> list[Region]:
        height, width, _ = pixels.shape
        found = self._detector.find(pixels).in_picture(width, height)
        size = np.array([width, height], np.float32)
        return [
            Region(
                x=box[0] + box[2] / _HALF,
                y=box[1] + box[3] / _HALF,
                width=box[2],
                height=box[3],
                rotation=heading(points[_RIGHT_EYE] * size, points[_LEFT_EYE] * size, 0.0),
                picture=(width, height),
            ).widened(_MARGIN)
            for box, points in zip(found.boxes[: self._most], found.keypoints, strict=False)
        ]

    def _faces(self, pixels: Pixels, regions: Sequence[Region]) -> list[FoundMesh]:
        found = (self._landmarks.find(pixels, region) for region in regions[: self._most])
        return [face for face in found if face is not None]

    def _described(self, face: FoundMesh) -> FoundMesh:
        picture = face.next_region.picture
        if self._expressions is not None:
            face = replace(face, expressions=self._expressions.read(face.points, picture))
        if self._geometry is not None:
            face = replace(face, transform=self._geometry.transform(face.points, picture))
        return face


class MeshSmoothing:
    """One face from frame to frame; see ``face_landmarks_detector_graph`` of MediaPipe for the constants."""

    def __init__(self) -> None:
        self._at_ms = 0
        self._points = OneEuro(min_cutoff=0.05, beta=80.0)

    def __call__(self, faces: list[FoundMesh], after_ms: int) -> list[FoundMesh]:
        """The face smoothed; a frame without one begins anew."""
        self._at_ms += after_ms
        if not faces:
            self._points = OneEuro(min_cutoff=0.05, beta=80.0)
            return []
        (face,) = faces
        width, height = face.next_region.picture
        size = np.array([width, height, width], np.float32)
        pixels = face.points * size
        extent = pixels[:, :2].max(axis=0) - pixels[:, :2].min(axis=0)
        smooth = self._points(pixels, self._at_ms, (extent[0] + extent[1]) / _HALF)
        return [replace(face, points=smooth / size)]
