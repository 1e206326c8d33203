"""Tables of a flatbuffer, read out of bytes that nobody vouches for: no offset is followed that leads out of them.

Source: the FlatBuffers binary format, https://flatbuffers.dev/internals. A table begins with the signed distance back
to its vtable; a vtable is its own length, the length of the table's fixed part, and where in it each field lies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import CorruptModelError

_INT32, _UINT32, _PAIR = struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<HH")
_SCALARS = {kind: struct.Struct(f"<{kind}") for kind in "?bBhHiIqQfd"}
MAX_TABLES = 400_000
"""Of one file: the largest language models have a tenth of it, and each takes some microseconds."""
MAX_VECTOR_BYTES = 64 << 20
"""Of all vectors that are read, weights aside, and an eighth of the file's length: many tables may lead to one."""


class Flatbuffer:
    """The bytes, and how many of their tables have been looked at."""

    def __init__(self, content: bytes | memoryview) -> None:
        self.content = content
        self.size = len(content)
        self._left, self._left_bytes = MAX_TABLES, MAX_VECTOR_BYTES + len(content) // 8
        self._vtables: dict[int, tuple[tuple[int, ...], int]] = {}

    def root(self) -> Table:
        """The table that the first four bytes lead to."""
        return self.table(0)

    def table(self, at: int) -> Table:
        """The table that the offset at a place leads to."""
        return Table(self, at + self.word(at))

    def word(self, at: int) -> int:
        """The unsigned number of four bytes at a place."""
        self.within(at, 4)
        return int(_UINT32.unpack_from(self.content, at)[0])

    def within(self, at: int, length: int) -> None:
        """Nothing, when these bytes are inside of the file.

        Raises:
            CorruptModelError: they aren't.
        """
        if at < 0 or length < 0 or at + length > self.size:
            raise CorruptModelError(f"an offset leads to {length} bytes at {at} of a file of {self.size} bytes")

    def read(self, length: int) -> None:
        """Count these bytes as read.

        Raises:
            CorruptModelError: there were too many.
        """
        self._left_bytes -= length
        if self._left_bytes < 0:
            raise CorruptModelError("its tables lead to the same bytes again and again")

    def fields(self, at: int) -> tuple[tuple[int, ...], int]:
        """Where the fields of the table at a place lie, 0 for those it hasn't; and how long its fixed part is."""
        self._left -= 1
        if self._left < 0:
            raise CorruptModelError(f"it has more than {MAX_TABLES} tables")
        self.within(at, 4)
        vtable = at - int(_INT32.unpack_from(self.content, at)[0])
        found = self._vtables.get(vtable)
        if found is None:
            self.within(vtable, 4)
            length, fixed = _PAIR.unpack_from(self.content, vtable)
            if length < 4 or length % 2 or vtable % 2 or fixed < 4:
                raise CorruptModelError(f"what a table at {at} is described by, at {vtable}, is no description")
            self.within(vtable, length)
            places = struct.unpack_from(f"<{length // 2 - 2}H", self.content, vtable + 4)
            found = self._vtables[vtable] = places, fixed
        self.within(at, found[1])
        return found


class Table:
    """One table; every read stays within the file, and within the table's own fixed part."""

    __slots__ = ("_at", "_buffer", "_fixed", "_places")

    def __init__(self, buffer: Flatbuffer, at: int) -> None:
        self._buffer, self._at = buffer, at
        self._places, self._fixed = buffer.fields(at)

    def _place(self, field: int, size: int) -> int:
        """Where a field lies, 0 when the table hasn't got it."""
        inside = self._places[field] if field < len(self._places) else 0
        if not inside:
            return 0
        if inside < 4 or inside + size > self._fixed:
            raise CorruptModelError(f"field {field} of the table at {self._at} lies outside of it")
        return self._at + inside

    def number(self, field: int, kind: str, default: Any = 0) -> Any:
        """A scalar; ``kind`` is its character of :mod:`struct`."""
        scalar = _SCALARS[kind]
        at = self._place(field, scalar.size)
        return scalar.unpack_from(self._buffer.content, at)[0] if at else default

    def has(self, field: int) -> bool:
        """Whether the table has the field."""
        return bool(self._place(field, 1))

    def table(self, field: int) -> Table | None:
        """A table of its own."""
        at = self._place(field, 4)
        return self._buffer.table(at) if at else None

    def vector(self, field: int, size: int) -> tuple[int, int] | None:
        """Where a vector's elements begin, and how many there are; ``size`` is an element's, in bytes."""
        at = self._place(field, 4)
        if not at:
            return None
        at += self._buffer.word(at)
        count = self._buffer.word(at)
        self._buffer.within(at + 4, count * size)
        return at + 4, count

    def _read(self, field: int, size: int) -> tuple[int, int] | None:
        """The same, of a vector whose elements are looked at."""
        found = self.vector(field, size)
        if found is not None:
            self._buffer.read(size * found[1])
        return found

    def numbers(self, field: int, dtype: str) -> NDArray[Any] | None:
        """A vector of scalars, as a view; None when there is none."""
        kind = np.dtype(dtype)
        found = self._read(field, kind.itemsize)
        return None if found is None else np.frombuffer(self._buffer.content, kind, found[1], found[0])

    def whole(self, field: int) -> tuple[int, ...]:
        """A vector of signed numbers of four bytes; empty when there is none."""
        found = self._read(field, 4)
        return struct.unpack_from(f"<{found[1]}i", self._buffer.content, found[0]) if found is not None else ()

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables; empty when there is none."""
        found = self._read(field, 4)
        if found is not None:
            start, count = found
            for at in range(start, start + 4 * count, 4):
                yield self._buffer.table(at)

    def count(self, field: int) -> int:
        """How many tables a vector of tables has."""
        found = self.vector(field, 4)
        return 0 if found is None else found[1]

    def content(self, field: int) -> bytes | None:
        """A string's or a byte vector's bytes; None when there is none."""
        found = self._read(field, 1)
        return None if found is None else bytes(self._buffer.content[found[0] : found[0] + found[1]])

    def text(self, field: int) -> str:
        """A string, its faulty characters replaced; empty when there is none."""
        return (self.content(field) or b"").decode("utf-8", "replace")
