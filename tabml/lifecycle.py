"""A model as a ``with`` block: the constructor checks options, the first call loads, ``close`` frees."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from tabml.errors import ModelClosedError

if TYPE_CHECKING:
    from typing import Self

Loaded = TypeVar("Loaded")


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
        """Free the model; calls that run end first. Twice is fine."""
        with self._loading:
            self._closed = True
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
        with self._loading:
            if self._closed:
                raise ModelClosedError(f"this {type(self).__name__} is closed; open a new one")
            if self._loaded is None:
                self._loaded = self._open()
            return self._loaded
