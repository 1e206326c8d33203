"""The door to litert-torch, which makes .tflite files of PyTorch modules: quiet, and with what it says as one line.

It brings jax and a compiler (2.3 GB with torch) and pins a typing-extensions that other extras are too new for: it wants
an environment of its own. Importing it takes four seconds.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml._imports import silence
from tabml.errors import InferenceError, MissingExtraError, ModelKindError, OptionError


class _Quiet(logging.Filter):
    """While it is on: nothing below an error from the loggers that its libraries chat with."""

    names = ("", "torchao", "torchao.utils", "torch.utils._pytree", "torch.fx.experimental.symbolic_shapes")

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    def __enter__(self) -> None:
        for name in self.names:
            logging.getLogger(name).addFilter(self)

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self.names:
            logging.getLogger(name).removeFilter(self)


os.environ.setdefault(
    "TF_ENABLE_ONEDNN_OPTS", "0"
)  # with them, the compiler's library greets on stderr when it is loaded
try:
    with _Quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litert_converter
        import litert_torch
        import torch
except ImportError as problem:
    raise MissingExtraError("convert", (problem.name or "litert-torch").partition(".")[0]) from problem

litert_torch.config.show_progress = False
for _library in Path(litert_converter.__path__[0]).glob("lib*.so"):
    silence(ctypes.CDLL(str(_library)))

Arguments = Sequence[Any] | Mapping[str, Any]
"""Of one call: by place, or by name; tensors or arrays."""


def check_module(module: object) -> None:
    """Nothing, when it is a module that always answers alike.

    Raises:
        OptionError: it isn't a module, is in training mode, or lies elsewhere than in memory.
    """
    if not isinstance(module, torch.nn.Module):
        raise OptionError(f"module={type(module).__name__} must be a torch.nn.Module")
    if module.training:
        raise OptionError(
            "module is in training mode, where it may answer differently each time; call module.eval() first"
        )
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type != "cpu":
            raise OptionError(f"module has tensors on {tensor.device}; call module.cpu() first")


def tensors_of(name: str, arguments: Arguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One call's arguments as tensors, by place and by name.

    Raises:
        OptionError: they are no arguments, or none.
    """
    if isinstance(arguments, Mapping):
        found = (), {str(each): _tensor(f"{name}[{each!r}]", value) for each, value in arguments.items()}
    elif isinstance(arguments, Sequence) and not isinstance(arguments, str | bytes):
        found = tuple(_tensor(f"{name}[{at}]", value) for at, value in enumerate(arguments)), {}
    else:
        raise OptionError(f"{name}={type(arguments).__name__} must be a tuple of tensors, or a dict of them by name")
    if not any(found):
        raise OptionError(f"{name} is empty; a module is converted by running it once")
    return found


def _tensor(name: str, value: object) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    raise OptionError(f"{name} is {type(value).__name__}; it must be a tensor or an array")


def converted(module: Any, placed: tuple[Any, ...], named: dict[str, Any]) -> bytes:
    """The .tflite file of a module, with one signature, ``serving_default``.

    Raises:
        ModelKindError: the module can't be traced, or does something that LiteRT has no operator for.
    """
    try:
        with _Quiet(), warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it prints graphs when it fails
            warnings.simplefilter("ignore")
            made = litert_torch.convert(module, placed or None, named or None)
            return bytes(made.model_content())
    except Exception as problem:  # of many kinds, none of its own
        said = " ".join(str(problem).split())[:400]
        raise ModelKindError(f"module can't be converted: {type(problem).__name__}: {said}") from problem


def answers(module: Any, placed: tuple[Any, ...], named: dict[str, Any]) -> list[NDArray[Any]]:
    """What the module itself gives: all tensors of its answer, in order.

    Raises:
        InferenceError: it failed.
        ModelKindError: it gives none.
    """
    try:
        with torch.no_grad():
            given = module(*placed, **named)
    except Exception as problem:
        said = " ".join(str(problem).split())[:400]
        raise InferenceError(f"module fails on the sample: {type(problem).__name__}: {said}") from problem
    found = [each.detach().cpu().numpy() for each in torch.utils._pytree.tree_leaves(given) if torch.is_tensor(each)]
    if not found:
        raise ModelKindError(f"module gives {type(given).__name__} without a tensor in it")
    return found


def size_of(module: Any) -> int:
    """Bytes of all weights, each counted once."""
    unique = {tensor.data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in unique.values())


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Torch with so many threads, in the whole process, as long as the block lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
