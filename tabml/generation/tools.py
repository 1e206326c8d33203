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
    """The text without the calls, and the calls; what looks like one but is none stays text, beside good ones too.

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
    found: list[tuple[str, Mapping[str, Any]]] = []
    left = [text[:begin].rstrip()]
    at = begin
    for start, end, value in _pieces(text, begin):
        items = value if isinstance(value, list) else [value]
        calls = [_read(item) for item in items]
        if not any(calls):
            continue
        found += [call for call in calls if call is not None]
        left.append(text[at:start].strip())
        left += [json.dumps(item, ensure_ascii=False) for item, call in zip(items, calls, strict=True) if call is None]
        at = end
    if not found:
        return text, ()
    left.append(text[at:].strip())
    return "\n".join(filter(None, left)), tuple(
        ToolCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False), id=f"call_{number}")
        for number, (name, arguments) in enumerate(found)
    )


def _pieces(text: str, begin: int) -> Iterator[tuple[int, int, Any]]:
    """What may be calls: where each begins and ends, and its value."""
    at, is_marked = begin, False
    for one in sorted([*_FUNCTION.finditer(text, begin), *_TAGGED.finditer(text, begin)], key=lambda one: one.start()):
        is_marked = True
        if one.start() >= at:  # not within another one
            yield one.start(), one.end(), _value(one)
            at = one.end()
    if not is_marked:
        yield begin, len(text), _json(re.sub(r"^\s*(\[TOOL_CALLS\]|<\|python_tag\|>)", "", text[begin:]).strip())


def _value(found: re.Match[str]) -> Any:
    if found.re is _FUNCTION:
        return {"name": found[1], "arguments": _json(found[2])}
    inside = _FUNCTION.match(found[1])
    return _json(found[1]) if inside is None else _value(inside)


def _read(value: Any) -> tuple[str, Mapping[str, Any]] | None:
    """The name and arguments of a call, when it is one."""
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    value = inner if isinstance(inner, dict) else value
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = _json(arguments)
    name = value.get("name")
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


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
