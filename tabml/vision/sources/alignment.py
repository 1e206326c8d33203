"""Several sources in step: frames of the same moment together, or one source at an even rate.

The work is a generator that asks for frames and gives answers; reading, in a thread's time or an event loop's, is done by
whoever drives it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast, overload

from tabml.errors import FrameError, OptionError
from tabml.vision.frame import Frame
from tabml.vision.sources.live import LiveSource
from tabml.vision.sources.waiting import in_async

Missing = Literal["skip", "none"]
"""What becomes of a moment that a source has no frame of: it is left out, or None stands for that frame."""
Answer = TypeVar("Answer")
_Work = Generator[int | Answer, Frame | None, None]
"""Asks for the next frame of a source by its number and is sent it, None at its end; all else that it gives is an answer."""
_Source = AsyncIterable[Frame] | Iterable[Frame]
_NO_LIMIT = 1 << 64


@overload
def aligned(
    *sources: Iterable[Frame], tolerance_ms: int = ..., missing: Literal["skip"] = ..., offsets_ms: Sequence[int] = ...
) -> Iterator[tuple[Frame, ...]]: ...
@overload
def aligned(
    *sources: Iterable[Frame], tolerance_ms: int = ..., missing: Missing, offsets_ms: Sequence[int] = ...
) -> Iterator[tuple[Frame | None, ...]]: ...
def aligned(
    *sources: Iterable[Frame], tolerance_ms: int = 40, missing: Missing = "skip", offsets_ms: Sequence[int] = ()
) -> Iterator[Any]:
    """Frames of several sources that belong to the same moment: each frame of the first, with the nearest of the others.

    Two frames of each source are held at a time. A slow source's frame may be the nearest of several moments. Frames that are
    not later than the one before of their source are left out. Ends with the first source, or when no moment can be
    complete any more; closes all sources however it ends.

    Args:
        sources: Cameras, screens, files, streams: at least one; the one that sets the pace comes first.
        tolerance_ms: How far from the moment a frame may be at most, from 0.
        missing: What becomes of a moment that a source has no frame of.
        offsets_ms: Added to each source's timestamps before they are compared, so that they tell one clock's time; the frames keep
            their own. When empty, cameras and screens are put on one clock, and all others begin with it.

    Raises:
        OptionError: an option is outside its range.
        FrameError: a frame has no timestamp.
    """
    work = _moments(sources, tolerance_ms, missing, offsets_ms)
    return _driven(work, sources)


@overload
def aligned_async(
    *sources: _Source, tolerance_ms: int = ..., missing: Literal["skip"] = ..., offsets_ms: Sequence[int] = ...
) -> AsyncIterator[tuple[Frame, ...]]: ...
@overload
def aligned_async(
    *sources: _Source, tolerance_ms: int = ..., missing: Missing, offsets_ms: Sequence[int] = ...
) -> AsyncIterator[tuple[Frame | None, ...]]: ...
def aligned_async(
    *sources: _Source, tolerance_ms: int = 40, missing: Missing = "skip", offsets_ms: Sequence[int] = ()
) -> AsyncIterator[Any]:
    """:func:`aligned` beside an event loop; files and folders are read in threads."""
    work = _moments(sources, tolerance_ms, missing, offsets_ms)
    return _driven_async(work, sources)


def resampled(frames: Iterable[Frame], *, fps: float, max_gap_ms: int = 10_000) -> Iterator[Frame]:
    """The frames of a source at an even rate, from its first to its last: for each tick the nearest one.

    Too many are left out, too few are repeated. Timestamps are the ticks', which begin with the first frame's, and
    numbers count the ticks from 0. Frames that are not later than the one before are left out. Closes ``frames`` however it ends.

    Args:
        frames: A source whose frames have timestamps.
        fps: Frames a second, above 0, at most 1000.
        max_gap_ms: A longer pause between two frames is not filled: its ticks are left out. Above 0.

    Raises:
        OptionError: an option is outside its range.
        FrameError: a frame has no timestamp.
    """
    return _driven(_ticks(fps, max_gap_ms), (frames,))


def resampled_async(frames: _Source, *, fps: float, max_gap_ms: int = 10_000) -> AsyncIterator[Frame]:
    """:func:`resampled` beside an event loop."""
    return _driven_async(_ticks(fps, max_gap_ms), (frames,))


@dataclass(slots=True)
class _Track:
    """The two newest frames of a source."""

    shift: int = 0
    before: Frame | None = None
    after: Frame | None = None
    ended: bool = False

    def time(self, frame: Frame) -> int:
        """Milliseconds on the clock of all."""
        if frame.timestamp_ms is None:
            raise FrameError("a frame has no timestamp_ms, so it belongs to no moment; set it where the frame is made")
        return frame.timestamp_ms + self.shift

    @property
    def newest(self) -> int:
        """The time of the newest frame; long ago when there is none."""
        return -_NO_LIMIT if self.after is None else self.time(self.after)

    def take(self, frame: Frame | None) -> None:
        """The next frame, or the end; a frame that isn't later than the last is left out."""
        if frame is None:
            self.ended = True
        elif self.time(frame) > self.newest:
            self.before, self.after = self.after, frame

    def read_to(self, at: int, source: int) -> Generator[int, Frame | None, None]:
        """Ask for frames until one is of this time or later."""
        while not self.ended and self.newest < at:
            self.take((yield source))

    def nearest(self, at: int, tolerance: int) -> Frame | None:
        """The frame nearest to this time, the earlier of equals."""
        known = [frame for frame in (self.before, self.after) if frame is not None]
        best = min(known, key=lambda frame: abs(self.time(frame) - at), default=None)
        return best if best is not None and abs(self.time(best) - at) <= tolerance else None


