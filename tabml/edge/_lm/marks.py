"""Where pictures and sounds stand in a prompt: LiteRT-LM looks for marks in its text, other ones for each kind of model.

The marks are those that LiteRT-LM 0.18.1 was seen to replace; every other kind of model passes over a picture without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tabml.errors import InferenceError

_NOT_PLAIN = re.compile(r"(?<!\\)[.^$*+?{}\[\]()]|\\[\\\w]")
_BETWEEN = re.compile(r"(?<!\\)\|")
_MAX_PATTERN = 1000
_GEMMA_TURN = (105, "<start_of_turn>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What stands for a picture and for a sound in a prompt."""

    image: tuple[str, ...] = ()
    """Each of them is a picture; empty where the model takes none."""
    audio: tuple[str, ...] = ()
    """The same for sounds."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every one."""
        return (*self.image, *self.audio)

    def kinds(self, prompt: str) -> list[str]:
        """``image`` or ``audio`` for every mark in a prompt, in order."""
        if not self.all:
            return []
        return ["image" if each in self.image else "audio" for each in re.findall(_any_of(self.all), prompt)]


_GEMMA_3 = Marks(image=("<start_of_image>", "<image_soft_token>"), audio=("<start_of_audio>", "<audio_soft_token>"))
_KINDS: Mapping[str, Marks] = {
    "gemma3": _GEMMA_3,
    "gemma3n": _GEMMA_3,
    "gemma4": Marks(image=("<|image|>", "<start_of_image>"), audio=("<|audio|>", "<start_of_audio>")),
    "fast_vlm": Marks(image=("<image_soft_token>",)),
    "minicpmv4": Marks(image=("<image_soft_token>",)),
    "lfm2": Marks(image=("<image>", "<|image_start|>")),
}


def marks_of(model_type: Any) -> Marks | None:
    """The marks of a kind of model; None where the file doesn't say which it is.

    A ``generic_model`` says them as patterns. They are understood as alternatives of plain text, such as
    ``(<image>|<\\|img\\|>)``; one that is more than that counts as none.

    Args:
        model_type: A message ``LlmModelType``.
    """
    kind = model_type.WhichOneof("model_type")
    if kind != "generic_model":
        return _KINDS.get(kind, Marks()) if kind is not None else None
    told = model_type.generic_model
    looked_for = _alternatives(told.delimiter_regex)
    image = _alternatives(told.image_token_regex) if told.image_enabled else ()
    audio = _alternatives(told.audio_token_regex) if told.audio_enabled else ()
    return Marks(
        image=tuple(mark for mark in image if mark in looked_for),
        audio=tuple(mark for mark in audio if mark in looked_for),
    )


def marks_by_tokens(decode: Callable[[list[int]], str]) -> Marks:
    """The marks of a model that doesn't say its kind: LiteRT-LM takes it for Gemma 3 by one token.

    Args:
        decode: Gives the text of tokens.
    """
    token, text = _GEMMA_TURN
    try:
        return _GEMMA_3 if decode([token]) == text else Marks()
    except InferenceError:  # it has fewer tokens
        return Marks()


def _any_of(texts: tuple[str, ...]) -> str:
    return "|".join(re.escape(text) for text in texts)


def _alternatives(pattern: str) -> tuple[str, ...]:
    """The texts that a pattern finds; none where it isn't plain alternatives in round brackets."""
    inner = pattern[1:-1]
    if pattern != f"({inner})" or len(pattern) > _MAX_PATTERN or _NOT_PLAIN.search(inner):
        return ()
    return tuple(re.sub(r"\\(.)", r"\1", each) for each in _BETWEEN.split(inner) if each)
