"""Between tabml's text values and the messages of both contracts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta, TokenLogprob, ToolCall, Usage
from tabml.text.results import Embeddings, read_only
from tabml_grpc.arrays import packed, packed_rows
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.statuses import RequestError
from tabml_grpc.v1 import text_pb2 as v1

_LISTS = ("stop", "stop_token_ids", "bad_words")
_GRAMMARS = ("json_schema", "regex", "json_object")
_USAGE = tuple(field.name for field in fields(Usage))


def options_from_v1(message: v1.Sampling) -> dict[str, Any]:
    """What a request says, by the names of :class:`GenerationOptions`."""
    found: dict[str, Any] = {}
    for field in fields(GenerationOptions):
        name = field.name
        if name in _LISTS:
            if values := tuple(getattr(message, name)):
                found[name] = values
        elif name == "logit_bias":
            if message.logit_bias:
                found[name] = dict(message.logit_bias)
        elif message.HasField(name):
            found[name] = getattr(message, name)
    return found


def sampling_from_v1(message: v1.Sampling) -> GenerationOptions:
    """The options.

    Raises:
        OptionError: one is not allowed.
    """
    return GenerationOptions(**options_from_v1(message))


def sampling_to_v1(options: GenerationOptions) -> v1.Sampling:
    """The message; what has its default is absent."""
    return v1.Sampling(**options.changed())


def delta_to_v1(delta: Delta) -> v1.Delta:
    """A piece of an answer."""
    message = v1.Delta(text=delta.text, index=delta.index, token_ids=delta.token_ids)
    for each in delta.logprobs:
        message.logprobs.add(
            token_id=each.token_id,
            text=each.text,
            logprob=each.logprob,
            alternative_ids=[token for token, _ in each.alternatives],
            alternative_logprobs=[value for _, value in each.alternatives],
        )
    if delta.finish_reason is not None:
        message.finish_reason = delta.finish_reason
    for call in delta.tool_calls:
        message.tool_calls.add(id=call.id, name=call.name, arguments_json=call.arguments)
    if delta.usage is not None:
        message.done = True
        message.usage.CopyFrom(v1.Usage(**{name: getattr(delta.usage, name) for name in _USAGE}))
    return message


def delta_from_v1(message: v1.Delta) -> Delta:
    """The same, for clients in Python."""
    return Delta(
        text=message.text,
        index=message.index,
        token_ids=tuple(message.token_ids),
        logprobs=tuple(
            TokenLogprob(
                token_id=each.token_id,
                text=each.text,
                logprob=each.logprob,
                alternatives=tuple(zip(each.alternative_ids, each.alternative_logprobs, strict=True)),
            )
            for each in message.logprobs
        ),
        finish_reason=message.finish_reason or None,  # type: ignore[arg-type]
        tool_calls=tuple(
            ToolCall(id=each.id, name=each.name, arguments=each.arguments_json) for each in message.tool_calls
        ),
        usage=Usage(**{name: getattr(message.usage, name) for name in _USAGE}) if message.done else None,
    )


def messages_from_v1(messages: Iterable[v1.Message]) -> list[dict[str, Any]]:
    """A conversation as templates know it.

    Raises:
        RequestError: the arguments of a tool call are not JSON.
    """
    return [message_from_v1(message, message.content) for message in messages]


def message_from_v1(message: Any, content: Any) -> dict[str, Any]:
    """One message, of either kind, with its content.

    Raises:
        RequestError: the arguments of a tool call are not JSON.
    """
    one: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        one["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json_of("arguments_json", call.arguments_json, dict)},
            }
            for call in message.tool_calls
        ]
    for name in ("tool_call_id", "name"):
        if value := getattr(message, name):
            one[name] = value
    return one


def json_of(name: str, text: str, kind: type) -> Any:
    """A field that holds JSON; None when it is empty.

    Raises:
        RequestError: it is no JSON, or of another kind.
    """
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise RequestError(f"{name} is not JSON: {problem}") from None
    if not isinstance(value, kind):
        raise RequestError(f"{name} must be a JSON {'object' if kind is dict else 'list'}")
    return value


def embeddings_to_v1(found: Embeddings) -> bytes:
    """The bytes of an ``EmbedResponse``: as a message they would be copied twice more."""
    tail = v1.EmbedResponse(dimensions=found.dimensions, prompt_tokens=found.prompt_tokens)
    return packed(1, found.vectors, tail.SerializeToString())


def embeddings_from_v1(message: v1.EmbedResponse) -> Embeddings:
    """The same, for clients in Python."""
    vectors = np.frombuffer(message.vectors, "<f4").reshape(-1, max(1, message.dimensions))
    return Embeddings(vectors=read_only(vectors), prompt_tokens=message.prompt_tokens)


def embeddings_to_ml(found: Embeddings) -> bytes:
    """The bytes of a ``GeneratedEmbeddingsResponse``: building it number by number takes a hundred times as long."""
    tail = ml.GeneratedEmbeddingsResponse(prompt_tokens=found.prompt_tokens, dim=found.dimensions)
    return packed_rows(1, 1, found.vectors, tail.SerializeToString())


def each(kind: Any, values: Sequence[Any]) -> list[Any]:
    """Results whose fields have the same names on the wire."""
    names = [field.name for field in kind.DESCRIPTOR.fields]
    return [kind(**{name: getattr(value, name) for name in names}) for value in values]