def _moments(sources: Sequence[Any], tolerance: int, missing: Missing, offsets: Sequence[int]) -> _Work[Any]:
    if not sources:
        raise OptionError("sources must be at least one")
    _whole("tolerance_ms", tolerance, 0)
    if missing not in ("skip", "none"):
        raise OptionError(f"missing={missing!r:.40} must be 'skip' or 'none'")
    if offsets and len(offsets) != len(sources):
        raise OptionError(f"offsets_ms has {len(offsets)} numbers; there are {len(sources)} sources")
    for at, offset in enumerate(offsets):
        _whole(f"offsets_ms[{at}]", offset, -_NO_LIMIT)
    return _grouped(len(sources), lambda: offsets or _clocks(sources), tolerance, missing)


def _grouped(count: int, shifts: Callable[[], Sequence[int]], tolerance: int, missing: Missing) -> _Work[Any]:
    firsts: list[Frame | None] = []
    for source in range(count):
        firsts.append((yield source))
    tracks = [_Track(shift) for shift in shifts()]  # known once all have begun
    for track, first in zip(tracks, firsts, strict=True):
        track.take(first)
    leader, others = tracks[0], tracks[1:]
    while leader.after is not None:
        now = leader.newest
        for source, track in enumerate(others, 1):
            yield from track.read_to(now, source)
        if missing == "skip" and any(track.ended and track.newest < now - tolerance for track in others):
            return
        group = (leader.after, *(track.nearest(now, tolerance) for track in others))
        if missing == "none" or all(frame is not None for frame in group):
            yield group
        yield from leader.read_to(now + 1, 0)
        if leader.ended and leader.newest == now:
            return


def _ticks(fps: float, max_gap: int) -> _Work[Frame]:
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1000:
        raise OptionError(f"fps={fps!r} must be a number above 0, at most 1000")
    _whole("max_gap_ms", max_gap, 1)
    return _evenly(fps, max_gap)


def _evenly(fps: float, max_gap: int) -> _Work[Frame]:
    track = _Track()
    track.take((yield 0))
    start, tick = track.newest, 0
    while track.after is not None:
        at = start + round(tick * 1000 / fps)
        yield from track.read_to(at, 0)
        if track.newest < at:
            return
        if track.before is not None and track.newest - track.time(track.before) > max_gap:
            beyond = math.floor((track.newest - start) * fps / 1000)
            beyond += start + round(beyond * 1000 / fps) < track.newest  # times are rounded
            if beyond > tick:
                tick = beyond
                continue
        frame = track.nearest(at, _NO_LIMIT)
        assert frame is not None
        yield replace(frame, timestamp_ms=at, frame_number=tick)
        tick += 1


def _clocks(sources: Sequence[Any]) -> list[int]:
    """What puts cameras and screens, whose time begins when they are opened, on one clock."""
    began = [source.began_ms if isinstance(source, LiveSource) else None for source in sources]
    earliest = min((at for at in began if at is not None), default=0)
    return [0 if at is None else at - earliest for at in began]


def _whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        at_least = "" if least == -_NO_LIMIT else f", at least {least}"
        raise OptionError(f"{name}={value!r} must be a whole number of milliseconds{at_least}")


def _driven(work: _Work[Answer], sources: Sequence[Iterable[Frame]]) -> Iterator[Answer]:
    with ExitStack() as stack:
        for source in sources:
            close = getattr(source, "close", None)
            if close is not None:
                stack.callback(close)
        iterators = [iter(source) for source in sources]
        step = next(work, None)
        while step is not None:
            if isinstance(step, int):
                step = _sent(work, next(iterators[step], None))
            else:
                yield step
                step = next(work, None)


async def _driven_async(work: _Work[Answer], sources: Sequence[_Source]) -> AsyncIterator[Answer]:
    async with AsyncExitStack() as stack:
        iterators: list[AsyncIterator[Frame]] = []
        for source in sources:
            own = hasattr(source, "__aiter__")
            frames = cast("AsyncIterable[Frame]", source) if own else in_async(cast("Iterable[Frame]", source))
            iterators.append(aiter(frames))
            close, aclose = getattr(source, "close", None), getattr(frames, "aclose", None)
            if not own and close is not None:  # of those never begun, too
                stack.push_async_callback(asyncio.to_thread, close)
            if aclose is not None:
                stack.push_async_callback(aclose)
        step = next(work, None)
        while step is not None:
            if isinstance(step, int):
                step = _sent(work, await anext(iterators[step], None))
            else:
                yield step
                step = next(work, None)


def _sent(work: _Work[Answer], frame: Frame | None) -> int | Answer | None:
    """What the work says to a frame; None when it is done."""
    try:
        return work.send(frame)
    except StopIteration:
        return None
