"""Frames that arrive faster than they can be answered: which are kept, which are dropped, and on whose clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar, get_args

from tabml.errors import OptionError
from tabml.vision.frame import Frame

Item = TypeVar("Item")
DropPolicy = Literal["latest", "oldest", "block"]
"""``latest``: the newest frame wins. ``oldest``: in order, and what finds the queue full is dropped.
``block``: nothing is dropped, the sender waits."""
_DEPTH = {"latest": 1, "oldest": 8, "block": 2}
_MAX_FPS = 1000.0


@dataclass(frozen=True, slots=True)
class Waiting(Generic[Item]):
    """One frame taken from a queue."""

    item: Item
    """What was offered."""
    queue_ms: float
    """How long it waited."""
    dropped: int
    """Frames dropped since the one taken before."""


class FrameQueue(Generic[Item]):
    """A bounded queue between a live source and a model. Thread-safe, never blocks."""

    def __init__(
        self,
        policy: DropPolicy = "latest",
        *,
        max_fps: float = 0.0,
        max_age_ms: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An empty queue.

        Args:
            policy: What happens to frames when the model is behind.
            max_fps: Frames above this rate are dropped, up to 1000; 0 for no limit.
            max_age_ms: Frames that waited longer are dropped, up to a day; 0 for no limit. Not with ``block``.
            clock: Seconds.

        Raises:
            OptionError: an option is outside its range.
        """
        if policy not in get_args(DropPolicy):
            raise OptionError(f"drop_policy={policy!r} must be one of {', '.join(get_args(DropPolicy))}")
        if not 0 <= max_fps <= _MAX_FPS:
            raise OptionError(f"max_fps={max_fps!r} must be a number from 0 to {_MAX_FPS:g}")
        if not 0 <= max_age_ms <= 86_400_000:
            raise OptionError(f"max_age_ms={max_age_ms!r} must be a whole number from 0 to 86400000")
        if policy == "block" and (max_age_ms or max_fps):
            raise OptionError("drop_policy='block' drops nothing: max_fps and max_age_ms must be 0")
        self.policy: DropPolicy = policy
        """What happens to frames when the model is behind."""
        self._most_bytes = 0
        self._interval = 1 / max_fps if max_fps else 0.0
        self._max_age = max_age_ms / 1000
        self._clock = clock
        self._depth = _DEPTH[policy]
        self._lock = threading.Lock()
        self._items: deque[tuple[float, Item]] = deque()
        self._due = -1e18
        self._fresh_drops = 0
        self.dropped = 0
        """Frames dropped in all."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the next frame would be dropped, or drop another."""
        if self._most_bytes and sum(len(item) for _, item in self._items) >= self._most_bytes:  # type: ignore[arg-type, misc]
            return True
        return len(self._items) >= self._depth

    def kept_whole(self, depth: int, max_bytes: int) -> FrameQueue[Item]:
        """From now on drop nothing here, as every chunk of encoded video is needed to decode the next.

        Args:
            depth: How many chunks wait before :meth:`offer` says False.
            max_bytes: How many bytes they have before it does.

        Returns:
            A queue with this one's policy, for the frames after they are decoded.
        """
        later: FrameQueue[Item] = FrameQueue(
            self.policy, max_fps=1 / self._interval if self._interval else 0.0,
            max_age_ms=round(self._max_age * 1000), clock=self._clock,
        )  # fmt: skip
        if self.policy == "block":
            later._depth = depth
        with self._lock:
            self.policy, self._interval, self._max_age = "block", 0.0, 0.0
            self._depth, self._most_bytes = depth, max_bytes
        return later

    def offer(self, item: Item) -> bool:
        """Add a frame; False when there is no room and the policy is ``block``: offer it again later."""
        with self._lock:
            now = self._clock()
            if self._interval:
                if now < self._due:
                    self._drop()
                    return True
                late = now - self._due
                self._due = (self._due if late < self._interval else now) + self._interval
            if self.full:
                if self.policy == "block":
                    return False
                self._drop()
                if self.policy == "oldest":
                    return True
                self._items.popleft()
            self._items.append((now, item))
            return True

    def take(self) -> Waiting[Item] | None:
        """The next frame, or None."""
        with self._lock:
            now = self._clock()
            while self._items:
                arrived, item = self._items.popleft()
                if self._max_age and now - arrived > self._max_age:
                    self._drop()
                    continue
                dropped, self._fresh_drops = self._fresh_drops, 0
                return Waiting(item, (now - arrived) * 1000, dropped)
            return None

    def drop(self, taken: Waiting[Item]) -> None:
        """Count a frame that was taken and gets no answer; the next one tells of it, and of those it would have told."""
        with self._lock:
            self._drop()
            self._fresh_drops += taken.dropped

    def _drop(self) -> None:
        self.dropped += 1
        self._fresh_drops += 1


class FrameClock:
    """Puts the frames of a stream in order for a tracker, whatever the sender's clock does."""

    def __init__(self) -> None:
        self._last: int | None = None

    def order(self, frame: Frame) -> Frame:
        """``frame``, without its timestamp where that is not later than all before: it then counts as 33 ms later."""
        now = frame.timestamp_ms
        if now is None:
            return frame
        if self._last is not None and now <= self._last:
            return replace(frame, timestamp_ms=None)
        self._last = now
        return frame
