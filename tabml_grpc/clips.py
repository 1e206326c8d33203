"""RPCs that look at more than a frame: templates, crops that follow, labels of clips."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from tabml.errors import FrameError, OptionError
from tabml.pipelines import PIPELINES
from tabml_grpc.calls import MAX_RESPONSE, Call, parsed
from tabml_grpc.chunks import CODECS, Chunks
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.statuses import RequestError
from tabml_grpc.streams import Raw, Stream, Task, Timing, Vision, split_bytes
from tabml_grpc.v1 import vision_pb2 as v1

if TYPE_CHECKING:
    from tabml.vision import Frame, TemplateMatcher, TemplateMatches
    from tabml.vision.reframing import Reframer

_THRESHOLD = 0.8
ENCODED = frozenset(("", "jpeg", "jpg", "mjpeg", "png", "webp", "bmp", "gif"))
"""Formats of pictures; others are bare pixels."""


def picture(data: bytes | memoryview, width: int, height: int, what: str) -> Frame:
    """Pixels of a message that doesn't name their format: gray, rgb or rgba by their number, or an encoded picture.

    Raises:
        FrameError: they are neither.
    """
    from tabml.vision import Frame

    if not len(data):
        raise FrameError(f"{what}_data must not be empty")
    if width > 0 and height > 0:
        format = {1: "gray", 3: "rgb", 4: "rgba"}.get(len(data) // (width * height))
        if format is not None and len(data) % (width * height) == 0:
            return Frame.from_named(data, format, width=width, height=height)
    return Frame.from_named(data, "", width=width, height=height)


class Templates:
    """The contract and the work of ``StreamTemplateMatching``; a template stays until another one comes."""

    def __init__(self, options: dict[str, Any], arrived_ms: int) -> None:
        self._options = options
        self._began, self._arrived_ms = time.monotonic(), arrived_ms
        self._key: tuple[Any, ...] = ()
        self._matcher: TemplateMatcher | None = None

    def codec(self, message: ml.TemplateMatchingRequest) -> str:
        return ""

    def read(self, raw: bytes) -> tuple[ml.TemplateMatchingRequest, bytes | memoryview]:
        data, rest = split_bytes(raw, 1)
        message: ml.TemplateMatchingRequest = parsed(ml.TemplateMatchingRequest, bytes(rest))
        return message, data if data is not None and not message.frame_data else message.frame_data

    def frame(self, message: ml.TemplateMatchingRequest, data: bytes | memoryview) -> Frame:
        from tabml.vision import TemplateMatcher

        if message.template_data:
            size = message.template_width, message.template_height
            key = hashlib.sha256(message.template_data).digest(), size, message.threshold
            if key != self._key:
                self._matcher, self._key = None, ()
                template = picture(message.template_data, *size, "template")
                threshold = float(str(message.threshold)[:9]) if message.threshold else _THRESHOLD
                try:
                    self._matcher = TemplateMatcher(template, **{"threshold": threshold, **self._options})
                except OptionError as problem:  # of this message, not of the stream
                    raise RequestError(str(problem)) from None
                self._key = key
        if self._matcher is None:
            raise RequestError("template_data must be set in the first message")
        return picture(data, message.frame_width, message.frame_height, "frame")

    def match(self, frame: Frame) -> TemplateMatches:
        assert self._matcher is not None
        return self._matcher.match(frame)

    def write(self, message: ml.TemplateMatchingRequest | None, timing: Timing) -> Message:
        response = ml.TemplateMatchingResponse(
            timestamp_ms=self._arrived_ms + round((time.monotonic() - self._began) * 1000)
        )
        stats = response.stats
        stats.decode_ms, stats.inference_ms = timing.decode_ms, timing.inference_ms
        stats.queue_ms, stats.dropped = timing.queue_ms, timing.dropped
        if timing.problem is not None:
            stats.error = f"[{timing.problem.code}] {timing.problem}"
            return response
        for each in timing.results[0]:
            response.matches.add(
                x=each.box.x, y=each.box.y, confidence=each.score, width=each.box.width, height=each.box.height,
                scale=each.scale, rotation=each.rotation,
            )  # fmt: skip
        return response


@dataclass(slots=True)
class Plain(Task):
    """Work on a frame that needs no loaded model."""

    work: Callable[[Frame], Any] = lambda frame: None

    def open(self) -> None:
        """Nothing to open."""

    def answer(self, frame: Frame) -> Any:
        """The result of one frame."""
        return self.work(frame)


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        OptionError: they are none.
    """
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise OptionError(f"{name}={text[:80]!r} must be numbers, separated by commas") from None


