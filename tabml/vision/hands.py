"""Hands: 21 landmarks, which hand it is, and the gestures that the model knows."""

from __future__ import annotations

from typing import Any, Literal, cast

from tabml.files import FileProvider
from tabml.vision._model import Detector, ModelSource, Tracker, VisionModel, count, ratio
from tabml.vision.frame import Frame
from tabml.vision.results import Hand, Hands


class _HandModel(VisionModel[Hands]):
    """The options and answers that the detector and the tracker of hands share."""

    _video: bool

    def __init__(
        self,
        *,
        num_hands: int = 2,
        gestures: bool = True,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        model: ModelSource | None = None,
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            num_hands: The most hands to find, 1 to 100.
            gestures: Also name the gesture of each hand; needs a gesture recognizer as ``model``.
            min_detection_confidence: For a hand to be found at all, 0 to 1.
            min_presence_confidence: For its landmarks to be believed, 0 to 1.
            min_tracking_confidence: For a hand to be followed from frame to frame, 0 to 1.
            model: Another model, instead of the default.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self._gestures = bool(gestures)
        self._options = {
            "num_hands": count("num_hands", num_hands),
            "min_hand_detection_confidence": ratio("min_detection_confidence", min_detection_confidence),
            "min_hand_presence_confidence": ratio("min_presence_confidence", min_presence_confidence),
            "min_tracking_confidence": ratio("min_tracking_confidence", min_tracking_confidence),
        }
        name = "gesture_recognizer" if gestures else "hand_landmarker"
        super().__init__(model=name if model is None else model, files=files)

    def _build(self, model: bytes | memoryview) -> Any:
        from tabml.vision import _mediapipe as door

        if not self._gestures:
            return door.NativeTask(
                door.HAND_LANDMARKER, door.HandLandmarkerOptions(**self._options), model, video=self._video
            )
        every = door.ClassifierOptions(max_results=-1)
        options = door.GestureRecognizerOptions(
            **self._options, canned_gestures_classifier_options=every, custom_gestures_classifier_options=every
        )
        return door.NativeTask(door.GESTURE_RECOGNIZER, options, model, video=self._video)

    def _read(self, native: Any, frame: Frame) -> Hands:
        return Hands(
            items=tuple(self._hand(native, i) for i in range(native.hand_landmarks_count)),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )

    def _hand(self, native: Any, index: int) -> Hand:
        from tabml.vision import _mediapipe as door

        side, side_score = door.best(native.handedness[index])
        gesture: str | None = None
        gesture_score: float | None = None
        if self._gestures and native.gestures[index].categories_count:
            gesture, gesture_score = door.best(native.gestures[index])
        return Hand(
            landmarks=door.xyz(door.landmark_rows(native.hand_landmarks[index])),
            world_landmarks=door.xyz(door.landmark_rows(native.hand_world_landmarks[index])),
            handedness=cast(Literal["Left", "Right"], side),
            handedness_score=side_score,
            gesture=gesture,
            gesture_score=gesture_score,
        )


class HandDetector(_HandModel, Detector[Hands]):
    """Finds hands in single pictures.

    MediaPipe Hands (Zhang et al., 2020, arXiv:2006.10214); gestures by the Gesture Recognizer model card, 2023.
    """

    _video = False


class HandTracker(_HandModel, Tracker[Hands]):
    """Follows hands through one video: the palm detector runs only while fewer than ``num_hands`` are in view."""

    _video = True
