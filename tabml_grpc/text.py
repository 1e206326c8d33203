"""Text models: ``tabml.v1.TextService`` and ``ml.TransformersService``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from google.protobuf.message import Message

from tabml.cancellation import Cancellation
from tabml.errors import ModelKindError, OptionError
from tabml.pipelines import PIPELINES
from tabml_grpc.calls import MAX_RESPONSE, Answer, Call, parsed
from tabml_grpc.handover import Handover
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.models import Models
from tabml_grpc.v1 import text_pb2 as v1
from tabml_grpc.workers import Workers

if TYPE_CHECKING:
    from tabml.generation.options import GenerationOptions
    from tabml.generation.results import Delta

OPTIONS = "tabml-options-bin"
"""Metadata of ``ml`` calls: a serialised Sampling."""
GENERATORS = ("text-generation", "litert-lm")
"""Pipelines whose models write text."""
_THREADS = 64
_BESIDE, _BESIDE_VECTOR = 64, 16
"""Bytes of a response that are no numbers: in all, and of one vector."""
Value = TypeVar("Value")


class Text:
    """Calls on text models: each waits in a thread of its own, never in the event loop."""

    def __init__(self, models: Models) -> None:
        self._models = models

    @cached_property
    def _workers(self) -> Workers:
        """Threads, once there is something to do for them."""
        return Workers(_THREADS)

    @asynccontextmanager
    async def borrowed(self, model: str, call: Call, *fits: str) -> AsyncIterator[Any]:
        """The model that a call means, when it is of one of these pipelines or of a class made from theirs.

        Raises:
            ModelKindError: it is another kind of model.
        """
        name = self._models.named(model)
        with self._models.borrow(name, call) as loaded:
            found = getattr(loaded, "model", None)
            if not any(isinstance(found, _kind(pipeline)) for pipeline in fits):
                raise ModelKindError(
                    f"model={name!r} is a model for {loaded.pipeline.name}, not for {' or '.join(fits)}"
                )
            yield found

    async def run(self, model: str, call: Call, work: Callable[[Any], Value], *fits: str) -> Value:
        """What ``work`` gives for the model; it is cancelled with the call."""
        async with self.borrowed(model, call, *fits) as found:
            cancellation = Cancellation()

            def job() -> Value:
                with cancellation.bound():
                    return work(found)

            running = self._workers.run(job)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                cancellation.cancel()
                with suppress(Exception):
                    await asyncio.shield(running)
                raise

    async def stream(
        self, model: str, call: Call, work: Callable[[Any], Iterator[Delta]], write: Callable[[Delta], Answer]
    ) -> None:
        """Send what ``work`` gives, piece by piece; it ends within a step when the call ends."""
        async with self.borrowed(model, call, *GENERATORS) as found:
            cancellation, handover = Cancellation(), Handover()

            def job() -> None:
                try:
                    with cancellation.bound():
                        for delta in work(found):
                            handover.put(delta)
                finally:
                    handover.put(None)

            running = self._workers.run(job)
            try:
                async for delta in handover.deltas():
                    await call.send(write(delta))
                await asyncio.shield(running)
            finally:
                cancellation.cancel()
                with suppress(Exception):
                    await asyncio.shield(running)


@cache
def _kind(pipeline: str) -> type:
    """The class of a pipeline of tabml's own."""
    from importlib import import_module

    module, _, name = PIPELINES[pipeline].factory.partition(":")
    return cast("type", getattr(import_module(module), name))


