"""Models as the wire sees them: one registry for both contracts, and the two services that load and unload."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, suppress

from tabml.cancellation import Cancellation
from tabml.errors import (
    CallCancelledError,
    ModelFileNotFoundError,
    ModelInUseError,
    ModelKindError,
    ModelNotLoadedError,
    OptionError,
)
from tabml.files import HeldFiles, ResidentFiles
from tabml.files.catalog import find
from tabml.files.types import CHUNK_BYTES, check_name
from tabml.pipelines import Loaded, ModelSpec, Pipeline, Value, known_pipelines, model_spec, open_model
from tabml.registry import Entry, ModelRegistry
from tabml_grpc import process
from tabml_grpc.calls import Call
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.statuses import RequestError
from tabml_grpc.v1 import models_pb2 as v1

UNLOAD_S = 10.0
_MIB = 1 << 20
_PROGRESS_S = 0.05


class Models:
    """Loads, lends and unloads, from the event loop's side: what waits, waits in a thread."""

    def __init__(self, files: ResidentFiles, source: str, executor: Executor) -> None:
        """Nothing is loaded.

        Args:
            files: Where model files come from.
            source: The same in words.
            executor: Threads for loads and for waiting.
        """
        self._files = files
        self._source = source
        self._executor = executor
        self._registry: ModelRegistry[Loaded] = ModelRegistry()

    @property
    def source(self) -> str:
        """Where model files come from, in words."""
        return self._source

    async def load(
        self,
        model_id: str,
        spec: ModelSpec,
        progress: Callable[[str, int, int | None], None] | None = None,
        *,
        any_spec: bool = False,
    ) -> tuple[Entry[Loaded], bool]:
        """The entry of a loaded model, and whether it was loaded before; cancelled with the call that waits."""
        cancellation = Cancellation()

        def build(stop: Cancellation) -> Loaded:
            before = process.rss_bytes()
            model = open_model(spec, HeldFiles(self._files, cancellation=stop, progress=progress))
            try:
                model.load()
            except BaseException:
                model.close()
                raise
            model.rss_bytes = max(0, process.rss_bytes() - before)
            process.settle()
            return model

        def work() -> tuple[Entry[Loaded], bool]:
            return self._registry.load(model_id, spec, build, any_spec=any_spec, cancellation=cancellation)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    @contextmanager
    def borrow(self, model_id: str, call: Call) -> Iterator[Loaded]:
        """The model for one call, which ends when the model is unloaded at once.

        Raises:
            ModelNotLoadedError: it isn't loaded.
        """
        with self._registry.use(model_id) as lease:
            lease.cancellation.on_cancel(lambda: call.end(CallCancelledError(f"model={model_id!r} was unloaded")))
            yield lease.model

    async def ready(self, pipeline: Pipeline, model_id: str, options: Mapping[str, Value]) -> str:
        """The model that a call means, loaded: the one it names must be, the default is when it isn't yet.

        Raises:
            ModelFileNotFoundError: no such model.
            ModelNotLoadedError: it isn't loaded.
            ModelKindError: it is loaded as another pipeline's.
        """
        wanted = model_id or self._default(pipeline, options)
        entry = self._registry.get(wanted)
        if entry is None:
            if model_id:
                find(model_id)  # says what there is, when it is unknown
                raise ModelNotLoadedError(f"model={model_id[:80]!r} is not loaded; call LoadModel first")
            await self.load(wanted, model_spec(wanted, pipeline=pipeline.name), any_spec=True)
        elif entry.model is not None and not entry.model.pipeline.shares_models(pipeline):
            raise ModelKindError(
                f"model={wanted!r} is a model for {entry.model.pipeline.name}, not for {pipeline.name}"
            )
        return wanted

    def _default(self, pipeline: Pipeline, options: Mapping[str, Value]) -> str:
        """The pipeline's default model; where it has none, the one that is loaded."""
        if pipeline.models:
            return pipeline.default_model(options)
        for entry in self._registry.entries():
            if entry.model is not None and entry.model.pipeline is pipeline:
                return entry.model_id
        raise ModelNotLoadedError(
            f"no model for {pipeline.name} is loaded, and none comes with tabml; "
            f"call LoadModel with one and pipeline={pipeline.name!r}"
        )

    def named(self, model_id: str) -> str:
        """The loaded model that a call names; there is no default where models take gigabytes.

        Raises:
            OptionError: none is named.
            ModelNotLoadedError: it isn't loaded.
        """
        if not model_id:
            raise OptionError("model='' must name a loaded model")
        if self._registry.get(model_id) is None:
            check_name("model", model_id)
            raise ModelNotLoadedError(f"model={model_id[:80]!r} is not loaded; call LoadModel first")
        return model_id

    async def unload(self, model_id: str, *, cancel: bool, timeout_s: float) -> Entry[Loaded]:
        """Let go of a model and of its memory."""

        def work() -> Entry[Loaded]:
            entry = self._registry.unload(model_id, cancel=cancel, timeout_s=timeout_s)
            process.return_memory()
            return entry

        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def entries(self) -> list[Entry[Loaded]]:
        """What is loaded."""
        return self._registry.entries()

    def loading(self, model_id: str) -> bool:
        """Whether another call loads it now."""
        return self._registry.loading(model_id)

    def file(self, model_id: str, path: str) -> memoryview:
        """A file that a loaded model holds in memory.

        Raises:
            ModelFileNotFoundError: there is none.
        """
        check_name("model_id", model_id)
        check_name("file_path", path)
        entry = self._registry.get(model_id)
        held = entry.model.files.held(path) if entry is not None and entry.model is not None else None
        if held is None:
            raise ModelFileNotFoundError(f"file_path={path[:80]!r}: no loaded model {model_id[:80]!r} holds it")
        return held.view()


