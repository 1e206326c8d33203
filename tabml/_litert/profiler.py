"""What each operator of a model takes, measured by LiteRT itself; only ever in a process that may die.

LiteRT's Python interface has no profiler, its C interface has; the layout of its structures isn't promised. Source:
``litert/c/litert_compiled_model.h`` and ``litert_profiler.h`` of LiteRT 2.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ai_edge_litert

from tabml.errors import InferenceError

_CPU = 1
_OPERATOR, _OF_XNNPACK = 2, 8  # types of events
_DELEGATE = "XNNPack"
_Pointer, _Size = ctypes.c_void_p, ctypes.c_size_t


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int),
        ("rank", ctypes.c_uint32),
        ("sides", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p), ("type", ctypes.c_uint32),
        ("start_us", ctypes.c_uint64), ("elapsed_us", ctypes.c_uint64),
        ("before", ctypes.c_uint64 * 3), ("after", ctypes.c_uint64 * 3),
        ("number", ctypes.c_uint64), ("more", ctypes.c_uint64), ("source", ctypes.c_int),
    ]  # fmt: skip


class _Library:
    """LiteRT's C interface, whose statuses are errors."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__path__[0]) / "libLiteRt.so"))

    def __getattr__(self, name: str) -> Callable[..., None]:
        function = getattr(self._library, f"LiteRt{name}")

        def call(*arguments: Any) -> None:
            status = function(*arguments)
            if status:
                raise InferenceError(f"LiteRt{name} answers {status}: this LiteRT can't be profiled")

        return call


def profile(content: bytes, *, runs: int, signature: int, warmup: int = 2) -> list[dict[str, Any]]:
    """One row an operator, in the order they run: its name, how often it ran and the microseconds of each run.

    Args:
        content: The bytes of a .tflite file.
        runs: How often the model runs, on zeros, one thread.
        signature: The number of a signature of the file; 0 for the only one of a file that has none.
        warmup: Runs before, that aren't counted.

    Raises:
        InferenceError: this LiteRT can't be profiled.
    """
    lite: Any = _Library()
    environment, model, options, runtime, compiled, profiler = (_Pointer() for _ in range(6))
    lite.CreateEnvironment(0, None, ctypes.byref(environment))
    lite.CreateModelFromBuffer(environment, ctypes.c_char_p(content), _Size(len(content)), ctypes.byref(model))
    lite.CreateOptions(ctypes.byref(options))
    lite.SetOptionsHardwareAccelerators(options, _CPU)
    wish = ctypes.create_string_buffer(b"enable_profiling = true\n")
    free = ctypes.CFUNCTYPE(None, _Pointer)(lambda payload: None)
    lite.CreateOpaqueOptions(b"runtime_options_string", wish, free, ctypes.byref(runtime))
    lite.AddOpaqueOptions(options, runtime)
    lite.CreateCompiledModel(environment, model, options, ctypes.byref(compiled))
    lite.CompiledModelGetProfiler(compiled, ctypes.byref(profiler))
    buffers = [_buffers(lite, environment, model, compiled, signature, side) for side in ("Input", "Output")]
    arguments = [each for side in buffers for each in (_Size(len(side)), side)]
    rows: dict[tuple[int, int, str], list[int]] = {}
    for run in range(warmup + runs):
        lite.StartProfiler(profiler)
        lite.RunCompiledModel(compiled, _Size(signature), *arguments)
        lite.StopProfiler(profiler)
        if run >= warmup:
            for key, elapsed in _events(lite, profiler):
                rows.setdefault(key, []).append(elapsed)
        lite.ResetProfiler(profiler)
    return [{"name": name, "microseconds": found} for (_, _, name), found in rows.items()]


def _buffers(lite: Any, environment: Any, model: Any, compiled: Any, signature: int, side: str) -> Any:
    found, count = _Pointer(), _Size()
    lite.GetModelSignature(model, _Size(signature), ctypes.byref(found))
    getattr(lite, f"GetNumSignature{side}s")(found, ctypes.byref(count))
    buffers = (_Pointer * count.value)()
    for at in range(count.value):
        tensor, kind, needs, buffer = _Pointer(), _Tensor(), _Pointer(), _Pointer()
        getattr(lite, f"GetSignature{side}TensorByIndex")(found, _Size(at), ctypes.byref(tensor))
        lite.GetRankedTensorType(tensor, ctypes.byref(kind))
        getattr(lite, f"GetCompiledModel{side}BufferRequirements")(
            compiled, _Size(signature), _Size(at), ctypes.byref(needs)
        )
        lite.CreateManagedTensorBufferFromRequirements(environment, ctypes.byref(kind), needs, ctypes.byref(buffer))
        buffers[at] = buffer.value
    return buffers


def _events(lite: Any, profiler: Any) -> Iterator[tuple[tuple[int, int, str], int]]:
    """The operators of one run, with their microseconds."""
    count = ctypes.c_int()
    lite.GetNumProfilerEvents(profiler, ctypes.byref(count))
    events = (_Event * count.value)()
    lite.GetProfilerEvents(profiler, count, events)
    for event in events:
        name = (event.tag or b"").decode(errors="replace")
        if event.type == _OF_XNNPACK or (event.type == _OPERATOR and _DELEGATE not in name):
            yield (event.type, event.number, name), event.elapsed_us
