"""Labels of a clip: from figures of each frame to when something begins and ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import CapacityError, FrameOrderError, OptionError
from tabml.vision._model import ratio

_MOST_FEATURES = 1000
_LONGEST_NAME = 200
_MOST_VALUES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceLabel:
    """One label from one frame to another."""

    label: str
    """The feature's name."""
    confidence: float
    """Its mean over these frames, 0 to 1."""
    start_frame: int
    """The number of the first frame."""
    end_frame: int
    """The number of the last frame."""

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "start_frame": self.start_frame,
            "end_frame": self.end_frame,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceLabels:
    """What a clip holds."""

    labels: tuple[SequenceLabel, ...]
    """By start, then by name."""
    features: Mapping[str, float]
    """The mean of each feature over all frames; frames without it count as 0."""
    total_frames: int
    """How many frames came."""


class MediaSequence:
    """Collects the features of a clip's frames, and finds when each is on.

    A feature is on where it reaches ``threshold``, and before and after for as long as it stays at ``release`` or above
    (hysteresis, as in Canny's edges, 1986). Gaps of at most ``max_gap`` frames are closed, and what is shorter than
    ``min_frames`` is left out.
    """

    def __init__(self, *, threshold: float = 0.5, release: float = 0.35, min_frames: int = 3, max_gap: int = 2) -> None:
        """Begin a clip.

        Args:
            threshold: From where a feature is on, 0 to 1.
            release: Below which it is off again, 0 to ``threshold``.
            min_frames: Frames that a label lasts at least, above 0.
            max_gap: Frames that it may be off in between, from 0.

        Raises:
            OptionError: an option is outside its range.
        """
        self._threshold, self._release = ratio("threshold", threshold), ratio("release", release)
        if self._release > self._threshold:
            raise OptionError(f"release={release!r} must be at most threshold={threshold!r}")
        for name, value, least in (("min_frames", min_frames, 1), ("max_gap", max_gap, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise OptionError(f"{name}={value!r} must be a whole number from {least}")
        self._shortest, self._gap = min_frames, max_gap
        self._numbers: list[int] = []
        self._values: dict[str, list[tuple[int, float]]] = {}
        self._count = 0

    def add(self, frame_number: int, features: Mapping[str, float]) -> None:
        """The features of the next frame.

        Args:
            frame_number: Greater than all before.
            features: By name; finite. What is left out is 0.

        Raises:
            FrameOrderError: the number isn't greater than the last one; later frames are taken.
            OptionError: a feature's name or value is not usable; nothing of this frame is taken.
            CapacityError: there are too many features.
        """
        if isinstance(frame_number, bool) or not isinstance(frame_number, int):
            raise OptionError(f"frame_number={frame_number!r} must be a whole number")
        if self._numbers and frame_number <= self._numbers[-1]:
            raise FrameOrderError(f"frame_number={frame_number} is not greater than the last one, {self._numbers[-1]}")
        for name, value in features.items():
            if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
                raise OptionError(f"features: {name!r:.80} must be a name of 1 to {_LONGEST_NAME} characters")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise OptionError(f"features: {name!r}={value!r} must be a finite number")
        if len(self._values.keys() | features.keys()) > _MOST_FEATURES:
            raise CapacityError(f"features: more than {_MOST_FEATURES} names in one clip")
        self._count += len(features)
        if self._count > _MOST_VALUES:
            raise CapacityError(f"features: more than {_MOST_VALUES} values in one clip; end it and begin another")
        at = len(self._numbers)
        self._numbers.append(frame_number)
        for name, value in features.items():
            self._values.setdefault(name, []).append((at, float(value)))

    def finish(self) -> SequenceLabels:
        """The labels so far; more frames may follow."""
        labels, means = [], {}
        for name, pairs in self._values.items():
            series = np.zeros(len(self._numbers))
            series[[at for at, _ in pairs]] = [value for _, value in pairs]
            means[name] = float(series.mean())
            for start, end in self._spans(series):
                labels.append(
                    SequenceLabel(
                        label=name,
                        confidence=float(np.clip(series[start:end].mean(), 0, 1)),
                        start_frame=self._numbers[start],
                        end_frame=self._numbers[end - 1],
                    )
                )
        labels.sort(key=lambda each: (each.start_frame, each.label))
        return SequenceLabels(labels=tuple(labels), features=means, total_frames=len(self._numbers))

    def _spans(self, series: NDArray[np.float64]) -> list[tuple[int, int]]:
        """First and past the last place of each span that is on."""
        spans = [(a, b) for a, b in _runs(series >= self._release) if (series[a:b] >= self._threshold).any()]
        joined: list[tuple[int, int]] = []
        for start, end in spans:
            if joined and start - joined[-1][1] <= self._gap:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return [(start, end) for start, end in joined if end - start >= self._shortest]


def _runs(on: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], on, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
