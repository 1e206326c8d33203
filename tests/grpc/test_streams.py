"""Streams of frames: whose tracker, which frames are dropped, what a bad one leads to, and what is left behind."""

from __future__ import annotations

import mmap
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from child import Child, chunk_messages, fails, frames, serving
from encoded import encoded
from relabelled import relabelled

from tabml.files import load_model
from tabml.vision import FaceDetector, FaceMeshTracker, Frame, ObjectDetector3D
from tabml_grpc import convert, convert_objects3d
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import models_pb2 as v1_models
from tabml_grpc.v1 import runtime_pb2
from tabml_grpc.v1 import vision_pb2 as v1

INVALID = grpc.StatusCode.INVALID_ARGUMENT
STREAMS = {
    "StreamFaceDetection": "faces", "StreamFaceMesh": "faces", "StreamHandTracking": "hands",
    "StreamPoseTracking": "poses", "StreamSelfieSegmentation": "mask", "StreamIrisTracking": "eyes",
    "StreamHolisticTracking": "face.landmarks", "StreamObjectDetection": "objects", "StreamObjectTracking": "objects",
}  # fmt: skip


@pytest.mark.parametrize("method", STREAMS)
def test_every_frame_is_answered_with_its_own_numbers(method: str, server: Child, jpeg: bytes) -> None:
    answers = list(getattr(server.vision, method)(frames(jpeg, 4)))
    assert [(a.timestamp_ms, a.frame_number) for a in answers] == [(1000 + 33 * n, n) for n in range(4)]
    assert all(a.stats.error == "" and a.stats.dropped == 0 for a in answers)
    if method != "StreamHandTracking":  # no hand in the portrait
        assert all(len(attrgetter(STREAMS[method])(a)) for a in answers)


def test_hands_are_followed(server: Child, pictures: Any) -> None:
    data = pictures("hand_thumb_up.jpg").read_bytes()
    answers = list(server.vision.StreamHandTracking(frames(data, 3)))
    assert [a.hands[0].gestures[0].name for a in answers] == ["Thumb_Up"] * 3


def test_hair_is_answered_by_a_hair_model_or_by_none(jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "hair.tflite").write_bytes(relabelled(bytes(load_model("deeplab_v3")), person="hair"))
    (tmp_path / "bald").mkdir()
    (tmp_path / "bald" / "none.tflite").write_bytes(bytes(load_model("deeplab_v3")))
    with serving(files=f"dir:{tmp_path}") as child:
        with fails(grpc.StatusCode.FAILED_PRECONDITION, "no model for hair-segmentation is loaded", "LoadModel"):
            list(child.vision.StreamHairSegmentation(frames(jpeg, 1)))
        bald = v1_models.LoadModelRequest(model_id="bald", file="none.tflite", pipeline="hair-segmentation")
        with fails(INVALID, "'hair' is none of the model's"):
            list(child.v1_models.LoadModel(bald))
        mine = v1_models.LoadModelRequest(model_id="mine", file="hair.tflite", pipeline="hair-segmentation")
        list(child.v1_models.LoadModel(mine))
        answers = list(child.vision.StreamHairSegmentation(frames(jpeg, 2)))
        assert [answer.stats.error for answer in answers] == ["", ""]
        assert len(set(answers[0].mask)) > 10


def test_objects_keep_their_numbers_on_the_wire(server: Child, jpeg: bytes) -> None:
    answers = list(server.vision.StreamObjectTracking(frames(jpeg, 3)))
    people = [next(each for each in a.objects if each.label == "person") for a in answers]
    assert [each.track_id for each in people] == [1, 1, 1]
    assert [len(each.trajectory) for each in people] == [1, 2, 3]
    (one,) = server.vision.StreamObjectDetection(frames(jpeg, 1))
    assert one.objects[0].track_id == 0


