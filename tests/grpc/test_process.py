"""The life of the child: each row of the table of what the existing parent does, against a real process."""

from __future__ import annotations

import gc
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from child import Child, fails, frames, read_ready, serving, spawn
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tabml_grpc import process
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import models_pb2, runtime_pb2

HEAVY = ("numpy", "cv2", "PIL", "mediapipe", "torch", "transformers", "huggingface_hub", "tabml.vision")


def test_nothing_heavy_is_imported_before_listening(run_python: Callable[..., Any]) -> None:
    code = """
        import sys
        import tabml_grpc.__main__, tabml_grpc.server
        from tabml_grpc.flags import read_flags
        from tabml_grpc.logs import start_logging
        server = tabml_grpc.server.Server(read_flags(["--port", "0"]), start_logging("info", None))
        import asyncio
        def ready(address):
            print(",".join(name for name in sys.argv[1].split(",") if name in sys.modules) or "nothing")
            server.drain()
        asyncio.run(server.run(ready))
    """
    ended = run_python(code, ",".join(HEAVY))
    assert ended.stdout.strip() == "nothing", ended.stderr


def test_the_test_above_can_fail(run_python: Callable[..., Any]) -> None:
    code = "import sys, tabml_grpc.convert; print(*(name for name in sys.argv[1].split(',') if name in sys.modules))"
    assert "numpy" in run_python(code, ",".join(HEAVY)).stdout


def test_one_line_on_stdout_and_then_silence(jpeg: bytes) -> None:
    with serving("--log-level", "debug") as server:
        assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces
        list(server.vision.StreamFaceMesh(frames(jpeg, 3)))
        assert server.process.stdout is not None
        assert not select.select([server.process.stdout], [], [], 0.2)[0]  # nothing, and not at its end either
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        assert server.process.stdout.read() == b""


def test_two_thousand_calls_with_both_pipes_never_read() -> None:
    with serving("--log-level", "debug", stderr=subprocess.PIPE) as server:
        for _ in range(2000):
            with pytest.raises(grpc.RpcError):
                server.models.LoadModel(ml.LoadModelRequest(model_id="nobody has it"), timeout=10)
        assert server.stats("ml.ModelManagementService/LoadModel").by_code["NOT_FOUND"] == 2000
        assert server.stats().log_lines_dropped > 0  # the pipe is full
        events = list(server.runtime.StreamEvents(runtime_pb2.StreamEventsRequest()))
        assert len(events) == 1000  # the ring has them all the same
        assert server.process.stderr is not None
        read = os.read(server.process.stderr.fileno(), 1 << 20)
        assert read.startswith(b"debug tabml_grpc:")
        with pytest.raises(grpc.RpcError):
            server.models.LoadModel(ml.LoadModelRequest(model_id="nobody has it"))
        os.set_blocking(server.process.stderr.fileno(), False)
        assert b"lines dropped]" in os.read(server.process.stderr.fileno(), 1 << 20)


