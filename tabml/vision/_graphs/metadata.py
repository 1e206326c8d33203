"""What a vision model's metadata say: ranges of pixels, names of classes, how outputs are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tabml._litert import metadata
from tabml._litert.metadata import TensorMetadata, told
from tabml._litert.tables import Flatbuffer, Table
from tabml.errors import ModelLoadError
from tabml.vision._graphs.regions import Float32

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


def read_metadata(model: bytes | memoryview) -> Metadata:
    """The metadata of a .tflite model.

    Raises:
        ModelLoadError: it has none, or none that can be read.
    """
    with told():
        found = metadata.read_metadata(model)
        if found is None:
            raise ModelLoadError("the model has no TFLite metadata, so nothing tells what it takes and answers")
        if any(each.is_calibrated for each in found.outputs):
            raise ModelLoadError("the model wants its scores calibrated, which isn't done here")
        detector, segmenter = (found.custom.get(f"{kind}_METADATA") for kind in ("DETECTOR", "SEGMENTER"))
        low, high = _range(found.inputs[0])
        return Metadata(
            labels=next((each.labels for each in found.outputs if each.labels), ()),
            low=low,
            high=high,
            outputs=tuple(each.name for each in found.outputs),
            decoding=None if detector is None else _decoding(Flatbuffer(detector).root(), detector),
            corners=next((each.corners for each in found.outputs if each.content == "boxes"), (0, 1, 2, 3)),
            activation=None if segmenter is None else _ACTIVATIONS[Flatbuffer(segmenter).root().number(0, "b")],
        )


def _range(tensor: TensorMetadata) -> tuple[float, float]:
    """What black and white become."""
    means, deviations = set(tensor.mean), set(tensor.std)
    if not means and not deviations:
        return 0.0, 1.0
    if len(means) != 1 or len(deviations) != 1 or 0 in deviations:
        raise ModelLoadError("the model wants each colour normalised otherwise, which isn't done here")
    mean, deviation = np.float32(means.pop()), np.float32(deviations.pop())
    return float((np.float32(0) - mean) / deviation), float((np.float32(255) - mean) / deviation)


def _decoding(options: Table, content: bytes) -> Decoding:
    """Source: MediaPipe's ``object_detector_metadata_schema.fbs``."""
    anchors, how = options.table(1), options.table(2)
    anchors = anchors.table(0) if anchors is not None else None
    if anchors is None or how is None:
        raise ValueError("no anchors")
    classes, boxes, coordinates, _, keypoints = (how.number(field, "i") for field in range(5))
    x, y, width, height = (float(how.number(field, "f")) for field in range(6, 10))
    if coordinates != 4 or keypoints or classes < 1 or not (x and y and width and height):
        raise ModelLoadError("the model's boxes have keypoints, or no classes, or no scale")
    return Decoding(
        anchors=_anchors(anchors, content, boxes),
        scales=(x, y, width, height),
        exponential=bool(how.number(10, "?")),
        sigmoid=bool(how.number(11, "?")),
        classes=classes,
    )


def _anchors(schema: Table, content: bytes, count: int) -> Float32:
    """All at once: one by one, twenty thousand take a tenth of a second."""
    start, length = schema.vector(0, 4) or (0, 0)
    if length != count:
        raise ValueError(f"{length} anchors for {count} boxes")
    raw = np.frombuffer(content, np.uint8)
    places = start + 4 * np.arange(count) + _words(raw, start + 4 * np.arange(count), "<u4")
    tables = places - _words(raw, places, "<i4")
    found = np.zeros((count, 4), np.float32)
    for column in range(4):
        known = _words(raw, tables, "<u2") > 4 + 2 * column
        offsets = np.zeros(count, np.int64)
        offsets[known] = _words(raw, tables[known] + 4 + 2 * column, "<u2")
        said = offsets > 0
        found[said, column] = _words(raw, places[said] + offsets[said], "<f4", whole=False)
    if not np.isfinite(found).all():
        raise ValueError("anchors that are no numbers")
    return found


def _words(content: Any, places: Any, dtype: str, *, whole: bool = True) -> Any:
    size = np.dtype(dtype).itemsize
    if len(places) and not (places.min() >= 0 and places.max() + size <= len(content)):
        raise IndexError("an offset leads out of the file")
    words = content[places[:, None] + np.arange(size)].copy().view(dtype)[:, 0]
    return words.astype(np.int64) if whole else words
