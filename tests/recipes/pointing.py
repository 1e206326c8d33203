"""Segmenters of MagicTouch's interface, a few kilobytes large: they find what looks like the place that is marked.

One picture of four channels goes in, the fourth with marks. Metadata say how it is normalised and what makes confidences
of the answer, as in MediaPipe's own model.
"""

from __future__ import annotations

from typing import Any, Literal

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as lite
from mediapipe.tasks.metadata import image_segmenter_metadata_schema_py_generated as segmenter
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata

Op = lite.BuiltinOperator
_ACTIVATIONS = {"none": 0, "sigmoid": 1, "softmax": 2}


class _Network:
    """A .tflite file in the making."""

    def __init__(self) -> None:
        self.model = lite.ModelT()
        self.model.version, self.model.operatorCodes, self.model.metadata = 3, [], []
        self.model.buffers = [lite.BufferT()]  # the first one is empty, by convention
        self.graph = lite.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, shape: tuple[int, ...], values: Any = None) -> int:
        """A tensor of float32, or a constant of its values' own dtype."""
        made = lite.TensorT()
        made.name, made.shape, made.type, made.buffer = f"t{len(self.graph.tensors)}", list(shape), 0, 0
        if values is not None:
            array = np.asarray(values)
            made.type = {"f": lite.TensorType.FLOAT32, "i": lite.TensorType.INT32}[array.dtype.kind]
            made.buffer = self.buffer(array.tobytes())
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def buffer(self, content: bytes) -> int:
        made = lite.BufferT()
        made.data = np.frombuffer(content, np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1

    def number(self, value: float) -> int:
        return self.tensor((), np.float32(value))

    def op(self, name: str, inputs: list[int], shape: tuple[int, ...], **said: Any) -> int:
        """An operator; gives the tensor it answers with."""
        code = lite.OperatorCodeT()
        code.builtinCode = getattr(Op, name.upper())
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        options = {"sum": "Reducer"}.get(name, "".join(part.capitalize() for part in name.split("_"))) + "Options"
        made = lite.OperatorT()
        made.opcodeIndex, made.inputs = len(self.model.operatorCodes) - 1, inputs
        made.outputs = [self.tensor(shape)]
        made.builtinOptionsType = getattr(lite.BuiltinOptions, options)
        made.builtinOptions = getattr(lite, options + "T")()
        for key, value in said.items():
            setattr(made.builtinOptions, key, value)
        self.graph.operators.append(made)
        found: int = made.outputs[0]
        return found

    def finish(self, given: int, answer: int, notes: bytes) -> bytes:
        self.graph.inputs, self.graph.outputs = [given], [answer]
        entry = lite.MetadataT()
        entry.name, entry.buffer = "TFLITE_METADATA", self.buffer(notes)
        self.model.metadata = [entry]
        builder = flatbuffers.Builder(4096)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def pointing(
    masks: Literal[1, 2, 4] = 1,
    *,
    side: int = 512,
    activation: Literal["none", "sigmoid", "softmax"] = "sigmoid",
    mean: float = 0.0,
    deviation: float = 255.0,
    channels: int = 4,
) -> bytes:
    """The model.

    Args:
        masks: 1: what has the colour of what is marked; 2: everything else, and that; 4: what it was given, as it is.
        side: Of its input and answer, pixels.
        activation: What its metadata ask for.
        mean: What is taken from each value, 0 to 255.
        deviation: By what they are divided then.
        channels: Of its input; 4 in a real one.
    """
    net = _Network()
    whole, plane = (1, side, side, channels), (1, side, side, 1)
    given = net.tensor(whole)
    if masks == 4:
        answer = net.op("mul", [given, net.number(1)], whole)
    else:
        answer = _alike(net, given, side, -mean / deviation)
        if masks == 2:
            other = net.op("mul", [answer, net.number(-1)], plane)
            answer = net.op("concatenation", [other, answer], (1, side, side, 2), axis=3)
    return net.finish(given, answer, _notes(mean, deviation, activation))


def _alike(net: _Network, given: int, side: int, black: float) -> int:
    """8 where the colour is the marked places' mean colour, less the further it is from it."""
    plane, colours = (1, side, side, 1), (1, side, side, 3)
    places, last = net.tensor((2,), np.array([1, 2], np.int32)), net.tensor((1,), np.array([3], np.int32))

    def part(start: int, count: int, shape: tuple[int, ...]) -> int:
        begin = net.tensor((4,), np.array([0, 0, 0, start], np.int32))
        return net.op("slice", [given, begin, net.tensor((4,), np.array([1, side, side, count], np.int32))], shape)

    rgb = part(0, 3, colours)
    marks = net.op("sub", [part(3, 1, plane), net.number(black)], plane)
    total = net.op("sum", [marks, places], (1, 1, 1, 1), keepDims=True)
    summed = net.op("sum", [net.op("mul", [rgb, marks], colours), places], (1, 1, 1, 3), keepDims=True)
    wanted = net.op("div", [summed, net.op("add", [total, net.number(1e-6)], (1, 1, 1, 1))], (1, 1, 1, 3))
    apart = net.op("sum", [net.op("squared_difference", [rgb, wanted], colours), last], plane, keepDims=True)
    return net.op("sub", [net.number(8), net.op("mul", [apart, net.number(150)], plane)], plane)


def _notes(mean: float, deviation: float, activation: str) -> bytes:
    """TFLITE_METADATA: how the picture is normalised, and the activation."""
    options = metadata.NormalizationOptionsT()
    options.mean, options.std = [mean], [deviation]
    unit = metadata.ProcessUnitT()
    unit.optionsType, unit.options = metadata.ProcessUnitOptions.NormalizationOptions, options
    picture = metadata.ImagePropertiesT()
    picture.colorSpace = metadata.ColorSpaceType.RGB
    content = metadata.ContentT()
    content.contentPropertiesType, content.contentProperties = metadata.ContentProperties.ImageProperties, picture
    taken, answered = metadata.TensorMetadataT(), metadata.TensorMetadataT()
    taken.name, taken.content, taken.processUnits, answered.name = "image", content, [unit], "masks"
    how = segmenter.ImageSegmenterOptionsT()
    how.activation = _ACTIVATIONS[activation]
    inner = flatbuffers.Builder(64)
    inner.Finish(how.Pack(inner), b"V001")
    custom = metadata.CustomMetadataT()
    custom.name, custom.data = "SEGMENTER_METADATA", np.frombuffer(bytes(inner.Output()), np.uint8)
    graph = metadata.SubGraphMetadataT()
    graph.inputTensorMetadata, graph.outputTensorMetadata, graph.customMetadata = [taken], [answered], [custom]
    model = metadata.ModelMetadataT()
    model.name, model.subgraphMetadata = "pointing", [graph]
    builder = flatbuffers.Builder(512)
    builder.Finish(model.Pack(builder), b"M001")
    return bytes(builder.Output())
