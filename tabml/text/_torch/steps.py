"""Decode steps, and passes over prompts, of few shapes, so that a GPU can be given each as one recording.

Everything that changes from step to step (tokens, positions) lies in memory of the device, and what is Python's (the
number of rows, of keys) is rounded up to one of few sizes. A step also leaves the next one's tokens and positions:
greedy answers go on before anybody has looked at them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from tabml.text._torch.cache import SlotCache
from tabml.text._torch.recording import Recorder, Recordings

MOST_ROWS = 64
"""Answers that a step may be for."""
_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, MOST_ROWS)
_FIRST_SPAN = 256
_TOKENS = (16, 32, 48, 64, 96, 128, 192, 256)
MOST_TOKENS = _TOKENS[-1]
"""Of one prompt that may be read at a time."""


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


def tokens_for(count: int) -> int:
    """Tokens of a row for so many of a prompt."""
    return _TOKENS[bisect_left(_TOKENS, count)]


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
        self._recordings = Recordings(recorder)
        self._fed = torch.zeros((MOST_ROWS, 2), dtype=torch.long, device=device)
        self._prompts = torch.zeros(MOST_ROWS * (3 + MOST_TOKENS), dtype=torch.long, device=device)
        self._kept: torch.Tensor | None = None
        self._version = slots.version

    def rows_for(self, count: int) -> int:
        """Rows of a step for so many answers, each of which is a slot."""
        return rows_for(max(count, self._least))

    def read(self, pieces: Mapping[int, Sequence[int]]) -> torch.Tensor:
        """Further tokens of several prompts.

        Args:
            pieces: By slot, each of up to ``MOST_TOKENS``.

        Returns:
            The scores after the last token of each, (rows, vocabulary); until the next step.
        """
        lengths, rows, tokens = self._slots.lengths, rows_for(len(pieces)), tokens_for(max(map(len, pieces.values())))
        longest = max(lengths[slot] + len(piece) for slot, piece in pieces.items())
        span = min(span_for(longest), self._last_position + 1)
        self._slots.reserve(span)
        for slot, piece in pieces.items():
            self._slots.will_write([slot], len(piece))
        fed = [
            [slot, lengths[slot], lengths[slot] + len(piece), *[0] * (tokens - len(piece)), *piece]
            for slot, piece in pieces.items()
        ]
        nobodys = [[0] * (3 + tokens)] * (rows - len(fed))
        given = self._prompts[: rows * (3 + tokens)].view(rows, 3 + tokens)
        given.copy_(torch.tensor(fed + nobodys))
        self._renew()
        return self._recordings.computed(("read", rows, tokens, span), lambda: (self._compute_read(given, span),))[0]

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
        self._slots.will_write(range(len(tokens)))
        return self._begun(len(tokens), longest, rows, span)

    def follow(self, step: Step, count: int) -> Step | None:
        """The step after one of greedy answers, whose tokens nobody has looked at yet; None where there is no room.

        Args:
            step: The last one that was begun.
            count: Answers it is for.
        """
        if step.longest == step.span or step.version != self._slots.version:
            return None
        self._slots.will_write(range(count), 2)
        return self._begun(count, step.longest + 1, step.rows, step.span)

    def _begun(self, count: int, longest: int, rows: int, span: int) -> Step:
        scores, best = self._computed(rows, span)
        return Step(longest, rows, span, self._version, scores, _soon(best[:count]))

    def _computed(self, rows: int, span: int) -> tuple[torch.Tensor, torch.Tensor]:
        self._renew()
        scores, best = self._recordings.computed((rows, span), lambda: self._compute(rows, span))
        return scores, best

    def _renew(self) -> None:
        """Drop recordings of memory that is no more."""
        if self._version != self._slots.version:
            self._recordings.drop()
            self._version = self._slots.version

    def _compute_read(self, given: torch.Tensor, span: int) -> torch.Tensor:
        slots, begins, ends = given[:, :3].unbind(1)
        positions, mask = self._slots.several(slots, begins, ends, given.shape[1] - 3, span)
        return self._keep(self._scores(given[:, 3:], mask, positions))

    def _keep(self, scores: torch.Tensor) -> torch.Tensor:
        """In one place for all recordings, since each would hold its own."""
        if self._kept is None:
            self._kept = scores.new_empty((MOST_ROWS, scores.shape[-1]))
        return self._kept[: len(scores)].copy_(scores)

    def _compute(self, rows: int, span: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, at = self._fed[:rows, :1], self._fed[:rows, 1:]
        mask = self._slots.first(at, span, self._layer_run)
        positions = at.clamp(max=self._last_position)
        scores = self._keep(self._scores(ids, mask, positions))
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
