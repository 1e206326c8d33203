"""A model as a ``with`` block: the constructor checks options, the first call loads, ``close`` frees."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from tabml.cancellation import Cancellation, current_cancellation
from tabml.errors import CallCancelledError, ModelClosedError

if TYPE_CHECKING:
    from typing import Self

Loaded = TypeVar("Loaded")

_POLL_S = 0.1


class LazyModel(ABC, Generic[Loaded]):
    """What all models share. One object may be used from several threads."""

    def __init__(self, shown: str) -> None:
        """Nothing is loaded yet.

        Args:
            shown: What ``repr`` calls it.
        """
        self._shown = shown
        self._loading = threading.Lock()
        self._loaded: Loaded | None = None
        self._closed = False
        self._load: Cancellation | None = None

    @abstractmethod
    def _open(self) -> Loaded:
        """The model; called once, by the first call that needs it."""

    @abstractmethod
    def _free(self, loaded: Loaded) -> None:
        """Let go of what :meth:`_open` gave, when the calls that run have ended."""

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._closed

    def load(self) -> Self:
        """Fetch and open the model now instead of at the first call; again is fine.

        Raises:
            ModelFileNotFoundError: a file of the model is missing.
            ProviderError: the provider could not deliver.
            CorruptModelError: files contradict each other, or are not what they should be.
            UnsafeModelError: the model would run code, uses a format that can, or wants files from elsewhere.
            ModelKindError: the model is one for another task or of another architecture.
            ModelLoadError: the library refused it.
            CapacityError: no process can be started to try an unknown model in.
            ModelClosedError: the model is closed.
            MissingExtraError: what it needs is not installed.
        """
        self._ready()
        return self

    def close(self) -> None:
        """Free the model; calls that run end first, and a load that runs is given up. Twice is fine."""
        self._closed = True
        if (running := self._load) is not None:
            running.cancel("the model was closed")
        with self._loading:
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self._free(loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "loaded" if self._loaded is not None else "not loaded"
        return f"{type(self).__name__}({self._shown!r}, {state})"

    def _ready(self) -> Loaded:
        loaded = self._loaded
        if loaded is not None:
            return loaded
        outer = current_cancellation() or Cancellation()
        while not self._loading.acquire(timeout=_POLL_S):  # while another one loads it
            outer.check()
        try:
            self._check_open()
            if self._loaded is None:
                self._loaded = self._open_for(outer)
            return self._loaded
        finally:
            self._loading.release()

    def _open_for(self, outer: Cancellation) -> Loaded:
        """Open the model unless the one who asks, or whoever closes it, says no meanwhile."""
        self._load = load = Cancellation()
        forget = outer.on_cancel(load.cancel)
        try:
            with load.bound():
                self._check_open()
                return self._open()
        except CallCancelledError:
            self._check_open()
            raise
        finally:
            forget()
            self._load = None

    def _check_open(self) -> None:
        if self._closed:
            raise ModelClosedError(f"this {type(self).__name__} is closed; open a new one")
