"""Tool calls as models write them, taken out of the text of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tabml.generation.results import Delta, ToolCall

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


def with_tool_calls(deltas: Iterator[Delta]) -> Iterator[Delta]:
    """Holds back what may be a call, and gives calls with an answer's last delta."""
    shown: dict[int, str] = {}
    held: dict[int, str] = {}
    for delta in deltas:
        text = held.pop(delta.index, "") + delta.text
        if delta.finish_reason is not None:
            text, calls = parse_tool_calls(text)
            reason = "tool_calls" if calls and delta.finish_reason == "stop" else delta.finish_reason
            yield replace(delta, text=text, tool_calls=calls, finish_reason=reason)
            continue
        keep = _may_be_call(text, begin=not shown.get(delta.index))
        held[delta.index], text = text[len(text) - keep :], text[: len(text) - keep]
        shown[delta.index] = shown.get(delta.index, "") + text
        yield replace(delta, text=text)


def _may_be_call(text: str, *, begin: bool) -> int:
    """How many characters at the end of ``text`` may be, or begin, a call."""
    if begin and (not text.strip() or text.lstrip()[0] in "{["):
        return len(text)
    most = 0
    for opener in OPENERS:
        at = text.find(opener)
        if at >= 0:
            most = max(most, len(text) - at)
        for length in range(min(len(opener) - 1, len(text)), most, -1):
            if text.endswith(opener[:length]):
                most = length
                break
    return most
