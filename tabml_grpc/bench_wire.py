"""What a server adds to a call, for ``tabml bench``: JSON on stdout.

``wire FOLDER TOKENS TURNS`` compares a server with the library; ``nothing`` is a server that only answers. The client
is one of C++ where a compiler and grpc++ are found, as a parent's would be; else Python's, which costs as much as the
server.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tabml_grpc import process

if __name__ == "__main__":
    process.tune_allocator()  # before gRPC allocates: afterwards a reply of 196 KB takes 0.1 ms longer

import grpc
from google.protobuf.message import Message

from tabml.bench import Row
from tabml.text import GenerationOptions, TextEmbedder, TextGenerator
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.text import OPTIONS
from tabml_grpc.v1 import text_pb2

_PACE_S, _TOKEN_BYTES = 0.01, 64
"""Of the bare stream: about that of a server's own, which joins what comes within 8 ms."""
_COMPUTE_S = 0.003
"""Of the bare reply, and not counted: a caller that waits is woken later than one that hardly does."""
_PAUSE_S = 0.02
"""Between two works: threads of the one before spin no more."""
_WARM = 3
"""Calls before one that is measured: the processor's caches are as in a run of calls."""
Work = Callable[[], float]
"""Does it once; gives seconds."""


class _Nothing(grpc.GenericRpcHandler):
    """The floor: answers with so many bytes, at once or as a stream of small messages."""

    def service(self, details: Any) -> Any:
        """The handler of a method: ``/Stream`` or any other."""
        if details.method.endswith("/Stream"):
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _stream(self, request: bytes, context: Any) -> None:
        for _ in range(int(request)):
            await asyncio.sleep(_PACE_S)
            await context.write(bytes(_TOKEN_BYTES))

    async def _answer(self, request: bytes, context: Any) -> bytes:
        until = time.perf_counter() + _COMPUTE_S
        while time.perf_counter() < until:
            pass
        return bytes(int(request[:16]))


async def _serve_nothing() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Nothing(),))
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


