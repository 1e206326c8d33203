"""What a copy of the process of :mod:`tabml._litert.probe` does with one file, within its limits, before it ends."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from tabml._litert.graph import LiteGraph
from tabml._litert.specs import Signature
from tabml.errors import InferenceError, TabmlError

_ROOM_BYTES = 3 << 30
_RUNS = 5
_ADAPTER = re.compile(r"Selected adapter: (.*?), arch=.*adapterType=(.*)")


def answer(order: Mapping[str, Any], file: int, line: int) -> int:
    """Carry out an order over the file behind a descriptor, and write the answer to another; gives the exit status."""
    os.write(line, f"{os.getpid()}\n".encode())
    size = os.fstat(file).st_size
    _limit(float(order["limit"]), size if order["do"] != "gpu" else None)
    with open(file, "rb") as source:
        source.seek(0)
        content = source.read()
    try:
        done = {"try": _try, "gpu": _gpu, "profile": _profile}[order["do"]](content, order)
    except TabmlError as problem:
        done = {"refused": str(problem)}
    except MemoryError:
        done = {"refused": f"it wants more than {_ROOM_BYTES + 6 * size} bytes of memory"}
    words = json.dumps(done).encode()
    while words:
        words = words[os.write(line, words) :]
    return 0


def _limit(seconds: float, size: int | None) -> None:
    """Time, memory (but for a GPU's drivers, which map more than there is), no core dumps."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if size is not None:
        with open("/proc/self/statm", "rb") as statm:
            now = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = now + _ROOM_BYTES + 6 * size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _try(content: bytes, order: Mapping[str, Any]) -> dict[str, Any]:
    """Run every signature on zeros, and a new file also on ones.

    Raises:
        InferenceError: with shapes of the caller's it runs on neither; what a new file's own do is told to whoever runs it.
    """
    graph = LiteGraph(content, threads=int(order["threads"]))
    shapes = {name: tuple(shape) for name, shape in order["shapes"].items()}
    wanted = order["signature"]
    for number in range(len(graph.signatures)) if wanted is None else [int(wanted)]:
        if shapes:
            graph.resize(shapes, signature=number)
        for filled in (0, 1):
            try:
                graph.run(_inputs(graph.signatures[number], filled), len, signature=number)
            except InferenceError as problem:
                if shapes and filled:
                    raise InferenceError(f"LiteRT can't run the model with the shapes {shapes}: {problem}") from problem
            else:
                if shapes:
                    break
    return {}


def _gpu(content: bytes, order: Mapping[str, Any]) -> dict[str, Any]:
    """Which GPU runs a signature, whether all of it, and how long a run takes there and on the CPU, in milliseconds."""
    number = int(order["signature"])
    with tempfile.TemporaryFile() as told:
        os.dup2(told.fileno(), 2)
        from tabml._litert.compiled import CompiledGraph

        graph = CompiledGraph(content, kind="gpu", threads=int(order["threads"]), silent=False)
        there = _fastest(graph, number)
        told.seek(0)
        found = _ADAPTER.search(told.read().decode(errors="replace"))
    here = _fastest(LiteGraph(content, threads=int(order["threads"])), number)
    adapter, kind = found.groups() if found is not None else ("unknown", "")
    return {
        "adapter": adapter,
        "software": "CPU" in kind,
        "complete": graph.is_complete,
        "gpu_ms": there,
        "cpu_ms": here,
    }


def _fastest(graph: Any, number: int) -> float:
    inputs = _inputs(graph.signatures[number], 0)
    graph.run(inputs, len, signature=number)
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        graph.run(inputs, len, signature=number)
        times.append(time.perf_counter() - began)
    return min(times) * 1000


def _profile(content: bytes, order: Mapping[str, Any]) -> dict[str, Any]:
    from tabml._litert.profiler import profile

    return {"rows": profile(content, runs=int(order["runs"]), signature=int(order["signature"]))}


def _inputs(signature: Signature, filled: int) -> list[Any]:
    return [
        np.full(spec.shape, b"a" * filled) if spec.dtype.kind == "S" else np.full(spec.shape, filled, spec.dtype)
        for spec in signature.inputs
    ]