def test_options_that_the_library_leaves_out_may_be_left_out_here(server: Child, jpeg: bytes) -> None:
    def said(**options: str) -> Any:
        (answer,) = server.vision.StreamIrisTracking(options_of(jpeg, options))
        return answer

    assert not said().eyes[0].HasField("distance_mm")
    assert not said(focal_length_px="0").eyes[0].HasField("distance_mm")
    assert 300 < said(focal_length_px="700").eyes[0].distance_mm < 900
    (dogs,) = server.vision.StreamObjectDetection(options_of(jpeg, {"category_allowlist": "dog, cat"}))
    (people,) = server.vision.StreamObjectDetection(
        options_of(jpeg, {"category_allowlist": "person", "max_results": "1"})
    )
    assert (len(dogs.objects), len(people.objects)) == (0, 1)
    with fails(INVALID, "'perso' is none of the model's classes: person, bicycle"):
        list(server.vision.StreamObjectDetection(options_of(jpeg, {"category_allowlist": "perso"})))


def options_of(jpeg: bytes, options: dict[str, str]) -> Iterator[Any]:
    yield ml.VideoFrame(
        frame_data=jpeg, format="jpeg", metadata={f"opt.{name}": text for name, text in options.items()}
    )


def test_a_model_serves_every_pipeline_that_takes_it(server: Child, jpeg: bytes) -> None:
    for method in ("StreamIrisTracking", "StreamFaceMesh", "StreamIrisTracking"):
        (answer,) = getattr(server.vision, method)(frames(jpeg, 1))
        assert getattr(answer, STREAMS[method])
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "not for hand-landmarks"):
        list(server.vision.StreamHandTracking(options_of(jpeg, {"model": "face_landmarker"})))


def test_an_empty_stream_ends_well(server: Child) -> None:
    assert list(server.vision.StreamFaceDetection(iter(()))) == []
    assert list(server.v1_vision.StreamAnalyze(iter(()))) == []


def moved(rgb: Any, by: int) -> bytes:
    return np.roll(rgb, by, axis=1).tobytes()


def raw_frames(pictures: list[bytes], **options: str) -> Iterator[Any]:
    metadata = {"opt.drop_policy": "block", **{f"opt.{name}": value for name, value in options.items()}}
    for number, data in enumerate(pictures):
        yield ml.VideoFrame(
            frame_data=data, format="rgb", width=320, height=376, timestamp_ms=33 * number, metadata=metadata
        )


def test_a_streams_tracker_is_its_own(server: Child, portrait: Path) -> None:
    rgb = Frame.from_file(portrait).resize(320, 376).to_rgb()
    still, moving = [moved(rgb, 0)] * 6, [moved(rgb, 8 * n) for n in range(6)]
    expected = []
    for pictures in (still, moving):
        with FaceMeshTracker() as tracker:
            answers = [
                tracker.track(Frame.from_raw(data, width=320, height=376, format="rgb", timestamp_ms=33 * n))
                for n, data in enumerate(pictures)
            ]
        expected.append([convert.meshes_to_ml(answer).faces for answer in answers])
    found: list[list[Any]] = [[], []]

    def run(place: int, pictures: list[bytes]) -> None:
        found[place] = [a.faces for a in server.vision.StreamFaceMesh(raw_frames(pictures))]

    threads = [threading.Thread(target=run, args=each) for each in ((0, still), (1, moving))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_options_come_with_the_first_frame(server: Child, jpeg: bytes) -> None:
    first = {"blendshapes": "true", "transform": "1", "num_faces": "2"}
    answers = list(server.vision.StreamFaceMesh(frames(jpeg, 2, first=first)))
    face = answers[1].faces[0]
    assert (len(face.landmarks), len(face.blendshapes), len(face.transform)) == (478, 52, 16)
    assert len(face.contours) % 2 == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("nonsense", "1"), ("num_faces", "many"), ("min_presence_confidence", "2"), ("drop_policy", "newest"),
     ("max_fps", "-1"), ("max_age_ms", "0.5"), ("on_bad_frame", "ignore"), ("mask_format", "bmp"),
     ("max_fps", "nan")],
)  # fmt: skip
def test_an_unknown_or_impossible_option_ends_the_stream(option: str, value: str, server: Child, jpeg: bytes) -> None:
    first = {"drop_policy": "latest", option: value}
    with fails(INVALID, option):
        list(server.vision.StreamFaceMesh(frames(jpeg, 2, first=first)))


