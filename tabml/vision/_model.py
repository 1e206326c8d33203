"""What every vision model shares: options checked first, files through a provider, one native task, streams."""

from __future__ import annotations

import asyncio
import os
import threading
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tabml._litert.specs import thread_count as thread_count
from tabml.errors import FrameError, FrameOrderError, OptionError
from tabml.files import FileProvider, FileRef
from tabml.files.lite import load_lite_model
from tabml.lifecycle import LazyModel
from tabml.vision.frame import Frame

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Result = TypeVar("Result")
ModelSource = str | os.PathLike[str] | FileRef
"""A name of the catalog, the path of a file, or a file of a provider."""

MOST_FINDINGS = 100
"""The largest ``num_faces``, ``num_hands`` and ``num_poses``."""
_FRAME_MS = 33
_LONGEST_PAUSE_MS = 60_000


def ratio(name: str, value: float) -> float:
    """``value`` as a float, when it is a number from 0 to 1.

    Raises:
        OptionError: it isn't.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise OptionError(f"{name}={value!r} must be a number from 0 to 1")
    return float(value)


def count(name: str, value: int) -> int:
    """``value``, when it is a whole number from 1 to :data:`MOST_FINDINGS`.

    Raises:
        OptionError: it isn't.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_FINDINGS:
        raise OptionError(f"{name}={value!r} must be a whole number from 1 to {MOST_FINDINGS}")
    return value


def one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    """``value``, when it is one of ``choices``.

    Raises:
        OptionError: it isn't.
    """
    if value not in choices:
        raise OptionError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}")
    return value


def names(name: str, value: Sequence[str]) -> tuple[str, ...]:
    """``value``, when it is a sequence of texts.

    Raises:
        OptionError: it is something else.
    """
    if isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise OptionError(f"{name}={value!r} must be a sequence of names, such as ('person', 'dog')")
    return tuple(value)


class Task(Protocol):
    """What answers for a model: one of MediaPipe's tasks, or graphs of ours on LiteRT."""

    def run(self, pixels: NDArray[np.uint8], convert: Callable[[Any], Result], *, after_ms: int = 33) -> Result:
        """``convert`` of what is found in one picture; see :class:`tabml.vision._mediapipe.NativeTask`."""
        ...

    def close(self) -> None:
        """Free it, after a call that is running; twice is fine."""
        ...


class VisionModel(LazyModel[Task], Generic[Result]):
    """A model as a ``with`` block: the constructor checks options, the first call loads, ``close`` frees.

    One object may be used from several threads; calls on it run one after another. Models in different
    threads run side by side.
    """

    def __init__(self, *, model: ModelSource, files: FileProvider | None) -> None:
        super().__init__(str(model))
        self._source = model
        self._files = files

    @abstractmethod
    def _build(self, model: bytes | memoryview) -> Task:
        """The native task over the model's bytes."""

    @abstractmethod
    def _read(self, native: Any, frame: Frame) -> Result:
        """The native answer as a value; the native structures live only during this call."""

    def _open(self) -> Task:
        return self._build(load_lite_model(self._source, files=self._files))

    def _free(self, loaded: Task) -> None:
        loaded.close()

    def _after_ms(self, frame: Frame) -> int:
        """For video: milliseconds since the frame before."""
        return _FRAME_MS

    def _call(self, frame: Frame) -> Result:
        if not isinstance(frame, Frame):
            raise FrameError(
                f"frame must be a Frame, not {type(frame).__name__}; "
                "use Frame.from_array, Frame.from_file or Frame.from_bytes"
            )
        pixels = frame.to_rgb()
        return self._ready().run(pixels, lambda native: self._read(native, frame), after_ms=self._after_ms(frame))

    async def _call_async(self, frame: Frame) -> Result:
        return await asyncio.to_thread(self._call, frame)

    def _stream(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Result]]:
        try:
            for frame in frames:
                yield frame, self._call(frame)
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()

    async def _stream_async(self, frames: AsyncIterable[Frame]) -> AsyncIterator[tuple[Frame, Result]]:
        try:
            async for frame in frames:
                yield frame, await self._call_async(frame)
        finally:
            close = getattr(frames, "aclose", None)
            if close is not None:
                await close()


class Detector(VisionModel[Result]):
    """A model that keeps nothing between frames: the same frame gets the same answer."""

    def detect(self, frame: Frame) -> Result:
        """Find what the model finds in one frame.

        Raises:
            FrameError: ``frame`` is not a usable picture.
            ModelClosedError: the model is closed.
            InferenceError: the native library failed; the next frame is answered.
        """
        return self._call(frame)

    async def detect_async(self, frame: Frame) -> Result:
        """:meth:`detect` in a thread."""
        return await self._call_async(frame)

    def detect_stream(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Result]]:
        """Each frame with its answer, lazily; closes ``frames`` however it ends."""
        return self._stream(frames)

    def detect_stream_async(self, frames: AsyncIterable[Frame]) -> AsyncIterator[tuple[Frame, Result]]:
        """Each frame with its answer, lazily; closes ``frames`` however it ends."""
        return self._stream_async(frames)


class Tracker(VisionModel[Result]):
    """A model that follows what it found from frame to frame of one stream: one tracker a stream.

    Frames need growing ``timestamp_ms``; frames without one count as 33 ms apart. A pause of more than a
    minute counts as a minute.
    """

    def __init__(self, *, model: ModelSource, files: FileProvider | None) -> None:
        super().__init__(model=model, files=files)
        self._last_ms: int | None = None
        self._order = threading.Lock()

    def track(self, frame: Frame) -> Result:
        """Find what the model finds in the stream's next frame.

        Raises:
            FrameOrderError: ``frame.timestamp_ms`` is not later than the last frame's; later frames are answered.
            FrameError: ``frame`` is not a usable picture.
            ModelClosedError: the model is closed.
            InferenceError: the native library failed; tracking starts anew with the next frame.
        """
        return self._call(frame)

    async def track_async(self, frame: Frame) -> Result:
        """:meth:`track` in a thread."""
        return await self._call_async(frame)

    def track_stream(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Result]]:
        """Each frame with its answer, lazily; closes ``frames`` however it ends."""
        return self._stream(frames)

    def track_stream_async(self, frames: AsyncIterable[Frame]) -> AsyncIterator[tuple[Frame, Result]]:
        """Each frame with its answer, lazily; closes ``frames`` however it ends."""
        return self._stream_async(frames)

    def _after_ms(self, frame: Frame) -> int:
        if frame.timestamp_ms is None:
            return _FRAME_MS
        with self._order:
            last, now = self._last_ms, frame.timestamp_ms
            if last is not None and now <= last:
                raise FrameOrderError(
                    f"timestamp_ms={now} is not later than the last frame's {last}; "
                    "drop the frame, or open a new tracker for a new stream"
                )
            self._last_ms = now
        return _FRAME_MS if last is None else min(now - last, _LONGEST_PAUSE_MS)
