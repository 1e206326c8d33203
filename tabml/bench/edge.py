"""How quick a LiteRT model is through tabml, beside a bare interpreter, for each number of threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tabml._litert.bundle import chosen
from tabml.bench.rows import Row
from tabml.edge.models import LiteModel, ModelSource
from tabml.errors import MissingExtraError, OptionError
from tabml.files.lite import load_lite_model

MAX_RUNS = 100_000
_NINE_TENTHS = 90
_LOOP = 10


def measure(
    model: ModelSource, *, threads: Sequence[int] = (1, 2), runs: int = 50, member: str | None = None
) -> list[Row]:
    """Milliseconds a call on zeros: the median, the ninth decile in the note; tabml and the bare interpreter in turns.

    Args:
        model: As of :class:`LiteModel`.
        threads: How many share one call; each is measured.
        runs: How often each is called, after five calls that aren't counted.
        member: Which .tflite file of a .task bundle.

    Raises:
        OptionError: a number is out of its range.
        ModelError: the model can't be loaded or run.
    """
    if not 1 <= runs <= MAX_RUNS:
        raise OptionError(f"runs={runs} must be from 1 to {MAX_RUNS}")
    if not threads:
        raise OptionError("threads is empty; give at least one number")
    content = bytes(chosen(load_lite_model(model), member, name=f"model={str(model)[:200]!r}"))
    rows = []
    for count in threads:
        with LiteModel(content, threads=count) as ours:
            inputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in ours.inputs}
            found = in_turns([bare(content, count), partial(ours.run, inputs)], runs)
        peer, own = (statistics.median(times) for times in found)
        case = f"{count} thread{'s' if count > 1 else ''}"
        rows.append(Row(case=case, name="LiteRT", value=peer, unit="ms", note=_note(found[0])))
        rows.append(
            Row(case=case, name="tabml", value=own, unit="ms", peer="LiteRT", ratio=own / peer, note=_note(found[1]))
        )
    return rows


def bare(content: bytes, threads: int) -> Callable[[], Any]:
    """A call of LiteRT's own interpreter, with the copies that any use of it needs."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as problem:
        raise MissingExtraError("edge", "ai-edge-litert") from problem
    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    given, got = interpreter.get_input_details(), interpreter.get_output_details()
    zeros = [np.zeros(each["shape"], each["dtype"]) for each in given]

    def call() -> list[Any]:
        for each, array in zip(given, zeros, strict=True):
            interpreter.set_tensor(each["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(each["index"]) for each in got]

    return call


def in_turns(works: Sequence[Callable[[], Any]], runs: int) -> list[list[float]]:
    """Milliseconds of each call: loops of ten calls, in turns."""
    found: list[list[float]] = [[] for _ in works]
    for work in works:
        for _ in range(5):
            work()
    while len(found[-1]) < runs:
        for times, work in zip(found, works, strict=True):
            for _ in range(min(_LOOP, runs - len(times))):
                began = time.perf_counter()
                work()
                times.append((time.perf_counter() - began) * 1e3)
    return found


def _note(times: Sequence[float]) -> str:
    return f"90 % under {np.percentile(times, _NINE_TENTHS):.4g} ms"
