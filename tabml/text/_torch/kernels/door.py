"""The way to compiled kernels: products with few rows, decoder layers of single tokens, encoder layers of whole texts.

They take a second to load, 120 MB, and ten seconds the first time on a machine, when numba compiles them. A model whose weights are
float16, int8 or int4 waits for that; others are loaded and answer without, and get them later.
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
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import nn

log = logging.getLogger("tabml.text")

Found = TypeVar("Found")

MOST_ROWS = 32
"""Of a product: with more, weights that are unpacked first are the quicker ones."""
FORMATS = ("float32", "bfloat16", "float16", "int8", "int4", "mkl", "bytes")
"""Of weights, by their number; see :data:`tabml.text._torch.kernels.products.INT8`."""
_MULTIPLE, _FEWEST_OUTPUTS = 32, 4
_POLL_S = 0.005
_LIBRARIES = Path(torch.__file__).parent / "lib"
_NEEDED = {"x86_64": ("avx2", "fma", "f16c")}


class Kernels(NamedTuple):
    """Compiled functions for tokens, and the addresses of what they have several threads compute."""

    linear: Callable[..., None]
    decoder_layer: Callable[..., None]
    room_of: Callable[..., int]
    product_share: int
    attention_share: int


class Shares(NamedTuple):
    """Addresses of a thread's part of each step."""

    attention: int
    gelu: int
    norm: int
    panels: int


class TextKernels(NamedTuple):
    """The same for whole texts."""

    embed: Callable[..., None]
    encoder_layers: Callable[..., None]
    pool: Callable[..., None]
    room_of: Callable[..., int]
    scratch_of: Callable[[int, int], int]
    quantized_linear: Callable[..., None]
    shares: Shares
    multiplies_bytes: bool
    """Whether this processor does."""
    panel: int
    """Outputs whose bytes lie together."""


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


def suits(linear: nn.Linear, multiple: int = _MULTIPLE) -> bool:
    """Whether a layer is one that the kernels can be given, in some format; inputs have to be a multiple of this."""
    weight = linear.weight
    return (
        linear.in_features % multiple == 0
        and linear.out_features >= _FEWEST_OUTPUTS
        and weight.is_cpu
        and weight.is_contiguous()
        and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
    )


@cache
def possible() -> bool:
    """Whether kernels may be had here at all: numba is installed, and torch's OpenMP is GNU's, as on Linux."""
    return (_LIBRARIES / "libgomp.so.1").exists() and importlib.util.find_spec("numba") is not None


_loading = threading.Lock()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Loader(Generic[Found]):
    """Kernels that are loaded once a process."""

    def __init__(self, load: Callable[[], Found]) -> None:
        self._load = load
        self.found: Found | None = None
        self._tried = False

    def ready(self) -> Found | None:
        """The kernels, once they are loaded."""
        return self.found

    def wait(self) -> Found | None:
        """The kernels, loaded; None where they can't be."""
        with _loading:
            if not self._tried:
                self._tried = True
                try:
                    _give_symbols()
                    self.found = self._load()
                except Exception as problem:
                    log.warning(
                        "models compute without compiled kernels, which is slower: %s: %s",
                        type(problem).__name__,
                        problem,
                    )
        return self.found

    def prepare(self) -> threading.Thread:
        """Begin to load the kernels; a process waits for that at its end, since LLVM must not be torn down meanwhile."""
        thread = threading.Thread(target=self.wait, name="kernels")
        thread.start()
        _threads.add(thread)
        return thread

    def preparing(self) -> Iterator[str]:
        """The same when the first value is taken; ends once they are loaded, and no value takes long."""
        thread = self.prepare()
        while thread.is_alive():
            yield "kernels"
            thread.join(_POLL_S)


@atexit.register
def _end() -> None:
    """Also for threads that are started while others are waited for already."""
    for thread in list(_threads):
        thread.join()


def _for_tokens() -> Kernels:
    from tabml.text._torch.kernels import decoder, products  # they compile, or take up what was compiled

    found = Kernels(
        linear=products.linear,
        decoder_layer=decoder.decoder_layer,
        room_of=decoder.room_of,
        product_share=products.product_share.address,
        attention_share=decoder.attention_share.address,
    )
    _try(found)
    return found


def _for_texts() -> TextKernels:
    from tabml.text._torch.kernels import encoder, quantized

    shares = encoder.attention_share, encoder.gelu_share, encoder.norm_share, quantized.panel_share
    return TextKernels(
        embed=encoder.embed,
        encoder_layers=encoder.encoder_layers,
        pool=encoder.pool,
        room_of=encoder.room_of,
        scratch_of=encoder.scratch_of,
        quantized_linear=quantized.quantized_linear,
        shares=Shares(*(share.address for share in shares)),
        multiplies_bytes=quantized.POSSIBLE,
        panel=quantized.PANEL,
    )


TOKENS, TEXTS = Loader(_for_tokens), Loader(_for_texts)
"""Kernels for tokens and for texts."""


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