class TextService:
    """``tabml.v1.TextService``."""

    def __init__(self, text: Text) -> None:
        self._text = text

    async def Generate(self, request: v1.GenerateRequest, call: Call) -> None:
        """Continue a prompt."""
        from tabml_grpc.convert_text import delta_to_v1, sampling_from_v1

        options = sampling_from_v1(request.sampling)
        await self._text.stream(
            request.model,
            call,
            lambda model: model.stream(request.prompt, options, parse_special=request.parse_special),
            lambda delta: v1.GenerateResponse(delta=delta_to_v1(delta)),
        )

    async def Chat(self, request: v1.ChatRequest, call: Call) -> None:
        """Answer a conversation."""
        from tabml_grpc.convert_text import delta_to_v1, json_of, messages_from_v1, sampling_from_v1

        options, messages = sampling_from_v1(request.sampling), messages_from_v1(request.messages)
        tools = json_of("tools_json", request.tools_json, list)
        extra = json_of("template_options_json", request.template_options_json, dict)
        await self._text.stream(
            request.model,
            call,
            lambda model: model.stream_chat(
                messages, options, tools=tools, continue_last=request.continue_last, template_options=extra
            ),
            lambda delta: v1.ChatResponse(delta=delta_to_v1(delta)),
        )

    async def Infill(self, request: v1.InfillRequest, call: Call) -> None:
        """Write what is missing between two pieces of code."""
        from tabml_grpc.convert_text import delta_to_v1, sampling_from_v1

        options = sampling_from_v1(request.sampling)
        await self._text.stream(
            request.model,
            call,
            lambda model: model.stream_infill(request.prefix, request.suffix, options),
            lambda delta: v1.InfillResponse(delta=delta_to_v1(delta)),
        )

    async def Embed(self, request: v1.EmbedRequest, call: Call) -> bytes:
        """Vectors of texts."""
        from tabml_grpc.convert_text import embeddings_to_v1

        def work(model: Any) -> bytes:
            _check_room(len(request.texts), request.dimensions or model.dimensions)
            return embeddings_to_v1(
                model.embed(
                    list(request.texts),
                    prompt=request.prompt or None,
                    prompt_name=request.prompt_name or None,
                    normalize=request.normalize if request.HasField("normalize") else None,
                    dimensions=request.dimensions or None,
                    truncate=request.truncate,
                )
            )

        return await self._text.run(request.model, call, work, "feature-extraction")

    async def Rerank(self, request: v1.RerankRequest, call: Call) -> v1.RerankResponse:
        """Documents by how well they answer a query."""
        from tabml_grpc.convert_text import each

        found = await self._text.run(
            request.model,
            call,
            lambda model: model.rank(
                request.query,
                list(request.documents),
                top_n=request.top_n or None,
                instruction=request.instruction or None,
                truncate=request.truncate,
            ),
            "text-ranking",
        )
        return v1.RerankResponse(results=each(v1.Ranked, found))

    async def Classify(self, request: v1.ClassifyRequest, call: Call) -> v1.ClassifyResponse:
        """Labels of texts."""
        from tabml_grpc.convert_text import each

        if request.labels:
            hypothesis = {"hypothesis": request.hypothesis} if request.hypothesis else {}
            found = await self._text.run(
                request.model,
                call,
                lambda model: model.classify(
                    list(request.texts), list(request.labels), multi_label=request.multi_label,
                    truncate=request.truncate, **hypothesis,
                ),
                "zero-shot-classification",
            )  # fmt: skip
        else:
            found = await self._text.run(
                request.model,
                call,
                lambda model: model.classify(
                    list(request.texts), top_k=request.top_k or None, truncate=request.truncate
                ),
                "text-classification",
            )
        return v1.ClassifyResponse(results=[v1.Classification(labels=each(v1.LabelScore, one.labels)) for one in found])

    async def ExtractEntities(self, request: v1.ExtractEntitiesRequest, call: Call) -> v1.ExtractEntitiesResponse:
        """Labelled pieces of texts."""
        from tabml_grpc.convert_text import each

        found = await self._text.run(
            request.model,
            call,
            lambda model: model.extract(
                list(request.texts),
                aggregation=request.aggregation or "simple",
                min_score=request.min_score,
                stride=request.stride if request.HasField("stride") else None,
                truncate=request.truncate,
            ),
            "token-classification",
        )
        return v1.ExtractEntitiesResponse(results=[v1.Entities(entities=each(v1.Entity, one)) for one in found])

    async def Answer(self, request: v1.AnswerRequest, call: Call) -> v1.AnswerResponse:
        """The piece of a context that answers a question."""
        from tabml_grpc.convert_text import each

        found = await self._text.run(
            request.model,
            call,
            lambda model: model.answer(
                request.question,
                request.context,
                top_k=request.top_k or 1,
                max_answer_tokens=request.max_answer_tokens or 15,
                impossible=request.impossible,
            ),
            "question-answering",
        )
        return v1.AnswerResponse(answers=each(v1.FoundAnswer, found))

    async def FillMask(self, request: v1.FillMaskRequest, call: Call) -> v1.FillMaskResponse:
        """Words for a mask."""
        from tabml_grpc.convert_text import each

        found = await self._text.run(
            request.model,
            call,
            lambda model: model.fill(request.text, top_k=request.top_k or 5, targets=list(request.targets) or None),
            "fill-mask",
        )
        return v1.FillMaskResponse(fills=each(v1.Fill, found))

    async def Translate(self, request: v1.TranslateRequest, call: Call) -> v1.TranslateResponse:
        """Texts in another language."""
        found = await self._text.run(
            request.model,
            call,
            lambda model: model.translate(
                list(request.texts),
                source=request.source or None,
                target=request.target or None,
                num_beams=request.num_beams or None,
                max_new_tokens=request.max_new_tokens or None,
                truncate=request.truncate,
            ),
            "translation",
        )
        return v1.TranslateResponse(texts=found)

    async def Summarize(self, request: v1.SummarizeRequest, call: Call) -> v1.SummarizeResponse:
        """Texts made short."""
        found = await self._text.run(
            request.model,
            call,
            lambda model: model.summarize(
                list(request.texts),
                min_new_tokens=request.min_new_tokens or None,
                max_new_tokens=request.max_new_tokens or None,
                num_beams=request.num_beams or None,
                truncate=request.truncate,
            ),
            "summarization",
        )
        return v1.SummarizeResponse(texts=found)

    async def Tokenize(self, request: v1.TokenizeRequest, call: Call) -> v1.TokenizeResponse:
        """A text as its tokens."""
        found = await self._text.run(
            request.model,
            call,
            lambda model: model.encode(
                request.text, special_tokens=request.special_tokens, parse_special=request.parse_special
            ),
            "tokenization",
        )
        return v1.TokenizeResponse(
            ids=found.ids,
            tokens=found.tokens,
            begins=[begin for begin, _ in found.offsets],
            ends=[end for _, end in found.offsets],
        )

    async def Detokenize(self, request: v1.DetokenizeRequest, call: Call) -> v1.DetokenizeResponse:
        """The text of tokens."""
        text = await self._text.run(
            request.model,
            call,
            lambda model: model.decode(list(request.ids), skip_special_tokens=not request.special_tokens),
            "tokenization",
        )
        return v1.DetokenizeResponse(text=text)


