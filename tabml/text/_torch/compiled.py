"""Decoder layers of decode steps, compiled: a GPU spends them in starting kernels, and compiled they are a third as many.

One layer is compiled, not the model: that takes seconds instead of minutes. All layers of a kind share the code, for
any number of rows and keys, because what differs from layer to layer, its keys and values, is handed in; and Dynamo
doesn't look at the number of a layer that nobody uses. It happens in a thread of its own, behind the first answers.
"""

from __future__ import annotations

import inspect
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import torch

from tabml.text._torch.attention import attend_in_groups
from tabml.text._torch.cache import SlotCache
from tabml.text._torch.recording import RECORDING

BACKEND: Any = "inductor"
"""Of torch.compile: its name, or what it is."""
_SHAPES = ((11, 257), (6, 640))
"""Rows and keys of the step that is compiled, and of another that must do with that or is compiled too. Of what varies
nothing else is as large, or Dynamo would think it always is."""
_MOST_KINDS = 4
_FAR_OFF = {torch.float32: 1e-3}
_NUMBERS = itertools.count()


class CompiledLayers:
    """The layers of one model. Its own forward stays what it is, and what all but steps are computed with."""

    def __init__(self, model: Any, layers: int) -> None:
        """Nothing is compiled yet.

        Args:
            model: A causal language model of transformers; nothing of it may be running.
            layers: How many it has.

        Raises:
            ValueError: it is of a kind that is not compiled.
        """
        if os.environ.get("TORCH_COMPILE_DISABLE", "0") != "0":
            raise ValueError("TORCH_COMPILE_DISABLE is set")
        if model.config.get_text_config()._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
            raise ValueError("its attention is not torch's")
        self._layers = _layers_of(model, layers)
        self._model: Any = model
        self.compilations: list[int] = []
        """The number of each."""
        self.ready = False
        """Whether :meth:`run` is of use."""
        self._stop = threading.Event()
        self._problem: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._compiled: Any = None
        self._played: Any = None
        """The same where it has been compiled already; it never compiles."""
        attend_in_groups(model)
        for index, layer in enumerate(self._layers):
            layer.forward = partial(_forward, index, layer)

    def compile(self, scores: Callable[..., torch.Tensor]) -> Iterator[str]:
        """Compile them in a thread; gives something for as long as that takes.

        Args:
            scores: Those of tokens with a mask, positions and a cache; asked for in the thread.

        Raises:
            RuntimeError: they can't be compiled.
        """
        self._thread = threading.Thread(target=self._try_all, args=(scores,), name="compile", daemon=True)
        self._thread.start()
        while self._thread.is_alive():
            yield "layers"
        problem, self._problem = self._problem, None  # it holds all that was computed with
        if problem is None:
            self.ready = not self._stop.is_set()
        elif not self._stop.is_set() and threading.main_thread().is_alive():  # else it was the end of the process
            self.stop()
            raise RuntimeError("its layers can't be compiled") from problem

    def run(self, index: int, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A layer in a step, compiled; as it is where it is another than that which was compiled."""
        own = kwargs["past_key_values"].of_layer(index)
        if own is None:
            return _compute(layer, args, kwargs)
        return self._played(layer, args, {**kwargs, "past_key_values": own})

    def stop(self) -> None:
        """From now on layers are computed as they are; does not wait for one that is just being compiled."""
        self._stop.set()
        for layer in self._layers:
            vars(layer).pop("forward", None)

    def close(self) -> None:
        """The same, and wait."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self._layers, self._model, self._problem = [], None, None

    def _try_all(self, scores: Callable[..., torch.Tensor]) -> None:
        try:
            if self._model.device.type == "cuda":
                torch.cuda.set_device(self._model.device)
            self._compiled = torch.compile(  # here, for it takes a second to import what that needs
                _of_its_own(_compute),
                fullgraph=True,
                dynamic=False,
                backend=partial(_backend, self.compilations, self._stop),
            )
            self._played = torch._dynamo.run(self._compiled)
            with torch.inference_mode():
                for rows, span in _SHAPES:
                    self._try_step(scores, rows, span)
        except BaseException as problem:
            self._problem = problem

    def _try_step(self, scores: Callable[..., torch.Tensor], rows: int, span: int) -> None:
        slots = SlotCache(len(self._layers), span)
        for _ in range(rows + 2):
            slots.add_slot()
        slots.reserve(span)
        tried: list[int] = []
        at = torch.arange(rows, device=self._model.device)[:, None] * (span // rows)
        mask = slots.first(at, span, partial(self._try, tried, (rows, span)))
        scores(at % 4 + 1, mask, at % 4, slots)  # tokens and positions that every model has
        if len(tried) < len(self._layers):
            raise RuntimeError(f"only {len(tried)} of {len(self._layers)} layers know the cache")

    def _try(
        self,
        tried: list[int],
        sizes: tuple[int, int],
        index: int,
        layer: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A layer as it is and compiled; the one must be the other."""
        if self._stop.is_set():
            raise RuntimeError("stopped")
        slots = kwargs["past_key_values"]
        wanted = _compute(layer, args, kwargs)
        own = slots.of_layer(index)
        if own is None:
            raise RuntimeError("a layer has no keys of its own")
        rows, span = sizes
        for tensor in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                if tensor.ndim and tensor.shape[0] == rows:
                    torch._dynamo.mark_dynamic(tensor, 0)
                if tensor.ndim == 4 and tensor.shape[-1] == span:  # a mask
                    torch._dynamo.mark_dynamic(tensor, 3)
        own.mark()
        found = self._compiled(layer, args, {**kwargs, "past_key_values": own})
        one, other = (each[0] if isinstance(each, tuple) else each for each in (wanted, found))
        off = float((one.float() - other.float()).norm() / one.float().norm())
        if not off <= _FAR_OFF.get(one.dtype, 0.05):
            raise RuntimeError(f"a compiled layer is off by {off:.1e}")
        slots.drop_layer(index)
        tried.append(index)
        return wanted


def _layers_of(model: Any, count: int) -> list[Any]:
    """The decoder layers."""
    for found in model.base_model.modules():
        if isinstance(found, torch.nn.ModuleList) and len(found) == count and all(map(_takes_cache, found)):
            return list(found)
    raise ValueError("it has no list of layers with a cache")


def _takes_cache(layer: Any) -> bool:
    named = inspect.signature(type(layer).forward).parameters
    return "past_key_values" in named and "forward" not in vars(layer)


def _of_its_own(function: Any) -> Any:
    """The same with code of its own: what Dynamo has compiled belongs to code, and it learns by its name and line."""
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_NUMBERS)}")
    return FunctionType(code, function.__globals__)


def _compute(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return type(layer).forward(layer, *args, **kwargs)


def _forward(index: int, layer: Any, *args: Any, **kwargs: Any) -> Any:
    """In place of a layer's own: in a step what its cache says, else that."""
    slots = kwargs.get("past_key_values")
    if isinstance(slots, SlotCache) and slots.layer_run is not None:
        return slots.layer_run(index, layer, args, kwargs)
    return _compute(layer, args, kwargs)


def _backend(compilations: list[int], stop: threading.Event, graph: Any, inputs: Any) -> Any:
    """What BACKEND makes; the first time that is run it tries variants, for which a GPU has to itself."""
    if stop.is_set() or len(compilations) >= _MOST_KINDS:
        raise RuntimeError("stopped" if stop.is_set() else "every layer is another")
    compilations.append(len(compilations))
    found = (BACKEND if callable(BACKEND) else torch._dynamo.lookup_backend(BACKEND))(graph, inputs)
    ran = False

    def run(*values: Any) -> Any:
        nonlocal ran
        if ran:
            return found(*values)
        with RECORDING:
            output = found(*values)
        ran = True
        return output

    return run
