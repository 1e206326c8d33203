"""Chat templates of foreign models, rendered where they can be killed.

A template is a program that its model's maker wrote: ``9**9**9`` never ends, ``'a' * 10**10`` takes ten gigabytes, and
neither lets other threads run meanwhile. Hence a child process renders, with limits of time, memory and output.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from tabml.errors import (
    CapacityError,
    CorruptModelError,
    MissingExtraError,
    ModelClosedError,
    OptionError,
    UnsafeModelError,
)
from tabml.generation.arguments import check_text

MAX_TEMPLATE = 256 << 10
MAX_REQUEST = 64 << 20
"""Bytes of all messages as JSON: the process has a gigabyte."""
_CHILD = Path(__file__).with_name("_render.py")
_START_S = 20.0
_FRAME = 1 << 16
"""Bytes of an answer that are not of the text, or of its refusal; a character has 12 at the most."""
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_REASONING = ("reasoning_content", "thinking", "reasoning")


_FIXED = ("messages", "tools", "documents", "add_generation_prompt")
"""Of the values of a template, what callers don't set by their names."""


class ChatTemplate:
    """One template and the process that renders it. Thread-safe: renders run one after another."""

    def __init__(
        self,
        template: str,
        special_tokens: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 2.0,
        max_characters: int = 4 << 20,
    ) -> None:
        """Nothing is started yet.

        Args:
            template: In Jinja, as transformers has it.
            special_tokens: What it may use, such as ``bos_token``.
            timeout_s: Seconds that one render may take.
            max_characters: What it may write at the most.

        Raises:
            UnsafeModelError: the template is too long.
        """
        size = len(template.encode(errors="surrogatepass"))
        if size > MAX_TEMPLATE:
            raise UnsafeModelError(f"the chat template has {size} bytes; the limit is {MAX_TEMPLATE}")
        self._template, self._tokens = template, dict(special_tokens or {})
        self._timeout_s, self._most = timeout_s, max_characters
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    def start(self) -> None:
        """Start the process now, so that the first render is quick.

        Raises:
            CorruptModelError: the template can't be read.
            UnsafeModelError: reading it takes too long.
            ModelClosedError: it is closed.
            CapacityError: no process can be started now.
            MissingExtraError: jinja2 is not installed.
        """
        with self._lock:
            self._ready()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for a conversation.

        Args:
            messages: Oldest first; plain JSON.
            tools: Functions as JSON Schemas.
            add_generation_prompt: End with the begin of an answer.
            continue_final_message: End within the last message, which must be a text.
            extra: What else the template knows.

        Raises:
            OptionError: the template refuses the messages, or they are not plain JSON, or have half a surrogate pair.
            CorruptModelError: the template can't be read.
            UnsafeModelError: it takes too long, too much memory, writes too much, or reaches for Python's insides.
            ModelClosedError: it is closed.
            CapacityError: no process can be started now.
            MissingExtraError: jinja2 is not installed.
        """
        if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
            raise OptionError("messages must be a list of objects like {'role': …, 'content': …}")
        if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence | None):
            raise OptionError(f"tools={tools!r:.60} must be a list of functions")
        fixed = next((name for name in _FIXED if name in (extra or {})), None)
        if fixed is not None:
            raise OptionError(f"template_options has {fixed!r}, which the call sets itself")
        chat = [_with_reasoning(message) for message in messages]
        last = _tagged(chat) if continue_final_message else ""
        values = {
            **self._tokens, **(extra or {}), "messages": chat, "tools": list(tools) if tools else None,
            "documents": None, "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }  # fmt: skip
        try:
            request = json.dumps({"values": values, "most": self._most, "seconds": self._timeout_s}).encode()
        except (TypeError, ValueError, RecursionError) as problem:
            raise OptionError(f"messages must be plain JSON: {problem}") from None
        if len(request) > MAX_REQUEST:
            raise OptionError(f"messages have {len(request)} bytes as JSON; the limit is {MAX_REQUEST}")
        with self._lock:
            answer = self._ask(request)
        if "refused" in answer:
            raise OptionError(f"messages: the model's chat template refuses them: {_line(answer['refused'])}")
        if "limit" in answer:
            said = f"the chat template was stopped: {_line(answer['limit'])}"
            if len(request) > self._most // 2:  # no wonder
                raise OptionError(f"messages have {len(request)} bytes as JSON; {said}")
            raise UnsafeModelError(said)
        text = check_text("messages", answer["text"], 4 * self._most)
        return _cut(text, last) if continue_final_message else text

    def close(self) -> None:
        """End the process; twice is fine."""
        with self._lock:
            self._closed = True
            self._end()

    def _ask(self, request: bytes) -> dict[str, Any]:
        child = self._ready()
        try:
            return self._exchange(child, request, self._timeout_s)
        except TimeoutError:
            self._end()
            return {"limit": f"it takes more than {self._timeout_s:g} s"}
        except OSError:
            self._end()
            return {"limit": "its process died"}
        except BaseException:
            self._end()  # an answer that nobody waited for would be the next one's
            raise

    def _ready(self) -> subprocess.Popen[bytes]:
        """The process, started when there is none."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        if self._closed:
            raise ModelClosedError("this chat template is closed; open a new one")
        self._end()
        try:
            child = self._child = subprocess.Popen(
                [sys.executable, "-I", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                close_fds=True,
            )
        except OSError as problem:
            raise CapacityError(f"no process can be started for the chat template: {problem}") from None
        try:
            os.set_blocking(cast("Any", child.stdin).fileno(), False)
            self._receive(cast("Any", child.stdout).fileno(), 1, time.monotonic() + _START_S)  # it has started
            opening = json.dumps({"template": self._template, "seconds": self._timeout_s}).encode()
            answer = self._exchange(child, opening, self._timeout_s)
        except OSError:
            self._end()
            if importlib.util.find_spec("jinja2") is None:
                raise MissingExtraError("text", "jinja2") from None
            raise UnsafeModelError("the chat template can't be read within its limits") from None
        except BaseException:
            self._end()
            raise
        if "broken" in answer:
            self._end()
            raise CorruptModelError(f"the chat template can't be read: {_line(answer['broken'])}")
        return child

    def _exchange(self, child: subprocess.Popen[bytes], request: bytes, timeout_s: float) -> dict[str, Any]:
        """Send a message and receive one, within a time."""
        sink, source = cast("Any", child.stdin).fileno(), cast("Any", child.stdout).fileno()
        end = time.monotonic() + timeout_s
        left = memoryview(struct.pack("<I", len(request)) + request)
        while left:
            _wait(sink, select.POLLOUT, end)
            left = left[os.write(sink, left) :]
        (length,) = struct.unpack("<I", self._receive(source, 4, end))
        if length > 12 * self._most + _FRAME:
            raise OSError("the answer is longer than any can be")
        found: dict[str, Any] = json.loads(self._receive(source, length, end))
        return found

    @staticmethod
    def _receive(source: int, length: int, end: float) -> bytes:
        content = bytearray()
        while len(content) < length:
            _wait(source, select.POLLIN, end)
            chunk = os.read(source, min(1 << 20, length - len(content)))
            if not chunk:
                raise BrokenPipeError("the process died")
            content += chunk
        return bytes(content)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _wait(descriptor: int, event: int, end: float) -> None:
    left = end - time.monotonic()
    waiting = select.poll()
    waiting.register(descriptor, event)
    if left <= 0 or not waiting.poll(left * 1000):
        raise TimeoutError


def _line(text: str) -> str:
    """What the template says, as one line."""
    return "".join(each if each.isprintable() else " " for each in text)


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of its own, its reasoning under the names that templates look for, as transformers does it."""
    reasoning = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    if reasoning is None:
        return dict(message)
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _tagged(chat: list[dict[str, Any]]) -> str:
    """The text to go on with, a tag behind it in its message."""
    content = chat[-1].get("content") if chat else None
    if isinstance(content, str):
        chat[-1]["content"] = content + _TAG
        return content
    blocks = list(content) if isinstance(content, list | tuple) else []
    for at, block in reversed(list(enumerate(blocks))):
        if isinstance(block, Mapping) and isinstance(text := block.get("text"), str):
            blocks[at] = {**block, "text": text + _TAG}
            chat[-1]["content"] = blocks
            return text
    raise OptionError("messages must end with a text to continue")


def _cut(text: str, last: str) -> str:
    """The text up to where the last message goes on, as transformers cuts it."""
    at = text.rfind(_TAG.strip())
    if at < 0 or last.strip() not in text:
        raise OptionError("messages: the model's chat template changes the last one, so it can't be continued")
    return text[:at] if text[at : at + len(_TAG)] == _TAG else text[:at].rstrip()
