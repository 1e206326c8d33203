"""A .tflite file written anew, so that a quantiser sees all of it: in today's spelling, its weights as float32.

Older files keep an operator's code only in a field that today's quantiser doesn't read, and half-precision weights
come with an operator that widens them; the quantiser passes over both without a word. What a file carries behind its
tables (labels) is lost when it is written anew, and is put back here.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tabml._litert.bundle import member, open_bundle
from tabml.errors import CapacityError, ModelLoadError

SIGNATURE = "serving_default"
"""The name of the signature that a model without one is given for as long as it is worked on."""
MAX_BYTES = (2 << 30) - (64 << 20)
"""Of one file: a flatbuffer's offsets end at 2 GiB."""
_IDENTIFIER = b"TFL3"
_WIDENING = 6  # DEQUANTIZE
_FLOAT32, _FLOAT16 = 0, 1
_STORED = {9: 8, 3: 8, 7: 16, 17: 4, 19: 2}  # INT8, UINT8, INT16, INT4, INT2, in bits


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's constants are stored as; small ones (less than 256 elements) aren't counted."""

    plain: int
    """Elements stored as floats."""
    quantised: int
    """Elements stored as scaled whole numbers."""

    @property
    def share(self) -> float:
        """Of the elements that are quantised, 0 to 1."""
        return self.quantised / max(self.plain + self.quantised, 1)


def weights_of(model: bytes) -> Weights:
    """Count the elements of a model's constants."""
    root = _read(model)
    plain = quantised = 0
    seen: set[int] = set()
    for graph in root.subgraphs:
        for tensor in graph.tensors:
            size = _elements(tensor)
            if tensor.buffer in seen or size < 256 or not _has_data(root.buffers[tensor.buffer]):
                continue
            seen.add(tensor.buffer)
            if tensor.type in (_FLOAT32, _FLOAT16):
                plain += size
            elif tensor.type in _STORED and _is_scaled(tensor):
                quantised += size
    return Weights(plain, quantised)


def modern(model: bytes) -> bytes:
    """The model in today's spelling, half-precision weights widened, with a signature.

    Raises:
        CapacityError: it would be larger than a file can be.
    """
    root = _read(model)
    for code in root.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    for graph in root.subgraphs:
        _widen(root, graph)
    if not root.signatureDefs:
        root.signatureDefs = [_signature(root.subgraphs[0])]
    return _packed(root)


def finished(model: bytes, original: bytes) -> bytes:
    """A model made of :func:`modern`, with the names, the signatures and the files of the original.

    Raises:
        CapacityError: it would be larger than a file can be.
        CorruptModelError: the original's files can't be read.
    """
    root, before = _read(model), _read(original)
    if not before.signatureDefs:
        root.signatureDefs = []
    for graph, was in zip(root.subgraphs, before.subgraphs, strict=False):
        _rename(graph, was)
    content = _packed(root)
    try:
        archive = open_bundle(original)
    except ModelLoadError:
        return content
    with archive, io.BytesIO() as out:
        out.write(content)
        with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as added:  # as TFLite's readers want them
            for name in archive.namelist():
                added.writestr(zipfile.ZipInfo(name), member(archive, name))
        return out.getvalue()


def _read(model: bytes) -> Any:
    """The model as objects, constants that lie behind the tables among them."""
    root = schema.ModelT.InitFromPackedBuf(model)
    for buffer in root.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return root


def _rename(graph: Any, was: Any) -> None:
    """Outputs by their old names, where an operator put before them took those."""
    for number, old in zip(graph.outputs, was.outputs, strict=False):
        name = was.tensors[old].name
        for tensor in graph.tensors:
            if tensor.name == name and tensor is not graph.tensors[number]:
                tensor.name = name + b"_inner"
        graph.tensors[number].name = name


def _widen(root: Any, graph: Any) -> None:
    """Half-precision constants as float32 ones, without the operators that widen them."""
    left = []
    for operator in graph.operators:
        if root.operatorCodes[operator.opcodeIndex].builtinCode == _WIDENING:
            narrow, wide = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
            data = root.buffers[narrow.buffer].data
            if narrow.type == _FLOAT16 and data is not None and len(data) and narrow.sparsity is None:
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(bytes(data), "<f2").astype("<f4").view(np.uint8)
                root.buffers.append(buffer)
                wide.buffer = len(root.buffers) - 1
                continue
        left.append(operator)
    graph.operators = left
    used = {number for operator in left for number in operator.inputs} | set(graph.outputs)
    needed = {tensor.buffer for number, tensor in enumerate(graph.tensors) if number in used}
    for number, tensor in enumerate(graph.tensors):
        if number not in used and tensor.type == _FLOAT16 and tensor.buffer not in needed:
            tensor.buffer = 0  # by the format's rule empty
    _drop_unused(root)


def _drop_unused(root: Any) -> None:
    """Empty the buffers that nothing names any more."""
    named = {tensor.buffer for graph in root.subgraphs for tensor in graph.tensors}
    named |= {entry.buffer for entry in root.metadata or ()} | set(map(int, _listed(root.metadataBuffer)))
    for number, buffer in enumerate(root.buffers):
        if number not in named:
            buffer.data = None


def _listed(numbers: Any) -> list[int]:
    return [] if numbers is None else list(numbers)


def _signature(graph: Any) -> Any:
    """One that calls the graph's inputs and outputs by their tensors' names."""
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = SIGNATURE.encode(), 0
    made.inputs = [_mapping(graph, number) for number in graph.inputs]
    made.outputs = [_mapping(graph, number) for number in graph.outputs]
    return made


def _mapping(graph: Any, number: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = graph.tensors[number].name, int(number)
    return made


def _packed(root: Any) -> bytes:
    size = sum(len(buffer.data) for buffer in root.buffers if buffer.data is not None)
    if size > MAX_BYTES:
        raise CapacityError(f"the model's constants are {size} bytes long as float32; a file has room for {MAX_BYTES}")
    builder = flatbuffers.Builder(size + (1 << 16))
    builder.Finish(root.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _elements(tensor: Any) -> int:
    return 0 if tensor.shape is None else int(np.prod(tensor.shape, dtype=np.int64))


def _has_data(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0


def _is_scaled(tensor: Any) -> bool:
    found = tensor.quantization
    return found is not None and (found.details is not None or (found.scale is not None and len(found.scale) > 0))
