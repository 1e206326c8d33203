"""A flag that long work looks at: cancelling a future does not stop the thread under it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tabml.errors import CallCancelledError

Value = TypeVar("Value")

_current: ContextVar[Cancellation | None] = ContextVar("tabml_cancellation", default=None)


def current_cancellation() -> Cancellation | None:
    """What :meth:`Cancellation.bound` set for the code that runs now: for work that waits deep inside of a call."""
    return _current.get()


class Cancellation:
    """Set once, from any thread; what must wake up at once is called back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._callbacks: dict[object, Callable[[], None]] = {}

    @property
    def cancelled(self) -> bool:
        """True after :meth:`cancel`."""
        return self._reason is not None

    def cancel(self, reason: str = "the caller cancelled") -> None:
        """Set the flag and call back; only the first call counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks.values():
            callback()

    def check(self) -> None:
        """Go on, or stop.

        Raises:
            CallCancelledError: :meth:`cancel` was called.
        """
        if self._reason is not None:
            raise CallCancelledError(self._reason)

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` called once at the cancel, or now when that was before; gives what takes it back."""
        token = object()
        with self._lock:
            if self._reason is None:
                self._callbacks[token] = callback
                return lambda: self._forget(token)
        callback()
        return lambda: None

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Have :func:`current_cancellation` give this one inside the block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def _forget(self, token: object) -> None:
        with self._lock:
            self._callbacks.pop(token, None)


async def in_thread(call: Callable[..., Value], *args: Any, **options: Any) -> Value:
    """What ``call`` gives, computed by a thread, which is told to stop when the task that waits is cancelled."""
    cancellation, outer = Cancellation(), current_cancellation()
    forget = outer.on_cancel(cancellation.cancel) if outer is not None else None
    try:
        with cancellation.bound():  # a thread gets a copy of the context
            return await asyncio.to_thread(call, *args, **options)
    except asyncio.CancelledError:
        cancellation.cancel("the task was cancelled")
        raise
    finally:
        if forget is not None:
            forget()
