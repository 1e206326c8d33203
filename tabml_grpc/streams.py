"""Tasks on frames: one frame, or a stream whose newest frame wins, whatever contract it came by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from google.protobuf.message import Message

from tabml.errors import FrameError, InferenceError, TabmlError
from tabml.pipelines import Pipeline, Value
from tabml_grpc.calls import Answer, Call
from tabml_grpc.chunks import WAITING, Chunks
from tabml_grpc.models import Models
from tabml_grpc.statuses import RequestError
from tabml_grpc.workers import Workers

if TYPE_CHECKING:
    from tabml.pipelines.vision import LoadedVision
    from tabml.vision._model import VisionModel
    from tabml.vision.frame import Frame
    from tabml.vision.live import FrameQueue, Waiting

BadFramePolicy = Literal["error", "report", "skip"]
Raw = AsyncIterator[bytes]


@dataclass(slots=True)
class Task:
    """One task of a call."""

    pipeline: Pipeline
    """What is to be found."""
    options: Mapping[str, Value]
    """The call's own options."""
    model_id: str = ""
    """The model; empty for the default."""
    mask: str = "gray8"
    """The format of masks."""
    model: LoadedVision | None = None
    """Borrowed for the call."""
    tracker: VisionModel[Any] | None = None
    """The stream's own."""

    def open(self) -> None:
        """Before the first frame of a stream."""
        assert self.model is not None
        self.tracker = self.model.tracker(self.options)

    def answer(self, frame: Frame) -> Any:
        """The result of one frame."""
        assert self.model is not None
        return self.model.answer(frame, self.options, self.tracker)


@dataclass(slots=True)
class Stream:
    """How a stream wants to be served."""

    tasks: Sequence[Task]
    """What is to be found in each frame."""
    queue: FrameQueue[bytes]
    """What is kept and what is dropped; messages are read when their turn comes."""
    on_bad_frame: BadFramePolicy
    """What a frame that can't be used leads to."""


@dataclass(slots=True)
class Timing:
    """How one frame fared, milliseconds."""

    decode_ms: float = 0.0
    inference_ms: float = 0.0
    queue_ms: float = 0.0
    dropped: int = 0
    problem: TabmlError | None = None
    results: list[Any] = field(default_factory=list)


class Answering(Protocol):
    """What differs between contracts for one frame: how it is made, and how its answer is written."""

    def frame(self, message: Any, data: bytes | memoryview) -> Frame:
        """Its frame."""
        ...

    def write(self, message: Any, timing: Timing) -> Message:
        """The answer to it."""
        ...


class Contract(Answering, Protocol):
    """What differs between contracts for streams: how a frame's message is read."""

    def read(self, raw: bytes) -> tuple[Any, bytes | memoryview]:
        """The message of one frame, and its pixels."""
        ...

    def codec(self, message: Any) -> str:
        """How its video is encoded; empty where each frame stands alone."""
        ...


