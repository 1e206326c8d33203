"""Tiny .tflite models, operator by operator: signatures, dimensions of any length, strings, variables, subgraphs that call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_TYPES = {
    "f4": schema.TensorType.FLOAT32, "i4": schema.TensorType.INT32, "i8": schema.TensorType.INT64,
    "u1": schema.TensorType.UINT8, "i1": schema.TensorType.INT8, "b1": schema.TensorType.BOOL, "S": schema.TensorType.STRING,
}  # fmt: skip


@dataclass
class Graph:
    """One subgraph; the methods give numbers of tensors."""

    tensors: list[Any] = field(default_factory=list)
    operators: list[tuple[int, list[int], list[int], Any, Any, int]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    constants: dict[int, bytes] = field(default_factory=dict)

    def tensor(
        self, name: str, kind: str, shape: Sequence[int], *, constant: NDArray[Any] | None = None, variable: bool = False,
        quantized: tuple[float, int] | None = None, is_input: bool = False,
    ) -> int:  # fmt: skip
        made = schema.TensorT()
        made.name, made.type = name, _TYPES[kind]
        made.shape = [max(1, length) for length in shape]
        if -1 in shape:
            made.shapeSignature = list(shape)
        made.isVariable = variable
        made.buffer = 0
        if quantized is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantized[0]], [quantized[1]]
        self.tensors.append(made)
        number = len(self.tensors) - 1
        if constant is not None:
            self.constants[number] = constant.tobytes()
        if is_input:
            self.inputs.append(number)
        return number

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        kind: int = 0,
        version: int = 1,
    ) -> None:
        self.operators.append((code, list(inputs), list(outputs), options, kind, version))


def packed(
    graphs: Sequence[Graph], signatures: dict[str, tuple[int, dict[str, int], dict[str, int]]] | None = None
) -> bytes:
    """The file. Signatures: name to a subgraph's number and its inputs and outputs by name."""
    model = schema.ModelT()
    model.version, model.description = 3, b"tiny"
    model.buffers = [schema.BufferT()]
    codes: list[tuple[int, int]] = []
    model.subgraphs = []
    for graph in graphs:
        made = schema.SubGraphT()
        for number, content in graph.constants.items():
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(content, np.uint8)
            model.buffers.append(buffer)
            graph.tensors[number].buffer = len(model.buffers) - 1
        made.tensors, made.inputs, made.outputs, made.operators = graph.tensors, graph.inputs, graph.outputs, []
        for code, inputs, outputs, options, kind, version in graph.operators:
            if (code, version) not in codes:
                codes.append((code, version))
            operator = schema.OperatorT()
            operator.opcodeIndex, operator.inputs, operator.outputs = codes.index((code, version)), inputs, outputs
            operator.builtinOptionsType, operator.builtinOptions = kind, options
            made.operators.append(operator)
        model.subgraphs.append(made)
    model.operatorCodes = []
    for code, version in codes:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
        model.operatorCodes.append(entry)
    model.signatureDefs = []
    for name, (number, inputs, outputs) in (signatures or {}).items():
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = name, number
        signature.inputs, signature.outputs = [], []
        for made, places in ((signature.inputs, inputs), (signature.outputs, outputs)):
            for key, place in places.items():
                entry = schema.TensorMapT()
                entry.name, entry.tensorIndex = key, place
                made.append(entry)
        model.signatureDefs.append(signature)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def sums(*, rows: int = -1, columns: int = 3) -> bytes:
    """Signatures ``add`` (x + y) and ``negate`` (−x) of float32; rows of any number, unless they are said."""
    add, negate = Graph(), Graph()
    x = add.tensor("main_x:0", "f4", (rows, columns), is_input=True)
    y = add.tensor("main_y:0", "f4", (rows, columns), is_input=True)
    total = add.tensor("main_sum:0", "f4", (rows, columns))
    options = schema.AddOptionsT()
    add.operator(schema.BuiltinOperator.ADD, [x, y], [total], options, schema.BuiltinOptions.AddOptions)
    add.outputs = [total]
    value = negate.tensor("negate_x:0", "f4", (rows, columns), is_input=True)
    turned = negate.tensor("negate_out:0", "f4", (rows, columns))
    negate.operator(
        schema.BuiltinOperator.NEG, [value], [turned], schema.NegOptionsT(), schema.BuiltinOptions.NegOptions
    )
    negate.outputs = [turned]
    return packed(
        [add, negate],
        {"add": (0, {"y": y, "x": x}, {"sum": total}), "negate": (1, {"x": value}, {"out": turned})},
    )


