"""Where a model runs: as asked for or not at all, and what ``auto`` chooses."""

from __future__ import annotations

from tabml._litert.probe import in_child
from tabml.edge.results import Accelerator
from tabml.errors import CorruptModelError, ModelLoadError, UnavailableHereError


def choose(wanted: str, content: bytes, *, threads: int) -> Accelerator:
    """The accelerator for a model.

    Args:
        wanted: ``cpu``, ``gpu``, ``npu`` or ``auto``.
        content: The .tflite file.
        threads: How many share a run on the CPU.

    Raises:
        UnavailableHereError: it isn't here, or the model can't run there.
    """
    if wanted == "cpu":
        return Accelerator(name="cpu", why="asked for")
    if wanted == "npu":
        return _npu()
    found = _gpu(content, threads)
    if wanted == "gpu":
        if isinstance(found, str):
            raise UnavailableHereError(f"accelerator='gpu': {found}; use 'cpu', or 'auto' to take it where it is")
        gpu, _, is_software = found
        kind = " (a GPU in software)" if is_software else ""
        return Accelerator(name="gpu", why=f"asked for{kind}", device=gpu.device, is_complete=gpu.is_complete)
    if isinstance(found, str):
        return Accelerator(name="cpu", why=found)
    gpu, (there, here), is_software = found
    if is_software:
        return Accelerator(name="cpu", why=f"the only GPU, {gpu.device}, is software")
    if not gpu.is_complete:
        return Accelerator(name="cpu", why=f"{gpu.device} can't run all of the model")
    said = f"{there:.2f} ms on {gpu.device} against {here:.2f} ms on {threads} threads of the CPU"
    if there < here:
        return Accelerator(name="gpu", why=said, device=gpu.device)
    return Accelerator(name="cpu", why=said)


def _gpu(content: bytes, threads: int) -> tuple[Accelerator, tuple[float, float], bool] | str:
    """The GPU, milliseconds there and on the CPU, and whether it is software; or why there is none."""
    from tabml._litert.compiled import vulkan_is_here

    if not vulkan_is_here():
        return "no GPU can be used: Vulkan's loader, libvulkan.so.1, is not installed"
    try:
        said = in_child(content, {"do": "gpu", "signature": 0, "threads": threads})
    except CorruptModelError as problem:
        return f"the GPU can't be used: {problem}"
    if "refused" in said:
        return f"no GPU can be used: {said['refused']}"
    gpu = Accelerator(name="gpu", why="", device=str(said["adapter"]), is_complete=bool(said["complete"]))
    return gpu, (float(said["gpu_ms"]), float(said["cpu_ms"])), bool(said["software"])


def _npu() -> Accelerator:
    from tabml._litert.compiled import npu_library

    try:
        library = npu_library()
    except ModelLoadError as problem:
        raise UnavailableHereError(f"accelerator='npu': {problem}; use 'cpu' or 'auto'") from problem
    return Accelerator(name="npu", why="asked for", device=library.stem)
