"""The parent's file service, honest or not, as a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import files_pb2 as v1

Reply = Callable[[Any, Any], Iterator[Any]]


class Parent(grpc.GenericRpcHandler):
    """Serves ``files``, by (model, path); ``reply`` takes the place of an honest transfer."""

    def __init__(self, files: dict[tuple[str, str], bytes] | None = None, *, only_ml: bool = False) -> None:
        self.files = files or {}
        self.only_ml = only_ml
        self.serves_nothing = False
        self.chunk = 1 << 20
        self.reply: Reply | None = None
        self.asked: list[str] = []
        self.called: list[str] = []
        """Methods, also those that it does not have."""
        self.requests: list[Any] = []
        self.listing: list[v1.ModelFile] | None = None
        """In place of an honest listing."""
        self.tokens: list[str] = []
        self.ended = threading.Event()
        self.address = ""

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        self.called.append(name)
        if self.serves_nothing:
            return None
        self.tokens += [value for key, value in details.invocation_metadata if key == "authorization"]
        if name == "GetModelFile":
            return grpc.unary_stream_rpc_method_handler(
                self._get, ml.ModelFileRequest.FromString, ml.ModelFileChunk.SerializeToString
            )
        if self.only_ml:
            return None
        if name == "ReadFile":
            return grpc.unary_stream_rpc_method_handler(
                self._read, v1.ReadFileRequest.FromString, v1.ReadFileResponse.SerializeToString
            )
        return grpc.unary_unary_rpc_method_handler(
            self._list, v1.ListFilesRequest.FromString, v1.ListFilesResponse.SerializeToString
        )

    def _get(self, request: Any, context: Any) -> Iterator[Any]:
        yield from self._answer(request.model_id, request.file_path, request, context, ml.ModelFileChunk)

    def _read(self, request: Any, context: Any) -> Iterator[Any]:
        yield from self._answer(request.model_id, request.path, request, context, v1.ReadFileResponse)

    def _answer(self, model: str, path: str, request: Any, context: Any, kind: Any) -> Iterator[Any]:
        self.asked.append(path)
        self.requests.append(request)
        context.add_callback(self.ended.set)
        if self.reply is not None:
            yield from self.reply(request, context)
            return
        content = self.files.get((model, path))
        if content is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no {path}")
            return
        for offset in range(0, max(1, len(content)), self.chunk):
            chunk = kind(data=content[offset : offset + self.chunk], offset=offset, total_size=len(content))
            if kind is ml.ModelFileChunk:
                chunk.is_last = offset + self.chunk >= len(content)
            yield chunk

    def _list(self, request: Any, context: Any) -> Any:
        self.asked.append(request.model_id)
        self.requests.append(request)
        if self.listing is not None:
            return v1.ListFilesResponse(files=self.listing)
        found = [(path, content) for (model, path), content in self.files.items() if model == request.model_id]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.model_id}")
        return v1.ListFilesResponse(files=[v1.ModelFile(path=path, size=len(content)) for path, content in found])


@contextmanager
def listening(parent: Parent, port: int = 0, at: str = "") -> Iterator[Parent]:
    """The parent on a port of the loopback, or ``at`` another address of this machine."""
    server = grpc.server(
        ThreadPoolExecutor(12),
        handlers=[parent],
        options=[("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    bound = server.add_insecure_port(at or f"127.0.0.1:{port}")
    parent.address = at if at.startswith("unix:") else f"{at.rpartition(':')[0] or '127.0.0.1'}:{bound}"
    server.start()
    try:
        yield parent
    finally:
        server.stop(None).wait()
