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
    try:
        while True:
            frame = await asyncio.to_thread(next, iterator, None)
            if frame is None:
                return
            yield frame
    finally:
        close = getattr(frames, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
