"""One model on a GPU or an NPU, by LiteRT's compiled models; on a CPU the interpreter is as quick and shares better.

LiteRT checks neither the type nor the length of what is written to its buffers, and one compiled model in two threads
answers wrongly. An accelerator that isn't there is an error for GPUs and silence for NPUs: see :func:`npu_library`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tabml._imports import LOG, redirect_imports, silence
from tabml._litert.graph import Answer, Lent, LiteGraph, check_no_nan
from tabml._litert.specs import Signature, TensorSpec
from tabml.errors import InferenceError, ModelClosedError, ModelForkedError, ModelLoadError, OptionError

import ai_edge_litert  # isort: skip
from ai_edge_litert.compiled_model import CompiledModel, Options  # isort: skip
from ai_edge_litert.hardware_accelerator import HardwareAccelerator  # isort: skip
from ai_edge_litert.options import CpuOptions, GpuOptions  # isort: skip

_FOLDER = Path(ai_edge_litert.__path__[0])
_UNNAMED = "<placeholder signature>"
_NOWHERE = ctypes.create_string_buffer(4096)  # larger than any std::ofstream


class CompiledGraph:
    """A model for an accelerator; the same verbs as :class:`LiteGraph`, with the shapes of the file alone."""

    def __init__(
        self, model: bytes | memoryview, *, kind: Literal["gpu", "npu"], threads: int = 1, silent: bool = True
    ) -> None:
        """Load it.

        Args:
            model: The bytes of a .tflite file that someone vouches for.
            kind: Where it runs; what a GPU can't do, the CPU does.
            threads: How many threads the CPU's part of a call takes.
            silent: Whether LiteRT's log lines lead nowhere.

        Raises:
            ModelLoadError: LiteRT refused the model, or there is no such accelerator.
        """
        content = bytes(model)
        probe = LiteGraph(content)
        self.signatures = probe.signatures
        """All ways of calling it; the first is the main graph, with its tensors' own names."""
        probe.close()
        if silent:
            _mute()
        wanted = HardwareAccelerator.GPU | HardwareAccelerator.CPU if kind == "gpu" else HardwareAccelerator.NPU
        options = Options(
            hardware_accelerators=wanted,
            cpu_options=CpuOptions(num_threads=threads),
            gpu_options=GpuOptions(enforce_f32=True),
        )
        self._lock = threading.RLock()
        self._process = os.getpid()
        try:
            self._model: Any = CompiledModel.from_buffer(content, options=options)
        except (ValueError, RuntimeError) as problem:
            raise ModelLoadError(f"LiteRT can't open the model on the {kind.upper()}: {_said(problem)}") from problem
        self._content = content
        self.is_complete = bool(self._model.is_fully_accelerated())
        """Whether all of it runs there."""
        named = self._model.get_signature_list()
        self._keys = [
            _UNNAMED if _UNNAMED in named else next(iter(named)),
            *(each.name for each in self.signatures[1:]),
        ]
        self._buffers: dict[int, tuple[list[Any], list[Any]]] = {}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the main graph takes, in the model's order."""
        return self.signatures[0].inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the main graph gives, in the model's order."""
        return self.signatures[0].outputs

    def run(
        self,
        arrays: Sequence[NDArray[Any]],
        read: Callable[[Sequence[NDArray[Any]]], Answer],
        *,
        signature: int = 0,
        allow_nan: bool = True,
        copied: bool = True,
    ) -> Answer:
        """Run the model once; see :meth:`LiteGraph.run`. What ``read`` is given is always copied.

        Raises:
            InferenceError: an array has another shape or dtype, or LiteRT failed.
            OptionError: an array has a NaN.
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that loaded the model.
        """
        spec = self.signatures[signature]
        if len(arrays) != len(spec.inputs):
            raise InferenceError(f"the model takes {len(spec.inputs)} arrays, not {len(arrays)}")
        for each, array in zip(spec.inputs, arrays, strict=True):
            if array.dtype != each.dtype or array.shape != each.shape:
                raise InferenceError(f"input {each.name!r} must be {each}, not {array.dtype} {array.shape}")
        if not allow_nan:
            check_no_nan(spec.inputs, arrays)
        with self._lock:
            if self._model is None:
                raise ModelClosedError("the model is closed; open a new one")
            if self._process != os.getpid():
                raise ModelForkedError("the model was opened before fork() and can't be used in the child")
            try:
                inputs, outputs = self._made(signature, spec)
                for buffer, array in zip(inputs, arrays, strict=True):
                    buffer.write(np.ascontiguousarray(array))
                names = [[each.name for each in specs] for specs in (spec.inputs, spec.outputs)]
                self._model.run_by_name(
                    self._keys[signature],
                    dict(zip(names[0], inputs, strict=True)),
                    dict(zip(names[1], outputs, strict=True)),
                )
                found = [
                    np.asarray(buffer.read(int(np.prod(each.shape)), each.dtype.type)).reshape(each.shape)
                    for buffer, each in zip(outputs, spec.outputs, strict=True)
                ]
            except (ValueError, RuntimeError) as problem:
                raise InferenceError(f"LiteRT failed: {_said(problem)}") from problem
            return read(found)

    def resize(self, shapes: Mapping[str, tuple[int, ...]], *, signature: int = 0) -> None:
        """Not on accelerators.

        Raises:
            OptionError: always.
        """
        raise OptionError("on an accelerator the model has the shapes of its file; open it with accelerator='cpu'")

    @contextmanager
    def lend(self, *, signature: int = 0) -> Iterator[Lent]:
        """Not on accelerators, which have memory of their own.

        Raises:
            OptionError: always.
        """
        raise OptionError("an accelerator's memory can't be lent; open the model with accelerator='cpu'")
        yield  # a context manager all the same

    def reset(self) -> None:
        """Nothing: variables live on the CPU alone."""

    def close(self) -> None:
        """Free the model, after a call that is running; twice is fine."""
        with self._lock:
            self._buffers.clear()
            if self._model is not None:
                self._model.close()
            self._model = None

    def _made(self, signature: int, spec: Signature) -> tuple[list[Any], list[Any]]:
        found = self._buffers.get(signature)
        if found is None:
            key = self._keys[signature]
            found = self._buffers[signature] = (
                [self._model.create_input_buffer_by_name(key, each.name) for each in spec.inputs],
                [self._model.create_output_buffer_by_name(key, each.name) for each in spec.outputs],
            )
        return found


