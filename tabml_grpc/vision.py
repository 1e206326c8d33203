"""Pictures and streams of frames: ``tabml.v1.VisionService`` and ``ml.MediapipeService``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from google.protobuf.message import Message

from tabml.errors import FrameError, OptionError, UnavailableHereError
from tabml.pipelines import PIPELINES, Pipeline, Value
from tabml_grpc.calls import Answer, Call, parsed
from tabml_grpc.chunks import CODECS
from tabml_grpc.clips import Clips
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.statuses import RequestError
from tabml_grpc.streams import BadFramePolicy, Raw, Stream, Task, Timing, Vision, split_bytes
from tabml_grpc.v1 import vision_pb2 as v1

if TYPE_CHECKING:
    from tabml.vision.frame import Frame
    from tabml.vision.live import DropPolicy, FrameQueue

OPTIONS = "tabml-options-bin"
"""Metadata of ``ml`` calls: a serialised VisionConfig."""
_DROP = {0: "latest", 1: "latest", 2: "oldest", 3: "block"}
_BAD = {0: "report", 1: "error", 2: "report", 3: "skip"}
_MAX_TASKS = 16


# The new contract.


class _V1:
    def __init__(self, mask: str, response: Callable[..., Message]) -> None:
        self._mask = mask
        self._response = response

    def read(self, raw: bytes) -> tuple[v1.Frame, bytes | memoryview]:
        inner, rest = split_bytes(raw, 2)
        if inner is not None and not rest:
            data, rest = split_bytes(inner, 1)
            frame: v1.Frame = parsed(v1.Frame, bytes(rest))
            return frame, data if data is not None and not frame.data else frame.data
        message: v1.StreamAnalyzeRequest = parsed(v1.StreamAnalyzeRequest, raw)
        if message.WhichOneof("message") != "frame":
            raise RequestError("frame must be set in every message after the first")
        return message.frame, message.frame.data

    def frame(self, message: v1.Frame, data: bytes | memoryview) -> Frame:
        from tabml_grpc.convert import frame_from_v1

        return frame_from_v1(message, data)

    def codec(self, message: v1.Frame) -> str:
        from tabml_grpc.convert import FORMATS

        name = FORMATS.get(message.format, "")
        return name if name in CODECS else ""

    def write(self, message: v1.Frame | None, timing: Timing) -> Message:
        from tabml_grpc.convert import results_to_v1

        analysis = results_to_v1(timing.results if timing.problem is None else [], self._mask)
        analysis.timestamp_ms = message.timestamp_ms if message is not None else 0
        analysis.frame_number = message.frame_number if message is not None else 0
        analysis.timing.decode_ms = timing.decode_ms
        analysis.timing.inference_ms = timing.inference_ms
        analysis.timing.queue_ms = timing.queue_ms
        analysis.timing.dropped = timing.dropped
        if timing.problem is not None:
            analysis.error.code = timing.problem.code
            analysis.error.message = str(timing.problem)
        return self._response(analysis=analysis)


class _Picture:
    """One picture, and an answer of its own kind."""

    def __init__(self, write: Callable[[Any], Message]) -> None:
        self._write = write

    def frame(self, message: v1.Frame, data: bytes | memoryview) -> Frame:
        from tabml_grpc.convert import frame_from_v1

        return frame_from_v1(message, data)

    def write(self, message: v1.Frame | None, timing: Timing) -> Message:
        return self._write(timing.results[0])


def _categories(result: Any) -> Message:
    from tabml_grpc.convert_pictures import categories_to_v1

    return categories_to_v1(result)


def _embedding(result: Any) -> Message:
    from tabml_grpc.convert_pictures import embedding_to_v1

    return embedding_to_v1(result)


def _tasks(given: Sequence[v1.TaskConfig]) -> list[Task]:
    from tabml_grpc.convert import TASKS

    if not 0 < len(given) <= _MAX_TASKS:
        raise RequestError(f"tasks must be 1 to {_MAX_TASKS}, not {len(given)}")
    if len({each.task for each in given}) < len(given):
        raise RequestError("tasks must be different from each other")
    for each in given:
        if each.task not in TASKS:
            raise RequestError(f"tasks.task={each.task} must be one of {sorted(TASKS)}")
    return [_task(TASKS[each.task], each.config) for each in given]


def _task(pipeline: Pipeline, config: v1.VisionConfig) -> Task:
    from tabml_grpc.convert import mask_format, options_from_v1

    options = options_from_v1(config)
    for name in options:
        pipeline.option(name)
    return Task(pipeline, options, config.model, mask_format(config.mask_format))


def _mask(tasks: Sequence[Task]) -> str:
    return next((task.mask for task in tasks if task.pipeline.name == "image-segmentation"), "gray8")


class VisionService:
    """``tabml.v1.VisionService``."""

    def __init__(self, vision: Vision) -> None:
        self._vision = vision

    async def Analyze(self, request: v1.AnalyzeRequest, call: Call) -> Answer:
        """One picture."""
        if not request.HasField("frame"):
            raise RequestError("frame must be set")
        tasks = _tasks(request.tasks)
        return await self._vision.one(
            request.frame, request.frame.data, tasks, _V1(_mask(tasks), v1.AnalyzeResponse), call
        )

    async def ClassifyImage(self, request: v1.ClassifyImageRequest, call: Call) -> Answer:
        """The classes of one picture."""
        if request.labels:
            raise UnavailableHereError(
                "labels: zero-shot classification of pictures comes with a later release of tabml"
            )
        options: dict[str, Value] = {"max_results": request.top_k} if request.top_k else {}
        return await self._picture("image-classification", request, options, _categories, call)

    async def EmbedImage(self, request: v1.EmbedImageRequest, call: Call) -> Answer:
        """The vector of one picture."""
        return await self._picture("image-feature-extraction", request, {}, _embedding, call)

    async def _picture(
        self,
        name: str,
        request: v1.ClassifyImageRequest | v1.EmbedImageRequest,
        options: dict[str, Value],
        write: Callable[[Any], Message],
        call: Call,
    ) -> Answer:
        if not request.HasField("frame"):
            raise RequestError("frame must be set")
        task = Task(PIPELINES[name], options, request.model)
        return await self._vision.one(request.frame, request.frame.data, [task], _Picture(write), call)

    async def StreamAnalyze(self, messages: Raw, call: Call) -> None:
        """A stream: its configuration first."""
        from tabml.vision.live import FrameQueue

        first = await anext(messages, None)
        if first is None:
            return
        opening: v1.StreamAnalyzeRequest = parsed(v1.StreamAnalyzeRequest, first)
        if opening.WhichOneof("message") != "config":
            raise RequestError("config must be set in the first message")
        config = opening.config
        if config.drop_policy not in _DROP or config.on_bad_frame not in _BAD:
            raise RequestError(
                f"drop_policy={config.drop_policy}, on_bad_frame={config.on_bad_frame} must be from 0 to 3"
            )
        tasks = _tasks(config.tasks)
        stream = Stream(
            tasks,
            FrameQueue(
                cast("DropPolicy", _DROP[config.drop_policy]), max_fps=config.max_fps, max_age_ms=config.max_age_ms
            ),
            cast("BadFramePolicy", _BAD[config.on_bad_frame]),
        )
        await self._vision.many(stream, messages, _V1(_mask(tasks), v1.StreamAnalyzeResponse), call)


# The old contract.


class _Ml:
    def __init__(self, pipeline: str, mask: str, config: v1.VisionConfig, arrived_ms: int = 0) -> None:
        from tabml_grpc import convert, convert_eyes, convert_objects, convert_objects3d

        writers: dict[str, Callable[[Any], Any]] = {
            "face-detection": convert.faces_to_ml,
            "face-landmarks": convert.meshes_to_ml,
            "hand-landmarks": convert.hands_to_ml,
            "pose-landmarks": convert.poses_to_ml,
            "image-segmentation": lambda result: convert.mask_to_ml(result, mask),
            "hair-segmentation": lambda result: convert.mask_to_ml(result, mask),
            "iris-tracking": convert_eyes.irises_to_ml,
            "holistic-landmarks": convert.holistic_to_ml,
            "object-detection": convert_objects.objects_to_ml,
            "object-detection-3d": convert_objects3d.objects3d_to_ml,
            "object-tracking": convert_objects.tracks_to_ml,
        }
        self._write = writers[pipeline]
        self._empty = _EMPTY[pipeline]
        self._config = config
        self._arrived_ms = arrived_ms

    def read(self, raw: bytes) -> tuple[ml.VideoFrame, bytes | memoryview]:
        data, rest = split_bytes(raw, 1)
        message: ml.VideoFrame = parsed(ml.VideoFrame, bytes(rest))
        return message, data if data is not None and not message.frame_data else message.frame_data

    def frame(self, message: ml.VideoFrame | ml.ImageRequest, data: bytes | memoryview) -> Frame:
        from tabml.vision.frame import Frame

        size = {"width": message.width, "height": message.height}
        if isinstance(message, ml.ImageRequest):
            return Frame.from_named(data, message.format, **size, stride=self._config.stride)
        stride = message.metadata.get("stride", "0") if message.metadata else "0"
        if not stride.isdecimal() or len(stride) > 9:
            raise FrameError(f"stride={stride[:40]!r} must be a whole number")
        return Frame.from_named(
            data,
            message.format,
            **size,
            stride=int(stride),
            timestamp_ms=message.timestamp_ms,
            frame_number=message.frame_number,
        )

    def codec(self, message: ml.VideoFrame) -> str:
        name = message.format.lower()
        return name if name in CODECS else ""

    def write(self, message: ml.VideoFrame | ml.ImageRequest | None, timing: Timing) -> Any:
        response = self._write(timing.results[0]) if timing.problem is None else self._empty()
        if isinstance(message, ml.VideoFrame):
            response.timestamp_ms, response.frame_number = message.timestamp_ms, message.frame_number
        elif message is not None:
            config = self._config
            response.timestamp_ms = config.timestamp_ms if config.HasField("timestamp_ms") else self._arrived_ms
            response.frame_number = config.frame_number
        stats = response.stats
        stats.decode_ms, stats.inference_ms = timing.decode_ms, timing.inference_ms
        stats.queue_ms, stats.dropped = timing.queue_ms, timing.dropped
        if timing.problem is not None:
            stats.error = f"[{timing.problem.code}] {timing.problem}"
        return response


_EMPTY: dict[str, Callable[[], Any]] = {
    "face-detection": ml.FaceDetectionResponse,
    "face-landmarks": ml.FaceMeshResponse,
    "hand-landmarks": ml.HandDetectionResponse,
    "pose-landmarks": ml.PoseDetectionResponse,
    "image-segmentation": ml.SegmentationResponse,
    "hair-segmentation": ml.SegmentationResponse,
    "iris-tracking": ml.IrisTrackingResponse,
    "holistic-landmarks": ml.HolisticTrackingResponse,
    "object-detection": ml.ObjectDetectionResponse,
    "object-detection-3d": ml.ObjectDetection3DResponse,
    "object-tracking": ml.ObjectTrackingResponse,
}


def _config(call: Call) -> v1.VisionConfig:
    given = call.metadata.get(OPTIONS, b"")
    config: v1.VisionConfig = parsed(v1.VisionConfig, given if isinstance(given, bytes) else given.encode())
    return config


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"{name}={text[:40]!r} must be a number") from None


def _choice(name: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise OptionError(f"{name}={text[:40]!r} must be one of {', '.join(choices)}")
    return text


def _ml_stream(pipeline: Pipeline, config: v1.VisionConfig, first: ml.VideoFrame) -> Stream:
    """What the first frame's ``opt.*`` keys, and the metadata, ask for."""
    from tabml.vision.live import FrameQueue

    task = _task(pipeline, config)
    said = {key[4:]: text for key, text in first.metadata.items() if key.startswith("opt.")}
    drop = _choice("opt.drop_policy", said.pop("drop_policy", "latest"), ("latest", "oldest", "block"))
    on_bad = _choice("opt.on_bad_frame", said.pop("on_bad_frame", "report"), ("error", "report", "skip"))
    max_fps = _number("opt.max_fps", said.pop("max_fps", "0"))
    max_age_ms = _number("opt.max_age_ms", said.pop("max_age_ms", "0"))
    task.model_id = said.pop("model", task.model_id)
    task.mask = _choice("opt.mask_format", said.pop("mask_format", task.mask), ("gray8", "float32", "png"))
    task.options = {**task.options, **pipeline.parse(said)}
    if not max_age_ms.is_integer():
        raise OptionError(f"opt.max_age_ms={max_age_ms} must be a whole number")
    queue: FrameQueue[bytes] = FrameQueue(cast("DropPolicy", drop), max_fps=max_fps, max_age_ms=int(max_age_ms))
    return Stream([task], queue, cast("BadFramePolicy", on_bad))


