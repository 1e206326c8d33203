"""Pictures and sounds of a message, as files that LiteRT-LM reads."""

from __future__ import annotations

import base64
import hashlib
import io
import wave
from dataclasses import dataclass

import numpy as np

from tabml.edge.prepared import Picture
from tabml.errors import MissingExtraError, OptionError

RATE = 16_000
_MAX_PARTS, _MAX_BYTES = 64, 256 << 20
_MAX_SIDE, _MAX_SECONDS = 8192, 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A picture or a sound."""

    kind: str
    """``image`` or ``audio``."""
    blob: str
    """The file, in base64."""
    digest: bytes
    """SHA-256 of the file: equal parts have been read already."""

    def to_native(self) -> dict[str, str]:
        """As LiteRT-LM takes it."""
        return {"type": self.kind, "blob": self.blob}


def part_of(kind: str, value: object) -> Part:
    """A picture as PNG, a sound as WAV of 16 bits.

    Args:
        kind: ``image`` or ``audio``.
        value: RGB of uint8 with shape (height, width, 3), or what gives it by ``to_rgb``; or float32 with shape
            (samples,), 16 kHz.

    Raises:
        OptionError: it isn't one.
        MissingExtraError: Pillow is not installed.
    """
    file = _png(value) if kind == "image" else _wav(value)
    return Part(kind=kind, blob=base64.b64encode(file).decode(), digest=hashlib.sha256(file).digest())


def add_part(parts: list[Part], kind: str, value: object) -> None:
    """Put a further picture or sound to those of a conversation.

    Raises:
        OptionError: it isn't one, or they are more than are taken.
        MissingExtraError: Pillow is not installed.
    """
    if len(parts) == _MAX_PARTS:
        raise OptionError(f"messages have more than {_MAX_PARTS} pictures and sounds")
    parts.append(part_of(kind, value))
    size = sum(len(part.blob) * 3 // 4 for part in parts)
    if size > _MAX_BYTES:
        raise OptionError(f"messages have {size} bytes of pictures and sounds; the limit is {_MAX_BYTES}")


def _png(picture: object) -> bytes:
    if isinstance(picture, Picture):
        picture = picture.to_rgb()
    if (
        not isinstance(picture, np.ndarray)
        or picture.dtype != np.uint8
        or picture.ndim != 3
        or picture.shape[2] != 3
        or not 1 <= min(picture.shape[:2]) <= max(picture.shape[:2]) <= _MAX_SIDE
    ):
        raise OptionError(
            f"image={_shown(picture)} must be an RGB array of uint8, (height, width, 3), at most {_MAX_SIDE} a side"
        )
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("vision", "pillow") from None
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def _wav(sound: object) -> bytes:
    if (
        not isinstance(sound, np.ndarray)
        or sound.dtype != np.float32
        or sound.ndim != 1
        or not 1 <= len(sound) <= _MAX_SECONDS * RATE
        or not np.isfinite(sound).all()
    ):
        raise OptionError(
            f"audio={_shown(sound)} must be an array of finite float32, (samples,), 16 kHz, at most an hour"
        )
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return sink.getvalue()


def _shown(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
