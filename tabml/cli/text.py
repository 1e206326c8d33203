"""``tabml generate``, ``chat``, ``embed`` and the other commands on text."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

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
}  # fmt: skip

_ADAPTER = "adapter"


def run(options: argparse.Namespace) -> int:
    """One command: one JSON line a result, or the text as it comes."""
    said = dict(_pair(each) for each in options.set)
    if getattr(options, "adapter", None):
        said["adapter"] = _ADAPTER
    task = "zero-shot-classification" if options.verb == "classify" and "labels" in said else _TASKS[options.verb]
    if task == "text-generation" and (options.model or "").endswith(ENDINGS):
        task, placing = "litert-lm", _on_device(options)
    else:
        placing = {
            "device": options.device, "dtype": options.dtype, "quantization": options.quantization,
            **_only_generators(options),
        }  # fmt: skip
    source = _source(options.model, task, options.files)
    opened: Any = open_pipeline(task, source, files=open_provider(options.files) if options.files else None, **placing)
    with opened as model:
        if options.verb == "chat":
            return _chat(model, options, said)
        if options.verb == "generate":
            for text in options.texts:
                _show(model.stream(text, _generation(said)), options.json)
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
    if verb == "embed":
        return [{"vector": vector.tolist()} for vector in model.embed(texts, **said)]
    if verb in ("rank", "answer"):
        if len(texts) < 2 or (verb == "answer" and len(texts) != 2):
            raise OptionError(
                f"TEXT: {verb} takes a {'query and documents' if verb == 'rank' else 'question and a context'}"
            )
        return model.rank(texts[0], texts[1:], **said) if verb == "rank" else model.answer(*texts, **said)
    if verb == "classify" and "labels" in said:
        labels = str(said.pop("labels")).split(",")
        return model.classify(texts, labels, **said)
    if verb == "extract":
        return (each for found in model.extract(texts, **said) for each in found)
    if verb in ("fill", "tokenize"):
        method = model.fill if verb == "fill" else model.encode
        found = [method(text, **said) for text in texts]
        return (each for one in found for each in one) if verb == "fill" else found
    return getattr(model, verb)(texts, **said)


def _chat(model: Any, options: argparse.Namespace, said: dict[str, Any]) -> int:
    """One answer, or a conversation on the terminal until its end."""
    if options.texts:
        _show(
            model.stream_chat([{"role": "user", "content": " ".join(options.texts)}], _generation(said)), options.json
        )
        return 0
    messages: list[dict[str, str]] = []
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return 0
        messages.append({"role": "user", "content": line.rstrip("\n")})
        answer = _show(model.stream_chat(messages, _generation(said)), options.json)
        messages.append({"role": "assistant", "content": answer})


def _show(deltas: Iterator[Delta], as_json: bool) -> str:
    found = []
    for delta in deltas:
        found.append(delta)
        if not as_json:
            print(delta.text, end="", flush=True)
    whole = joined(found)
    print(json.dumps(whole.to_dict()) if as_json else "")
    return whole.text


def _generation(said: dict[str, Any]) -> GenerationOptions:
    known = {field.name for field in fields(GenerationOptions)}
    for name in said:
        if name not in known:
            raise OptionError(f"{name!r:.80} is not an option of a generation; there are: {', '.join(sorted(known))}")
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
        return name, json.loads(value)
    except ValueError:
        return name, value
