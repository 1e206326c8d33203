"""Redirects what one loaded ELF library imports from libc, for that library alone.

MediaPipe has no switch for two habits: it posts a usage record to a log server from a thread of its own each
time a task closes, and it writes INFO lines to the process's stderr, as LiteRT does. Both leave a library through
symbols bound in its own import table, so an entry changed there changes nothing for anybody else.
(System V ABI, chapters 4 and 5: Elf64_Dyn, Elf64_Rela, Elf64_Sym; glibc's ``struct link_map``.)
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Mapping

LOG = "TABML_LOG"
"""Environment variable: set to anything but an empty string or ``off``, native log lines reach stderr."""

_PLTRELSZ, _STRTAB, _SYMTAB, _RELA, _RELASZ, _JMPREL, _RELACOUNT = 2, 5, 6, 7, 8, 23, 0x6FFFFFF9
_WORD = 8
_ENTRY = 24  # bytes of an Elf64_Sym and of an Elf64_Rela
_PROT_READ, _PROT_WRITE = 1, 2
_kept: list[object] = []  # what native code points at, for as long as the process lives


def redirect_imports(library: ctypes.CDLL, targets: Mapping[str, int]) -> set[str]:
    """Point the entries of ``library`` for the symbols ``targets`` at other addresses.

    Returns:
        The symbols redirected: all, fewer where the library doesn't import them, none on a system
        other than Linux with glibc and 64 bits.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32:
        return set()
    wanted = {name.encode(): address for name, address in targets.items()}
    found = set()
    for name, slot in _slots(library):
        if name in wanted and _write(slot, wanted[name]):
            found.add(name.decode())
    return found


def silence(library: ctypes.CDLL) -> None:
    """Give the library a stderr of its own that leads nowhere, unless ``TABML_LOG`` is set; the process keeps its own."""
    if os.environ.get(LOG, "").lower() not in ("", "off"):
        return
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    nowhere = ctypes.c_void_p(libc.fopen(os.devnull.encode(), b"we"))
    if nowhere.value:
        _kept.append(nowhere)
        redirect_imports(library, {"stderr": ctypes.addressof(nowhere)})


def libc_address(name: str) -> int:
    """Where libc keeps the function or variable ``name``."""
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _slots(library: ctypes.CDLL) -> Iterator[tuple[bytes, int]]:
    """The name of each imported symbol, and the address of the pointer to it."""
    base, _, entry = (_word(library._handle + offset * _WORD) for offset in range(3))  # struct link_map
    dynamic: dict[int, int] = {}
    while tag := _word(entry):
        dynamic[tag] = _word(entry + _WORD)
        entry += 2 * _WORD

    def address(tag: int) -> int:  # glibc relocates these in place, other loaders don't
        return dynamic[tag] if dynamic[tag] >= base else base + dynamic[tag]

    relative = dynamic.get(_RELACOUNT, 0) * _ENTRY  # those carry no symbol and come first
    tables = (
        (address(_JMPREL), dynamic[_PLTRELSZ]),
        (address(_RELA) + relative, dynamic[_RELASZ] - relative),
    )
    for start, length in tables:
        for at in range(start, start + length, _ENTRY):
            symbol = _word(at + _WORD) >> 32
            if symbol and not _word(at + 2 * _WORD):  # an entry with an addend is not a plain pointer
                name = ctypes.c_uint32.from_address(address(_SYMTAB) + symbol * _ENTRY).value
                yield ctypes.string_at(address(_STRTAB) + name), base + _word(at)


def _write(address: int, value: int) -> bool:
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    page = os.sysconf("SC_PAGE_SIZE")
    start = address - address % page
    guarded = not _is_writable(address)
    if guarded and libc.mprotect(start, page, _PROT_READ | _PROT_WRITE):
        return False
    ctypes.c_uint64.from_address(address).value = value
    if guarded:
        libc.mprotect(start, page, _PROT_READ)
    return True


def _is_writable(address: int) -> bool:
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            span, permissions, *_ = line.split(maxsplit=2)
            low, high = (int(edge, 16) for edge in span.split("-"))
            if low <= address < high:
                return permissions[1] == "w"
    return False
