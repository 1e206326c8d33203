"""Whole pictures: their classes, and vectors that are near each other where pictures are alike."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tabml._litert import LiteGraph
from tabml._litert.metadata import told
from tabml.errors import ModelLoadError
from tabml.vision._graphs.graph import Graph, PictureInput
from tabml.vision._graphs.metadata import read_metadata
from tabml.vision._graphs.regions import Float32, Pixels

_FULLY_CONNECTED = 9  # of BuiltinOperator in TFLite's schema
_OPERATOR_CODES, _SUBGRAPHS = 1, 2  # fields of a Model
_OUTPUTS, _OPERATORS = 2, 3  # of a SubGraph
_CODE, _INPUTS = 0, 1  # of an Operator
_BUILTIN_CODE = 3  # of an OperatorCode


class VectorGraph(Graph):
    """Answers with one vector a picture: float32, shape (n,)."""

    def __init__(self, model: bytes | memoryview, *, threads: int, features: bool | None = False) -> None:
        """Load a model with TFLite metadata, one picture in and one vector out.

        Args:
            model: The bytes of a .tflite file.
            threads: How many threads share one call.
            features: True for what the model's last fully connected layer is given instead of its output; None for
                that where the model has names of classes.

        Raises:
            ModelLoadError: LiteRT refused the model, or it is another kind.
        """
        content = bytes(model)
        metadata = read_metadata(content)
        self.labels = metadata.labels
        """Names of the classes; empty when the model has none."""
        if features is None:
            features = bool(metadata.labels)
        self._graph = LiteGraph(features_instead(content) if features else content, threads=threads)
        super().__init__(self._graph)
        try:
            self._input = PictureInput(self._graph, low=metadata.low, high=metadata.high)
            shapes = [spec.shape for spec in self._graph.outputs]
            if len(shapes) != 1 or int(np.prod(shapes[0])) != max(shapes[0], default=0) or max(shapes[0]) < 1:
                raise ModelLoadError(f"a model of another kind: it answers with {shapes}, not with one vector")
            self.size = max(shapes[0])
            """How long the vector is."""
        except ModelLoadError:
            self.close()
            raise
        self._spec = self._graph.outputs[0]

    def _find(self, pixels: Pixels, after_ms: int) -> Float32:
        return self._graph.run([self._input.of(pixels)], self._vector)

    def _vector(self, out: Sequence[Any]) -> Float32:
        values = np.array(out[0], np.float32).ravel()
        if self._spec.scale:
            values = (values - np.float32(self._spec.zero_point)) * np.float32(self._spec.scale)
        return values


def features_instead(model: bytes) -> bytes:
    """The model with another output: what its last fully connected layer is given.

    Raises:
        ModelLoadError: it has no such layer, or is no model.
    """
    with told():
        places = _places(model)
    if places is None:
        raise ModelLoadError("the model has no fully connected layer; take its output (layer='output')")
    output, tensor = places
    return model[:output] + struct.pack("<i", tensor) + model[output + 4 :]


def _places(model: bytes) -> tuple[int, int] | None:
    """Where the number of the model's output tensor lies in the file, and the number of the features' tensor."""
    from flatbuffers.table import Table

    def rows(owner: Any, field: int) -> Iterator[Any]:
        at = owner.Offset(4 + 2 * field)
        for index in range(owner.VectorLen(at) if at else 0):
            yield Table(model, owner.Indirect(owner.Vector(at) + 4 * index))

    def number(owner: Any, field: int, kind: str) -> int:
        at = owner.Offset(4 + 2 * field)
        return int(struct.unpack_from(kind, model, owner.Pos + at)[0]) if at else 0

    root = Table(model, struct.unpack_from("<I", model)[0])
    codes = [number(each, _BUILTIN_CODE, "<i") or number(each, 0, "<b") for each in rows(root, _OPERATOR_CODES)]
    graph = next(rows(root, _SUBGRAPHS), None)
    if graph is None:
        return None
    outputs = graph.Offset(4 + 2 * _OUTPUTS)
    layers = [each for each in rows(graph, _OPERATORS) if codes[number(each, _CODE, "<I")] == _FULLY_CONNECTED]
    if not layers or not outputs or graph.VectorLen(outputs) != 1:
        return None
    (tensor,) = struct.unpack_from("<i", model, layers[-1].Vector(layers[-1].Offset(4 + 2 * _INPUTS)))
    return int(graph.Vector(outputs)), int(tensor)
