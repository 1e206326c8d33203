"""Model files nobody vouches for: their tables are checked, and then they are tried in a process that may die."""

from __future__ import annotations

import threading

from tabml._litert.bundle import graphs_in
from tabml._litert.check import check_tflite
from tabml._litert.probe import try_model
from tabml.errors import CorruptModelError, ModelLoadError, UnsafeModelError

_MOST_KEPT = 1024
_tried: dict[str, None] = {}
_lock = threading.Lock()


def check_unknown(file: bytes | memoryview, *, sha256: str, name: str) -> None:
    """Nothing, when each .tflite file in a model file is sound and has run in another process; once for each file.

    Args:
        file: A .tflite file or a .task bundle.
        sha256: Its checksum.
        name: For messages.

    Raises:
        CorruptModelError: it is neither, is cut short, contradicts itself, or LiteRT dies of it.
        ModelLoadError: LiteRT refused it.
        UnsafeModelError: it wants weights out of other files.
        CapacityError: no process can be started.
        CallCancelledError: the current cancellation was set.
    """
    with _lock:
        if sha256 in _tried:
            return
    where = name
    try:
        for inside, graph in graphs_in(file):
            where = f"{name}: {inside}" if inside else name
            check_tflite(graph)
            try_model(graph)
    except (CorruptModelError, ModelLoadError, UnsafeModelError) as problem:
        raise type(problem)(f"{where}: {problem}; it was not used") from problem
    with _lock:
        while len(_tried) >= _MOST_KEPT:
            del _tried[next(iter(_tried))]
        _tried[sha256] = None
