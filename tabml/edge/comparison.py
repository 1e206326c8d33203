"""Two models on the same samples: how alike they answer, how large and how quick they are."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tabml._litert import LiteGraph
from tabml._litert.metadata import read_metadata
from tabml._litert.signatures import Places, read_signatures
from tabml._litert.tables import Flatbuffer, Table
from tabml.cancellation import current_cancellation
from tabml.errors import AccuracyDropError, ModelKindError, ModelLoadError, OptionError

Sample = Mapping[str, NDArray[Any]]
"""Inputs by their names."""
Predict = Callable[[Sample], dict[str, NDArray[Any]]]
"""A model as a function: outputs by their names."""
Measure = Callable[[Predict], float]
"""How good a model is, 0 to 1: of a user's own making."""
Kind = Literal["classes", "sides", "equal", "values"]

_SOFTMAX, _LOGISTIC = 25, 14
_PASSED = (6, 22, 43, 114)  # DEQUANTIZE, RESHAPE, SQUEEZE, QUANTIZE
_TURNS, _SECONDS = (5, 31), 1.5
_NOTHING = 1e-30
_FLOATS = (0, 1, 10)  # of 32, 16, 64 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputAgreement:
    """How alike two models' answers are, for one output."""

    name: str
    """The output's."""
    kind: Kind
    """What ``agreement`` counts: ``classes``, where the largest score is the same; ``sides``, where a probability is on
    the same side of one half; ``equal``, of whole numbers; ``values``, the cosine of both answers."""
    agreement: float
    """The share of places where both say the same, 0 to 1; of ``values`` the mean cosine, not below 0."""
    cosine: float
    """Of the angle between both answers: the smallest of all samples, −1 to 1."""
    sqnr_db: float
    """Signal to quantisation noise: ten times the logarithm of how many times larger the squares of the answers are than
    those of the differences, in decibels; infinite where there is no difference."""
    max_error: float
    """The largest difference, in the output's own unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A model before and after it was changed."""

    bytes_before: int
    """The size of the file."""
    bytes_after: int
    """See ``bytes_before``."""
    ms_before: float
    """The median time of a call, measured in turns with the other; milliseconds."""
    ms_after: float
    """See ``ms_before``."""
    threads: int
    """How many share a call."""
    accuracy_before: float
    """As ``measure`` counts; 1 where it counts agreement."""
    accuracy_after: float
    """See ``accuracy_before``."""
    measure: str
    """What accuracy is: ``agreement``, of the output that agrees least, or ``yours``."""
    outputs: tuple[OutputAgreement, ...]
    """One for each output."""
    samples: int
    """How many were looked at."""
    generated: bool
    """Whether the samples were noise: then agreement says little about real input."""

    @property
    def drop(self) -> float:
        """What accuracy lost; negative where it gained."""
        return self.accuracy_before - self.accuracy_after

    @property
    def smaller(self) -> float:
        """How many times as large the file was."""
        return self.bytes_before / self.bytes_after

    @property
    def quicker(self) -> float:
        """How many times as long a call took."""
        return self.ms_before / self.ms_after

    def to_dict(self) -> dict[str, Any]:
        """Field by field, and ``drop``, ``smaller`` and ``quicker``; an infinite number as None."""
        found = asdict(self) | {"drop": self.drop, "smaller": self.smaller, "quicker": self.quicker}
        found["outputs"] = [
            {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in each.items()}
            for each in found["outputs"]
        ]
        return found


class Runner:
    """A model with one way of calling it, as a function."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        """Load it.

        Raises:
            ModelLoadError: LiteRT refused it.
            ModelKindError: it can be called in several ways.
        """
        self.graph, self.threads = LiteGraph(model, threads=threads), threads
        if len(self.graph.signatures) > 2:
            names = ", ".join(each.name for each in self.graph.signatures[1:])
            self.graph.close()
            raise ModelKindError(f"it has several signatures ({names[:200]}); only models with one can be compared")
        self._at = len(self.graph.signatures) - 1
        self.signature = self.graph.signatures[self._at]

    def __call__(self, sample: Sample) -> dict[str, NDArray[Any]]:
        """Outputs by their names, as arrays of their own.

        Raises:
            InferenceError: LiteRT failed, or an input has another shape or type.
        """
        names = [spec.name for spec in self.signature.outputs]
        return self.graph.run(
            [sample[spec.name] for spec in self.signature.inputs],
            lambda out: {name: np.array(array) for name, array in zip(names, out, strict=True)},
            signature=self._at,
        )

    def close(self) -> None:
        """Free the model."""
        self.graph.close()


class Tally:
    """What is added up for one output."""

    def __init__(self, name: str, kind: Kind) -> None:
        self.name, self.kind = name, kind
        self._agreements: list[float] = []
        self._cosine = 1.0
        self._signal = self._noise = self._error = 0.0

    def add(self, before: NDArray[Any], after: NDArray[Any]) -> None:
        """One sample's answers."""
        if before.shape != after.shape or before.dtype.kind not in "fiub" or not np.isfinite(after).all():
            same = before.shape == after.shape and bool((before == after).all())
            self._agreements.append(float(same))
            if not same:
                self._cosine, self._error, self._noise = min(self._cosine, 0.0), math.inf, math.inf
            return
        first, second = before.astype(np.float64), after.astype(np.float64)
        cosine = _cosine(first, second)
        self._cosine = min(self._cosine, cosine)
        self._error = max(self._error, float(np.abs(first - second).max(initial=0)))
        self._signal += float((first * first).sum())
        self._noise += float(((first - second) ** 2).sum())
        self._agreements.append(self._agreed(first, second, cosine))

    def _agreed(self, first: NDArray[Any], second: NDArray[Any], cosine: float) -> float:
        if self.kind == "classes":
            return float((first.argmax(-1) == second.argmax(-1)).mean())
        if self.kind == "sides":
            return float(((first > 0.5) == (second > 0.5)).mean())
        return float((first == second).mean()) if self.kind == "equal" else max(cosine, 0.0)

    def result(self) -> OutputAgreement:
        """Of all samples."""
        noise = max(self._noise, 0.0)
        ratio = 10 * math.log10(max(self._signal, _NOTHING) / noise) if 0 < noise < math.inf else math.inf
        return OutputAgreement(
            name=self.name,
            kind=self.kind,
            agreement=statistics.fmean(self._agreements),
            cosine=self._cosine,
            sqnr_db=-math.inf if noise == math.inf else ratio,
            max_error=self._error,
        )


