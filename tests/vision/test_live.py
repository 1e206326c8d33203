"""What is kept and what is dropped of a live stream, and whose clock counts."""

from __future__ import annotations

import threading
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


TICK = 1 / 1024
"""Seconds that floats add without a rest."""
rates = st.integers(0, 9).map(lambda power: 2.0**power)


@given(rates, st.integers(1, 2000), st.integers(1, 50))
def test_an_even_source_keeps_its_frames_or_gets_the_rate(fps: float, step: int, frames: int) -> None:
    clock = Clock()
    queue: FrameQueue[int] = FrameQueue("latest", max_fps=fps, clock=clock)
    kept = 0
    for number in range(frames):
        clock.now = 64 + number * step * TICK
        assert queue.offer(number)
        kept += queue.take() is not None
    expected = frames if step * TICK >= 1 / fps else 1 + int((frames - 1) * step * TICK * fps)
    assert kept == expected
    assert queue.dropped == frames - kept


@given(rates, st.lists(st.integers(0, 3000), min_size=1, max_size=50))
def test_no_source_gets_more_than_the_rate(fps: float, gaps: list[int]) -> None:
    clock = Clock()
    queue: FrameQueue[float] = FrameQueue("latest", max_fps=fps, clock=clock)
    kept: list[float] = []
    for gap in gaps:
        clock.now += gap * TICK
        queue.offer(clock.now)
        if (found := queue.take()) is not None:
            kept.append(found.item)
    for first, start in enumerate(kept):
        for last, end in enumerate(kept[first:], start=1):
            assert last < (end - start) * fps + 2


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


def test_a_frame_that_waited_just_as_long_as_it_may_is_taken() -> None:
    clock = Clock()
    queue: FrameQueue[str] = FrameQueue("latest", max_age_ms=500, clock=clock)
    for waits, expected in ((0.5, 1), (0.5 + TICK, 0)):
        queue.offer("frame")
        clock.now += waits
        assert (queue.take() is not None) == expected
    assert queue.dropped == 1


@given(
    st.sampled_from(["latest", "oldest"]),
    st.sampled_from([0, 4, 40]),
    st.sampled_from([0, 50, 500]),
    st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=60),
)
def test_limits_lose_no_count_and_give_no_old_frame(
    policy: Any, max_fps: int, max_age_ms: int, acts: list[tuple[bool, int]]
) -> None:
    clock = Clock()
    queue: FrameQueue[tuple[int, float]] = FrameQueue(policy, max_fps=max_fps, max_age_ms=max_age_ms, clock=clock)
    offered, told, taken = 0, 0, []
    for offer, pause_ms in acts:
        clock.now += pause_ms / 1000
        if offer:
            full, dropped = queue.full, queue.dropped
            assert queue.offer((offered, clock.now))
            assert queue.dropped == dropped + full or max_fps
            offered += 1
        elif (found := queue.take()) is not None:
            number, arrived = found.item
            assert found.queue_ms == pytest.approx((clock.now - arrived) * 1000)
            assert not max_age_ms or found.queue_ms <= max_age_ms
            assert policy != "latest" or max_fps or number == offered - 1
            taken.append(number)
            told += found.dropped
            assert told <= queue.dropped
    while (found := queue.take()) is not None:
        taken.append(found.item[0])
        told += found.dropped
    assert taken == sorted(set(taken))
    assert offered == len(taken) + queue.dropped
    queue.offer((offered, clock.now))
    clock.now += 10
    queue.offer((offered + 1, clock.now))
    last = queue.take()
    assert last is not None
    assert told + last.dropped == queue.dropped


def test_a_sender_and_a_taker_may_be_two_threads() -> None:
    queue: FrameQueue[int] = FrameQueue("latest")
    taken, told, sent = [], 0, threading.Event()

    def send() -> None:
        for number in range(5000):
            queue.offer(number)
        sent.set()

    sender = threading.Thread(target=send)
    sender.start()
    while not sent.is_set() or len(queue):
        if (found := queue.take()) is not None:
            taken.append(found.item)
            told += found.dropped
    sender.join()
    assert taken == sorted(set(taken))
    assert taken[-1] == 4999
    assert told == queue.dropped == 5000 - len(taken)


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
        ("latest", {"max_fps": 1000.1}, r"max_fps=1000\.1"),
        ("latest", {"max_age_ms": -1}, "max_age_ms=-1"),
        ("latest", {"max_age_ms": 86_400_001}, "max_age_ms=86400001"),
        ("block", {"max_age_ms": 5}, "block"),
        ("block", {"max_fps": 5}, "block"),
    ],
)
def test_impossible_options_are_named(policy: Any, options: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        FrameQueue(policy, **options)


@pytest.mark.parametrize("options", [{"max_fps": 1000, "max_age_ms": 86_400_000}, {"max_fps": 0, "max_age_ms": 0}])
def test_options_may_be_at_their_ends(options: dict[str, Any]) -> None:
    queue: FrameQueue[int] = FrameQueue("oldest", **options)
    assert queue.offer(1)
    assert queue.take() is not None


def test_a_frame_that_is_put_in_order_is_the_same_picture() -> None:
    clock = FrameClock()
    frame = Frame(pixels=np.zeros((2, 2, 3), np.uint8), format="rgb", timestamp_ms=5, frame_number=7)
    assert clock.order(frame) is frame
    again = clock.order(frame)
    assert (again.timestamp_ms, again.frame_number, again.format) == (None, 7, "rgb")
    assert np.shares_memory(again.pixels, frame.pixels)


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


def test_a_queue_that_is_kept_whole_drops_nothing_and_holds_so_many_bytes() -> None:
    queue: FrameQueue[bytes] = FrameQueue("latest", max_fps=10, max_age_ms=50)
    queue.offer(b"first")
    later = queue.kept_whole(4, 1000)
    assert (queue.policy, later.policy) == ("block", "latest")
    assert [queue.offer(bytes(10)) for _ in range(4)] == [True, True, True, False]
    assert [queue.take() is not None for _ in range(5)] == [True, True, True, True, False]
    assert [queue.offer(bytes(600)) for _ in range(3)] == [True, True, False]
    assert queue.dropped == 0
    with pytest.raises(OptionError):
        FrameQueue("later")  # type: ignore[arg-type]