def chosen_words() -> bytes:
    """Byte strings, shape (3,), and two indexes: the strings there."""
    graph = Graph()
    words = graph.tensor("words", "S", (3,), is_input=True)
    places = graph.tensor("places", "i4", (2,), is_input=True)
    found = graph.tensor("found", "S", (2,))
    options = schema.GatherOptionsT()
    graph.operator(
        schema.BuiltinOperator.GATHER, [words, places], [found], options, schema.BuiltinOptions.GatherOptions, 4
    )
    graph.outputs = [found]
    return packed([graph])


def places_of_true() -> bytes:
    """Where an array of four booleans is true: an output whose length only a run tells."""
    graph = Graph()
    given = graph.tensor("given", "b1", (4,), is_input=True)
    found = graph.tensor("found", "i8", (-1, 1))
    graph.operator(
        schema.BuiltinOperator.WHERE, [given], [found], schema.WhereOptionsT(), schema.BuiltinOptions.WhereOptions
    )
    graph.outputs = [found]
    return packed([graph])


def remembering() -> bytes:
    """Gives this and the last number's sum: an SVDF layer with a state of two."""
    graph = Graph()
    one = np.ones(1, np.float32)
    given = graph.tensor("given", "f4", (1, 1), is_input=True)
    features = graph.tensor("features", "f4", (1, 1), constant=one)
    times = graph.tensor("times", "f4", (1, 2), constant=np.ones(2, np.float32))
    state = graph.tensor("state", "f4", (1, 2), variable=True)
    out = graph.tensor("out", "f4", (1, 1))
    options = schema.SVDFOptionsT()
    options.rank = 1
    graph.operator(
        schema.BuiltinOperator.SVDF,
        [given, features, times, -1, state],
        [out],
        options,
        schema.BuiltinOptions.SVDFOptions,
    )
    graph.outputs = [out]
    return packed([graph])


def quantized(kind: str = "i1", scale: float = 0.5, zero_point: int = -3) -> bytes:
    """x + x in whole numbers that stand for real ones."""
    graph = Graph()
    x = graph.tensor("x", kind, (1, 4), quantized=(scale, zero_point), is_input=True)
    out = graph.tensor("out", kind, (1, 4), quantized=(scale * 2, zero_point))
    options = schema.AddOptionsT()
    graph.operator(schema.BuiltinOperator.ADD, [x, x], [out], options, schema.BuiltinOptions.AddOptions, 2)
    graph.outputs = [out]
    return packed([graph])


def constant_out() -> bytes:
    """An output that is a constant of the file, beside one that is computed."""
    graph = Graph()
    x = graph.tensor("x", "f4", (1, 2), is_input=True)
    fixed = graph.tensor("fixed", "f4", (1, 2), constant=np.array([[3, 4]], np.float32))
    out = graph.tensor("out", "f4", (1, 2))
    options = schema.AddOptionsT()
    graph.operator(schema.BuiltinOperator.ADD, [x, fixed], [out], options, schema.BuiltinOptions.AddOptions)
    graph.outputs = [out, fixed]
    return packed([graph])


def circle() -> bytes:
    """A subgraph that calls itself without end."""
    graphs = []
    for _ in range(2):
        graph = Graph()
        condition = graph.tensor("condition", "b1", (1,), is_input=True)
        value = graph.tensor("value", "f4", (1,), is_input=True)
        out = graph.tensor("out", "f4", (1,))
        options = schema.IfOptionsT()
        options.thenSubgraphIndex = options.elseSubgraphIndex = 1
        graph.operator(schema.BuiltinOperator.IF, [condition, value], [out], options, schema.BuiltinOptions.IfOptions)
        graph.outputs = [out]
        graphs.append(graph)
    return packed(graphs)


def deadly() -> bytes:
    """Sound tables around an operator that ends LiteRT's process: a local response normalisation over −1 neighbours."""
    graph = Graph()
    given = graph.tensor("given", "f4", (1, 4, 4, 4), is_input=True)
    out = graph.tensor("out", "f4", (1, 4, 4, 4))
    options = schema.LocalResponseNormalizationOptionsT()
    options.radius = -1
    code, kind = (
        schema.BuiltinOperator.LOCAL_RESPONSE_NORMALIZATION,
        schema.BuiltinOptions.LocalResponseNormalizationOptions,
    )
    graph.operator(code, [given], [out], options, kind)
    graph.outputs = [out]
    return packed([graph])


