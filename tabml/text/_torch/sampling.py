"""From the scores of a step to the next token of one answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tabml.errors import OptionError
from tabml.generation.options import GenerationOptions
from tabml.text._torch.grammar import Matcher

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
        self.plain = (
            options.greedy
            and options.logprobs is None
            and not (options.logit_bias or bad_ids or options.no_repeat_ngram_size or matcher)
            and options.repetition_penalty == 1
            and not (options.frequency_penalty or options.presence_penalty or options.min_new_tokens)
        )
        """Whether the best score is always the choice, whatever came before."""

    def choose(self, scores: torch.Tensor) -> int:
        """The next token.

        Args:
            scores: (vocabulary,), on any device; changed in place.
        """
        scores = scores.float()
        self._shape(scores)
        if self._options.greedy:
            return int(scores.argmax())
        return self._draw(scores)

    def accept(self, token: int) -> None:
        """Go on with this token."""
        self._generated.append(token)
        self._all.append(token)
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._matcher is not None:
            self._matcher.accept(token)

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

    def _draw(self, scores: torch.Tensor) -> int:
        """By temperature and filters; only the best few hundred are sorted where ``top_p`` lets."""
        options = self._options
        scores = scores / options.temperature
        logs = torch.log_softmax(scores, -1)
        count = len(logs)
        if options.top_k:
            count = min(count, options.top_k)
        elif options.top_p < 1 or options.min_p > 0:
            count = min(count, _CANDIDATES)
        else:
            count = 0
        if count:
            kept, ids = logs.topk(count)
            if not options.top_k and count < len(logs) and not self._enough(kept):
                kept, ids = logs.sort(descending=True)
            kept = self._filtered(kept.cpu())
            ids = ids.cpu()
        else:
            kept, ids = logs.cpu(), torch.arange(len(logs))
        if options.typical_p < 1:
            kept = self._typical(kept)
        probabilities = torch.softmax(kept, -1)
        return int(ids[int(torch.multinomial(probabilities, 1, generator=self._random))])

    def _enough(self, kept: torch.Tensor) -> bool:
        """Whether the filters end within the candidates."""
        options = self._options
        inside = options.top_p < 1 and float(kept.exp().sum()) >= options.top_p
        below = options.min_p > 0 and float(kept[-1] - kept[0]) < math.log(options.min_p)
        return inside or below

    def _filtered(self, logs: torch.Tensor) -> torch.Tensor:
        """``top_p`` and ``min_p`` on log probabilities in falling order; each looks at what the one before left."""
        options = self._options
        if options.top_p < 1:
            probabilities = torch.softmax(logs, -1) if options.top_k else logs.exp()
            before = probabilities.cumsum(-1) - probabilities
            logs = logs.masked_fill(before >= options.top_p, -math.inf)
        if options.min_p > 0:
            logs = logs.masked_fill(logs < logs[0] + math.log(options.min_p), -math.inf)
        return logs

    def _typical(self, logs: torch.Tensor) -> torch.Tensor:
        """Keep the tokens whose information is nearest to the entropy, until they have ``typical_p`` together."""
        logs = torch.log_softmax(logs, -1)
        entropy = -(logs.exp() * logs.masked_fill(logs == -math.inf, 0)).sum()
        order = (-logs - entropy).abs().argsort()
        probabilities = logs.exp()[order]
        before = probabilities.cumsum(-1) - probabilities
        return logs.masked_fill(
            torch.zeros_like(logs, dtype=torch.bool).scatter(0, order, before >= self._options.typical_p), -math.inf
        )


def log_probabilities(scores: torch.Tensor, token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The log probability of a token, and of the ``count`` most probable ones, from raw scores (vocabulary,)."""
    logs = torch.log_softmax(scores.float(), -1)
    best = logs.topk(count) if count else None
    alternatives = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)) if best is not None else ()
    return float(logs[token]), alternatives
