"""Puts the services together, listens, says so, and ends well."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from tabml.errors import MissingExtraError, OptionError
from tabml.files import FileProvider, ResidentFiles, open_provider
from tabml.files.catalog import AssembledFiles
from tabml.files.fallback import FallbackProvider
from tabml.pipelines import prewarm
from tabml_grpc.calls import Call, CallClass, Calls, parsed
from tabml_grpc.edge import EdgeService
from tabml_grpc.flags import Settings
from tabml_grpc.logs import LogRing
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.models import ModelManagementService, Models, ModelService
from tabml_grpc.parent import ParentFiles
from tabml_grpc.runtime import PROTOCOL, RuntimeService
from tabml_grpc.streams import Vision
from tabml_grpc.text import Text, TextService, TransformersService
from tabml_grpc.v1 import edge_pb2, models_pb2, runtime_pb2, text_pb2, vision_pb2
from tabml_grpc.vision import MediapipeService, VisionService
from tabml_grpc.workers import Workers

log = logging.getLogger("tabml_grpc")

MAX_REQUEST = 64 << 20
_LOADS = 16
_FILES = 8
_FOLLOWERS = 16
_LOAD_THREADS = 8

OPTIONS = (
    ("grpc.so_reuseport", 0),  # or an orphan and a new server share the port
    ("grpc.max_receive_message_length", MAX_REQUEST),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.keepalive_permit_without_calls", 1),  # clients may ping through a long load
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # no compressed requests: they may be bombs
    ("grpc.enable_http_proxy", 0),
)

_CLASSES = {
    "LoadModel": "loads", "UnloadModel": "loads", "UnloadModels": "loads", "Prewarm": "loads",
    "GetModelFile": "file transfers", "StreamEvents": "log streams", "ServerReflectionInfo": "log streams",
    "GetLoadedModels": "status calls", "ListModels": "status calls", "ListPipelines": "status calls",
    "GetInfo": "status calls", "GetStats": "status calls", "Cancel": "status calls", "Drain": "status calls",
}  # fmt: skip


class _Reflection:
    """The library's servicer, behind the same door as ours."""

    def __init__(self, read: Callable[[bytes], Any], servicer: Any) -> None:
        self._read = read
        self._servicer = servicer

    async def ServerReflectionInfo(self, messages: AsyncIterator[bytes], call: Call) -> None:
        """Describe services."""
        requests = (self._read(raw) async for raw in messages)
        async for answer in self._servicer.ServerReflectionInfo(requests, None):
            await call.send(answer)


class AddressTakenError(Exception):
    """Somebody else listens there."""


def model_files(settings: Settings, token: str | None) -> ResidentFiles:
    """Where model files come from: the parent, or what ``--files`` names, each kept in memory only.

    Raises:
        OptionError: a URI or the endpoint is not one.
    """
    sources: list[FileProvider] = [
        ParentFiles(settings.file_endpoint, token=token) if uri == "parent" else open_provider(uri)
        for uri in settings.files
    ]
    return ResidentFiles(AssembledFiles(sources[0] if len(sources) == 1 else FallbackProvider(sources)))


def _call_class(name: str) -> str:
    return _CLASSES.get(name) or ("streams" if name.startswith("Stream") else "calls")


def _later(name: str) -> str:
    return f"{name} comes with a later release of tabml"


def _disabled(family: str) -> Callable[[str], str]:
    return lambda name: f"{name}: this server runs without --services {family}"


