"""Output that must match a JSON Schema or a regular expression, by llguidance: a mask of tokens for each step."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

from tabml.errors import OptionError, UnavailableHereError
from tabml.generation.options import GenerationOptions
from tabml.text.grammars import lark


class Grammars:
    """Makes matchers for one tokenizer; what is costly is done once."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_ids: tuple[int, ...]) -> None:
        self._tokenizer, self._vocabulary, self._end_ids = tokenizer, vocabulary, end_ids
        self._lock = threading.Lock()
        self._native: Any = None

    def matcher(self, options: GenerationOptions) -> Matcher | None:
        """A matcher for one answer; None when nothing is asked for.

        Raises:
            OptionError: the schema or expression can't be compiled.
            UnavailableHereError: the tokenizer is of a kind that can't be constrained.
            MissingExtraError: llguidance is not installed.
        """
        grammar = lark(options)
        if grammar is None:
            return None
        import llguidance
        import llguidance.hf

        with self._lock:
            if self._native is None:
                if getattr(self._tokenizer, "backend_tokenizer", None) is None:
                    raise UnavailableHereError(f"{options.grammar} needs a fast tokenizer, which this model has not")
                self._native = llguidance.hf.from_tokenizer(
                    self._tokenizer,
                    n_vocab=max(self._vocabulary, len(self._tokenizer)),
                    eos_token=list(self._end_ids) or None,
                )
        matcher = llguidance.LLMatcher(self._native, llguidance.LLMatcher.grammar_from_lark(grammar), log_level=0)
        said = matcher.get_error()
        if said:
            raise OptionError(f"{options.grammar}: {' '.join(str(said).split())[:200]}")
        return Matcher(matcher)


class Matcher:
    """Follows one answer."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def mask(self, scores: torch.Tensor) -> None:
        """Set the scores (vocabulary,) of all tokens that can't follow to minus infinity."""
        bits = np.frombuffer(self._native.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: len(scores)].astype(bool)
        if len(allowed) < len(scores):
            allowed = np.pad(allowed, (0, len(scores) - len(allowed)))
        scores.masked_fill_(~torch.from_numpy(allowed).to(scores.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Go on by one token."""
        self._native.consume_token(token)

    @property
    def complete(self) -> bool:
        """Nothing can follow."""
        return bool(self._native.is_stopped())

    @property
    def lost(self) -> bool:
        """Nobody can tell what may follow: the grammar is too complicated."""
        return bool(self._native.is_error())
