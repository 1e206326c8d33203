"""Products with few rows, and decoder layers of single tokens, by :mod:`tabml.text._torch.kernels`: the door to it.

They take a second to load, 120 MB, and ten seconds the first time on a machine, when numba compiles them. A model whose weights are
float16, int8 or int4 waits for that; others are loaded and answer without, and get them with their packed layers.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import logging
import platform
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

log = logging.getLogger("tabml.text")

MOST_ROWS = 32
"""Of a product: with more, weights that are unpacked first are the quicker ones."""
FORMATS = ("float32", "bfloat16", "float16", "int8", "int4", "mkl")
"""Of weights, by their number; see :data:`tabml.text._torch.kernels.INT8`."""
_MULTIPLE, _FEWEST_OUTPUTS = 32, 4
_POLL_S = 0.005
_LIBRARIES = Path(torch.__file__).parent / "lib"
_NEEDED = {"x86_64": ("avx2", "fma", "f16c")}


class Kernels(NamedTuple):
    """Compiled functions, and the addresses of what they have several threads compute."""

    linear: Callable[..., None]
    decoder_layer: Callable[..., None]
    room_of: Callable[..., int]
    product_share: int
    attention_share: int


class Weights:
    """What a kernel needs to know of a linear layer; holds its tensors."""

    def __init__(
        self,
        form: str,
        weight: int,
        inputs: int,
        outputs: int,
        *,
        scales: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        keep: object = None,
    ) -> None:
        """Of a layer.

        Args:
            form: One of FORMATS.
            weight: The address of what is packed.
            inputs: Columns, a multiple of 32.
            outputs: Rows.
            scales: That the format has.
            bias: (outputs,).
            keep: Owns the memory at ``weight``.
        """
        self.form, self.inputs, self.outputs = form, inputs, outputs
        keep = keep.detach() if isinstance(keep, torch.Tensor) else keep  # a tensor of its own on the same memory
        self._kept = (keep, scales, None if bias is None else bias.detach().float().contiguous())
        addresses = (0 if each is None else each.data_ptr() for each in self._kept[1:])
        self.numbers = torch.tensor([FORMATS.index(form), weight, *addresses, inputs, outputs])

    def __reduce__(self) -> str:
        raise TypeError(
            "a packed layer can't be copied, since kernels know it by its address; copy the model before it is packed"
        )

    def times(self, kernels: Kernels, x: torch.Tensor) -> torch.Tensor:
        """x · Wᵀ + b, of x's dtype; of up to ``MOST_ROWS`` rows."""
        wide = x.float().contiguous()
        y = wide.new_empty((*x.shape[:-1], self.outputs))
        kernels.linear(
            kernels.product_share, self.numbers.data_ptr(), wide.data_ptr(), wide.numel() // self.inputs, y.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return y.to(x.dtype)


def suits(linear: nn.Linear) -> bool:
    """Whether a layer is one that the kernels can be given, in some format."""
    weight = linear.weight
    return (
        linear.in_features % _MULTIPLE == 0
        and linear.out_features >= _FEWEST_OUTPUTS
        and weight.is_cpu
        and weight.is_contiguous()
        and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
    )


@cache
def possible() -> bool:
    """Whether kernels may be had here at all: numba is installed, and torch's OpenMP is GNU's, as on Linux."""
    return (_LIBRARIES / "libgomp.so.1").exists() and importlib.util.find_spec("numba") is not None


_found: Kernels | None = None
_loading = threading.Lock()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def ready() -> Kernels | None:
    """The kernels, once they are loaded."""
    return _found


def wait() -> Kernels | None:
    """The kernels, loaded; None where they can't be."""
    global _found
    with _loading:
        if _found is None:
            _found = _loaded()
    return _found


def prepare() -> threading.Thread:
    """Begin to load the kernels; a process waits for that at its end, since LLVM must not be torn down meanwhile."""
    thread = threading.Thread(target=wait, name="kernels")
    thread.start()
    _threads.add(thread)
    return thread


@atexit.register
def _end() -> None:
    """Also for threads that are started while others are waited for already."""
    for thread in list(_threads):
        thread.join()


def preparing() -> Iterator[str]:
    """The same when the first value is taken; ends once they are loaded, and no value takes long."""
    thread = prepare()
    while thread.is_alive():
        yield "kernels"
        thread.join(_POLL_S)


@cache
def _loaded() -> Kernels | None:
    try:
        _give_symbols()
        from tabml.text._torch import kernels  # it compiles, or takes up what was compiled

        found = Kernels(
            linear=kernels.linear,
            decoder_layer=kernels.decoder_layer,
            room_of=kernels.room_of,
            product_share=kernels.product_share.address,
            attention_share=kernels.attention_share.address,
        )
        _try(found)
    except Exception as problem:
        log.warning(
            "tokens are computed without compiled kernels, which is slower: %s: %s", type(problem).__name__, problem
        )
        return None
    return found


def _try(kernels: Kernels) -> None:
    """One product.

    Raises:
        RuntimeError: it is another one.
    """
    weight, x = torch.arange(160, dtype=torch.float32).view(5, 32), torch.ones(2, 32, dtype=torch.float32)
    if not torch.equal(Weights("float32", weight.data_ptr(), 32, 5).times(kernels, x), x @ weight.t()):
        raise RuntimeError("they multiply wrongly")


def _give_symbols() -> None:
    """What the kernels call, by names of ours; LLVM ends the process for one that it doesn't find."""
    import llvmlite.binding
    from numba.core.registry import cpu_target

    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")  # those that numba compiles for
    lacking = [name for name in _NEEDED.get(platform.machine(), ()) if f"+{name}" not in features]
    if lacking:  # what takes their place are functions that may be nowhere
        raise NotImplementedError(f"this processor lacks {', '.join(lacking)}, or numba is told not to use it")
    openmp, torch_cpu = ctypes.CDLL(str(_LIBRARIES / "libgomp.so.1")), ctypes.CDLL(str(_LIBRARIES / "libtorch_cpu.so"))
    found: dict[str, Any] = {
        "tabml_parallel": openmp.GOMP_parallel,
        "tabml_thread": openmp.omp_get_thread_num,
        "tabml_threads": openmp.omp_get_num_threads,
        "tabml_sgemm": getattr(torch_cpu, "cblas_sgemm_compute", openmp.GOMP_parallel),  # the latter is never called
    }
    for name, function in found.items():
        llvmlite.binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
