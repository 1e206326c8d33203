"""How `tabml/files/hand_roi_refinement.prefix` is made: the metadata that MediaPipe asks of a model it crops with.

A flatbuffer refers only forwards, and by distance. So a new root table put in front of the file, with a list of
buffers that reaches into it, adds metadata to a model without touching one of its bytes: prefix + file is the model.

Run it by `python tests/files/hand_prefix.py hand_recrop.tflite > tabml/files/hand_roi_refinement.prefix`.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import flatbuffers
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema

VERSION, CODES, SUBGRAPHS, DESCRIPTION, BUFFERS, _, METADATA = range(7)


def normalization() -> bytes:
    """TFLITE_METADATA that says: the pixels are divided by 255."""
    options = metadata.NormalizationOptionsT()
    options.mean, options.std = [0.0], [255.0]
    unit = metadata.ProcessUnitT()
    unit.optionsType, unit.options = metadata.ProcessUnitOptions.NormalizationOptions, options
    picture = metadata.ImagePropertiesT()
    picture.colorSpace = metadata.ColorSpaceType.RGB
    content = metadata.ContentT()
    content.contentPropertiesType, content.contentProperties = metadata.ContentProperties.ImageProperties, picture
    tensor = metadata.TensorMetadataT()
    tensor.name, tensor.content, tensor.processUnits = "image", content, [unit]
    crop = metadata.TensorMetadataT()
    crop.name = "crop"
    graph = metadata.SubGraphMetadataT()
    graph.inputTensorMetadata, graph.outputTensorMetadata = [tensor], [crop]
    model = metadata.ModelMetadataT()
    model.name, model.subgraphMetadata = "hand_roi_refinement", [graph]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"M001")
    return bytes(builder.Output())


def prefix(model: bytes) -> bytes:
    """What makes ``prefix + model`` the same model with metadata."""
    read: Any = schema.Model.GetRootAsModel(model, 0)
    table = read._tab

    def target(slot: int) -> int:
        """Where in ``model`` the thing lies that a field of the root points to."""
        return int(table.Indirect(table.Pos + table.Offset(4 + 2 * slot)))

    old = [read.Buffers(index)._tab.Pos for index in range(read.BuffersLength())]
    note = normalization()
    fields = (VERSION, CODES, SUBGRAPHS, DESCRIPTION, BUFFERS, METADATA)
    # The places, in order: root offset and TFL3, vtables, tables, vectors, name, the note at a multiple of 16.
    root_vtable, pair_vtable, one_vtable = 8, 28, 36
    root = 44
    buffers = root + 4 + 4 * len(fields)
    metadata_list = buffers + 4 + 4 * (len(old) + 1)
    entry = metadata_list + 8
    buffer = entry + 12
    name = buffer + 8
    data = name + 4 + 16 + 4
    data += -(data + 4) % 16
    length = data + 4 + len(note)
    length += -length % 16

    out = bytearray(length)
    struct.pack_into("<I4s", out, 0, root, b"TFL3")
    at = {field: 4 + 4 * place for place, field in enumerate(fields)}
    struct.pack_into("<2H7H", out, root_vtable, 18, 4 + 4 * len(fields), *(at.get(field, 0) for field in range(7)))
    struct.pack_into("<2H2H", out, pair_vtable, 8, 12, 4, 8)
    struct.pack_into("<2H1H", out, one_vtable, 6, 8, 4)
    struct.pack_into("<iI", out, root, root - root_vtable, read.Version())
    places = {
        CODES: length + target(CODES), SUBGRAPHS: length + target(SUBGRAPHS), BUFFERS: buffers, METADATA: metadata_list,
        DESCRIPTION: length + target(DESCRIPTION),
    }  # fmt: skip
    for field, place in places.items():
        struct.pack_into("<I", out, root + at[field], place - (root + at[field]))
    struct.pack_into("<I", out, buffers, len(old) + 1)
    for index, place in enumerate([*(length + position for position in old), buffer]):
        here = buffers + 4 + 4 * index
        struct.pack_into("<I", out, here, place - here)
    struct.pack_into("<2I", out, metadata_list, 1, entry - (metadata_list + 4))
    struct.pack_into("<iII", out, entry, entry - pair_vtable, name - (entry + 4), len(old))
    struct.pack_into("<iI", out, buffer, buffer - one_vtable, data - (buffer + 4))
    struct.pack_into("<I16s", out, name, 15, b"TFLITE_METADATA")
    struct.pack_into(f"<I{len(note)}s", out, data, len(note), note)
    return bytes(out)


if __name__ == "__main__":
    sys.stdout.buffer.write(prefix(Path(sys.argv[1]).read_bytes()))
