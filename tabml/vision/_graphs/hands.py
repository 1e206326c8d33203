"""Hands: a detector finds palms, the landmark model 21 points in what each palm's hand fills.

MediaPipe Hands (Zhang et al., 2020, arXiv:2006.10214); constants of MediaPipe's hand landmarker graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tabml._litert import LiteGraph
from tabml._litert.bundle import members
from tabml.vision._graphs.detection import PALM, SsdDetector
from tabml.vision._graphs.following import Follower, added
from tabml.vision._graphs.gestures import GestureModel
from tabml.vision._graphs.graph import Graph, expect_shapes
from tabml.vision._graphs.regions import (
    Float32,
    Pixels,
    Region,
    cut,
    heading,
    normalised_angle,
)

_SIDE = 224
_POINTS = 21
_DEPTH = np.float32(0.4)
_SUPPRESSION = 0.3
_WRIST, _MIDDLE = 0, 2  # of a palm's seven keypoints
_PALM_TO_HAND, _PALM_SHIFT = 2.6, -0.5
_MARGIN, _SHIFT = 2.0, -0.1
_UPWARDS = 90.0  # radians: MediaPipe's hand_detector_graph means degrees, so its palms are cut out 26.6° askew
_STEADY = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # the wrist, and the fingers as far as they hardly bend
_SHAPES = [(1, _SIDE, _SIDE, 3), (1, 3 * _POINTS), (1, 1), (1, 1), (1, 3 * _POINTS)]
_LEAST, _HALF = np.finfo(np.float32).tiny, np.float32(2)
_SAME_POINTS, _SAME_DISTANCE, _SAME_OVERLAP = 10, np.float32(0.2), 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundHand:
    """One hand."""

    points: Float32
    """Shape (21, 3), normalised; z on the scale of x."""
    world: Float32
    """Shape (21, 3), metres."""
    handedness: Literal["Left", "Right"]
    """Which hand."""
    handedness_score: float
    """0.5 to 1."""
    next_region: Region
    """Where to look for it in the next frame."""
    gesture: str | None = None
    """Its gesture, when asked for."""
    gesture_score: float | None = None
    """0 to 1."""


class HandLandmarks:
    """The landmark model over one region of a picture."""

    def __init__(self, model: bytes | memoryview, *, threads: int, min_confidence: float) -> None:
        """Load it.

        Raises:
            ModelLoadError: it is another model.
        """
        self._graph = LiteGraph(model, threads=threads)
        expect_shapes(self._graph, _SHAPES)
        self._min_confidence = min_confidence

    def find(self, pixels: Pixels, region: Region) -> FoundHand | None:
        """The hand in the region; None when the model sees none."""
        tensor = cut(pixels, region, _SIDE, replicate=True, low=0.0)
        return self._graph.run([tensor], lambda out: self._hand(out, region))

    def close(self) -> None:
        """Free the model; twice is fine."""
        self._graph.close()

    def _hand(self, out: Any, region: Region) -> FoundHand | None:
        raw, flag, right, world = out
        if not float(flag[0, 0]) > self._min_confidence:
            return None
        values = raw.reshape(_POINTS, 3) / np.float32(_SIDE)
        values[:, 2] /= _DEPTH
        points = region.project(values)
        likely = float(right[0, 0])
        other = float(np.float32(1 - likely))
        return FoundHand(
            points=points,
            world=region.turn(world.reshape(_POINTS, 3)),
            handedness="Right" if likely > other else "Left",
            handedness_score=max(likely, other),
            next_region=around(points[:, :2], region.picture),
        )


def around(points: Float32, picture: tuple[int, int]) -> Region:
    """The region of a hand.

    Source: MediaPipe's ``hand_landmarks_to_rect_calculator``.

    Args:
        points: Shape (21, 2), normalised.
        picture: Width and height, pixels.
    """
    size = np.array(picture, np.float32)
    steady = points[_STEADY]
    knuckles = ((points[5] + points[13]) / _HALF + points[9]) / _HALF * size
    rotation = heading(steady[0] * size, knuckles, math.pi / 2)
    upright = (np.maximum(steady.max(axis=0), _LEAST) + steady.min(axis=0)) / _HALF
    turned = _turned((steady - upright) * size, normalised_angle(-float(rotation)))
    low, high = turned.min(axis=0), np.maximum(turned.max(axis=0), _LEAST)
    centre = _turned(((high + low) / _HALF)[None], rotation)[0] + size * upright
    x, y = centre / size
    width, height = (high - low) / size
    region = Region(x=x, y=y, width=width, height=height, rotation=rotation, picture=picture)
    return region.grown(_MARGIN, shift_y=_SHIFT)


def _turned(points: Float32, angle: np.float32) -> Float32:
    sine, cosine = np.float32(math.sin(angle)), np.float32(math.cos(angle))
    x, y = points[:, 0], points[:, 1]
    return np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=1)


def distinct(hands: Sequence[FoundHand]) -> list[FoundHand]:
    """The hands without those that are an earlier one once more.

    Source: MediaPipe's ``hand_landmarks_deduplication_calculator``.
    """
    kept: list[FoundHand] = []
    for hand in hands:
        if not any(_same(hand, other) for other in kept):
            kept.append(hand)
    return kept


def _same(a: FoundHand, b: FoundHand) -> bool:
    size = np.array(a.next_region.picture, np.float32)
    limit = max(_span(a, size), _span(b, size)) * _SAME_DISTANCE
    apart = _lengths((a.points[:, :2] - b.points[:, :2]) * size)
    return int((apart < limit).sum()) >= _SAME_POINTS and _box_overlap(a, b) > _SAME_OVERLAP


def _span(hand: FoundHand, size: Float32) -> np.float32:
    """The longest side of the triangle of wrist, index knuckle and little knuckle."""
    corners = hand.points[[0, 5, 17], :2]
    longest: np.float32 = _lengths((corners - corners[[1, 2, 0]]) * size).max()
    return longest


def _lengths(steps: Float32) -> Float32:
    lengths: Float32 = np.sqrt((steps.astype(float) ** 2).sum(axis=1)).astype(np.float32)
    return lengths


def _box_overlap(a: FoundHand, b: FoundHand) -> float:
    low_a, high_a, low_b, high_b = (
        function(hand.points[:, :2], axis=0) for hand in (a, b) for function in (np.min, np.max)
    )
    shared = float(np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0).prod())
    union = float((high_a - low_a).prod() + (high_b - low_b).prod()) - shared
    return shared / union if union > 0 else 0.0


class HandGraph(Graph):
    """Answers with a list of :class:`FoundHand`."""

    def __init__(
        self,
        model: bytes | memoryview,
        *,
        gestures: bool,
        threads: int,
        num_hands: int,
        min_detection: float,
        min_presence: float,
        min_tracking: float | None = None,
        search_interval: int = 1,
    ) -> None:
        """Load a hand landmarker bundle, or with ``gestures`` a gesture recognizer bundle.

        Args:
            model: Its bytes.
            gestures: Also name each hand's gesture.
            threads: How many threads share one call.
            num_hands: How many hands are found at most.
            min_detection: For a hand to be found at all.
            min_presence: For its landmarks to be believed.
            min_tracking: For video: how much a hand found anew overlaps a followed one to be the same. None for
                single pictures.
            search_interval: For video: while some but not all are followed, search every so many frames.

        Raises:
            ModelLoadError: it is another bundle.
        """
        self._gestures: GestureModel | None = None
        if gestures:
            model, recognizer = members(model, "hand_landmarker.task", "hand_gesture_recognizer.task")
            self._gestures = GestureModel(recognizer)
        palms, landmarks = members(model, "hand_detector.tflite", "hand_landmarks_detector.tflite")
        self._detector = SsdDetector(
            palms, PALM, threads=threads, min_confidence=min_detection, min_suppression=_SUPPRESSION
        )
        self._landmarks = HandLandmarks(landmarks, threads=threads, min_confidence=min_presence)
        self._most = num_hands
        self._min_tracking = min_tracking
        self._follower = Follower(most=num_hands, search_interval=search_interval)
        super().__init__(self._detector, self._landmarks, *([] if self._gestures is None else [self._gestures]))

    def _find(self, pixels: Pixels, after_ms: int) -> list[FoundHand]:
        if self._min_tracking is None:
            hands = self._hands(pixels, self._search(pixels))
        else:
            found = self._search(pixels) if self._follower.wants_search() else []
            hands = self._hands(pixels, added(self._follower.regions, found, self._min_tracking))
            self._follower.expect([hand.next_region for hand in hands])
        if self._gestures is None:
            return hands
        return [self._signed(hand, self._gestures) for hand in hands]

    def _forget(self) -> None:
        self._follower.forget()

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
                rotation=heading(points[_WRIST] * size, points[_MIDDLE] * size, _UPWARDS),
                picture=(width, height),
            ).grown(_PALM_TO_HAND, shift_y=_PALM_SHIFT)
            for box, points in zip(found.boxes[: self._most], found.keypoints, strict=False)
        ]

    def _hands(self, pixels: Pixels, regions: Sequence[Region]) -> list[FoundHand]:
        found = (self._landmarks.find(pixels, region) for region in regions[: self._most])
        return distinct([hand for hand in found if hand is not None])

    @staticmethod
    def _signed(hand: FoundHand, model: GestureModel) -> FoundHand:
        left = hand.handedness_score if hand.handedness == "Left" else 1 - hand.handedness_score
        name, score = model.name(hand.points, hand.world, left, hand.next_region.picture)
        return replace(hand, gesture=name, gesture_score=score)
