"""Inputs to calibrate a model with and to compare two models on: a user's own, checked, or noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml._litert.metadata import read_metadata
from tabml._litert.specs import Signature, TensorSpec
from tabml.edge.comparison import Sample
from tabml.errors import ModelKindError, ModelLoadError, OptionError

MAX_SAMPLES = 10_000
"""Of one call."""
MAX_SAMPLE_BYTES = 2 << 30
"""Of all samples of one call."""
NOISE_SAMPLES = 8
"""How many are made where none are given."""


def checked(name: str, samples: Iterable[Sample], signature: Signature) -> list[dict[str, NDArray[Any]]]:
    """A user's samples as the model takes them.

    Args:
        name: Of the argument, for messages.
        samples: Inputs by their names.
        signature: What the model takes.

    Raises:
        OptionError: there are none, too many, or one doesn't fit the model.
    """
    if isinstance(samples, Mapping | str | bytes) or not hasattr(samples, "__iter__"):
        raise OptionError(f"{name} must be a list of samples, each a dict of arrays by the names of inputs")
    found: list[dict[str, NDArray[Any]]] = []
    size = 0
    for at, sample in enumerate(islice(samples, MAX_SAMPLES + 1)):
        found.append(_sample(f"{name}[{at}]", sample, signature))
        size += sum(array.nbytes for array in found[-1].values())
        if at == MAX_SAMPLES or size > MAX_SAMPLE_BYTES:
            raise OptionError(f"{name} has more than {MAX_SAMPLES} samples or {MAX_SAMPLE_BYTES} bytes; give fewer")
    if not found:
        raise OptionError(f"{name} has no samples; give at least one, better a hundred")
    return found


def noise(model: bytes, signature: Signature) -> list[dict[str, NDArray[Any]]]:
    """Samples that nobody gave: evenly spread over what the model's metadata allow, else normally distributed.

    Whole numbers are 0 or 1, which every table of embeddings has.

    Raises:
        ModelKindError: it takes text.
    """
    random = np.random.default_rng(0)
    ranges = dict(_ranges(model, signature))
    return [
        {spec.name: _filled(spec, ranges.get(spec.name), random) for spec in signature.inputs}
        for _ in range(NOISE_SAMPLES)
    ]


def _filled(spec: TensorSpec, limits: tuple[float, float] | None, random: np.random.Generator) -> NDArray[Any]:
    kind = spec.dtype.kind
    if kind == "f":
        values = random.uniform(*limits, spec.shape) if limits else random.standard_normal(spec.shape)
        return values.astype(spec.dtype)
    if kind not in "iub":
        raise ModelKindError(f"input {spec.name!r} takes {spec.dtype}; give samples of your own: evaluation=")
    return random.integers(0, 256 if spec.dtype == np.uint8 else 2, spec.shape).astype(spec.dtype)


def _ranges(model: bytes, signature: Signature) -> Iterator[tuple[str, tuple[float, float]]]:
    """What black and white become, of inputs whose metadata say so."""
    try:
        metadata = read_metadata(model)
    except ModelLoadError:
        return
    for spec, said in zip(signature.inputs, metadata.inputs if metadata is not None else (), strict=False):
        if said.mean and said.std and all(said.std):
            yield spec.name, ((0 - said.mean[0]) / said.std[0], (255 - said.mean[0]) / said.std[0])


def _sample(name: str, sample: Sample, signature: Signature) -> dict[str, NDArray[Any]]:
    wanted = [spec.name for spec in signature.inputs]
    if not isinstance(sample, Mapping) or set(sample) != set(wanted):
        given = ", ".join(map(repr, sample)) if isinstance(sample, Mapping) else type(sample).__name__
        raise OptionError(f"{name} has {given[:200]}; the model takes {', '.join(map(repr, wanted))[:400]}")
    return {spec.name: _array(f"{name}[{spec.name!r}]", sample[spec.name], spec) for spec in signature.inputs}


def _array(name: str, value: object, spec: TensorSpec) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype != spec.dtype or not spec.accepts(value.shape):
        given = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise OptionError(f"{name} is {given}; the model takes {spec}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise OptionError(f"{name} has values that are no numbers")
    return np.ascontiguousarray(value)
