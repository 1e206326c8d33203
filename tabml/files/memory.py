"""Files in RAM: fetched once, shared by all who need them, gone when the last of them lets go."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from tabml.cancellation import Cancellation
from tabml.errors import CapacityError, ModelClosedError, ProviderError, ProviderUnavailableError
from tabml.files import asking
from tabml.files.types import (
    CHUNK_BYTES,
    Checksums,
    FileInfo,
    FileProvider,
    FileRef,
    FileStream,
    Progress,
    verify,
)

if TYPE_CHECKING:
    from typing import Self

_POLL_S = 0.1
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class MemoryFile:
    """One file in anonymous memory: a memfd on Linux, elsewhere a private temporary file.

    It goes with its last reference; views of it stay valid.
    """

    def __init__(self, name: str = "file") -> None:
        """An empty file.

        Raises:
            CapacityError: the process has no descriptor, or the machine no memory left.
        """
        self._link: str | None = None
        try:
            if hasattr(os, "memfd_create"):
                self._descriptor = os.memfd_create(f"tabml:{name.rpartition('/')[2]}"[:60], os.MFD_CLOEXEC)
                weakref.finalize(self, os.close, self._descriptor)
            else:
                self._descriptor, self._link = tempfile.mkstemp(prefix="tabml-")
                weakref.finalize(self, _remove, self._descriptor, self._link)
        except OSError as problem:
            raise CapacityError(f"no room for {name} in memory: {problem.strerror}") from problem
        self.size = 0
        """Bytes written."""
        self.given = 0
        """How often :class:`ResidentFiles` and :class:`HeldFiles` have handed it out."""
        self._view: memoryview | None = None

    @property
    def inode(self) -> int:
        """By which its mappings are known."""
        return os.fstat(self._descriptor).st_ino

    @property
    def path(self) -> str:
        """A name under which this process (and others of the user's) can open the file while it lives."""
        return self._link or f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def write(self, chunk: bytes | memoryview) -> None:
        """Append ``chunk``.

        Raises:
            CapacityError: there is no memory left.
        """
        left = memoryview(chunk)
        while left:
            try:
                done = os.write(self._descriptor, left)
            except OSError as problem:
                raise CapacityError(f"the file does not fit into memory: {problem.strerror}") from problem
            self.size += done
            left = left[done:]

    def view(self) -> memoryview:
        """The content as it is now, read-only, not copied."""
        if self._view is None or len(self._view) != self.size:
            mapped = mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_READ) if self.size else b""
            self._view = memoryview(mapped)
        return self._view

    def drop(self, begin: int, end: int) -> None:
        """Give the memory of these bytes back to the system: they are zero from then on, wherever they are mapped.

        For whoever has taken the file by :meth:`HeldFiles.take`. Nothing happens where the system can't.

        Args:
            begin: A multiple of the page size.
            end: Another.
        """
        with suppress(AttributeError):
            punch = ctypes.CDLL(None).fallocate
            punch.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
            punch(self._descriptor, _KEEP_SIZE | _PUNCH_HOLE, begin, end - begin)


def _remove(descriptor: int, path: str) -> None:
    os.close(descriptor)
    with suppress(OSError):
        os.unlink(path)


def chunks_of_view(view: memoryview, size: int = CHUNK_BYTES) -> Iterable[bytes]:
    """What ``view`` holds, in pieces of ``size`` bytes."""
    return (bytes(view[at : at + size]) for at in range(0, len(view), size))


class _Turn:
    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()


