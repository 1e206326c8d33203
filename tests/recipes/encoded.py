"""Encoded chunks of a small moving picture, as a browser's encoder makes them: no reordering, keyframes at will."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

_ENCODERS = {"h264": "libx264", "vp8": "libvpx", "vp9": "libvpx-vp9"}
_OPTIONS = {
    "h264": {"tune": "zerolatency", "preset": "ultrafast", "bf": "0"},
    "vp8": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    "vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
}


def encoded(codec: str, pictures: Sequence[np.ndarray[Any, Any]], *, gop: int = 10, **options: str) -> list[bytes]:
    """One chunk a picture, shape (height, width, 3), uint8, RGB; a keyframe every ``gop``."""
    context: Any = av.CodecContext.create(_ENCODERS[codec], "w")
    context.height, context.width = pictures[0].shape[:2]
    context.pix_fmt, context.time_base, context.bit_rate = "yuv420p", Fraction(1, 30), 2_000_000
    context.gop_size = gop
    context.options = {**_OPTIONS[codec], **options}
    chunks = []
    for number, pixels in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = number
        chunks += [bytes(packet) for packet in context.encode(frame)]
    return [*chunks, *(bytes(packet) for packet in context.encode(None))]


def moving(count: int, width: int = 96, height: int = 64) -> list[np.ndarray[Any, Any]]:
    """Pictures whose brightness tells their number: 20, 26, 32 and so on at the top left, and a bar that moves."""
    found = []
    for number in range(count):
        pixels = np.full((height, width, 3), 20 + 6 * (number % 36), np.uint8)
        pixels[height // 2 :, (4 * number) % width : (4 * number) % width + 8] = 255
        found.append(pixels)
    return found
