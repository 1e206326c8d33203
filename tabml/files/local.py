"""Files of a folder, and files that are in memory already."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path

from tabml.errors import ModelFileNotFoundError, ProviderAccessError
from tabml.files.types import FileInfo, FileRef, FileStream, check_name, chunks_of, stream_of


def open_regular(path: Path) -> tuple[BufferedReader, int]:
    """A regular file opened for reading, and its size: never a FIFO, a device or a folder.

    Raises:
        ModelFileNotFoundError: there is no such file, or it isn't a regular one.
        ProviderAccessError: it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except PermissionError as problem:
        raise ProviderAccessError(f"{path} may not be read by this user") from problem
    except (OSError, ValueError) as problem:
        raise ModelFileNotFoundError(f"{path} does not exist or can't be opened") from problem
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ModelFileNotFoundError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb"), status.st_size


class DirectoryProvider:
    """Files under one folder: ``root/repo/path``, or ``root/repo/revision/path`` when a revision is asked for.

    Links that leave the folder are not followed.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root).expanduser().resolve()

    def __repr__(self) -> str:
        return f"DirectoryProvider({str(self._root)!r})"

    def _folder(self, repo: str, revision: str | None) -> Path:
        parts = check_name("repo", repo).split("/")
        if revision is not None:
            parts += check_name("revision", revision).split("/")
        return self._root.joinpath(*parts)

    def local_path(self, ref: FileRef) -> Path | None:
        """The file itself, or None when there is none."""
        try:
            path = self._folder(ref.repo, ref.revision).joinpath(*ref.path.split("/")).resolve()
            return path if path.is_relative_to(self._root) and path.is_file() else None
        except PermissionError as problem:
            raise ProviderAccessError(f"{ref} under {self._root} may not be read by this user") from problem
        except (OSError, RuntimeError):  # a name too long for this file system; links in a circle
            return None

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes."""
        path = self.local_path(ref)
        if path is None:
            raise ModelFileNotFoundError(f"{ref} is not under {self._root}")
        source, size = open_regular(path)
        return FileStream(chunks_of(source), size=size, close=source.close)

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of a repository, sorted by path."""
        folder = self._folder(repo, revision)
        try:
            if not (folder.is_dir() and folder.resolve().is_relative_to(self._root)):
                raise ModelFileNotFoundError(f"{repo} is not a folder of {self._root}")
            found = [path for path in folder.rglob("*") if path.is_file() and path.resolve().is_relative_to(self._root)]
            infos = [FileInfo(path.relative_to(folder).as_posix(), path.stat().st_size) for path in found]
        except PermissionError as problem:
            raise ProviderAccessError(f"{repo} under {self._root} may not be read by this user") from problem
        except RuntimeError as problem:
            raise ModelFileNotFoundError(f"{repo} under {self._root} has links in a circle") from problem
        return sorted(infos, key=lambda info: info.path)


class MemoryProvider:
    """Files that are in memory already, by (repo, path); revisions are ignored."""

    def __init__(self, files: Mapping[tuple[str, str], bytes]) -> None:
        self._files = {(ref.repo, ref.path): bytes(data) for (repo, path), data in files.items()
                       for ref in [FileRef(repo, path)]}  # fmt: skip

    def __repr__(self) -> str:
        return f"MemoryProvider({len(self._files)} files)"

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes."""
        try:
            content = self._files[ref.repo, ref.path]
        except KeyError:
            raise ModelFileNotFoundError(f"{ref} is not in this memory provider") from None
        return stream_of(content)

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of a repository, sorted by path."""
        check_name("repo", repo)
        infos = [
            FileInfo(path, len(data), hashlib.sha256(data).hexdigest())
            for (name, path), data in self._files.items()
            if name == repo
        ]
        if not infos:
            raise ModelFileNotFoundError(f"{repo} is not in this memory provider")
        return sorted(infos, key=lambda info: info.path)
