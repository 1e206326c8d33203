"""Files inside of a model file: .task bundles, and the archive that a .tflite file with metadata ends with."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator

from tabml.errors import CorruptModelError, ModelKindError, ModelLoadError, OptionError

MAX_MEMBERS = 256
MAX_UNPACKED_BYTES = 1 << 30
MAX_RATIO = 64
"""What all unpacks to, as a multiple of what it is packed into; models hardly shrink, and text by ten at the most."""
_MAX_DEPTH = 2
_LM = b"LITERTLM"
_END, _END_BYTES, _LONGEST_COMMENT = b"PK\5\6", 22, 0xFFFF


def open_bundle(bundle: bytes | memoryview) -> zipfile.ZipFile:
    """The archive in these bytes, when it is one that can be unpacked without harm.

    Raises:
        ModelLoadError: it isn't an archive.
        CorruptModelError: it can't be read, or would unpack to far more than it is.
    """
    end = _last_record(bundle)
    if end is None:
        raise ModelLoadError("a model of another kind: it is no archive")
    count = int.from_bytes(end[10:12], "little")
    if count > MAX_MEMBERS:
        raise CorruptModelError(f"its archive has {count} members; at most {MAX_MEMBERS} are unpacked")
    try:
        archive = zipfile.ZipFile(io.BytesIO(bundle))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as problem:
        raise CorruptModelError(f"its archive can't be read: {problem}") from problem
    found = archive.infolist()
    packed, unpacked = sum(each.compress_size for each in found), sum(each.file_size for each in found)
    names = {each.filename for each in found}
    if len(found) > MAX_MEMBERS or len(names) != len(found) or any(each.flag_bits & 1 for each in found):
        archive.close()
        raise CorruptModelError(f"its archive has {len(found)} members, some of them locked or twice")
    if unpacked > MAX_UNPACKED_BYTES or unpacked > MAX_RATIO * packed + 1024 or packed > len(bundle):
        archive.close()
        raise CorruptModelError(f"its archive of {packed} bytes would be {unpacked} bytes long")
    return archive


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of an archive.

    Raises:
        KeyError: there is none of that name.
        CorruptModelError: it can't be unpacked, or differs from its checksum.
    """
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as problem:
        raise CorruptModelError(f"its member {name!r:.80} can't be unpacked: {problem}") from problem


def members(bundle: bytes | memoryview, *names: str) -> list[bytes]:
    """Files of a .task bundle.

    Raises:
        ModelLoadError: it isn't one, or has not all of them.
        CorruptModelError: it can't be unpacked, or not without harm.
    """
    with open_bundle(bundle) as archive:
        try:
            return [member(archive, name) for name in names]
        except KeyError as problem:
            raise ModelLoadError(f"a model of another kind: {problem}") from problem


def holds(bundle: bytes | memoryview, name: str) -> bool:
    """Whether these are the bytes of a .task bundle with this file in it."""
    try:
        with open_bundle(bundle) as archive:
            return name in archive.namelist()
    except (ModelLoadError, CorruptModelError):
        return False


def graphs_in(file: bytes | memoryview, *, room: int = MAX_UNPACKED_BYTES) -> Iterator[tuple[str, bytes | memoryview]]:
    """Each .tflite file in a model file, by the name of its member: itself, those of a bundle, and of bundles in it.

    Args:
        file: A .tflite file or a .task bundle.
        room: How many bytes all of its archives may unpack to.

    Raises:
        ModelLoadError: it is neither a .tflite file nor a bundle.
        CorruptModelError: a bundle can't be unpacked, or not without harm.
    """
    if is_tflite(file):
        yield "", file
    else:
        yield from _graphs_of(file, [room], _MAX_DEPTH)


def check_kind(file: bytes | memoryview, *, name: str) -> None:
    """Nothing, when it begins like a .tflite file or a .task bundle.

    Raises:
        CorruptModelError: it is neither of the two.
        ModelKindError: it is a .litertlm file.
    """
    if file[: len(_LM)] == _LM:
        raise ModelKindError(f"{name} is a language model: open it with tabml.edge.LiteLM, or tabml chat --model")
    if not (is_tflite(file) or is_archive(file)):
        raise CorruptModelError(f"{name} is neither a .tflite nor a .task file; see: python -m tabml models list")


def chosen(file: bytes | memoryview, member: str | None, *, name: str) -> bytes | memoryview:
    """A .tflite file itself, or the one of a .task bundle that is meant.

    Args:
        file: The one or the other.
        member: Of a bundle; needed where it has several.
        name: For messages.

    Raises:
        OptionError: ``member`` names none of its files, or must name one.
        CorruptModelError: it is neither of the two, a bundle without any .tflite file, or can't be unpacked.
        ModelKindError: it is a .litertlm file.
    """
    check_kind(file, name=name)
    found = list(graphs_in(file))
    if not found:
        raise CorruptModelError(f"{name} is a bundle without any .tflite file")
    names = [each for each, _ in found]
    if member is None and len(found) == 1:
        return found[0][1]
    if "" in names:
        raise OptionError(f"member={member!r:.80}: {name} is no bundle; leave member out")
    if member not in names:
        raise OptionError(f"member={member!r:.80} must be one of {', '.join(map(repr, names))}"[:2000])
    return found[names.index(member)][1]


def _graphs_of(bundle: bytes | memoryview, room: list[int], depth: int) -> Iterator[tuple[str, bytes]]:
    with open_bundle(bundle) as archive:
        for each in archive.infolist():
            room[0] -= each.file_size
            if room[0] < 0:
                raise CorruptModelError(f"its archives would be more than {MAX_UNPACKED_BYTES} bytes long")
            content = member(archive, each.filename)
            if is_tflite(content):
                yield each.filename, content
            elif depth and is_archive(content):
                for inside, graph in _graphs_of(content, room, depth - 1):
                    yield f"{each.filename}/{inside}", graph


def is_archive(file: bytes | memoryview) -> bool:
    """Whether a file ends as archives do."""
    return _last_record(file) is not None


def _last_record(file: bytes | memoryview) -> bytes | None:
    """What an archive ends with: APPNOTE.TXT 4.3.16."""
    tail = bytes(file[-_END_BYTES - _LONGEST_COMMENT :])
    at = tail.rfind(_END)
    return tail[at : at + _END_BYTES] if 0 <= at <= len(tail) - _END_BYTES else None


def is_tflite(file: bytes | memoryview) -> bool:
    """Whether a file says that it is a .tflite file."""
    return bytes(file[4:8]) == b"TFL3"
