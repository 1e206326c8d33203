"""Models for LiteRT from anywhere: vouched for by the catalog's checksum, or checked and tried before they are used."""

from __future__ import annotations

import hashlib
import os

from tabml.files import FileProvider, FileRef, load_model
from tabml.files.catalog import is_known


def load_lite_model(
    model: str | os.PathLike[str] | FileRef | bytes | memoryview, *, files: FileProvider | None = None
) -> bytes | memoryview:
    """The bytes of a .tflite file or a .task bundle; a view where ``files`` has them in memory.

    A file of which the catalog knows the checksum is used as it is. Of any other, each .tflite file in it has its
    tables checked and runs in another process, which may die of it; once for each file and process.

    Args:
        model: A name of the catalog; the path of a file, as a ``Path``; a file of ``files``; or its bytes.
        files: Where files come from; the catalog when None.

    Raises:
        ModelFileNotFoundError: there is no such model or file.
        CorruptModelError: it is neither of the two, is cut short, contradicts itself, or LiteRT dies of it.
        ModelKindError: it is a .litertlm file.
        ModelLoadError: LiteRT refused it.
        UnsafeModelError: it wants weights out of other files.
        ProviderError: it could not be delivered.
        CapacityError: no process can be started to try it.
        OptionError: ``model`` is none of these.
    """
    from tabml._litert.bundle import check_kind

    given = isinstance(model, bytes | bytearray | memoryview)
    content = memoryview(model) if given else load_model(model, files=files)  # type: ignore[arg-type]
    name = f"model of {len(content)} bytes" if given else f"model={str(model)[:200]!r}"
    check_kind(content, name=name)
    if not isinstance(model, str):  # a name's bytes are checked already
        checksum = hashlib.sha256(content).hexdigest()
        if not is_known(checksum):
            from tabml._litert.unknown import check_unknown

            check_unknown(content, sha256=checksum, name=name)
    return content
