"""Encoded video of a stream of messages: frames with the messages they came by, and losses that the numbers tell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from tabml.errors import FrameError

if TYPE_CHECKING:
    from tabml.vision.frame import Frame
    from tabml.vision.sources import ChunkDecoder, Codec

CODECS = ("h264", "vp8", "vp9")
"""Of frames that are encoded together; in streams only."""
WAITING = 256
"""Chunks that wait to be decoded, or for their frames, at most."""
_TRUSTED = 2
"""Steps of one from number to number, after which a longer step is a loss."""


class Chunks:
    """The decoder of one stream, and what its chunks' numbers say.

    Numbers that went up one by one and then leave some out tell of chunks that never came, which VP8's and VP9's decoders
    don't notice. Numbers that never went up one by one tell nothing.
    """

    def __init__(self) -> None:
        self._codec = ""
        self._decoder: ChunkDecoder | None = None
        self._messages: dict[int, Any] = {}
        self._count = 0
        self._last: int | None = None
        self._steps = 0

    def decode(self, codec: str, message: Any, data: bytes | memoryview) -> list[tuple[Any, Frame]]:
        """The frames that are complete now, each with its own message, whose time and number it has.

        Raises:
            FrameError: as :meth:`tabml.vision.sources.ChunkDecoder.decode`, or the video has another size than its message.
        """
        from tabml.vision.sources import ChunkDecoder

        if self._decoder is None or codec != self._codec:
            self._decoder, self._codec = ChunkDecoder(cast("Codec", codec)), codec
        self._count += 1
        self._messages[self._count] = message
        self._messages.pop(self._count - WAITING, None)
        gap = self._gap(message.frame_number)
        if gap:
            self._decoder.lost()
        try:
            frames = self._decoder.decode(data, frame_number=self._count)
        except FrameError as problem:
            if not gap:
                raise
            raise FrameError(f"{gap}{problem}") from problem
        return self._own(frames)

    def flush(self) -> list[tuple[Any, Frame]]:
        """The frames that the decoder still holds.

        Raises:
            FrameError: they can't be decoded.
        """
        return [] if self._decoder is None else self._own(self._decoder.flush())

    def _gap(self, number: int) -> str:
        """What the numbers tell; empty when it is nothing."""
        last, self._last = self._last, number
        if last is not None and number == last + 1:
            self._steps += 1
            return ""
        trusted, self._steps = self._steps >= _TRUSTED, 0
        if last is None or number <= last or not trusted:
            return ""
        return f"frame_number goes from {last} to {number}, so chunks are missing: "

    def _own(self, frames: list[Frame]) -> list[tuple[Any, Frame]]:
        found = []
        for frame in frames:
            message = self._messages.get(frame.frame_number or 0)
            if message is None:  # of a chunk long past
                continue
            if (message.width, message.height) not in ((0, 0), (frame.width, frame.height)):
                raise FrameError(
                    f"width={message.width}, height={message.height} is not the video's size, "
                    f"{frame.width}×{frame.height}"
                )
            own = replace(frame, timestamp_ms=message.timestamp_ms, frame_number=message.frame_number)
            found.append((message, own))
        return found
