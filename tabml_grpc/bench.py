"""The wire's part of ``tabml bench``, each in a process of its own: JSON on stdout.

``serve FOLDER`` is a parent that serves files, until stdin ends; ``load`` and ``transfer ADDRESS`` fetch from it; ``wire
FOLDER TOKENS TURNS`` compares a server with the library; ``nothing`` is a server that only answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tabml.bench import Row
from tabml.bench.load import REPO, first_token, measured, transferred
from tabml.files import DirectoryProvider, FileInfo, FileRef, FileStream
from tabml.text import GenerationOptions, TextEmbedder, TextGenerator
from tabml_grpc import process
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.parent import ParentFiles
from tabml_grpc.v1 import files_pb2, text_pb2

_CHUNK = 1 << 20
_PACE_S, _TOKEN_BYTES = 0.002, 32
_PAUSE_S = 0.02
"""Between two works: threads of the one before spin no more."""
_READ, _LIST = "/tabml.v1.ModelFileService/ReadFile", "/tabml.v1.ModelFileService/ListFiles"


class Parent(grpc.GenericRpcHandler):
    """What a program in another language does for its child: serves a folder's files."""

    def __init__(self, root: Path) -> None:
        self._files = DirectoryProvider(root)

    def service(self, details: Any) -> Any:
        """The handler of a method."""
        if details.method == _READ:
            return grpc.unary_stream_rpc_method_handler(
                self._read, files_pb2.ReadFileRequest.FromString, files_pb2.ReadFileResponse.SerializeToString
            )
        return grpc.unary_unary_rpc_method_handler(
            self._list, files_pb2.ListFilesRequest.FromString, files_pb2.ListFilesResponse.SerializeToString
        )

    def _read(self, request: Any, context: Any) -> Iterator[Any]:
        path = self._files.local_path(FileRef(request.model_id, request.path))
        if path is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.path}")
            return
        size, at = path.stat().st_size, 0
        with path.open("rb") as source:
            while data := source.read(_CHUNK):
                yield files_pb2.ReadFileResponse(data=data, offset=at, total_size=size)
                at += len(data)

    def _list(self, request: Any, context: Any) -> Any:
        found = self._files.list(request.model_id)
        return files_pb2.ListFilesResponse(
            files=[files_pb2.ModelFile(path=each.path, size=each.size) for each in found]
        )


