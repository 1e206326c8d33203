"""What users say when they mean a model, turned into a provider and a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tabml.errors import ModelFileNotFoundError, OptionError
from tabml.files import DirectoryProvider, FileProvider, FileRef, default_provider, load_catalog

ModelSource = str | os.PathLike[str] | FileRef
"""A repository of ``files`` or a name of the catalog; the path of a folder or of a file; or a file of ``files``."""


class _Folder(DirectoryProvider):
    """One folder, whatever it is called; links may lead to what lies beside it, and in the hub's cache to its blobs."""

    def __init__(self, folder: Path) -> None:
        is_cached = folder.parent.name == "snapshots" and (folder.parent.parent / "blobs").is_dir()
        super().__init__(folder.parent.parent if is_cached else folder.parent)
        self._at = folder
        self.name = re.sub(r"[^\w. -]", "_", folder.name).strip(". ") or "model"
        """For messages."""

    def _folder(self, repo: str, revision: str | None) -> Path:
        return self._at


def _on_disk(path: Path, begin: str, what: str) -> tuple[FileProvider, FileRef]:
    try:
        folder, real = path.parent.resolve(), path.resolve()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError) as problem:  # a name with a zero byte, links in a circle
        raise ModelFileNotFoundError(f"{what}={str(path)!r:.200} can't be looked at: {problem}") from problem
    if is_folder:
        provider = _Folder(real)
        return provider, FileRef(provider.name, begin)
    if is_file:
        provider = _Folder(folder)
        name = path.name
        if provider.local_path(FileRef(provider.name, name)) is None:  # a link to elsewhere
            provider, name = _Folder(real.parent), real.name
        return provider, FileRef(provider.name, name)
    raise ModelFileNotFoundError(f"{what}={str(path)!r:.200} is neither a folder nor a file")


def resolve(
    model: ModelSource,
    files: FileProvider | None,
    revision: str | None,
    *,
    begin: str = "config.json",
    what: str = "model",
) -> tuple[FileProvider, FileRef]:
    """The provider, and the file that the model begins with, which in a folder is ``begin``; ``what`` it is, for messages."""
    if files is not None and not isinstance(files, FileProvider):
        raise OptionError(f"files={files!r:.80} must be a FileProvider; open_provider('hub:') gives one")
    if isinstance(model, FileRef):
        return files or default_provider(), model
    if isinstance(model, os.PathLike):
        return _on_disk(Path(model).expanduser(), begin, what)
    if not isinstance(model, str):
        raise OptionError(f"{what}={model!r:.80} must be a name, a Path or a FileRef")
    known = load_catalog().get(model)
    if known is not None:
        return files or default_provider(), FileRef(model, known.file, revision)
    if files is None:
        raise ModelFileNotFoundError(
            f"{what}={model[:80]!r} is not in the catalog; give a Path, or files=open_provider('hub:')"
        )
    return files, FileRef(model, begin, revision)
