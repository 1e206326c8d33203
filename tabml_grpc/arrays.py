"""Arrays as bytes of messages: laid out at once by numpy, where one message for each number would be slow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def packed(field: int, array: Float32, rest: bytes = b"") -> bytes:
    """A ``repeated float`` field as bytes of a message, or a ``bytes`` field that holds them; then the message's rest."""
    floats = np.ascontiguousarray(array, "<f4")
    return b"".join((_head(field, floats.nbytes), floats.data, rest))


def nested(field: int, content: bytes) -> bytes:
    """The bytes of a message as a field of another."""
    return _head(field, len(content)) + content


def packed_rows(field: int, inner: int, array: Float32, rest: bytes) -> bytes:
    """A repeated message field whose messages have one ``repeated float`` each, by its number; then the rest."""
    count, width = array.shape
    head = _head(inner, 4 * width)
    head = _head(field, len(head) + 4 * width) + head
    rows = np.empty((count, len(head) + 4 * width), np.uint8)
    rows[:, : len(head)] = np.frombuffer(head, np.uint8)
    rows[:, len(head) :] = np.ascontiguousarray(array, "<f4").view(np.uint8)
    return b"".join((rows.data, rest))


def _head(field: int, length: int) -> bytes:
    """What stands before so many bytes."""
    return _varint(field << 3 | 2) + _varint(length)


@cache
def _landmark_template(field: int, values: int) -> NDArray[np.uint8]:
    row = [field << 3 | 2] if field < 16 else list(_varint(field << 3 | 2))
    row.append(5 * values)
    for number in range(1, values + 1):
        row += [number << 3 | 5, 0, 0, 0, 0]
    return np.array(row, np.uint8)


def landmark_messages(field: int, values: Float32) -> bytes:
    """``repeated Landmark`` as bytes of the message that has it; shape (n, 3) or (n, 5)."""
    count, width = values.shape
    template = _landmark_template(field, width)
    rows = np.tile(template, (count, 1))
    head = len(template) - 5 * width
    floats = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(count, width, 4)
    rows[:, head:].reshape(count, width, 5)[:, :, 1:] = floats
    return rows.tobytes()


def columns(messages: Any, names: Sequence[str]) -> Float32:
    """Fields of messages as columns, read-only."""
    return frozen(np.array([[getattr(each, name) for name in names] for each in messages], np.float32))


def table(values: Any, width: int) -> Float32:
    """A repeated field row by row, read-only."""
    return frozen(np.array(values, np.float32).reshape(-1, width))


def frozen(array: Float32) -> Float32:
    """The array, read-only from now on."""
    array.flags.writeable = False
    return array
