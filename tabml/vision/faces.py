"""Faces: boxes with six keypoints, and dense meshes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tabml.files import FileProvider
from tabml.vision._model import Detector, ModelSource, Task, Tracker, VisionModel, count, one_of, ratio, thread_count
from tabml.vision.frame import Frame
from tabml.vision.results import Box, FaceDetection, FaceDetections, FaceMeshes, FaceMeshResult
from tabml.vision.results.found import frozen

_RANGES = ("short", "full")


class FaceDetector(Detector[FaceDetections]):
    """Finds faces: a box and six keypoints each, sorted as the model gives them.

    BlazeFace (Bazarevsky et al., 2019, arXiv:1907.05047). ``range="short"`` sees faces within about two metres
    of the camera; ``"full"`` also small and many ones, in about three times the time.
    """

    def __init__(
        self,
        *,
        range: Literal["short", "full"] = "short",
        min_detection_confidence: float = 0.5,
        min_suppression_threshold: float = 0.3,
        threads: int | None = None,
        model: ModelSource | None = None,
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            range: Which default model.
            min_detection_confidence: Faces that score less are left out, 0 to 1.
            min_suppression_threshold: Boxes that overlap more (intersection over union, 0 to 1) are one face.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Another model, instead of the default of ``range``.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        one_of("range", range, _RANGES)
        self._confidence = ratio("min_detection_confidence", min_detection_confidence)
        self._suppression = ratio("min_suppression_threshold", min_suppression_threshold)
        self._threads = thread_count("threads", threads)
        name = "face_detector" if range == "short" else "face_detector_full_range"
        super().__init__(model=name if model is None else model, files=files)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.faces import FaceGraph

        return FaceGraph(
            model, threads=self._threads, min_confidence=self._confidence, min_suppression=self._suppression
        )

    def _read(self, native: Any, frame: Frame) -> FaceDetections:
        size = np.array([frame.width, frame.height], np.float32)
        found = native.in_picture(frame.width, frame.height)
        pixels = np.clip((found.boxes.reshape(-1, 2, 2) * size).astype(int), 0, size.astype(int))
        boxes = (pixels / size.astype(float)).reshape(-1, 4).tolist()  # whole pixels, as MediaPipe's own
        keypoints = found.keypoints
        keypoints.flags.writeable = False
        return FaceDetections(
            items=tuple(
                FaceDetection(box=Box(x=x, y=y, width=width, height=height), score=score, keypoints=points)
                for (x, y, width, height), score, points in zip(boxes, native.scores.tolist(), keypoints, strict=True)
            ),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


def mesh_of(face: Any) -> FaceMeshResult:
    """The value of a mesh that a graph found."""
    return FaceMeshResult(
        landmarks=frozen(face.points),
        blendshapes=None if face.expressions is None else frozen(face.expressions),
        transform=None if face.transform is None else frozen(face.transform),
    )


class _MeshModel(VisionModel[FaceMeshes]):
    """The options and answers that the detector and the tracker of meshes share."""

    _video: bool
    _search_interval = 1

    def __init__(
        self,
        *,
        num_faces: int = 1,
        range: Literal["short", "full"] = "short",
        blendshapes: bool = False,
        transform: bool = False,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        threads: int | None = None,
        model: ModelSource | None = None,
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            num_faces: The most faces to find, 1 to 100.
            range: ``"full"`` also finds small and many faces.
            blendshapes: Also give 52 blendshape weights a face.
            transform: Also give the 4×4 matrix from the canonical face to the camera.
            min_detection_confidence: For a face to be found at all, 0 to 1.
            min_presence_confidence: For its mesh to be believed, 0 to 1.
            min_tracking_confidence: Of no effect in single pictures.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Another model, instead of the default of ``range``.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        one_of("range", range, _RANGES)
        self._num_faces = count("num_faces", num_faces)
        self._blendshapes, self._transform = bool(blendshapes), bool(transform)
        self._min_detection = ratio("min_detection_confidence", min_detection_confidence)
        self._min_presence = ratio("min_presence_confidence", min_presence_confidence)
        self._min_tracking = ratio("min_tracking_confidence", min_tracking_confidence)
        self._threads = thread_count("threads", threads)
        name = "face_landmarker" if range == "short" else "face_landmarker_full_range"
        super().__init__(model=name if model is None else model, files=files)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.meshes import MeshGraph

        return MeshGraph(
            model,
            expressions=self._blendshapes,
            transform=self._transform,
            threads=self._threads,
            num_faces=self._num_faces,
            min_detection=self._min_detection,
            min_presence=self._min_presence,
            min_tracking=self._min_tracking if self._video else None,
            search_interval=self._search_interval,
        )

    def _read(self, native: Any, frame: Frame) -> FaceMeshes:
        return FaceMeshes(
            items=tuple(map(mesh_of, native)),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


class FaceMesh(_MeshModel, Detector[FaceMeshes]):
    """Finds faces in single pictures as meshes of 478 landmarks, with irises.

    MediaPipe Face Mesh V2 with attention (Grishchenko et al., 2020, arXiv:2006.10962).
    """

    _video = False


class FaceMeshTracker(_MeshModel, Tracker[FaceMeshes]):
    """Follows faces through one video as meshes of 478 landmarks; smoothed when ``num_faces`` is 1.

    The face detector runs while nobody is followed, on the frame after somebody was lost, and on every
    ``search_interval``-th frame while fewer than ``num_faces`` are followed.
    """

    _video = True

    def __init__(
        self,
        *,
        num_faces: int = 1,
        search_interval: int = 5,
        range: Literal["short", "full"] = "short",
        blendshapes: bool = False,
        transform: bool = False,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        threads: int | None = None,
        model: ModelSource | None = None,
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            num_faces: The most faces to follow, 1 to 100.
            search_interval: Frames from one search for further faces to the next, 1 to 100. 1 searches on every
                frame, as MediaPipe does; with 5 a face that comes into view beside others is seen up to 4 frames
                later.
            range: ``"full"`` also finds small and many faces.
            blendshapes: Also give 52 blendshape weights a face.
            transform: Also give the 4×4 matrix from the canonical face to the camera.
            min_detection_confidence: For a face to be found at all, 0 to 1.
            min_presence_confidence: For its mesh to be believed, 0 to 1.
            min_tracking_confidence: How much a face found anew overlaps a followed one (intersection over union,
                0 to 1) to be the same one.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Another model, instead of the default of ``range``.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self._search_interval = count("search_interval", search_interval)
        super().__init__(
            num_faces=num_faces,
            range=range,
            blendshapes=blendshapes,
            transform=transform,
            min_detection_confidence=min_detection_confidence,
            min_presence_confidence=min_presence_confidence,
            min_tracking_confidence=min_tracking_confidence,
            threads=threads,
            model=model,
            files=files,
        )
