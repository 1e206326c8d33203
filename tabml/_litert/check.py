"""A .tflite file nobody vouches for, looked at before LiteRT is: a pure-Python walk over all it says about itself.

LiteRT checks that offsets lead somewhere. What it takes on trust is checked here: that constants are as long as their
shapes say, that every number of a tensor, buffer, operator or subgraph is one there is, that nothing is used before it
is computed or written that can't be, that subgraphs don't call each other in circles. What only an operator's own code
can find is left to :mod:`tabml._litert.probe`.

Source of the numbers of fields and of the enumerations: TFLite's ``schema.fbs``, version 3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tabml._litert.tables import Flatbuffer, Table
from tabml.errors import CorruptModelError, UnsafeModelError

MAX_TENSOR_BYTES = 4 << 30
"""Of one tensor."""
_IDENTIFIER = b"TFL3"
_MAX_SUBGRAPHS, _MAX_RANK = 1024, 32
_BITS = (32, 16, 32, 8, 64, 0, 8, 16, 64, 8, 64, 128, 64, 0, 0, 32, 16, 4, 16, 2, 4, 8, 8)
"""Of an element of each type; 0 where they have no fixed size: strings, resources, variants."""
_STRING, _RESOURCE, _VARIANT = 5, 13, 14
_OPERATOR_CODES, _SUBGRAPHS, _BUFFERS, _METADATA_BUFFERS, _METADATA, _SIGNATURES, _EXTERNAL = 1, 2, 4, 5, 6, 7, 9
_CALLS = {31: (("I", 0),), 118: (("i", 0), ("i", 1)), 119: (("i", 0), ("i", 1)), 129: (("i", 0),)}
"""CALL, IF, WHILE, CALL_ONCE: where their options name subgraphs."""
_CALLS_OF_STABLEHLO = {200: (("i", 0), ("i", 1)), 206: (("i", 1),)}
"""STABLEHLO_WHILE and STABLEHLO_COMPOSITE: the same, in the second kind of options."""
_CUSTOM = 32


def check_tflite(content: bytes | memoryview) -> None:
    """Nothing, when the file is one that contradicts itself nowhere; a few milliseconds.

    Raises:
        CorruptModelError: it is cut short, or contradicts itself.
        UnsafeModelError: it wants weights out of other files.
    """
    if len(content) < 8 or bytes(content[4:8]) != _IDENTIFIER:
        raise CorruptModelError("it is not a .tflite file")
    _Walk(Flatbuffer(content)).model()


def _refuse(problem: str) -> None:
    raise CorruptModelError(problem)


class _Walk:
    """One file, and what has been seen of it."""

    def __init__(self, file: Flatbuffer) -> None:
        self._file = file
        self._lengths: list[int] = []
        self._starts: list[int] = []
        self._codes: list[int] = []
        self._sizes: list[int] = []  # tensors of each subgraph
        self._called: list[set[int]] = []

    def model(self) -> None:
        root = self._file.root()
        if root.number(0, "I") != 3:
            _refuse(f"it is of version {root.number(0, 'I')}, not 3")
        if root.count(_EXTERNAL):
            raise UnsafeModelError("it wants weights out of other files")
        for buffer in root.tables(_BUFFERS):
            self._buffer(buffer)
        for code in root.tables(_OPERATOR_CODES):
            number = max(code.number(0, "b"), code.number(3, "i"))
            if number < 0 or (number == _CUSTOM and code.content(1) is None):
                _refuse(f"an operator of it has the code {number}, or no name")
            self._codes.append(number)
        graphs = list(root.tables(_SUBGRAPHS))
        if not 1 <= len(graphs) <= _MAX_SUBGRAPHS:
            _refuse(f"it has {len(graphs)} subgraphs")
        self._sizes = [graph.count(0) for graph in graphs]
        for number, graph in enumerate(graphs):
            self._graph(graph, f"subgraph {number}")
        self._no_circles()
        for signature in root.tables(_SIGNATURES):
            self._signature(signature, graphs)
        for entry in root.tables(_METADATA):
            entry.content(0)
            self._one_of(entry.number(1, "I"), len(self._lengths), "metadata", "buffer")
        for number in root.whole(_METADATA_BUFFERS):
            self._one_of(number, len(self._lengths), "metadata", "buffer")

    def _one_of(self, number: int, count: int, where: str, what: str) -> int:
        if not 0 <= number < count:
            _refuse(f"{where} names {what} {number} of {count}")
        return number

    def _buffer(self, buffer: Table) -> None:
        """Inside of the tables, or (in files of more than 2 GB) behind them."""
        start, length = buffer.vector(0, 1) or (0, 0)
        offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
        if offset > 1 or size > 1:
            self._file.within(offset, size)
            start, length = offset, size
        self._starts.append(start)
        self._lengths.append(length)

    def _graph(self, graph: Table, where: str) -> None:
        tensors = [self._tensor(each, f"{where}, tensor {at}") for at, each in enumerate(graph.tables(0))]
        inputs, outputs = graph.whole(1), graph.whole(2)
        for number in (*inputs, *outputs):
            self._one_of(number, len(tensors), where, "tensor")
        if len(set(inputs)) != len(inputs):
            _refuse(f"{where} has an input twice")
        if any(tensors[number] == "constant" for number in inputs):
            _refuse(f"an input of {where} is a constant")
        known = {at for at, kind in enumerate(tensors) if kind != "computed"} | set(inputs)
        fixed = {at for at, kind in enumerate(tensors) if kind == "constant"}
        calls: set[int] = set()
        for at, operator in enumerate(graph.tables(3)):
            self._operator(operator, f"{where}, operator {at}", len(tensors), known, fixed, calls)
        if not known.issuperset(outputs):
            _refuse(f"an output of {where} is never computed")
        self._called.append(calls)

    def _operator(
        self, operator: Table, where: str, count: int, known: set[int], fixed: set[int], calls: set[int]
    ) -> None:
        code = self._codes[self._one_of(operator.number(0, "I"), len(self._codes), where, "code")]
        inputs, outputs = operator.whole(1), operator.whole(2)
        for number in (*inputs, *outputs, *operator.whole(8)):
            if number != -1:
                self._one_of(number, count, where, "tensor")
        if not known.issuperset(number for number in inputs if number != -1):
            _refuse(f"{where} uses a tensor before it is computed")
        if not fixed.isdisjoint(outputs):
            _refuse(f"{where} would write a constant")
        known.update(outputs)
        mutating = operator.vector(7, 1)
        if mutating is not None and mutating[1] not in (0, len(inputs)):
            _refuse(f"{where} changes {mutating[1]} of {len(inputs)} inputs")
        first, second = operator.table(4), operator.table(12)
        operator.vector(5, 1)
        offset, size = operator.number(9, "Q"), operator.number(10, "Q")
        if offset > 1 or size > 1:
            self._file.within(offset, size)
        for options, places in ((first, _CALLS.get(code, ())), (second, _CALLS_OF_STABLEHLO.get(code, ()))):
            for kind, field in places:
                number = options.number(field, kind) if options is not None else 0
                calls.add(self._one_of(number, len(self._sizes), where, "subgraph"))

    def _tensor(self, tensor: Table, where: str) -> str:
        """``constant``, ``variable`` or ``computed``; ``empty`` when it has no elements that could be read."""
        kind = tensor.number(1, "b")
        if not 0 <= kind < len(_BITS):
            _refuse(f"{where} is of type {kind}")
        shape = tensor.whole(0)
        if len(shape) > _MAX_RANK or min(shape, default=0) < 0:
            _refuse(f"{where} has the shape {list(shape)[:_MAX_RANK]}")
        elements = math.prod(shape)
        size = -(-elements * (_BITS[kind] or 8) // 8)
        if size > MAX_TENSOR_BYTES:
            _refuse(f"{where} would need {size} bytes")
        signature = tensor.whole(7)
        if signature and (
            len(signature) != len(shape) or any(a not in (-1, b) for a, b in zip(signature, shape, strict=True))
        ):
            _refuse(f"{where} has the shape {list(shape)} and the signature {list(signature)[:_MAX_RANK]}")
        tensor.content(3)
        number = self._one_of(tensor.number(2, "I"), len(self._lengths), where, "buffer")
        length = self._lengths[number]
        self._quantization(tensor.table(4), shape, where)
        sparsity = tensor.table(6)
        if sparsity is not None:
            self._sparsity(sparsity, len(shape), where)
        elif length and kind == _STRING:
            self._strings(self._starts[number], length, elements, where)
        elif length and kind not in (_RESOURCE, _VARIANT) and length != size:
            _refuse(f"{where} has {length} bytes, not the {size} of its shape {list(shape)}")
        if tensor.number(5, "?"):
            return "variable"
        return "constant" if length else "computed" if elements else "empty"

    def _quantization(self, found: Table | None, shape: tuple[int, ...], where: str) -> None:
        if found is None:
            return
        scales, zeros = found.numbers(2, "<f4"), found.numbers(3, "<i8")
        found.table(5)
        count = 0 if scales is None else len(scales)
        if scales is not None and not np.isfinite(scales).all():
            _refuse(f"{where} has a scale that is no number")
        if zeros is not None and len(zeros) not in (0, 1, count):
            _refuse(f"{where} has {count} scales and {len(zeros)} zero points")
        if count > 1:
            axis = self._one_of(found.number(6, "i"), len(shape), where, "axis")
            if shape[axis] != count:
                _refuse(f"{where} has {count} scales for {shape[axis]} channels")

    def _sparsity(self, found: Table, rank: int, where: str) -> None:
        order, blocks = found.whole(0), found.whole(1)
        axes = sum(1 for _ in found.tables(2))
        if len(order) != axes or sorted(order) != list(range(axes)) or axes != rank + len(blocks):
            _refuse(f"{where} is sparse along {list(order)[:_MAX_RANK]}, with {axes} axes")

    def _strings(self, start: int, length: int, elements: int, where: str) -> None:
        """Their number, where each begins and the last one ends, and then they."""
        words = np.frombuffer(self._file.content, np.uint8, length, start)
        count = int(words[:4].view("<i4")[0]) if length >= 4 else -1
        if count != elements or 4 * (count + 2) > length:
            _refuse(f"{where} has {count} strings, not {elements}")
        places: Any = words[4 : 4 * (count + 2)].copy().view("<i4")
        if places[0] < 4 * (count + 2) or places[-1] > length or (np.diff(places) < 0).any():
            _refuse(f"{where} has strings outside of it")

    def _no_circles(self) -> None:
        """Subgraphs that call none but those that ended already, and so on until none is left."""
        left = dict(enumerate(self._called))
        while left:
            ended = [number for number, calls in left.items() if not calls & left.keys()]
            if not ended:
                _refuse(f"its subgraphs {sorted(left)[:8]} call each other in a circle")
            for number in ended:
                del left[number]

    def _signature(self, signature: Table, graphs: list[Table]) -> None:
        number = self._one_of(signature.number(4, "I"), len(graphs), "a signature", "subgraph")
        if not signature.content(2):
            _refuse("a signature has no name")
        for field in (0, 1):
            places = set(graphs[number].whole(field + 1))
            for entry in signature.tables(field):
                if not entry.content(0) or entry.number(1, "I") not in places:
                    _refuse(f"a signature names tensor {entry.number(1, 'I')}, which is none of its subgraph's")
