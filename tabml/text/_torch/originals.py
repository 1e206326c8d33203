"""The memory that a model's weights were mapped in, given back while packed copies take their place.

Without that a model that is packed needs twice its size while it is loaded: what is mapped of a file goes only with the
whole file, and one small tensor that isn't packed keeps all of it.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tabml.files import MemoryFile

Span = tuple[int, int]
"""Addresses: the first, and the one behind the last."""
_DONTNEED = 4
_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+) +/", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Mapping:
    """A part of a file in this process's memory."""

    begin: int
    end: int
    offset: int
    inode: int


class Originals:
    """Where the tensors of a model lie that was just read."""

    def __init__(self, model: nn.Module, files: Sequence[MemoryFile] = ()) -> None:
        """Looks where they are.

        Args:
            model: Unchanged since its files were mapped.
            files: Those that are this model's alone, whose memory can go back to the system. Of all others it is only
                no longer this process's.
        """
        self._files = {file.inode: file for file in files}
        self._mappings = _mappings()
        self._begins = [mapping.begin for mapping in self._mappings]
        self._alone = _alone(
            span_of(tensor)
            for layer in model.modules()
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        )

    def release(self, span: Span) -> None:
        """Give back whole pages of a tensor that nobody uses any more; not those that another tensor lies in too."""
        if span not in self._alone:
            return
        mapping = self._mapping(span)
        begin = -(-span[0] // mmap.PAGESIZE) * mmap.PAGESIZE
        end = span[1] // mmap.PAGESIZE * mmap.PAGESIZE
        if mapping is None or end <= begin:
            return
        file = self._files.get(mapping.inode)
        if file is not None:
            file.drop(begin - mapping.begin + mapping.offset, end - mapping.begin + mapping.offset)
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONTNEED)

    def _mapping(self, span: Span) -> _Mapping | None:
        at = bisect_right(self._begins, span[0]) - 1
        if at < 0 or span[1] > self._mappings[at].end:
            return None
        return self._mappings[at]


def span_of(tensor: torch.Tensor) -> Span:
    """Where a tensor's values lie."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.element_size() if tensor.numel() else begin


def _mappings() -> list[_Mapping]:
    """Files in this process's memory, by address; none where the system doesn't tell."""
    with suppress(OSError):
        found = _LINE.findall(Path("/proc/self/maps").read_text("utf-8", "replace"))
        return [
            _Mapping(int(begin, 16), int(end, 16), int(offset, 16), int(inode)) for begin, end, offset, inode in found
        ]
    return []


def _alone(spans: Iterable[Span]) -> frozenset[Span]:
    """Those that overlap no other one."""
    ordered = sorted(spans)
    shared: set[Span] = set()
    widest = (0, 0)
    for span in ordered:
        if span[0] < widest[1]:
            shared |= {span, widest}
        widest = max(widest, span, key=lambda each: each[1])
    return frozenset(ordered) - shared
