"""What all kernels stand on: what they are told of linear layers, what they call, and where they are kept.

numba compiles them for this very processor, and keeps them beside their file or in the user's cache; it takes them up again while
that file is the same, so each says what it is built on.

Addresses are integers, nothing is checked in kernels, and nothing is allocated: numba would free an array once only its address is in
use. Threads are those of torch's own OpenMP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types

FLOAT32, BFLOAT16, FLOAT16, INT8, INT4, MKL, BYTES = range(7)
"""Formats of weights. int8 has a float32 scale for each row, int4 a bfloat16 scale and zero for each group of 32; MKL's layout
is its own; for bytes see :mod:`tabml.text._torch.kernels.quantized`."""

FIELDS = 6
"""Numbers that say what a linear layer is: format, addresses of weights, scales and bias (or 0), inputs, outputs."""
KIND, WEIGHT, SCALES, BIAS, INPUTS, OUTPUTS = range(0, 8 * FIELDS, 8)
LINEAR = 8 * FIELDS

parallel = types.ExternalFunction("tabml_parallel", types.void(types.intp, types.intp, types.uint32, types.uint32))
thread_here = types.ExternalFunction("tabml_thread", types.int32())
threads_here = types.ExternalFunction("tabml_threads", types.int32())
sgemm = types.ExternalFunction(
    "tabml_sgemm",
    types.void(
        *[types.int32] * 6, types.intp, types.int32, types.intp, types.int32, types.float32, types.intp, types.int32
    ),
)
ROW_MAJOR, NO_TRANSPOSE, PACKED = 101, 111, 151


def kept(signature: str, made: Callable[..., Any] = njit, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiled now, or taken from where numba keeps it, if it finds a place for that."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return made(signature, cache=True, **options)(function)
        except Exception:  # no folder may be written to, or what lies there is damaged
            return made(signature, **options)(function)

    return decorate
