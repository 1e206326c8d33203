"""A folder of pictures, or of .npz files, as inputs of a model."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.edge.comparison import Measure, Predict, Sample
from tabml.edge.models import LiteModel
from tabml.edge.prepared import prepared
from tabml.edge.samples import MAX_SAMPLE_BYTES, MAX_SAMPLES
from tabml.errors import OptionError
from tabml.files.local import open_regular
from tabml.generation.arguments import whole
from tabml.vision import Frame

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_ARRAYS = ".npz"


def read_folder(option: str, folder: str, model: LiteModel, most: int) -> Iterator[Sample]:
    """Each picture or .npz file of a folder and of those in it, evenly chosen where there are more than ``most``.

    Raises:
        OptionError: it is no folder, has none, or one doesn't fit the model.
        FrameError: a picture can't be read.
    """
    return (_read(path, model) for path in _chosen(option, folder, most))


def labelled(option: str, folder: str, model: LiteModel, most: int) -> Measure | None:
    """How often a classifier is right, of pictures in folders that are named as its classes; None where there are no folders.

    Raises:
        OptionError: a folder is named otherwise.
    """
    paths = _chosen(option, folder, most)
    if any(path.parent == Path(folder) for path in paths):
        return None
    place, labels = _labels(model)
    named = [path.parent.name for path in paths]
    strange = sorted(set(named) - set(labels))
    if strange:
        raise OptionError(
            f"{option}: the folder {strange[0]!r:.80} is named as none of the model's {len(labels)} classes"
        )
    output = model.outputs[place].name

    def share_right(predict: Predict) -> float:
        answers = (predict(_read(path, model))[output] for path in paths)
        return float(
            np.mean([labels[int(scores.argmax())] == name for scores, name in zip(answers, named, strict=True)])
        )

    return share_right


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, by name; never objects, which are code.

    Raises:
        OptionError: it can't be read, or is too large.
        ModelFileNotFoundError: there is no such file.
    """
    source, _ = open_regular(path)
    with source:
        try:
            with zipfile.ZipFile(source) as archive:
                size = sum(each.file_size for each in archive.infolist())
            if size > MAX_SAMPLE_BYTES:
                raise OptionError(f"{path} holds {size} bytes; at most {MAX_SAMPLE_BYTES} are read")
            source.seek(0)
            with np.load(source, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, NotImplementedError) as problem:
            if isinstance(problem, OptionError):
                raise
            raise OptionError(
                f"{path} is no .npz file of plain arrays: {' '.join(str(problem).split())[:200]}"
            ) from problem


def picture_input(model: LiteModel, path: Path) -> dict[str, NDArray[Any]]:
    """A picture as the only input of a model: stretched, and normalised as its metadata say.

    Raises:
        OptionError: the model has several inputs, or takes no picture.
        FrameError: the picture can't be read.
    """
    if len(model.inputs) != 1:
        raise OptionError(f"{path}: the model takes {len(model.inputs)} inputs; give .npz files with an array for each")
    (spec,), said = model.inputs, model.metadata
    return {
        spec.name: prepared(spec, said.inputs[0] if said is not None and said.inputs else None, Frame.from_file(path))
    }


def _read(path: Path, model: LiteModel) -> dict[str, NDArray[Any]]:
    return read_arrays(path) if path.suffix.lower() == _ARRAYS else picture_input(model, path)


def _chosen(option: str, folder: str, most: int) -> Sequence[Path]:
    whole("--samples", most, 1, MAX_SAMPLES)
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise OptionError(f"{option} {folder!r:.200} is no folder")
    known = (*PICTURES, _ARRAYS)
    paths = sorted(
        path for path in (*root.glob("*"), *root.glob("*/*")) if path.suffix.lower() in known and path.is_file()
    )
    if not paths:
        raise OptionError(f"{option} {folder!r:.200} has no pictures ({', '.join(PICTURES)}) and no .npz files")
    return [paths[at] for at in np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)]


def _labels(model: LiteModel) -> tuple[int, tuple[str, ...]]:
    """Which output has one score for each of its names, and these."""
    said = model.metadata
    for place, (spec, each) in enumerate(zip(model.outputs, said.outputs if said is not None else (), strict=False)):
        if each.labels and int(np.prod(spec.shape)) == len(each.labels):
            return place, each.labels
    raise OptionError("the model has no names of classes for its scores; give a folder without folders in it")
