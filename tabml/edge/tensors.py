"""What users give a model, as the arrays its inputs are: each lie is told with the input's name, nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tabml._litert.specs import Signature, TensorSpec
from tabml.errors import OptionError

Inputs = Mapping[str, ArrayLike] | Sequence[ArrayLike] | NDArray[Any]
"""By name; in the model's order; or the array of a model with one input."""


def by_row(signature: Signature, given: Inputs) -> list[dict[str, NDArray[Any]]]:
    """Inputs for each row of a batch.

    Raises:
        OptionError: an input is missing or unknown, the numbers of rows differ, or there are none; the model's own
            first dimensions are neither 1 nor any.
    """
    values = dict(zip((spec.name for spec in signature.inputs), _in_order(signature, given), strict=True))
    arrays = {name: np.asarray(value) for name, value in values.items()}
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or not min(counts):
        raise OptionError(f"inputs: the arrays have {sorted(counts)} rows; give each as many, from 1")
    fixed = [
        spec.name for spec in (*signature.inputs, *signature.outputs) if spec.shape[:1] != (1,) and not spec.is_dynamic
    ]
    if fixed:
        raise OptionError(f"{fixed[0]!r} has no first dimension of 1 for the rows of a batch; use run")
    return [{name: array[at : at + 1] for name, array in arrays.items()} for at in range(counts.pop())]


def arrays_for(signature: Signature, given: Inputs, *, quantize: bool) -> list[NDArray[Any]]:
    """One array for each input, in the model's order.

    Raises:
        OptionError: an input is missing or unknown, or an array has another type or shape.
    """
    arrays = []
    for spec, value in zip(signature.inputs, _in_order(signature, given), strict=True):
        if not isinstance(value, np.ndarray) or value.dtype != spec.dtype or value.shape != spec.shape:
            value = _remade(spec, value, quantize=quantize)
        arrays.append(value)
    return arrays


def _in_order(signature: Signature, given: Inputs) -> Sequence[ArrayLike]:
    """One value for each input."""
    specs = signature.inputs
    if type(given) is list:  # what is told at once
        values: Sequence[ArrayLike] = given
    elif isinstance(given, dict | Mapping):
        try:
            values = [given[spec.name] for spec in specs]
        except KeyError:
            values = ()
        if not len(given) == len(specs) == len(values):
            known = {spec.name for spec in specs}
            strange = sorted(map(str, set(given) - known))
            said = f"{strange[0]!r:.80} is none" if strange else f"{sorted(known - set(given))[0]!r} is missing"
            raise OptionError(f"inputs: {said}; the model takes {_listed(specs)}")
    elif isinstance(given, np.ndarray):
        values = [given]
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        values = given
    else:
        raise OptionError(f"inputs={given!r:.60} must be a mapping of names to arrays, a list of arrays, or an array")
    if len(values) != len(specs):
        raise OptionError(f"inputs: {len(values)} given; the model takes {_listed(specs)}")
    return values


def _remade(spec: TensorSpec, value: ArrayLike, *, quantize: bool) -> NDArray[Any]:
    """Of the input's type, and of a shape that it takes."""
    quantize = quantize and spec.is_quantized
    array = value if isinstance(value, np.ndarray) else _converted(spec, value, real=quantize)
    if quantize and array.dtype.kind == "f":
        array = spec.quantize(array)
    if spec.dtype.kind == "S" and array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    if not spec.holds(array.dtype):
        hint = ""
        if spec.is_quantized and array.dtype.kind == "f":
            hint = "; real numbers go with quantize=True"
        elif spec.dtype.kind != "S":
            hint = f"; say array.astype(np.{spec.dtype})"
        raise OptionError(f"inputs[{spec.name!r}] must be {spec}, not {array.dtype} {array.shape}{hint}")
    if not spec.accepts(array.shape):
        raise OptionError(
            f"inputs[{spec.name!r}] must be {spec}, not {array.dtype} {array.shape}{_remedy(spec, array)}"
        )
    return array


def _converted(spec: TensorSpec, value: ArrayLike, *, real: bool) -> NDArray[Any]:
    """Numbers that are no array yet, in the input's type when it can hold them."""
    try:
        array = np.asarray(value)
        if array.dtype == spec.dtype or array.dtype.kind in "SUO" or real:
            return array
        with np.errstate(all="ignore"):
            fitting = array.astype(spec.dtype)
        same = spec.dtype.kind == "f" or np.array_equal(fitting, array)
    except (ValueError, TypeError, OverflowError) as problem:
        raise OptionError(f"inputs[{spec.name!r}] can't be made an array: {problem}") from None
    return fitting if same else array


def _remedy(spec: TensorSpec, array: NDArray[Any]) -> str:
    if array.shape == spec.shape[1:] and spec.shape[:1] == (1,):
        return "; say array[None]"
    if len(array.shape) == len(spec.shape) and array.size:
        return f"; for this shape say model.resize({{{spec.name!r}: {array.shape}}}) first"
    return ""


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name!r}: {spec}" for spec in specs) or "nothing"
