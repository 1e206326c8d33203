"""Models that are loaded: each once, shared by all calls, unloaded when told so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Literal, Protocol, TypeVar

from tabml.cancellation import Cancellation
from tabml.errors import CallCancelledError, ModelConflictError, ModelInUseError, ModelNotLoadedError


class Closable(Protocol):
    """What a registry can hold."""

    def close(self) -> None:
        """Free it."""
        ...


Model = TypeVar("Model", bound=Closable)
State = Literal["loading", "ready", "unloading", "gone"]


@dataclass(slots=True, eq=False)
class Entry(Generic[Model]):
    """One model and its figures; they change only under the registry's lock."""

    model_id: str
    """What callers call it."""
    spec: Hashable
    """What it was loaded with: another load must say the same."""
    state: State = "loading"
    """What becomes of it."""
    model: Model | None = None
    """The model, once ready."""
    problem: BaseException | None = None
    """Why it could not be loaded."""
    stop: Cancellation = field(default_factory=Cancellation)
    """Set when nobody waits for the load any more."""
    wanted: int = 1
    """Callers that wait for the load."""
    load_seconds: float = 0.0
    """From the first request to ready."""
    loaded_at_ms: int = 0
    """Unix time, milliseconds."""
    last_used_at_ms: int = 0
    """Unix time, milliseconds."""
    calls: dict[object, Cancellation] = field(default_factory=dict)
    """What uses it now."""

    @property
    def active(self) -> int:
        """How many calls use it now."""
        return len(self.calls)


@dataclass(frozen=True, slots=True)
class Lease(Generic[Model]):
    """The right to use a model during one call."""

    entry: Entry[Model]
    """Its figures."""
    model: Model
    """The model; not closed before the lease ends."""
    cancellation: Cancellation
    """Set when the model should be unloaded at once: the call must end."""


def _is_settled(entry: Entry[Model]) -> bool:
    return entry.state in ("ready", "gone")


