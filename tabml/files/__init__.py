"""Where model files come from: providers, the catalog, the cache, and files in memory."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tabml.errors import ModelFileNotFoundError, OptionError, ProviderAccessError, ProviderError, TabmlError
from tabml.files.asking import read_bytes
from tabml.files.types import (
    Checksums,
    FileInfo,
    FileProvider,
    FileRef,
    FileStream,
    KeepsFiles,
    LocalFiles,
    MappedFiles,
    Progress,
    verify,
)

if TYPE_CHECKING:
    from tabml.files.caching import CachingProvider
    from tabml.files.catalog import CatalogEntry, CatalogProvider, load_catalog
    from tabml.files.fallback import FallbackProvider
    from tabml.files.folder import Snapshot, snapshot
    from tabml.files.hub import HubProvider
    from tabml.files.local import DirectoryProvider, MemoryProvider
    from tabml.files.memory import HeldFiles, MemoryFile, ResidentFiles
    from tabml.files.package import PackageProvider
    from tabml.files.url import Transport, UrlProvider

__all__ = [
    "CachingProvider",
    "CatalogEntry",
    "CatalogProvider",
    "Checksums",
    "DirectoryProvider",
    "FallbackProvider",
    "FileInfo",
    "FileProvider",
    "FileRef",
    "FileStream",
    "HeldFiles",
    "HubProvider",
    "KeepsFiles",
    "LocalFiles",
    "MappedFiles",
    "MemoryFile",
    "MemoryProvider",
    "PackageProvider",
    "Progress",
    "ResidentFiles",
    "Snapshot",
    "Transport",
    "UrlProvider",
    "cache_folder",
    "default_provider",
    "load_catalog",
    "load_model",
    "open_provider",
    "read_bytes",
    "snapshot",
]

_LAZY = {
    "CachingProvider": "caching", "CatalogEntry": "catalog", "CatalogProvider": "catalog",
    "DirectoryProvider": "local", "FallbackProvider": "fallback", "HeldFiles": "memory", "HubProvider": "hub",
    "MemoryFile": "memory", "MemoryProvider": "local",
    "PackageProvider": "package", "ResidentFiles": "memory", "Snapshot": "folder", "Transport": "url",
    "UrlProvider": "url", "load_catalog": "catalog", "snapshot": "folder",
}  # fmt: skip

HOME_VARIABLE = "TABML_HOME"
"""Environment variable: the folder of the cache."""


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def cache_folder() -> Path:
    """Where fetched models are kept: ``TABML_HOME``, or ``tabml`` in the user's cache folder.

    Raises:
        ProviderAccessError: there is no home, and the folder that stands in for it is another user's.
    """
    home = os.environ.get(HOME_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if home:
            return Path(home).expanduser()
        return Path(base) / "tabml" if os.path.isabs(base) else Path.home() / ".cache" / "tabml"
    except RuntimeError:  # no HOME
        return _folder_without_home()


def _folder_without_home() -> Path:
    """A folder of this user's among everybody's temporary files."""
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"tabml-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError:
        return folder  # can't be written: files are fetched each time
    if not mine:
        raise ProviderAccessError(f"{folder} belongs to another user; set {HOME_VARIABLE} to a folder of your own")
    return folder


def default_provider() -> FileProvider:
    """The catalog's models behind the cache: what a model uses when it is given no ``files``."""
    from tabml.files.catalog import OFFLINE_VARIABLE, SOURCES_VARIABLE

    return _default_provider(cache_folder(), os.environ.get(OFFLINE_VARIABLE), os.environ.get(SOURCES_VARIABLE))


@cache
def _default_provider(root: Path, *settings: str | None) -> FileProvider:
    """One for each place and setting: what waits for the same file should wait for the same fetch."""
    from tabml.files.caching import CachingProvider
    from tabml.files.catalog import CatalogProvider

    catalog = CatalogProvider()
    cached = CachingProvider(catalog, root)
    catalog.take_parts_from(cached)
    return cached


def load_model(model: str | os.PathLike[str] | FileRef, *, files: FileProvider | None = None) -> bytes | memoryview:
    """The bytes of a model; a view where ``files`` has them in memory.

    Args:
        model: A name of the catalog; the path of a file, as a ``Path``; or a file of ``files``.
        files: Where files come from; :func:`default_provider` when None.

    Raises:
        ModelFileNotFoundError: there is no such model or file.
        CorruptModelError: the catalog knows the file, and these are not its bytes.
        ProviderError: it could not be delivered.
        OptionError: ``model`` is none of the three.
    """
    from tabml.files.catalog import find, load_catalog

    if isinstance(model, os.PathLike):
        from tabml.files.local import open_regular

        source, _ = open_regular(Path(model))
        with source:
            return source.read()
    if isinstance(model, str):
        try:
            ref = find(model).ref
        except ModelFileNotFoundError:
            if "/" not in model and "." not in model:
                raise
            raise ModelFileNotFoundError(
                f"model={model[:80]!r} is not in the catalog; give the path of a file as a Path: Path({model[:80]!r})"
            ) from None
    elif isinstance(model, FileRef):
        ref = model
    else:
        raise OptionError(f"model={model!r} must be a catalog name, a Path or a FileRef")
    content: bytes | memoryview
    content = files.mapped(ref) if isinstance(files, MappedFiles) else read_bytes(files or default_provider(), ref)
    known = load_catalog().get(ref.repo)
    if known is not None and known.file == ref.path:
        verify(content, known.sha256, known.name)
    return content


def open_provider(uri: str) -> FileProvider:
    """The provider that ``uri`` names.

    ``dir:FOLDER`` or ``dir:///FOLDER``, ``https://HOST/PATH``, ``hub:`` (or ``hub:ENDPOINT``), ``package:``,
    ``catalog:``, and what installed distributions offer as entry points of the group ``tabml.files``: a function
    that takes what follows the colon and gives a provider.

    Raises:
        OptionError: nothing handles the URI's scheme, or it is not a valid one of its kind.
        ProviderError: a plug-in failed.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "dir" and rest:
        from urllib.parse import unquote

        from tabml.files.local import DirectoryProvider

        return DirectoryProvider(unquote(rest.removeprefix("//")) if rest.startswith("///") else rest)
    if scheme in ("https", "http"):
        from tabml.files.url import UrlProvider

        return UrlProvider(uri)
    if scheme == "hub":
        from tabml.files.hub import HubProvider

        return HubProvider(endpoint=rest or None)
    if scheme == "package":
        from tabml.files.package import PackageProvider

        return PackageProvider()
    if scheme == "catalog":
        return default_provider()
    return _plugged_in(scheme, rest)


def _plugged_in(scheme: str, rest: str) -> FileProvider:
    """The provider of an installed plug-in."""
    from importlib import metadata

    found = metadata.entry_points(group="tabml.files")
    for entry in found.select(name=scheme):
        try:
            provider = entry.load()(rest)
        except TabmlError:
            raise
        except Exception as problem:
            raise ProviderError(f"the plug-in {entry.value} for {scheme!r} failed: {problem}") from problem
        if not isinstance(provider, FileProvider):
            raise ProviderError(f"the plug-in {entry.value} for {scheme!r} gave no FileProvider")
        return provider
    known = ["dir", "https", "hub", "package", "catalog", *sorted(found.names)]
    raise OptionError(f"uri: no provider for {scheme[:40]!r}; there are: {', '.join(known)}")
