"""What a language model answers: values, whole or piece by piece."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "time", "tool_calls", "cancelled"]
"""``stop``: the model ended, or a stop came; ``length``: ``max_new_tokens`` or the context; ``time``: ``max_time_s``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation cost."""

    prompt_tokens: int
    """Of the prompt, once."""
    completion_tokens: int
    """Of all answers together."""
    cached_tokens: int = 0
    """Of the prompt, how many were still known from an earlier request."""
    guessed_tokens: int = 0
    """Of the answers, how many came by ``prompt_lookup_tokens``."""
    time_to_first_token_s: float = 0.0
    """Seconds from the call to the first token."""
    seconds: float = 0.0
    """From the call to the end."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One token and how probable it was."""

    token_id: int
    """In the model's vocabulary."""
    text: str
    """What it writes by itself; of a part of a character U+FFFD."""
    logprob: float
    """Natural logarithm of its probability, before ``temperature`` and what comes after it; at most 0."""
    alternatives: tuple[tuple[int, float], ...] = ()
    """The most probable tokens in its place, with theirs, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function that the model wants to be called."""

    name: str
    """Of the function."""
    arguments: str
    """As JSON, as the model wrote them."""
    id: str
    """Unique in one answer."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"id": self.id, "name": self.name, "arguments": json.loads(self.arguments)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A further piece of an answer. The deltas of one ``index`` join to its whole text."""

    text: str
    """Never a part of a character, nor of a stop text; may be empty."""
    index: int = 0
    """Which of ``n`` answers."""
    token_ids: tuple[int, ...] = ()
    """The tokens since the last delta."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of these tokens, when asked for."""
    finish_reason: FinishReason | None = None
    """In the last delta of an answer."""
    tool_calls: tuple[ToolCall, ...] = ()
    """In the last delta of an answer of a chat."""
    usage: Usage | None = None
    """In the very last delta."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One whole answer."""

    text: str
    """Without stop texts."""
    finish_reason: FinishReason
    """Why it ended."""
    token_ids: tuple[int, ...] = ()
    """Its tokens."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of these, when asked for."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Functions that it wants to be called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """All answers to one prompt."""

    choices: tuple[Choice, ...]
    """``n`` of them."""
    usage: Usage
    """What they cost."""

    @property
    def text(self) -> str:
        """Of the first answer."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> FinishReason:
        """Of the first answer."""
        return self.choices[0].finish_reason

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "choices": [
                {
                    "text": choice.text,
                    "finish_reason": choice.finish_reason,
                    "tool_calls": [call.to_dict() for call in choice.tool_calls],
                }
                for choice in self.choices
            ],
            "usage": self.usage.to_dict(),
        }


def joined(deltas: Sequence[Delta]) -> Generation:
    """The whole of what was streamed."""
    count = max(delta.index for delta in deltas) + 1
    choices = []
    for index in range(count):
        mine = [delta for delta in deltas if delta.index == index]
        last = mine[-1]
        assert last.finish_reason is not None
        choices.append(
            Choice(
                text="".join(delta.text for delta in mine),
                finish_reason=last.finish_reason,
                token_ids=tuple(token for delta in mine for token in delta.token_ids),
                logprobs=tuple(each for delta in mine for each in delta.logprobs),
                tool_calls=last.tool_calls,
            )
        )
    usage = next(delta.usage for delta in reversed(deltas) if delta.usage is not None)
    return Generation(choices=tuple(choices), usage=usage)