class ModelRegistry(Generic[Model]):
    """Loads, lends and unloads models by name. Thread-safe.

    Loads of one model at the same time are one load, and end for all with the same answer; a load that nobody
    waits for any more is cancelled. A model that is being unloaded is lent to nobody.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._entries: dict[str, Entry[Model]] = {}

    def load(
        self,
        model_id: str,
        spec: Hashable,
        build: Callable[[Cancellation], Model],
        *,
        any_spec: bool = False,
        cancellation: Cancellation | None = None,
    ) -> tuple[Entry[Model], bool]:
        """The entry of a model that is ready, and whether it was before.

        Args:
            model_id: What callers call it.
            spec: Everything that makes it what it is.
            build: Makes it; called in this thread, and by one caller only. Its argument is set when it may stop.
            any_spec: Take it as it is where it is loaded, or being loaded, with another ``spec``.
            cancellation: Set when this caller doesn't want it any more.

        Raises:
            ModelConflictError: it is loaded, or being loaded, with another ``spec``.
            CallCancelledError: ``cancellation`` was set.
        """
        cancellation = cancellation or Cancellation()
        started = self._clock()
        entry: Entry[Model] | None = None
        with self._changed:
            while entry is None:
                cancellation.check()
                known = self._entries.get(model_id)
                if known is None:
                    entry = self._entries[model_id] = Entry(model_id, spec)
                    break
                if known.state == "unloading" or known.stop.cancelled:
                    self._wait_for(partial(_is_settled, known), cancellation)
                    continue
                if known.spec != spec and not any_spec:
                    raise ModelConflictError(
                        f"model_id={model_id!r} is loaded as {known.spec}, not as {spec}; unload it first"
                    )
                if known.state == "ready":
                    known.last_used_at_ms = self._now_ms()
                    return known, True
                self._join(known, cancellation)
                return known, False
        self._build(entry, build, cancellation, started)
        return entry, False

    def _wait_for(self, done: Callable[[], bool], cancellation: Cancellation, timeout_s: float | None = None) -> bool:
        """Wait under the lock until ``done`` or cancelled; False when the time is over."""
        forget = cancellation.on_cancel(self._notify)
        try:
            in_time = self._changed.wait_for(lambda: done() or cancellation.cancelled, timeout_s)
        finally:
            forget()
        cancellation.check()
        return in_time

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _join(self, entry: Entry[Model], cancellation: Cancellation) -> None:
        """Wait for a load that another caller runs."""
        entry.wanted += 1
        try:
            self._wait_for(lambda: entry.state != "loading", cancellation)
        except CallCancelledError:
            self._lose_interest(entry)
            raise
        if entry.problem is not None:
            raise entry.problem
        if entry.model is None:
            raise CallCancelledError(f"model_id={entry.model_id!r} was unloaded while it loaded")

    def _lose_interest(self, entry: Entry[Model]) -> None:
        entry.wanted -= 1
        if entry.wanted == 0 and entry.state == "loading":
            entry.stop.cancel("nobody waits for the load any more")

    def _build(
        self, entry: Entry[Model], build: Callable[[Cancellation], Model], mine: Cancellation, started: float
    ) -> None:
        def gave_up() -> None:
            with self._changed:
                self._lose_interest(entry)

        forget = mine.on_cancel(gave_up)
        model: Model | None = None
        try:
            model = build(entry.stop)
            with self._changed:
                entry.stop.check()
                entry.model, entry.state = model, "ready"
                entry.load_seconds = self._clock() - started
                entry.loaded_at_ms = entry.last_used_at_ms = self._now_ms()
                self._changed.notify_all()
        except BaseException as problem:
            try:
                if model is not None:
                    model.close()
            finally:
                self._remove(entry, problem)
            raise
        finally:
            forget()
        mine.check()

    def _remove(self, entry: Entry[Model], problem: BaseException | None = None) -> None:
        with self._changed:
            entry.state, entry.model, entry.problem = "gone", None, problem
            del self._entries[entry.model_id]
            self._changed.notify_all()

    @contextmanager
    def use(self, model_id: str) -> Iterator[Lease[Model]]:
        """Borrow a model for one call.

        Raises:
            ModelNotLoadedError: it isn't loaded, or is being unloaded.
        """
        token = object()
        with self._changed:
            entry = self._entries.get(model_id)
            if entry is None or entry.state != "ready" or entry.model is None:
                state = "not loaded" if entry is None else f"being {entry.state.replace('ing', 'ed')}"
                raise ModelNotLoadedError(f"model_id={model_id!r} is {state}; load it first")
            lease = Lease(entry, entry.model, Cancellation())
            entry.calls[token] = lease.cancellation
            entry.last_used_at_ms = self._now_ms()
        try:
            yield lease
        finally:
            with self._changed:
                del entry.calls[token]
                self._changed.notify_all()

    def unload(self, model_id: str, *, cancel: bool = False, timeout_s: float = 10.0) -> Entry[Model]:
        """Let go of a model after its running calls; a load of it that is running ends first, or is cancelled.

        Args:
            model_id: What it was loaded as.
            cancel: End its running calls instead of waiting for them.
            timeout_s: How long to wait at the most; then the model stays.

        Raises:
            ModelNotLoadedError: it isn't loaded.
            ModelInUseError: calls still use it after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            entry = self._entries.get(model_id)
            if entry is None or entry.state == "unloading":
                raise ModelNotLoadedError(f"model_id={model_id!r} is not loaded; there is nothing to unload")
            if entry.state == "loading":
                if cancel:
                    entry.stop.cancel("the model is being unloaded")
                self._changed.wait_for(lambda: entry.state != "loading", timeout_s)
                if entry.state == "loading":
                    raise ModelInUseError(f"model_id={model_id!r} is still loading after {timeout_s:g} s")
                if entry.state == "gone":
                    return entry
                if entry.state == "unloading":
                    raise ModelNotLoadedError(f"model_id={model_id!r} is being unloaded by another call")
            entry.state = "unloading"
            cancellations = list(entry.calls.values())
        if cancel:
            for cancellation in cancellations:
                cancellation.cancel(f"model_id={model_id!r} was unloaded")
        with self._changed:
            if not self._changed.wait_for(lambda: not entry.calls, max(0.0, deadline - time.monotonic())):
                entry.state = "ready"
                self._changed.notify_all()
                raise ModelInUseError(
                    f"model_id={model_id!r} is still used by {entry.active} calls after {timeout_s:g} s; "
                    "wait longer, or cancel them"
                )
        assert entry.model is not None
        try:
            entry.model.close()
        finally:
            self._remove(entry)
        return entry

    def entries(self) -> list[Entry[Model]]:
        """The models that are ready, in the order of their loading."""
        with self._changed:
            return [entry for entry in self._entries.values() if entry.state == "ready"]

    def loading(self, model_id: str) -> bool:
        """Whether a load of the model is running."""
        with self._changed:
            entry = self._entries.get(model_id)
            return entry is not None and entry.state == "loading"

    def get(self, model_id: str) -> Entry[Model] | None:
        """The model when it is ready."""
        with self._changed:
            entry = self._entries.get(model_id)
            return entry if entry is not None and entry.state == "ready" else None

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