class ResidentFiles:
    """Fetches each file once into memory and shares it with all who ask while anyone holds it. Thread-safe."""

    def __init__(self, inner: FileProvider, *, max_bytes: int = 64 << 30) -> None:
        """Nothing is fetched yet.

        Args:
            inner: Where files come from.
            max_bytes: The largest file that is accepted.
        """
        self._inner = inner
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._files: WeakValueDictionary[FileRef, MemoryFile] = WeakValueDictionary()
        self._turns: WeakValueDictionary[FileRef, _Turn] = WeakValueDictionary()

    @property
    def inner(self) -> FileProvider:
        """Where files come from."""
        return self._inner

    def held(self, repo: str, path: str) -> MemoryFile | None:
        """The file, when someone holds it now, whatever its revision."""
        with self._lock:
            files = list(self._files.items())
            return _given(next((file for ref, file in files if (ref.repo, ref.path) == (repo, path)), None))

    def withdraw(self, ref: FileRef, file: MemoryFile) -> bool:
        """Whether ``file`` was handed out only once; then nobody will be given it any more."""
        with self._lock:
            if file.given != 1 or self._files.get(ref) is not file:
                return False
            del self._files[ref]
            return True

    def hold(
        self, ref: FileRef, *, cancellation: Cancellation | None = None, progress: Progress | None = None
    ) -> MemoryFile:
        """The file, fetched or shared; it stays as long as what is given.

        Raises:
            CallCancelledError: ``cancellation`` was set meanwhile.
            CorruptModelError: what came is not what its checksum promises.
            CapacityError: it does not fit into memory.
            ProviderError: the inner provider could not deliver.
        """
        cancellation = cancellation or Cancellation()
        with self._lock:
            turn = self._turns.setdefault(ref, _Turn())
        while not turn.lock.acquire(timeout=_POLL_S):
            cancellation.check()
        try:
            with self._lock:
                file = _given(self._files.get(ref))
            if file is None:
                file = self._fetch(ref, cancellation, progress)
                with self._lock:
                    self._files[ref] = file
                    file.given += 1
            return file
        finally:
            turn.lock.release()

    def _fetch(self, ref: FileRef, cancellation: Cancellation, progress: Progress | None) -> MemoryFile:
        cancellation.check()
        file = MemoryFile(ref.path)
        try:
            with cancellation.bound(), asking.opened(self._inner, ref) as stream:
                forget = cancellation.on_cancel(stream.cancel)
                try:
                    self._receive(ref, stream, file, cancellation, progress)
                finally:
                    forget()
        except ProviderError:
            cancellation.check()  # it was cut because of that
            raise
        if stream.size is not None and file.size != stream.size:
            raise ProviderUnavailableError(f"{ref}: {file.size} of {stream.size} bytes arrived; try again")
        promised = self._inner.sha256(ref) if isinstance(self._inner, Checksums) else None
        for checksum in filter(None, {promised, stream.sha256}):
            verify(file.view(), checksum, str(ref))
        return file

    def _receive(
        self, ref: FileRef, stream: FileStream, file: MemoryFile, cancellation: Cancellation, progress: Progress | None
    ) -> None:
        for chunk in asking.chunks(stream, ref):
            cancellation.check()
            if file.size + len(chunk) > self._max_bytes:
                raise ProviderError(f"{ref} is larger than max_bytes={self._max_bytes}")
            file.write(chunk)
            if progress is not None:
                progress(ref.path, file.size, stream.size)
        cancellation.check()  # a stream that was cut may end as if it were whole


def _given(file: MemoryFile | None) -> MemoryFile | None:
    """The file, counted as handed out; under the lock of whoever hands it out."""
    if file is not None:
        file.given += 1
    return file


class HeldFiles:
    """The files of one loaded model: a provider that remembers what it was asked for, until :meth:`close`."""

    def __init__(
        self,
        resident: ResidentFiles,
        *,
        cancellation: Cancellation | None = None,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resident = resident
        self._cancellation = cancellation
        self._progress = progress
        self._clock = clock
        self._closed = False
        self._lock = threading.Lock()
        self._files: dict[FileRef, MemoryFile] = {}
        self.fetch_seconds = 0.0
        """Spent waiting for files."""
        self._bytes_forgotten = 0

    @property
    def bytes_held(self) -> int:
        """The size of all files held."""
        with self._lock:
            files = list(self._files.values())
        return sum(file.size for file in files)

    @property
    def bytes_fetched(self) -> int:
        """The size of all files that are held, and of those that were forgotten."""
        return self.bytes_held + self._bytes_forgotten

    @property
    def names(self) -> tuple[str, ...]:
        """The files held, sorted."""
        with self._lock:
            return tuple(sorted(ref.path for ref in self._files))

    def held(self, path: str) -> MemoryFile | None:
        """One of the files held."""
        with self._lock:
            files = list(self._files.items())
            return _given(next((file for ref, file in files if ref.path == path), None))

    def hold(self, ref: FileRef) -> MemoryFile:
        """The file in memory; see :meth:`ResidentFiles.hold`.

        Raises:
            ModelClosedError: after :meth:`close`.
        """
        with self._lock:
            self._check_open()
            file = _given(self._files.get(ref))
        if file is None:
            started = self._clock()
            file = self._resident.hold(ref, cancellation=self._cancellation, progress=self._progress)
            with self._lock:
                self._check_open()
                self._files[ref] = file
                self.fetch_seconds += self._clock() - started
        return file

    def take(self, ref: FileRef) -> MemoryFile | None:
        """The file, for its only user to do with as it likes; None when anybody else was ever given it.

        From then on it isn't held here, and whoever asks for it has it fetched anew.
        """
        with self._lock:
            file = self._files.get(ref)
            if file is None or not self._resident.withdraw(ref, file):
                return None
            del self._files[ref]
            self._bytes_forgotten += file.size
            return file

    def forget(self, ref: FileRef) -> None:
        """Let go of one file; what was mapped of it stays valid."""
        with self._lock:
            file = self._files.pop(ref, None)
            self._bytes_forgotten += file.size if file is not None else 0

    def _check_open(self) -> None:
        if self._closed:
            raise ModelClosedError("the model was unloaded; load it again")

    def mapped(self, ref: FileRef) -> memoryview:
        """The content, read-only, not copied."""
        return self.hold(ref).view()

    def open(self, ref: FileRef) -> FileStream:
        """The content as a stream."""
        view = self.mapped(ref)
        return FileStream(chunks_of_view(view), size=len(view))

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """What the provider lists."""
        return asking.listed(self._resident.inner, repo, revision)

    def local_path(self, ref: FileRef) -> Path | None:
        """The file itself, where the provider has it on disk."""
        return asking.local_path(self._resident.inner, ref)

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            self._closed = True
            self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
