"""``tabml generate``, ``chat``, ``embed`` and the other commands on text."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from tabml.cli.progress import Fetching
from tabml.edge.lm import ENDINGS
from tabml.errors import OptionError
from tabml.files import FileRef, open_provider
from tabml.generation.results import Delta, joined
from tabml.pipelines import PIPELINES, open_pipeline
from tabml.text import GenerationOptions

_TASKS = {
    "generate": "text-generation", "chat": "text-generation", "embed": "feature-extraction", "rank": "text-ranking",
    "classify": "text-classification", "extract": "token-classification", "answer": "question-answering",
    "fill": "fill-mask", "translate": "translation", "summarize": "summarization", "tokenize": "tokenization",
    "detokenize": "tokenization", "infill": "text-generation",
}  # fmt: skip

_METHODS = {"tokenize": "encode", "detokenize": "decode"}
"""Of verbs that are called otherwise."""

_ADAPTER = "adapter"


def run(options: argparse.Namespace) -> int:
    """One command: one JSON line a result, or the text as it comes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that can't show a character shows its number
    said = dict(_pair(each) for each in options.set)
    if getattr(options, "adapter", None):
        said["adapter"] = _ADAPTER
    task = "zero-shot-classification" if options.verb == "classify" and "labels" in said else _TASKS[options.verb]
    if task == "text-generation" and (options.model or "").endswith(ENDINGS):
        if options.verb == "infill":
            raise OptionError(f"--model {options.model}: models for LiteRT-LM can't fill in the middle")
        task, placing = "litert-lm", _on_device(options)
    else:
        placing = {
            "device": options.device, "dtype": options.dtype, "quantization": options.quantization,
            **_only_generators(options),
        }  # fmt: skip
    source = _source(options.model, task, options.files)
    fetching = Fetching()
    if options.files:
        placing["files"] = open_provider(options.files)
        if task != "litert-lm":
            placing["progress"] = fetching
    opened: Any = open_pipeline(task, source, **placing)
    with fetching, opened as model:
        if options.verb == "chat":
            return _chat(model, options, said)
        if options.verb == "generate":
            for text in options.texts:
                _show(model.stream(text, _generation(said)), options.json)
            return 0
        if options.verb == "infill":
            if len(options.texts) != 2:
                raise OptionError("PREFIX SUFFIX: infill takes two texts, what is before the gap and what is behind it")
            _show(model.stream_infill(*options.texts, _generation(said)), options.json)
            return 0
        for found in _call(model, options.verb, options.texts, said):
            print(json.dumps(_plain(found)))
    return 0


def _only_generators(options: argparse.Namespace) -> dict[str, Any]:
    if not hasattr(options, "engine"):
        return {}
    found = {"engine": options.engine, "context_length": options.context_length}
    return {**found, "adapters": {_ADAPTER: Path(options.adapter)}} if options.adapter else found


def _on_device(options: argparse.Namespace) -> dict[str, Any]:
    """What LiteRT-LM takes.

    Raises:
        OptionError: something is said that it doesn't take.
    """
    for name, usual in (("dtype", "auto"), ("quantization", None), ("engine", "auto"), ("adapter", None)):
        if getattr(options, name) != usual:
            raise OptionError(f"--{name} is not possible with a model for LiteRT-LM")
    device = "cpu" if options.device == "auto" else options.device
    return {"device": device, "context_length": options.context_length}


def _plain(found: Any) -> Any:
    if isinstance(found, str):
        return {"text": found}
    return found if isinstance(found, dict) else found.to_dict()


