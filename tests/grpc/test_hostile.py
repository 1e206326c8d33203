"""Callers that mean harm, or are broken: the server lives on, and its memory, threads and descriptors stay."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from child import Child, fails, frames, read_ready, serving
from test_streams import Feed

from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import models_pb2, runtime_pb2, text_pb2, vision_pb2

SERVICES = [
    *ml.DESCRIPTOR.services_by_name.values(), *models_pb2.DESCRIPTOR.services_by_name.values(),
    *vision_pb2.DESCRIPTOR.services_by_name.values(), *text_pb2.DESCRIPTOR.services_by_name.values(), *runtime_pb2.DESCRIPTOR.services_by_name.values(),
]  # fmt: skip
HARMLESS = {"Drain", "StreamEvents", "UnloadModels", "UnloadModel"}
"""Left out: they do what they are told to."""


def seeds(jpeg: bytes) -> list[bytes]:
    """Messages to mutate."""
    task = vision_pb2.TaskConfig(task=vision_pb2.VISION_TASK_FACE_DETECTION)
    return [
        message.SerializeToString()
        for message in (
            ml.ImageRequest(image_data=jpeg[:3000], format="jpeg", width=512, height=600),
            ml.ImageRequest(image_data=bytes(4 * 4 * 3), format="rgb", width=4, height=4),
            ml.VideoFrame(frame_data=bytes(4 * 6), format="i420", width=4, height=4, metadata={"opt.num_faces": "2"}),
            ml.LoadModelRequest(model_id="face_detector", pipeline_type="face-detection", options={"range": "short"}),
            ml.ModelFileRequest(model_id="face_detector", file_path="face_detector.tflite"),
            models_pb2.LoadModelRequest(model_id="face_detector", options={"min_detection_confidence": "0.5"}),
            vision_pb2.AnalyzeRequest(frame=vision_pb2.Frame(data=jpeg[:2000], stride=7), tasks=[task]),
            vision_pb2.StreamAnalyzeRequest(config=vision_pb2.StreamConfig(tasks=[task], max_fps=3)),
        )
    ] + [b""]


def mutated(seed: bytes, dice: random.Random) -> bytes:
    content = bytearray(seed)
    for _ in range(dice.randint(0, 6)):
        place = dice.randrange(len(content) + 1)
        act = dice.randrange(4)
        if act == 0 and content:
            content[place % len(content)] = dice.randrange(256)
        elif act == 1:
            content[place:place] = dice.randbytes(dice.randint(1, 20))
        elif act == 2:
            del content[place : place + dice.randint(1, 30)]
        elif content:
            content[place % len(content)] ^= 1 << dice.randrange(8)
    return bytes(content)


def attack(server: Child, jpeg: bytes, count: int, seed: int) -> dict[str, int]:
    """Mutated messages to all methods; how often each status came."""
    dice = random.Random(seed)
    material = seeds(jpeg)
    methods = [(service.full_name, m) for service in SERVICES for m in service.methods if m.name not in HARMLESS]
    seen: dict[str, int] = {}
    for _ in range(count):
        service, method = dice.choice(methods)
        path = f"/{service}/{method.name}"
        messages = [mutated(dice.choice(material), dice) for _ in range(3 if method.client_streaming else 1)]
        ways = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        call = getattr(server.channel, "_".join(ways))(path)
        given: Any = iter(messages) if method.client_streaming else messages[0]
        metadata = [("tabml-options-bin", mutated(material[3], dice))] if dice.random() < 0.2 else []
        try:
            answer = call(given, timeout=20, metadata=metadata)
            if method.server_streaming:
                list(answer)
            name = "OK"
        except grpc.RpcError as problem:
            name = problem.code().name  # type: ignore[attr-defined]
            assert "Traceback" not in problem.details()  # type: ignore[attr-defined]
        seen[name] = seen.get(name, 0) + 1
    return seen


def fits(seen: dict[str, int]) -> bool:
    known = {
        "OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED",
        "ALREADY_EXISTS",
    }  # fmt: skip
    return set(seen) <= known and seen.get("INVALID_ARGUMENT", 0) > 0 and seen.get("OK", 0) > 0


def test_mutated_requests_get_a_status_each(jpeg: bytes) -> None:
    with serving() as server:
        seen = attack(server, jpeg, 600, 1)
        assert fits(seen), seen
        assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces


@pytest.mark.soak
def test_ten_thousand_mutated_requests(jpeg: bytes) -> None:
    with serving() as server:
        seen = attack(server, jpeg, 10_000, 2)
        print(f"\n10,000 mutated requests: {seen}")
        assert fits(seen), seen


def test_of_two_hundred_streams_the_limit_is_served_and_the_rest_refused_at_once(jpeg: bytes) -> None:
    with serving() as server:
        server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg))
        feeds = [Feed() for _ in range(200)]
        calls = [server.vision.StreamFaceDetection(iter(feed)) for feed in feeds]
        for feed in feeds:
            feed.send(next(frames(jpeg, 1)))
        served = refused = 0
        for call in calls:
            try:
                assert len(next(call).faces) == 1
                served += 1
            except grpc.RpcError as problem:
                assert problem.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
                refused += 1
        assert (served, refused) == (64, 136)
        assert server.stats("StreamFaceDetection").active == 64
        for feed in feeds:
            feed.end()
        for call in calls:
            call.cancel()


def test_a_reader_that_never_reads_costs_little(jpeg: bytes) -> None:
    with serving() as server:
        list(server.vision.StreamFaceMesh(frames(jpeg, 2)))
        before = server.stats().rss_bytes
        stop = threading.Event()

        def flood() -> Iterator[Any]:
            message = ml.VideoFrame(frame_data=jpeg, format="jpeg")
            for _ in range(3000):
                if stop.is_set():
                    return
                yield message

        calls = [server.vision.StreamFaceMesh(flood()) for _ in range(4)]
        time.sleep(4)
        assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg), timeout=10).faces
        assert server.stats().rss_bytes - before < 400 << 20
        stop.set()
        for call in calls:
            call.cancel()
        server.until(lambda: server.stats("StreamFaceMesh").active == 0, "the streams end")


def test_silence_and_noise_on_the_port_disturb_nobody(server: Child, jpeg: bytes) -> None:
    host, _, port = server.address.rpartition(":")
    server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg))
    before = server.stats().file_descriptors
    silent = [socket.create_connection((host, int(port))) for _ in range(50)]
    for number, each in enumerate(silent[:25]):
        each.sendall(random.Random(number).randbytes(500))
    with socket.create_connection((host, int(port))) as web:
        web.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n")
        web.settimeout(10)
        answer = web.recv(4096)
        assert not answer.startswith(b"HTTP/1")
    assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg), timeout=10).faces
    for each in silent:
        each.close()
    server.until(lambda: server.stats().file_descriptors <= before + 2, "connections are let go")


def test_compressed_requests_are_refused(server: Child) -> None:
    """A gzip bomb would be unpacked before anybody could look at it."""
    with pytest.raises(grpc.RpcError) as caught:
        server.vision.DetectFaces(ml.ImageRequest(image_data=bytes(60 << 20)), compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_a_flood_of_metadata_is_refused(server: Child) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.runtime.GetInfo(runtime_pb2.GetInfoRequest(), metadata=[("x-flood", "y" * 100_000)])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_few_descriptors_are_enough_or_said(jpeg: bytes) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)); "
    code += "from tabml_grpc.__main__ import run; run()"
    command = [sys.executable, "-c", code, "--port", "0", "--files", "catalog:"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    server = Child(process, read_ready(process)["address"])
    try:
        for _ in range(3):
            try:
                list(server.vision.StreamFaceMesh(frames(jpeg, 1), timeout=20))
            except grpc.RpcError as problem:
                assert problem.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, problem  # type: ignore[attr-defined]
        assert process.poll() is None
    finally:
        server.close()


ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}  # with two, what the allocator keeps moves by 20 MB


def many_calls(server: Child, jpeg: bytes, count: int) -> None:
    for number in range(count // 4):
        server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg))
        server.runtime.GetStats(runtime_pb2.GetStatsRequest())
        list(server.vision.StreamFaceDetection(frames(jpeg, 1)))
        with pytest.raises(grpc.RpcError):
            server.vision.DetectFaces(ml.ImageRequest())
        if number % 50 == 0:
            call = server.vision.StreamFaceMesh(frames(jpeg, 2))
            next(call)
            call.cancel()


@dataclass(frozen=True)
class Rest:
    """What a server holds when no model is loaded: with them memory swings by tens of megabytes, as trackers come and go."""

    rss_bytes: int
    threads: int
    descriptors: int


def at_rest(server: Child) -> Rest:
    server.until(lambda: not any(m.active for m in server.stats().methods if "Stream" in m.method), "streams end")
    server.v1_models.UnloadModels(models_pb2.UnloadModelsRequest(all=True))
    stats = server.stats()
    return Rest(stats.rss_bytes, stats.threads, stats.file_descriptors)


def growth(server: Child, work: Callable[[], None]) -> tuple[float, int, int]:
    """Megabytes, threads and descriptors that ``work`` leaves behind."""
    before = at_rest(server)
    work()
    after = at_rest(server)
    return (
        (after.rss_bytes - before.rss_bytes) / 2**20,
        after.threads - before.threads,
        after.descriptors - before.descriptors,
    )


def test_a_thousand_calls_leave_nothing_behind(jpeg: bytes) -> None:
    with serving(env=ONE_ARENA) as server:
        many_calls(server, jpeg, 800)
        megabytes, threads, descriptors = growth(server, lambda: many_calls(server, jpeg, 1000))
        assert megabytes < 5
        assert threads <= 1
        assert descriptors <= 1


@pytest.mark.soak
def test_ten_thousand_calls_leave_nothing_behind(jpeg: bytes) -> None:
    with serving(env=ONE_ARENA) as server:
        many_calls(server, jpeg, 800)
        megabytes, threads, descriptors = growth(server, lambda: many_calls(server, jpeg, 10_000))
        print(f"\n10,000 calls: {megabytes:+.2f} MB, {threads:+} threads, {descriptors:+} descriptors")
        assert megabytes < 5
        assert threads <= 1
        assert descriptors <= 1


CLIENT = """
import sys, time, grpc
from tabml_grpc.ml import ml_inference_pb2 as ml, ml_inference_pb2_grpc as stubs
data = open(sys.argv[2], "rb").read()
def feed():
    while True:
        yield ml.VideoFrame(frame_data=data)
        time.sleep(0.02)
