"""What users say when they mean a model, turned into a provider and a file."""

from __future__ import annotations

import os
from pathlib import Path

from tabml.errors import ModelFileNotFoundError, OptionError
from tabml.files import DirectoryProvider, FileProvider, FileRef, default_provider, load_catalog

ModelSource = str | os.PathLike[str] | FileRef
"""A repository of ``files`` or a name of the catalog; the path of a folder or of a file; or a file of ``files``."""


def resolve(
    model: ModelSource,
    files: FileProvider | None,
    revision: str | None,
    *,
    begin: str = "config.json",
    what: str = "model",
) -> tuple[FileProvider, FileRef]:
    """The provider, and the file that the model begins with, which in a folder is ``begin``; ``what`` it is, for messages."""
    if isinstance(model, FileRef):
        return files or default_provider(), model
    if isinstance(model, os.PathLike):
        path = Path(model).expanduser().absolute()
        if path.is_dir():
            return DirectoryProvider(path.parent), FileRef(path.name, begin)
        if path.is_file():
            return DirectoryProvider(path.parent.parent), FileRef(path.parent.name, path.name)
        raise ModelFileNotFoundError(f"{what}={str(path)!r} is neither a folder nor a file")
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
