"""What a .tflite model says about itself: names of classes, what its inputs should look like, files that come with it.

The TFLite metadata are flatbuffers inside the file; the files that they name are in a zip archive behind it. Source of
the numbers of fields: TFLite Support's ``metadata_schema.fbs``, M001.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tabml._litert.bundle import member, open_bundle
from tabml._litert.tables import Flatbuffer, Table
from tabml.errors import CorruptModelError, ModelLoadError

Content = Literal["", "features", "image", "boxes", "audio"]

_ENTRY = b"TFLITE_METADATA"
_CONTENTS: tuple[Content, ...] = ("", "features", "image", "boxes", "audio")
_COLOURS = ("", "rgb", "grayscale")
_NORMALIZATION, _CALIBRATION, _THRESHOLD = 1, 2, 3
_LABELS = (2, 3)  # along an axis, or by value
_MOST_LABELS_BYTES, _MOST_TENSORS = 4 << 20, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMetadata:
    """Of one input or output, in the model's order."""

    name: str
    """What its makers call it."""
    description: str = ""
    """In their words."""
    content: Content = ""
    """What is in it; empty where it isn't said."""
    color: str = ""
    """Of pictures: ``rgb`` or ``grayscale``."""
    sample_rate: int = 0
    """Of sound: hertz."""
    channels: int = 0
    """Of sound."""
    mean: tuple[float, ...] = ()
    """Of an input, one for all channels or one for each: what is subtracted from raw values, pixels 0 to 255."""
    std: tuple[float, ...] = ()
    """See ``mean``: by what is divided then."""
    labels: tuple[str, ...] = ()
    """Of an output: names of its classes."""
    min_score: float | None = None
    """Of an output: classes that score less don't count."""
    is_calibrated: bool = False
    """Of an output: whether its scores want a further transformation, by numbers in a file."""
    corners: tuple[int, ...] = (0, 1, 2, 3)
    """Of boxes: where left, top, right and bottom are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """Of one model."""

    name: str
    """What its makers call it."""
    description: str
    """In their words."""
    version: str
    """Theirs."""
    author: str
    """Who made it."""
    license: str
    """What may be done with it."""
    inputs: tuple[TensorMetadata, ...]
    """One for each input; empty where nothing is said."""
    outputs: tuple[TensorMetadata, ...]
    """One for each output; empty where nothing is said."""
    files: tuple[str, ...]
    """Names of the files that come with it."""
    custom: Mapping[str, bytes]
    """What else, in formats of its makers."""

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON; of what is in formats of its makers the number of bytes."""
        return {**asdict(self), "custom": {name: len(content) for name, content in self.custom.items()}}


def read_metadata(model: bytes | memoryview) -> ModelMetadata | None:
    """The metadata of a .tflite model; None when it has none.

    Raises:
        ModelLoadError: they can't be read.
    """
    with told():
        content = _entry(model)
        if content is None:
            return None
        root = Flatbuffer(content).root()
        graph = next(root.tables(3), None)
        inputs, outputs = (list(graph.tables(field)) if graph is not None else [] for field in (2, 3))
        if len(inputs) + len(outputs) > _MOST_TENSORS:
            raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs")
        custom = {each.text(0): each.content(1) or b"" for each in graph.tables(9)} if graph is not None else {}
        return ModelMetadata(
            name=root.text(0),
            description=root.text(1),
            version=root.text(2),
            author=root.text(4),
            license=root.text(5),
            inputs=tuple(_tensor(model, each) for each in inputs),
            outputs=tuple(_tensor(model, each) for each in outputs),
            files=file_names(model),
            custom=custom,
        )


def file_names(model: bytes | memoryview) -> tuple[str, ...]:
    """Names of the files that come with a model.

    Raises:
        CorruptModelError: their archive can't be read.
    """
    try:
        with open_bundle(model) as archive:
            return tuple(archive.namelist())
    except ModelLoadError:
        return ()


def read_file(model: bytes | memoryview, name: str, most: int = _MOST_LABELS_BYTES) -> bytes:
    """A file that comes with a model.

    Raises:
        ModelLoadError: there is none of that name, or it is longer than ``most`` bytes.
        CorruptModelError: it can't be unpacked.
    """
    with open_bundle(model) as archive:
        try:
            size = archive.getinfo(name).file_size
        except KeyError:
            raise ModelLoadError(f"the model's metadata names {name!r:.80}, which is not in it") from None
        if size > most:
            raise ModelLoadError(f"{name!r:.80} in the model is {size} bytes long; at most {most} are read")
        return member(archive, name)


@contextmanager
def told() -> Iterator[None]:
    """What leads outside of a file, or is none of its kind, as an error of ours."""
    try:
        yield
    except (
        CorruptModelError,
        struct.error,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        zipfile.BadZipFile,
    ) as problem:
        said = " ".join(str(problem).split())[:200]
        raise ModelLoadError(f"the model's metadata can't be read: {type(problem).__name__}: {said}") from problem


def _entry(model: bytes | memoryview) -> bytes | None:
    """The bytes of the entry that metadata are in."""
    root = Flatbuffer(model).root()
    for entry in root.tables(6):
        if entry.content(0) == _ENTRY:
            number = entry.number(1, "I")
            for at, buffer in enumerate(root.tables(4)):
                if at == number:
                    return buffer.content(0)
            raise IndexError(f"buffer {number}")
    return None


def _tensor(model: bytes | memoryview, tensor: Table) -> TensorMetadata:
    content = tensor.table(3)
    kind = content.number(0, "B") if content is not None else 0
    properties = content.table(1) if content is not None else None
    units = {each.number(0, "B"): each.table(1) for each in tensor.tables(4)}
    scaled, scored = units.get(_NORMALIZATION), units.get(_THRESHOLD)
    mean, std = (scaled.numbers(field, "<f4") if scaled is not None else None for field in (0, 1))
    labels = next((each for each in tensor.tables(6) if each.number(2, "b") in _LABELS), None)
    picture, boxes, sound = (properties if kind == number else None for number in (2, 3, 4))
    corners = boxes.numbers(0, "<u4") if boxes is not None else None
    if corners is not None and len(corners) and sorted(corners.tolist()) != [0, 1, 2, 3]:
        raise ValueError(f"corners {corners.tolist()[:8]}")
    return TensorMetadata(
        name=tensor.text(0),
        description=tensor.text(1),
        content=_CONTENTS[kind],
        color=_COLOURS[picture.number(0, "b")] if picture is not None else "",
        sample_rate=sound.number(0, "I") if sound is not None else 0,
        channels=sound.number(1, "I") if sound is not None else 0,
        mean=tuple(mean.tolist()) if mean is not None else (),
        std=tuple(std.tolist()) if std is not None else (),
        labels=tuple(read_file(model, labels.text(0)).decode().splitlines()) if labels is not None else (),
        min_score=scored.number(0, "f") if scored is not None else None,
        is_calibrated=_CALIBRATION in units,
        corners=tuple(corners.tolist()) if corners is not None and len(corners) else (0, 1, 2, 3),
    )
