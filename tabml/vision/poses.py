"""Bodies: 33 landmarks in the picture and in metres, and the angles of the joints."""

from __future__ import annotations

from typing import Any

from tabml.files import FileProvider
from tabml.vision._model import Detector, ModelSource, Task, Tracker, VisionModel, count, ratio, thread_count
from tabml.vision.frame import Frame
from tabml.vision.results import Pose, Poses
from tabml.vision.results.found import frozen


def pose_of(body: Any, frame: Frame) -> Pose:
    """The value of a body that a graph found."""
    return Pose(
        landmarks=frozen(body.points),
        world_landmarks=frozen(body.world),
        visibility=frozen(body.visibility),
        presence=frozen(body.presence),
        aspect=frame.width / frame.height,
    )


class _PoseModel(VisionModel[Poses]):
    """The options and answers that the detector and the tracker of poses share."""

    _video: bool
    _search_interval = 1

    def __init__(
        self,
        *,
        num_poses: int = 1,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        threads: int | None = None,
        model: ModelSource = "pose_landmarker_full",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            num_poses: The most people to find, 1 to 100.
            min_detection_confidence: For a person to be found at all, 0 to 1.
            min_presence_confidence: For the landmarks to be believed, 0 to 1.
            min_tracking_confidence: Of no effect in single pictures.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Which model; ``pose_landmarker_lite`` and ``pose_landmarker_heavy`` trade accuracy for time.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self._num_poses = count("num_poses", num_poses)
        self._min_detection = ratio("min_detection_confidence", min_detection_confidence)
        self._min_presence = ratio("min_presence_confidence", min_presence_confidence)
        self._min_tracking = ratio("min_tracking_confidence", min_tracking_confidence)
        self._threads = thread_count("threads", threads)
        super().__init__(model=model, files=files)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.poses import PoseGraph

        return PoseGraph(
            model,
            threads=self._threads,
            num_poses=self._num_poses,
            min_detection=self._min_detection,
            min_presence=self._min_presence,
            min_tracking=self._min_tracking if self._video else None,
            search_interval=self._search_interval,
        )

    def _read(self, native: Any, frame: Frame) -> Poses:
        return Poses(
            items=tuple(pose_of(body, frame) for body in native),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


class PoseDetector(_PoseModel, Detector[Poses]):
    """Finds people in single pictures as 33 landmarks each.

    BlazePose GHUM 3D (Bazarevsky et al., 2020, arXiv:2006.10204; GHUM: Xu et al., CVPR 2020).
    """

    _video = False


class PoseTracker(_PoseModel, Tracker[Poses]):
    """Follows people through one video; smoothed when ``num_poses`` is 1.

    The person detector runs while nobody is followed, on the frame after somebody was lost, and on every
    ``search_interval``-th frame while fewer than ``num_poses`` are followed. The landmarks of those who are
    followed need no detector.
    """

    _video = True

    def __init__(
        self,
        *,
        num_poses: int = 1,
        search_interval: int = 5,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        threads: int | None = None,
        model: ModelSource = "pose_landmarker_full",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            num_poses: The most people to follow, 1 to 100.
            search_interval: Frames from one search for further people to the next, 1 to 100. 1 searches on
                every frame, as MediaPipe does; with 5 the detector costs a fifth, and somebody who comes into
                view beside others is seen up to 4 frames later.
            min_detection_confidence: For a person to be found at all, 0 to 1.
            min_presence_confidence: For the landmarks to be believed, 0 to 1.
            min_tracking_confidence: How much a person found anew overlaps a followed one (intersection over
                union, 0 to 1) to be the same one.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Which model; ``pose_landmarker_lite`` and ``pose_landmarker_heavy`` trade accuracy for time.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self._search_interval = count("search_interval", search_interval)
        super().__init__(
            num_poses=num_poses,
            min_detection_confidence=min_detection_confidence,
            min_presence_confidence=min_presence_confidence,
            min_tracking_confidence=min_tracking_confidence,
            threads=threads,
            model=model,
            files=files,
        )
