"""A folder of in-memory files, for libraries that insist on a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tabml.cancellation import Cancellation
from tabml.errors import ModelFileNotFoundError, ProviderError
from tabml.files.memory import HeldFiles, ResidentFiles
from tabml.files.types import FileProvider, FileRef, LocalFiles, Progress, check_name

if TYPE_CHECKING:
    from typing import Self


class Snapshot:
    """What :func:`snapshot` gives: a private folder of links, gone when closed.

    What was opened or mapped before stays valid.
    """

    def __init__(self, files: HeldFiles) -> None:
        memory = "/dev/shm"
        self._files = files
        self.path = Path(tempfile.mkdtemp(prefix="tabml-", dir=memory if os.access(memory, os.W_OK) else None))
        """The folder; only this user can enter it."""

    def link(self, name: str, target: str | os.PathLike[str]) -> None:
        """Have ``name`` inside the folder lead to ``target``.

        Raises:
            ProviderError: another file is in its place, or the name is too long for a folder.
        """
        place = self.path / check_name("path", name)
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.symlink_to(target)
        except OSError as problem:
            raise ProviderError(f"{name[:80]!r} can't be put into a folder: {problem.strerror}") from problem

    def close(self) -> None:
        """Remove the folder and let go of the files; twice is fine."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def snapshot(
    provider: FileProvider | ResidentFiles,
    repo: str,
    patterns: Sequence[str] = ("*",),
    *,
    optional: Sequence[str] = (),
    revision: str | None = None,
    cancellation: Cancellation | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """The files of a repository as a folder, without writing one of them to disk.

    Files that lie on this machine are linked where they lie; all others are fetched into memory and linked there.

    Args:
        provider: Where files come from.
        repo: The repository.
        patterns: Names, which must be there, or patterns as in ``*.json`` (``*`` also matches ``/``), which need a
            provider that can list.
        optional: Names that may be missing.
        revision: The version, where the provider knows versions.
        cancellation: Stops the transfer.
        progress: Called with name, bytes done and bytes in all.

    Raises:
        ModelFileNotFoundError: a named file, or every file of a pattern, is missing.
        InvalidNameError: the provider lists a name that leads out of the folder.
        CallCancelledError: ``cancellation`` was set.
        ProviderError: the provider could not deliver.
    """
    resident = provider if isinstance(provider, ResidentFiles) else ResidentFiles(provider)
    source = resident.inner
    held = HeldFiles(resident, cancellation=cancellation, progress=progress)
    folder = Snapshot(held)
    try:
        names = _names(source, repo, patterns, revision)
        for name in names:
            _add(folder, held, source, FileRef(repo, name, revision))
        for name in dict.fromkeys(optional):
            if name in names:
                continue
            try:
                _add(folder, held, source, FileRef(repo, name, revision))
            except ModelFileNotFoundError:
                continue
    except BaseException:
        folder.close()
        raise
    return folder


def _names(provider: FileProvider, repo: str, patterns: Sequence[str], revision: str | None) -> Sequence[str]:
    globs = [pattern for pattern in patterns if any(sign in pattern for sign in "*?[")]
    names = dict.fromkeys(pattern for pattern in patterns if pattern not in globs)
    listed = [check_name("path", info.path) for info in provider.list(repo, revision)] if globs else []
    for glob in globs:
        found = [name for name in listed if fnmatchcase(name, glob)]
        if not found:
            raise ModelFileNotFoundError(f"{repo} has no file that matches {glob!r}")
        names.update(dict.fromkeys(found))
    return list(names)


def _add(folder: Snapshot, held: HeldFiles, source: FileProvider, ref: FileRef) -> None:
    local = source.local_path(ref) if isinstance(source, LocalFiles) else None
    folder.link(ref.path, local.absolute() if local is not None else held.hold(ref).path)
