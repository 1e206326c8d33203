"""The server against the same library in process, and against gRPC that does nothing else, turn by turn in one run."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "grpc"))
from child import Child, serving
from wire import BareStream

from tabml.vision import FaceDetector, Frame
from tabml_grpc import process
from tabml_grpc.ml import ml_inference_pb2 as ml

HERE = Path(__file__).parent
ROUNDS = 300
ECHO = """
import asyncio, sys, threading, grpc
from concurrent.futures import ThreadPoolExecutor
from tabml_grpc import process
process.tune_allocator()
from tabml.vision import FaceDetector, Frame
from tabml_grpc.server import OPTIONS
data, frame = open(sys.argv[1], "rb").read(), Frame.from_file(sys.argv[1])
mine = threading.local()
def work():
    if not hasattr(mine, "detector"):
        mine.detector = FaceDetector().load()
    mine.detector.detect(Frame.from_bytes(data) if sys.argv[2] == "jpeg" else frame)
    return bytes(200)
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        async def call(messages, context):
            async for message in messages:
                await context.write(await asyncio.get_running_loop().run_in_executor(pool, work))
        return grpc.stream_stream_rpc_method_handler(call)
async def main():
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((Handler(),))
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()
pool = ThreadPoolExecutor(2)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def vga(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One face, VGA."""
    process.tune_allocator()
    return Frame.from_file(portrait).resize(640, 480).save(tmp_path_factory.mktemp("vga") / "vga.jpg")


@contextmanager
def echoing(vga: Path, format: str) -> Iterator[str]:
    """The peer: the same work behind grpc.aio, without anything around it."""
    with subprocess.Popen([sys.executable, "-c", ECHO, str(vga), format], stdout=subprocess.PIPE) as peer:
        assert peer.stdout is not None
        yield peer.stdout.readline().decode().strip()
        peer.kill()


def timed(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


@pytest.mark.parametrize("format", ["rgb", "jpeg"])
def test_the_added_cost_of_a_frame(format: str, vga: Path, benchmark: Any) -> None:
    frame = Frame.from_file(vga)
    data = frame.pixels.tobytes() if format == "rgb" else vga.read_bytes()
    message = ml.VideoFrame(frame_data=data, format=format, width=640, height=480).SerializeToString()
    path = "/ml.MediapipeService/StreamFaceDetection"
    with (
        serving() as server,
        echoing(vga, format) as echo,
        FaceDetector() as detector,
        BareStream(server.address, path) as stream,
        BareStream(echo, "/any/Stream") as bare,
    ):
        local: list[float] = []
        decode: list[float] = []
        peer: list[float] = []

        def before() -> None:
            begin = time.perf_counter()
            decoded = Frame.from_named(data, format, width=640, height=480)
            decode.append((time.perf_counter() - begin) * 1000)
            local.append(timed(lambda: detector.detect(decoded)))
            peer.append(timed(lambda: (bare.send(message), bare.receive())))

        def ours() -> None:
            stream.send(message)
            assert len(ml.FaceDetectionResponse.FromString(stream.receive()).faces) == 1

        benchmark.pedantic(ours, setup=before, rounds=ROUNDS, warmup_rounds=20)
        if benchmark.stats is None:
            return
        wire = benchmark.stats.stats.median * 1000
        call, unpack, floor = (statistics.median(times[-ROUNDS:]) for times in (local, decode, peer))
        floor -= 0 if format == "rgb" else unpack
        print(
            f"\n{format:5} wire {wire:.2f} ms, in process: decode {unpack:.2f} + detect {call:.2f} ms; added "
            f"{wire - call - unpack:.2f} ms (bare grpc.aio adds {floor - call:.2f} ms)   ratio {wire / (call + unpack):.2f}"
        )


LOCAL = """
import sys, threading, time
from tabml.vision import FaceDetector, Frame
data, seconds = open(sys.argv[1], "rb").read(), float(sys.argv[2])
counts = [0, 0]
def run(place):
    with FaceDetector() as detector:
        detector.detect(Frame.from_bytes(data))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            detector.detect(Frame.from_bytes(data))
            counts[place] += 1
threads = [threading.Thread(target=run, args=[n]) for n in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(counts) / seconds)
"""


def saturate(address: str, picture: bytes, streams: int, seconds: float) -> float:
    """Frames answered a second when each stream sends the next frame as soon as the last is answered."""
    message = ml.VideoFrame(frame_data=picture, format="jpeg").SerializeToString()
    counts = [0] * streams
    end = time.monotonic() + seconds

    def run(place: int) -> None:
        stream = BareStream(address, "/ml.MediapipeService/StreamFaceDetection")
        stream.send(message)
        while time.monotonic() < end:
            stream.send(message)  # one on its way while one is worked on
            stream.receive()
            counts[place] += 1
        stream.close()

    threads = [threading.Thread(target=run, args=[n]) for n in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def test_the_share_of_throughput_that_survives_the_wire(vga: Path, benchmark: Any) -> None:
    shares, bare, ours, theirs, peers = [], [], [], [], []

    with serving() as server, echoing(vga, "jpeg") as echo:
        server.vision.DetectFaces(ml.ImageRequest(image_data=vga.read_bytes()))

        def turn() -> None:
            peer = subprocess.run([sys.executable, "-c", LOCAL, str(vga), "2"], capture_output=True, check=True)
            theirs.append(float(peer.stdout))
            ours.append(saturate(server.address, vga.read_bytes(), 6, 2.0))
            peers.append(saturate(echo, vga.read_bytes(), 6, 2.0))
            shares.append(ours[-1] / theirs[-1])
            bare.append(peers[-1] / theirs[-1])

        benchmark.pedantic(turn, rounds=9, warmup_rounds=1)
    if benchmark.stats is not None:
        print(
            f"\nthroughput: {statistics.median(ours):.0f} frames/s over the wire, {statistics.median(theirs):.0f} in "
            f"process (two threads, JPEG)   share {statistics.median(shares):.2f}; "
            f"bare grpc.aio {statistics.median(peers):.0f}   share {statistics.median(bare):.2f}"
        )


def test_spawn_to_ready(vga: Path, benchmark: Any) -> None:
    naive = "import grpc.aio, mediapipe"
    peer: list[float] = []
    first_call: list[float] = []
    first_face: list[float] = []

    def before() -> None:
        peer.append(timed(lambda: subprocess.run([sys.executable, "-c", naive], check=True, capture_output=True)))
        begin = time.perf_counter()
        with serving() as server, grpc.insecure_channel(server.address) as channel:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"")  # type: ignore[call-arg]
            first_call.append((time.perf_counter() - begin) * 1000)
        begin = time.perf_counter()
        with serving() as server:
            assert server.vision.DetectFaces(ml.ImageRequest(image_data=vga.read_bytes())).faces
            first_face.append((time.perf_counter() - begin) * 1000)

    def ready() -> None:
        with serving():
            ready_at.append((time.perf_counter() - started[0]) * 1000)

    ready_at: list[float] = []
    started = [0.0]

    def setup() -> None:
        before()
        started[0] = time.perf_counter()

    benchmark.pedantic(ready, setup=setup, rounds=20)
    if benchmark.stats is not None:
        m = statistics.median
        print(
            f"\nspawn to ready {m(ready_at):.0f} ms, to the first answer {m(first_call):.0f} ms, to the first face "
            f"{m(first_face):.0f} ms; importing grpc and mediapipe first {m(peer):.0f} ms   ratio {m(ready_at) / m(peer):.2f}"
        )


def pings(server: Child, stop: threading.Event, found: list[float]) -> None:
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")  # type: ignore[call-arg]
        while not stop.wait(0.02):
            found.append(timed(lambda: check(b"")))


def test_many_cameras(vga: Path, tmp_path: Path, benchmark: Any) -> None:
    small = Frame.from_file(vga).save(tmp_path / "camera.jpg", quality=75)
    lines = []

    def run() -> None:
        for streams in (1, 4, 16, 64):
            with serving() as server:
                server.vision.DetectFaces(ml.ImageRequest(image_data=small.read_bytes()))
                before = server.stats().rss_bytes
                stop, found = threading.Event(), list[float]()
                pinger = threading.Thread(target=pings, args=(server, stop, found))
                pinger.start()
                command = [sys.executable, str(HERE / "wire.py"), server.address, str(streams), "30", "6", str(small)]
                ended = subprocess.run(command, capture_output=True, text=True, check=True)
                grown = server.stats().rss_bytes - before
                stop.set()
                pinger.join()
                r = json.loads(ended.stdout)
                found.sort()
                lines.append(
                    f"{streams:3} × 30 fps: offered {r['offered']:6.0f}, answered {r['answered']:5.0f}/s, age p50 "
                    f"{r['p50']:5.1f} p99 {r['p99']:6.1f} ms, ping p99 {found[int(len(found) * 0.99)]:5.1f} ms, "
                    f"{grown / streams / 2**20:5.2f} MB a stream, in order {r['in_order']}, fewest {r['fewest']}"
                )

    benchmark.pedantic(run, rounds=1)
    print("\n" + "\n".join(lines))


FETCH = """
import json, sys, time
from tabml_grpc import process
process.tune_allocator()
from tabml.files import FileRef, ResidentFiles
from tabml_grpc.parent import ParentFiles
provider = ParentFiles(sys.argv[1])
ResidentFiles(provider).hold(FileRef("big", "warm.bin"))
before, begin = process.rss_bytes(), time.perf_counter()
file = ResidentFiles(provider).hold(FileRef("big", "model.bin"))
spent = time.perf_counter() - begin
assert sum(file.view()[::4096]) >= 0  # every page is this process's
print(json.dumps([file.size / spent / 1e9, (process.peak_rss_bytes() - before) / file.size]))
"""


SERVE = """
import sys, grpc
from concurrent.futures import ThreadPoolExecutor
from tabml_grpc.v1 import files_pb2
class Files(grpc.GenericRpcHandler):
    def service(self, details):
        def read(raw, context):
            request = files_pb2.ReadFileRequest.FromString(raw)
            content = memoryview(open(f"{sys.argv[1]}/big/{request.path}", "rb").read())
            for at in range(0, len(content), 1 << 20):
                data = bytes(content[at : at + (1 << 20)])
                yield files_pb2.ReadFileResponse(data=data, offset=at, total_size=len(content)).SerializeToString()
        return grpc.unary_stream_rpc_method_handler(read)
server = grpc.server(ThreadPoolExecutor(2), handlers=[Files()])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["node, ReadFile", "node, GetModelFile", "gRPC C core"])
def test_the_fetch_of_a_file(kind: str, tmp_path: Path, benchmark: Any) -> None:
    node = shutil.which("node")
    folder = HERE.parent / "grpc" / "node"
    if kind.startswith("node") and (node is None or not (folder / "node_modules").is_dir()):
        pytest.skip("node and its modules are not installed (run tests/grpc/test_node_client.py first)")
    big = tmp_path / "big"
    big.mkdir()
    (big / "warm.bin").write_bytes(os.urandom(1 << 20))
    (big / "model.bin").write_bytes(os.urandom(1 << 20) * 400)
    command = [str(node), str(folder / "parent.js"), "--serve", str(tmp_path)]
    command += ["--only-ml"] if "GetModelFile" in kind else []
    if kind == "gRPC C core":
        command = [sys.executable, "-c", SERVE, str(tmp_path)]
    rates, memory, peer = [], [], []
    copy = Path("/dev/shm") / f"tabml-bench-{os.getpid()}"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        port = parent.stdout.readline().decode().strip()

        def run() -> None:
            peer.append((400 << 20) / 1e6 / timed(lambda: os.system(f"cat {big}/model.bin > {copy}")))
            copy.unlink()
            fetch = [sys.executable, "-c", FETCH, f"127.0.0.1:{port}"]
            rate, share = json.loads(subprocess.run(fetch, capture_output=True, check=True).stdout)
            rates.append(rate)
            memory.append(share)

        benchmark.pedantic(run, rounds=5, warmup_rounds=1)
        parent.stdin.close()
    m = statistics.median
    print(
        f"\nfetch from {kind}: {m(rates):.2f} GB/s, cat into memory {m(peer):.2f} GB/s   ratio {m(rates) / m(peer):.2f}; "
        f"peak memory {m(memory):.2f} of the file"
    )
