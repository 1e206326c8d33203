"""Boxes in, numbers out: which box of this frame is which of the frames before.

ByteTrack (Zhang et al., 2022, arXiv:2110.06864): likely boxes are matched with all tracks first, unlikely ones then with
what is still followed, so that somebody half hidden isn't lost. Where a box is expected is told by a Kalman filter with
the constants of DeepSORT (Wojke, Bewley and Paulus, 2017, arXiv:1703.07402). All tracks are computed at once.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tabml.errors import MissingExtraError, OptionError

Float64 = NDArray[np.float64]
Integers = NDArray[np.int64]

_FRAME_MS = 33.3
_PLACE, _SPEED = 1 / 20, 1 / 160  # of a box' height: DeepSORT's standard deviations
_ASPECT, _ASPECT_SPEED = 1e-2, 1e-5
_FIRST_COST, _SECOND_COST, _NEW_COST = 0.8, 0.5, 0.7  # ByteTrack's limits of 1 - intersection over union
_ABOVE = 0.1
_SAME = 0.85
_NEVER = 1e6
_LONGEST_FRAMES = 30.0


class BoxTracker(Protocol):
    """What follows boxes: :class:`ByteTracker`, or one of another library behind :class:`SupervisionTracker`."""

    def update(self, boxes: Any, scores: Any, classes: Any = None, *, after_ms: float = _FRAME_MS) -> Integers:
        """The number of the track of each box; -1 where there is none (yet)."""
        ...

    def reset(self) -> None:
        """Begin anew; numbers go on."""
        ...


class ByteTracker:
    """Follows boxes through one video."""

    def __init__(
        self,
        *,
        high_threshold: float = 0.5,
        low_threshold: float = 0.1,
        lost_ms: float = 1000.0,
        by_class: bool = True,
    ) -> None:
        """Check the options.

        Args:
            high_threshold: Boxes that score more may begin a track (with 0.1 more still) and are matched first, 0 to 1.
            low_threshold: Boxes that score less are ignored, 0 to 1.
            lost_ms: How long a track that isn't seen is remembered, milliseconds.
            by_class: Whether boxes of different classes are different things.

        Raises:
            OptionError: an option is outside its range.
        """
        if not 0 <= low_threshold <= high_threshold <= 1:
            raise OptionError(
                f"low_threshold={low_threshold!r}, high_threshold={high_threshold!r} must be 0 to 1, the low one first"
            )
        if not 0 <= lost_ms < float("inf"):
            raise OptionError(f"lost_ms={lost_ms!r} must be a number of milliseconds, 0 or more")
        self._high, self._low, self._lost_ms, self._by_class = high_threshold, low_threshold, lost_ms, by_class
        self._next = 1
        self.reset()

    def reset(self) -> None:
        """Begin anew; numbers go on."""
        self._mean: Float64 = np.zeros((0, 8))
        self._spread: Float64 = np.zeros((0, 8, 8))
        self._ids: Integers = np.zeros(0, np.int64)
        self._classes: Integers = np.zeros(0, np.int64)
        self._unseen_ms: Float64 = np.zeros(0)
        self._sure: NDArray[np.bool_] = np.zeros(0, bool)
        self._began = False

    def update(self, boxes: Any, scores: Any, classes: Any = None, *, after_ms: float = _FRAME_MS) -> Integers:
        """Match the boxes of the next frame.

        Args:
            boxes: Shape (n, 4): left, top, right, bottom, in pixels or another unit that is the same in both directions.
            scores: Shape (n,), 0 to 1.
            classes: Shape (n,), whole numbers; one class when None.
            after_ms: Milliseconds since the frame before.

        Returns:
            Shape (n,): the number of the track of each box. -1 where there is none: the box scores too little, or
            it is new and not yet seen twice (in the first frame all are believed).

        Raises:
            OptionError: the arrays don't fit each other, or hold what is no number.
        """
        found, likely, kinds = _checked(boxes, scores, classes)
        if not self._by_class:
            kinds = np.zeros_like(kinds)
        answer = np.full(len(found), -1, np.int64)
        self._predict(min(max(after_ms, 1.0) / _FRAME_MS, _LONGEST_FRAMES), after_ms)
        sized = (found[:, 2:] > found[:, :2]).all(axis=1)
        high = np.flatnonzero(sized & (likely >= self._high))
        low = np.flatnonzero(sized & (likely >= self._low) & (likely < self._high))

        sure, new = np.flatnonzero(self._sure), np.flatnonzero(~self._sure)
        tracks, rows, left_tracks, left = self._match(sure, high, found, kinds, _FIRST_COST)
        followed = left_tracks[self._unseen_ms[left_tracks] <= after_ms]
        more_tracks, more_rows, _, _ = self._match(followed, low, found, kinds, _SECOND_COST)
        new_tracks, new_rows, forgotten, left = self._match(new, left, found, kinds, _NEW_COST)
        matched = np.concatenate([tracks, more_tracks, new_tracks])
        seen = np.concatenate([rows, more_rows, new_rows])
        self._correct(matched, found[seen])
        self._sure[matched], self._unseen_ms[matched] = True, 0
        answer[seen] = self._ids[matched]

        begun = left[likely[left] >= min(1.0, self._high + (_ABOVE if self._began else 0))]
        kept = np.ones(len(self._ids), bool)
        kept[forgotten] = False
        kept &= self._unseen_ms <= self._lost_ms
        self._keep(kept)
        answer[begun] = self._begin(found[begun], kinds[begun])
        self._drop_twins()
        if not self._began:
            self._sure[:] = True
            self._began = len(self._ids) > 0
        else:
            answer[np.isin(answer, self._ids[~self._sure])] = -1
        return answer

    def _predict(self, frames: float, after_ms: float) -> None:
        step = np.eye(8)
        step[range(4), range(4, 8)] = frames
        self._mean[self._unseen_ms > 0, 7] = 0  # what isn't seen doesn't grow
        height = np.maximum(self._mean[:, 3], 1e-9)
        noise = _noise(height, _PLACE, _SPEED, _ASPECT, _ASPECT_SPEED) * frames
        self._mean = self._mean @ step.T
        self._spread = step @ self._spread @ step.T + noise
        self._unseen_ms = self._unseen_ms + after_ms

    def _match(
        self, tracks: Integers, rows: Integers, found: Float64, kinds: Integers, limit: float
    ) -> tuple[Integers, Integers, Integers, Integers]:
        """Pairs of tracks and boxes, then the tracks and the boxes that are left."""
        if not len(tracks) or not len(rows):
            none = np.zeros(0, np.int64)
            return none, none, tracks, rows
        from scipy.optimize import linear_sum_assignment

        cost = 1 - intersections_over_unions(_corners(self._mean[tracks]), found[rows])
        cost[self._classes[tracks][:, None] != kinds[rows][None]] = _NEVER
        cost[cost > limit] = _NEVER
        first, second = linear_sum_assignment(cost)
        good = cost[first, second] <= limit
        first, second = first[good], second[good]
        return tracks[first], rows[second], np.delete(tracks, first), np.delete(rows, second)

    def _correct(self, tracks: Integers, boxes: Float64) -> None:
        if not len(tracks):
            return
        measured, mean, spread = _measurements(boxes), self._mean[tracks], self._spread[tracks]
        height = np.maximum(mean[:, 3], 1e-9)
        deviations = np.stack([_PLACE * height, _PLACE * height, np.full_like(height, 1e-1), _PLACE * height], axis=1)
        known = spread[:, :4, :4] + deviations[:, :, None] * np.eye(4) * deviations[:, :, None]
        gain = np.linalg.solve(known, spread[:, :4, :]).transpose(0, 2, 1)
        self._mean[tracks] = mean + (gain @ (measured - mean[:, :4])[:, :, None])[:, :, 0]
        self._spread[tracks] = spread - gain @ known @ gain.transpose(0, 2, 1)

    def _begin(self, boxes: Float64, kinds: Integers) -> Integers:
        count = len(boxes)
        ids = np.arange(self._next, self._next + count, dtype=np.int64)
        self._next += count
        measured = _measurements(boxes)
        height = np.maximum(measured[:, 3], 1e-9)
        self._mean = np.concatenate([self._mean, np.concatenate([measured, np.zeros((count, 4))], axis=1)])
        spread = _noise(height, 2 * _PLACE, 10 * _SPEED, _ASPECT, _ASPECT_SPEED)
        self._spread = np.concatenate([self._spread, spread])
        self._ids = np.concatenate([self._ids, ids])
        self._classes = np.concatenate([self._classes, kinds])
        self._unseen_ms = np.concatenate([self._unseen_ms, np.zeros(count)])
        self._sure = np.concatenate([self._sure, np.zeros(count, bool)])
        return ids

    def _keep(self, rows: NDArray[np.bool_]) -> None:
        self._mean, self._spread = self._mean[rows], self._spread[rows]
        self._ids, self._classes = self._ids[rows], self._classes[rows]
        self._unseen_ms, self._sure = self._unseen_ms[rows], self._sure[rows]

    def _drop_twins(self) -> None:
        """Of a track that is seen and one that isn't, at the same place, the latter is the former's ghost."""
        lost, seen = np.flatnonzero(self._unseen_ms > 0), np.flatnonzero(self._unseen_ms == 0)
        if len(lost) and len(seen):
            corners = _corners(self._mean)
            alike = intersections_over_unions(corners[lost], corners[seen]) > _SAME
            alike &= self._classes[lost][:, None] == self._classes[seen][None]
            kept = np.ones(len(self._ids), bool)
            kept[lost[alike.any(axis=1)]] = False
            self._keep(kept)


class SupervisionTracker:
    """A tracker of the package ``trackers`` (or another that takes ``supervision.Detections``) as a :class:`BoxTracker`."""

    def __init__(self, tracker: Any) -> None:
        """Use a tracker.

        Args:
            tracker: Has ``update(detections)``, which gives detections with ``tracker_id``.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError:
            raise MissingExtraError("supervision", "supervision") from None
        self._tracker, self._detections = tracker, Detections

    def update(self, boxes: Any, scores: Any, classes: Any = None, *, after_ms: float = _FRAME_MS) -> Integers:
        """As :meth:`ByteTracker.update`; the tracker takes every frame to come after the same time."""
        found, likely, kinds = _checked(boxes, scores, classes)
        given = self._detections(xyxy=found, confidence=likely, class_id=kinds, data={"row": np.arange(len(found))})
        answered = self._tracker.update(given)
        answer = np.full(len(found), -1, np.int64)
        if len(answered):
            answer[np.asarray(answered.data["row"], int)] = answered.tracker_id
        return answer

    def reset(self) -> None:
        """Begin anew."""
        self._tracker.reset()


