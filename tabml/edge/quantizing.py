"""Models with smaller weights: quicker and a quarter as large, and what that costs, measured before it is accepted.

Google's quantiser does the arithmetic. Here a model is first written so that the quantiser sees all of it
(:mod:`tabml._litert.rewriting`), and afterwards compared with what it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from tabml._litert.bundle import chosen
from tabml._litert.specs import thread_count
from tabml.edge.comparison import Comparison, Measure, Runner, Sample, check_limit, compare, kinds_of, measured, timed
from tabml.edge.models import ModelSource
from tabml.edge.samples import checked, noise
from tabml.edge.saving import save
from tabml.errors import ModelKindError, OptionError
from tabml.files import FileProvider
from tabml.files.lite import load_lite_model

Recipe = Literal["int8-dynamic", "int8", "int4"]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
_QUANTISED_ALREADY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A model with smaller weights, and how it compares with the original."""

    model: bytes = field(repr=False)
    """The .tflite file; its inputs and outputs have the names, shapes and types of the original's."""
    recipe: Recipe
    """How it was made."""
    quantized_weights: float
    """The share of weights that have 8 or 4 bits now, 0 to 1; the rest are float32."""
    comparison: Comparison
    """Size, speed and accuracy, before and after."""
    source: Path | None = field(default=None, repr=False)
    """The original, where it was a file."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a file, whole or not at all.

        Raises:
            OptionError: it is the original, or no regular file.
            OSError: it can't be written.
        """
        return save(self.model, path, self.source)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model itself."""
        weights = {"recipe": self.recipe, "quantized_weights": self.quantized_weights}
        return {**weights, **self.comparison.to_dict()}


def quantize(
    model: ModelSource,
    *,
    recipe: Recipe = "int8-dynamic",
    calibration: Iterable[Sample] | None = None,
    evaluation: Iterable[Sample] | None = None,
    accuracy: Measure | None = None,
    max_drop: float | None = None,
    threads: int | None = 1,
    member: str | None = None,
    files: FileProvider | None = None,
) -> Quantized:
    """Make a model's weights smaller.

    The recipes: ``int8-dynamic`` has weights in 8 bits and quantises what flows between layers as it comes; ``int8`` has
    all of it in 8 bits, with ranges learnt from ``calibration``; ``int4`` is ``int8-dynamic`` with 4 bits, and a scale for each
    32 weights, in fully connected layers and embeddings. Weights of one channel (or block) share a scale:
    real = scale · stored (Jacob et al., 2018, arXiv:1712.05877). Depthwise convolutions stay float32 but in ``int8``, for
    they would be slower; biases are 32 bits.

    Args:
        model: A name of the catalog, a path, a file of ``files``, or the bytes of a .tflite file with float weights and
            one way of calling it.
        recipe: See above.
        calibration: For ``int8``: inputs as the model will see them, arrays by their names; a hundred or so. The whole
            range of each layer's values is kept.
        evaluation: Inputs that both models are compared on; ``calibration`` when None, and noise where that is None too.
        accuracy: How good a model is, 0 to 1: called with a function that runs one sample. When None, it is how
            far the new model agrees with the original: see :class:`OutputAgreement`.
        max_drop: How much accuracy may be lost at the most, 0 to 1. Judged on real samples or by ``accuracy``
            only, never on noise.
        threads: How many threads a call is timed with, 1 to 64; every core (at most 8) when None.
        member: Which .tflite file of a .task bundle; needed where it has several. The result is that file, not the bundle.
        files: Where model files come from; the default provider when None.

    Raises:
        OptionError: an option is out of its range, ``int8`` has no calibration, samples don't fit the model, or
            ``max_drop`` has nothing to be judged on.
        AccuracyDropError: more is lost than ``max_drop``; the message has the figures.
        ModelKindError: the model is quantised already, can be called in several ways, or has nothing for the recipe.
        CorruptModelError: it is no .tflite file, contradicts itself, or LiteRT dies of it.
        ModelFileNotFoundError: there is no such model.
        MissingExtraError: the quantiser is not installed.
    """
    _check(recipe, calibration, evaluation, accuracy, max_drop)
    threads = thread_count("threads", threads)
    content = bytes(chosen(load_lite_model(model, files=files), member, name=f"model={_named(model)}"))
    from tabml._litert.rewriting import finished, modern, weights_of

    if weights_of(content).share > _QUANTISED_ALREADY:
        raise ModelKindError(
            f"model={_named(model)} is quantised already ({weights_of(content).share:.0%} of its weights); give the float original"
        )
    from tabml.edge._quantizer import quantised

    with ExitStack() as stack:
        before = stack.enter_context(closing(_runner(content, threads, model)))
        calibrating = [] if calibration is None else checked("calibration", calibration, before.signature)
        samples = checked("evaluation", evaluation, before.signature) if evaluation is not None else calibrating
        plain = modern(content)
        signature = before.signature.name or "serving_default"
        made = quantised(plain, recipe, signature=signature, samples=calibrating, threads=threads)
        made = finished(made, content)
        share = weights_of(made).share
        if not share:
            raise ModelKindError(f"recipe={recipe!r} found nothing in model={_named(model)} that it could quantise")
        after = stack.enter_context(closing(_runner(made, threads, model)))
        comparison = _compared(content, made, before, after, samples, accuracy)
    check_limit(comparison, max_drop, f"recipe={recipe!r}")
    return Quantized(model=made, recipe=recipe, quantized_weights=share, comparison=comparison, source=_path_of(model))


def _check(recipe: object, calibration: object, evaluation: object, accuracy: object, max_drop: object) -> None:
    if recipe not in RECIPES:
        raise OptionError(f"recipe={recipe!r:.80} must be one of {', '.join(map(repr, RECIPES))}")
    if recipe == "int8" and calibration is None:
        raise OptionError("recipe='int8' needs calibration=: inputs as the model will see them, a hundred or so")
    if accuracy is not None and not callable(accuracy):
        raise OptionError(f"accuracy={accuracy!r:.80} must be a function that takes a model and gives a number")
    if max_drop is None:
        return
    if isinstance(max_drop, bool) or not isinstance(max_drop, int | float) or not 0 <= max_drop <= 1:
        raise OptionError(f"max_drop={max_drop!r:.80} must be a number from 0 to 1")
    if accuracy is None and evaluation is None and calibration is None:
        raise OptionError(
            f"max_drop={max_drop!r} has nothing to be judged on; give evaluation=, calibration= or accuracy="
        )


def _runner(content: bytes, threads: int, model: ModelSource) -> Runner:
    try:
        return Runner(content, threads=threads)
    except ModelKindError as problem:
        raise ModelKindError(f"model={_named(model)}: {problem}") from None


def _compared(
    content: bytes,
    made: bytes,
    before: Runner,
    after: Runner,
    samples: list[dict[str, NDArray[Any]]],
    accuracy: Measure | None,
) -> Comparison:
    given = [(spec.name, spec.shape, spec.dtype) for spec in (*before.signature.inputs, *before.signature.outputs)]
    got = [(spec.name, spec.shape, spec.dtype) for spec in (*after.signature.inputs, *after.signature.outputs)]
    if given != got:
        raise ModelKindError(f"the quantiser changed what the model takes or gives, from {given} to {got}")
    generated = not samples
    samples = samples or noise(content, before.signature)
    outputs = compare(before, after, samples, kinds_of(content))
    agreement = min(each.agreement for each in outputs)
    first: Mapping[str, NDArray[Any]] = samples[0]
    was, now = timed([lambda: before(first), lambda: after(first)])
    return Comparison(
        bytes_before=len(content),
        bytes_after=len(made),
        ms_before=was,
        ms_after=now,
        threads=before.threads,
        accuracy_before=1.0 if accuracy is None else measured(accuracy, before),
        accuracy_after=agreement if accuracy is None else measured(accuracy, after),
        measure="agreement" if accuracy is None else "yours",
        outputs=outputs,
        samples=len(samples),
        generated=generated,
    )


def _path_of(model: ModelSource) -> Path | None:
    return Path(model).expanduser().absolute() if isinstance(model, os.PathLike) else None


def _named(model: ModelSource) -> str:
    return f"({len(model)} bytes)" if isinstance(model, bytes | memoryview) else repr(str(model))
