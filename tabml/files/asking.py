"""Providers asked with care: anybody can write one, and what it raises or gives must not surprise whoever loads a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tabml.errors import (
    ModelFileNotFoundError,
    ProviderAccessError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    TabmlError,
    UnavailableHereError,
)
from tabml.files.types import MAX_MODEL_BYTES, FileInfo, FileProvider, FileRef, FileStream, LocalFiles, verify

_MEANING: tuple[tuple[type[Exception], type[TabmlError]], ...] = (
    (NotImplementedError, UnavailableHereError),
    (FileNotFoundError, ModelFileNotFoundError),
    (PermissionError, ProviderAccessError),
    (TimeoutError, ProviderTimeoutError),
    (ConnectionError, ProviderUnavailableError),
)


@contextmanager
def _asking(name: str) -> Iterator[None]:
    """Whatever a provider raises, as one of the errors that providers raise."""
    try:
        yield
    except (TabmlError, MemoryError):
        raise
    except Exception as problem:
        kind: type[TabmlError] = next((ours for theirs, ours in _MEANING if isinstance(problem, theirs)), ProviderError)
        said = " ".join(str(problem).split())[:200]
        raise kind(f"{name}: the provider failed: {type(problem).__name__}: {said}") from problem


@contextmanager
def opened(provider: FileProvider, ref: FileRef) -> Iterator[FileStream]:
    """The file as a stream, which is closed at the end; take its chunks by :func:`chunks`.

    Raises:
        ProviderError: the provider could not deliver, or gave something else.
    """
    with _asking(str(ref)):
        stream = provider.open(ref)
    if not isinstance(stream, FileStream):
        raise ProviderError(f"{ref}: the provider's open gave {stream!r:.60}, which is no FileStream")
    try:
        yield stream
    finally:
        with _asking(str(ref)):
            stream.close()


def chunks(stream: FileStream, ref: FileRef) -> Iterator[bytes | memoryview]:
    """What comes, piece by piece.

    Raises:
        ProviderError: the provider could not deliver, or gave something else than bytes.
    """
    while True:
        with _asking(str(ref)):
            try:
                chunk = next(stream)
            except StopIteration:
                return
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise ProviderError(f"{ref}: the provider gave a {type(chunk).__name__} for a chunk of bytes")
        if isinstance(chunk, memoryview):
            with _asking(str(ref)):
                chunk = chunk.cast("B")
        yield chunk


def listed(provider: FileProvider, repo: str, revision: str | None) -> Sequence[FileInfo]:
    """The files of a repository.

    Raises:
        ProviderError: the provider could not answer, or gave something else.
    """
    with _asking(repo):
        found = list(provider.list(repo, revision))
    strange = next((each for each in found if not isinstance(each, FileInfo)), None)
    if strange is not None:
        raise ProviderError(f"{repo}: the provider's list gave {strange!r:.60}, which is no FileInfo")
    return found


def local_path(provider: object, ref: FileRef) -> Path | None:
    """Where the file lies on this machine, when the provider says so.

    Raises:
        ProviderError: there is no such file.
    """
    if not isinstance(provider, LocalFiles):
        return None
    with _asking(str(ref)):
        path = provider.local_path(ref)
        if path is None:
            return None
        if not (isinstance(path, os.PathLike) and Path(path).is_file()):
            raise ProviderError(f"{ref}: the provider's local_path gave {path!r:.200}, which is no file")
    return Path(path)


def read_bytes(provider: FileProvider, ref: FileRef, *, max_bytes: int = MAX_MODEL_BYTES) -> bytes:
    """The whole file.

    Raises:
        ProviderUnavailableError: fewer or more bytes came than the stream announced.
        CorruptModelError: they are not what the announced checksum promises.
        ProviderError: the file is larger than ``max_bytes``, or the provider could not deliver.
    """
    content = bytearray()
    with opened(provider, ref) as stream:
        for chunk in chunks(stream, ref):
            content += chunk
            if len(content) > max_bytes:
                raise ProviderError(f"{ref} is larger than max_bytes={max_bytes}")
        if stream.size is not None and len(content) != stream.size:
            raise ProviderUnavailableError(f"{ref}: {len(content)} of {stream.size} bytes arrived; try again")
    whole = bytes(content)
    return verify(whole, stream.sha256, str(ref)) if stream.sha256 else whole
