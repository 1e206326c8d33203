"""Who may call, how the server describes itself, and how it is told to stop."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from child import Child, fails, frames, serving
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from test_streams import Feed

from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import models_pb2, runtime_pb2

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health(server: Child, service: str = "") -> Any:
    stub = health_pb2_grpc.HealthStub(server.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status


def reflect(server: Child, **metadata: str) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = stub.ServerReflectionInfo(asked, metadata=[*metadata.items()])
    return [service.name for service in answer.list_services_response.service]


def test_every_service_is_healthy_and_described(server: Child) -> None:
    names = reflect(server)
    assert {"ml.MediapipeService", "tabml.v1.RuntimeService", "tabml.v1.VisionService"} <= set(names)
    assert all(health(server, name) == SERVING for name in ["", *names] if not name.startswith("grpc."))


def test_reflection_can_be_left_out() -> None:
    with serving("--no-reflection") as server:
        with pytest.raises(grpc.RpcError) as caught:
            reflect(server)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]
        assert health(server) == SERVING


def test_without_the_token_nothing_but_health_is_answered(jpeg: bytes) -> None:
    with serving("--token-env", "MY_TOKEN", env={"MY_TOKEN": "s3cret"}) as server:
        request = ml.ImageRequest(image_data=jpeg)
        for given in ([], [("authorization", "Bearer s3cre")], [("authorization", "s3cret")]):
            with fails(grpc.StatusCode.UNAUTHENTICATED, "authorization"):
                server.vision.DetectFaces(request, metadata=given)
            with fails(grpc.StatusCode.UNAUTHENTICATED):
                server.runtime.GetStats(runtime_pb2.GetStatsRequest(), metadata=given)
            with fails(grpc.StatusCode.UNAUTHENTICATED):
                list(server.vision.StreamFaceDetection(frames(jpeg, 1), metadata=given))
        with fails(grpc.StatusCode.UNAUTHENTICATED):
            reflect(server)
        assert health(server) == SERVING
        good = [("authorization", "Bearer s3cret")]
        assert server.vision.DetectFaces(request, metadata=good).faces
        assert reflect(server, authorization="Bearer s3cret")


def test_a_token_that_is_not_set_is_an_error() -> None:
    command = [sys.executable, "-m", "tabml_grpc", "--port", "0", "--token-env", "NOT_SET"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "NOT_SET" in ended.stderr
    assert ended.stdout == ""


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same as an address of IPv6, and ::1, as the kernel writes them."""


def test_only_loopback_is_bound(server: Child) -> None:
    port = int(server.address.rpartition(":")[2])
    bound = set()
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{server.process.pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            address, state = line.split()[1], line.split()[3]
            if state == "0A" and address.endswith(f":{port:04X}"):
                bound.add(address.partition(":")[0])
    assert bound
    assert bound <= LOOPBACK
    if "00000000000000000000000001000000" in bound:
        with socket.create_connection(("::1", port), timeout=5):
            pass


def test_a_socket_lies_in_a_folder_of_ones_own(tmp_path: Path, jpeg: bytes) -> None:
    place = tmp_path / "private" / "tabml.sock"
    with serving("--uds", place) as server:
        assert server.address == f"unix:{place}"
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces
        second = subprocess.run(
            [sys.executable, "-m", "tabml_grpc", "--uds", str(place)], capture_output=True, timeout=30, check=False
        )
        assert (second.returncode, second.stdout) == (3, b"")
        server.process.kill()
        server.process.wait()
        with serving("--uds", place) as again:  # the dead one's socket is in nobody's way
            assert health(again) == SERVING
    place.parent.chmod(0o755)
    command = [sys.executable, "-m", "tabml_grpc", "--uds", str(place)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "chmod 700" in ended.stderr


def test_a_drain_lets_running_calls_finish(jpeg: bytes) -> None:
    with serving() as server:
        feed = Feed()
        call = server.vision.StreamFaceDetection(iter(feed))
        feed.send(next(frames(jpeg, 1)))
        next(call)
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        assert server.runtime.Drain(runtime_pb2.DrainRequest()).active == 1
        assert next(watch).status == NOT_SERVING
        feed.send(next(frames(jpeg, 1)))
        assert len(next(call).faces) == 1
        feed.end()
        assert list(call) == []
        watch.cancel()
        assert server.process.wait(15) == 0


def test_events_are_told(server: Child) -> None:
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "min_level"):
        list(server.runtime.StreamEvents(runtime_pb2.StreamEventsRequest(min_level="loud")))
    with serving("--log-level", "debug") as noisy:
        call = noisy.runtime.StreamEvents(runtime_pb2.StreamEventsRequest(follow=True))
        with fails(grpc.StatusCode.NOT_FOUND):
            list(noisy.v1_models.LoadModel(models_pb2.LoadModelRequest(model_id="nope")))
        event = next(event for event in call if "LoadModel" in event.message)
        assert (event.level, event.logger) == ("debug", "tabml_grpc")
        call.cancel()
        past = list(noisy.runtime.StreamEvents(runtime_pb2.StreamEventsRequest()))
        assert [each for each in past if each.sequence == event.sequence]
        assert not list(noisy.runtime.StreamEvents(runtime_pb2.StreamEventsRequest(min_level="error")))


def test_stats_come_as_prometheus_text_too(server: Child, jpeg: bytes) -> None:
    server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg))
    text = server.runtime.GetStats(runtime_pb2.GetStatsRequest(prometheus=True)).prometheus
    assert 'tabml_calls_ended_total{method="/ml.MediapipeService/DetectFaces",code="OK"}' in text
    for line in text.splitlines():
        assert (
            line.startswith("# TYPE ")
            or line.rpartition(" ")[2].replace(".", "").replace("e+", "").replace("e-", "").isdigit()
        ), line


def test_info_says_what_the_server_is(server: Child) -> None:
    info = server.runtime.GetInfo(runtime_pb2.GetInfoRequest())
    assert (info.pid, info.protocol, info.files) == (server.process.pid, 1, "catalog:")
    assert list(info.families) == ["vision", "text", "edge"]
    assert {each.name: each.limit for each in info.call_classes}["streams"] == 64


def test_services_can_be_left_out(jpeg: bytes) -> None:
    with serving("--services", "text") as server:
        with fails(grpc.StatusCode.UNIMPLEMENTED, "--services vision"):
            server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg))
        assert server.runtime.Prewarm(runtime_pb2.PrewarmRequest()).families == ["text"]
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "families"):
            server.runtime.Prewarm(runtime_pb2.PrewarmRequest(families=["sound"]))


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--port", "70000"], "70000"),
        (["--services", "vision,sound"], "sound"),
        (["--files", "nowhere:"], "nowhere"),
        (["--file-endpoint", "example.com:1"], "example.com"),
        (["--log-file", "/no/such/folder/log"], "log_file"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(flags: list[str], word: str) -> None:
    command = [sys.executable, "-m", "tabml_grpc", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env={**os.environ})
    assert ended.returncode == 2
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
