"""A first run of an unknown .tflite file, in a process that may die.

A file whose tables are sound may still hold an operator that reads or writes where it must not: of those with flipped
bits in their tables one in two hundred ends the process. Every such file that is known shows it when it gets its memory
or runs once. A process of its own, started with the first unknown file (0.2 s) and gone when it had nothing to do for a
while, has LiteRT in memory and copies itself for each file (15 ms, and two runs). It is no sandbox: it survives
accidents, not attackers.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from tabml._children import paths_for_child
from tabml.cancellation import current_cancellation
from tabml.errors import CapacityError, CorruptModelError, ModelLoadError, OptionError

_START_S, _BYTES_A_SECOND = 20.0, 20 << 20
_LOOK_S = 0.05
_IDLE_S = 30.0
_LONGEST = 8 << 20

Shapes = Mapping[str, tuple[int, ...]]


class _DiedError(CorruptModelError):
    """The child is gone without a word."""


def try_model(
    content: bytes | memoryview, *, signature: int | None = None, shapes: Shapes | None = None, threads: int = 1
) -> None:
    """Load a file and run each of its signatures, in a child process that has 3 GiB and 20 s, and more for large files.

    Args:
        content: The file; its tables have been checked.
        signature: Only the signature of this number; all when None.
        shapes: Of inputs, where they should be other than the file's.
        threads: That share one run.

    Raises:
        CorruptModelError: the child died of it, or didn't end.
        ModelLoadError: LiteRT refused it, or the child can't run.
        OptionError: LiteRT can't run it with these shapes, dies of them, or needs too much memory or time.
        CapacityError: no process can be started.
        CallCancelledError: the current cancellation was set.
    """
    order = {"do": "try", "signature": signature, "shapes": dict(shapes or {}), "threads": threads}
    try:
        said = in_child(content, order)
    except CorruptModelError as problem:
        if shapes is None:
            raise
        memory = ", with 3 GiB of memory" if isinstance(problem, _DiedError) else ""
        raise OptionError(f"with the shapes {dict(shapes)} {problem}{memory}") from None
    if "refused" in said:
        refused = str(said["refused"])[:400]
        if shapes is not None:
            raise OptionError(f"{refused} (in a process with 3 GiB of memory)")
        raise ModelLoadError(refused)


def in_child(content: bytes | memoryview, order: Mapping[str, Any]) -> dict[str, Any]:
    """What the child process answers to one order over one file.

    Raises:
        CorruptModelError: the child died of it, or didn't end.
        ModelLoadError: the child can't run.
        CapacityError: no process can be started.
        CallCancelledError: the current cancellation was set.
    """
    limit = _START_S + len(content) / _BYTES_A_SECOND
    for _ in range(2):  # the first may have gone while it was asked
        began = time.monotonic()
        with _resident().ask(content, {**order, "limit": limit}) as answer:
            found = _heard(answer, limit, began)
        if found is not None:
            return found
    raise CapacityError("no process can be started to try the model")


def _heard(answer: socket.socket, limit: float, began: float) -> dict[str, Any] | None:
    """The child's answer: its number first, and the rest when it is done. None when there is no child."""
    cancellation = current_cancellation()
    said, end = bytearray(), began + limit + 5  # by then it has ended itself
    answer.settimeout(_LOOK_S)
    while time.monotonic() < end:
        if cancellation is not None and cancellation.cancelled:
            _kill(said)
            cancellation.check()
        try:
            chunk = answer.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            break
        if not chunk or len(said) > _LONGEST:
            break
        said += chunk
    number, _, rest = bytes(said).partition(b"\n")
    try:
        found = json.loads(rest)
    except ValueError:
        _kill(said)
        if not number:
            return None
        if time.monotonic() >= began + limit:
            raise CorruptModelError(f"LiteRT did not end with it in {limit:.0f} s") from None
        raise _DiedError("LiteRT dies of it; it was tried in a process of its own") from None
    return dict(found)


def _kill(said: bytearray) -> None:
    number = bytes(said).partition(b"\n")[0]
    if number.isdigit():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(int(number), signal.SIGKILL)


class _Resident:
    """The process that has LiteRT in memory."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        try:
            ours, theirs = socket.socketpair()
        except OSError as problem:
            raise CapacityError(f"no process can be started to try the model: {problem}") from None
        code = f"from tabml._litert.probe import serve; serve({theirs.fileno()}, {_IDLE_S})"
        try:
            with theirs:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-c", code],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # an interrupt at the terminal is not for it
                    env={
                        **os.environ,
                        "PYTHONPATH": paths_for_child(),
                        "OPENBLAS_NUM_THREADS": "1",
                        "OMP_NUM_THREADS": "1",
                    },
                )
        except OSError as problem:
            ours.close()
            raise CapacityError(f"no process can be started to try the model: {problem}") from None
        self._line = ours

    @property
    def alive(self) -> bool:
        """Whether it can be asked; ends what is left of it when it can't."""
        return self.owner == os.getpid() and self._child.poll() is None

    def ask(self, content: bytes | memoryview, order: Mapping[str, Any]) -> socket.socket:
        """Where the answer will come; nothing comes when the process is gone.

        Raises:
            CapacityError: there are no descriptors or no memory left.
        """
        words = json.dumps(order).encode()
        with ExitStack() as stack:
            try:
                ours, theirs = map(stack.enter_context, socket.socketpair())
                file = stack.enter_context(open(os.memfd_create("tabml-model", os.MFD_CLOEXEC), "wb"))
                file.write(content)
                file.flush()
            except OSError as problem:
                raise CapacityError(f"the model can't be tried in a process of its own: {problem}") from None
            try:
                parts = [len(words).to_bytes(4, "little") + words]
                socket.send_fds(self._line, parts, [file.fileno(), theirs.fileno()])
            except OSError:  # it ended
                self.end()
            return socket.socket(fileno=ours.detach())

    def end(self) -> None:
        """Let it go."""
        self._line.close()
        if self.owner == os.getpid():
            self._child.kill()
            self._child.wait()


_lock = threading.Lock()
_current: list[_Resident] = []


@atexit.register
def _end() -> None:
    while _current:
        _current.pop().end()


def _resident() -> _Resident:
    with _lock:
        if _current and not _current[0].alive:
            _current.pop().end()
        if not _current:
            _current.append(_Resident())
        return _current[0]


def serve(line: int, idle_s: float) -> None:
    """The resident: one copy of itself for each order, until nobody has one."""
    import select

    from tabml._litert import graph  # noqa: F401
    from tabml._litert.trial import answer

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # copies leave nothing behind
    with socket.socket(fileno=line) as orders:
        while select.select([orders], [], [], idle_s)[0]:
            head, files, _, _ = socket.recv_fds(orders, 4, 2)
            if len(head) < 4 or len(files) != 2:
                break
            length, words = int.from_bytes(head, "little"), b""
            while len(words) < length:
                words += orders.recv(length - len(words))
            if not os.fork():
                orders.close()
                os._exit(answer(json.loads(words), *files))
            for file in files:
                os.close(file)