@cache
def _mute() -> None:
    """Log lines of LiteRT's accelerators, which reach stdout too, lead nowhere, unless ``TABML_LOG`` is set."""
    for name in ("libLiteRt.so", "libLiteRtWebGpuAccelerator.so", "libpywrap_litert_common.so"):
        library = ctypes.CDLL(str(_FOLDER / name))
        silence(library)
        if os.environ.get(LOG, "").lower() in ("", "off"):
            with suppress(OSError, AttributeError):
                make = ctypes.CDLL("libstdc++.so.6")._ZNSt14basic_ofstreamIcSt11char_traitsIcEEC1Ev
                make.argtypes = [ctypes.c_void_p]
                make(ctypes.addressof(_NOWHERE))  # a std::ofstream of no file
                redirect_imports(library, {"_ZSt4cout": ctypes.addressof(_NOWHERE)})


def npu_library() -> Path:
    """A vendor's dispatch library that this machine can load.

    With none, LiteRT runs the model on the CPU and says that it is fully accelerated.

    Raises:
        ModelLoadError: there is none.
    """
    said = "ai-edge-litert brings none for this system"
    for path in sorted(_FOLDER.glob("vendors/*/dispatch/libLiteRtDispatch_*.so")):
        try:
            ctypes.CDLL(str(path))
        except OSError as problem:
            said = str(problem)
        else:
            return path
    raise ModelLoadError(f"no NPU's dispatch library can be loaded: {said}")


def vulkan_is_here() -> bool:
    """Whether the loader of Vulkan's drivers can be found, without which LiteRT has no GPU on Linux."""
    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return False
    return True


def _said(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:300]