def serve(root: Path) -> None:
    """Serve until stdin ends; the address is the only line of stdout."""
    server = grpc.server(ThreadPoolExecutor(12), handlers=[Parent(root)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


class Bare:
    """A client of that parent that does nothing else."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.http2.lookahead_bytes", 4 << 20)])

    def list(self, repo: str) -> list[FileInfo]:
        """The files."""
        call = self._channel.unary_unary(
            _LIST, files_pb2.ListFilesRequest.SerializeToString, files_pb2.ListFilesResponse.FromString
        )
        return [FileInfo(each.path, each.size) for each in call(files_pb2.ListFilesRequest(model_id=repo)).files]

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes."""
        call = self._channel.unary_stream(
            _READ, files_pb2.ReadFileRequest.SerializeToString, files_pb2.ReadFileResponse.FromString
        )
        return FileStream(message.data for message in call(files_pb2.ReadFileRequest(model_id=ref.repo, path=ref.path)))


class Nothing(grpc.GenericRpcHandler):
    """The floor: a server of grpc.aio that answers with so many bytes, at once or as a stream of them at a token's pace."""

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
        return bytes(int(request[:16]))


async def serve_nothing() -> None:
    """Serve :class:`Nothing` until killed; the address is the only line of stdout."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Nothing(),))
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


@contextmanager
def _started(*command: str) -> Iterator[tuple[grpc.Channel, int]]:
    """A server that says its address on stdout: a channel to it, and its process."""
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            said = server.stdout.readline().strip()
            address = json.loads(said.partition("READY ")[2])["address"] if "READY" in said else said
            with grpc.insecure_channel(address) as channel:
                yield channel, server.pid
        finally:
            server.kill()


def _floor(tokens: int, rounds: int) -> tuple[str, str]:
    """What a message of a stream and a reply of 64 vectors take with nothing around, in words."""
    request = b"%016d" % (64 * 768 * 4) + bytes(64 * 8)
    with _started("tabml_grpc.bench", "nothing", "") as (channel, pid):
        stream: Any = channel.unary_stream("/bare/Stream", bytes, bytes)
        answer: Any = channel.unary_unary("/bare/Answer", bytes, bytes)
        works = ((lambda: list(stream(b"%d" % tokens)), rounds), (lambda: answer(request), 10 * rounds))
        busy, seconds = [], []
        for work, count in works:
            work()
            before, times = _processor_s(pid), []
            for _ in range(count):
                time.sleep(_PAUSE_S)
                began = time.perf_counter()
                work()
                times.append(time.perf_counter() - began)
            busy.append(1e3 * (_processor_s(pid) - before) / count)
            seconds.append(1e3 * statistics.median(times))
    return f"{busy[0] / tokens:.3f} ms", f"{busy[1]:.3f} ms in {seconds[1]:.3f}"


def _processor_s(pid: int) -> float:
    """Processor time of a process and of this one."""
    user, system = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") + time.process_time()


def _added(local: Callable[[], Any], calls: dict[str, Callable[[], Any]], rounds: int, pid: int) -> dict[str, Any]:
    """Median milliseconds of the work in process, and for each call how much longer and how much more work it is."""
    works = {"": local, **calls}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    busy: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 2):
        for name, work in works.items():
            time.sleep(_PAUSE_S)
            before, began = _processor_s(pid), time.perf_counter()
            work()
            if number >= 2:
                seconds[name].append(time.perf_counter() - began)
                busy[name].append(_processor_s(pid) - before)
    middle = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    work_ms = {name: 1e3 * statistics.fmean(values) for name, values in busy.items()}
    return {name: (middle[name], middle[name] - middle[""], work_ms[name] - work_ms[""]) for name in works}


def wire(root: Path, tokens: int, turns: int) -> Iterator[Row]:
    """What a streamed token and a reply with 64 vectors cost more than in process; for rows of ``tabml bench``."""
    options = GenerationOptions(temperature=0, max_new_tokens=tokens, min_new_tokens=tokens)
    sampling = text_pb2.Sampling(temperature=0, max_new_tokens=tokens, min_new_tokens=tokens)
    texts = [f"w{number} w2" for number in range(1, 65)]
    a_message, a_reply = _floor(tokens, 10 * turns)
    with (
        _started("tabml_grpc", "--port", "0", "--files", f"dir:{root}") as (channel, pid),
        TextGenerator(root / "chat") as generator,
        TextEmbedder(root / "embed") as embedder,
    ):
        load: Any = channel.unary_unary("/ml.ModelManagementService/LoadModel", ml.LoadModelRequest.SerializeToString)
        for name, task in (("chat", "text-generation"), ("embed", "feature-extraction")):
            load(ml.LoadModelRequest(model_id=name, pipeline_type=task))
        new = channel.unary_stream(
            "/tabml.v1.TextService/Generate",
            text_pb2.GenerateRequest.SerializeToString,
            text_pb2.GenerateResponse.FromString,
        )
        old = channel.unary_stream(
            "/ml.TransformersService/GenerateText", ml.TextRequest.SerializeToString, ml.TextResponse.FromString
        )
        request = text_pb2.GenerateRequest(model="chat", prompt="w1 w2", sampling=sampling)
        plain = ml.TextRequest(model="chat", prompt="w1 w2", max_length=tokens, temperature=0)
        metadata = (("tabml-options-bin", sampling.SerializeToString()),)
        found = _added(
            lambda: list(generator.stream("w1 w2", options)),
            {
                "TextService.Generate": lambda: list(new(request)),
                "ml GenerateText": lambda: list(old(plain, metadata=metadata)),
            },
            10 * turns,
            pid,
        )
        yield from _rows(found, "stream over the wire", "ms a token", tokens, a_message)
        embed = channel.unary_unary(
            "/tabml.v1.TextService/Embed", text_pb2.EmbedRequest.SerializeToString, text_pb2.EmbedResponse.FromString
        )
        embeddings = channel.unary_unary(
            "/ml.TransformersService/GenerateEmbeddings",
            ml.GenerateEmbeddingsRequest.SerializeToString,
            ml.GeneratedEmbeddingsResponse.FromString,
        )
        found = _added(
            lambda: embedder.embed(texts),
            {
                "TextService.Embed": lambda: embed(text_pb2.EmbedRequest(model="embed", texts=texts)),
                "ml GenerateEmbeddings": lambda: embeddings(ml.GenerateEmbeddingsRequest(model="embed", texts=texts)),
            },
            100 * turns,
            pid,
        )
        yield from _rows(found, "64 vectors over the wire", "ms a reply", 1, a_reply)


def _rows(found: dict[str, Any], case: str, unit: str, count: int, floor: str) -> Iterator[Row]:
    for name, (whole, added, work) in found.items():
        if not name:
            yield Row(case=case, name="tabml in process", value=whole / count, unit=unit)
            continue
        yield Row(
            case=case, name=f"tabml {name}", value=whole / count, unit=unit, peer="tabml in process",
            ratio=whole / found[""][0],
            note=f"added {added / count:.3f} ms; processor {work / count:.3f} ms; bare grpc.aio alone: {floor}",
        )  # fmt: skip


def main(command: str, where: str, *numbers: str) -> None:
    """Do one of these."""
    if command == "serve":
        serve(Path(where))
    elif command == "nothing":
        asyncio.run(serve_nothing())
    elif command == "wire":
        print(json.dumps([row.to_dict() for row in wire(Path(where), *map(int, numbers))]))
    else:
        works: dict[str, Callable[[], object]] = {
            "load": lambda: first_token(TextGenerator(REPO, files=ParentFiles(where))),
            "transfer": lambda: transferred(Bare(where)),
        }
        print(json.dumps(measured(works[command])), flush=True)
        os._exit(0)  # the time of an orderly end is nobody's figure


if __name__ == "__main__":
    process.tune_allocator()
    main(*sys.argv[1:])
