"""From the scores of a step to the next token of one answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tabml.errors import OptionError
from tabml.generation.options import GenerationOptions
from tabml.text._torch.grammar import Matcher

NONE_LEFT = -1
"""In place of a token, where every score is minus infinity, or is no number."""
_CANDIDATES = 256


class Sampler:
    """Chooses the tokens of one answer; the order of the steps is that of :class:`GenerationOptions`."""

    def __init__(
        self,
        options: GenerationOptions,
        prompt: Sequence[int],
        *,
        vocabulary: int,
        end_ids: tuple[int, ...],
        bad_ids: tuple[tuple[int, ...], ...] = (),
        matcher: Matcher | None = None,
        choice: int = 0,
    ) -> None:
        """Nothing is chosen yet.

        Args:
            options: What was asked for.
            prompt: Its tokens.
            vocabulary: How many scores a step has.
            end_ids: Tokens that end an answer.
            bad_ids: The tokens of each of ``bad_words``.
            matcher: Of the grammar, if any.
            choice: Which of ``n`` answers; each has its own random numbers.

        Raises:
            OptionError: a token id is not in the vocabulary.
        """
        self._options = options
        self._end_ids = torch.tensor(end_ids, dtype=torch.long)
        self._bad_ids = bad_ids
        self._matcher = matcher
        self._generated: list[int] = []
        self._all = list(prompt)
        self._seen = torch.tensor(sorted(set(prompt)), dtype=torch.long)
        self._counts: dict[int, int] = {}
        for name, ids in (("stop_token_ids", options.stop_token_ids), ("logit_bias", tuple(options.logit_bias or ()))):
            for each in ids:
                if each >= vocabulary:
                    raise OptionError(f"{name}: {each} is not in the vocabulary of {vocabulary} tokens")
        self._random = torch.Generator()
        if options.seed is not None:
            self._random.manual_seed((options.seed + choice) & ((1 << 63) - 1))
        else:
            self._random.seed()
        free = (
            not (options.logit_bias or bad_ids or options.no_repeat_ngram_size or matcher)
            and options.repetition_penalty == 1
            and not (options.frequency_penalty or options.presence_penalty or options.min_new_tokens)
        )
        self.plain = free and options.greedy and options.logprobs is None
        """Whether the best score is always the choice, whatever came before."""
        self.draws = free and not options.greedy
        """Whether :func:`draw` may choose for it, whatever came before."""

    def choose(self, scores: torch.Tensor) -> int:
        """The next token, or ``NONE_LEFT``.

        Args:
            scores: (vocabulary,), on any device; changed in place.
        """
        scores = scores.float()
        self._shape(scores)
        if self._options.greedy:
            best = int(scores.argmax())
            return best if scores[best] > -math.inf else NONE_LEFT
        return draw([self], scores[None])[0]

    def accept(self, token: int) -> None:
        """Go on with this token."""
        self._generated.append(token)
        self._all.append(token)
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._matcher is not None:
            self._matcher.accept(token)

    @property
    def forbids(self) -> list[str]:
        """The options that may leave no token over."""
        options = self._options
        names = ("bad_words", "no_repeat_ngram_size", "min_new_tokens", "logit_bias")
        grammar = [options.grammar] if options.grammar is not None else []
        return grammar + [name for name in names if getattr(options, name)]

    @property
    def lost(self) -> bool:
        """The grammar is too complicated to go on."""
        return self._matcher is not None and self._matcher.lost

    @property
    def complete(self) -> bool:
        """The grammar allows nothing further."""
        return self._matcher is not None and self._matcher.complete

    def _shape(self, scores: torch.Tensor) -> None:
        """What acts on the scores before the temperature, in place."""
        options = self._options
        for token, bias in (options.logit_bias or {}).items():
            scores[token] += bias
        for ids in self._bad_ids:
            if tuple(self._all[len(self._all) - len(ids) + 1 :]) == ids[:-1]:
                scores[ids[-1]] = -math.inf
        if options.no_repeat_ngram_size:
            for token in self._repeats(options.no_repeat_ngram_size):
                scores[token] = -math.inf
        if options.repetition_penalty != 1:
            seen = (
                torch.cat([self._seen, torch.tensor(list(self._counts), dtype=torch.long)]).unique().to(scores.device)
            )
            found = scores[seen]
            penalty = options.repetition_penalty
            scores[seen] = torch.where(found < 0, found * penalty, found / penalty)
        if (options.frequency_penalty or options.presence_penalty) and self._counts:
            ids = torch.tensor(list(self._counts), dtype=torch.long, device=scores.device)
            counts = torch.tensor(list(self._counts.values()), dtype=scores.dtype, device=scores.device)
            scores[ids] -= counts * options.frequency_penalty + options.presence_penalty
        if len(self._generated) < options.min_new_tokens:
            scores[self._end_ids.to(scores.device)] = -math.inf
        if self._matcher is not None:
            self._matcher.mask(scores)

    def _repeats(self, size: int) -> list[int]:
        """Tokens that would repeat a sequence of ``size`` tokens."""
        begin = self._all[len(self._all) - size + 1 :] if size > 1 else []
        return [
            self._all[at + size - 1]
            for at in range(len(self._all) - size + 1)
            if self._all[at : at + size - 1] == begin
        ]

    @property
    def _candidates(self) -> int:
        """The best scores among which the filters end for sure, or nearly always; 0 for all."""
        options = self._options
        if options.top_k:
            return options.top_k
        return _CANDIDATES if options.top_p < 1 or options.min_p > 0 else 0

    def _number(self) -> float:
        """From 0 to 1, the next of this answer's own."""
        return float(torch.rand((), generator=self._random, dtype=torch.float64))