def intersections_over_unions(one: Float64, other: Float64) -> Float64:
    """Shape (n, m) of boxes of shapes (n, 4) and (m, 4): left, top, right, bottom."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [np.maximum(each[:, 2:] - each[:, :2], 0).prod(axis=1) for each in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    found: Float64 = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def _checked(boxes: Any, scores: Any, classes: Any) -> tuple[Float64, Float64, Integers]:
    try:
        found = np.asarray(boxes, float).reshape(-1, 4)
        likely = np.asarray(scores, float).reshape(-1)
        kinds = np.zeros(len(found), np.int64) if classes is None else np.asarray(classes, np.int64).reshape(-1)
    except (TypeError, ValueError) as problem:
        raise OptionError(
            f"boxes, scores and classes must be arrays of shapes (n, 4), (n,) and (n,): {problem}"
        ) from None
    if not len(found) == len(likely) == len(kinds):
        raise OptionError(f"boxes, scores and classes must be as many, not {len(found)}, {len(likely)}, {len(kinds)}")
    if not (np.isfinite(found).all() and np.isfinite(likely).all()):
        raise OptionError("boxes and scores must be numbers, not infinite or NaN")
    return found, likely, kinds


def _noise(height: Float64, place: float, speed: float, aspect: float, aspect_speed: float) -> Float64:
    """Diagonal covariances, shape (n, 8, 8)."""
    deviations = np.stack(
        [
            place * height, place * height, np.full_like(height, aspect), place * height,
            speed * height, speed * height, np.full_like(height, aspect_speed), speed * height,
        ],
        axis=1,
    )  # fmt: skip
    noise: Float64 = deviations[:, :, None] ** 2 * np.eye(8)
    return noise


def _measurements(boxes: Float64) -> Float64:
    """Centre, width by height, and height of boxes."""
    size = boxes[:, 2:] - boxes[:, :2]
    middle = boxes[:, :2] + size / 2
    return np.concatenate([middle, (size[:, 0] / np.maximum(size[:, 1], 1e-9))[:, None], size[:, 1:]], axis=1)


def _corners(mean: Float64) -> Float64:
    """The boxes of states, shape (n, 4)."""
    height = np.maximum(mean[:, 3], 0)
    half = np.stack([np.maximum(mean[:, 2], 0) * height, height], axis=1) / 2
    return np.concatenate([mean[:, :2] - half, mean[:, :2] + half], axis=1)