def _cosine(first: NDArray[Any], second: NDArray[Any]) -> float:
    """1 where both are nothing, 0 where one is."""
    lengths = float(np.sqrt((first * first).sum())), float(np.sqrt((second * second).sum()))
    if min(lengths) < _NOTHING:
        return float(max(lengths) < _NOTHING)
    return min(1.0, float((first * second).sum()) / (lengths[0] * lengths[1]))


def compare(
    before: Predict, after: Predict, samples: Sequence[Sample], kinds: Mapping[str, Kind]
) -> tuple[OutputAgreement, ...]:
    """Run both on every sample.

    Args:
        before: The one that is right.
        after: The other.
        samples: At least one.
        kinds: What is compared, for each output.

    Raises:
        InferenceError: one of them failed.
        CallCancelledError: the current cancellation was set.
    """
    tallies = [Tally(name, kind) for name, kind in kinds.items()]
    for sample in samples:
        if (cancellation := current_cancellation()) is not None:
            cancellation.check()
        right, other = before(sample), after(sample)
        for tally in tallies:
            tally.add(right[tally.name], other[tally.name])
    return tuple(tally.result() for tally in tallies)


def timed(works: Sequence[Callable[[], Any]]) -> tuple[float, ...]:
    """The median milliseconds of each work, in turns after one that isn't counted; one or two seconds in all."""
    for work in works:
        work()
    found: list[list[float]] = [[] for _ in works]
    end = time.perf_counter() + _SECONDS
    for turn in range(_TURNS[1]):
        if turn >= _TURNS[0] and time.perf_counter() > end:
            break
        for times, work in zip(found, works, strict=True):
            began = time.perf_counter()
            work()
            times.append((time.perf_counter() - began) * 1e3)
    return tuple(statistics.median(times) for times in found)


def measured(measure: Measure, predict: Predict) -> float:
    """What a user's own measure says.

    Raises:
        OptionError: it gives no number.
    """
    try:
        found = float(measure(predict))
    except TypeError as problem:
        raise OptionError(f"accuracy={measure!r:.80} must take a model and give a number: {problem}") from problem
    if not math.isfinite(found):
        raise OptionError(f"accuracy={measure!r:.80} gave {found}, which is no number")
    return found


def check_limit(comparison: Comparison, max_drop: float | None, what: str) -> None:
    """Nothing, when no more accuracy is lost than may be.

    Raises:
        AccuracyDropError: more is.
    """
    if max_drop is None or comparison.drop <= max_drop:
        return
    counted = "of its own measure" if comparison.measure == "yours" else "agreement with the original"
    raise AccuracyDropError(
        f"max_drop={max_drop:g}: {what} loses {comparison.drop:.4f} (from {comparison.accuracy_before:.4f} to "
        f"{comparison.accuracy_after:.4f} {counted}, {comparison.samples} samples), for a file {comparison.smaller:.2f} "
        f"times smaller and calls {comparison.quicker:.2f} times as quick; take another recipe, or allow more",
        comparison.drop,
        max_drop,
    )


def kinds_of(model: bytes) -> dict[str, Kind]:
    """What is compared of each output of a model with one way of calling it."""
    root = Flatbuffer(model).root()
    codes = [max(each.number(0, "b"), each.number(3, "i")) for each in root.tables(1)]
    graphs = list(root.tables(2))
    main = graphs[0].whole(2)
    names = tuple(list(graphs[0].tables(0))[tensor].text(3) for tensor in main)
    *_, places = read_signatures(model, Places("", 0, (), main, (), names))
    graph = graphs[places.graph]
    tensors, order = list(graph.tables(0)), list(graph.whole(2))
    makers = {out: each for each in graph.tables(3) for out in each.whole(2)}
    labels = _label_counts(model)
    found: dict[str, Kind] = {}
    for name, tensor in zip(places.output_names, places.outputs, strict=True):
        shape, at = tensors[tensor].whole(0), order.index(tensor)
        count = shape[-1] if shape else 1
        code = _made_by(tensor, makers, codes)
        if count > 1 and (code == _SOFTMAX or (at < len(labels) and labels[at] == count)):
            found[name] = "classes"
        elif code == _LOGISTIC:
            found[name] = "sides"
        else:
            found[name] = "values" if tensors[tensor].number(1, "b") in _FLOATS else "equal"
    return found


def _made_by(tensor: int, makers: Mapping[int, Table], codes: Sequence[int]) -> int:
    """The code of the operator that an output's values come from; −1 where they come from none."""
    for _ in range(len(makers)):
        maker = makers.get(tensor)
        if maker is None:
            return -1
        code: int = codes[maker.number(0, "I")]
        if code not in _PASSED:
            return code
        tensor = maker.whole(1)[0]
    return -1


def _label_counts(model: bytes) -> list[int]:
    """How many names of classes each output has."""
    try:
        metadata = read_metadata(model)
    except ModelLoadError:
        return []
    return [len(each.labels) for each in metadata.outputs] if metadata is not None else []
