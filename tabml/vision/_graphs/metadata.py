"""What a .tflite model says about itself: names of classes, ranges of pixels, how outputs are read.

The TFLite metadata are flatbuffers inside the file; the files that they name are in a zip archive behind it.
"""

from __future__ import annotations

import importlib.util
import io
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tabml.errors import MissingExtraError, ModelLoadError
from tabml.vision._graphs.regions import Float32

_NORMALIZATION = 1
_CALIBRATION = 2
_LABELS = (2, 3)  # along an axis, or by value
_MOST_LABELS_BYTES = 4 << 20
_BOX_PROPERTIES = 3
_ACTIVATIONS: dict[int, Literal["none", "sigmoid", "softmax"]] = {0: "none", 1: "sigmoid", 2: "softmax"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How a detector's raw boxes are read."""

    anchors: Float32
    """Shape (n, 4): x and y of the centre, width, height; shares of the input."""
    scales: tuple[float, float, float, float]
    """What raw x, y, width and height are divided by."""
    exponential: bool
    """Whether sizes are logarithms."""
    sigmoid: bool
    """Whether scores are logits."""
    classes: int
    """Of each box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Of a model with one picture as its input."""

    labels: tuple[str, ...]
    """Names of the classes; empty when the model has none."""
    low: float
    """What black is in the model's input."""
    high: float
    """What white is."""
    outputs: tuple[str, ...]
    """Names of the outputs."""
    decoding: Decoding | None = None
    """Of detectors that leave the decoding to others."""
    corners: tuple[int, ...] = (0, 1, 2, 3)
    """Where left, top, right and bottom are in the boxes of other detectors."""
    activation: Literal["none", "sigmoid", "softmax"] | None = None
    """Of segmenters: what makes confidences of their output."""


def read_metadata(model: bytes) -> Metadata:
    """The metadata of a .tflite model.

    Raises:
        ModelLoadError: it has none, or none that can be read.
        MissingExtraError: mediapipe, whose schema is used, is not installed.
    """
    with told():
        content = _buffer(model, b"TFLITE_METADATA")
        if content is None:
            raise ModelLoadError("the model has no TFLite metadata, so nothing tells what it takes and answers")
        graph = _schema("metadata_schema").ModelMetadata.GetRootAs(content, 0).SubgraphMetadata(0)
        outputs = [graph.OutputTensorMetadata(index) for index in range(graph.OutputTensorMetadataLength())]
        for output in outputs:
            if any(unit.OptionsType() == _CALIBRATION for unit in _units(output)):
                raise ModelLoadError("the model wants its scores calibrated, which isn't done here")
        custom = {each.Name() or b"": each for each in map(graph.CustomMetadata, range(graph.CustomMetadataLength()))}
        detector, segmenter = custom.get(b"DETECTOR_METADATA"), custom.get(b"SEGMENTER_METADATA")
        low, high = _range(graph.InputTensorMetadata(0))
        return Metadata(
            labels=_labels(model, outputs),
            low=low,
            high=high,
            outputs=tuple((each.Name() or b"").decode() for each in outputs),
            decoding=None if detector is None else _decoding(detector.DataAsNumpy().tobytes()),
            corners=_corners(outputs),
            activation=None if segmenter is None else _activation(segmenter.DataAsNumpy().tobytes()),
        )


@contextmanager
def told() -> Iterator[None]:
    """A flatbuffer that leads outside of itself, as an error of ours."""
    try:
        yield
    except (
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


@cache
def _schema(name: str) -> Any:
    """A module of MediaPipe's that reads flatbuffers and needs nothing of MediaPipe's."""
    package = importlib.util.find_spec("mediapipe")
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("vision", "mediapipe")
    path = Path(package.submodule_search_locations[0], "tasks", "metadata", f"{name}_py_generated.py")
    spec = importlib.util.spec_from_file_location(f"tabml.vision._graphs.{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise MissingExtraError("vision", "mediapipe")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _buffer(model: bytes, name: bytes) -> bytes | None:
    """The bytes of a named metadata entry of a model."""
    from flatbuffers.table import Table

    def table(at: int) -> Any:
        return Table(model, at)

    def slot(owner: Any, field: int) -> int:
        return int(owner.Offset(4 + 2 * field))

    root = table(struct.unpack_from("<I", model)[0])
    entries = slot(root, 6)
    if not entries:
        return None
    for index in range(root.VectorLen(entries)):
        entry = table(root.Indirect(root.Vector(entries) + 4 * index))
        if slot(entry, 0) and entry.String(entry.Pos + slot(entry, 0)) == name:
            number = struct.unpack_from("<I", model, entry.Pos + slot(entry, 1))[0] if slot(entry, 1) else 0
            buffers = slot(root, 4)
            if number >= root.VectorLen(buffers):
                raise IndexError(f"buffer {number}")
            holder = table(root.Indirect(root.Vector(buffers) + 4 * number))
            data = slot(holder, 0)
            start, size = holder.Vector(data), holder.VectorLen(data)
            if not 0 <= start <= start + size <= len(model):
                raise IndexError(f"{size} bytes at {start}")
            return model[start : start + size]
    return None


def _units(tensor: Any) -> list[Any]:
    return [tensor.ProcessUnits(index) for index in range(tensor.ProcessUnitsLength())]


def _range(tensor: Any) -> tuple[float, float]:
    """What black and white become."""
    for unit in _units(tensor):
        if unit.OptionsType() == _NORMALIZATION:
            options = _schema("metadata_schema").NormalizationOptions()
            options.Init(unit.Options().Bytes, unit.Options().Pos)
            means, deviations = set(options.MeanAsNumpy().tolist()), set(options.StdAsNumpy().tolist())
            if len(means) != 1 or len(deviations) != 1 or 0 in deviations:
                raise ModelLoadError("the model wants each colour normalised otherwise, which isn't done here")
            mean, deviation = np.float32(means.pop()), np.float32(deviations.pop())
            return float((np.float32(0) - mean) / deviation), float((np.float32(255) - mean) / deviation)
    return 0.0, 1.0


def _labels(model: bytes, outputs: list[Any]) -> tuple[str, ...]:
    for output in outputs:
        for index in range(output.AssociatedFilesLength()):
            file = output.AssociatedFiles(index)
            if file.Type() in _LABELS:
                return _lines(model, file.Name().decode())
    return ()


def _lines(model: bytes, name: str) -> tuple[str, ...]:
    with zipfile.ZipFile(io.BytesIO(model)) as files:
        try:
            size = files.getinfo(name).file_size
        except KeyError:
            raise ModelLoadError(f"the model's metadata names {name!r:.80}, which is not in it") from None
        if size > _MOST_LABELS_BYTES:
            raise ModelLoadError(f"the names of the model's classes are {size} bytes long")
        return tuple(files.read(name).decode().splitlines())


def _corners(outputs: list[Any]) -> tuple[int, ...]:
    for output in outputs:
        content = output.Content()
        if content is not None and content.ContentPropertiesType() == _BOX_PROPERTIES:
            box = _schema("metadata_schema").BoundingBoxProperties()
            box.Init(content.ContentProperties().Bytes, content.ContentProperties().Pos)
            if box.IndexLength() == 4:
                order = tuple(int(each) for each in box.IndexAsNumpy())
                if sorted(order) != [0, 1, 2, 3]:
                    raise ValueError(f"corners {order}")
                return order
    return (0, 1, 2, 3)


def _activation(content: bytes) -> Literal["none", "sigmoid", "softmax"]:
    number = _schema("image_segmenter_metadata_schema").ImageSegmenterOptions.GetRootAs(content, 0).Activation()
    return _ACTIVATIONS[number]


def _decoding(content: bytes) -> Decoding:
    options = _schema("object_detector_metadata_schema").ObjectDetectorOptions.GetRootAs(content, 0)
    how, anchors = options.TensorsDecodingOptions(), options.SsdAnchorsOptions().FixedAnchorsSchema()
    scales = how.XScale(), how.YScale(), how.WScale(), how.HScale()
    if how.NumCoords() != 4 or how.NumKeypoints() or how.NumClasses() < 1 or not all(scales):
        raise ModelLoadError("the model's boxes have keypoints, or no classes, or no scale")
    return Decoding(
        anchors=_floats(anchors, how.NumBoxes()),
        scales=scales,
        exponential=bool(how.ApplyExponentialOnBoxSize()),
        sigmoid=bool(how.SigmoidScore()),
        classes=how.NumClasses(),
    )


def _floats(schema: Any, count: int) -> Float32:
    """All anchors at once: one by one, twenty thousand take a tenth of a second."""
    inner = schema._tab
    field = inner.Offset(4)
    if not field or inner.VectorLen(field) != count:
        raise ValueError(f"{inner.VectorLen(field) if field else 0} anchors for {count} boxes")
    content = np.frombuffer(inner.Bytes, np.uint8)
    start = inner.Vector(field)
    places = start + 4 * np.arange(count) + _words(content, start + 4 * np.arange(count), "<u4")
    tables = places - _words(content, places, "<i4")
    found = np.zeros((count, 4), np.float32)
    for column in range(4):
        known = _words(content, tables, "<u2") > 4 + 2 * column
        offsets = np.zeros(count, np.int64)
        offsets[known] = _words(content, tables[known] + 4 + 2 * column, "<u2")
        said = offsets > 0
        found[said, column] = _words(content, places[said] + offsets[said], "<f4", whole=False)
    if not np.isfinite(found).all():
        raise ValueError("anchors that are no numbers")
    return found


def _words(content: Any, places: Any, dtype: str, *, whole: bool = True) -> Any:
    size = np.dtype(dtype).itemsize
    if len(places) and not (places.min() >= 0 and places.max() + size <= len(content)):
        raise IndexError("an offset leads out of the file")
    words = content[places[:, None] + np.arange(size)].copy().view(dtype)[:, 0]
    return words.astype(np.int64) if whole else words
