"""Chrome's native messaging: JSON with its length before it, pixels as base64.

The protocol: https://developer.chrome.com/docs/extensions/develop/concepts/native-messaging. Chrome takes messages of at most 1 MiB
from a host, and sends at most 64 MiB.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from tabml.errors import FrameError, StreamFormatError
from tabml.vision.frame import Frame

MOST_TO_CHROME = 1 << 20
"""Bytes of one message from a host."""
MOST_FROM_CHROME = 64 << 20
"""Bytes of one message to a host."""
_LENGTH = struct.Struct("=I")  # of the machine's own byte order


def read_messages(stream: BinaryIO, *, max_bytes: int = MOST_FROM_CHROME) -> Iterator[Any]:
    """The messages of a stream, until it ends.

    Args:
        stream: Such as ``sys.stdin.buffer``.
        max_bytes: Of one message; :data:`MOST_TO_CHROME` where a host's messages are read.

    Raises:
        StreamFormatError: a message is too long, cut short, or no JSON. The stream can't be read further.
    """
    while True:
        head = _exactly(stream, _LENGTH.size)
        if not head:
            return
        if len(head) < _LENGTH.size:
            raise StreamFormatError("the stream ends within the length of a message")
        (size,) = _LENGTH.unpack(head)
        if size > max_bytes:
            raise StreamFormatError(f"a message of {size} bytes is announced; {max_bytes} is the most")
        content = _exactly(stream, size)
        if len(content) < size:
            raise StreamFormatError(f"the stream ends after {len(content)} of a message's {size} bytes")
        try:
            yield json.loads(content)
        except (ValueError, RecursionError) as problem:
            raise StreamFormatError(f"a message is no JSON: {str(problem)[:200]}") from None


def write_message(stream: BinaryIO, message: Any, *, max_bytes: int = MOST_TO_CHROME) -> None:
    """Write one message; nothing of it where it can't be written whole.

    Args:
        stream: Such as ``sys.stdout.buffer``; flushed.
        message: What JSON can say.
        max_bytes: Of the message; :data:`MOST_FROM_CHROME` where Chrome's part is played.

    Raises:
        StreamFormatError: it is too long, or JSON can't say it.
    """
    try:
        content = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise StreamFormatError(f"the message can't be written as JSON: {str(problem)[:200]}") from None
    if len(content) > max_bytes:
        raise StreamFormatError(f"the message has {len(content)} bytes; {max_bytes} is the most: send less, or smaller")
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def frame_from_message(message: Any) -> Frame:
    """The frame of a message: ``data`` (base64), and what :meth:`tabml.vision.Frame.from_named` takes.

    Raises:
        FrameError: it is not such a message, or no picture.
    """
    if not isinstance(message, dict) or not isinstance(message.get("data"), str):
        raise FrameError("message must be an object with data, a base64 text")
    numbers: dict[str, Any] = {}
    for name in ("width", "height", "timestamp_ms", "frame_number"):
        value = message.get(name, 0 if name in ("width", "height") else None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise FrameError(f"{name}={value!r:.40} must be a whole number")
        numbers[name] = value
    format = message.get("format", "")
    if not isinstance(format, str):
        raise FrameError(f"format={format!r:.40} must be a text")
    try:
        data = base64.b64decode(message["data"], validate=True)
    except (binascii.Error, ValueError) as problem:
        raise FrameError(f"data is no base64: {problem}") from None
    return Frame.from_named(data, format, **numbers)


def frame_to_message(frame: Frame, *, quality: int = 80) -> dict[str, Any]:
    """A frame as a message, as JPEG."""
    return {
        "data": base64.b64encode(frame.encode("jpeg", quality=quality)).decode(),
        "format": "jpeg",
        "width": frame.width,
        "height": frame.height,
        "timestamp_ms": frame.timestamp_ms,
        "frame_number": frame.frame_number,
    }


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, or fewer where the stream ends; memory grows with what comes, not with what is announced."""
    parts, missing = [], size
    while missing:
        part = stream.read(min(missing, 1 << 20))
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