class Feed:
    """A stream that a test sends frame by frame."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)

    def send(self, message: Any) -> None:
        self._queue.put(message)

    def end(self) -> None:
        self._queue.put(None)


def test_the_newest_frame_wins_and_the_others_are_counted(server: Child, jpeg: bytes) -> None:
    before = server.stats("StreamPoseTracking")
    fast = (ml.VideoFrame(frame_data=jpeg, format="jpeg", timestamp_ms=n, frame_number=n) for n in range(200))
    answers = list(server.vision.StreamPoseTracking(fast))
    numbers = [a.frame_number for a in answers]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 199
    assert len(numbers) < 200
    assert sum(a.stats.dropped for a in answers) + len(numbers) == 200
    after = server.stats("StreamPoseTracking")
    assert after.frames_dropped - (before.frames_dropped if before else 0) == 200 - len(numbers)


def test_the_oldest_first_policy_answers_in_order(server: Child, jpeg: bytes) -> None:
    options = {"opt.drop_policy": "oldest"}
    fast = (
        ml.VideoFrame(frame_data=jpeg, format="jpeg", timestamp_ms=n, frame_number=n, metadata=options)
        for n in range(100)
    )
    numbers = [a.frame_number for a in server.vision.StreamPoseTracking(fast)]
    assert numbers[:5] == [0, 1, 2, 3, 4]
    assert numbers == sorted(numbers)


BAD = ml.VideoFrame(frame_data=b"xyz", format="rgb", width=2, height=2, timestamp_ms=50, frame_number=77)


def with_a_bad_one(jpeg: bytes, policy: str) -> Iterator[Any]:
    first, *rest = frames(jpeg, 3, first={"on_bad_frame": policy})
    yield first
    yield BAD
    yield from rest


def test_a_bad_frame_is_reported_where_it_stands(server: Child, jpeg: bytes) -> None:
    answers = list(server.vision.StreamFaceDetection(with_a_bad_one(jpeg, "report")))
    assert [len(a.faces) for a in answers] == [1, 0, 1, 1]
    assert "[frame_invalid] data has 3 bytes" in answers[1].stats.error
    assert (answers[1].timestamp_ms, answers[1].frame_number) == (50, 77)


def test_a_bad_frame_is_skipped_and_counted(server: Child, jpeg: bytes) -> None:
    answers = list(server.vision.StreamFaceDetection(with_a_bad_one(jpeg, "skip")))
    assert [len(a.faces) for a in answers] == [1, 1, 1]
    assert [a.stats.dropped for a in answers] == [0, 1, 0]


def test_a_bad_frame_ends_the_stream(server: Child, jpeg: bytes) -> None:
    call = server.vision.StreamFaceDetection(with_a_bad_one(jpeg, "error"))
    assert len(next(call).faces) == 1
    with fails(INVALID, "3 bytes"):
        list(call)


def test_bytes_that_are_no_message_are_a_bad_frame(server: Child, jpeg: bytes) -> None:
    call = server.channel.stream_stream(
        "/ml.MediapipeService/StreamFaceDetection", None, ml.FaceDetectionResponse.FromString
    )
    good = [message.SerializeToString() for message in frames(jpeg, 2)]
    answers = list(call(iter([good[0], b"\xff\xff", good[1]])))
    assert [len(a.faces) for a in answers] == [1, 0, 1]
    assert "request_invalid" in answers[1].stats.error


@pytest.mark.parametrize("stamps", [[0, 0, 0, 0], [5, 4, 3, 2], [2**63 - 1, 0, 1, 2], [-(2**63), 2**62, 1, 2]])
def test_any_clock_will_do(stamps: list[int], server: Child, jpeg: bytes) -> None:
    options = {"opt.drop_policy": "block"}
    sent = [
        ml.VideoFrame(frame_data=jpeg, timestamp_ms=s, frame_number=-n, metadata=options) for n, s in enumerate(stamps)
    ]
    answers = list(server.vision.StreamFaceMesh(iter(sent)))
    assert [a.timestamp_ms for a in answers] == stamps
    assert [a.frame_number for a in answers] == [0, -1, -2, -3]
    assert all(len(a.faces) == 1 for a in answers)


def test_the_resolution_and_the_format_may_change(server: Child, portrait: Path) -> None:
    frame = Frame.from_file(portrait)
    small = frame.resize(256, 300)
    options = {"opt.drop_policy": "block"}
    sent = [
        ml.VideoFrame(frame_data=frame.encode("jpeg"), format="jpeg", metadata=options),
        ml.VideoFrame(frame_data=small.pixels.tobytes(), format="rgb", width=256, height=300, timestamp_ms=33),
        ml.VideoFrame(frame_data=frame.encode("webp"), format="webp", timestamp_ms=66),
    ]
    for method in ("StreamFaceMesh", "StreamSelfieSegmentation"):
        answers = list(getattr(server.vision, method)(iter(sent)))
        assert [a.stats.error for a in answers] == ["", "", ""]
    assert [(a.width, a.height) for a in answers] == [(512, 600), (256, 300), (512, 600)]


def test_a_mask_stays_under_what_clients_receive(server: Child, portrait: Path) -> None:
    data = Frame.from_file(portrait).resize(2400, 2000).encode("jpeg")
    (answer,) = server.vision.StreamSelfieSegmentation(frames(data, 1))
    assert (answer.format, answer.width, answer.height) == ("png", 2400, 2000)
    assert answer.ByteSize() < 4 << 20
    (bare,) = server.vision.StreamSelfieSegmentation(frames(Frame.from_file(portrait).encode("jpeg"), 1))
    assert (bare.format, len(bare.mask)) == ("gray8", 512 * 600)


def analyze(*tasks: Any, **config: Any) -> Any:
    given = [v1.TaskConfig(task=task) for task in tasks]
    return v1.StreamAnalyzeRequest(config=v1.StreamConfig(tasks=given, drop_policy=v1.DROP_POLICY_BLOCK, **config))


def v1_frame(data: bytes, number: int = 0) -> Any:
    return v1.StreamAnalyzeRequest(frame=v1.Frame(data=data, timestamp_ms=33 * number, frame_number=number))


def test_several_tasks_look_at_one_stream(server: Child, jpeg: bytes) -> None:
    config = analyze(v1.VISION_TASK_FACE_DETECTION, v1.VISION_TASK_POSE, v1.VISION_TASK_SEGMENTATION)
    answers = [a.analysis for a in server.v1_vision.StreamAnalyze(iter([config, v1_frame(jpeg), v1_frame(jpeg, 1)]))]
    assert [(a.timestamp_ms, a.frame_number) for a in answers] == [(0, 0), (33, 1)]
    for analysis in answers:
        assert (len(analysis.faces), len(analysis.poses), len(analysis.poses[0].landmarks)) == (1, 1, 99)
        assert len(analysis.mask.data) == 512 * 600
        assert not analysis.HasField("error")


def test_the_configuration_comes_first(server: Child, jpeg: bytes) -> None:
    with fails(INVALID, "config"):
        list(server.v1_vision.StreamAnalyze(iter([v1_frame(jpeg)])))
    with fails(INVALID, "drop_policy=9"):
        bad = v1.StreamAnalyzeRequest(config=v1.StreamConfig(drop_policy=9))  # type: ignore[arg-type]
        list(server.v1_vision.StreamAnalyze(iter([bad])))
    with fails(INVALID, "block"):
        list(server.v1_vision.StreamAnalyze(iter([analyze(v1.VISION_TASK_POSE, max_fps=5)])))
    twice = [analyze(v1.VISION_TASK_FACE_DETECTION, on_bad_frame=v1.BAD_FRAME_POLICY_ERROR)] * 2
    with fails(INVALID, "frame must be set"):
        list(server.v1_vision.StreamAnalyze(iter(twice)))
    twice[0].config.on_bad_frame = v1.BAD_FRAME_POLICY_REPORT
    (answer,) = server.v1_vision.StreamAnalyze(iter(twice))
    assert answer.analysis.error.code == "request_invalid"


def resident(server: Child) -> int:
    """Bytes of memory that the server has; a tracker of meshes needs some ten millions."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE


