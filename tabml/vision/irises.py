"""Irises and gaze: the five points of each iris, the eye around it, where it looks, whether it blinks."""

from __future__ import annotations

import math
from typing import Any, Literal

from tabml.errors import OptionError
from tabml.files import FileProvider
from tabml.vision._model import Detector, ModelSource, Task, Tracker, VisionModel, count, one_of, ratio, thread_count
from tabml.vision.frame import Frame
from tabml.vision.gaze import look
from tabml.vision.results import Irises

_RANGES = ("short", "full")
_SEARCH_INTERVAL = 5


class _IrisModel(VisionModel[Irises]):
    """The options and answers that the detector and the tracker of irises share."""

    _video: bool

    def __init__(
        self,
        *,
        num_faces: int = 1,
        range: Literal["short", "full"] = "short",
        blink_threshold: float = 0.2,
        focal_length_px: float | None = None,
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
            blink_threshold: Eyes of a smaller aspect ratio count as closed, 0 to 1.
            focal_length_px: Of the camera, in pixels of the frames, for distances; the picture's width by twice the
                tangent of half the horizontal field of view, about 1.0 to 1.4 widths for webcams.
            min_detection_confidence: For a face to be found at all, 0 to 1.
            min_presence_confidence: For its landmarks to be believed, 0 to 1.
            min_tracking_confidence: For video: how much a face found anew overlaps a followed one (intersection over
                union, 0 to 1) to be the same one.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Another face landmarker, instead of the default of ``range``.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        one_of("range", range, _RANGES)
        self._num_faces = count("num_faces", num_faces)
        self._blink = ratio("blink_threshold", blink_threshold)
        if focal_length_px is not None and not (
            isinstance(focal_length_px, int | float) and 0 < focal_length_px < math.inf
        ):
            raise OptionError(f"focal_length_px={focal_length_px!r} must be a number of pixels above 0, or None")
        self._focal = None if focal_length_px is None else float(focal_length_px)
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
            expressions=False,
            transform=True,
            threads=self._threads,
            num_faces=self._num_faces,
            min_detection=self._min_detection,
            min_presence=self._min_presence,
            min_tracking=self._min_tracking if self._video else None,
            search_interval=_SEARCH_INTERVAL,
        )

    def _read(self, native: Any, frame: Frame) -> Irises:
        return Irises(
            items=tuple(
                look(
                    face.points,
                    face.transform,
                    width=frame.width,
                    height=frame.height,
                    score=face.score,
                    blink_threshold=self._blink,
                    focal_length_px=self._focal,
                )
                for face in native
                if face.transform is not None  # else the face is but a dot
            ),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


class IrisDetector(_IrisModel, Detector[Irises]):
    """Finds the eyes of faces in single pictures, with gaze, lids and distance.

    The landmarks are those of :class:`~tabml.vision.FaceMesh`; the formulas are in :mod:`tabml.vision.gaze`.
    """

    _video = False


class IrisTracker(_IrisModel, Tracker[Irises]):
    """Follows the eyes of faces through one video; smoothed when ``num_faces`` is 1."""

    _video = True