class TransformersService:
    """``ml.TransformersService``: what the existing client speaks."""

    def __init__(self, text: Text) -> None:
        self._text = text

    async def GenerateText(self, request: ml.TextRequest, call: Call) -> None:
        """Continue a prompt; ``max_length`` counts new tokens, temperature 0 is greedy."""
        options = _options(call, request.temperature, request.top_p, request.max_length)
        count = 0

        def write(delta: Delta) -> Message:
            nonlocal count
            count += len(delta.token_ids)
            return ml.TextResponse(text=delta.text, tokens_generated=count, **_ending(delta, call))

        await self._text.stream(request.model, call, lambda model: model.stream(request.prompt, options), write)

    async def ChatCompletion(self, request: ml.ChatRequest, call: Call) -> None:
        """Answer a conversation."""
        options = _options(call, request.temperature)
        messages = [{"role": each.role, "content": each.content} for each in request.messages]
        await self._text.stream(
            request.model,
            call,
            lambda model: model.stream_chat(messages, options),
            lambda delta: ml.ChatResponse(content=delta.text, **_ending(delta, call)),
        )

    async def GenerateEmbeddings(self, request: ml.GenerateEmbeddingsRequest, call: Call) -> bytes:
        """Vectors of texts."""
        from tabml_grpc.convert_text import embeddings_to_ml

        texts = list(request.texts)

        def work(model: Any) -> bytes:
            _check_room(len(texts), model.dimensions)
            return embeddings_to_ml(model.embed(texts))

        return await self._text.run(request.model, call, work, "feature-extraction")

    async def Rerank(self, request: ml.RerankRequest, call: Call) -> ml.RerankResponse:
        """Documents by how well they answer a query."""
        from tabml_grpc.convert_text import each

        found = await self._text.run(
            request.model,
            call,
            lambda model: model.rank(request.query, list(request.documents), top_n=request.top_n or None),
            "text-ranking",
        )
        return ml.RerankResponse(results=each(ml.RerankResult, found))


def _check_room(texts: int, dimensions: int) -> None:
    """Raise OptionError, before anything is computed, where vectors don't fit into one response."""
    most = (MAX_RESPONSE - _BESIDE) // (4 * dimensions + _BESIDE_VECTOR)
    if texts > most:
        raise OptionError(f"texts has {texts} texts; vectors of {dimensions} numbers fit into a response for {most}")


def _options(call: Call, temperature: float, top_p: float = 0.0, max_length: int = 0) -> GenerationOptions:
    """The options of a frozen request, and what the metadata says on top."""
    from tabml.generation.options import GenerationOptions
    from tabml_grpc.convert_text import options_from_v1

    said: dict[str, Any] = {"temperature": temperature}
    if top_p:
        said["top_p"] = top_p
    if max_length:
        said["max_new_tokens"] = max_length
    raw = call.metadata.get(OPTIONS)
    if raw is not None:
        sampling = parsed(v1.Sampling, raw if isinstance(raw, bytes) else raw.encode())
        said.update(options_from_v1(sampling))
    return GenerationOptions(**said)


def _ending(delta: Delta, call: Call) -> dict[str, Any]:
    """What the last message has."""
    if delta.usage is None:
        return {}
    return {
        "done": True,
        "finish_reason": delta.finish_reason or "",
        "prompt_tokens": delta.usage.prompt_tokens,
        "completion_tokens": delta.usage.completion_tokens,
        "time_to_first_token_s": delta.usage.time_to_first_token_s,
        "request_id": call.request_id,
    }
