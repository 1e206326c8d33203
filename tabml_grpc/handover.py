"""Deltas on their way from the thread that makes them to the event loop that sends them."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabml.generation.results import Delta

_MOST_TOKENS = 64
_PACE_S = 0.008
"""Between two looks at what has come: a frame of a display of 120 Hz. A message costs as much as a small model's token."""


class Handover:
    """One answer's deltas, those that come within 8 ms or while the last one is sent as one. Made in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told, self._over = asyncio.Event(), asyncio.Event()
        self._deltas: deque[Delta] = deque()
        self._coming = False

    def put(self, delta: Delta | None) -> None:
        """From one thread: the next delta, or None behind the last."""
        if delta is None:
            self._tell(self._over)
            self._tell(self._told)
            return
        self._deltas.append(delta)
        if not self._coming:  # else the loop has been told, and will see this one too
            self._coming = True
            self._tell(self._told)

    def _tell(self, event: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(event.set)

    async def deltas(self) -> AsyncIterator[Delta]:
        """All of them, until None."""
        began = -math.inf
        while self._deltas or not self._over.is_set():
            await self._told.wait()
            wait_s = began + _PACE_S - self._loop.time()
            if wait_s > 0 and self._deltas:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), wait_s)
            began = self._loop.time()
            self._told.clear()
            self._coming = False
            here = [self._deltas.popleft() for _ in range(len(self._deltas))]
            for delta in _joined(here):
                yield delta


def _joined(deltas: list[Delta]) -> Iterator[Delta]:
    """Those of each answer as one, or several of up to 64 tokens; the very last one stays behind all others."""
    open_: dict[int, tuple[list[Delta], int]] = {}
    for delta in deltas:
        parts, count = open_.pop(delta.index, ([], 0))
        more = len(delta.token_ids) or 1
        if parts and count + more > _MOST_TOKENS:
            yield _sum(parts)
            parts, count = [], 0
        parts.append(delta)
        open_[delta.index] = parts, count + more
    for parts, _ in open_.values():
        yield _sum(parts)


def _sum(parts: list[Delta]) -> Delta:
    if len(parts) == 1:
        return parts[0]
    last = parts[-1]
    return type(last)(
        text="".join(each.text for each in parts),
        index=last.index,
        token_ids=tuple(token for each in parts for token in each.token_ids),
        logprobs=tuple(one for each in parts for one in each.logprobs),
        finish_reason=last.finish_reason,
        tool_calls=tuple(call for each in parts for call in each.tool_calls),
        usage=last.usage,
    )
