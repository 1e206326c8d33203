"""Weights as safetensors: what a library maps must be there."""

from __future__ import annotations

import json
import math
import os
import re
import struct
from pathlib import Path
from typing import Any

from tabml.text.checks.refusals import corrupt, object_of, unsafe, wholes

_MAX_HEADER = 100 << 20
_MAX_TENSORS = 200_000
_MAX_DIMENSIONS = 64
_SHARD = re.compile(r"[\w.-]+\.safetensors")


def check_index(index: Any, repo: str) -> list[str]:
    """The files that ``model.safetensors.index.json`` names, sorted.

    Raises:
        CorruptModelError: it is not what it should be.
        UnsafeModelError: a name is not that of a safetensors file beside it.
    """
    name = f"{repo}/model.safetensors.index.json"
    weights = object_of(index, name).get("weight_map")
    if not isinstance(weights, dict) or not 0 < len(weights) <= 1_000_000:
        corrupt(name, "weight_map must be an object that says where each tensor is")
    shards = set()
    for shard in weights.values():
        if not isinstance(shard, str):
            unsafe(name, f"{shard!r:.80} must be the plain name of a .safetensors file")
        if shard in shards:
            continue
        if not _SHARD.fullmatch(shard):
            unsafe(name, f"{shard!r:.80} must be the plain name of a .safetensors file")
        shards.add(shard)
    if len(shards) > 4096:
        corrupt(name, f"names {len(shards)} files; the limit is 4096")
    return sorted(shards)


_SIZE_OF = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E3M2": 6, "F6_E2M3": 6, "F4": 4,
}  # fmt: skip
"""Bits of an element (the safetensors format, 0.8)."""
_WEIGHTS = ("F64", "F32", "F16", "BF16")
_BUFFER = re.compile(r"(_ids|_index|mask|\.masked_bias|\.attn\.bias|\.attention\.bias|num_batches_tracked)$")
"""What is no weight: places, masks, counts."""


def check_safetensors(path: Path, name: str) -> None:
    """A safetensors file, by its header: what a library maps must be there.

    Raises:
        CorruptModelError: header and file contradict each other, or weights are whole numbers, which would be read as
            noise.
    """
    with path.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        head = source.read(8)
        (length,) = struct.unpack("<Q", head) if len(head) == 8 else (-1,)
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            corrupt(name, f"has a header of {length} bytes, and {size} in all")
        try:
            header = object_of(json.loads(source.read(length)), name)
        except (ValueError, RecursionError) as problem:
            corrupt(name, f"its header is not JSON: {problem}")
    header.pop("__metadata__", None)
    if len(header) > _MAX_TENSORS:
        corrupt(name, f"has {len(header)} tensors; the limit is {_MAX_TENSORS}")
    spans = [_span(key, tensor, name) for key, tensor in header.items()]
    for key, tensor in header.items():
        if tensor["dtype"] not in _WEIGHTS and not _BUFFER.search(key):
            corrupt(
                name,
                f"{key[:80]!r} is of {tensor['dtype']}, which are no weights but with a quantisation that tabml doesn't "
                "read; take the plain model and quantization='int8' or 'int4'",
            )
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            corrupt(name, f"has a hole or an overlap at byte {at} of its tensors")
        at = end
    if at != size - 8 - length:
        corrupt(name, f"has {size - 8 - length} bytes of tensors; its header says {at}")


def _span(key: str, tensor: Any, name: str) -> tuple[int, int]:
    """Where a tensor begins and ends."""
    found: dict[str, Any] = tensor if isinstance(tensor, dict) else {}
    shape, offsets = found.get("shape"), found.get("data_offsets")
    bits = _SIZE_OF.get(str(found.get("dtype")))
    if bits is None or not (wholes(shape, _MAX_DIMENSIONS) and wholes(offsets, 2) and len(offsets) == 2):
        corrupt(name, f"{key[:80]!r} has no good dtype, shape and data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * bits // 8:
        corrupt(name, f"{key[:80]!r} has {end - begin} bytes for the shape {shape!r:.60} of {found['dtype']}")
    return begin, end
