"""Pictures of a folder, in the order of their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tabml.errors import FrameError, OptionError
from tabml.vision.frame import DEFAULT_LIMITS, DecodeLimits, Frame

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
"""Of files that count as pictures."""


def read_folder(
    path: str | os.PathLike[str], *, fps: float = 30.0, skip_bad: bool = False, limits: DecodeLimits = DEFAULT_LIMITS
) -> Iterator[Frame]:
    """The pictures of a folder as frames; ``frame9.png`` comes before ``frame10.png``.

    Args:
        path: The folder; folders in it are left out.
        fps: Pictures a second, for their timestamps: the first has 0.
        skip_bad: Leave out what can't be read, instead of raising.
        limits: What a picture may have at most.

    Raises:
        OptionError: ``fps`` is not above 0.
        FileNotFoundError: there is no such folder.
        FrameError: a picture can't be read.
    """
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1000:
        raise OptionError(f"fps={fps!r} must be a number above 0, at most 1000")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"path={os.fspath(path)!r} is not a folder")
    files = sorted((each for each in folder.iterdir() if each.suffix.lower() in ENDINGS), key=_natural)
    return _read(files, fps, skip_bad, limits)


def _read(files: list[Path], fps: float, skip_bad: bool, limits: DecodeLimits) -> Iterator[Frame]:
    for number, file in enumerate(files):
        try:
            yield Frame.from_file(file, limits=limits, timestamp_ms=round(number * 1000 / fps), frame_number=number)
        except FrameError:
            if not skip_bad:
                raise


def _natural(file: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", file.name)]