def mesh_streams(server: Child) -> int:
    return int(server.stats("StreamFaceMesh").active)


def test_a_cancelled_stream_frees_its_tracker(server: Child, jpeg: bytes) -> None:
    for _ in range(3):
        list(server.vision.StreamFaceMesh(frames(jpeg, 1)))
    before = resident(server)
    calls = []
    for _ in range(10):
        feed = Feed()
        call = server.vision.StreamFaceMesh(iter(feed))
        feed.send(next(frames(jpeg, 1)))
        next(call)
        calls.append((call, feed))
    all_open = resident(server) - before
    for call, feed in calls:
        call.cancel()
        feed.end()
    server.until(lambda: mesh_streams(server) == 0, "streams end")
    assert all_open > 50_000_000
    server.until(lambda: resident(server) - before < all_open / 2, "trackers are freed")


def test_the_stream_of_a_killed_client_ends(server: Child, portrait: Path) -> None:
    code = """
import sys, time, grpc
from tabml_grpc.ml import ml_inference_pb2 as ml, ml_inference_pb2_grpc as stubs
def feed():
    while True:
        yield ml.VideoFrame(frame_data=open(sys.argv[2], "rb").read())
        time.sleep(0.01)
for answer in stubs.MediapipeServiceStub(grpc.insecure_channel(sys.argv[1])).StreamFaceMesh(feed()):
    print(len(answer.faces), flush=True)
"""
    client = subprocess.Popen([sys.executable, "-c", code, server.address, str(portrait)], stdout=subprocess.PIPE)
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"1\n"
        os.kill(client.pid, signal.SIGKILL)
    server.until(lambda: mesh_streams(server) == 0, "the stream ends")