stub = stubs.MediapipeServiceStub(grpc.insecure_channel(sys.argv[1]))
for answer in getattr(stub, sys.argv[3])(feed()):
    pass
"""


@pytest.mark.soak
def test_a_mixed_load_with_killed_clients(portrait: Path, jpeg: bytes) -> None:
    """30 minutes, or as many as TABML_SOAK_MINUTES says."""
    minutes = float(os.environ.get("TABML_SOAK_MINUTES", "30"))
    dice, killed = random.Random(3), 0

    def turn(server: Child) -> None:
        method = dice.choice(["StreamFaceDetection", "StreamFaceMesh", "StreamHandTracking", "StreamPoseTracking"])
        command = [sys.executable, "-c", CLIENT, server.address, str(portrait), method]
        with subprocess.Popen(command) as client:
            attack(server, jpeg, 40, dice.randrange(1 << 30))
            many_calls(server, jpeg, 40)
            time.sleep(dice.random())
            os.kill(client.pid, signal.SIGKILL)

    def load(server: Child) -> None:
        nonlocal killed
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            turn(server)
            killed += 1

    with serving(env=ONE_ARENA) as server:
        for _ in range(20):
            turn(server)
        started = sum(m.started for m in server.stats().methods)
        megabytes, threads, descriptors = growth(server, lambda: load(server))
        calls = sum(m.started for m in server.stats().methods) - started
        print(
            f"\n{minutes:g} minutes: {calls} calls, {killed} clients killed, {megabytes:+.2f} MB, {threads:+} threads, "
            f"{descriptors:+} descriptors"
        )
        assert megabytes < 5 * max(1, calls / 10_000)
        assert threads <= 1
        assert descriptors <= 1


def test_bad_pictures_in_a_row_leave_the_detector_alive(server: Child, jpeg: bytes) -> None:
    for _ in range(50):
        with fails(grpc.StatusCode.INVALID_ARGUMENT):
            server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg[:500], format="jpeg"))
    assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces
