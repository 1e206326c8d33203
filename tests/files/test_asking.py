"""A provider of anybody's: whatever it raises or gives instead of a file is a typed error that names the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tabml.errors import (
    ModelFileNotFoundError,
    ProviderAccessError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnavailableHereError,
)
from tabml.files import CachingProvider, FileInfo, FileRef, FileStream, ResidentFiles, Snapshot, read_bytes, snapshot

REF = FileRef("me/model", "config.json")


class Custom:
    """Gives what it is told to."""

    def __init__(self, open: Callable[[], Any], list: Callable[[], Any] = lambda: [FileInfo("config.json")]) -> None:
        self._open, self._list = open, list

    def open(self, ref: FileRef) -> FileStream:
        found: FileStream = self._open()
        return found

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        found: Sequence[FileInfo] = self._list()
        return found


def raising(problem: Exception) -> Callable[[], Any]:
    def ask() -> Any:
        raise problem

    return ask


def breaking(problem: Exception) -> Callable[[], FileStream]:
    def chunks() -> Iterator[bytes]:
        yield b"{"
        raise problem

    return lambda: FileStream(chunks())


def by_memory(provider: Any, _: Path) -> None:
    ResidentFiles(provider).hold(REF)


def by_reading(provider: Any, _: Path) -> None:
    read_bytes(provider, REF)


def by_cache(provider: Any, folder: Path) -> None:
    with CachingProvider(provider, folder).open(REF) as stream:
        b"".join(stream)


def by_snapshot(provider: Any, _: Path) -> None:
    with snapshot(provider, REF.repo, [REF.path]):
        pass


@pytest.mark.parametrize("how", [by_memory, by_reading, by_cache, by_snapshot])
@pytest.mark.parametrize("where", [raising, breaking])
@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (ConnectionResetError("peer"), ProviderUnavailableError),
        (TimeoutError("slow"), ProviderTimeoutError),
        (FileNotFoundError("gone"), ModelFileNotFoundError),
        (PermissionError("no"), ProviderAccessError),
        (OSError("disk"), ProviderError),
        (KeyError("config.json"), ProviderError),
        (ZeroDivisionError("oops"), ProviderError),
    ],
)
def test_what_a_provider_raises_is_typed_and_names_the_file(
    problem: Exception,
    told: type[ProviderError],
    where: Callable[[Exception], Callable[[], Any]],
    how: Callable[[Any, Path], None],
    tmp_path: Path,
) -> None:
    with pytest.raises(told, match=rf"me/model/config.json: the provider failed: {type(problem).__name__}") as caught:
        how(Custom(where(problem)), tmp_path)
    assert caught.value.__cause__ is problem


@pytest.mark.parametrize("how", [by_memory, by_reading, by_cache, by_snapshot])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "open gave None, which is no FileStream"),
        (b"bytes", "which is no FileStream"),
        (["text"], "gave a str for a chunk of bytes"),
        ([5], "gave a int for a chunk of bytes"),
        ([None], "gave a NoneType for a chunk of bytes"),
    ],
)
def test_so_is_what_it_gives_instead_of_bytes(
    given: Any, said: str, how: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    provider = Custom(lambda: FileStream(given) if isinstance(given, list) else given)
    with pytest.raises(ProviderError, match=f"me/model/config.json: the provider.*{said}"):
        how(provider, tmp_path)


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (raising(ConnectionResetError("peer")), "the provider failed: ConnectionResetError"),
        (lambda: None, "the provider failed: TypeError"),
        (lambda: [5], "the provider's list gave 5, which is no FileInfo"),
        (lambda: ["config.json"], "the provider's list gave 'config.json', which is no FileInfo"),
    ],
)
def test_so_is_a_listing(listing: Callable[[], Any], said: str) -> None:
    with (
        Snapshot(Custom(lambda: FileStream([b"{}"]), listing), "me/model") as folder,
        pytest.raises(ProviderError, match=f"me/model: {said}"),
    ):
        folder.listed("*")


@pytest.mark.parametrize("given", [5, "config.json", Path("/no/such/file"), Path("/")])
def test_so_is_a_path(given: Any) -> None:
    class Local(Custom):
        def local_path(self, ref: FileRef) -> Path | None:
            found: Path = given
            return found

    with (
        Snapshot(Local(lambda: FileStream([b"{}"])), "me/model") as folder,
        pytest.raises(ProviderError, match=r"local_path gave .*, which is no file"),
    ):
        folder.add(["config.json"])


def test_what_progress_raises_is_not_called_the_providers() -> None:
    def progress(name: str, done: int, total: int | None) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        ResidentFiles(Custom(lambda: FileStream([b"{}"]))).hold(REF, progress=progress)


def test_views_of_numbers_count_as_their_bytes() -> None:
    content = memoryview(b"\1\0\2\0").cast("H")
    assert ResidentFiles(Custom(lambda: FileStream([content]))).hold(REF).view() == b"\1\0\2\0"  # type: ignore[list-item]


def test_a_provider_that_cannot_list_says_so_in_python() -> None:
    with (
        Snapshot(Custom(lambda: FileStream([b"{}"]), raising(NotImplementedError("no lists"))), "me/model") as folder,
        pytest.raises(UnavailableHereError, match="me/model: the provider failed: NotImplementedError: no lists"),
    ):
        folder.listed("*")


def test_views_that_are_no_bytes_in_a_row_are_told() -> None:
    views = [memoryview(bytes(8))[::2]]
    with pytest.raises(ProviderError, match="the provider failed: TypeError"):
        ResidentFiles(Custom(lambda: FileStream(views))).hold(REF)  # type: ignore[arg-type]
