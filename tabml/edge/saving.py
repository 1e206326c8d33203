"""A made model as a file: whole or not at all, and never in place of what it was made of."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from tabml.errors import OptionError


def check_target(path: str | os.PathLike[str], source: str | os.PathLike[str] | None) -> Path:
    """Where to write.

    Args:
        path: The file to write.
        source: The file that must not be overwritten; None where there is none.

    Raises:
        OptionError: they are one file, by whatever names, or ``path`` is no file that can be made or replaced.
    """
    target = Path(path).expanduser()
    original = Path(source).expanduser() if source is not None else None
    if original is not None and original.exists() and target.exists() and target.samefile(original):
        raise OptionError(f"path={str(target)!r} is the original itself; give another name")
    if target.exists() and not target.is_file():
        raise OptionError(f"path={str(target)!r} is no regular file; give another name")
    if not target.absolute().parent.is_dir():
        raise OptionError(f"path={str(target)!r} is in a folder that there isn't; make it first")
    return target


def save(content: bytes, path: str | os.PathLike[str], source: str | os.PathLike[str] | None) -> Path:
    """Write a file; until it is whole, what had its name stays.

    Args:
        content: What to write.
        path: The file.
        source: See :func:`check_target`.

    Raises:
        OptionError: see :func:`check_target`.
        OSError: it can't be written.
    """
    target = check_target(path, source)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            file.write(content)
        os.replace(beside, target)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise
    return target