def test_a_stream_can_be_cancelled_by_its_id(server: Child, jpeg: bytes) -> None:
    feed = Feed()
    call = server.vision.StreamFaceMesh(iter(feed), metadata=[("tabml-request-id", "camera-7")])
    feed.send(next(frames(jpeg, 1)))
    next(call)
    assert server.runtime.Cancel(runtime_pb2.CancelRequest(request_id="camera-7")).cancelled == 1
    with fails(grpc.StatusCode.CANCELLED, "camera-7") as found:
        list(call)
    feed.end()
    assert found["ErrorInfo"].metadata["request_id"] == "camera-7"
    assert server.runtime.Cancel(runtime_pb2.CancelRequest(request_id="camera-7")).cancelled == 0


def test_a_deadline_ends_a_stream(server: Child, jpeg: bytes) -> None:
    feed = Feed()
    call = server.vision.StreamFaceMesh(iter(feed), timeout=0.5)
    feed.send(next(frames(jpeg, 1)))
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    feed.end()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    server.until(lambda: mesh_streams(server) == 0, "the stream ends")


def test_streams_over_the_limit_are_refused_at_once_and_status_calls_are_not(jpeg: bytes) -> None:
    with serving("--max-streams", 2) as server:
        feeds = [Feed() for _ in range(2)]
        calls = [server.vision.StreamFaceDetection(iter(feed)) for feed in feeds]
        for feed, call in zip(feeds, calls, strict=True):
            feed.send(next(frames(jpeg, 1)))
            next(call)
        with fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "2 streams") as found:
            list(server.vision.StreamFaceDetection(frames(jpeg, 1)))
        assert found["ErrorInfo"].reason == "CAPACITY"
        assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces
        assert server.stats("StreamFaceDetection").active == 2
        for feed in feeds:
            feed.end()
        for call in calls:
            list(call)
        assert list(server.vision.StreamFaceDetection(frames(jpeg, 1)))