def draw(samplers: Sequence[Sampler], scores: torch.Tensor) -> list[int]:
    """The next token of each of several answers, or ``NONE_LEFT``, by temperature and filters.

    Only the best few hundred leave the device and are looked at where the filters let. A token is found in the
    cumulated probabilities by a number of the answer's own, so company changes nothing.

    Args:
        samplers: That draw.
        scores: (rows, vocabulary), of any device and number format.
    """
    heat = torch.tensor([each._options.temperature for each in samplers], device=scores.device)
    logs = torch.log_softmax(scores.float() / heat[:, None], -1)
    found = [0] * len(samplers)
    alike: dict[tuple[bool, int], list[int]] = {}
    for row, each in enumerate(samplers):
        alike.setdefault((each._options.top_k > 0, min(each._candidates, logs.shape[-1])), []).append(row)
    for (_, count), rows in alike.items():
        part = logs if len(rows) == len(samplers) else logs[rows]
        chosen = _drawn([samplers[row] for row in rows], part, count)
        for row, token in zip(rows, chosen, strict=True):
            found[row] = token
    return found


def _drawn(samplers: Sequence[Sampler], logs: torch.Tensor, count: int) -> list[int]:
    """For answers that look at as many candidates each, 0 for all."""
    options = [each._options for each in samplers]
    kept, ids = logs, None
    if count:
        best = logs.topk(count)
        kept, ids = best.values.cpu(), best.indices.cpu()
        every = logs.shape[-1]
        open_ended = not options[0].top_k and count < every
        short = [open_ended and not _enough(row, each) for row, each in zip(kept, options, strict=True)]
        if any(short):
            wanting, rest = ([row for row, each in enumerate(short) if each is one] for one in (True, False))
            found = dict(zip(wanting, _drawn([samplers[row] for row in wanting], logs[wanting], every), strict=True))
            if rest:
                found.update(zip(rest, _drawn([samplers[row] for row in rest], logs[rest], count), strict=True))
            return [found[row] for row in range(len(samplers))]
        kept = _filtered(kept, options)
    if any(each.typical_p < 1 for each in options):
        kept = _typical(kept, options)
    total = torch.softmax(kept, -1, dtype=torch.float64).cumsum(-1)
    numbers = torch.tensor([each._number() for each in samplers], dtype=torch.float64, device=total.device)
    at = torch.searchsorted(total, (numbers * total[:, -1])[:, None], right=True)
    places: list[int] = at[:, 0].tolist()
    last = kept.shape[-1] - 1
    found_at = [place if place <= last else NONE_LEFT for place in places]
    if ids is None:
        return found_at
    return [int(row[place]) if place != NONE_LEFT else place for row, place in zip(ids, found_at, strict=True)]


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _enough(kept: torch.Tensor, options: GenerationOptions) -> bool:
    """Whether the filters end within the candidates."""
    inside = options.top_p < 1 and float(kept.exp().sum()) >= options.top_p
    below = options.min_p > 0 and float(kept[-1] - kept[0]) < math.log(options.min_p)
    return inside or below


def _filtered(logs: torch.Tensor, options: Sequence[GenerationOptions]) -> torch.Tensor:
    """``top_p`` and ``min_p`` on log probabilities in falling order; each looks at what the one before left."""
    if any(each.top_p < 1 for each in options):
        probabilities = torch.softmax(logs, -1) if options[0].top_k else logs.exp()
        before = probabilities.cumsum(-1) - probabilities
        most = _column([each.top_p if each.top_p < 1 else math.inf for each in options], logs)
        logs = logs.masked_fill(before >= most, -math.inf)
    if any(each.min_p > 0 for each in options):
        least = _column([math.log(each.min_p) if each.min_p > 0 else -math.inf for each in options], logs)
        logs = logs.masked_fill(logs < logs[:, :1] + least, -math.inf)
    return logs


def _typical(logs: torch.Tensor, options: Sequence[GenerationOptions]) -> torch.Tensor:
    """Keep the tokens whose information is nearest to the entropy, until they have ``typical_p`` together."""
    logs = torch.log_softmax(logs, -1)
    entropy = -(logs.exp() * logs.masked_fill(logs == -math.inf, 0)).sum(-1, keepdim=True)
    order = (-logs - entropy).abs().argsort(-1)
    probabilities = logs.exp().gather(-1, order)
    before = probabilities.cumsum(-1) - probabilities
    most = _column([each.typical_p if each.typical_p < 1 else math.inf for each in options], logs)
    dropped = torch.zeros_like(logs, dtype=torch.bool).scatter(-1, order, before >= most)
    return logs.masked_fill(dropped, -math.inf)


def log_probabilities(scores: torch.Tensor, token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The log probability of a token, and of the ``count`` most probable ones, from raw scores (vocabulary,)."""
    logs = torch.log_softmax(scores.float(), -1)
    best = logs.topk(count) if count else None
    alternatives = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)) if best is not None else ()
    return float(logs[token]), alternatives
