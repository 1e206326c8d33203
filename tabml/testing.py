"""For tests of what others build on tabml: the contract of a file provider, and strategies for names.

Needs pytest and hypothesis::

    class TestMine(FileProviderContract):
        @contextmanager
        def provide(self, files):
            yield MyProvider(files)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import MappingProxyType

import pytest
from hypothesis import strategies as st

from tabml.errors import InvalidNameError, ModelFileNotFoundError
from tabml.files.asking import read_bytes
from tabml.files.types import FileProvider, FileRef, check_name

EXAMPLE_FILES: Mapping[tuple[str, str], bytes] = MappingProxyType(
    {
        ("maker/faces", "model.tflite"): b"\x1c\0\0\0TFL3" + bytes(range(256)) * 8200,  # more than one chunk
        ("maker/faces", "labels/en.txt"): b"face\n",
        ("maker/faces", "empty.bin"): b"",
        ("maker/hands", "config.json"): b"{}",
    }
)
"""What a provider under test serves: content by (repo, path)."""

HOSTILE_NAMES: tuple[str, ...] = (
    "", ".", "..", "../x", "x/..", "x/../../y", "/etc/passwd", "x//y", "x/", "./x", "x\\y", "..\\x", "C:/x", "C:\\x",
    "file:x", "https://host/x", "x\x00y", "x\ny", "x\ry", "x\x1b[2J", "x\u202ey", "x" * 1025,
)  # fmt: skip
"""Names that leave their folder, mean something else to another system, or hide something from a reader."""

_LETTERS = st.sampled_from("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_. ~+=@%éßλ字")


def _is_plain(name: str) -> bool:
    try:
        check_name("name", name)
    except InvalidNameError:
        return False
    return True


def file_names(*, max_parts: int = 3) -> st.SearchStrategy[str]:
    """Names that :class:`~tabml.files.FileRef` takes, of up to ``max_parts`` parts."""
    parts = st.text(_LETTERS, min_size=1, max_size=12)
    return st.lists(parts, min_size=1, max_size=max_parts).map("/".join).filter(_is_plain)


def hostile_names() -> st.SearchStrategy[str]:
    """Names that :class:`~tabml.files.FileRef` refuses."""
    spoilt = st.tuples(file_names(), st.sampled_from(["/..", "//x", "\\x", "\x00", "\n", "/.", "/"])).map("".join)
    return st.sampled_from(HOSTILE_NAMES) | spoilt | file_names().map(lambda name: f"../{name}")


def file_refs() -> st.SearchStrategy[FileRef]:
    """Files with and without a revision."""
    return st.builds(FileRef, file_names(), file_names(), st.none() | file_names(max_parts=1))


class FileProviderContract(ABC):
    """What every provider must do. Inherit it, give your provider in :meth:`provide`, and let pytest run it."""

    files: Mapping[tuple[str, str], bytes] = EXAMPLE_FILES
    """What the provider under test serves; at least one file in one repository."""
    revision: str | None = None
    """The revision to ask for."""
    can_list: bool = True
    """False for providers whose source has no listing."""

    @abstractmethod
    def provide(self, files: Mapping[tuple[str, str], bytes]) -> AbstractContextManager[FileProvider]:
        """Your provider, serving ``files``, for one test."""

    @pytest.fixture
    def provider(self) -> Iterator[FileProvider]:
        """The provider under test."""
        with self.provide(self.files) as provider:
            yield provider

    def _refs(self) -> dict[FileRef, bytes]:
        return {FileRef(repo, path, self.revision): content for (repo, path), content in self.files.items()}

    def test_it_is_a_provider(self, provider: FileProvider) -> None:
        assert isinstance(provider, FileProvider)

    def test_every_file_arrives_whole_and_as_announced(self, provider: FileProvider) -> None:
        for ref, content in self._refs().items():
            with provider.open(ref) as stream:
                chunks = list(stream)
                assert stream.size in (None, len(content)), ref
            assert all(chunks), f"{ref}: an empty chunk"
            assert b"".join(chunks) == content, ref

    def test_a_file_can_be_read_again(self, provider: FileProvider) -> None:
        ref, content = next(iter(self._refs().items()))
        assert [read_bytes(provider, ref) for _ in range(3)] == [content] * 3

    def test_a_missing_file_is_not_found(self, provider: FileProvider) -> None:
        for repo in {repo for repo, _ in self.files}:
            with pytest.raises(ModelFileNotFoundError) as caught:
                read_bytes(provider, FileRef(repo, "no-such-file.bin", self.revision))
            assert "\n" not in str(caught.value)

    def test_a_missing_repository_is_not_found(self, provider: FileProvider) -> None:
        with pytest.raises(ModelFileNotFoundError):
            read_bytes(provider, FileRef("tabml-no-such-repository", "model.tflite", self.revision))

    def test_a_stream_may_be_closed_early_and_twice(self, provider: FileProvider) -> None:
        ref = max(self._refs(), key=lambda one: len(self._refs()[one]))
        stream = provider.open(ref)
        assert next(stream)
        stream.close()
        stream.close()
        assert read_bytes(provider, ref) == self._refs()[ref]

    def test_threads_may_share_it(self, provider: FileProvider) -> None:
        refs = self._refs()
        with ThreadPoolExecutor(4) as pool:
            for (ref, content), found in zip(
                list(refs.items()) * 3, pool.map(lambda ref: read_bytes(provider, ref), list(refs) * 3), strict=True
            ):
                assert found == content, ref

    def test_a_listing_is_sorted_and_true(self, provider: FileProvider) -> None:
        for repo in {repo for repo, _ in self.files}:
            if not self.can_list:
                with pytest.raises(ModelFileNotFoundError):
                    provider.list(repo, self.revision)
                continue
            listed = list(provider.list(repo, self.revision))
            assert [info.path for info in listed] == sorted(info.path for info in listed)
            mine = {path: content for (name, path), content in self.files.items() if name == repo}
            sizes = {info.path: info.size for info in listed}
            assert set(mine) <= set(sizes)
            assert all(sizes[path] in (None, len(content)) for path, content in mine.items())

    def test_a_missing_repository_has_no_listing(self, provider: FileProvider) -> None:
        with pytest.raises(ModelFileNotFoundError):
            provider.list("tabml-no-such-repository", self.revision)