def model_info(entry: Entry[Loaded], already: bool = True) -> v1.ModelInfo:
    """A loaded model as the wire has it."""
    model = entry.model
    if model is None:
        raise ModelNotLoadedError(f"model_id={entry.model_id!r} was unloaded meanwhile; load it again")
    return v1.ModelInfo(
        model_id=entry.model_id,
        pipeline=model.pipeline.name,
        options={name: _text(value) for name, value in model.spec.options},
        pipeline_class=model.pipeline.classes[0] or model.pipeline.factory.rpartition(":")[2],
        device="cpu",
        capabilities=model.pipeline.capabilities,
        weights_bytes=model.files.bytes_fetched,
        rss_bytes=model.rss_bytes,
        load_seconds=entry.load_seconds,
        fetch_seconds=model.files.fetch_seconds,
        bytes_fetched=model.files.bytes_fetched,
        loaded_at_ms=entry.loaded_at_ms,
        last_used_at_ms=entry.last_used_at_ms,
        active_requests=entry.active,
        already_loaded=already,
        files=model.files.names,
    )


_COMMON = (
    "load_seconds", "fetch_seconds", "bytes_fetched", "weights_bytes", "pipeline_class", "device", "dtype",
    "capabilities", "already_loaded", "last_used_at_ms", "active_requests",
)  # fmt: skip


def to_ml_loaded(info: v1.ModelInfo) -> ml.LoadModelResponse:
    """The answer of a load as the old contract has it."""
    return ml.LoadModelResponse(
        success=True,
        message=f"{info.model_id} is {'already ' if info.already_loaded else ''}loaded",
        ram_allocated_mb=math.ceil(max(info.rss_bytes, info.weights_bytes) / _MIB),
        **{name: getattr(info, name) for name in _COMMON},
    )


def to_ml_info(info: v1.ModelInfo) -> ml.LoadedModelInfo:
    """A line of the list as the old contract has it."""
    return ml.LoadedModelInfo(
        model_id=info.model_id,
        pipeline_type=info.pipeline,
        ram_mb=math.ceil(max(info.rss_bytes, info.weights_bytes) / _MIB),
        loaded_at=info.loaded_at_ms // 1000,
        **{name: getattr(info, name) for name in _COMMON},
    )


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class ModelService:
    """``tabml.v1.ModelService``."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def LoadModel(self, request: v1.LoadModelRequest, call: Call) -> None:
        """Progress, and the model at the end."""
        spec = model_spec(
            request.model_id,
            pipeline=request.pipeline,
            architecture=request.architecture,
            options=dict(request.options),
            file=request.file,
            revision=request.revision,
        )
        updates: asyncio.Queue[v1.LoadModelResponse | None] = asyncio.Queue()
        progress = _progress(asyncio.get_running_loop(), updates)
        phase = v1.LOAD_PHASE_WAITING if self._models.loading(request.model_id) else v1.LOAD_PHASE_FETCHING
        await call.send(v1.LoadModelResponse(phase=phase, file=spec.ref.path))
        load = asyncio.create_task(self._models.load(request.model_id, spec, progress))
        load.add_done_callback(lambda _: updates.put_nowait(None))
        try:
            while (update := await updates.get()) is not None:
                await call.send(update)
            entry, already = await load
        finally:
            load.cancel()
        info = model_info(entry, already)
        done = info.bytes_fetched
        await call.send(
            v1.LoadModelResponse(
                phase=v1.LOAD_PHASE_DONE, file=spec.ref.path, bytes_done=done, bytes_total=done, model=info
            )
        )

    async def UnloadModels(self, request: v1.UnloadModelsRequest, call: Call) -> v1.UnloadModelsResponse:
        """Several models, one after another; stops at the first that can't be unloaded."""
        if bool(request.all) == bool(request.model_ids):
            raise RequestError("model_ids=[] must name models, or all must be true, but not both")
        names = [entry.model_id for entry in self._models.entries()] if request.all else list(request.model_ids)
        timeout_s = request.timeout_s or UNLOAD_S
        if not 0 < timeout_s <= 3600:
            raise RequestError(f"timeout_s={timeout_s:g} must be a number from 0 to 3600")
        if request.mode not in v1.UnloadMode.values():
            raise RequestError(f"mode={request.mode} must be 1 (wait) or 2 (cancel)")
        weights = 0
        for name in names:
            check_name("model_ids", name)
            held = next((model_info(entry) for entry in self._models.entries() if entry.model_id == name), None)
            await self._models.unload(name, cancel=request.mode == v1.UNLOAD_MODE_CANCEL, timeout_s=timeout_s)
            weights += held.weights_bytes if held is not None else 0
        return v1.UnloadModelsResponse(model_ids=names, weights_bytes=weights, rss_bytes=process.rss_bytes())

    async def ListModels(self, request: v1.ListModelsRequest, call: Call) -> v1.ListModelsResponse:
        """What is loaded."""
        return v1.ListModelsResponse(models=map(model_info, self._models.entries()))

    async def ListPipelines(self, request: v1.ListPipelinesRequest, call: Call) -> v1.ListPipelinesResponse:
        """What can be loaded, and what will be."""
        return v1.ListPipelinesResponse(pipelines=map(_pipeline, known_pipelines().values()))


