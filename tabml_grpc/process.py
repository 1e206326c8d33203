"""The life of the child process: pipes that nobody reads, a parent that may die, memory that should go back."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_MIB = 1 << 20
_POLL_S = 0.2


def never_block(descriptor: int) -> None:
    """Have writes to a pipe or socket fail instead of waiting for a reader that never reads."""
    with suppress(OSError):
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            os.set_blocking(descriptor, False)


def detach_stdin() -> None:
    """Put /dev/null in the place of stdin: it may be somebody's protocol stream."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)


def keep_stdout_for_one_line() -> int:
    """A private descriptor of stdout; what writes to descriptor 1 from now on goes to stderr.

    The pipe stays open: a parent that waits for its end learns of the child's death.
    """
    private = os.dup(1)
    os.set_inheritable(private, False)
    os.dup2(2, 1)
    return private


def tune_allocator() -> None:
    """Keep buffers of a frame's size for the next frame instead of asking the kernel each time (glibc).

    Must come before ``import grpc``: measured, the largest single gain of the server.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 16 * _MIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
        libc.mallopt(_M_TOP_PAD, 8 * _MIB)
        if "MALLOC_ARENA_MAX" not in os.environ:
            libc.mallopt(_M_ARENA_MAX, 2)  # malloc_trim leaves the tops of further ones alone


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """:func:`asyncio.run`, by uvloop where there is one: a small call takes a fifth less."""
    import asyncio

    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):  # on Windows
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def settle() -> None:
    """Have the garbage collector look no more at what is there now: libraries and loaded models.

    With torch and transformers they are 400,000 objects, which takes it 0.3 seconds each time, and nobody else runs
    meanwhile. What is thrown away of them is found by :func:`return_memory`.
    """
    gc.freeze()


def return_memory() -> None:
    """Give what is free back to the system (glibc)."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def rss_bytes() -> int:
    """Resident memory of this process."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_rss_bytes()


def peak_rss_bytes() -> int:
    """The most resident memory this process ever had."""
    # Before getrusage, whose figure begins with that of the process that started this one.
    with suppress(OSError, ValueError, IndexError), open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def open_descriptors() -> int:
    """How many descriptors are open; 0 where the system doesn't tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def threads() -> int:
    """How many threads there are, native ones included where the system tells."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def watch_parent(gone: Callable[[], None]) -> None:
    """Call ``gone`` from a thread of its own once the process that started this one is dead.

    By a pidfd where there is one, by asking for the parent's id elsewhere; never by PR_SET_PDEATHSIG, which fires
    when the *thread* that started us ends.
    """
    parent = os.getppid()

    def by_descriptor(descriptor: int) -> None:
        select.select([descriptor], [], [])
        gone()

    def by_asking() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        gone()

    target: Callable[[], None] = by_asking
    with suppress(OSError, AttributeError):
        descriptor = os.pidfd_open(parent)
        if os.getppid() == parent:

            def target() -> None:
                by_descriptor(descriptor)

    threading.Thread(target=target, name="parent-watch", daemon=True).start()


def watch_stdin(ended: Callable[[], object]) -> None:
    """Call ``ended`` from a thread of its own once stdin has ended; what comes before is thrown away."""

    def read() -> None:
        with suppress(OSError):
            while os.read(0, 65536):
                pass
        ended()

    threading.Thread(target=read, name="stdin-watch", daemon=True).start()