@pytest.fixture(scope="module")
def walking(portrait: Path) -> list[Any]:
    """A portrait that moves."""
    still = Frame.from_file(portrait).resize(320, 384).to_rgb()
    return [np.roll(still, 2 * number, 1) for number in range(20)]


@pytest.mark.parametrize("codec", ["h264", "vp8", "vp9"])
def test_encoded_video_is_answered_frame_by_frame(codec: str, walking: list[Any], server: Child) -> None:
    chunks = encoded(codec, walking)
    answers = list(server.vision.StreamFaceDetection(chunk_messages(codec, chunks, drop_policy="block")))
    assert [(a.frame_number, a.timestamp_ms, a.stats.error) for a in answers] == [
        (number, 5000 - number, "") for number in range(20)
    ]
    with FaceDetector() as detector:
        for number, answer in enumerate(answers):
            expected = detector.detect(Frame.from_array(walking[number]))[0].box
            assert abs(answer.faces[0].x - expected.x) < 0.02
    config = v1.StreamConfig(tasks=[v1.TaskConfig(task=v1.VISION_TASK_POSE)], drop_policy=v1.DROP_POLICY_BLOCK)
    format = {"h264": v1.FRAME_FORMAT_H264, "vp8": v1.FRAME_FORMAT_VP8, "vp9": v1.FRAME_FORMAT_VP9}[codec]

    def new() -> Iterator[v1.StreamAnalyzeRequest]:
        yield v1.StreamAnalyzeRequest(config=config)
        for number, chunk in enumerate(chunks):
            frame = v1.Frame(data=chunk, format=format, width=320, height=384, frame_number=number)
            yield v1.StreamAnalyzeRequest(frame=frame)

    found = [answer.analysis for answer in server.v1_vision.StreamAnalyze(new())]
    assert [each.frame_number for each in found] == list(range(20))
    assert all(len(each.poses) == 1 for each in found)


def test_frames_that_come_out_late_are_answered_too(walking: list[Any], server: Child) -> None:
    chunks = encoded("h264", walking, bf="3", tune="film", preset="medium", gop=20)
    answers = list(server.vision.StreamFaceDetection(chunk_messages("h264", chunks, drop_policy="block")))
    assert sorted(a.frame_number for a in answers) == list(range(20))


def test_the_newest_frame_wins_after_all_were_decoded(walking: list[Any], server: Child) -> None:
    chunks = encoded("vp8", walking * 5)
    answers = list(server.vision.StreamHolisticTracking(chunk_messages("vp8", chunks)))
    assert answers[-1].frame_number == 99
    assert len(answers) < 100
    assert len(answers) + sum(a.stats.dropped for a in answers) == 100
    assert all(not a.stats.error for a in answers)


@pytest.mark.parametrize("codec", ["h264", "vp8", "vp9"])
def test_chunks_that_never_came_are_noticed(codec: str, walking: list[Any], server: Child) -> None:
    messages = [
        each for each in chunk_messages(codec, encoded(codec, walking), drop_policy="block") if each.frame_number != 5
    ]
    answers = list(server.vision.StreamFaceDetection(iter(messages)))
    assert [(a.frame_number, bool(a.stats.error)) for a in answers] == [
        (number, 6 <= number < 10) for number in range(20) if number != 5
    ]
    assert "frame_number goes from 4 to 6, so chunks are missing" in answers[5].stats.error
    assert all("keyframe" in answer.stats.error for answer in answers[5:9])
    assert all(len(answer.faces) == 1 for answer in answers[9:])


@pytest.mark.parametrize("step", [0, 2, 7])
def test_numbers_that_do_not_count_the_chunks_tell_nothing(step: int, walking: list[Any], server: Child) -> None:
    messages = list(chunk_messages("vp9", encoded("vp9", walking), drop_policy="block"))
    for number, message in enumerate(messages):
        message.frame_number = step * number + (3 if number > 10 else 0)
    answers = list(server.vision.StreamFaceDetection(iter(messages)))
    assert [answer.stats.error for answer in answers] == [""] * 20


