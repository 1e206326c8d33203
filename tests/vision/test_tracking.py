"""Numbers of boxes: unique, kept through crossings and hiding places, never used twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from tabml.errors import OptionError
from tabml.vision import Frame, ObjectTracker, annotate
from tabml.vision.tracking import ByteTracker, intersections_over_unions

Find = Callable[[str], Path]
SIZE = np.array([40.0, 90.0])


def boxes(middles: Any) -> NDArray[np.float64]:
    """Upright boxes of one size around points."""
    found = np.asarray(middles, float).reshape(-1, 2)
    return np.concatenate([found - SIZE / 2, found + SIZE / 2], axis=1)


def walkers(count: int, seed: int, frames: int = 120) -> Iterator[NDArray[np.float64]]:
    """People who walk to and fro at different depths and cross each other's ways."""
    random = np.random.default_rng(seed)
    start, speed = random.uniform(50, 590, count), random.uniform(2, 5, count) * random.choice([-1, 1], count)
    down = random.uniform(100, 380, count)
    for frame in range(frames):
        x = np.abs((start + speed * frame) % 1280 - 640)
        yield np.stack([x, down + 3 * np.sin(frame / 9 + down)], axis=1)


def followed(tracker: ByteTracker, middles: Any, *, hide: bool, noise: float, seed: int = 0) -> list[dict[int, int]]:
    """For each frame: which person has which number; whoever is behind somebody else is unlikely or not seen."""
    random = np.random.default_rng(seed)
    answers = []
    for where in middles:
        found = boxes(where + random.normal(0, noise, where.shape))
        covered = np.triu(intersections_over_unions(found, found), 1).max(axis=1)  # by whoever comes later
        scores = np.where(covered > 0.2, 0.3, 0.9)
        seen = np.flatnonzero((not hide) | (covered < 0.6))
        ids = tracker.update(found[seen], scores[seen])
        answers.append({int(person): int(number) for person, number in zip(seen, ids, strict=True) if number > 0})
    return answers


def switches(answers: list[dict[int, int]]) -> int:
    """How often a person's number changes."""
    last: dict[int, int] = {}
    found = 0
    for answer in answers:
        for person, number in answer.items():
            found += last.get(person, number) != number
            last[person] = number
    return found


@pytest.mark.parametrize("seed", range(5))
def test_people_who_cross_keep_their_numbers(seed: int) -> None:
    answers = followed(ByteTracker(), walkers(5, seed), hide=False, noise=1)
    assert set().union(*answers) == set(range(5))
    assert switches(answers) <= 1
    assert all(len(set(answer.values())) == len(answer) for answer in answers)


@pytest.mark.parametrize("seed", range(5))
def test_people_who_are_hidden_for_a_while_keep_their_numbers(seed: int) -> None:
    answers = followed(ByteTracker(), walkers(4, seed), hide=True, noise=0.5)
    assert switches(answers) <= 2


def test_what_stays_away_longer_than_it_is_remembered_gets_a_new_number() -> None:
    for pause, same in ((10, True), (40, False)):
        tracker = ByteTracker(lost_ms=1000)
        first = [int(tracker.update(boxes([100, 100]), [0.9])[0]) for _ in range(5)]
        for _ in range(pause):
            assert len(tracker.update(np.zeros((0, 4)), [])) == 0
        again = [int(tracker.update(boxes([100, 100]), [0.9])[0]) for _ in range(3)]
        assert set(first) == {1}
        assert (set(again) == {1}) is same
    assert again[0] == -1  # not believed before it is seen twice


def test_unlikely_boxes_begin_nothing_and_keep_what_is_there() -> None:
    tracker = ByteTracker()
    assert tracker.update(boxes([[100, 100], [300, 100]]), [0.9, 0.4]).tolist() == [1, -1]
    for step in range(10):
        assert tracker.update(boxes([[100 + step, 100], [300, 100]]), [0.2, 0.4]).tolist() == [1, -1]
    assert tracker.update(boxes([100, 100]), [0.05]).tolist() == [-1]


def test_classes_are_different_things_unless_told_otherwise() -> None:
    for by_class, expected in ((True, -1), (False, 1)):
        tracker = ByteTracker(by_class=by_class)
        assert tracker.update(boxes([100, 100]), [0.9], [3]).tolist() == [1]
        assert tracker.update(boxes([100, 100]), [0.9], [4]).tolist() == [expected]


