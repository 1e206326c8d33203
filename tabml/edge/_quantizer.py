"""The door to Google's quantiser for .tflite files (ai-edge-quantizer): three recipes, without its output.

What a recipe leaves out, it leaves out because that was measured (docs/edge-tools.md): 8-bit weights in depthwise
convolutions with float inputs made EfficientNet-Lite0 2.4 times slower instead of 1.5 times quicker, for 8 % of the file.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import tabml._litert.graph  # noqa: F401  (silences LiteRT before the quantiser opens it)
from tabml._litert.tables import Flatbuffer, Table
from tabml.errors import MissingExtraError, ModelKindError

try:
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
    from ai_edge_quantizer.utils import progress_utils
except ImportError as problem:
    raise MissingExtraError("quantize", "ai-edge-quantizer") from problem

if TYPE_CHECKING:
    from typing import Self

_TURN = threading.Lock()
"""Of two runs at once one now and then finds tensors without names."""
_Ops = qtyping.TFLOperationName
_BLOCK = 32
_FULLY_CONNECTED, _EMBEDDING_LOOKUP = 9, 7
_WEIGHTS = {_FULLY_CONNECTED: (1, _Ops.FULLY_CONNECTED), _EMBEDDING_LOOKUP: (1, _Ops.EMBEDDING_LOOKUP)}
"""Which input holds the weights of the operators that 4 bits are enough for."""


class _NoBar:
    """Stands in for the quantiser's progress bars, which it draws on stderr unasked."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update_single_step(self) -> None: ...


progress_utils.ProgressBar = _NoBar


class _Quantizer(quantizer.Quantizer):  # type: ignore[misc]
    """Google's, without a check that opens the model in a way LiteRT warns of, to find a range for each tensor."""

    def _ensure_model_qsv_sufficient(self, calibration_result: object) -> None: ...


def quantised(
    model: bytes, recipe: str, *, signature: str, samples: Iterable[Mapping[str, NDArray[Any]]], threads: int
) -> bytes:
    """A model with smaller weights.

    Args:
        model: In the spelling of :func:`tabml._litert.rewriting.modern`.
        recipe: ``int8-dynamic``, ``int8`` or ``int4``.
        signature: The one that ``samples`` are for.
        samples: For ``int8``: inputs by their names; others don't look at them.
        threads: How many threads calibration takes.

    Raises:
        ModelKindError: the quantiser can't do this model.
    """
    with _TURN:
        return _quantised(model, recipe, signature, samples, threads)


def _quantised(
    model: bytes, recipe: str, signature: str, samples: Iterable[Mapping[str, NDArray[Any]]], threads: int
) -> bytes:
    found = {"int8-dynamic": _dynamic, "int8": _static, "int4": _mixed}[recipe](model)
    try:
        ranges = _ranges(model, found, signature, samples, threads) if recipe == "int8" else None
        made = _Quantizer(model, found.get_quantization_recipe())
        return bytes(made.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model)
    except Exception as problem:  # of many kinds, none of its own
        said = " ".join(str(problem).split())[:300]
        raise ModelKindError(f"recipe={recipe!r}: the quantiser can't do this model: {said}") from problem


def _dynamic(_: bytes) -> Any:
    """Weights in 8 bits, a scale for each channel; inputs are quantised as they come."""
    recipe = recipe_manager.RecipeManager()
    recipe.add_dynamic_config(regex=".*", operation_name=_Ops.ALL_SUPPORTED, num_bits=8)
    _leave(recipe, _Ops.DEPTHWISE_CONV_2D)
    return recipe


def _static(_: bytes) -> Any:
    """Everything in 8 bits, but what goes in and out, and scores, which would have steps of 1/256."""
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(regex=".*", operation_name=_Ops.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    _leave(recipe, _Ops.INPUT, _Ops.OUTPUT, _Ops.SOFTMAX)
    return recipe


def _mixed(model: bytes) -> Any:
    """Dynamic, with 4 bits and a scale for each 32 weights where layers are fully connected, or embeddings."""
    found = blocks(model)
    if not found:
        raise ModelKindError(
            "recipe='int4' is for fully connected layers and embeddings with rows of a multiple of 32 weights; this model has none: "
            "take 'int8-dynamic'"
        )
    recipe = _dynamic(model)
    for name, operation in found:
        recipe.add_dynamic_config(
            regex=f"^{re.escape(name)};",
            operation_name=operation,
            num_bits=4,
            granularity=qtyping.QuantGranularity.BLOCKWISE_32,
        )
    return recipe


def _leave(recipe: Any, *operations: Any) -> None:
    for each in operations:
        recipe.add_quantization_config(
            regex=".*", operation_name=each, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE
        )


def blocks(model: bytes) -> list[tuple[str, Any]]:
    """The first output's name, and the kind, of operators whose weights can have a scale for each 32 of a row."""
    root = Flatbuffer(model).root()
    codes = [max(each.number(0, "b"), each.number(3, "i")) for each in root.tables(1)]
    filled = [(buffer.vector(0, 1) or (0, 0))[1] > 0 for buffer in root.tables(4)]
    found = []
    for graph in root.tables(2):
        tensors = list(graph.tables(0))
        for operator in graph.tables(3):
            code = codes[operator.number(0, "I")]
            if code in _WEIGHTS:
                at, operation = _WEIGHTS[code]
                if _has_blocks(tensors[operator.whole(1)[at]], filled):
                    found.append((tensors[operator.whole(2)[0]].text(3), operation))
    return found


def _has_blocks(weights: Table, filled: list[bool]) -> bool:
    shape = weights.whole(0)
    return filled[weights.number(2, "I")] and len(shape) == 2 and shape[1] % _BLOCK == 0


def _ranges(
    model: bytes, recipe: Any, signature: str, samples: Iterable[Mapping[str, NDArray[Any]]], threads: int
) -> Any:
    """The smallest and the largest value of each tensor over all samples.

    The quantiser's own moving average cuts off what few samples reach, which cost EfficientNet-Lite0 13 dB.
    """
    # This mode reads LiteRT's own counts: no copy of every tensor, and custom operators are no hindrance.
    seen = calibrator.Calibrator(
        model,
        num_threads=threads,
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=_wider,
    )
    seen.calibrate({signature: [dict(sample) for sample in samples]}, recipe)
    return seen.get_model_qsvs()


def _wider(known: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {"min": np.minimum(known["min"], new["min"]), "max": np.maximum(known["max"], new["max"])}
