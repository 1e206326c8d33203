"""What is in a .tflite file: how it is called, what it computes, where its bytes are; read without running it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from tabml._litert.bundle import chosen
from tabml._litert.check import check_tflite
from tabml._litert.metadata import ModelMetadata, read_metadata
from tabml._litert.signatures import Places, read_signatures
from tabml._litert.tables import Flatbuffer, Table
from tabml._litert.vocabulary import operator_names, type_names
from tabml.errors import ModelLoadError
from tabml.files import FileProvider, FileRef, load_model


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a model."""

    name: str
    """As the file calls it."""
    dtype: str
    """``float32``, ``int8``, ``int4`` and so on."""
    shape: tuple[int, ...]
    """Its dimensions; −1 where any length will do."""
    constant_bytes: int
    """How long its values are in the file; 0 where they are computed."""
    scales: int
    """Of quantised values: how many scales there are; 1 for the whole tensor, else one for each channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureInfo:
    """One way of calling a model."""

    name: str
    """Empty for the graph itself, whose tensors go by their own names."""
    inputs: tuple[TensorInfo, ...]
    """In the model's order; named as the signature names them."""
    outputs: tuple[TensorInfo, ...]
    """See ``inputs``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a .tflite file says about itself."""

    bytes: int
    """Of the whole file."""
    sha256: str
    """Its checksum."""
    signatures: tuple[SignatureInfo, ...]
    """The ways of calling it."""
    operators: dict[str, int]
    """How many of each kind, the most frequent first."""
    weights: dict[str, int]
    """Bytes of constants, by type, the largest first."""
    tensors: tuple[TensorInfo, ...]
    """All of them, subgraph by subgraph."""
    metadata: ModelMetadata | None
    """What its makers say; None when they say nothing, or nothing that can be read."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; of the metadata only names, and how many labels an output has."""
        found = {each: getattr(self, each) for each in ("bytes", "sha256", "operators", "weights")}
        return {
            **found,
            "signatures": [asdict(each) for each in self.signatures],
            "tensors": [asdict(each) for each in self.tensors],
            "metadata": None if self.metadata is None else _said(self.metadata),
        }


def inspect_model(
    model: str | os.PathLike[str] | FileRef | bytes | memoryview,
    *,
    member: str | None = None,
    files: FileProvider | None = None,
) -> Inspection:
    """Read a .tflite file's tables. Nothing of it is run, and no offset in it is followed that leads out of it.

    Args:
        model: A name of the catalog, a path, a file of ``files``, or the file's bytes.
        member: Which .tflite file of a .task bundle; needed where it has several.
        files: Where model files come from; the default provider when None.

    Raises:
        CorruptModelError: it is no such file, is cut short, or contradicts itself.
        UnsafeModelError: it wants weights out of other files.
        OptionError: ``member`` names none of its files, or must name one.
        ModelFileNotFoundError: there is no such model.
    """
    given = model if isinstance(model, bytes | memoryview) else load_model(model, files=files)
    name = f"model of {len(model)} bytes" if given is model else f"model={str(model)[:200]!r}"
    content = bytes(chosen(given, member, name=name))
    check_tflite(content)
    root = Flatbuffer(content).root()
    codes = [_kind(each) for each in root.tables(1)]
    sizes = [max((buffer.vector(0, 1) or (0, 0))[1], _outside(buffer)) for buffer in root.tables(4)]
    graphs = list(root.tables(2))
    tensors = [[_tensor(each, sizes) for each in graph.tables(0)] for graph in graphs]
    kinds = Counter(codes[operator.number(0, "I")] for graph in graphs for operator in graph.tables(3))
    weights: Counter[str] = Counter()
    for graph, found in zip(graphs, tensors, strict=True):
        once = {each.number(2, "I"): info for each, info in zip(graph.tables(0), found, strict=True)}
        for info in once.values():
            weights[info.dtype] += info.constant_bytes
    try:
        metadata = read_metadata(content)
    except ModelLoadError:
        metadata = None
    return Inspection(
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        signatures=_signatures(content, graphs, tensors),
        operators=dict(kinds.most_common()),
        weights={name: size for name, size in weights.most_common() if size},
        tensors=tuple(info for found in tensors for info in found),
        metadata=metadata,
    )


def _outside(buffer: Table) -> int:
    """How long a buffer is that lies behind the tables."""
    size: int = buffer.number(2, "Q")
    return size if buffer.number(1, "Q") > 1 else 0


def _kind(code: Table) -> str:
    number = max(code.number(0, "b"), code.number(3, "i"))
    name = operator_names().get(number, f"operator {number}")
    return f"{name} {code.text(1)}" if name == "CUSTOM" else name


def _tensor(tensor: Table, sizes: list[int]) -> TensorInfo:
    scaled = tensor.table(4)
    scales = scaled.numbers(2, "<f4") if scaled is not None else None
    return TensorInfo(
        name=tensor.text(3),
        dtype=type_names().get(tensor.number(1, "b"), "unknown"),
        shape=tensor.whole(7) or tensor.whole(0),
        constant_bytes=sizes[tensor.number(2, "I")],
        scales=0 if scales is None else len(scales),
    )


def _signatures(content: bytes, graphs: list[Table], tensors: list[list[TensorInfo]]) -> tuple[SignatureInfo, ...]:
    """Those the file names, or else the first subgraph."""
    main, first = graphs[0], tensors[0]
    given, got = main.whole(1), main.whole(2)
    own = Places("", 0, given, got, tuple(first[each].name for each in given), tuple(first[each].name for each in got))
    found = list(read_signatures(content, own))
    return tuple(
        SignatureInfo(
            name=places.name,
            inputs=_named(tensors[places.graph], places.inputs, places.input_names),
            outputs=_named(tensors[places.graph], places.outputs, places.output_names),
        )
        for places in (found[1:] or found)
    )


def _named(tensors: list[TensorInfo], numbers: tuple[int, ...], names: tuple[str, ...]) -> tuple[TensorInfo, ...]:
    return tuple(replace(tensors[number], name=name) for number, name in zip(numbers, names, strict=True))


def _said(metadata: ModelMetadata) -> dict[str, Any]:
    fields = {each: getattr(metadata, each) for each in ("name", "description", "version", "author", "license")}
    return {
        **fields,
        "files": list(metadata.files),
        "inputs": [
            {"name": each.name, "content": each.content, "mean": each.mean, "std": each.std} for each in metadata.inputs
        ],
        "outputs": [
            {"name": each.name, "content": each.content, "labels": len(each.labels)} for each in metadata.outputs
        ],
    }