@given(st.floats(0.1, 50), st.floats(-500, 500), st.floats(-500, 500), st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_numbers_do_not_depend_on_unit_or_place(scale: float, x: float, y: float, seed: int) -> None:
    plain, moved = ByteTracker(), ByteTracker()
    for where in walkers(4, seed, 30):
        found = boxes(where)
        other = found * scale + [x, y, x, y]
        assert plain.update(found, [0.9] * 4).tolist() == moved.update(other, [0.9] * 4).tolist()


@pytest.mark.parametrize(
    ("given_boxes", "scores", "classes"),
    [
        ([[0, 0, 1]], [1], None), ([[0, 0, 1, 1]], [1, 1], None), ([[0, 0, 1, np.nan]], [1], None),
        ([[0, 0, 1, 1]], [np.inf], None), ([[0, 0, 1, 1]], [1], ["a"]), ("x", [1], None),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(given_boxes: Any, scores: Any, classes: Any) -> None:
    with pytest.raises(OptionError, match="boxes"):
        ByteTracker().update(given_boxes, scores, classes)


@pytest.mark.parametrize(
    "said", [{"high_threshold": 0.1, "low_threshold": 0.5}, {"lost_ms": -1}, {"low_threshold": -1}]
)
def test_options_outside_their_range_are_named(said: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(said))):
        ByteTracker(**said)


class Following(RuleBasedStateMachine):
    """Any boxes in any order: every number is one track's, and new ones are higher than all before."""

    @initialize()
    def begin(self) -> None:
        self.tracker = ByteTracker()
        self.highest = 0
        self.ids: list[int] = []

    @rule(
        found=st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(-5, 500), st.floats(-5, 500)), max_size=8),
        score=st.floats(0, 1),
        kind=st.integers(0, 1),
        after=st.floats(0, 1e5),
    )  # fmt: skip
    def frame(self, found: list[tuple[float, ...]], score: float, kind: int, after: float) -> None:
        given_boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in found]).reshape(-1, 4)
        self.ids = self.tracker.update(
            given_boxes, np.full(len(found), score), np.full(len(found), kind), after_ms=after
        ).tolist()

    @rule()
    def reset(self) -> None:
        self.tracker.reset()
        self.ids = []

    @invariant()
    def numbers_are_unique_and_grow(self) -> None:
        if not hasattr(self, "ids"):
            return
        known = [number for number in self.ids if number > 0]
        assert len(set(known)) == len(known)
        assert all(number == -1 or number > 0 for number in self.ids)
        assert self.tracker._next > max([self.highest, *known])
        self.highest = max([self.highest, *known])
        assert np.isfinite(self.tracker._mean).all()
        assert len(set(self.tracker._ids.tolist())) == len(self.tracker._ids)


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_objects_of_a_moving_picture_keep_their_numbers(pictures: Find) -> None:
    still = Frame.from_file(pictures("coupleanddog.jpeg")).to_rgb()
    with ObjectTracker(trajectory_length=5) as tracker:
        for step in range(12):
            window = np.ascontiguousarray(still[step : step + 300, 2 * step : 2 * step + 330])
            frame = Frame.from_array(window, timestamp_ms=40 * step)
            found = tracker.track(frame)
            if step == 0:
                first = {each.track_id: each.label for each in found}
                assert sorted(first.values())[-2:] == ["person", "person"]
    last = {each.track_id: each for each in found}
    assert {number for number, label in first.items() if label == "person"} <= set(last)
    for each in last.values():
        assert each.label == first.get(each.track_id, each.label)
        assert 1 <= len(each.trajectory) <= 5
        np.testing.assert_allclose(each.trajectory[-1], list(each.box.to_dict().values()), atol=1e-6)
    person = next(each for each in found if each.label == "person")
    assert person.trajectory[-1, 0] < person.trajectory[0, 0]  # the window moves to the right, so they move to the left
    assert (annotate(frame, found).pixels != frame.to_rgb()).any()
    assert found.to_dict()["tracks"][0]["track_id"] >= 1


def test_a_tracker_of_another_kind_may_be_given(pictures: Find) -> None:
    class Counting:
        calls = 0

        def update(self, boxes: Any, scores: Any, classes: Any = None, *, after_ms: float = 33) -> Any:
            self.calls += 1
            return np.arange(7, 7 + len(boxes))

        def reset(self) -> None:
            raise AssertionError

    counting = Counting()
    with ObjectTracker(tracker=counting, low_score_threshold=0.5) as tracker:
        found = tracker.track(Frame.from_file(pictures("coupleanddog.jpeg")))
    assert [each.track_id for each in found] == [7, 8, 9]
    assert counting.calls == 1
