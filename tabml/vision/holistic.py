"""One person whole: face, both hands and body of the same frame, found side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tabml.files import FileProvider
from tabml.files.lite import load_lite_model
from tabml.vision._model import Detector, ModelSource, Task, Tracker, VisionModel, ratio, thread_count
from tabml.vision.faces import mesh_of
from tabml.vision.frame import Frame
from tabml.vision.hands import hand_of
from tabml.vision.poses import pose_of
from tabml.vision.results import Hand, Holistic, Pose

_SEARCH_INTERVAL = 5
_WRISTS = (15, 16)  # of a pose: left, right


class _HolisticModel(VisionModel[Holistic]):
    """The options and answers that the detector and the tracker share."""

    _video: bool

    def __init__(
        self,
        *,
        blendshapes: bool = False,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        threads: int | None = None,
        model: ModelSource = "pose_landmarker_full",
        face: ModelSource | None = None,
        hands: ModelSource = "hand_landmarker",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            blendshapes: Also give the face's 52 blendshape weights.
            min_detection_confidence: For a part to be found at all, 0 to 1.
            min_presence_confidence: For its landmarks to be believed, 0 to 1.
            min_tracking_confidence: How much a part found anew overlaps a followed one (intersection over union, 0
                to 1) to be the same one; of no effect in single pictures.
            threads: How many parts are looked for at a time, 1 to 64 (more than 3 are of no use); every core
                (at most 8) when None. A server of many streams takes 1.
            model: The model of the body. ``holistic_landmarker`` holds that of the face too.
            face: The model of the face; ``face_landmarker``, or what ``holistic_landmarker`` holds, when None.
            hands: The model of the hands.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self._blendshapes = bool(blendshapes)
        self._min_detection = ratio("min_detection_confidence", min_detection_confidence)
        self._min_presence = ratio("min_presence_confidence", min_presence_confidence)
        self._min_tracking = ratio("min_tracking_confidence", min_tracking_confidence)
        self._threads = thread_count("threads", threads)
        self._face, self._hands = face, hands
        super().__init__(model=model, files=files)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml._litert.bundle import holds, members
        from tabml.vision._graphs.graph import Graph
        from tabml.vision._graphs.hands import HandGraph
        from tabml.vision._graphs.holistic import Together
        from tabml.vision._graphs.meshes import MeshGraph
        from tabml.vision._graphs.poses import PoseGraph

        face = model
        if self._face is not None or not holds(model, "face_landmarks_detector.tflite"):
            face = load_lite_model(self._face or "face_landmarker", files=self._files)
        hands = load_lite_model(self._hands, files=self._files)
        if holds(hands, "hand_landmarker.task"):
            (hands,) = members(hands, "hand_landmarker.task")
        common: dict[str, Any] = {
            "threads": 1,
            "min_detection": self._min_detection,
            "min_presence": self._min_presence,
            "min_tracking": self._min_tracking if self._video else None,
            "search_interval": _SEARCH_INTERVAL if self._video else 1,
        }
        graphs: list[Graph] = []
        try:
            graphs.append(PoseGraph(model, num_poses=1, **common))
            graphs.append(HandGraph(hands, num_hands=2, gestures=False, **common))
            graphs.append(MeshGraph(face, num_faces=1, expressions=self._blendshapes, transform=False, **common))
        except BaseException:
            for graph in graphs:
                graph.close()
            raise
        return Together(graphs, threads=self._threads)

    def _read(self, native: Any, frame: Frame) -> Holistic:
        poses, hands, faces = native
        pose = pose_of(poses[0], frame) if poses else None
        left, right = sides([hand_of(hand) for hand in hands], pose)
        return Holistic(
            face=mesh_of(faces[0]) if faces else None,
            left_hand=left,
            right_hand=right,
            pose=pose,
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


def sides(hands: list[Hand], pose: Pose | None) -> tuple[Hand | None, Hand | None]:
    """The left hand and the right one, of one person.

    Each is what the hand model calls it. Two hands of the same name are told apart by the body's wrists, or, where there
    is no body, the surer one keeps its name.
    """
    if len(hands) < 2 or hands[0].handedness != hands[1].handedness:
        named = {hand.handedness: hand for hand in hands}
        return named.get("Left"), named.get("Right")
    first, second = hands[:2]
    if pose is not None:
        ends = [[hand.landmarks[0, :2] - pose.landmarks[wrist, :2] for wrist in _WRISTS] for hand in (first, second)]
        far = np.square(np.array(ends) * (pose.aspect, 1)).sum(axis=2)
        straight = bool(far[0, 0] + far[1, 1] <= far[0, 1] + far[1, 0])
    else:
        surer_first = first.handedness_score >= second.handedness_score
        straight = surer_first == (first.handedness == "Left")
    left, right = (first, second) if straight else (second, first)
    return replace(left, handedness="Left"), replace(right, handedness="Right")


class HolisticDetector(_HolisticModel, Detector[Holistic]):
    """Finds the face, the hands and the body of one person in single pictures.

    The landmarks are those of :class:`~tabml.vision.FaceMesh`, :class:`~tabml.vision.HandDetector` and
    :class:`~tabml.vision.PoseDetector`.
    """

    _video = False


class HolisticTracker(_HolisticModel, Tracker[Holistic]):
    """Follows the face, the hands and the body of one person through a video.

    The landmarks are those of :class:`~tabml.vision.FaceMeshTracker`, :class:`~tabml.vision.HandTracker` and
    :class:`~tabml.vision.PoseTracker`; the models run side by side.
    """

    _video = True
