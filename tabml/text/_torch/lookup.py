"""Prompt lookup: what followed the last words before is guessed to follow them again, and checked in one pass.

Saxena 2023, "Prompt Lookup Decoding": code that is edited and texts that are quoted repeat themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

_SIZES = (3, 2)


class PromptLookup:
    """The tokens of a prompt and its answer, with where each run of two or three of them was last."""

    def __init__(self, tokens: Sequence[int], most: int) -> None:
        """Read the prompt.

        Args:
            tokens: Of the prompt.
            most: Tokens to guess at a time.
        """
        self._tokens: list[int] = []
        self._followed: dict[tuple[int, ...], int] = {}
        self._most = self._now = most
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """A further token."""
        for size in _SIZES:
            if len(self._tokens) >= size:
                self._followed[tuple(self._tokens[-size:])] = len(self._tokens)
        self._tokens.append(token)

    def guess(self) -> list[int]:
        """What may come now; empty when the last words are new."""
        for size in _SIZES:
            at = self._followed.get(tuple(self._tokens[-size:]))
            if at is not None:
                return self._tokens[at : at + self._now]
        return []

    def learn(self, guessed: int, right: int) -> None:
        """Guess more after a guess that was right, less after one that was wrong."""
        self._now = min(self._most, 2 * self._now) if right == guessed else max(1, self._now // 2)
