"""A first load of an unknown file in a process that may die, for libraries that end the whole process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tabml._children import paths_for_child
from tabml.cancellation import current_cancellation
from tabml.errors import CapacityError, CorruptModelError, ModelLoadError, TabmlError

_START_S = 30.0
_BYTES_A_SECOND = 50 << 20
_LOOK_S = 0.01
_REFUSED = 3


def try_in_child(module: str, path: Path, name: str, *arguments: str, library: str) -> None:
    """Call ``main()`` of a module in a child process, with the path, the name and the arguments as its ``sys.argv``.

    Args:
        module: Its ``main`` calls :func:`report`.
        path: The file that is tried.
        name: For messages.
        arguments: What else ``main`` needs.
        library: For messages.

    Raises:
        CorruptModelError: the child died of it, or didn't end.
        ModelLoadError: the library refused it, or the child can't run.
        CapacityError: no process can be started.
        CallCancelledError: the current cancellation was set.
    """
    with tempfile.TemporaryDirectory(prefix="tabml-") as folder:  # a child that dies leaves its own behind
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {module} import main; main()", str(path), name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "PYTHONPATH": paths_for_child(),
                    "TMPDIR": folder,
                },
            )
        except OSError as problem:
            raise CapacityError(f"no process can be started to try {name}: {problem}") from None
        with child:
            _wait(child, path, name, library)
            said = child.stdout.read().decode(errors="replace") if child.stdout is not None else ""
    if child.returncode == _REFUSED:
        raise ModelLoadError(said[:400])
    if child.returncode > 0:
        reason = f": {said[:300]}" if said else ""
        raise ModelLoadError(f"{name}: it can't be tried in a process of its own (status {child.returncode}){reason}")
    if child.returncode < 0:
        raise CorruptModelError(
            f"{name}: {library} dies of it (signal {-child.returncode}); it was tried in a process of its own"
        )


def _wait(child: subprocess.Popen[bytes], path: Path, name: str, library: str) -> None:
    """Until it has ended; longer than the file may take, or when the call is cancelled, it is killed."""
    cancellation = current_cancellation()
    most = _START_S + path.stat().st_size / _BYTES_A_SECOND
    end = time.monotonic() + most
    try:
        while child.poll() is None:
            if cancellation is not None:
                cancellation.check()
            if time.monotonic() > end:
                raise CorruptModelError(f"{name}: {library} did not end with it in {most:.0f} s; it was not used")
            time.sleep(_LOOK_S)
    finally:
        child.kill()


def report(trial: Callable[[], None]) -> None:
    """In the child: do it, and end the process with what came of it; without core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        trial()
    except TabmlError as problem:
        os.write(1, str(problem).encode())
        os._exit(_REFUSED)
    except Exception as problem:
        os.write(1, f"{type(problem).__name__}: {problem}".encode(errors="replace"))
        os._exit(1)
    os._exit(0)
