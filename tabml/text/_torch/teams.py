"""OpenMP's threads: each thread that computes with torch gets a team, which stays when the work is done.

libgomp's threads spin between two products while all teams together have no more threads than there are cores. Beyond that
they sleep, and are woken for every product: a token of a small model then takes twice as long. So whoever has loaded a model,
or waits for the next prompt, lets its team go; the next product makes a new one in a tenth of a millisecond.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

_SOFT = 1


def disband() -> None:
    """End the threads that share this thread's products, where torch's libgomp is found."""
    pause = _pause()
    if pause is not None:
        pause(_SOFT)


@cache
def _pause() -> ctypes._NamedFuncPointer | None:
    """``omp_pause_resource_all`` (OpenMP 5.0, 3.2.44) of the library that torch brings."""
    try:
        found = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libgomp.so.1")).omp_pause_resource_all
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = (ctypes.c_int,), ctypes.c_int
    return found