class Clips:
    """Three RPCs of ``ml.MediapipeService``."""

    def __init__(self, vision: Vision) -> None:
        self._vision = vision

    async def templates(self, messages: Raw, config: v1.VisionConfig, call: Call) -> None:
        """``StreamTemplateMatching``: every frame is answered, as any may bring a template; bad ones are reported."""
        from tabml.vision.live import FrameQueue

        first = await anext(messages, None)
        if first is None:
            return
        contract = Templates(_matching(config), call.arrived_ms)
        task = Plain(PIPELINES["template-matching"], {}, work=contract.match)
        queue: FrameQueue[bytes] = FrameQueue("block")
        await self._vision.many(Stream([task], queue, "report"), messages, contract, call, first)

    async def flip(self, messages: Raw, call: Call) -> None:
        """``StreamAutoFlip``: every frame comes back, later and cropped: bare pixels as such, others as JPEG."""
        first = await anext(messages, None)
        if first is None:
            return
        opening: ml.VideoFrame = parsed(ml.VideoFrame, first)
        said = {key[4:]: text for key, text in opening.metadata.items() if key.startswith("opt.")}
        options: dict[str, Any] = {"aspect": said.pop("aspect_ratio", "9:16")}
        for name, default in (("lookahead", 30), ("stride", 3)):
            text = said.pop(name, str(default))
            if not text.isdecimal() or len(text) > 9:
                raise OptionError(f"opt.{name}={text[:40]!r} must be a whole number")
            options[name] = int(text)
        range = said.pop("range", "short")
        if said:
            known = "aspect_ratio, lookahead, stride, range"
            raise OptionError(f"{next(iter(said))[:80]!r} is not an option of auto-flip; there are: {known}")
        tasks = [
            Task(PIPELINES["face-detection"], {"range": range}),
            Task(PIPELINES["object-detection"], {"score_threshold": 0.4}),
        ]
        async with self._vision.borrowed(tasks, call):
            reframer = _reframer(tasks, options)
            bare = opening.format.lower() not in (*ENCODED, *CODECS)
            chunks = Chunks()

            def work(raw: bytes | None) -> list[bytes]:
                """Of the next message, or at the end of all; the decoder's last frames come before the crop's."""
                frames = _frames(parsed(ml.VideoFrame, raw), chunks) if raw is not None else chunks.flush()
                ready = [each for _, frame in frames for each in reframer.add(frame)]
                return [_video_frame(each, bare) for each in (*ready, *(reframer.finish() if raw is None else ()))]

            raw: bytes | None = first
            while True:
                for answer in await self._vision.workers.run(partial(work, raw)):
                    call.count.frames += 1
                    await call.send(answer)
                if raw is None:
                    return
                raw = await anext(messages, None)

    async def sequence(self, messages: Raw, call: Call) -> ml.MediaSequenceResponse:
        """``ProcessMediaSequence``: frames without features get those of the object detector."""
        from tabml.vision.sequences import MediaSequence

        clip = MediaSequence()
        task = Task(PIPELINES["object-detection"], {"score_threshold": 0.1})
        async with AsyncExitStack() as leases:
            async for raw in messages:
                message: ml.MediaSequenceFrame = parsed(ml.MediaSequenceFrame, raw)
                features: Mapping[str, float] = dict(message.features)
                if not features and message.frame_data:
                    if task.model is None:
                        await leases.enter_async_context(self._vision.borrowed([task], call))
                    features = await self._vision.workers.run(partial(_seen, task, message.frame_data))
                clip.add(message.frame_number, features)
                call.count.frames += 1
        found = await self._vision.workers.run(clip.finish)
        return ml.MediaSequenceResponse(
            labels=[ml.SequenceLabel(**each.to_dict()) for each in found.labels],
            features=found.features,
            total_frames=found.total_frames,
        )


def _seen(task: Task, data: bytes) -> dict[str, float]:
    """The highest score of each class in a picture."""
    found: dict[str, float] = {}
    for each in task.answer(picture(data, 0, 0, "frame")):
        found[each.label] = max(each.score, found.get(each.label, 0.0))
    return found


def _reframer(tasks: Sequence[Task], options: dict[str, Any]) -> Reframer:
    from tabml.vision.reframing import Reframer, subjects

    return Reframer(lambda frame: subjects(*(task.answer(frame) for task in tasks)), **options)


def _frames(message: ml.VideoFrame, chunks: Chunks) -> list[tuple[ml.VideoFrame, Frame]]:
    """The frames that are complete with this message: its own, or those of encoded video."""
    from tabml.vision import Frame

    format = message.format.lower()
    if format in CODECS:
        return chunks.decode(format, message, message.frame_data)
    frame = Frame.from_named(
        message.frame_data,
        message.format,
        width=message.width,
        height=message.height,
        timestamp_ms=message.timestamp_ms,
        frame_number=message.frame_number,
    )
    return [(message, frame)]


def _video_frame(frame: Frame, bare: bool) -> bytes:
    data, format = frame.to_rgb().tobytes() if bare else b"", "rgb"
    if not 0 < len(data) <= MAX_RESPONSE:
        data, format = frame.encode("jpeg"), "jpeg"
    message = ml.VideoFrame(
        frame_data=data, format=format, width=frame.width, height=frame.height,
        timestamp_ms=frame.timestamp_ms or 0, frame_number=frame.frame_number or 0,
    )  # fmt: skip
    return message.SerializeToString()


def _matching(config: v1.VisionConfig) -> dict[str, Any]:
    """Options of a matcher; those of other tasks are refused."""
    found: dict[str, Any] = {}
    from tabml_grpc.convert import options_from_v1

    for name, value in options_from_v1(config).items():
        if name in ("scales", "rotations"):
            found[name] = numbers(name, str(value))
        elif name in ("max_results", "min_suppression_threshold"):
            found[name] = value or None if name == "max_results" else value
        else:
            raise OptionError(f"{name!r} is not an option of template-matching")
    return found
