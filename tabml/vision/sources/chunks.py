"""Encoded video as it arrives: H.264, VP8 and VP9, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from tabml.errors import FrameError, FrameTooLargeError, OptionError
from tabml.vision.frame import DEFAULT_LIMITS, DecodeLimits, Frame
from tabml.vision.sources.h264 import FrameNumbers, units
from tabml.vision.video import av_library

Codec = Literal["h264", "vp8", "vp9"]
_NEWEST = 64
"""Chunks whose numbers are remembered: no decoder reorders more."""


class ChunkDecoder:
    """Frames of one encoded stream, given one access unit at a time; not for several threads at once.

    Begins with a keyframe, and waits for the next one after a chunk that can't be decoded, and after one that is missing
    altogether where the stream tells of it, as H.264 does. VP8 and VP9 don't, and their decoders paint on what they have:
    whoever knows of a gap says :meth:`lost`.
    """

    def __init__(self, codec: Codec, *, limits: DecodeLimits = DEFAULT_LIMITS) -> None:
        """Open a decoder.

        Args:
            codec: H.264 comes as Annex B: start codes, with SPS and PPS before each keyframe.
            limits: What a frame may have at most.

        Raises:
            OptionError: ``codec`` is not one of these.
        """
        if codec not in get_args(Codec):
            raise OptionError(f"codec={codec!r:.40} must be one of {', '.join(get_args(Codec))}")
        self._codec: Codec = codec
        self._limits = limits
        self._av = av_library()
        self._context: Any = None
        self._numbers: dict[int, tuple[int | None, int | None]] = {}
        self._count = 0
        self._order = FrameNumbers() if codec == "h264" else None
        self.waiting = True
        """Whether nothing comes before the next keyframe."""
        self._open()

    def decode(
        self, chunk: bytes | memoryview, *, timestamp_ms: int | None = None, frame_number: int | None = None
    ) -> list[Frame]:
        """The frames that are complete now, in the order they are shown: one or none, and more after reordering.

        Args:
            chunk: One access unit.
            timestamp_ms: Of this chunk; its frame has it, whenever it comes out.
            frame_number: As ``timestamp_ms``.

        Raises:
            FrameError: the chunk is not of this codec, can't be decoded, or a keyframe has to come first. Later
                chunks are answered, from the next keyframe on.
            FrameTooLargeError: its frames are larger than ``limits``.
        """
        data = bytes(chunk)
        if len(data) > self._limits.max_bytes:
            raise FrameTooLargeError(f"the chunk has {len(data)} bytes; max_bytes is {self._limits.max_bytes}")
        key = _IS_KEY[self._codec](data)
        if key is None:
            raise FrameError(f"the chunk is not {self._codec}{_HINTS.get(self._codec, '')}")
        if self.waiting and not key:
            raise FrameError("the stream has to begin with a keyframe, and again after a loss; ask the sender for one")
        if self._order is not None and self._order.missing(data):
            self.lost()
            raise FrameError("a chunk before this one is missing; a keyframe has to come next")
        self._count += 1
        self._numbers[self._count] = (timestamp_ms, frame_number)
        self._numbers.pop(self._count - _NEWEST, None)
        packet = self._av.Packet(data)
        packet.pts = self._count
        frames = self._frames(packet)
        self.waiting = False
        return frames

    def flush(self) -> list[Frame]:
        """The frames that the decoder still holds; it begins anew with a keyframe."""
        if self.waiting:
            return []
        frames = self._frames(None)
        self.lost()
        return frames

    def lost(self) -> None:
        """Something is missing: wait for the next keyframe."""
        self.waiting = True
        self._open()

    def close(self) -> None:
        """Free the decoder; it may be used again."""
        self.lost()
        self._numbers.clear()

    def _open(self) -> None:
        context = self._av.CodecContext.create(self._codec, "r")
        context.thread_count = 1  # threads would hold frames back
        context.options = {"max_pixels": str(self._limits.max_pixels), "err_detect": "explode"}
        self._context = context

    def _frames(self, packet: Any) -> list[Frame]:
        try:
            pictures = self._context.decode(packet)
            corrupt = any(picture.is_corrupt for picture in pictures)
        except (self._av.error.FFmpegError, ValueError) as problem:
            self.lost()
            raise FrameError(f"the chunk can't be decoded: {problem}; a keyframe has to come next") from None
        if corrupt:
            self.lost()
            raise FrameError("a chunk before this one is missing; a keyframe has to come next")
        return [self._frame(picture) for picture in pictures]

    def _frame(self, picture: Any) -> Frame:
        longest = max(picture.width, picture.height)
        if longest > self._limits.max_side or picture.width * picture.height > self._limits.max_pixels:
            self.lost()
            raise FrameTooLargeError(
                f"the stream is {picture.width}×{picture.height}; "
                f"{self._limits.max_side} pixels a side and {self._limits.max_pixels} in all are the most"
            )
        timestamp_ms, frame_number = self._numbers.get(picture.pts, (None, None))
        pixels = np.ascontiguousarray(picture.to_ndarray(format="rgb24"))
        return Frame(pixels=pixels, format="rgb", timestamp_ms=timestamp_ms, frame_number=frame_number)


def _h264_key(data: bytes) -> bool | None:
    if not data.startswith((b"\0\0\1", b"\0\0\0\1")):
        return None
    return any(unit[0] & 31 == 5 for unit in units(data))  # an IDR picture; ITU-T H.264, table 7-1


def _vp8_key(data: bytes) -> bool | None:
    """RFC 6386, section 9.1."""
    if len(data) < 3:
        return None
    key = not data[0] & 1
    return None if key and data[3:6] != b"\x9d\x01\x2a" else key


def _vp9_key(data: bytes) -> bool | None:
    """VP9 Bitstream & Decoding Process Specification, section 6.2."""
    if not data or data[0] >> 6 != 2:
        return None
    high = data[0] >> 4 & 3 == 3  # a reserved bit more for profile 3
    shows_another, not_key = (data[0] >> 2 & 1, data[0] >> 1 & 1) if high else (data[0] >> 3 & 1, data[0] >> 2 & 1)
    return not shows_another and not not_key


_IS_KEY: dict[str, Callable[[bytes], bool | None]] = {"h264": _h264_key, "vp8": _vp8_key, "vp9": _vp9_key}
_HINTS = {"h264": " as Annex B: it must begin with a start code (in WebCodecs: avc.format='annexb')"}