def endless() -> bytes:
    """A loop that goes on while a number equals itself."""
    main, condition, body = Graph(), Graph(), Graph()
    given = main.tensor("given", "f4", (1,), is_input=True)
    out = main.tensor("out", "f4", (1,))
    options = schema.WhileOptionsT()
    options.condSubgraphIndex, options.bodySubgraphIndex = 1, 2
    main.operator(schema.BuiltinOperator.WHILE, [given], [out], options, schema.BuiltinOptions.WhileOptions)
    main.outputs = [out]
    value = condition.tensor("value", "f4", (1,), is_input=True)
    same = condition.tensor("same", "b1", (1,))
    condition.operator(
        schema.BuiltinOperator.EQUAL, [value, value], [same], schema.EqualOptionsT(), schema.BuiltinOptions.EqualOptions
    )
    condition.outputs = [same]
    value = body.tensor("value", "f4", (1,), is_input=True)
    turned = body.tensor("turned", "f4", (1,))
    body.operator(schema.BuiltinOperator.NEG, [value], [turned], schema.NegOptionsT(), schema.BuiltinOptions.NegOptions)
    body.outputs = [turned]
    return packed([main, condition, body])


def enlarging(side: int) -> bytes:
    """One pixel of 16 floats made ``side`` times ``side`` of them, though the file says nothing of it."""
    graph = Graph()
    given = graph.tensor("given", "f4", (1, 1, 1, 16), is_input=True)
    size = graph.tensor("size", "i4", (2,), constant=np.array([side, side], np.int32))
    out = graph.tensor("out", "f4", (1, 1, 1, 16))
    options = schema.ResizeNearestNeighborOptionsT()
    kind = schema.BuiltinOptions.ResizeNearestNeighborOptions
    graph.operator(schema.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR, [given, size], [out], options, kind)
    graph.outputs = [out]
    return packed([graph])


def sums_by_shape() -> bytes:
    """x + y of float32, of any lengths, where x gets its shape in the run: memory is taken only then."""
    graph, builtin, kinds = Graph(), schema.BuiltinOperator, schema.BuiltinOptions
    x, y = (graph.tensor(name, "f4", (-1, -1), is_input=True) for name in "xy")
    shape, same = (graph.tensor(name, "i4", (2,)) for name in ("shape", "same"))
    nothing = graph.tensor("nothing", "i4", (2,), constant=np.zeros(2, np.int32))
    shaped, total = (graph.tensor(name, "f4", (-1, -1)) for name in ("shaped", "sum"))
    asked = schema.ShapeOptionsT()
    asked.outType = schema.TensorType.INT32
    graph.operator(builtin.SHAPE, [x], [shape], asked, kinds.ShapeOptions)
    graph.operator(builtin.ADD, [shape, nothing], [same], schema.AddOptionsT(), kinds.AddOptions)
    graph.operator(builtin.RESHAPE, [x, same], [shaped], schema.ReshapeOptionsT(), kinds.ReshapeOptions)
    graph.operator(builtin.ADD, [shaped, y], [total], schema.AddOptionsT(), kinds.AddOptions)
    graph.outputs = [total]
    return packed([graph])


def repeated(operators: int, inputs: int) -> bytes:
    """A graph whose operators are all one and the same table, which lists its input many times: little to say, much to read."""
    builder = flatbuffers.Builder(1024)
    listed = builder.CreateNumpyVector(np.zeros(inputs, np.int32))
    none = builder.CreateNumpyVector(np.zeros(0, np.int32))
    one = builder.CreateNumpyVector(np.zeros(1, np.int32))
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, listed)
    schema.OperatorAddOutputs(builder, none)
    operator = schema.OperatorEnd(builder)
    schema.TensorStart(builder)
    tensor = schema.TensorEnd(builder)
    schema.OperatorCodeStart(builder)
    code = schema.OperatorCodeEnd(builder)
    schema.BufferStart(builder)
    buffer = schema.BufferEnd(builder)

    def vector(table: int, count: int) -> int:
        builder.StartVector(4, count, 4)
        for _ in range(count):
            builder.PrependUOffsetTRelative(table)
        return int(builder.EndVector())

    tensors, every = vector(tensor, 1), vector(operator, operators)
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    schema.SubGraphAddInputs(builder, one)
    schema.SubGraphAddOutputs(builder, one)
    schema.SubGraphAddOperators(builder, every)
    graph = schema.SubGraphEnd(builder)
    graphs, codes, buffers = vector(graph, 1), vector(code, 1), vector(buffer, 1)
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, buffers)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())
