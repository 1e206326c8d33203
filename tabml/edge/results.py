"""What a LiteRT model answers, and what is measured of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from tabml.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What a model runs on."""

    name: Literal["cpu", "gpu", "npu"]
    """Where it runs."""
    why: str
    """Why there: asked for, or what ``auto`` found."""
    device: str = ""
    """Of a GPU: its name, as its driver says it."""
    is_complete: bool = True
    """Whether all of the model runs there; else LiteRT runs the rest on the CPU."""


class LiteOutputs(Mapping[str, NDArray[Any]]):
    """The outputs of one run, by name: read-only arrays of their own, in the model's order."""

    __slots__ = ("_arrays", "accelerator", "seconds")

    def __init__(self, arrays: dict[str, NDArray[Any]], *, accelerator: Accelerator, seconds: float) -> None:
        self._arrays = arrays
        self.accelerator = accelerator
        """What ran the model."""
        self.seconds = seconds
        """How long it ran, with the copies in and out."""

    @property
    def value(self) -> NDArray[Any]:
        """The output of a model that has one.

        Raises:
            OptionError: it has several.
        """
        if len(self._arrays) != 1:
            raise OptionError(f"the model has the outputs {', '.join(self._arrays)}; take one by its name")
        return next(iter(self._arrays.values()))

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"{name!r} is not an output; there are: {', '.join(self._arrays)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}: {array.dtype} {array.shape}" for name, array in self._arrays.items())
        return f"LiteOutputs({inside}; {self.accelerator.name}, {self.seconds * 1000:.2f} ms)"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON; byte strings as text."""
        return {
            "outputs": {name: _listed(array) for name, array in self._arrays.items()},
            "accelerator": self.accelerator.name,
            "seconds": self.seconds,
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """:meth:`to_dict` as one JSON document; NaN and infinities as null."""
        return json.dumps(_without_nan(self.to_dict()), indent=indent, allow_nan=False, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """One operator of a model, in the order they run."""

    name: str
    """As XNNPACK or LiteRT calls it."""
    milliseconds: float
    """The median of all runs."""
    share: float
    """Of all operators' time, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where a model's time goes, on one thread of the CPU."""

    operators: tuple[OperatorTime, ...]
    """One by one, in the order they run."""
    milliseconds: float
    """All of them."""
    runs: int
    """How often it was measured."""

    def by_name(self) -> dict[str, float]:
        """Milliseconds of all operators of a name, the slowest first."""
        found: dict[str, float] = {}
        for each in self.operators:
            found[each.name] = found.get(each.name, 0.0) + each.milliseconds
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{time:9.3f} ms  {time / self.milliseconds if self.milliseconds else 0:6.1%}  {name}"
            for name, time in self.by_name().items()
        ]
        return "\n".join([*lines, f"{self.milliseconds:9.3f} ms  in {len(self.operators)} operators, {self.runs} runs"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How quick :meth:`LiteModel.run` is."""

    median_ms: float
    """Half of the runs took less, milliseconds."""
    p90_ms: float
    """Nine of ten runs took less."""
    fastest_ms: float
    """The quickest one."""
    runs: int
    """How often it ran, after those that aren't counted."""
    threads: int
    """How many shared one run."""
    accelerator: Accelerator
    """Where it ran."""

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.median_ms:.3f} ms (90 % under {self.p90_ms:.3f}, fastest {self.fastest_ms:.3f}), {self.runs} runs, "
            f"{self.threads} threads, {self.accelerator.name}"
        )


def _listed(array: NDArray[Any]) -> Any:
    if array.dtype.kind in "SO":
        return [each.decode("utf-8", "replace") for each in array.ravel().tolist()]
    return array.tolist()


def _without_nan(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _without_nan(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and not abs(values) < float("inf") else values
