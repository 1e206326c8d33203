"""GGUF files, by their header."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from tabml.text.checks.refusals import corrupt

_MAX_KEPT = 256 << 20
_MAX_LISTED = 4 << 20


_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LAYERS_TOO_MANY = 16
"""That have no tensors, because they were cut out of a model; each takes a library time."""
_LAYER = re.compile(r"(?:enc\.)?blk\.(\d{1,6})\.")
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""ggml's types: elements and bytes of a block (gguf 0.19, ``GGML_QUANT_SIZES``)."""


def check_gguf(path: Path, name: str, keep: Collection[str] = ()) -> dict[str, Any]:
    """A GGUF file, by its header; gives its metadata.

    Args:
        path: The file.
        name: For messages.
        keep: Keys whose lists are given too; of others only the length.

    Raises:
        CorruptModelError: header and file contradict each other.
    """
    with path.open("rb") as source:
        return _Gguf(source, name, keep).read()


class _Gguf:
    """Walks the header within bounds."""

    def __init__(self, source: BinaryIO, name: str, keep: Collection[str]) -> None:
        self._source, self._name, self._keep = source, name, keep
        self._size = os.fstat(source.fileno()).st_size
        self._layers: set[str] = set()
        self._kept = 0
        self._listed = 0

    def read(self) -> dict[str, Any]:
        if self._source.read(4) != b"GGUF":
            corrupt(self._name, "is not a GGUF file")
        version = self._number("<I")
        tensors, pairs = (self._number("<Q"), self._number("<Q")) if version in (2, 3) else (-1, -1)
        if not (0 <= tensors <= 100_000 and 0 <= pairs <= 100_000):
            corrupt(self._name, f"is of version {version} with {tensors} tensors and {pairs} values of metadata")
        found = {}
        for _ in range(pairs):
            key = self._text()
            if key in found:
                corrupt(self._name, f"has {key[:80]!r} twice")
            found[key] = self._value(self._number("<I"), whole=key in self._keep)
        alignment = found.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            corrupt(self._name, f"general.alignment={alignment!r:.40} must be a power of two")
        ends = [self._tensor(alignment) for _ in range(tensors)]
        layers = found.get(f"{found.get('general.architecture')}.block_count")
        parts = found.get("split.count", 1)
        is_good = type(layers) is int and len(self._layers) <= layers <= _LAYERS_TOO_MANY + 2 * len(self._layers)
        if layers is not None and not is_good and not (type(parts) is int and parts > 1):
            corrupt(self._name, f"block_count={layers!r:.40}, and there are tensors of {len(self._layers)} layers")
        begin = -(-self._source.tell() // alignment) * alignment
        if begin + max(ends, default=0) > self._size:
            corrupt(self._name, f"ends at byte {self._size}; its tensors need {begin + max(ends, default=0)}")
        return found

    def _bytes(self, count: int) -> bytes:
        if count > self._size:
            corrupt(self._name, f"is cut short: {count} bytes are missing")
        content = self._source.read(count)
        if len(content) != count:
            corrupt(self._name, "is cut short within its header")
        return content

    def _skip(self, count: int) -> None:
        if count <= 1 << 16:  # reading is quicker than seeking
            self._bytes(count)
        elif count > self._size - self._source.tell():
            corrupt(self._name, "is cut short within its header")
        else:
            self._source.seek(count, os.SEEK_CUR)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _text(self) -> str:
        length = self._number("<Q")
        if length > 64 << 20:
            corrupt(self._name, f"has a text of {length} bytes")
        self._kept += length
        if self._kept > _MAX_KEPT:
            corrupt(self._name, f"has more than {_MAX_KEPT} bytes of names and texts")
        return self._bytes(length).decode(errors="replace")

    def _value(self, kind: int, *, whole: bool) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            corrupt(self._name, f"has metadata of type {kind}")
        inner, count = self._number("<I"), self._number("<Q")
        if count > 16 << 20:
            corrupt(self._name, f"has a list of {count} values")
        if inner == _STRING or whole:
            self._listed += count
            if self._listed > _MAX_LISTED:
                corrupt(self._name, f"has lists of more than {_MAX_LISTED} values")
        if inner in _SCALARS:
            form = _SCALARS[inner]
            if whole:
                return [value for (value,) in struct.iter_unpack(form, self._bytes(count * struct.calcsize(form)))]
            self._skip(count * struct.calcsize(form))
        elif inner == _STRING:
            if whole:
                return [self._text() for _ in range(count)]
            for _ in range(count):
                self._skip(self._number("<Q"))
        else:
            corrupt(self._name, f"has a list of type {inner}")
        return count

    def _tensor(self, alignment: int) -> int:
        """Where it ends, from where tensors begin."""
        key = self._text()
        if layer := _LAYER.match(key):
            self._layers.add(layer[1])
        dimensions = self._number("<I")
        if dimensions > 4:
            corrupt(self._name, f"{key[:80]!r} has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        kind, offset = self._number("<I"), self._number("<Q")
        if kind not in _BLOCKS or any(not 1 <= each < 1 << 40 for each in shape):
            corrupt(self._name, f"{key[:80]!r} is of type {kind} and shape {shape!r:.60}")
        elements, size = _BLOCKS[kind]
        if offset % alignment:
            corrupt(self._name, f"{key[:80]!r} begins at byte {offset}, which is no multiple of {alignment}")
        if shape and shape[0] % elements:
            corrupt(self._name, f"{key[:80]!r}: rows of {shape[0]} are no whole blocks of {elements}")
        end: int = offset + math.prod(shape) // elements * size
        return end
