"""What a H.264 stream says about its own order: a picture that is missing leaves a gap in ``frame_num``.

FFmpeg conceals such a gap and goes on painting. Sections and tables are those of ITU-T H.264.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SLICE, _IDR, _SPS, _PPS = 1, 5, 7, 8
"""Kinds of units (table 7-1)."""
_WITH_CHROMA = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
"""Profiles whose SPS has the fields of section 7.3.2.1.1."""
_ENOUGH = 512
"""Bytes of a unit that hold all that is read here."""


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What is read of an SPS."""

    bits: int
    """Of ``frame_num``."""
    planes: bool
    """Whether slices name a colour plane."""
    gaps: bool
    """Whether numbers may be left out on purpose."""


class FrameNumbers:
    """Follows ``frame_num`` from picture to picture."""

    def __init__(self) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._of_pictures: dict[int, int] = {}
        self._last: int | None = None

    def missing(self, chunk: bytes) -> bool:
        """Whether a picture that this access unit builds on has not been here; False where nothing can be said."""
        gap = False
        try:
            for unit in units(chunk):
                gap |= self._follow(unit)
        except (IndexError, KeyError):  # cut short, or of an SPS that never came: the decoder's business
            self._last = None
            return False
        return gap

    def _follow(self, unit: bytes) -> bool:
        kind = unit[0] & 31
        if kind == _SPS:
            number, found = _sequence(unit)
            self._sequences[number] = found
        elif kind == _PPS:
            bits = _Bits(unit)
            self._of_pictures[bits.golomb()] = bits.golomb()
        elif kind in (_SLICE, _IDR):
            bits = _Bits(unit)
            bits.golomb()  # first_mb_in_slice
            bits.golomb()  # slice_type
            sequence = self._sequences[self._of_pictures[bits.golomb()]]
            bits.take(2 * sequence.planes)
            number, last = bits.take(sequence.bits), self._last
            if kind == _IDR or unit[0] & 96:  # others are not built on
                self._last = number
            if kind == _SLICE and last is not None and not sequence.gaps:
                return (number - last) % (1 << sequence.bits) > 1  # section 7.4.3
        return False


def units(chunk: bytes) -> Iterator[bytes]:
    """The beginnings of the units of an access unit in Annex B, without start codes."""
    at = chunk.find(b"\0\0\1")
    while 0 <= at < len(chunk) - 3:
        after = chunk.find(b"\0\0\1", at + 3)
        unit = chunk[at + 3 : min(at + 3 + _ENOUGH, after if after >= 0 else len(chunk))]
        if unit:
            yield unit
        at = after


def _sequence(unit: bytes) -> tuple[int, _Sequence]:
    """The number of an SPS, and what it says (section 7.3.2.1.1)."""
    bits = _Bits(unit)
    profile, _ = bits.take(8), bits.take(16)
    number, planes = bits.golomb(), False
    if profile in _WITH_CHROMA:
        chroma = bits.golomb()
        planes = chroma == 3 and bool(bits.take(1))
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling(bits, 16 if index < 6 else 64)
    width = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(min(bits.golomb(), 256)):
            bits.golomb()
    bits.golomb()  # max_num_ref_frames
    return number, _Sequence(min(width, 16), planes, bool(bits.take(1)))


def _skip_scaling(bits: _Bits, size: int) -> None:
    """Section 7.3.2.1.1.1."""
    last = following = 8
    for _ in range(size):
        if following:
            coded = bits.golomb()
            following = (last + (-(coded // 2) if coded % 2 == 0 else coded // 2 + 1)) % 256
        last = following or last


class _Bits:
    """Bits of a unit behind its first byte; IndexError where there are no more."""

    def __init__(self, unit: bytes) -> None:
        plain = unit[1:].replace(b"\0\0\3", b"\0\0")  # section 7.4.1: emulation prevention
        self._number, self._left = int.from_bytes(plain), 8 * len(plain)

    def take(self, count: int) -> int:
        """So many bits as a number."""
        if count > self._left:
            raise IndexError(count)
        self._left -= count
        return self._number >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number (section 9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise IndexError(zeros)
        return (1 << zeros) - 1 + self.take(zeros)
