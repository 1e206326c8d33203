"""What a model file is called, what it looks like on its way, and what a provider must be able to do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar, runtime_checkable

from tabml.errors import CorruptModelError, InvalidNameError

if TYPE_CHECKING:
    from typing import Self

CHUNK_BYTES = 1 << 20
"""The usual length of a chunk."""
MAX_NAME = 1024
MAX_MODEL_BYTES = 2 << 30
"""What ``read_bytes`` accepts at the most unless told otherwise."""

Progress = Callable[[str, int, int | None], None]
"""Called with a name, the bytes done, and the bytes in all where known."""


def check_name(what: str, name: str) -> str:
    """``name``, when it is a plain relative name with ``/`` between its parts.

    Raises:
        InvalidNameError: it is empty, absolute, too long, leaves its folder, or has control characters or ``\\``.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    plain = all(part not in ("", ".", "..") for part in parts)
    if not plain or len(name) > MAX_NAME or "\\" in name or ":" in parts[0] or not name.isprintable():
        shown = repr(name)[:80]
        raise InvalidNameError(f"{what}={shown} must be a plain relative name like 'folder/file.tflite'")
    return name


@dataclass(frozen=True, slots=True)
class FileRef:
    """One file of one repository: names, never paths of this machine."""

    repo: str
    """The repository, model or distribution."""
    path: str
    """The file inside it, ``/`` between folders."""
    revision: str | None = None
    """The version, where the provider knows versions."""

    def __post_init__(self) -> None:
        check_name("repo", self.repo)
        check_name("path", self.path)
        if self.revision is not None:
            check_name("revision", self.revision)

    def __str__(self) -> str:
        return f"{self.repo}{'@' + self.revision if self.revision else ''}/{self.path}"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One entry of a listing."""

    path: str
    """The file's name inside its repository."""
    size: int | None = None
    """Bytes, where known."""
    sha256: str | None = None
    """Lower-case hexadecimal, where known."""


class FileStream:
    """The bytes of one file on their way: an iterator of chunks that closes what it opened."""

    def __init__(
        self,
        chunks: Iterable[bytes],
        *,
        size: int | None = None,
        sha256: str | None = None,
        close: Callable[[], None] | None = None,
        cancel: Callable[[], None] | None = None,
    ) -> None:
        self.size = size
        """Bytes in all, where known beforehand."""
        self.sha256 = sha256
        """The checksum that the source announces, lower-case hexadecimal; at the latest known at the end."""
        self._chunks = iter(chunks)
        self._close = close
        self._cancel = cancel

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def cancel(self) -> None:
        """From another thread: end a wait for the next chunk, where the source can."""
        if self._cancel is not None:
            self._cancel()

    def close(self) -> None:
        """Let go of the source; twice is fine."""
        generator_close = getattr(self._chunks, "close", None)
        if generator_close is not None:
            generator_close()
        close, self._close = self._close, None
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def chunks_of(source: BinaryIO) -> Iterator[bytes]:
    """What is left in ``source``, which is closed at the end."""
    with source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def stream_of(content: bytes) -> FileStream:
    """Bytes that are here already, as a stream."""
    chunks = (content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES))
    return FileStream(chunks, size=len(content))


@runtime_checkable
class FileProvider(Protocol):
    """Where model files come from. Thread-safe: several models may load at once."""

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes.

        Raises:
            ModelFileNotFoundError: the provider has no such file.
            ProviderError: the provider could not deliver.
        """
        ...

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of a repository, sorted by path.

        Raises:
            ModelFileNotFoundError: the provider has no such repository.
            ProviderError: the provider could not answer.
        """
        ...


@runtime_checkable
class LocalFiles(Protocol):
    """A further ability: files that lie on this machine's disk can be used where they lie."""

    def local_path(self, ref: FileRef) -> Path | None:
        """The file itself, or None when it isn't on disk."""
        ...


@runtime_checkable
class MappedFiles(Protocol):
    """A further ability: files lie in memory and can be used there without a copy."""

    def mapped(self, ref: FileRef) -> memoryview:
        """The content, read-only."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A further ability: files that came along with another one can be left here for later."""

    def kept(self, ref: FileRef) -> bytes | None:
        """The file, checked, when it is here already."""
        ...

    def keep(self, ref: FileRef, content: bytes) -> None:
        """Keep a file whose checksum the caller has verified."""
        ...


@runtime_checkable
class Checksums(Protocol):
    """A further ability: the checksum of a file is known before it is read."""

    def sha256(self, ref: FileRef) -> str | None:
        """Lower-case hexadecimal, or None when unknown."""
        ...


Content = TypeVar("Content", bytes, memoryview)


def verify(content: Content, sha256: str, name: str) -> Content:
    """``content``, when its checksum is ``sha256``.

    Raises:
        CorruptModelError: it isn't.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CorruptModelError(
            f"{name}: sha256 is {found[:12]}…, not {sha256[:12]}… ({len(content)} bytes); the file was not used"
        )
    return content
