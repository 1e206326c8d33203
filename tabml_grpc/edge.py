"""Edge models: ``tabml.v1.EdgeService``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from tabml.errors import OptionError
from tabml_grpc.calls import Call, parsed
from tabml_grpc.statuses import RequestError
from tabml_grpc.text import Text
from tabml_grpc.v1 import edge_pb2 as v1

if TYPE_CHECKING:
    from tabml.edge import LiteModel, LiteOutputs

_RUNS = 50
_MAX_RUNS, _MAX_TOKENS = 10_000, 4096
"""What one request may keep the machine busy with."""


class EdgeService:
    """``tabml.v1.EdgeService``."""

    def __init__(self, text: Text) -> None:
        """Nothing is called yet.

        Args:
            text: Lends models, and runs what waits in threads of its own.
        """
        self._lent = text

    async def Describe(self, request: v1.EdgeServiceDescribeRequest, call: Call) -> v1.EdgeServiceDescribeResponse:
        """What a model takes and gives."""
        from tabml.edge import LiteModel
        from tabml_grpc.convert_edge import description_to_v1, lm_description_to_v1

        return await self._lent.run(
            request.model,
            call,
            lambda model: (description_to_v1 if isinstance(model, LiteModel) else lm_description_to_v1)(model),
            "litert",
            "litert-lm",
        )

    async def Run(self, request: v1.RunRequest, call: Call) -> v1.RunResponse:
        """One run."""

        def work(model: Any) -> v1.RunResponse:
            from tabml_grpc.convert_edge import check_length

            found, outputs = _run(model, request.config, request.inputs)
            check_length(outputs)
            return v1.RunResponse(outputs=outputs, seconds=found.seconds, accelerator=found.accelerator.name)

        return await self._lent.run(request.model, call, work, "litert")

    async def StreamRun(self, messages: AsyncIterator[bytes], call: Call) -> None:
        """Runs in the order of their inputs."""
        config: v1.StreamRunConfig | None = None
        async for raw in messages:
            message: v1.StreamRunRequest = parsed(v1.StreamRunRequest, raw)
            kind = message.WhichOneof("message")
            if config is None:
                if kind != "config":
                    raise RequestError("config must be set in the first message")
                config = message.config
            elif kind != "inputs":
                raise RequestError("inputs must be set in every message after the first")
            else:
                await self._answer(config, message.inputs, call)

    async def _answer(self, asked: v1.StreamRunConfig, given: v1.RunInputs, call: Call) -> None:
        def work(model: Any) -> list[v1.StreamRunResponse]:
            from tabml_grpc.convert_edge import in_pieces

            found, outputs = _run(model, asked.config, given.inputs)
            said: dict[str, Any] = {"id": given.id, "seconds": found.seconds, "accelerator": found.accelerator.name}
            answers = [v1.StreamRunResponse(outputs=piece, **said) for piece in in_pieces(outputs)]
            answers[-1].done = True
            return answers

        for answer in await self._lent.run(asked.model, call, work, "litert"):
            await call.send(answer)

    async def Generate(self, request: v1.EdgeServiceGenerateRequest, call: Call) -> None:
        """A prompt continued, or a conversation answered."""
        from tabml_grpc.convert_edge import parts_messages_from_v1
        from tabml_grpc.convert_text import delta_to_v1, json_of, sampling_from_v1

        if bool(request.prompt) == bool(request.messages):
            raise RequestError("prompt='' or messages=[] must be given, but not both")
        options = sampling_from_v1(request.sampling)
        tools = json_of("tools_json", request.tools_json, list)
        extra = json_of("template_options_json", request.template_options_json, dict)

        def begin(model: Any) -> Any:
            if request.prompt:
                return model.stream(request.prompt, options, parse_special=request.parse_special)
            return model.stream_chat(
                parts_messages_from_v1(request.messages), options, tools=tools, continue_last=request.continue_last,
                template_options=extra,
            )  # fmt: skip

        await self._lent.stream(
            request.model, call, begin, lambda delta: v1.EdgeServiceGenerateResponse(delta=delta_to_v1(delta))
        )

    async def Benchmark(self, request: v1.BenchmarkRequest, call: Call) -> v1.BenchmarkResponse:
        """How quick the model is here."""
        return await self._lent.run(request.model, call, lambda model: _measure(model, request), "litert", "litert-lm")


def _run(model: LiteModel, config: v1.RunConfig, given: Sequence[v1.Tensor]) -> tuple[LiteOutputs, list[v1.Tensor]]:
    """In a worker's thread, with the conversions, which would hold the event loop up."""
    from tabml_grpc.convert_edge import inputs_from_v1, outputs_to_v1

    found = model.run(
        inputs_from_v1(given), signature=config.signature or None, quantize=config.quantize,
        dequantize=config.dequantize,
    )  # fmt: skip
    return found, outputs_to_v1(found, config.outputs)


def _measure(model: Any, request: v1.BenchmarkRequest) -> v1.BenchmarkResponse:
    from tabml.edge import LiteLM

    if isinstance(model, LiteLM):
        for name in ("prefill_tokens", "decode_tokens"):
            if not 0 <= getattr(request, name) <= _MAX_TOKENS:
                raise OptionError(f"{name}={getattr(request, name)} must be a whole number from 1 to {_MAX_TOKENS}")
        speed = model.benchmark(
            prefill_tokens=request.prefill_tokens or None, decode_tokens=request.decode_tokens or None
        )
        return v1.BenchmarkResponse(accelerator=model.device, **speed.to_dict())
    if not 0 <= request.runs <= _MAX_RUNS:
        raise OptionError(f"runs={request.runs} must be a whole number from 1 to {_MAX_RUNS}")
    found = model.benchmark(runs=request.runs or _RUNS, signature=request.signature or None)
    return v1.BenchmarkResponse(
        median_ms=found.median_ms, p90_ms=found.p90_ms, fastest_ms=found.fastest_ms, runs=found.runs,
        threads=found.threads, accelerator=found.accelerator.name,
    )  # fmt: skip
