"""Log records that never block: one bounded write a line to stderr, a ring of the recent ones, a file on request."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_LINE = 4096
"""Bytes of a line: what a pipe takes whole or not at all (PIPE_BUF)."""
RING = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """One log record."""

    sequence: int
    """Grows by one."""
    time_ms: int
    """Unix time, milliseconds."""
    level: str
    """In small letters."""
    logger: str
    """Its name."""
    message: str
    """One line."""


class LogRing(logging.Handler):
    """Writes records to a descriptor without waiting, and keeps the recent ones."""

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._sequence = 0
        self._unsaid = 0
        self.dropped = 0
        """Lines that the reader of stderr was too slow for."""
        self.events: deque[Event] = deque(maxlen=RING)
        """The recent records."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each record, from any thread."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record and try to write it."""
        try:
            text = " ".join(record.getMessage().splitlines())
            if record.exc_info and record.exc_info[0] is not None:
                trace = logging.Formatter().formatException(record.exc_info)
                text += " | " + " / ".join(line.strip() for line in trace.splitlines())
        except Exception as problem:  # a record with arguments that don't fit
            text = f"a log record could not be formatted: {problem!r}"
        self._sequence += 1
        event = Event(
            self._sequence, int(record.created * 1000), record.levelname.lower(), record.name, text[:MAX_LINE]
        )
        self.events.append(event)
        self.write(f"{record.levelname.lower()} {record.name}: {text}")
        for listener in tuple(self.listeners):
            listener()

    def write(self, line: str) -> None:
        """One line, whole or not at all."""
        if self._unsaid:
            line = f"[{self._unsaid} lines dropped] {line}"
        content = line.encode(errors="replace")[: MAX_LINE - 1] + b"\n"
        try:
            os.write(self._descriptor, content)
            self._unsaid = 0
        except OSError:  # full, or nobody there
            self.dropped += 1
            self._unsaid += 1


class LogStream(io.TextIOBase):
    """Stands in for ``sys.stdout`` and ``sys.stderr``: what others print becomes log records."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._lock = threading.Lock()
        self._rest = ""

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Log each whole line."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            self._rest = self._rest[-MAX_LINE:]
        for line in lines:
            if line.strip():
                self._logger.info("%s", line)
        return len(text)


class LogFile(io.FileIO):
    """A log file: appended to, and given up when the disk is full."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "a")

    def write(self, content: ReadableBuffer, /) -> int:
        """As much as fits."""
        with suppress(OSError):
            return super().write(content) or 0
        return 0


def start_logging(level: str, path: str | None) -> LogRing:
    """Send all records to the ring and stderr, and to a file when given.

    Raises:
        OSError: the file can't be opened.
    """
    ring = LogRing()
    root = logging.getLogger()
    root.handlers[:] = [ring]
    root.setLevel(logging.WARNING)  # what other libraries have to say below it is theirs
    for name in ("tabml", "tabml_grpc"):
        logging.getLogger(name).setLevel(level.upper())
    if path is not None:
        handler = logging.StreamHandler(io.TextIOWrapper(LogFile(path), line_buffering=True, errors="replace"))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    logging.raiseExceptions = False
    return ring