def _call(model: Any, verb: str, texts: list[str], said: dict[str, Any]) -> Any:
    """Results one by one."""
    labels = said.pop("labels", None) if verb == "classify" else None
    method = getattr(model, _METHODS.get(verb, verb))
    known = [each.name for each in signature(method).parameters.values() if each.kind is each.KEYWORD_ONLY]
    for name in said:
        if name not in known:
            raise OptionError(f"--set {name[:80]}: {verb} has no such option; it has {', '.join(known) or 'none'}")
    if verb == "embed":
        return [{"vector": vector.tolist()} for vector in method(texts, **said)]
    if verb == "detokenize":
        return [method(_whole_numbers(texts), **said)]
    if verb in ("rank", "answer"):
        if len(texts) < 2 or (verb == "answer" and len(texts) != 2):
            raise OptionError(
                f"TEXT: {verb} takes a {'query and documents' if verb == 'rank' else 'question and a context'}"
            )
        return method(texts[0], texts[1:], **said) if verb == "rank" else method(*texts, **said)
    if labels is not None:
        return method(texts, labels, **said)
    if verb == "extract":
        return (each for found in method(texts, **said) for each in found)
    if verb in ("fill", "tokenize"):
        found = [method(text, **said) for text in texts]
        return (each for one in found for each in one) if verb == "fill" else found
    return method(texts, **said)


def _whole_numbers(texts: list[str]) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError as problem:
        raise OptionError(f"ID must be a whole number: {problem}") from None


def _chat(model: Any, options: argparse.Namespace, said: dict[str, Any]) -> int:
    """One answer, or a conversation on the terminal until its end."""
    messages = [{"role": "system", "content": options.system}] if options.system is not None else []
    tools = _tools(options.tools) if options.tools is not None else None
    for line in [" ".join(options.texts)] if options.texts else _lines():
        messages.append({"role": "user", "content": line})
        answer = _show(model.stream_chat(messages, _generation(said), tools=tools), options.json)
        messages.append({"role": "assistant", "content": answer})
    return 0


def _lines() -> Iterator[str]:
    """What is typed, line by line."""
    if sys.stdin is None:
        raise OptionError("TEXT is missing, and there is no stdin to read a conversation from")
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as problem:
            raise OptionError(f"stdin is no text in {problem.encoding}") from None
        if not line:
            return
        yield line.rstrip("\n")


def _tools(path: str) -> list[Any]:
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise OptionError(f"--tools {path}: {problem}") from None
    if not isinstance(found, list):
        raise OptionError(f"--tools {path} must have a list of functions")
    return found


def _show(deltas: Iterator[Delta], as_json: bool) -> str:
    """Print an answer as it comes; several, or calls of tools, once all is there."""
    found: list[Delta] = []
    for delta in deltas:
        found.append(delta)
        if not as_json and delta.index == 0:
            print(delta.text, end="", flush=True)
    whole = joined(found)
    first, *more = whole.choices
    if as_json:
        print(json.dumps(whole.to_dict()))
    else:
        print()
        for call in first.tool_calls:
            print(json.dumps(call.to_dict()))
        for each in more:
            print(each.text)
    return whole.text


def _generation(said: dict[str, Any]) -> GenerationOptions:
    known = {field.name for field in fields(GenerationOptions)}
    for name in said:
        if name not in known:
            raise OptionError(f"{name!r:.80} is not an option of a generation; there are: {', '.join(sorted(known))}")
    biases = said.get("logit_bias")
    if isinstance(biases, dict):  # JSON has texts for keys
        said = {**said, "logit_bias": {int(key) if key.isdecimal() else key: bias for key, bias in biases.items()}}
    return GenerationOptions(**said)


def _source(model: str | None, task: str, files: str | None) -> str | Path | FileRef:
    if model is None:
        defaults = PIPELINES[task].models
        if not defaults:
            raise OptionError(f"--model must be given: {task} has no default")
        return defaults[0]
    path = Path(model)
    if path.exists():
        return path
    repo, _, name = model.rpartition("/")
    return FileRef(repo, name) if files and repo and name.endswith((".gguf", *ENDINGS)) else model


def _pair(text: str) -> tuple[str, Any]:
    """``name=value``; the value is JSON where it can be read as such, else a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"--set {text!r:.80} must be NAME=VALUE")
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = value
    if name == "labels" and not isinstance(found, list):
        return name, [label.strip() for label in value.split(",")]
    return name, found
