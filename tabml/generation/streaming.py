"""From tokens to text that can be shown at once: whole characters only, and never a part of a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_CONTEXT = 6
_MOST_PENDING = 8
_BROKEN = "\ufffd"


class Detokenizer:
    """The text of one answer, token by token.

    A token may hold a part of a character only, and what it writes may depend on the token before it: hence each is
    decoded together with some before it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        """Nothing is decoded yet.

        Args:
            decode: Text of tokens.
            prompt: What comes before the answer.
        """
        self._decode = decode
        self._ids = list(prompt[-_CONTEXT:])
        self._begin, self._read = 0, len(self._ids)
        self._before = decode(self._ids) if self._ids else ""

    def add(self, token: int) -> str:
        """The further text; empty while a character is not whole."""
        self._ids.append(token)
        text = self._decode(self._ids[self._begin :])
        if text.endswith(_BROKEN) and len(self._ids) - self._read < _MOST_PENDING:
            return ""
        return self._take(text)

    def rest(self) -> str:
        """What is left at the end; parts of a character as U+FFFD."""
        return self._take(self._decode(self._ids[self._begin :])) if self._read < len(self._ids) else ""

    def _take(self, text: str) -> str:
        new = text[len(self._before) :]
        self._begin, self._read = max(self._begin, self._read - 1), len(self._ids)
        self._before = self._decode(self._ids[self._begin :])
        return new


class StopScanner:
    """Holds back what may be the begin of a stop text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """What can be shown, and whether a stop text has come; behind it nothing is shown."""
        if not self._stops:
            return text, False
        held = self._held + text
        ends = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if ends:
            self._held = ""
            return held[: min(ends)], True
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], False

    def rest(self) -> str:
        """What was held back for nothing."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` begin ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