class Vision:
    """Runs tasks on frames: what both services stand on."""

    def __init__(self, models: Models, workers: Workers) -> None:
        """Nothing is loaded yet.

        Args:
            models: Where models are borrowed.
            workers: As many threads as inference may take.
        """
        self._models = models
        self._workers = workers

    async def one(self, message: Any, data: bytes, tasks: Sequence[Task], contract: Answering, call: Call) -> Answer:
        """The answer to one frame."""
        arrived = time.monotonic()
        with ExitStack() as leases:
            await self._borrow(tasks, leases, call)

            def work() -> bytes:
                timing = Timing(queue_ms=(time.monotonic() - arrived) * 1000)
                analyze(lambda: contract.frame(message, data), tasks, timing)
                return contract.write(message, timing).SerializeToString()

            return await self._workers.run(work)

    async def many(self, stream: Stream, messages: Raw, contract: Contract, call: Call, first: bytes = b"") -> None:
        """Answer a stream of frames, ``first`` before ``messages``, one at a time; its trackers are let go with it."""
        arrived, room = asyncio.Event(), asyncio.Event()
        queue, count, counted = stream.queue, call.count, 0
        step = _Steps(stream, contract)
        if first:
            step.look(first)
            queue.offer(first)
        with ExitStack() as leases:
            await self._borrow(stream.tasks, leases, call)
            reader = asyncio.create_task(_fill(queue, messages, arrived, room, step.look))
            job: asyncio.Future[bytes | None] | None = None
            try:
                await self._workers.run(step.open)
                while True:
                    if job is None and not step.more():
                        if reader.done():
                            reader.result()
                            if not step.more() and not await self._workers.run(step.flush):
                                break
                        else:
                            arrived.clear()
                            await arrived.wait()
                        continue
                    answer = await (job or self._workers.run(step.next))
                    # The next frame is worked on while this answer is on its way.
                    job = self._workers.run(step.next) if step.more() else None
                    room.set()
                    counted = count.add_drops(step.dropped, counted)
                    if answer is not None:
                        count.frames += 1
                        await call.send(answer)
            finally:
                reader.cancel()
                if job is not None:
                    job.cancel()
                count.add_drops(step.dropped, counted)
                await _whatever_comes(self._workers.run(step.close))

    @property
    def workers(self) -> Workers:
        """The threads of inference."""
        return self._workers

    @asynccontextmanager
    async def borrowed(self, tasks: Sequence[Task], call: Call) -> AsyncIterator[None]:
        """The tasks with their models, for a call that runs them itself."""
        with ExitStack() as leases:
            await self._borrow(tasks, leases, call)
            yield

    async def _borrow(self, tasks: Sequence[Task], leases: ExitStack, call: Call) -> None:
        for task in tasks:
            if not task.pipeline.classes[0]:  # needs no model
                continue
            name = await self._models.ready(task.pipeline, task.model_id, task.options)
            loaded = cast("LoadedVision", leases.enter_context(self._models.borrow(name, call)))
            task.model = loaded.serving(task.pipeline)


async def _whatever_comes(work: asyncio.Future[None]) -> None:
    """Wait for work that must be done, however often this call is cancelled: a job that waits would be called off."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as problem:
            cancelled = problem
    work.result()
    if cancelled is not None:
        raise cancelled


async def _fill(
    queue: FrameQueue[bytes],
    messages: Raw,
    arrived: asyncio.Event,
    room: asyncio.Event,
    look: Callable[[bytes], None],
) -> None:
    try:
        async for raw in messages:
            look(raw)
            while not queue.offer(raw):
                room.clear()
                await room.wait()
            arrived.set()
    finally:
        arrived.set()


def analyze(read: Callable[[], Frame], tasks: Sequence[Task], timing: Timing) -> None:
    """Decode a frame and run the tasks on it, noting the time."""
    started = time.monotonic()
    frame = read()
    decoded = time.monotonic()
    timing.decode_ms = (decoded - started) * 1000
    timing.results = [task.answer(frame) for task in tasks]
    timing.inference_ms = (time.monotonic() - decoded) * 1000


def split_bytes(message: bytes | memoryview, field: int) -> tuple[memoryview | None, bytes | memoryview]:
    """The first field of a message, not copied, and the rest, when the first field is bytes of number ``field``.

    Pixels come first in every frame that is written in the order of the fields' numbers, as all libraries do; what
    is written otherwise comes back whole as the rest.
    """
    view = memoryview(message)
    if len(view) < 2 or view[0] != field << 3 | 2:
        return None, message
    size, at = 0, 1
    while at < min(len(view), 6):
        size |= (view[at] & 127) << 7 * (at - 1)
        at += 1
        if view[at - 1] < 128:
            return (view[at : at + size], view[at + size :]) if at + size <= len(view) else (None, message)
    return None, message


_CHUNK_BYTES = 64 << 20
"""Of encoded chunks that wait to be decoded, at most, less the last one's."""


@dataclass(slots=True)
class _Decoded:
    """A frame that came out of a decoder, or why none did."""

    message: Any
    outcome: Frame | TabmlError
    queue_ms: float
    decode_ms: float = 0.0


