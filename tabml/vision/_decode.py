"""The one gate for encoded pictures: kind by magic bytes, size by the header, limits before any decoding."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import FrameError, FrameTooLargeError, MissingExtraError


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What a picture may promise at the most."""

    max_pixels: int = 40_000_000
    """Width × height."""
    max_side: int = 16_384
    """Pixels, of either side."""
    max_bytes: int = 64 << 20
    """Length of the encoded picture."""
    max_jpeg_scans: int = 100
    """Scans of a progressive JPEG: each is a pass over all pixels."""


DEFAULT_LIMITS = DecodeLimits()

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
)
_ORIENTATION = 0x0112  # Exif 2.32, 4.6.4


_opening = threading.Lock()


def decode(data: bytes, limits: DecodeLimits, name: str) -> NDArray[np.uint8]:
    """The upright picture: shape (height, width, 3), RGB, or (height, width, 4) where it has transparency.

    Args:
        data: A JPEG, PNG, WebP, BMP or GIF (its first frame).
        limits: What it may promise.
        name: What messages call it.

    Raises:
        FrameTooLargeError: it promises more than the limits allow; nothing was decoded.
        FrameError: it is none of these, damaged, or truncated.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingExtraError("vision", "pillow") from None

    if len(data) > limits.max_bytes:
        raise FrameTooLargeError(f"{name} has {len(data)} bytes; max_bytes is {limits.max_bytes}")
    kind = _kind(data)
    if kind is None:
        raise FrameError(f"{name} is not a picture; JPEG, PNG, WebP, BMP and GIF are (it starts {data[:8]!r})")
    if kind == "WEBP":  # Pillow allocates the canvas on opening
        _check_size(*_webp_size(data, name), limits, name)
    scans = data.count(b"\xff\xda") if kind == "JPEG" else 0
    if scans > limits.max_jpeg_scans:
        raise FrameTooLargeError(f"{name} has {scans} JPEG scans; max_jpeg_scans is {limits.max_jpeg_scans}")
    try:
        with _opening, warnings.catch_warnings():  # the filters are the whole process's
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise FrameTooLargeError(f"{name} promises more than max_pixels={limits.max_pixels}") from None
    except (OSError, ValueError, SyntaxError, struct.error, EOFError) as problem:
        raise FrameError(f"{name}: the {kind} header is damaged: {problem}") from problem
    with picture:
        _check_size(*picture.size, limits, name)
        try:
            if kind == "JPEG" and picture.mode in ("RGB", "L", "YCbCr"):
                end = data.rfind(b"\xff\xd9")
                if end < 0 or data.find(b"\xff\xda", end) > 0:
                    raise FrameError(f"{name} is truncated: the JPEG has no end")
                return _upright(_jpeg(data, name), picture.getexif().get(_ORIENTATION, 1))
            picture.load()
            return _pixels(ImageOps.exif_transpose(picture))
        except FrameError:
            raise
        except (OSError, ValueError, SyntaxError, struct.error, EOFError) as problem:
            raise FrameError(f"{name} is truncated or damaged: {problem}") from problem


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _check_size(width: int, height: int, limits: DecodeLimits, name: str) -> None:
    if width < 1 or height < 1:
        raise FrameError(f"{name} has no pixels: {width}×{height}")
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise FrameTooLargeError(
            f"{name} promises {width}×{height} pixels; the limits are max_side={limits.max_side} and "
            f"max_pixels={limits.max_pixels}: resize it, or pass limits=DecodeLimits(...)"
        )


def _webp_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of the canvas: RFC 9649, sections 2.5 to 2.7."""
    chunk, body = data[12:16], data[20:30]
    if len(body) == 10:
        if chunk == b"VP8X":
            return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        if chunk == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if chunk == b"VP8 ":
            width, height = struct.unpack_from("<HH", body, 6)
            return width & 0x3FFF, height & 0x3FFF
    raise FrameError(f"{name}: the WEBP header is damaged")


def _jpeg(data: bytes, name: str) -> NDArray[np.uint8]:
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as problem:
        raise FrameError(f"{name} can't be decoded: {problem}") from problem
    if pixels is None:
        raise FrameError(f"{name} can't be decoded: the JPEG is damaged")
    return pixels.astype(np.uint8, copy=False)


def _upright(pixels: NDArray[np.uint8], orientation: Any) -> NDArray[np.uint8]:
    """Undo the camera's rotation: Exif 2.32, table of tag 274."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _pixels(picture: Any) -> NDArray[np.uint8]:
    """A Pillow picture of any mode as RGB or RGBA."""
    if picture.mode.startswith(("I", "F")):
        wide = np.asarray(picture)
        if picture.mode == "F":
            raise FrameError("float pictures have no agreed range; convert it, or use Frame.from_array")
        gray = (np.clip(wide, 0, 65535) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(gray[:, :, None], 3, axis=2))
    clear = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    return np.ascontiguousarray(picture.convert("RGBA" if clear else "RGB"), np.uint8)
