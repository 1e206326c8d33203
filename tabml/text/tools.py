"""Tool calls as models write them, taken out of the text of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tabml.text.results import ToolCall

OPENERS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")
"""What begins a call: Hermes and Qwen, Mistral, Llama 3, Llama 3.1."""
_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([\w.-]+)>\s*(.*?)\s*(?:</function>|$)", re.DOTALL)


def parse_tool_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The text before the calls, and the calls; what looks like one but is none stays text.

    Known: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, ``[TOOL_CALLS][{…}]``, ``<|python_tag|>{…}``,
    ``<function=name>{…}</function>``, and an answer that is one JSON object or list with ``name`` and ``arguments``
    or ``parameters``.
    """
    begins = [at for opener in OPENERS if (at := text.find(opener)) >= 0]
    if begins:
        begin = min(begins)
    elif text.lstrip()[:1] in ("{", "["):
        begin = 0
    else:
        return text, ()
    calls = tuple(
        ToolCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False), id=f"call_{at}")
        for at, (name, arguments) in enumerate(_calls(text[begin:]))
    )
    return (text[:begin].rstrip(), calls) if calls else (text, ())


def _calls(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for found in _FUNCTION.finditer(text):
        yield from _read({"name": found[1], "arguments": _json(found[2])})
    bodies = [found[1] for found in _TAGGED.finditer(text)]
    if not bodies and not _FUNCTION.search(text):
        bodies = [re.sub(r"^\s*(\[TOOL_CALLS\]|<\|python_tag\|>)", "", text).strip()]
    for body in bodies:
        value = _json(body)
        for each in value if isinstance(value, list) else [value]:
            yield from _read(each)


def _read(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(value, dict):
        return
    inner = value.get("function")
    value = inner if isinstance(inner, dict) else value
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = _json(arguments)
    if isinstance(value.get("name"), str) and isinstance(arguments, dict):
        yield value["name"], arguments


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
