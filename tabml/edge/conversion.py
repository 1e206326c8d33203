"""PyTorch modules as .tflite files, accepted only when they answer as the module does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml._litert.specs import TensorSpec, thread_count
from tabml.edge.comparison import Comparison, Runner, Sample, compare, kinds_of, timed
from tabml.edge.saving import save
from tabml.errors import AccuracyDropError, ModelKindError, OptionError

Arguments = Sequence[Any] | Mapping[str, Any]
"""Of one call of a module: by place, or by name; tensors or arrays."""
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The same, checked: tensors by place, and by name."""
_NOTHING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A .tflite file made of a module, and how it compares with it."""

    model: bytes = field(repr=False)
    """The file: one signature, ``serving_default``, with inputs ``args_0``, ``args_1``, … (or the names they were given)
    and outputs ``output_0``, … in the module's order."""
    error: float
    """The largest difference between both answers, as a share of the module's largest."""
    comparison: Comparison
    """Size (before: of the weights), speed and agreement; before is PyTorch itself."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a file, whole or not at all.

        Raises:
            OptionError: it is no regular file.
            OSError: it can't be written.
        """
        return save(self.model, path, None)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model itself."""
        return {"error": self.error, **self.comparison.to_dict()}


def convert(
    module: Any,
    sample_inputs: Arguments,
    *,
    evaluation: Iterable[Arguments] | None = None,
    max_error: float = 1e-3,
    threads: int | None = 1,
) -> Converted:
    """Make a .tflite file of a PyTorch module.

    The module is traced with ``torch.export``, whose rules hold: no branches on values. Shapes are those of the sample.
    Whole numbers of 64 bits become 32.

    Args:
        module: A ``torch.nn.Module`` in eval mode, on the CPU.
        sample_inputs: What it is traced with: a tuple of tensors or arrays, or a dict of them by parameter.
        evaluation: Further inputs of the same shapes, on which both are compared; only ``sample_inputs`` when None.
        max_error: How far an answer may be off, as a share of the module's largest; above 0, at most 1.
        threads: How many threads a call is timed with, 1 to 64; every core (at most 8) when None. PyTorch has as
            many while it is timed, in the whole process.

    Raises:
        OptionError: an option is out of its range, or the module is in training mode or elsewhere than on the CPU.
        ModelKindError: the module can't be traced, or LiteRT has no operator for what it does.
        AccuracyDropError: the file answers otherwise; the message has the figures.
        InferenceError: the module fails on the sample.
        MissingExtraError: the converter is not installed.
    """
    if isinstance(max_error, bool) or not isinstance(max_error, int | float) or not 0 < max_error <= 1:
        raise OptionError(f"max_error={max_error!r:.80} must be above 0, at most 1")
    threads = thread_count("threads", threads)
    from tabml.edge import _converter

    _converter.check_module(module)
    calls = [_converter.tensors_of("sample_inputs", sample_inputs)]
    calls += [_converter.tensors_of(f"evaluation[{at}]", each) for at, each in enumerate(evaluation or ())]
    _converter.answers(module, *calls[0])
    content = _converter.converted(module, *calls[0])
    comparison, largest = _compared(module, content, calls, threads)
    worst = max(comparison.outputs, key=lambda each: each.max_error)
    error = worst.max_error / max(largest, _NOTHING)
    if not error <= max_error:
        raise AccuracyDropError(
            f"max_error={max_error:g}: {worst.name!r} is off by up to {worst.max_error:.3g} where the module's largest answer is "
            f"{largest:.3g} ({error:.3g} of it, {len(calls)} samples)",
            error,
            max_error,
        )
    return Converted(model=content, error=error, comparison=comparison)


def _compared(module: Any, content: bytes, calls: Sequence[Call], threads: int) -> tuple[Comparison, float]:
    """The module beside its file, and the largest answer of the module."""
    from tabml.edge import _converter

    samples = [{"call": np.array(at)} for at in range(len(calls))]
    with closing(Runner(content, threads=threads)) as runner:
        names = [spec.name for spec in runner.signature.outputs]

        def original(sample: Sample) -> dict[str, NDArray[Any]]:
            return dict(zip(names, _converter.answers(module, *calls[int(sample["call"])]), strict=True))

        def made(sample: Sample) -> dict[str, NDArray[Any]]:
            return runner(_inputs(*calls[int(sample["call"])], runner.signature.inputs))

        largest = max(float(np.abs(array).max(initial=0)) for sample in samples for array in original(sample).values())
        outputs = compare(original, made, samples, kinds_of(content))
        with _converter.on_threads(threads):
            before, after = timed([lambda: original(samples[0]), lambda: made(samples[0])])
    comparison = Comparison(
        bytes_before=_converter.size_of(module),
        bytes_after=len(content),
        ms_before=before,
        ms_after=after,
        threads=threads,
        accuracy_before=1.0,
        accuracy_after=min(each.agreement for each in outputs),
        measure="agreement",
        outputs=outputs,
        samples=len(samples),
        generated=False,
    )
    return comparison, largest


def _inputs(placed: Sequence[Any], named: Mapping[str, Any], specs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """A call's tensors as the file takes them.

    Raises:
        ModelKindError: it takes something else.
    """
    given = {**{f"args_{at}": tensor for at, tensor in enumerate(placed)}, **named}
    if not {spec.name for spec in specs} <= given.keys():
        names = ", ".join(spec.name for spec in specs)
        raise ModelKindError(f"the file takes {names}, and the module was given {', '.join(given)}")
    return {spec.name: np.ascontiguousarray(given[spec.name].numpy()).astype(spec.dtype) for spec in specs}
