"""A cache on disk in front of another provider, addressed by content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast
from weakref import WeakValueDictionary

from tabml.errors import CorruptModelError, OptionError, ProviderError, ProviderUnavailableError
from tabml.files import asking
from tabml.files.local import open_regular
from tabml.files.types import Checksums, FileInfo, FileProvider, FileRef, FileStream, chunks_of, stream_of

_STALE_S = 24 * 3600
_IN_MEMORY = 64 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


class _Turn:
    """A lock that goes when nobody waits for it."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()


class CachingProvider:
    """Keeps what it fetched under ``root``: ``blobs/<sha256>``, and ``refs/`` from names to checksums.

    A file is written beside its place and moved there in one step, so two processes may share a root. Every hit
    is checked against its checksum; a damaged file is deleted and fetched again. Threads that ask for the same
    file wait for one fetch. Over ``max_bytes`` the least recently used files go. A name keeps the file that it
    had when it was first fetched: ask for a revision where files change. Where the disk can't be written, files
    are fetched each time.
    """

    def __init__(self, inner: FileProvider, root: str | os.PathLike[str], *, max_bytes: int = 4 << 30) -> None:
        """Nothing is touched yet.

        Args:
            inner: Where files come from.
            root: The folder of the cache; made when needed.
            max_bytes: How much the cache may hold; the newest file always stays.

        Raises:
            OptionError: ``max_bytes`` is not positive.
        """
        if max_bytes <= 0:
            raise OptionError(f"max_bytes={max_bytes!r} must be positive")
        self._inner = inner
        self._root = Path(root).expanduser()
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._turns: WeakValueDictionary[FileRef, _Turn] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"CachingProvider({self._inner!r}, {str(self._root)!r})"

    @property
    def root(self) -> Path:
        """The folder of the cache."""
        return self._root

    def sha256(self, ref: FileRef) -> str | None:
        """The checksum, where the inner provider or the cache knows it."""
        if known := self._promised(ref):
            return known
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._ref_file(ref).read_text("utf-8"))["sha256"]
            return found if _SHA256.fullmatch(found) else None
        return None

    def local_path(self, ref: FileRef) -> Path | None:
        """The cached file, or None when it isn't cached; not checked again."""
        known = self.sha256(ref)
        path = self._blob(known) if known else None
        return path if path is not None and path.is_file() else None

    def open(self, ref: FileRef) -> FileStream:
        """The file, from the cache or else from the inner provider.

        Raises:
            CorruptModelError: what came is not what its checksum promises; it was not kept.
            ProviderError: the inner provider could not deliver, or the disk is full.
        """
        with self._lock:
            turn = self._turns.setdefault(ref, _Turn())
        with turn.lock:
            return self._cached(ref) or self._fetch(ref)

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """What the inner provider lists."""
        return asking.listed(self._inner, repo, revision)

    def kept(self, ref: FileRef) -> bytes | None:
        """The file, checked, when it is cached."""
        stream = self._cached(ref)
        if stream is None:
            return None
        with stream:
            return b"".join(stream)

    def keep(self, ref: FileRef, content: bytes) -> None:
        """Cache a file whose checksum the caller has verified."""
        file, part = self._new_part()
        try:
            with suppress(OSError), file:
                file.write(content)
                file.flush()
                if part is not None:
                    self._settle(part, ref, hashlib.sha256(content).hexdigest())
        finally:
            if part is not None:
                part.unlink(missing_ok=True)

    def _promised(self, ref: FileRef) -> str | None:
        return self._inner.sha256(ref) if isinstance(self._inner, Checksums) else None

    def _blob(self, sha256: str) -> Path:
        return self._root / "blobs" / sha256

    def _ref_file(self, ref: FileRef) -> Path:
        name = json.dumps([ref.repo, ref.path, ref.revision])
        return self._root / "refs" / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def _cached(self, ref: FileRef) -> FileStream | None:
        """The file, or None when it isn't here or is damaged (and deleted)."""
        known = self.sha256(ref)
        if known is None:
            return None
        path = self._blob(known)
        try:
            source, size = open_regular(path)
        except ProviderError:
            return None
        stream = _checked(source, size, known)
        if stream is None:
            with suppress(OSError):  # not writable: fetched each time
                path.unlink()
            return None
        with suppress(OSError):  # a cache that may only be read works too
            _touch(path)
        return stream

    def _fetch(self, ref: FileRef) -> FileStream:
        file, part = self._new_part()
        try:
            size, found = self._receive(ref, file)
            file.seek(0)  # flushes
            content = file.read() if size <= _IN_MEMORY else None
            if part is not None:
                self._settle(part, ref, found)
        except BaseException:
            file.close()
            raise
        finally:
            if part is not None:
                part.unlink(missing_ok=True)
        if content is None:
            return FileStream(chunks_of(file), size=size, close=file.close)
        file.close()
        return stream_of(content)

    def _receive(self, ref: FileRef, file: BinaryIO) -> tuple[int, str]:
        """Write what the inner provider gives; its length and checksum, both as promised."""
        promised = self._promised(ref)
        size, running = 0, hashlib.sha256()
        with asking.opened(self._inner, ref) as stream:
            for chunk in asking.chunks(stream, ref):
                size += len(chunk)
                running.update(chunk)
                try:
                    file.write(chunk)
                except OSError as problem:
                    raise ProviderError(
                        f"{ref} does not fit under {self._root} ({problem.strerror}); free space, or set TABML_HOME"
                    ) from problem
            if stream.size is not None and size != stream.size:
                raise ProviderUnavailableError(f"{ref}: {size} of {stream.size} bytes arrived; try again")
        found, promised = running.hexdigest(), promised or stream.sha256
        if promised is not None and found != promised:
            raise CorruptModelError(f"{ref}: sha256 is {found[:12]}…, not {promised[:12]}…; the file was not kept")
        return size, found

    def _new_part(self) -> tuple[BinaryIO, Path | None]:
        """A file to write to, beside the blobs or else (where they can't be written) without a name."""
        blobs = self._root / "blobs"
        try:
            blobs.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=blobs, prefix=".part-")
        except OSError:
            return cast("BinaryIO", tempfile.TemporaryFile()), None
        return os.fdopen(descriptor, "w+b"), Path(name)

    def _settle(self, part: Path, ref: FileRef, found: str) -> None:
        """Give a finished part its name; where that can't be done, the file is used this once."""
        with suppress(OSError):
            _touch(part)
            os.replace(part, self._blob(found))
            if self._promised(ref) is None:
                self._write_ref(ref, found)
            self._evict(keep=found)

    def _write_ref(self, ref: FileRef, found: str) -> None:
        place = self._ref_file(ref)
        place.parent.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=".part-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"repo": ref.repo, "path": ref.path, "revision": ref.revision, "sha256": found}, file)
            os.replace(name, place)
        finally:
            Path(name).unlink(missing_ok=True)

    def _evict(self, keep: str) -> None:
        entries = []
        for path in (self._root / "blobs").iterdir():
            with suppress(OSError):  # another process may have evicted it
                status = path.stat()
                if path.name.startswith("."):
                    if status.st_mtime < time.time() - _STALE_S:  # left by a process that died
                        path.unlink()
                else:
                    entries.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                return
            if path.name != keep:
                path.unlink(missing_ok=True)
                total -= size


def _touch(path: Path) -> None:
    """Note the use of a file, by the fine clock: the system's own stamp is the same for some milliseconds."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _checked(source: BufferedReader, size: int, sha256: str) -> FileStream | None:
    """What ``source`` holds, when that is its checksum.

    What is handed over is what was checked: a small file is read once, and a large one goes on from the same
    descriptor, so that it doesn't matter what happens to its name.
    """
    stream = None
    with suppress(OSError):
        if size <= _IN_MEMORY:
            with source:
                content = source.read()
            if hashlib.sha256(content).hexdigest() == sha256:
                return stream_of(content)
        elif hashlib.file_digest(source, "sha256").hexdigest() == sha256:
            source.seek(0)
            stream = FileStream(chunks_of(source), size=size, close=source.close)
    if stream is None:
        source.close()
    return stream
