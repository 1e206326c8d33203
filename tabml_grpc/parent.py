"""Model files from the parent: a provider over its file service, which checks every chunk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from tabml.cancellation import current_cancellation
from tabml.errors import (
    CorruptModelError,
    ModelFileNotFoundError,
    OptionError,
    ProviderAccessError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files import FileInfo, FileRef, FileStream
from tabml.files.types import CHUNK_BYTES, check_name
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import files_pb2 as v1

MAX_MESSAGE = 256 << 20
"""Existing parents send files in messages of up to 100 MiB."""
STALL_S = 30.0
"""How long a transfer may pause."""
LIST_S = 30.0
_READ = "/tabml.v1.ModelFileService/ReadFile"
_LIST = "/tabml.v1.ModelFileService/ListFiles"
_GET = "/ml.ModelManagementService/GetModelFile"
_ML_ONLY_S = 60.0

Chunk = tuple[bytes, int, int, bool, str]
"""Data, offset, total size, whether it is the last, checksum."""


class ParentFiles:
    """Model files over gRPC: ``tabml.v1.ModelFileService``, or else ``ml.ModelManagementService/GetModelFile``.

    Nothing is kept here. Thread-safe.
    """

    def __init__(self, address: str, *, token: str | None = None, stall_s: float = STALL_S) -> None:
        """Connect when first asked.

        Args:
            address: ``HOST:PORT`` or ``unix:PATH`` of this machine.
            token: What the parent wants to hear, or None.
            stall_s: Seconds without a byte after which a transfer is given up.

        Raises:
            OptionError: the address leads to another machine.
        """
        host = address.rpartition(":")[0].strip("[]")
        if not address.startswith("unix:") and host not in ("localhost", "127.0.0.1", "::1"):
            raise OptionError(
                f"file_endpoint={address!r} must be localhost:PORT, 127.0.0.1:PORT, [::1]:PORT or unix:PATH"
            )
        self._address = address
        self._metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        self._stall_s = stall_s
        self._ml_only_until = 0.0
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.enable_http_proxy", 0),
                ("grpc.http2.lookahead_bytes", 4 << 20),
                ("grpc.http2.max_frame_size", 1 << 20),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 1000),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        call = self._channel.unary_stream
        self._read = call(_READ, v1.ReadFileRequest.SerializeToString, v1.ReadFileResponse.FromString)
        self._get = call(_GET, ml.ModelFileRequest.SerializeToString, ml.ModelFileChunk.FromString)
        self._list = self._channel.unary_unary(
            _LIST, v1.ListFilesRequest.SerializeToString, v1.ListFilesResponse.FromString
        )

    def __repr__(self) -> str:
        return f"ParentFiles({self._address!r})"

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream whose chunks were checked: order, offsets, sizes, end, checksum where there is one.

        Raises:
            ModelFileNotFoundError: the parent has no such file.
            CorruptModelError: the transfer contradicts itself.
            ProviderUnavailableError: the parent isn't there, or the transfer was cut short.
            ProviderTimeoutError: it stalled.
        """
        if time.monotonic() >= self._ml_only_until:
            request = v1.ReadFileRequest(
                model_id=ref.repo, path=ref.path, revision=ref.revision or "", chunk_bytes=CHUNK_BYTES
            )
            try:
                return _Transfer(
                    ref, self._address, self._stall_s, self._start(self._read, request), _v1_chunk
                ).stream()
            except _NotThereError:
                self._ml_only_until = time.monotonic() + _ML_ONLY_S
        old = ml.ModelFileRequest(model_id=ref.repo, file_path=ref.path)
        try:
            return _Transfer(ref, self._address, self._stall_s, self._start(self._get, old), _ml_chunk).stream()
        except _NotThereError:
            self._ml_only_until = 0.0
            raise ProviderUnavailableError(
                f"{ref}: the program at {self._address} serves neither ModelFileService nor GetModelFile"
            ) from None

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of a repository, sorted by path.

        Raises:
            ModelFileNotFoundError: the parent has no such repository, or can't list.
            ProviderError: it isn't there.
        """
        request = v1.ListFilesRequest(model_id=check_name("repo", repo), revision=revision or "")
        try:
            answer = self._list(request, timeout=LIST_S, metadata=self._metadata)
        except grpc.RpcError as problem:
            if problem.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ModelFileNotFoundError(
                    f"{repo}: the program at {self._address} can't list files; name them"
                ) from None
            raise _translated(problem, repo, self._address) from None
        found = [
            FileInfo(
                path=check_name("path", file.path),
                size=file.size if file.HasField("size") else None,
                sha256=file.sha256.lower() or None,
            )
            for file in answer.files
        ]
        return sorted(found, key=lambda info: info.path)

    def close(self) -> None:
        """Hang up; transfers that are running are cut."""
        self._channel.close()

    def _start(self, method: Any, request: Any) -> Callable[[], Any]:
        return lambda: method(request, metadata=self._metadata)


class _NotThereError(Exception):
    """The method is not implemented."""


def _v1_chunk(message: v1.ReadFileResponse) -> Chunk:
    return message.data, message.offset, message.total_size, False, message.sha256


def _ml_chunk(message: ml.ModelFileChunk) -> Chunk:
    return message.data, message.offset, message.total_size, message.is_last, message.sha256


class _Transfer:
    """One file on its way."""

    def __init__(
        self, ref: FileRef, address: str, stall_s: float, start: Callable[[], Any], read: Callable[[Any], Chunk]
    ) -> None:
        self._ref = ref
        self._address = address
        self._stall_s = stall_s
        self._start = start
        self._read = read
        self._has_end = read is _ml_chunk
        self._call: Any = None
        self._beat = time.monotonic()
        self._over = threading.Event()
        self._stalled = False
        self._received = 0
        self._total = -1
        self._sha256 = ""

    def stream(self) -> FileStream:
        """Begin; the first chunk is here when this returns."""
        self._call = self._start()
        cancellation = current_cancellation()
        forget = cancellation.on_cancel(self._call.cancel) if cancellation is not None else None
        threading.Thread(target=self._watch, name="file-watch", daemon=True).start()
        try:
            chunks = self._rest(self._next())
            self._stream = FileStream(chunks, size=self._total, close=self._end, cancel=self._call.cancel)
            self._stream.sha256 = self._sha256 or None
            return self._stream
        except BaseException:
            self._end()
            raise
        finally:
            if forget is not None:
                forget()

    def _rest(self, first: Chunk) -> Iterator[bytes]:
        data, last = first[0], first[3]
        while True:
            if data:
                yield data
            if last and self._received != self._total:
                raise self._lie(f"the last chunk ends at {self._received} of {self._total} bytes")
            chunk = self._next(allow_end=True)
            if chunk is None:
                break
            if last or not data:  # an empty one is the whole of an empty file
                raise self._lie("chunks come after the last one")
            data, last = chunk[0], chunk[3]
        if self._received != self._total:
            raise ProviderUnavailableError(
                f"{self._ref}: {self._received} of {self._total} bytes arrived from {self._address}; try again"
            )
        if self._has_end and not last:
            raise self._lie("no chunk says that it is the last")
        self._stream.sha256 = self._sha256 or None

    def _next(self, allow_end: bool = False) -> Any:
        """The next chunk, checked; None at the end where that may be."""
        self._beat = time.monotonic()
        try:
            message = next(self._call, None)
        except grpc.RpcError as problem:
            if self._stalled:
                raise ProviderTimeoutError(
                    f"{self._ref}: no byte from {self._address} for {self._stall_s:g} s; "
                    f"{self._received} had arrived; try again"
                ) from None
            if problem.code() is grpc.StatusCode.UNIMPLEMENTED and self._total < 0:
                raise _NotThereError from None
            raise _translated(problem, str(self._ref), self._address) from None
        if message is None:
            if allow_end:
                return None
            raise self._lie("the stream ended without a chunk")
        chunk = self._read(message)
        data, offset, total, _, sha256 = chunk
        if offset != self._received:
            raise self._lie(f"a chunk begins at {offset}, not at {self._received}")
        if total < 0 or (self._total >= 0 and total != self._total):
            raise self._lie(f"total_size is {total} and was {self._total}")
        if not data and total:
            raise self._lie("a chunk is empty")
        if sha256 and self._sha256 and sha256.lower() != self._sha256:
            raise self._lie("two chunks have different checksums")
        self._total = total
        self._received += len(data)
        self._sha256 = sha256.lower() or self._sha256
        if self._received > total:
            raise self._lie(f"{self._received} bytes arrived of total_size={total}")
        return chunk

    def _lie(self, what: str) -> CorruptModelError:
        return CorruptModelError(f"{self._ref}: {what}; nothing of it was used")

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._stall_s / 4)):
            if time.monotonic() - self._beat > self._stall_s:
                self._stalled = True
                self._call.cancel()
                return

    def _end(self) -> None:
        self._over.set()
        self._call.cancel()


def _translated(problem: Any, what: str, address: str) -> Exception:
    """The parent's status as an error of tabml's."""
    code, said = problem.code(), " ".join((problem.details() or "").split())[:200]
    kinds: dict[Any, type[Exception]] = {
        grpc.StatusCode.NOT_FOUND: ModelFileNotFoundError,
        grpc.StatusCode.PERMISSION_DENIED: ProviderAccessError,
        grpc.StatusCode.UNAUTHENTICATED: ProviderAccessError,
        grpc.StatusCode.DEADLINE_EXCEEDED: ProviderTimeoutError,
        grpc.StatusCode.DATA_LOSS: CorruptModelError,
    }
    if code is grpc.StatusCode.NOT_FOUND:
        return ModelFileNotFoundError(f"{what}: the program at {address} doesn't have it ({said})")
    hint = (
        "; start the program that serves model files there, or say --files catalog:"
        if (code is grpc.StatusCode.UNAVAILABLE)
        else ""
    )
    return kinds.get(code, ProviderUnavailableError)(f"{what}: {address} answered {code.name}: {said}{hint}")
