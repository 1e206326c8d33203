"""Decode steps of few shapes, so that a GPU can be given each as one recording.

A step of a small model is hundreds of kernels of a few microseconds, which Python starts more slowly than the GPU ends
them. Here everything that changes from step to step (tokens, positions) lies in memory of the device, and what is
Python's (the number of rows, of keys) is rounded up to one of few sizes; so a step can be recorded once as a CUDA graph
and played again. A step also leaves the next one's tokens and positions: greedy answers go on before anybody has looked
at them.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from tabml.text._torch.cache import SlotCache

log = logging.getLogger("tabml.text")

MOST_ROWS = 64
"""Answers that a step may be for."""
_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, MOST_ROWS)
_FIRST_SPAN = 256
_EAGER = 2
"""Times that a shape is computed before it is recorded: libraries set themselves up, and a rare shape isn't worth it."""
RECORDING = threading.Lock()
"""One recording at a time in a process, and none while a device is measured."""
Output = tuple[torch.Tensor, torch.Tensor]
Recorder = Callable[[Callable[[], Output]], tuple[Callable[[], None], Output]]
"""From what computes to what plays that again, and the tensors where its results then are; it is not computed."""


def rows_for(count: int) -> int:
    """Rows of a step for so many answers."""
    return _ROWS[bisect_left(_ROWS, count)]


def span_for(tokens: int) -> int:
    """Keys that a step looks at when the longest answer has so many: a power of two, or half way to the next."""
    span = _FIRST_SPAN
    while span < tokens:
        if span + span // 2 >= tokens:
            return span + span // 2
        span *= 2
    return span


class Step(NamedTuple):
    """What was begun, for slots from the first on."""

    longest: int
    """Tokens of the longest answer, this step's among them."""
    rows: int
    span: int
    version: int
    """Of the cache; in another one the rows that are nobody's would write among somebody's keys."""
    scores: torch.Tensor
    """(rows, vocabulary); until the next step."""
    best: Callable[[], list[int]]
    """The most probable token of each row; waits for it."""


class Steps:
    """Begins steps of one model and its cache."""

    def __init__(
        self,
        scores: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        slots: SlotCache,
        device: torch.device,
        *,
        most_tokens: int,
        recorder: Callable[[], Recorder] | None,
        layer_run: Callable[..., Any] | None = None,
    ) -> None:
        """Nothing is recorded yet.

        Args:
            scores: The model's, (rows, vocabulary), from tokens, a mask and positions.
            slots: Where its keys and values are.
            device: Of the model.
            most_tokens: Of one answer with its prompt.
            recorder: Makes what records, anew once recordings are dropped; None where they don't pay.
            layer_run: Computes a layer of two rows or more; None for the layer itself.
        """
        self._scores, self._slots = scores, slots
        self._last_position = most_tokens - 1
        self._layer_run = layer_run
        self._least = 1 if layer_run is None else 2
        self._recorder = recorder
        self._record = recorder() if recorder is not None else None
        self._fed = torch.zeros((MOST_ROWS, 2), dtype=torch.long, device=device)
        self._seen: dict[tuple[int, int], int] = {}
        self._recorded: dict[tuple[int, int], tuple[Callable[[], None], Output]] = {}
        self._version = slots.version

    def rows_for(self, count: int) -> int:
        """Rows of a step for so many answers, each of which is a slot."""
        return rows_for(max(count, self._least))

    def begin(self, tokens: Sequence[int]) -> Step:
        """A token of each of the first ``len(tokens)`` slots; there must be as many as :meth:`rows_for` says.

        Args:
            tokens: The next one of each.
        """
        lengths, rows = self._slots.lengths, self.rows_for(len(tokens))
        longest = max(lengths[: len(tokens)]) + 1
        span = min(span_for(longest + 1), self._last_position + 1)
        spare = self._slots.reserve(span)
        fed = [[token, length] for token, length in zip(tokens, lengths, strict=False)]
        self._fed[:rows].copy_(torch.tensor(fed + [[0, spare]] * (rows - len(fed))))
        self._slots.will_write(len(tokens))
        return self._begun(len(tokens), longest, rows, span)

    def follow(self, step: Step, count: int) -> Step | None:
        """The step after one of greedy answers, whose tokens nobody has looked at yet; None where there is no room.

        Args:
            step: The last one that was begun.
            count: Answers it is for.
        """
        if step.longest == step.span or step.version != self._slots.version:
            return None
        self._slots.will_write(count, 2)
        return self._begun(count, step.longest + 1, step.rows, step.span)

    def _begun(self, count: int, longest: int, rows: int, span: int) -> Step:
        scores, best = self._computed(rows, span)
        return Step(longest, rows, span, self._version, scores, _soon(best[:count]))

    def _computed(self, rows: int, span: int) -> Output:
        if self._version != self._slots.version:  # recordings are of memory that is no more
            self._recorded.clear()
            self._version = self._slots.version
            if self._record is not None and self._recorder is not None:
                self._record = self._recorder()
        shape = (rows, span)
        found = self._recorded.get(shape)
        if found is None:
            seen = self._seen[shape] = self._seen.get(shape, 0) + 1
            if self._record is None or seen <= _EAGER or not RECORDING.acquire(blocking=False):
                return self._compute(rows, span)
            try:
                found = self._recorded[shape] = self._record(lambda: self._compute(rows, span))
            except RuntimeError as problem:
                log.warning("steps of this model can't be recorded, which is slower", exc_info=problem)
                self._record = None
                return self._compute(rows, span)
            finally:
                RECORDING.release()
        found[0]()
        return found[1]

    def _compute(self, rows: int, span: int) -> Output:
        ids, at = self._fed[:rows, :1], self._fed[:rows, 1:]
        mask = self._slots.first(at, span, self._layer_run)
        positions = at.clamp(max=self._last_position)
        scores = self._scores(ids, mask, positions)
        best = scores.argmax(-1)
        ids.copy_(best[:, None])
        at.add_(1).clamp_(max=self._slots.spare)
        return scores, best


def _soon(values: torch.Tensor) -> Callable[[], list[int]]:
    """Numbers on their way from the device; nothing that is begun later is waited for."""
    if values.device.type != "cuda":
        kept: list[int] = values.tolist()
        return lambda: kept
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    there = torch.cuda.Event()
    there.record()

    def wait() -> list[int]:
        there.synchronize()
        found: list[int] = host.tolist()
        return found

    return wait


def cuda_recorder(device: torch.device) -> Recorder:
    """CUDA graphs that share their memory: of what they compute with, no two are needed at a time.

    Once its graphs are gone it is of no use: torch takes no new ones into memory of which a part is still held.
    """
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(compute: Callable[[], Output]) -> tuple[Callable[[], None], Output]:
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
        try:
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                output = compute()
        finally:
            torch.cuda.set_stream(before)  # a recording that fails leaves its own
        return graph.replay, output

    return record
