"""What generates tokens, behind one interface: the models above don't know which library it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from tabml.cancellation import Cancellation
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta

if TYPE_CHECKING:
    from tabml.text.repository import Repository

EngineName = Literal["torch", "llama.cpp"]
ENGINES: tuple[EngineName, ...] = ("torch", "llama.cpp")
NO_BEAMS = "is not possible: answers are streamed; use n with a low temperature"
"""What every engine says to beam search."""


class Engine(Protocol):
    """A loaded language model. Thread-safe: requests of several threads run side by side."""

    name: EngineName
    """Which library."""
    context_length: int
    """Tokens of prompt and answer together, at the most."""
    chat_template: str | None
    """The model's own, as Jinja."""
    special_tokens: Mapping[str, str]
    """What templates may use, such as ``bos_token``."""
    control_tokens: frozenset[str]
    """How control tokens are written."""

    def encode(self, text: str, *, special_tokens: bool = False, parse_special: bool = True) -> list[int]:
        """The tokens of a text.

        Args:
            text: Any text.
            special_tokens: Add those that the model begins and ends texts with.
            parse_special: Control tokens written in the text are control tokens; else they are text.
        """
        ...

    def decode(self, token_ids: Sequence[int], *, special_tokens: bool = False) -> str:
        """The text of tokens; control tokens only when asked for."""
        ...

    def stream(self, prompt: Sequence[int], options: GenerationOptions, cancellation: Cancellation) -> Iterator[Delta]:
        """The answers, piece by piece; the last delta has the usage.

        Closing the iterator, or the cancellation, ends the work within one step.

        Args:
            prompt: At least one token.
            options: As asked for; an option that the engine can't honour is refused.
            cancellation: Ends the stream with CallCancelledError.

        Raises:
            OptionError: an option is impossible here, or the prompt leaves no room in the context.
            CallCancelledError: ``cancellation`` was set.
        """
        ...

    def close(self) -> None:
        """End what runs and free the model; twice is fine."""
        ...


@runtime_checkable
class Adapting(Protocol):
    """An engine that can have LoRA adapters."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of those that are loaded."""
        ...

    def load_adapter(self, repository: Repository, name: str) -> None:
        """Load one, or another in its place; answers that run go on with what they began with.

        Args:
            repository: With the adapter fetched.
            name: What options call it.

        Raises:
            CorruptModelError: it doesn't fit this model.
            ModelKindError: it is no plain LoRA adapter.
        """
        ...

    def unload_adapter(self, name: str) -> None:
        """Forget one.

        Raises:
            OptionError: there is none of this name.
        """
        ...


@runtime_checkable
class Packing(Protocol):
    """An engine that answers before its layers are as quick as they get."""

    def wait_until_packed(self, timeout_s: float | None) -> bool:
        """Wait for that, and have it done soon; gives whether they are."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """An engine that can tell how likely a text is, and what a token costs."""

    @property
    def bytes_a_token(self) -> int:
        """Bytes of weights that are read for each token of one answer."""
        ...

    def score(self, tokens: Sequence[int]) -> list[float]:
        """The logarithm of the probability of each token after the first, given those before it.

        Args:
            tokens: At least two, and at most as many as fit into the context.

        Raises:
            OptionError: there are more or fewer.
        """
        ...
