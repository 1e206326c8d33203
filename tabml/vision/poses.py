"""Bodies: 33 landmarks in the picture and in metres, and the angles of the joints."""

from __future__ import annotations

from typing import Any

from tabml.files import FileProvider
from tabml.vision._model import Detector, ModelSource, Tracker, VisionModel, count, ratio
from tabml.vision.frame import Frame
from tabml.vision.results import Pose, Poses


class _PoseModel(VisionModel[Poses]):
    """The options and answers that the detector and the tracker of poses share."""

    _video: bool

    def __init__(
        self,
        *,
        num_poses: int = 1,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        model: ModelSource = "pose_landmarker_full",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            num_poses: The most people to find, 1 to 100.
            min_detection_confidence: For a person to be found at all, 0 to 1.
            min_presence_confidence: For the landmarks to be believed, 0 to 1.
            min_tracking_confidence: For a person to be followed from frame to frame, 0 to 1.
            model: Which model; ``pose_landmarker_lite`` and ``pose_landmarker_heavy`` trade accuracy for time.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self._options = {
            "num_poses": count("num_poses", num_poses),
            "min_pose_detection_confidence": ratio("min_detection_confidence", min_detection_confidence),
            "min_pose_presence_confidence": ratio("min_presence_confidence", min_presence_confidence),
            "min_tracking_confidence": ratio("min_tracking_confidence", min_tracking_confidence),
        }
        super().__init__(model=model, files=files)

    def _build(self, model: bytes | memoryview) -> Any:
        from tabml.vision import _mediapipe as door

        options = door.PoseLandmarkerOptions(**self._options)
        return door.NativeTask(door.POSE_LANDMARKER, options, model, video=self._video)

    def _read(self, native: Any, frame: Frame) -> Poses:
        from tabml.vision import _mediapipe as door

        poses = []
        for index in range(native.pose_landmarks_count):
            rows = door.landmark_rows(native.pose_landmarks[index])
            visibility, presence = door.visibility_and_presence(rows)
            poses.append(
                Pose(
                    landmarks=door.xyz(rows),
                    world_landmarks=door.xyz(door.landmark_rows(native.pose_world_landmarks[index])),
                    visibility=visibility,
                    presence=presence,
                    aspect=frame.width / frame.height,
                )
            )
        return Poses(
            items=tuple(poses),
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
    """Follows people through one video; smoothed when ``num_poses`` is 1."""

    _video = True
