"""Conversations, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabml.errors import OptionError
from tabml.generation.arguments import check_text

Message = Mapping[str, Any]
"""``{"role": "user", "content": "…"}``; what else a template knows, such as ``tool_calls``, is passed on."""
MAX_PROMPT_BYTES = 8 << 20
MAX_MESSAGES = 4096


def check_messages(messages: object) -> list[dict[str, Any]]:
    """Messages as new dictionaries.

    Raises:
        OptionError: they are not messages.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise OptionError("messages must be a list of at least one {'role': …, 'content': …}")
    if len(messages) > MAX_MESSAGES:
        raise OptionError(f"messages has {len(messages)} messages; the limit is {MAX_MESSAGES}")
    size = 0
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise OptionError(f"messages[{at}]={message!r:.60} must be a dictionary")
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise OptionError(f"messages[{at}] must have a role: system, user, assistant or tool")
        content = message.get("content")
        if content is None and "tool_calls" in message:
            continue
        if isinstance(content, str):
            size += len(check_text(f"messages[{at}].content", content, MAX_PROMPT_BYTES))
        elif not isinstance(content, Sequence):
            raise OptionError(f"messages[{at}].content must be a text")
    if size > MAX_PROMPT_BYTES:
        raise OptionError(f"messages have {size} characters; the limit is {MAX_PROMPT_BYTES}")
    return [dict(message) for message in messages]


def with_plain_text(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, a content of several texts joined to one: a control token may be spread over two of them.

    Raises:
        OptionError: a part is something else than text.
    """
    for at, message in enumerate(messages):
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise OptionError(f"messages[{at}].content={part!r:.60} must be text: this model takes nothing else")
        message["content"] = check_text(
            f"messages[{at}].content", "".join(part["text"] for part in content), MAX_PROMPT_BYTES
        )
    return messages
