"""Cameras and screens: a thread reads, and only the newest frame is kept."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tabml.errors import MissingExtraError, OptionError, SourceError
from tabml.vision.frame import Frame

if TYPE_CHECKING:
    from typing import Self


class LiveSource(ABC):
    """An iterator of frames, sync and async, whose reader never waits: who is slow misses frames.

    Timestamps are milliseconds since the source was opened, frame numbers count what was read, so gaps show what was
    missed. One thread reads from the first ``next`` on, and ends with :meth:`close`.
    """

    def __init__(self) -> None:
        self._newest: Frame | None = None
        self._problem: BaseException | None = None
        self._fresh = threading.Condition()
        self._closed = False
        self._reader: threading.Thread | None = None
        self.frames_read = 0
        """How many frames came."""
        self.began_ms: int | None = None
        """When its timestamps were 0, on the clock of ``time.monotonic``; None before the first ``next``."""

    @abstractmethod
    def _grab(self) -> Frame | None:
        """The next frame; None when there will be no more."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the device; called once, by the thread that read, or when none did."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        frame = self._take(None)
        if frame is None:
            raise StopIteration
        return frame

    def __aiter__(self) -> AsyncIterator[Frame]:
        return self

    async def __anext__(self) -> Frame:
        frame = await asyncio.to_thread(self._take, None)
        if frame is None:
            raise StopAsyncIteration
        return frame

    def close(self) -> None:
        """Let go of the device; twice is fine, and so is from another thread."""
        with self._fresh:
            was_open, self._closed = not self._closed, True
            self._newest = None
            reader = self._reader
            self._fresh.notify_all()
        if reader is not None and reader is not threading.current_thread():
            reader.join()
        elif was_open and reader is None:
            self._release()

    async def aclose(self) -> None:
        """:meth:`close` in a thread."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, timeout_s: float | None) -> Frame | None:
        with self._fresh:
            if self._reader is None and not self._closed:
                self._reader = threading.Thread(target=self._read, name=f"tabml-{type(self).__name__}", daemon=True)
                self._reader.start()
            self._fresh.wait_for(lambda: self._newest is not None or self._problem or self._closed, timeout_s)
            frame, self._newest = self._newest, None
            if frame is None and self._problem is not None:
                problem, self._problem = self._problem, None
                self._closed = True
                raise problem
            return frame

    def _read(self) -> None:
        began = time.monotonic()
        self.began_ms = round(began * 1000)
        try:
            while not self._closed:
                frame = self._grab()
                if frame is None:
                    break
                at = round((time.monotonic() - began) * 1000)
                stamped = replace(frame, timestamp_ms=at, frame_number=self.frames_read)
                with self._fresh:
                    if self._closed:
                        break
                    self.frames_read += 1
                    self._newest = stamped
                    self._fresh.notify_all()
        except BaseException as problem:
            self._problem = problem
        finally:
            self._release()
            with self._fresh:
                self._closed = self._closed or self._problem is None
                self._fresh.notify_all()


class Camera(LiveSource):
    """Frames of a camera, by OpenCV."""

    def __init__(
        self, index: int = 0, *, width: int | None = None, height: int | None = None, fps: float | None = None
    ):
        """Open the camera.

        Args:
            index: Which one, from 0.
            width: Pixels that are asked for; the camera may answer with others.
            height: As ``width``.
            fps: Frames a second that are asked for.

        Raises:
            OptionError: an argument is outside its range.
            SourceError: there is no such camera, or another program has it.
        """
        super().__init__()
        import cv2

        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 1000:
            raise OptionError(f"index={index!r} must be a whole number from 0")
        wanted = {"width": width, "height": height, "fps": fps}
        for name, value in wanted.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
                raise OptionError(f"{name}={value!r} must be a number above 0")
        self._capture: Any = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"index={index}: there is no such camera, or another program has it")
        properties = {"width": cv2.CAP_PROP_FRAME_WIDTH, "height": cv2.CAP_PROP_FRAME_HEIGHT, "fps": cv2.CAP_PROP_FPS}
        for name, value in wanted.items():
            if value is not None:
                self._capture.set(properties[name], float(value))

    def _grab(self) -> Frame | None:
        good, pixels = self._capture.read()
        if not good:
            raise SourceError("the camera gave no frame; it may have been unplugged")
        return Frame.from_array(pixels, "bgr")

    def _release(self) -> None:
        self._capture.release()


class Screen(LiveSource):
    """Frames of a screen, by mss."""

    def __init__(
        self, monitor: int = 1, *, region: tuple[int, int, int, int] | None = None, max_fps: float = 30.0
    ) -> None:
        """Open the screen.

        Args:
            monitor: Which one, from 1; 0 is all of them as one picture.
            region: Only this part of it: left, top, width and height in pixels.
            max_fps: Frames a second at most, above 0, at most 240.

        Raises:
            OptionError: an argument is outside its range.
            SourceError: there is no screen, or it can't be read.
            MissingExtraError: mss is not installed.
        """
        super().__init__()
        if isinstance(max_fps, bool) or not isinstance(max_fps, int | float) or not 0 < max_fps <= 240:
            raise OptionError(f"max_fps={max_fps!r} must be a number above 0, at most 240")
        try:
            import mss
        except ImportError:
            raise MissingExtraError("vision", "mss") from None
        self._interval = 1 / max_fps
        self._due = 0.0
        self._mss = mss
        self._shots: Any = None
        try:
            with mss.mss() as shots:
                monitors = shots.monitors
        except Exception as problem:
            raise SourceError(f"the screen can't be read: {problem}") from problem
        if isinstance(monitor, bool) or not isinstance(monitor, int) or not 0 <= monitor < len(monitors):
            raise OptionError(f"monitor={monitor!r} must be a whole number from 0 to {len(monitors) - 1}")
        self._area: dict[str, int] = dict(monitors[monitor])
        if region is not None:
            left, top, width, height = region
            inside = left >= 0 and top >= 0 and width > 0 and height > 0
            if not inside or left + width > self._area["width"] or top + height > self._area["height"]:
                raise OptionError(
                    f"region={region!r} must lie within {self._area['width']}×{self._area['height']} pixels"
                )
            self._area = {
                "left": self._area["left"] + left, "top": self._area["top"] + top, "width": width, "height": height,
            }  # fmt: skip

    def _grab(self) -> Frame | None:
        while (late := self._due - time.monotonic()) > 0 and not self._closed:
            time.sleep(min(late, 0.1))
        self._due = max(self._due, time.monotonic() - self._interval) + self._interval
        try:
            if self._shots is None:
                self._shots = self._mss.mss()  # of the thread that uses it
            shot = self._shots.grab(self._area)
        except Exception as problem:
            raise SourceError(f"the screen can't be read: {problem}") from problem
        pixels = np.frombuffer(shot.bgra, np.uint8).reshape(shot.height, shot.width, 4)
        return Frame.from_array(np.ascontiguousarray(pixels[:, :, :3]), "bgr")

    def _release(self) -> None:
        if self._shots is not None:
            self._shots.close()
