"""For tests of what others build on tabml: the contract of a file provider, as a class to inherit.

::

    class TestMine(FileProviderContract):
        def make(self, files):
            return MyProvider(files)
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping

from tabml.errors import InvalidNameError, ModelFileNotFoundError
from tabml.files.types import FileProvider, FileRef, read_bytes

REPO = "repo"
FILES: Mapping[str, bytes] = {
    "model.tflite": bytes(range(256)) * 8192,  # over one chunk
    "folder/config.json": b"{}",
    "empty.bin": b"",
}
"""What :meth:`FileProviderContract.make` is given; all of them in the repository ``REPO``."""

HOSTILE_NAMES = (
    "", ".", "..", "../model.tflite", "/etc/passwd", "folder/../../x", "a//b", "a\\b", "C:/x", "a\x00b", "a\nb", "x" * 2000,
)  # fmt: skip
"""Names that no provider may ever see."""


class FileProviderContract(ABC):
    """Inherit it, build your provider in :meth:`make`, and pytest runs the contract."""

    can_list = True
    """False for providers whose source has no listing."""

    @abstractmethod
    def make(self, files: Mapping[str, bytes]) -> FileProvider:
        """Your provider, with ``files`` in the repository ``REPO``."""

    def test_it_is_a_provider(self) -> None:
        assert isinstance(self.make(FILES), FileProvider)

    def test_every_file_arrives_whole(self) -> None:
        provider = self.make(FILES)
        for path, content in FILES.items():
            assert read_bytes(provider, FileRef(REPO, path)) == content, path

    def test_a_known_size_is_the_true_one(self) -> None:
        provider = self.make(FILES)
        for path, content in FILES.items():
            with provider.open(FileRef(REPO, path)) as stream:
                assert stream.size in (None, len(content)), path

    def test_a_missing_file_is_not_found(self) -> None:
        provider = self.make(FILES)
        for ref in (FileRef(REPO, "missing.bin"), FileRef("another", "model.tflite"), FileRef(REPO, "folder")):
            try:
                read_bytes(provider, ref)
            except ModelFileNotFoundError as problem:
                assert ref.path in str(problem) or ref.repo in str(problem)
            else:
                raise AssertionError(f"{ref} was found")

    def test_hostile_names_never_arrive(self) -> None:
        for name in HOSTILE_NAMES:
            for repo, path in ((REPO, name), (name, "model.tflite")):
                try:
                    FileRef(repo, path)
                except InvalidNameError:
                    continue
                raise AssertionError(f"FileRef took repo={repo!r}, path={path!r}")

    def test_a_stream_may_be_closed_early_and_twice(self) -> None:
        provider = self.make(FILES)
        stream = provider.open(FileRef(REPO, "model.tflite"))
        next(stream)
        stream.close()
        stream.close()
        assert read_bytes(provider, FileRef(REPO, "folder/config.json")) == b"{}"

    def test_the_listing_names_every_file(self) -> None:
        provider = self.make(FILES)
        if not self.can_list:
            return
        listed = {info.path: info.size for info in provider.list(REPO)}
        assert list(listed) == sorted(FILES)
        assert all(size in (None, len(FILES[path])) for path, size in listed.items())

    def test_a_missing_repository_is_not_found(self) -> None:
        provider = self.make(FILES)
        try:
            provider.list("another")
        except ModelFileNotFoundError:
            return
        raise AssertionError("a repository that does not exist was listed")

    def test_threads_may_share_it(self) -> None:
        provider = self.make(FILES)
        wrong: list[str] = []

        def read() -> None:
            for path, content in FILES.items():
                if read_bytes(provider, FileRef(REPO, path)) != content:
                    wrong.append(path)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
