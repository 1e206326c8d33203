"""A parent's part of ``tabml bench``, each in a process of its own: JSON on stdout.

``serve FOLDER`` is a parent that serves files, until stdin ends; ``load`` and ``transfer ADDRESS`` fetch from it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from tabml.bench.load import REPO, first_token, measured, transferred
from tabml.files import DirectoryProvider, FileInfo, FileRef, FileStream
from tabml.text import TextGenerator
from tabml_grpc import process
from tabml_grpc.parent import ParentFiles
from tabml_grpc.v1 import files_pb2

_CHUNK = 1 << 20
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


def main(command: str, where: str) -> None:
    """Do one of these."""
    if command == "serve":
        serve(Path(where))
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
