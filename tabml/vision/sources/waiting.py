"""Any source in an event loop, which never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from tabml.vision.frame import Frame


async def in_async(frames: Iterable[Frame]) -> AsyncIterator[Frame]:
    """Each frame of a source, read in a thread while the event loop goes on; closes the source however it ends.

    Args:
        frames: Such as ``read_video(path)`` or ``read_folder(path)``; cameras and screens are async by themselves.
    """
    iterator = iter(frames)
    reading: asyncio.Future[Frame | None] | None = None
    try:
        while True:
            reading = asyncio.ensure_future(asyncio.to_thread(next, iterator, None))
            frame = await asyncio.shield(reading)
            if frame is None:
                return
            yield frame
    finally:
        if reading is not None:
            await asyncio.wait([reading])  # a source can't be closed while it is read
            reading.exception()
        close = getattr(frames, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
