"""Deltas on their way from the thread that makes them to the event loop that sends them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabml.generation.results import Delta

_MOST_TOKENS = 64


class Handover:
    """One answer's deltas: those that have gathered while the last one was sent go as one. Made in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        self._deltas: deque[Delta | None] = deque()
        self._coming = False

    def put(self, delta: Delta | None) -> None:
        """From one thread: the next delta, or None behind the last."""
        self._deltas.append(delta)
        if not self._coming:  # else the loop has been told, and will see this one too
            self._coming = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._told.set)

    async def deltas(self) -> AsyncIterator[Delta]:
        """All of them, until None."""
        while True:
            await self._told.wait()
            self._told.clear()
            self._coming = False
            while self._deltas:
                delta = self._deltas.popleft()
                if delta is None:
                    return
                yield self._with_more(delta)

    def _with_more(self, first: Delta) -> Delta:
        """A delta, and those that wait behind it and go on with the same answer."""
        parts, tokens = [first], len(first.token_ids)
        while self._deltas and parts[-1].finish_reason is None:
            following = self._deltas[0]
            if following is None or following.index != first.index:
                break
            tokens += len(following.token_ids)
            if tokens > _MOST_TOKENS:
                break
            parts.append(following)
            self._deltas.popleft()
        if len(parts) == 1:
            return first
        last = parts[-1]
        return type(first)(
            text="".join(each.text for each in parts),
            index=first.index,
            token_ids=tuple(token for each in parts for token in each.token_ids),
            logprobs=tuple(one for each in parts for one in each.logprobs),
            finish_reason=last.finish_reason,
            tool_calls=last.tool_calls,
            usage=last.usage,
        )
