"""What is kept and what is dropped of a live stream, and whose clock counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabml.errors import OptionError
from tabml.vision import Frame
from tabml.vision.live import FrameClock, FrameQueue

POLICIES = ("latest", "oldest", "block")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.sampled_from(POLICIES), st.lists(st.booleans(), max_size=60))
def test_every_frame_is_taken_dropped_refused_or_waiting(policy: Any, acts: list[bool]) -> None:
    queue: FrameQueue[int] = FrameQueue(policy)
    offered = refused = told = 0
    taken: list[int] = []
    for offer in acts:
        if offer:
            refused += not queue.offer(offered)
            offered += 1
        elif (found := queue.take()) is not None:
            taken.append(found.item)
            told += found.dropped
    assert offered == len(taken) + len(queue) + queue.dropped + refused
    assert taken == sorted(set(taken))
    assert told <= queue.dropped
    if policy == "block":
        assert queue.dropped == 0
    else:
        assert refused == 0


def test_the_newest_frame_wins() -> None:
    queue: FrameQueue[str] = FrameQueue("latest")
    for item in "abc":
        assert queue.offer(item)
    found = queue.take()
    assert found is not None
    assert (found.item, found.dropped, queue.dropped) == ("c", 2, 2)
    assert queue.take() is None
    queue.offer("d")
    again = queue.take()
    assert again is not None
    assert again.dropped == 0


def test_the_oldest_frames_are_answered_first() -> None:
    queue: FrameQueue[int] = FrameQueue("oldest")
    for number in range(20):
        queue.offer(number)
    taken = [found.item for _ in range(len(queue)) if (found := queue.take())]
    assert taken == list(range(8))
    assert queue.dropped == 12


def test_a_sender_that_must_wait_is_told() -> None:
    queue: FrameQueue[int] = FrameQueue("block")
    assert [queue.offer(n) for n in range(3)] == [True, True, False]
    queue.take()
    assert queue.offer(2)


@pytest.mark.parametrize(("fps", "kept"), [(30.0, 30), (15.0, 15), (10.0, 10), (60.0, 30), (7.0, 7)])
def test_frames_over_the_rate_are_dropped(fps: float, kept: int) -> None:
    clock = Clock()
    queue: FrameQueue[int] = FrameQueue("latest", max_fps=fps, clock=clock)
    taken = 0
    for number in range(90):
        clock.now = 100 + number / 30
        queue.offer(number)
        taken += queue.take() is not None
    assert abs(taken - 3 * kept) <= 3
    assert taken + queue.dropped == 90


def test_the_rate_holds_after_a_pause() -> None:
    clock = Clock()
    queue: FrameQueue[int] = FrameQueue("latest", max_fps=1, clock=clock)
    queue.offer(0)
    clock.now += 60
    for number in range(10):
        clock.now += 0.01
        queue.offer(number)
    assert queue.dropped == 9 + 1  # nine over the rate, and the first one, which nobody took


def test_frames_that_waited_too_long_are_dropped() -> None:
    clock = Clock()
    queue: FrameQueue[str] = FrameQueue("oldest", max_age_ms=50, clock=clock)
    queue.offer("old")
    clock.now += 0.04
    queue.offer("young")
    clock.now += 0.02
    found = queue.take()
    assert found is not None
    assert (found.item, found.dropped) == ("young", 1)
    assert found.queue_ms == pytest.approx(20)


def test_a_frame_without_an_answer_is_told_of_by_the_next() -> None:
    queue: FrameQueue[str] = FrameQueue("latest")
    for item in "ab":
        queue.offer(item)
    bad = queue.take()
    assert bad is not None
    queue.drop(bad)
    queue.offer("c")
    found = queue.take()
    assert found is not None
    assert (found.item, found.dropped, queue.dropped) == ("c", 2, 2)


@pytest.mark.parametrize(
    ("policy", "options", "word"),
    [
        ("newest", {}, "drop_policy='newest'"),
        ("latest", {"max_fps": -1}, "max_fps=-1"),
        ("latest", {"max_fps": float("nan")}, "max_fps=nan"),
        ("latest", {"max_fps": 1e9}, "max_fps"),
        ("latest", {"max_age_ms": -1}, "max_age_ms=-1"),
        ("block", {"max_age_ms": 5}, "block"),
        ("block", {"max_fps": 5}, "block"),
    ],
)
def test_impossible_options_are_named(policy: Any, options: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        FrameQueue(policy, **options)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_a_tracker_sees_only_growing_timestamps(stamps: list[int | None]) -> None:
    clock, last = FrameClock(), None
    black = np.zeros((2, 2, 3), np.uint8)
    for stamp in stamps:
        ordered = clock.order(Frame(pixels=black, format="rgb", timestamp_ms=stamp)).timestamp_ms
        assert ordered in (stamp, None)
        if ordered is not None:
            assert last is None or ordered > last
            last = ordered
        elif stamp is not None:
            assert last is not None
            assert stamp <= last
