"""Frames of a WebRTC data channel: a header of 17 bytes, then pixels or an encoded chunk."""

from __future__ import annotations

import struct
from typing import Literal

from tabml.errors import FrameError
from tabml.vision.frame import DEFAULT_LIMITS, DecodeLimits, Frame
from tabml.vision.sources.chunks import ChunkDecoder

HEADER = struct.Struct("<QIIB")
"""Little-endian: timestamp in ms (u64), width and height in pixels (u32), format (u8)."""
ChannelFormat = Literal["rgb", "bgr", "h264", "vp8", "jpeg"]
FORMATS: tuple[ChannelFormat, ...] = ("rgb", "bgr", "h264", "vp8", "jpeg")
"""By the header's number."""
_MOST_MS = 2**63 - 1


class FrameChannel:
    """Frames of one data channel, message by message; encoded ones are decoded as they come."""

    def __init__(self, *, limits: DecodeLimits = DEFAULT_LIMITS) -> None:
        """Nothing is open yet.

        Args:
            limits: What a message and its frames may have at most.
        """
        self._limits = limits
        self._decoders: dict[str, ChunkDecoder] = {}

    def receive(self, message: bytes | memoryview) -> list[Frame]:
        """The frames that are complete now: one, or for encoded messages also none or several.

        Raises:
            FrameError: the message is no frame, or not what its header says. Later messages are answered.
            FrameTooLargeError: it is larger than ``limits``.
        """
        timestamp_ms, width, height, format = read_header(message)
        payload = memoryview(message)[HEADER.size :]
        if format not in ("h264", "vp8"):
            size = {} if format == "jpeg" else {"width": width, "height": height}
            return [Frame.from_named(payload, format, timestamp_ms=timestamp_ms, **size)]
        decoder = self._decoders.get(format)
        if decoder is None:
            decoder = self._decoders[format] = ChunkDecoder("h264" if format == "h264" else "vp8", limits=self._limits)
        return decoder.decode(payload, timestamp_ms=timestamp_ms)

    def close(self) -> None:
        """Free the decoders; twice is fine."""
        self._decoders.clear()


def read_header(message: bytes | memoryview) -> tuple[int, int, int, ChannelFormat]:
    """Timestamp in ms, width, height and format of a message.

    Raises:
        FrameError: it is too short, or the header says something that can't be.
    """
    if len(message) < HEADER.size:
        raise FrameError(f"the message has {len(message)} bytes; its header alone has {HEADER.size}")
    timestamp_ms, width, height, number = HEADER.unpack_from(message)
    if number >= len(FORMATS):
        raise FrameError(f"format={number} must be from 0 to {len(FORMATS) - 1}: {', '.join(FORMATS)}")
    if timestamp_ms > _MOST_MS:
        raise FrameError(f"timestamp_ms={timestamp_ms} must be at most {_MOST_MS}")
    return timestamp_ms, width, height, FORMATS[number]


def write_message(
    payload: bytes | memoryview, format: ChannelFormat, *, width: int, height: int, timestamp_ms: int = 0
) -> bytes:
    """A message, as :meth:`FrameChannel.receive` reads it.

    Raises:
        FrameError: a number doesn't fit in its field, or the format is unknown.
    """
    if format not in FORMATS:
        raise FrameError(f"format={format!r:.40} must be one of {', '.join(FORMATS)}")
    try:
        return HEADER.pack(timestamp_ms, width, height, FORMATS.index(format)) + payload
    except struct.error as problem:
        raise FrameError(f"timestamp_ms={timestamp_ms}, width={width}, height={height}: {problem}") from None