class Server:
    """The server of one process."""

    def __init__(self, settings: Settings, ring: LogRing) -> None:
        """Nothing listens yet.

        Raises:
            OptionError: a setting is not possible.
        """
        token = None
        if settings.token_env is not None:
            token = os.environ.pop(settings.token_env, "")
            if not token:
                raise OptionError(f"token_env={settings.token_env!r} names an environment variable that is not set")
        self._settings = settings
        self._ring = ring
        self._loads = ThreadPoolExecutor(_LOAD_THREADS, thread_name_prefix="load")
        self._workers = Workers(os.cpu_count() or 1)
        self._calls = Calls(
            token=token,
            classes={
                each.name: each
                for each in (
                    CallClass("status calls", 0),
                    CallClass("loads", _LOADS),
                    CallClass("file transfers", _FILES),
                    CallClass("log streams", _FOLLOWERS),
                    CallClass("calls", settings.max_calls),
                    CallClass("streams", settings.max_streams),
                )
            },
        )
        where = " then ".join(settings.file_endpoint if uri == "parent" else uri for uri in settings.files)
        self._models = Models(model_files(settings, token), where, self._loads)
        self._health = HealthServicer()
        self._stopping: asyncio.Event | None = None
        self._grace_s = settings.grace_s

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve until told to end.

        Args:
            ready: Called with the address once calls are answered.

        Raises:
            AddressTakenError: somebody else listens there.
            OptionError: the socket's folder is open to others.
        """
        self._stopping = asyncio.Event()
        server = grpc.aio.server(options=OPTIONS)
        names = self._add_services(server)
        address = self._listen(server)
        await server.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError, RuntimeError):  # not on Windows, not off the main thread
                loop.add_signal_handler(each, self.drain, None)
        ready(address)
        if self._settings.prewarm:
            self._loads.submit(self._prewarm)
        await self._stopping.wait()
        self._calls.draining = True
        await self._health.enter_graceful_shutdown()
        await server.stop(self._grace_s)
        if self._settings.uds is not None:
            Path(self._settings.uds).unlink(missing_ok=True)

    def drain(self, grace_s: float | None = None) -> None:
        """Begin to end; from the event loop's thread."""
        if self._stopping is not None and not self._stopping.is_set():
            self._grace_s = self._settings.grace_s if grace_s is None else grace_s
            log.info("draining, %g s at the most", self._grace_s)
            self._stopping.set()

    def _prewarm(self) -> None:
        # Only what is cheap: torch takes 150 MB and seconds of processor time, and waits for a load or the RPC.
        for family in {"vision"} & set(self._settings.services):
            try:
                prewarm(family)
            except MissingExtraError as problem:
                log.warning("%s", problem)
            except Exception:
                log.exception("prewarm of %s failed", family)

    def _add_services(self, server: grpc.aio.Server) -> list[str]:
        settings, calls = self._settings, self._calls
        vision = Vision(self._models, self._workers)
        runtime = RuntimeService(calls, self._models, settings, self._ring, self._loads, self.drain)
        seeing, writing, on_device = (family in settings.services for family in ("vision", "text", "edge"))
        text = Text(self._models)
        nothing = object()
        v1_vision = vision_pb2.DESCRIPTOR.services_by_name["VisionService"]
        services: list[tuple[Any, object, Callable[[str], str]]] = [
            (ml.DESCRIPTOR.services_by_name["ModelManagementService"], ModelManagementService(self._models), _later),
            (
                ml.DESCRIPTOR.services_by_name["TransformersService"],
                TransformersService(text) if writing else nothing,
                _later if writing else _disabled("text"),
            ),
            (
                text_pb2.DESCRIPTOR.services_by_name["TextService"],
                TextService(text) if writing else nothing,
                _later if writing else _disabled("text"),
            ),
            (runtime_pb2.DESCRIPTOR.services_by_name["RuntimeService"], runtime, _later),
            (models_pb2.DESCRIPTOR.services_by_name["ModelService"], ModelService(self._models), _later),
            (
                ml.DESCRIPTOR.services_by_name["MediapipeService"],
                MediapipeService(vision) if seeing else nothing,
                _later if seeing else _disabled("vision"),
            ),
            (v1_vision, VisionService(vision) if seeing else nothing, _later if seeing else _disabled("vision")),
            (
                edge_pb2.DESCRIPTOR.services_by_name["EdgeService"],
                EdgeService(text) if on_device else nothing,
                _later if on_device else _disabled("edge"),
            ),
        ]
        names = [service.full_name for service, _, _ in services]
        if settings.reflection:
            from grpc_reflection.v1alpha import reflection, reflection_pb2

            answers = reflection.aio.ReflectionServicer([*names, "grpc.health.v1.Health"])
            kind = reflection_pb2.ServerReflectionRequest
            servicer = _Reflection(lambda raw: parsed(kind, raw), answers)
            services.append((reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"], servicer, _later))
        server.add_generic_rpc_handlers(
            tuple(calls.handlers(service, servicer, _call_class, later) for service, servicer, later in services)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return names

    def _listen(self, server: grpc.aio.Server) -> str:
        """Bind both loopbacks or the socket; gives the address for callers."""
        if self._settings.uds is not None:
            return self._listen_on_socket(server, self._settings.uds)
        port = self._settings.port
        for host in ("127.0.0.1", "[::1]"):
            try:
                port = server.add_insecure_port(f"{host}:{port}") or port
            except RuntimeError as problem:
                if host == "[::1]" and (self._settings.port == 0 or not _has_ipv6()):
                    continue
                raise AddressTakenError(f"{host}:{port} is taken or can't be bound") from problem
        return f"127.0.0.1:{port}"

    @staticmethod
    def _listen_on_socket(server: grpc.aio.Server, path: str) -> str:
        place = Path(path).absolute()
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = place.parent.stat()
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise OptionError(
                f"uds={path!r}: its folder must be this user's and of mode 0700; chmod 700 {place.parent}"
            )
        if place.is_socket():
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(place))
                except OSError:
                    place.unlink()  # left by a server that was killed
                else:
                    raise AddressTakenError(f"unix:{place} is taken")
        elif place.exists():
            raise OptionError(f"uds={path!r} exists and is not a socket")
        try:
            server.add_insecure_port(f"unix:{place}")
        except RuntimeError as problem:
            raise AddressTakenError(f"unix:{place} can't be bound (a path of more than 107 bytes?)") from problem
        return f"unix:{place}"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def ready_line(address: str) -> bytes:
    """What the parent waits for on stdout."""
    facts = {"address": address, "pid": os.getpid(), "protocol": PROTOCOL}
    return f"TABML/1 READY {json.dumps(facts, separators=(',', ':'))}\n".encode()
