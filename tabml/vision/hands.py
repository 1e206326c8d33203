"""Hands: 21 landmarks, which hand it is, and the gestures that the model knows."""

from __future__ import annotations

from typing import Any

from tabml.files import FileProvider
from tabml.vision._model import Detector, ModelSource, Task, Tracker, VisionModel, count, ratio, thread_count
from tabml.vision.frame import Frame
from tabml.vision.results import Hand, Hands
from tabml.vision.results.found import frozen


def hand_of(hand: Any) -> Hand:
    """The value of a hand that a graph found."""
    return Hand(
        landmarks=frozen(hand.points),
        world_landmarks=frozen(hand.world),
        handedness=hand.handedness,
        handedness_score=hand.handedness_score,
        gesture=hand.gesture,
        gesture_score=hand.gesture_score,
    )


class _HandModel(VisionModel[Hands]):
    """The options and answers that the detector and the tracker of hands share."""

    _video: bool
    _search_interval = 1

    def __init__(
        self,
        *,
        num_hands: int = 2,
        gestures: bool = True,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        threads: int | None = None,
        model: ModelSource | None = None,
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            num_hands: The most hands to find, 1 to 100.
            gestures: Also name the gesture of each hand; needs a gesture recognizer as ``model``.
            min_detection_confidence: For a hand to be found at all, 0 to 1.
            min_presence_confidence: For its landmarks to be believed, 0 to 1.
            min_tracking_confidence: Of no effect in single pictures.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Another model, instead of the default.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self._gestures = bool(gestures)
        self._num_hands = count("num_hands", num_hands)
        self._min_detection = ratio("min_detection_confidence", min_detection_confidence)
        self._min_presence = ratio("min_presence_confidence", min_presence_confidence)
        self._min_tracking = ratio("min_tracking_confidence", min_tracking_confidence)
        self._threads = thread_count("threads", threads)
        name = "gesture_recognizer" if gestures else "hand_landmarker"
        super().__init__(model=name if model is None else model, files=files)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.hands import HandGraph

        return HandGraph(
            model,
            gestures=self._gestures,
            threads=self._threads,
            num_hands=self._num_hands,
            min_detection=self._min_detection,
            min_presence=self._min_presence,
            min_tracking=self._min_tracking if self._video else None,
            search_interval=self._search_interval,
        )

    def _read(self, native: Any, frame: Frame) -> Hands:
        return Hands(
            items=tuple(map(hand_of, native)),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


class HandDetector(_HandModel, Detector[Hands]):
    """Finds hands in single pictures.

    MediaPipe Hands (Zhang et al., 2020, arXiv:2006.10214); gestures by the Gesture Recognizer model card, 2023.
    """

    _video = False


class HandTracker(_HandModel, Tracker[Hands]):
    """Follows hands through one video.

    The palm detector runs while no hand is followed, on the frame after one was lost, and on every
    ``search_interval``-th frame while fewer than ``num_hands`` are followed. The landmarks of hands that are
    followed need no detector.
    """

    _video = True

    def __init__(
        self,
        *,
        num_hands: int = 2,
        search_interval: int = 5,
        gestures: bool = True,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
        threads: int | None = None,
        model: ModelSource | None = None,
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            num_hands: The most hands to follow, 1 to 100.
            search_interval: Frames from one search for further hands to the next, 1 to 100. 1 searches on every
                frame, as MediaPipe does; with 5 the detector costs a fifth, and a hand that comes into view
                beside another is seen up to 4 frames later.
            gestures: Also name the gesture of each hand; needs a gesture recognizer as ``model``.
            min_detection_confidence: For a hand to be found at all, 0 to 1.
            min_presence_confidence: For its landmarks to be believed, 0 to 1.
            min_tracking_confidence: How much a hand found anew overlaps a followed one (intersection over union,
                0 to 1) to be the same one.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Another model, instead of the default.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self._search_interval = count("search_interval", search_interval)
        super().__init__(
            num_hands=num_hands,
            gestures=gestures,
            min_detection_confidence=min_detection_confidence,
            min_presence_confidence=min_presence_confidence,
            min_tracking_confidence=min_tracking_confidence,
            threads=threads,
            model=model,
            files=files,
        )