def test_a_loss_that_the_next_keyframe_mends_is_no_error(walking: list[Any], server: Child) -> None:
    messages = [
        each for each in chunk_messages("vp8", encoded("vp8", walking), drop_policy="block") if each.frame_number != 9
    ]
    answers = list(server.vision.StreamFaceDetection(iter(messages)))
    assert [answer.stats.error for answer in answers] == [""] * 19


def test_a_stream_that_begins_in_the_middle_waits_for_a_keyframe(walking: list[Any], server: Child) -> None:
    chunks = encoded("h264", walking)
    spoilt = [*chunks[7:13], b"\0\0\1\x41" + bytes(60), *chunks[14:]]
    answers = list(server.vision.StreamFaceDetection(chunk_messages("h264", spoilt, 7, drop_policy="block")))
    problems = {a.frame_number: a.stats.error for a in answers}
    assert list(problems) == list(range(7, 20))
    assert all("keyframe" in problems[number] for number in (7, 8, 9, *range(13, 20)))
    assert not any(problems[number] for number in (10, 11, 12))
    with fails(INVALID, "keyframe"):
        list(server.vision.StreamFaceDetection(chunk_messages("h264", chunks[1:], on_bad_frame="error")))
    with fails(INVALID, "format='h264'"):
        server.vision.DetectFaces(ml.ImageRequest(image_data=chunks[0], format="h264"))
    answers = list(server.vision.StreamFaceDetection(chunk_messages("h264", [b"no video"], on_bad_frame="report")))
    assert "Annex B" in answers[0].stats.error


def test_boxes_in_three_dimensions_over_the_wire(server: Child) -> None:
    import skimage

    coffee = Frame.from_file(Path(skimage.__file__).parent / "data" / "coffee.png")
    with ObjectDetector3D(category="cup") as detector:
        (expected,) = detector.detect(coffee)
    options = {"category": "cup"}
    answers = list(server.vision.StreamObjectDetection3D(frames(coffee.encode("png"), 2, "png", first=options)))
    for answer in answers:
        (cup,) = convert_objects3d.objects3d_from_ml(answer, 600, 400)
        np.testing.assert_allclose(cup.keypoints_3d, expected.keypoints_3d, atol=1e-5)
        np.testing.assert_allclose(cup.keypoints, expected.keypoints, atol=1e-6)
        np.testing.assert_allclose(cup.rotation, expected.rotation, atol=1e-6)
        pose = answer.objects[0].pose
        np.testing.assert_allclose((pose.roll, pose.pitch, pose.yaw), expected.angles, atol=1e-3)
    task = v1.TaskConfig(task=v1.VISION_TASK_OBJECTS_3D, config=v1.VisionConfig(category="cup"))
    request = v1.AnalyzeRequest(frame=v1.Frame(data=coffee.encode("png")), tasks=[task])
    (again,) = convert_objects3d.objects3d_from_v1(server.v1_vision.Analyze(request).analysis)
    np.testing.assert_allclose(again.keypoints_3d, expected.keypoints_3d, atol=1e-5)
    with fails(INVALID, "category='chair' is not what model_id='objectron_cup' has"):
        wrong = {"category": "chair", "model": "objectron_cup"}
        list(server.vision.StreamObjectDetection3D(frames(coffee.encode("png"), 1, "png", first=wrong)))


def test_two_pictures_in_one_chunk_are_answered_or_refused(walking: list[Any], server: Child) -> None:
    chunks = encoded("h264", walking)
    joined = [chunks[0] + chunks[1], *chunks[2:12]]
    answers = list(server.vision.StreamFaceDetection(chunk_messages("h264", joined, drop_policy="block")))
    assert all("keyframe" in a.stats.error for a in answers if a.stats.error)
    assert [a.frame_number for a in answers if not a.stats.error][-2:] == [9, 10]  # from the next keyframe on


def test_every_frame_of_a_long_stream_is_answered_in_order(walking: list[Any], server: Child) -> None:
    chunks = encoded("vp8", walking * 20)
    answers = list(server.vision.StreamFaceDetection(chunk_messages("vp8", chunks, drop_policy="block")))
    assert [a.frame_number for a in answers] == list(range(400))