class Server:
    """A server that says its address on stdout, and calls of it."""

    def __init__(self, address: str, pid: int, client: Path | None, place: ExitStack) -> None:
        self.pid = pid
        self._address, self._client, self._place = address, client, place
        self.channel = place.enter_context(grpc.insecure_channel(address))

    def work(self, method: str, request: bytes, *, stream: bool, sampling: Message | None = None) -> Work:
        """Calls of one method, each read to its end by the client of C++, or Python's when there is none."""
        metadata = () if sampling is None else ((OPTIONS, sampling.SerializeToString()),)
        if self._client is not None:
            return self._native(method, request, "stream" if stream else "unary", metadata)
        if stream:
            deltas: Any = self.channel.unary_stream(method, bytes, bytes)
            return timed(lambda: list(deltas(request, metadata=metadata)))
        answer: Any = self.channel.unary_unary(method, bytes, bytes)
        return timed(lambda: answer(request, metadata=metadata))

    def _native(self, method: str, request: bytes, kind: str, metadata: tuple[tuple[str, bytes], ...]) -> Work:
        folder = Path(self._place.enter_context(TemporaryDirectory(prefix="tabml-bench-")))
        (folder / "request").write_bytes(request)
        words = [str(self._client), self._address, method, kind, str(folder / "request")]
        for key, value in metadata:
            (folder / "metadata").write_bytes(value)
            words += [key, str(folder / "metadata")]
        client = self._place.enter_context(
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        self._place.callback(client.kill)

        def call() -> float:
            assert client.stdin is not None
            assert client.stdout is not None
            with suppress(BrokenPipeError):
                client.stdin.write("\n")
                client.stdin.flush()
            said = client.stdout.readline()
            if not said:
                raise RuntimeError(f"the client of C++ has ended with {client.wait()}; its stderr says why")
            return float(said) / 1e3

        return call


@contextmanager
def started(client: Path | None, *command: str) -> Iterator[Server]:
    """``python -m`` with these words, until the end."""
    with (
        subprocess.Popen(
            [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as server,
        ExitStack() as place,
    ):
        place.callback(server.kill)
        assert server.stdout is not None
        said = server.stdout.readline().strip()
        address = json.loads(said.partition("READY ")[2])["address"] if "READY" in said else said
        yield Server(address, server.pid, client, place)


def compiled(folder: Path) -> Path | None:
    """The client of C++; None where there is no compiler or no grpc++."""
    if not (shutil.which("c++") and shutil.which("pkg-config")):
        return None
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "grpc++"], capture_output=True, text=True, check=False)
    if flags.returncode:
        return None
    source, target = Path(__file__).with_name("bench_client.cc"), folder / "bench_client"
    done = subprocess.run(
        ["c++", "-O2", "-std=c++17", str(source), "-o", str(target), *shlex.split(flags.stdout)], check=False
    )
    return target if done.returncode == 0 else None


def timed(work: Callable[[], object]) -> Work:
    """The same, telling its seconds."""

    def call() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return call


def _processor_s(pid: int) -> float:
    """Processor time of a process, to the hundredth of a second."""
    user, system = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def medians(works: dict[str, tuple[int, Work]], rounds: int, warm: int) -> dict[str, tuple[float, float]]:
    """For each work, in turns, the median milliseconds and those of processor time of the process that does it.

    Args:
        works: By name, with that process.
        rounds: That count, after two that don't.
        warm: Calls before each that counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    busy: dict[str, float] = dict.fromkeys(works, 0.0)
    for number in range(rounds + 2):
        for name, (pid, work) in works.items():
            time.sleep(_PAUSE_S)
            before = _processor_s(pid)
            for _ in range(warm):
                work()
            took = work()
            if number >= 2:
                seconds[name].append(took)
                busy[name] += _processor_s(pid) - before
    calls = rounds * (warm + 1)
    return {name: (1e3 * statistics.median(seconds[name]), 1e3 * busy[name] / calls) for name in works}


def _floor(client: Path | None, messages: int, rounds: int) -> tuple[str, str]:
    """What a message of a stream and a reply of 64 vectors take with nothing around, in words."""
    request = b"%016d" % (64 * 768 * 4) + bytes(64 * 8)
    with started(client, "tabml_grpc.bench_wire", "nothing") as server:
        stream = server.work("/bare/Stream", b"%d" % messages, stream=True)
        answer = server.work("/bare/Answer", request, stream=False)
        _, message_ms = medians({"": (server.pid, stream)}, rounds, 0)[""]
        reply_ms, reply_busy_ms = (
            value - 1e3 * _COMPUTE_S for value in medians({"": (server.pid, answer)}, 10 * rounds, _WARM)[""]
        )
    return (
        f"a message {message_ms / messages:.3f} ms of processor time",
        f"{reply_ms:.3f} ms, processor {reply_busy_ms:.3f}",
    )


def wire(root: Path, tokens: int, turns: int) -> Iterator[Row]:
    """What a streamed token and a reply with 64 vectors cost more than in process; for rows of ``tabml bench``."""
    options = GenerationOptions(temperature=0, max_new_tokens=tokens, min_new_tokens=tokens)
    sampling = text_pb2.Sampling(temperature=0, max_new_tokens=tokens, min_new_tokens=tokens)
    texts = [f"w{number} w2" for number in range(1, 65)]
    with TemporaryDirectory(prefix="tabml-bench-") as folder:
        client = compiled(Path(folder))
        whose = "C++" if client is not None else "Python"
        a_message, a_reply = _floor(client, 40, 3 * turns)
        with (
            started(client, "tabml_grpc", "--port", "0", "--files", f"dir:{root}") as server,
            TextGenerator(root / "chat") as generator,
            TextEmbedder(root / "embed") as embedder,
        ):
            load: Any = server.channel.unary_unary("/ml.ModelManagementService/LoadModel", _raw)
            for name, task in (("chat", "text-generation"), ("embed", "feature-extraction")):
                load(ml.LoadModelRequest(model_id=name, pipeline_type=task))
            new = text_pb2.GenerateRequest(model="chat", prompt="w1 w2", sampling=sampling)
            old = ml.TextRequest(model="chat", prompt="w1 w2", max_length=tokens, temperature=0)
            found = medians(
                {
                    "": (os.getpid(), timed(lambda: list(generator.stream("w1 w2", options)))),
                    "TextService.Generate": (
                        server.pid,
                        server.work("/tabml.v1.TextService/Generate", _raw(new), stream=True),
                    ),
                    "ml GenerateText": (
                        server.pid,
                        server.work("/ml.TransformersService/GenerateText", _raw(old), stream=True, sampling=sampling),
                    ),
                },
                10 * turns,
                0,
            )
            yield from _rows(found, "stream over the wire", "ms a token", tokens, f"{whose} client; bare: {a_message}")
            found = medians(
                {
                    "": (os.getpid(), timed(lambda: embedder.embed(texts))),
                    "TextService.Embed": (
                        server.pid,
                        server.work(
                            "/tabml.v1.TextService/Embed",
                            _raw(text_pb2.EmbedRequest(model="embed", texts=texts)),
                            stream=False,
                        ),
                    ),
                    "ml GenerateEmbeddings": (
                        server.pid,
                        server.work(
                            "/ml.TransformersService/GenerateEmbeddings",
                            _raw(ml.GenerateEmbeddingsRequest(model="embed", texts=texts)),
                            stream=False,
                        ),
                    ),
                },
                50 * turns,
                _WARM,
            )
            yield from _rows(found, "64 vectors over the wire", "ms a reply", 1, f"{whose} client; bare: {a_reply}")


def _raw(message: Message) -> bytes:
    return message.SerializeToString()


def _rows(found: dict[str, tuple[float, float]], case: str, unit: str, count: int, about: str) -> Iterator[Row]:
    local_ms, local_busy_ms = found[""]
    for name, (whole_ms, busy_ms) in found.items():
        if not name:
            yield Row(case=case, name="tabml in process", value=local_ms / count, unit=unit)
            continue
        yield Row(
            case=case, name=f"tabml {name}", value=whole_ms / count, unit=unit, peer="tabml in process",
            ratio=whole_ms / local_ms,
            note=f"added {(whole_ms - local_ms) / count:.3f} ms; processor {(busy_ms - local_busy_ms) / count:.3f} ms; {about}",
        )  # fmt: skip


def main(command: str, where: str = "", *numbers: str) -> None:
    """Do one of these."""
    if command == "nothing":
        process.run_loop(_serve_nothing())
    else:
        print(json.dumps([row.to_dict() for row in wire(Path(where), *map(int, numbers))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