def _pipeline(pipeline: Pipeline) -> v1.Pipeline:
    return v1.Pipeline(
        name=pipeline.name,
        family=pipeline.family,
        options=[
            v1.PipelineOption(
                name=option.name,
                type=type(option.default).__name__.replace("str", "string"),
                default=_text(option.default),
                range=option.range,
            )
            for option in pipeline.options
        ],
        available=not pipeline.reason,
        reason=pipeline.reason,
        models=pipeline.models,
        capabilities=pipeline.capabilities,
    )


def _progress(
    loop: asyncio.AbstractEventLoop, updates: asyncio.Queue[v1.LoadModelResponse | None]
) -> Callable[[str, int, int | None], None]:
    """Turns a provider's progress into messages, not more than a client wants to read."""
    said = 0.0

    def report(name: str, done: int, total: int | None) -> None:
        nonlocal said
        now = time.monotonic()
        whole = done == total
        if now - said < _PROGRESS_S and not whole:
            return
        said = now
        phases = (v1.LOAD_PHASE_FETCHING, v1.LOAD_PHASE_BUILDING) if whole else (v1.LOAD_PHASE_FETCHING,)
        for phase in phases:
            message = v1.LoadModelResponse(phase=phase, file=name, bytes_done=done, bytes_total=total or 0)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(updates.put_nowait, message)

    return report


class ModelManagementService:
    """``ml.ModelManagementService``."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def LoadModel(self, request: ml.LoadModelRequest, call: Call) -> ml.LoadModelResponse:
        """Returns when the model answers."""
        spec = model_spec(
            request.model_id,
            pipeline=request.pipeline_type,
            architecture=request.architecture,
            options=dict(request.options),
        )
        return to_ml_loaded(model_info(*await self._models.load(request.model_id, spec)))

    async def UnloadModel(self, request: ml.UnloadModelRequest, call: Call) -> ml.StatusResponse:
        """Running calls get ten seconds, then they are cancelled."""
        check_name("model_id", request.model_id)
        try:
            await self._models.unload(request.model_id, cancel=False, timeout_s=UNLOAD_S)
        except ModelInUseError:
            await self._models.unload(request.model_id, cancel=True, timeout_s=UNLOAD_S)
        return ml.StatusResponse(success=True, message=f"{request.model_id} is unloaded")

    async def GetModelFile(self, request: ml.ModelFileRequest, call: Call) -> None:
        """A file that a loaded model holds in memory."""
        view = self._models.file(request.model_id, request.file_path)
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(view).hexdigest())
        for offset in range(0, max(1, len(view)), CHUNK_BYTES):
            data = bytes(view[offset : offset + CHUNK_BYTES])
            last = offset + CHUNK_BYTES >= len(view)
            await call.send(
                ml.ModelFileChunk(data=data, offset=offset, total_size=len(view), is_last=last, sha256=sha256)
            )

    async def GetLoadedModels(self, request: ml.EmptyRequest, call: Call) -> ml.LoadedModelsResponse:
        """What is loaded."""
        return ml.LoadedModelsResponse(models=[to_ml_info(model_info(entry)) for entry in self._models.entries()])