class MediapipeService:
    """``ml.MediapipeService``."""

    def __init__(self, vision: Vision) -> None:
        self._vision = vision
        self._clips = Clips(vision)

    async def DetectFaces(self, request: ml.ImageRequest, call: Call) -> Answer:
        """Faces in one picture."""
        return await self._one("face-detection", request, call)

    async def DetectHands(self, request: ml.ImageRequest, call: Call) -> Answer:
        """Hands in one picture."""
        return await self._one("hand-landmarks", request, call)

    async def DetectPose(self, request: ml.ImageRequest, call: Call) -> Answer:
        """Bodies in one picture."""
        return await self._one("pose-landmarks", request, call)

    async def StreamFaceDetection(self, messages: Raw, call: Call) -> None:
        """Faces in a stream."""
        await self._many("face-detection", messages, call)

    async def StreamHandTracking(self, messages: Raw, call: Call) -> None:
        """Hands in a stream."""
        await self._many("hand-landmarks", messages, call)

    async def StreamPoseTracking(self, messages: Raw, call: Call) -> None:
        """Bodies in a stream."""
        await self._many("pose-landmarks", messages, call)

    async def StreamHolisticTracking(self, messages: Raw, call: Call) -> None:
        """One person whole in a stream."""
        await self._many("holistic-landmarks", messages, call)

    async def StreamFaceMesh(self, messages: Raw, call: Call) -> None:
        """Meshes in a stream."""
        await self._many("face-landmarks", messages, call)

    async def StreamIrisTracking(self, messages: Raw, call: Call) -> None:
        """Eyes in a stream."""
        await self._many("iris-tracking", messages, call)

    async def StreamObjectDetection(self, messages: Raw, call: Call) -> None:
        """Objects in a stream, frame by frame."""
        await self._many("object-detection", messages, call)

    async def StreamObjectDetection3D(self, messages: Raw, call: Call) -> None:
        """Boxes in three dimensions in a stream."""
        await self._many("object-detection-3d", messages, call)

    async def StreamObjectTracking(self, messages: Raw, call: Call) -> None:
        """Objects in a stream, with numbers that stay."""
        await self._many("object-tracking", messages, call)

    async def StreamSelfieSegmentation(self, messages: Raw, call: Call) -> None:
        """Masks in a stream."""
        await self._many("image-segmentation", messages, call)

    async def StreamHairSegmentation(self, messages: Raw, call: Call) -> None:
        """Masks of hair in a stream."""
        await self._many("hair-segmentation", messages, call)

    async def StreamTemplateMatching(self, messages: Raw, call: Call) -> None:
        """Places in a stream's frames that look like a template."""
        await self._clips.templates(messages, _config(call), call)

    async def StreamAutoFlip(self, messages: Raw, call: Call) -> None:
        """A video in another shape."""
        await self._clips.flip(messages, call)

    async def ProcessMediaSequence(self, messages: Raw, call: Call) -> Answer:
        """Labels of a clip."""
        return await self._clips.sequence(messages, call)

    async def _one(self, name: str, request: ml.ImageRequest, call: Call) -> Answer:
        config = _config(call)
        task = _task(PIPELINES[name], config)
        return await self._vision.one(
            request, request.image_data, [task], _Ml(name, task.mask, config, call.arrived_ms), call
        )

    async def _many(self, name: str, messages: Raw, call: Call) -> None:
        first = await anext(messages, None)
        if first is None:
            return
        config = _config(call)
        stream = _ml_stream(PIPELINES[name], config, parsed(ml.VideoFrame, first))
        contract = _Ml(name, stream.tasks[0].mask, config)
        await self._vision.many(stream, messages, contract, call, first)
