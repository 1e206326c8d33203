"""Arguments that are checked when they are said: choices, whole numbers, texts."""

from __future__ import annotations

from tabml.errors import OptionError

MAX_TEXT_BYTES = 1 << 20
"""Of one text: tokenising takes seconds and gigabytes beyond it."""


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """``value``, when it is one of ``choices``.

    Raises:
        OptionError: it isn't.
    """
    if value not in choices:
        raise OptionError(f"{name}={value!r:.80} must be one of {', '.join(map(repr, choices))}")
    return str(value)


def whole(name: str, value: object, low: int, high: int) -> int:
    """``value``, when it is a whole number from ``low`` to ``high``.

    Raises:
        OptionError: it isn't.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{name}={value!r:.80} must be a whole number from {low} to {high}")
    return value


def flag(name: str, value: object) -> bool:
    """``value``, when it is True or False.

    Raises:
        OptionError: it isn't.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{name}={value!r:.80} must be True or False")
    return value


def check_text(name: str, text: object, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """``text``, when it is one that a tokenizer can take.

    Raises:
        OptionError: it is no text, too long, or has half a surrogate pair.
    """
    if not isinstance(text, str):
        raise OptionError(f"{name}={text!r:.60} must be a text, not {type(text).__name__}")
    try:
        length = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as problem:
        raise OptionError(f"{name} has half a surrogate pair at character {problem.start}") from None
    if length > max_bytes:
        raise OptionError(f"{name} has {length} bytes; the limit is {max_bytes}")
    return text


def check_texts(name: str, texts: object, most: int = 100_000) -> list[str]:
    """``texts`` as a list, when it is one of texts.

    Raises:
        OptionError: it isn't, or has more than ``most``.
    """
    if isinstance(texts, str | bytes) or not hasattr(texts, "__iter__"):
        raise OptionError(f"{name}={texts!r:.60} must be a list of texts")
    found = list(texts)
    if len(found) > most:
        raise OptionError(f"{name} has {len(found)} texts; the limit is {most}")
    return [check_text(f"{name}[{at}]", text) for at, text in enumerate(found)]
