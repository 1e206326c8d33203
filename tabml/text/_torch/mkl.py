"""Weights in the layout that Intel's MKL multiplies fastest, by the MKL that is a part of torch.

torch has an operator for this, ``mkl::_mkl_linear``. It reserves four times what MKL asks for, and MKL asks for megabytes
more than it writes to: in fresh memory of small pages what nobody touches costs nothing, in torch's it does.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tabml.text._torch.kernels.door import Weights

_ROW_MAJOR, _NO_TRANSPOSE, _TRANSPOSE, _PACKED, _B_MATRIX = 101, 111, 112, 151, 162
"""Of CBLAS, and of MKL's packed products."""
_ROWS = 512
"""Of the other matrix, that MKL packs for; the products are right for any number. Packed for 1 they take twice as long with 2
to 64 rows, and memory for rows up to a multiple of 512; packed for 4096 they always take twice as long."""


class _Mkl(NamedTuple):
    """``cblas_sgemm_pack_get_size``, ``cblas_sgemm_pack`` and ``cblas_sgemm_compute``."""

    size: ctypes._NamedFuncPointer
    pack: ctypes._NamedFuncPointer
    compute: ctypes._NamedFuncPointer


class MklLinear(nn.Module):
    """``nn.Linear`` with its float32 weight in MKL's layout, which takes as much memory."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().contiguous()
        if weight.dtype is not torch.float32 or not weight.is_cpu:
            raise NotImplementedError(f"MKL packs float32 on a CPU, not {weight.dtype} on {weight.device}")
        mkl = _mkl()
        self._compute = mkl.compute
        size = mkl.size(_B_MATRIX, _ROWS, self.out_features, self.in_features)
        try:
            self._memory = mmap.mmap(-1, size)
        except OSError as problem:
            raise MemoryError(f"no {size} bytes for a packed layer") from problem
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._packed = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        mkl.pack(
            _ROW_MAJOR, _B_MATRIX, _TRANSPOSE, _ROWS, self.out_features, self.in_features,
            1.0, weight.data_ptr(), self.in_features, self._packed,
        )  # fmt: skip
        self.packed_bytes = 4 * weight.numel()
        self.bias = linear.bias
        self.weights = Weights(
            "mkl", self._packed, self.in_features, self.out_features, bias=self.bias, keep=self._memory
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b."""
        wide, high, bias = self.in_features, self.out_features, self.bias
        if x.dtype is not torch.float32 or x.shape[-1] != wide or not x.is_cpu:
            raise RuntimeError(
                f"{x.dtype} of shape {tuple(x.shape)} on {x.device} for float32 weights with {wide} columns"
            )
        x = x.contiguous()
        y = x.new_empty((*x.shape[:-1], high))
        if bias is not None:
            y.copy_(bias)
        if y.numel():
            self._compute(
                _ROW_MAJOR, _NO_TRANSPOSE, _PACKED, x.numel() // wide, high, wide,
                x.data_ptr(), wide, self._packed, wide, 0.0 if bias is None else 1.0, y.data_ptr(), high,
            )  # fmt: skip
        return y


@cache
def _mkl() -> _Mkl:
    """Raises NotImplementedError where torch has no MKL in it."""
    number, real, address = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        found = _Mkl(library.cblas_sgemm_pack_get_size, library.cblas_sgemm_pack, library.cblas_sgemm_compute)
    except (OSError, AttributeError) as problem:
        raise NotImplementedError("this torch has no MKL in it") from problem
    found.size.restype, found.size.argtypes = ctypes.c_size_t, [number] * 4
    found.pack.restype, found.pack.argtypes = None, [*[number] * 6, real, address, number, address]
    found.compute.restype = None
    found.compute.argtypes = [*[number] * 6, address, number, address, number, real, address, number]
    return found
