"""A folder of in-memory files, for libraries that insist on a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tabml.cancellation import Cancellation
from tabml.errors import ModelFileNotFoundError, ProviderError
from tabml.files.memory import HeldFiles, MemoryFile, ResidentFiles
from tabml.files.types import FileProvider, FileRef, Progress, check_name

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from typing import Self

_SMALL = 1 << 20
_MEMORY = Path("/dev/shm")
_PREFIX = "tabml-links-"
_YOUNG_S = 60
"""Age of a folder up to which its process may not have locked it yet."""
_AT_ONCE = 8


class Snapshot:
    """The files of one repository as a private folder of links, without writing one of them to disk; gone when closed.

    Files that lie on this machine are linked where they lie; all others are fetched into memory and linked there.
    What was opened or mapped before the close stays valid.
    """

    def __init__(
        self,
        provider: FileProvider | ResidentFiles | HeldFiles,
        repo: str,
        *,
        revision: str | None = None,
        cancellation: Cancellation | None = None,
        progress: Progress | None = None,
    ) -> None:
        """An empty folder.

        Args:
            provider: Where files come from.
            repo: The repository.
            revision: The version, where the provider knows versions.
            cancellation: Stops the transfer.
            progress: Called with name, bytes done and bytes in all.
        """
        if isinstance(provider, HeldFiles):
            self._held, self._owned = provider, False
        else:
            resident = provider if isinstance(provider, ResidentFiles) else ResidentFiles(provider)
            self._held, self._owned = HeldFiles(resident, cancellation=cancellation, progress=progress), True
        self._repo, self._revision = check_name("repo", repo), revision
        self._names: dict[str, FileRef] = {}
        root = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        _sweep(root)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        """The folder; only this user can enter it."""
        self._remove = weakref.finalize(self, _remove, self.path, _locked(self.path), os.getpid())

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def names(self) -> tuple[str, ...]:
        """The files in the folder, sorted."""
        return tuple(sorted(self._names))

    def listed(self, glob: str) -> list[str]:
        """The repository's files that match ``glob``, as in ``*.json`` (``*`` also matches ``/``).

        Raises:
            ModelFileNotFoundError: none does.
            InvalidNameError: the provider lists a name that leads out of the folder.
            ProviderError: the provider can't list.
        """
        names = [check_name("path", info.path) for info in self._held.list(self._repo, self._revision)]
        found = [name for name in names if fnmatchcase(name, glob)]
        if not found:
            raise ModelFileNotFoundError(f"{self._repo} has no file that matches {glob!r}")
        return found

    def add(self, names: Iterable[str] = (), *, optional: Iterable[str] = (), at_once: int = _AT_ONCE) -> None:
        """Put files into the folder, several at a time.

        Args:
            names: Files that must be there.
            optional: Files that may be missing.
            at_once: How many are on their way at a time; each large one needs buffers.

        Raises:
            ModelFileNotFoundError: a file is missing.
            InvalidNameError: a name leads out of the folder.
            CallCancelledError: the cancellation was set.
            ProviderError: the provider could not deliver.
        """
        wanted = {name: False for name in dict.fromkeys(optional) if name not in self._names}
        wanted.update({name: True for name in names if name not in self._names})
        refs = {name: FileRef(self._repo, name, self._revision) for name in wanted}
        if len(refs) <= 1:
            for name, ref in refs.items():
                self._add(ref, wanted[name])
            return
        with ThreadPoolExecutor(at_once, thread_name_prefix="fetch") as threads:
            jobs = [threads.submit(self._add, ref, wanted[name]) for name, ref in refs.items()]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                for job in jobs:
                    job.cancel()
                raise

    def _add(self, ref: FileRef, needed: bool) -> None:
        try:
            local = self._held.local_path(ref)
            self.link(ref.path, local.absolute() if local is not None else self._held.hold(ref).path)
        except ModelFileNotFoundError:
            if needed:
                raise
            return
        self._names[ref.path] = ref

    def take(self, names: Iterable[str]) -> list[MemoryFile]:
        """Those of these files that are in memory for this folder alone: its user's, who may drop what was read.

        Their links lead somewhere as long as they are kept. Nobody else is given them from now on.
        """
        found = [self._held.take(self._names[name]) for name in names if name in self._names]
        return [file for file in found if file is not None]

    def read(self, name: str, max_bytes: int = _SMALL) -> bytes:
        """The content of a small file of the folder.

        Raises:
            ModelFileNotFoundError: it isn't in the folder.
            ProviderError: it has more than ``max_bytes``.
        """
        if name not in self._names:
            raise ModelFileNotFoundError(f"{self._repo} has no {name}")
        with open(self.path / name, "rb") as source:
            content = source.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ProviderError(f"{self._repo}/{name} has more than {max_bytes} bytes")
        return content

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
        self._remove()
        if self._owned:
            self._held.close()
        for ref in self._names.values():
            self._held.forget(ref)
        self._names.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _locked(folder: Path) -> int | None:
    """A descriptor of the folder, locked for as long as it is open, which is not longer than its process lives.

    None when another one holds the lock, the system has no such locks, or the process no descriptor.
    """
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _remove(folder: Path, lock: int | None, process: int) -> None:
    """Remove a folder that ``process`` made; in a child that was forked only the descriptor goes."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


@cache
def _sweep(root: Path) -> None:
    """Remove the folders of this user's processes that were killed while they loaded; once a process."""
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or status.st_mtime > time.time() - _YOUNG_S:
                continue
            lock = _locked(folder)
            if lock is not None:
                _remove(folder, lock, os.getpid())


def snapshot(
    provider: FileProvider | ResidentFiles | HeldFiles,
    repo: str,
    patterns: Sequence[str] = ("*",),
    *,
    optional: Sequence[str] = (),
    revision: str | None = None,
    cancellation: Cancellation | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """The files of a repository as a folder, without writing one of them to disk.

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
    folder = Snapshot(provider, repo, revision=revision, cancellation=cancellation, progress=progress)
    try:
        globs = [pattern for pattern in patterns if any(sign in pattern for sign in "*?[")]
        named = [pattern for pattern in patterns if pattern not in globs]
        folder.add([*named, *(name for glob in globs for name in folder.listed(glob))], optional=optional)
    except BaseException:
        folder.close()
        raise
    return folder
