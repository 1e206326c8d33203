"""A real server in a process of its own, and what a client needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.ml import ml_inference_pb2_grpc as ml_grpc
from tabml_grpc.v1 import models_pb2_grpc, runtime_pb2, runtime_pb2_grpc, vision_pb2_grpc

READY_S = 30


class Child:
    """A running ``python -m tabml_grpc``."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.process = process
        self.address = address
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        )
        self.vision = ml_grpc.MediapipeServiceStub(self.channel)
        self.models = ml_grpc.ModelManagementServiceStub(self.channel)
        self.v1_vision = vision_pb2_grpc.VisionServiceStub(self.channel)
        self.v1_models = models_pb2_grpc.ModelServiceStub(self.channel)
        self.runtime = runtime_pb2_grpc.RuntimeServiceStub(self.channel)

    def stats(self, method: str = "") -> Any:
        """All figures, or those of one method."""
        everything = self.runtime.GetStats(runtime_pb2.GetStatsRequest())
        if not method:
            return everything
        return next((m for m in everything.methods if m.method.endswith(method)), None)

    def until(self, done: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
        """Wait for something that must come."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"{what}: not within {seconds} s"
            time.sleep(0.02)

    def close(self) -> None:
        """End it however it is."""
        self.channel.close()
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def read_ready(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The facts of the ready line."""
    line = cast("IO[bytes]", process.stdout).readline().decode()
    assert line.startswith("TABML/1 READY "), (line, process.poll())
    return cast("dict[str, Any]", json.loads(line.removeprefix("TABML/1 READY ")))


def spawn(*flags: object, files: str | None = "catalog:", env: dict[str, str] | None = None, **pipes: Any) -> Child:
    """Start a server and wait for its ready line."""
    command = [sys.executable, "-m", "tabml_grpc", *map(str, flags)]
    if "--port" not in flags and "--uds" not in flags:
        command += ["--port", "0"]
    if files is not None:
        command += ["--files", files]
    pipes = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **pipes}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **(env or {})}, **pipes)
    return Child(process, read_ready(process)["address"])


@contextmanager
def serving(*flags: object, **more: Any) -> Iterator[Child]:
    """A server for one test."""
    child = spawn(*flags, **more)
    try:
        yield child
    finally:
        child.close()


def details(problem: grpc.RpcError) -> dict[str, Any]:
    """ErrorInfo, BadRequest and RetryInfo of a failed call, by name."""
    metadata = dict(cast(Any, problem).trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    found: dict[str, Any] = {}
    for each in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if each.Unpack(message):
                found[kind.DESCRIPTOR.name] = message
    return found


@contextmanager
def fails(code: grpc.StatusCode, *words: str) -> Iterator[dict[str, Any]]:
    """The block must end with this status, and its message must have these words."""
    found: dict[str, Any] = {}
    with pytest.raises(grpc.RpcError) as caught:
        yield found
    problem = cast(Any, caught.value)
    assert problem.code() is code, problem
    for word in words:
        assert word in problem.details(), problem.details()
    assert "Traceback" not in problem.details()
    found.update(details(caught.value))
    assert found["ErrorInfo"].domain == "tabml"
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        assert found["BadRequest"].field_violations
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        assert found["RetryInfo"].retry_delay.ToMilliseconds() > 0


def frames(data: bytes, count: int, format: str = "jpeg", first: dict[str, str] | None = None) -> Iterator[Any]:
    """Messages of a stream in which every frame is answered."""
    options = {"opt.drop_policy": "block", **{f"opt.{key}": value for key, value in (first or {}).items()}}
    for number in range(count):
        yield ml.VideoFrame(
            frame_data=data, format=format, timestamp_ms=1000 + 33 * number, frame_number=number,
            metadata=options if number == 0 else {},
        )  # fmt: skip


def chunk_messages(codec: str, chunks: list[bytes], first: int = 0, **options: str) -> Iterator[Any]:
    """Messages of a stream of encoded video, numbered from ``first`` on."""
    for number, chunk in enumerate(chunks, first):
        extra = {f"opt.{name}": value for name, value in options.items()} if number == first else {}
        yield ml.VideoFrame(
            frame_data=chunk, format=codec, timestamp_ms=5000 - number, frame_number=number, metadata=extra
        )
