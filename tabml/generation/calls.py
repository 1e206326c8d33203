"""What every engine does with a call: look at its prompt, and hand over the answers that a thread computes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterator, Sequence

from tabml.cancellation import Cancellation
from tabml.errors import CallCancelledError, OptionError
from tabml.generation.results import Delta

Answers = queue.SimpleQueue[Delta | BaseException]
"""What a thread says of one call: deltas, the last one with the usage, or the error that ends it."""


def room_of(prompt: Sequence[int], *, context_length: int, vocabulary: int, answers: int = 1) -> int:
    """How many tokens each answer may have.

    Args:
        prompt: Its tokens.
        context_length: Tokens of the prompt and of all answers that share it.
        vocabulary: Tokens that there are.
        answers: That share the context.

    Raises:
        OptionError: there is no prompt, or no room, or a token that the model hasn't.
    """
    if not prompt:
        raise OptionError("prompt='' must have at least one token")
    if max(prompt) >= vocabulary or min(prompt) < 0:
        raise OptionError(f"prompt has tokens beyond the vocabulary of {vocabulary}")
    room = (context_length - len(prompt)) // answers
    if room < 1:
        each = f" of each n={answers}" if answers > 1 else ""
        raise OptionError(
            f"prompt has {len(prompt)} tokens; the context of {context_length} leaves no room for an answer{each}"
        )
    return room


def handed_over(
    out: Answers,
    cancellation: Cancellation,
    leave: Callable[[], None],
    *,
    patience_s: float | None = None,
    give_up: Callable[[], None] = lambda: None,
) -> Iterator[Delta]:
    """The deltas of a call as they come.

    Closing or dropping the iterator calls ``leave``, even before its first value.

    Args:
        out: What is said.
        cancellation: Ends it with CallCancelledError.
        leave: Called once at the end, whatever it is.
        patience_s: Seconds without a word after which ``give_up`` is called, once.
        give_up: May end the call by saying so.
    """
    deltas = _deltas(out, cancellation, leave, patience_s, give_up)
    next(deltas)  # a generator that was not begun runs no finally
    return deltas  # type: ignore[return-value]


def _deltas(
    out: Answers,
    cancellation: Cancellation,
    leave: Callable[[], None],
    patience_s: float | None,
    give_up: Callable[[], None],
) -> Generator[Delta | None]:
    forget = cancellation.on_cancel(lambda: out.put(CallCancelledError("the caller cancelled")))
    try:
        yield None
        while True:
            try:
                delta = out.get(timeout=patience_s)
            except queue.Empty:
                patience_s = None
                give_up()
                continue
            if isinstance(delta, BaseException):
                cancellation.check()
                raise delta
            yield delta
            if delta.usage is not None:
                return
    finally:
        leave()
        forget()