PARENT = textwrap.dedent("""
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-m", "tabml_grpc", *sys.argv[1:]], stdout=subprocess.PIPE)
    print(child.pid, flush=True)
    print(child.stdout.readline().decode(), end="", flush=True)
    time.sleep(600)
""")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def orphan(*flags: str) -> tuple[int, int]:
    """A child whose parent was killed: its id and its port."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "--port", "0", *flags], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        port = int(parent.stdout.readline().partition(b'"127.0.0.1:')[2].partition(b'"')[0])
        parent.kill()
        parent.wait()
    return pid, port


def test_a_killed_parent_takes_the_child_along_and_frees_the_port() -> None:
    pid, port = orphan()
    end = time.monotonic() + 1
    while alive(pid):
        assert time.monotonic() < end, "the child outlives its parent"
        time.sleep(0.01)
    with serving("--port", port) as server:
        assert server.address.endswith(f":{port}")


def test_the_child_may_be_told_to_outlive_its_parent() -> None:
    pid, port = orphan("--no-parent-watch")
    time.sleep(0.5)
    assert alive(pid)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
    os.kill(pid, signal.SIGKILL)


def test_stdin_is_not_touched() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"somebody else's protocol")
    with serving(stdin=reader) as server:
        health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest())
        assert Path(os.readlink(f"/proc/{server.process.pid}/fd/0")) == Path(os.devnull)
        assert os.read(reader, 100) == b"somebody else's protocol"
    os.close(reader)
    os.close(writer)


def test_the_end_of_stdin_ends_it_when_asked_to() -> None:
    with serving("--stdin-watch", stdin=subprocess.PIPE) as server:
        assert server.process.stdin is not None
        server.process.stdin.write(b"ignored")
        server.process.stdin.flush()
        time.sleep(0.2)
        assert server.process.poll() is None
        server.process.stdin.close()
        assert server.process.wait(15) == 0


def test_a_second_server_on_the_port_fails_with_its_own_code(server: Child) -> None:
    port = server.address.rpartition(":")[2]
    command = [sys.executable, "-m", "tabml_grpc", "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (3, "")
    (line,) = ended.stderr.splitlines()
    assert "taken" in line
    assert "--port 0" in line


def test_a_port_that_a_stranger_holds_on_one_loopback_is_taken() -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        command = [sys.executable, "-m", "tabml_grpc", "--port", str(stranger.getsockname()[1])]
        assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 3


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(signal_: signal.Signals, jpeg: bytes) -> None:
    with serving() as server:
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        call = server.vision.StreamPoseTracking(frames(jpeg, 20))
        next(call)
        server.process.send_signal(signal_)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        assert len(list(call)) == 19
        assert server.process.wait(15) == 0


def test_what_does_not_end_within_the_grace_is_cut(jpeg: bytes) -> None:
    with serving("--grace-s", "0.5") as server:
        hold = threading.Event()

        def endless() -> Any:
            yield next(frames(jpeg, 1))
            hold.wait(30)

        call = server.vision.StreamFaceDetection(endless())
        next(call)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0
        with pytest.raises(grpc.RpcError):
            list(call)
        hold.set()


def test_the_old_flag_names_the_file_endpoint() -> None:
    with serving("--rust-port", 1, files=None) as server:
        assert server.runtime.GetInfo(runtime_pb2.GetInfoRequest()).files == "localhost:1"
        with fails(grpc.StatusCode.UNAVAILABLE, "localhost:1", "--files catalog:"):
            server.models.LoadModel(ml.LoadModelRequest(model_id="face_detector"))


def test_pings_go_through_a_ten_second_load() -> None:
    """A client that pings every second through a load that takes ten is not hung up on."""
    slow = threading.Event()

    class Files(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            def read(request: bytes, context: Any) -> Any:
                slow.wait(10)
                context.abort(grpc.StatusCode.NOT_FOUND, "after a long time")

            return grpc.unary_stream_rpc_method_handler(read)

    from concurrent.futures import ThreadPoolExecutor

    parent = grpc.server(ThreadPoolExecutor(2), handlers=[Files()])
    port = parent.add_insecure_port("127.0.0.1:0")
    parent.start()
    with serving("--file-endpoint", f"127.0.0.1:{port}", files=None) as server:
        options = [("grpc.keepalive_time_ms", 1000), ("grpc.http2.max_pings_without_data", 0)]
        with grpc.insecure_channel(server.address, options=options) as channel:
            load = channel.unary_unary(
                "/ml.ModelManagementService/LoadModel", ml.LoadModelRequest.SerializeToString, None
            )
            started = time.monotonic()
            with fails(grpc.StatusCode.NOT_FOUND, "after a long time"):  # not UNAVAILABLE: too many pings
                load(ml.LoadModelRequest(model_id="face_detector"), timeout=30)
            assert time.monotonic() - started >= 10
    slow.set()
    parent.stop(None)


def test_a_cancelled_load_ends_the_transfer() -> None:
    asked, cut = threading.Event(), threading.Event()

    class Files(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            def read(request: bytes, context: Any) -> Any:
                context.add_callback(cut.set)
                asked.set()
                cut.wait(20)
                yield b""

            return grpc.unary_stream_rpc_method_handler(read)

    from concurrent.futures import ThreadPoolExecutor

    parent = grpc.server(ThreadPoolExecutor(2), handlers=[Files()])
    port = parent.add_insecure_port("127.0.0.1:0")
    parent.start()
    with serving("--file-endpoint", f"127.0.0.1:{port}", files=None) as server:
        call = server.v1_models.LoadModel(models_pb2.LoadModelRequest(model_id="face_detector"))
        next(call)
        assert asked.wait(10)
        call.cancel()
        assert cut.wait(5)
        server.until(lambda: server.stats("v1.ModelService/LoadModel").active == 0, "the load ends")
    parent.stop(None)


def test_a_person_in_a_terminal_is_told_what_this_is() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tabml_grpc", "--port", "0"]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    with process:
        facts = read_ready(process)
        said = os.read(ours, 4096).decode()
        assert facts["address"] in said
        assert "Ctrl-C" in said
        assert "docs/grpc.md" in said
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    os.close(ours)
    os.close(theirs)


def test_a_log_file_has_what_the_pipe_could_not_take(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    with serving("--log-file", path, "--log-level", "debug") as server, fails(grpc.StatusCode.NOT_FOUND):
        server.models.LoadModel(ml.LoadModelRequest(model_id="nobody has it"))
    assert "DEBUG tabml_grpc: /ml.ModelManagementService/LoadModel: NOT_FOUND" in path.read_text()


def test_it_lives_without_a_home_and_with_a_full_disk_for_a_log(jpeg: bytes) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "TABML_HOME")}
    from tabml.files import cache_folder

    command = [sys.executable, "-m", "tabml_grpc", "--port", "0", "--files", "catalog:", "--log-file", "/dev/full"]
    environment["TABML_HOME"] = str(cache_folder())
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    server = Child(process, read_ready(process)["address"])
    try:
        with fails(grpc.StatusCode.NOT_FOUND):
            server.models.LoadModel(ml.LoadModelRequest(model_id="nobody has it"))
        assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces
    finally:
        server.close()


def test_a_server_killed_can_be_started_again_on_its_port_at_once(jpeg: bytes) -> None:
    with serving() as server:
        port = server.address.rpartition(":")[2]
        assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces
        server.process.kill()
        server.process.wait()
        again = spawn("--port", port)
        try:
            assert again.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces
        finally:
            again.close()


def test_what_is_settled_is_not_walked_through_again_and_goes_when_memory_is_returned() -> None:
    class Node:
        def __init__(self) -> None:
            self.me = self

    node = Node()
    gone = weakref.ref(node)
    try:
        process.settle()
        assert gc.get_freeze_count() > 10_000
        del node
        gc.collect()
        assert gone() is not None
        process.return_memory()
        assert gone() is None
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