class _Steps:
    """The part of a stream that runs in threads, never two at a time."""

    def __init__(self, stream: Stream, contract: Contract) -> None:
        from tabml.vision.live import FrameClock

        self._stream = stream
        self._contract = contract
        self._clock = FrameClock()
        self._order: Callable[[Frame], Frame] = lambda frame: frame  # for trackers only
        self._closed = False
        self._looked = False
        self._chunks = Chunks()
        self._decoded: FrameQueue[Any] | None = None

    @property
    def dropped(self) -> int:
        """Frames dropped in all."""
        return self._stream.queue.dropped + (0 if self._decoded is None else self._decoded.dropped)

    def look(self, raw: bytes) -> None:
        """At the first frame, before it is offered: of encoded video nothing may be dropped before it is decoded."""
        if not self._looked:
            self._looked = True
            with suppress(TabmlError):
                if self._contract.codec(self._contract.read(raw)[0]):
                    self._decoded = self._stream.queue.kept_whole(WAITING, _CHUNK_BYTES)

    def more(self) -> bool:
        """Whether there is something to do."""
        return bool(len(self._stream.queue)) or (self._decoded is not None and bool(len(self._decoded)))

    def open(self) -> None:
        for task in self._stream.tasks:
            task.open()
            if task.tracker is not None:
                self._order = self._clock.order

    def next(self) -> bytes | None:
        if self._closed:
            return None
        if self._decoded is not None:
            return self._next_decoded(self._decoded)
        taken = self._stream.queue.take()
        if taken is None:
            return None
        timing = Timing(queue_ms=taken.queue_ms, dropped=taken.dropped)
        contract = self._contract
        message: Any = None
        try:
            message, data = contract.read(taken.item)
            analyze(lambda: self._order(contract.frame(message, data)), self._stream.tasks, timing)
        except (FrameError, RequestError, InferenceError) as problem:
            return self._told(problem, taken, message, timing)
        return contract.write(message, timing).SerializeToString()

    def flush(self) -> bool:
        """After the last chunk: whether the decoder still had frames."""
        if self._decoded is None or self._closed:
            return False
        chunks, self._chunks = self._chunks, Chunks()
        with suppress(FrameError):
            for message, frame in chunks.flush():
                self._offer(message, frame, 0.0, 0.0)
        return self.more()

    def close(self) -> None:
        self._closed = True
        self._chunks = Chunks()
        for task in self._stream.tasks:
            if task.tracker is not None:
                task.tracker.close()

    def _told(self, problem: TabmlError, taken: Waiting[Any], message: Any, timing: Timing) -> bytes | None:
        """What a frame that can't be used leads to."""
        if self._stream.on_bad_frame == "error":
            raise problem
        if self._stream.on_bad_frame == "skip":
            self._stream.queue.drop(taken)
            return None
        timing.problem = problem
        return self._contract.write(message, timing).SerializeToString()

    def _next_decoded(self, decoded: FrameQueue[Any]) -> bytes | None:
        """Decode what has come, and answer one frame: the newest, or the next, as the stream wants it."""
        for _ in range(len(self._stream.queue)):  # what comes meanwhile has its turn later
            if decoded.policy == "block" and len(decoded):
                break
            taken = self._stream.queue.take()
            if taken is None:
                break
            message: Any = None
            try:
                message, data = self._contract.read(taken.item)
                self._decode(message, data, taken.queue_ms)
            except (FrameError, RequestError) as problem:
                if self._stream.on_bad_frame != "report":
                    return self._told(problem, taken, message, Timing())
                decoded.offer(_Decoded(message, problem, taken.queue_ms))  # told in its turn
        ready = decoded.take()
        if ready is None:
            return None
        found: _Decoded = ready.item
        timing = Timing(queue_ms=found.queue_ms + ready.queue_ms, dropped=ready.dropped)
        outcome = found.outcome
        if isinstance(outcome, TabmlError):
            return self._told(outcome, ready, found.message, timing)
        try:
            analyze(lambda: self._order(outcome), self._stream.tasks, timing)
        except (FrameError, InferenceError) as problem:
            return self._told(problem, ready, found.message, timing)
        timing.decode_ms = found.decode_ms
        return self._contract.write(found.message, timing).SerializeToString()

    def _decode(self, message: Any, data: bytes | memoryview, queue_ms: float) -> None:
        started = time.monotonic()
        codec = self._contract.codec(message)
        if codec:
            frames = self._chunks.decode(codec, message, data)
        else:
            self._chunks = Chunks()
            frames = [(message, self._contract.frame(message, data))]
        for sender, frame in frames:
            self._offer(sender, frame, queue_ms, (time.monotonic() - started) * 1000)

    def _offer(self, message: Any, frame: Frame, queue_ms: float, decode_ms: float) -> None:
        assert self._decoded is not None
        self._decoded.offer(_Decoded(message, frame, queue_ms, decode_ms))
