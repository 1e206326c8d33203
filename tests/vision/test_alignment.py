"""Sources in step: frames of one moment together, an even rate, and everything closed."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tabml.errors import FrameError, OptionError
from tabml.vision import Frame, read_video
from tabml.vision.sources import LiveSource, aligned, aligned_async, in_async, resampled, resampled_async

PIXELS = np.zeros((2, 2), np.uint8)
stamps = st.lists(st.integers(-500, 1500), max_size=40)
streams = st.lists(stamps, min_size=1, max_size=4)


def frame(at: int | None) -> Frame:
    return Frame(pixels=PIXELS, format="gray", timestamp_ms=at)


class Source:
    """A source that tells how far it was read, and whether it was closed."""

    def __init__(self, times: Sequence[int | None]) -> None:
        self.times, self.read, self.closed = times, 0, 0

    def __iter__(self) -> Iterator[Frame]:
        for at in self.times:
            self.read += 1
            yield frame(at)

    def close(self) -> None:
        self.closed += 1


async def all_of(frames: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in frames]


def growing(times: Sequence[int]) -> list[int]:
    """Those later than all before."""
    return [at for number, at in enumerate(times) if all(before < at for before in times[:number])]


def by_hand(times: list[list[int]], tolerance: int, missing: str) -> list[tuple[int | None, ...]]:
    """What :func:`aligned` promises, with everything in memory."""
    leader, *others = [growing(each) for each in times]
    found = []
    for now in leader:
        group: list[int | None] = [now]
        for other in others:
            best = min(other, key=lambda at: (abs(at - now), at), default=None)
            group.append(best if best is not None and abs(best - now) <= tolerance else None)
        if missing == "none" or None not in group:
            found.append(tuple(group))
    return found


def times_of(groups: Sequence[Any]) -> list[tuple[int | None, ...]]:
    return [tuple(None if each is None else each.timestamp_ms for each in group) for group in groups]


@given(streams, st.integers(0, 300), st.sampled_from(["skip", "none"]))
def test_each_frame_has_the_nearest_of_the_others(times: list[list[int]], tolerance: int, missing: Any) -> None:
    sources = [Source(each) for each in times]
    groups = list(aligned(*sources, tolerance_ms=tolerance, missing=missing))
    assert times_of(groups) == by_hand(times, tolerance, missing)
    assert [source.closed for source in sources] == [1] * len(sources)
    twin = [Source(each) for each in times]
    mixed = [source if number % 2 else in_async(source) for number, source in enumerate(twin)]
    assert times_of(asyncio.run(all_of(aligned_async(*mixed, tolerance_ms=tolerance, missing=missing)))) == times_of(
        groups
    )
    assert all(source.closed for source in twin if source.read)


@given(streams, st.lists(st.integers(-200, 200), min_size=4, max_size=4))
def test_offsets_count_before_times_are_compared(times: list[list[int]], offsets: list[int]) -> None:
    offsets = offsets[: len(times)]
    moved = [[at + offset for at in each] for each, offset in zip(times, offsets, strict=True)]
    found = times_of(list(aligned(*map(Source, times), missing="none", offsets_ms=offsets)))
    back = [
        tuple(None if at is None else at - o for at, o in zip(g, offsets, strict=True))
        for g in by_hand(moved, 40, "none")
    ]
    assert found == back


def test_no_source_is_read_further_than_it_has_to_be() -> None:
    sources = [Source(range(0, 10_000, step)) for step in (33, 10, 100)]
    groups = aligned(*sources, tolerance_ms=60)
    for _ in range(10):
        now = next(groups)[0].timestamp_ms
        assert now is not None
        assert [source.read for source in sources[1:]] == [-(-now // 10) + 1, -(-now // 100) + 1]
        assert sources[0].read <= now // 33 + 1
    groups.close()  # type: ignore[attr-defined]
    assert [source.closed for source in sources] == [1, 1, 1]


def test_it_ends_when_no_moment_can_be_complete_any_more() -> None:
    long = Source(range(0, 100_000, 33))
    assert times_of(list(aligned(long, Source([0, 30, 70])))) == [(0, 0), (33, 30), (66, 70), (99, 70)]
    assert long.read == 5
    for other in ([], [-500]):
        long = Source(range(0, 100_000, 33))
        assert list(aligned(long, Source(other))) == []
        assert (long.read, long.closed) == (1, 1)


def test_everything_is_closed_when_a_source_fails() -> None:
    def broken() -> Iterator[Frame]:
        yield frame(0)
        raise FrameError("spoilt")

    other = Source(range(100))
    with pytest.raises(FrameError, match="spoilt"):
        list(aligned(other, broken(), missing="none"))
    assert other.closed
    other = Source(range(100))
    with pytest.raises(FrameError, match="spoilt"):
        asyncio.run(all_of(aligned_async(other, broken(), missing="none")))
    assert other.closed
    other = Source([0, None])
    with pytest.raises(FrameError, match="no timestamp_ms"):
        list(aligned(other))
    assert other.closed


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"tolerance_ms": -1}, "tolerance_ms"), ({"tolerance_ms": 1.5}, "tolerance_ms"), ({"missing": "wait"}, "missing"),
        ({"offsets_ms": [1]}, "offsets_ms"), ({"offsets_ms": [1, "2"]}, r"offsets_ms\[1\]"),
    ],
)  # fmt: skip
def test_options_of_alignment_are_named(said: dict[str, Any], word: str) -> None:
    for make in (aligned, aligned_async):
        with pytest.raises(OptionError, match=word):
            make(Source([]), Source([]), **said)
    with pytest.raises(OptionError, match="at least one"):
        aligned()


class Ticking(LiveSource):
    """A camera that shows its own number, so many frames a second."""

    def __init__(self, every_s: float) -> None:
        super().__init__()
        self.every_s, self.released = every_s, threading.Event()

    def _grab(self) -> Frame | None:
        time.sleep(self.every_s)
        return frame(None) if self.frames_read < 40 else None

    def _release(self) -> None:
        self.released.set()


def test_cameras_that_began_at_different_times_are_on_one_clock() -> None:
    first, second = Ticking(0.02), Ticking(0.02)
    next(first)
    time.sleep(0.3)
    groups = list(itertools.islice(aligned(first, second, tolerance_ms=60), 5))
    assert first.began_ms is not None
    assert second.began_ms is not None
    late = second.began_ms - first.began_ms
    assert late >= 300
    for one, other in groups:
        assert one.timestamp_ms is not None
        assert other.timestamp_ms is not None
        assert abs(one.timestamp_ms - other.timestamp_ms - late) <= 60
    assert first.released.wait(5)
    assert second.released.wait(5)


def test_a_cancelled_alignment_closes_its_sources() -> None:
    first, second = Ticking(0.02), Source(range(100_000))

    async def some() -> None:
        async for _ in aligned_async(first, second, tolerance_ms=1_000):
            pass

    async def run() -> None:
        task = asyncio.create_task(some())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert first.released.wait(5)
    assert second.closed


def test_a_file_that_is_being_read_is_closed_after_the_read() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[Frame]:
        try:
            reading.set()
            go_on.wait(5)
            yield frame(0)
        finally:
            ended.append(True)

    async def run() -> None:
        task = asyncio.create_task(all_of(in_async(slow())))
        await asyncio.to_thread(reading.wait, 5)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    ended: list[bool] = []
    asyncio.run(run())
    assert ended == [True]


def evenly_by_hand(times: list[int], fps: float, gap: int) -> list[tuple[int, int]]:
    """Tick and source time of each frame that :func:`resampled` promises."""
    times, found = growing(times), []
    for tick in range(10_000) if times else ():
        at = times[0] + round(tick * 1000 / fps)
        if at > times[-1]:
            break
        after = min(t for t in times if t >= at)
        before = max((t for t in times if t < at), default=after)
        if after - before <= gap or after == at:
            found.append((tick, min(times, key=lambda t: (abs(t - at), t))))
    return found


@example([-202, 1500], 29.97, 1)
@given(stamps, st.sampled_from([1, 7.5, 25, 29.97, 60, 1000 / 33]), st.sampled_from([1, 50, 400, 10_000]))
def test_an_even_rate_is_made_of_the_nearest_frames(times: list[int], fps: float, gap: int) -> None:
    source = Source(times)
    found = list(resampled(source, fps=fps, max_gap_ms=gap))
    expected = evenly_by_hand(times, fps, gap)
    assert [each.frame_number for each in found] == [tick for tick, _ in expected]
    for each in found:
        assert each.timestamp_ms == growing(times)[0] + round((each.frame_number or 0) * 1000 / fps)
    assert source.closed == 1
    twin = asyncio.run(all_of(resampled_async(Source(times), fps=fps, max_gap_ms=gap)))
    assert times_of([twin]) == times_of([found])


def test_the_nearest_frame_is_shown_at_each_tick() -> None:
    pictures = [
        Frame(pixels=np.full((2, 2), at // 10, np.uint8), format="gray", timestamp_ms=at) for at in (0, 90, 210, 300)
    ]
    found = list(resampled(iter(pictures), fps=10))
    assert [int(each.pixels[0, 0]) for each in found] == [0, 9, 21, 30]
    found = list(resampled(iter(pictures), fps=20))
    assert [int(each.pixels[0, 0]) for each in found] == [0, 9, 9, 9, 21, 21, 30]


def test_a_long_pause_is_not_filled() -> None:
    years = 10**12
    found = list(resampled(Source([0, 50, years, years + 50]), fps=20))
    assert [each.timestamp_ms for each in found] == [0, 50, years, years + 50]
    for fps in (0, -1, 1001, True, "x"):
        with pytest.raises(OptionError, match="fps="):
            resampled(Source([]), fps=fps)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="max_gap_ms"):
        resampled(Source([]), fps=1, max_gap_ms=0)


def test_two_videos_of_different_rates_go_together(pictures: Callable[[str], Path]) -> None:
    path = pictures("hand_test_video.mp4")
    with read_video(path) as every:
        times = [each.timestamp_ms for each, _ in zip(every, range(60), strict=False)]
    half = resampled(read_video(path), fps=15)
    groups = list(itertools.islice(aligned(read_video(path), half, tolerance_ms=34), 60))
    assert [one.timestamp_ms for one, _ in groups] == times
    assert all(abs((one.timestamp_ms or 0) - (other.timestamp_ms or 0)) <= 34 for one, other in groups)
    assert len({other.timestamp_ms for _, other in groups}) < 40
