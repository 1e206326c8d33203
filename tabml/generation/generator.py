"""A language model as its callers know it: two streams, and everything that follows from them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from tabml.cancellation import Cancellation, in_thread
from tabml.generation.messages import Message
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta, Generation, joined


class Generator(ABC):
    """``generate`` and ``stream`` for prompts, ``chat`` and ``stream_chat`` for messages.

    Chat code that is written against this runs with every engine.
    """

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Tokens of prompt and answer together, at the most; loads the model."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without any that the model adds."""

    @abstractmethod
    def stream(
        self, prompt: str, options: GenerationOptions | None = None, *, parse_special: bool = False
    ) -> Iterator[Delta]:
        """:meth:`generate`, piece by piece: the texts of the deltas join to the whole. Closing it ends the work."""

    @abstractmethod
    def stream_chat(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_last: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> Iterator[Delta]:
        """:meth:`chat`, piece by piece. Tool calls come whole, with the last delta."""

    def generate(
        self, prompt: str, options: GenerationOptions | None = None, *, parse_special: bool = False
    ) -> Generation:
        """Continue a prompt.

        Args:
            prompt: Any text, at most 8 MiB.
            options: How; the defaults when None.
            parse_special: Control tokens written in the prompt are control tokens; else they are text.

        Raises:
            OptionError: the prompt or an option is not possible with this model.
            CapacityError: too many calls wait.
            CallCancelledError: :func:`tabml.cancellation.current_cancellation` was set.
            InferenceError: the library failed; the next call is answered.
            ModelClosedError: the model is closed.
        """
        return joined(list(self.stream(prompt, options, parse_special=parse_special)))

    def chat(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_last: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> Generation:
        """Answer a conversation, by the model's own template.

        Args:
            messages: ``{"role": "system" | "user" | "assistant" | "tool", "content": "…"}``, oldest first. Control
                tokens written in a content are text.
            options: How; the defaults when None.
            tools: Functions that the model may ask for, as JSON Schemas in OpenAI's form; they reach the template,
                and calls come back in ``tool_calls``.
            continue_last: Go on with the last message instead of answering it.
            template_options: What else the template knows, such as ``enable_thinking``.

        Raises:
            OptionError: the messages are not such, or the template refuses them.
            ModelKindError: the model has no chat template.
            UnsafeModelError: the template takes too long, or too much memory.
            CapacityError: too many calls wait.
            CallCancelledError: the current cancellation was set.
            InferenceError: the library failed; the next call is answered.
            ModelClosedError: the model is closed.
        """
        return joined(
            list(
                self.stream_chat(
                    messages, options, tools=tools, continue_last=continue_last, template_options=template_options
                )
            )
        )

    async def generate_async(
        self, prompt: str, options: GenerationOptions | None = None, *, parse_special: bool = False
    ) -> Generation:
        """:meth:`generate` in a thread."""
        return await in_thread(self.generate, prompt, options, parse_special=parse_special)

    async def chat_async(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_last: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> Generation:
        """:meth:`chat` in a thread."""
        return await in_thread(
            self.chat, messages, options, tools=tools, continue_last=continue_last, template_options=template_options
        )

    def stream_async(
        self, prompt: str, options: GenerationOptions | None = None, *, parse_special: bool = False
    ) -> AsyncIterator[Delta]:
        """:meth:`stream`, without blocking the event loop."""
        return _in_threads(lambda: self.stream(prompt, options, parse_special=parse_special))

    def stream_chat_async(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_last: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Delta]:
        """:meth:`stream_chat`, without blocking the event loop."""
        return _in_threads(
            lambda: self.stream_chat(
                messages, options, tools=tools, continue_last=continue_last, template_options=template_options
            )
        )


async def _in_threads(make: Callable[[], Iterator[Delta]]) -> AsyncIterator[Delta]:
    """An iterator that waits, for an event loop: each wait in a thread; closing it closes the iterator."""
    cancellation = Cancellation()

    def begin() -> Iterator[Delta]:
        with cancellation.bound():
            return make()

    deltas = await asyncio.to_thread(begin)
    try:
        while (delta := await asyncio.to_thread(next, deltas, None)) is not None:
            yield delta
    finally:
        cancellation.cancel("the stream was closed")
