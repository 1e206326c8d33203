"""What every call passes through: who may call, how many at a time, how it is counted, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError, Message

from tabml.errors import CallCancelledError, CapacityError, UnavailableHereError
from tabml_grpc.statuses import (
    DrainingError,
    RequestError,
    UnauthenticatedError,
    details_of,
    message_of,
    status_of,
)

log = logging.getLogger("tabml_grpc")

MAX_RESPONSE = 7 << 19
"""3.5 MiB: existing clients receive 4 MiB at the most."""
_RECENT = 512
_DETAILS = "grpc-status-details-bin"
REQUEST_ID = "tabml-request-id"
Context = grpc.aio.ServicerContext[Any, Any]
Answer = Message | bytes


@dataclass(slots=True)
class CallClass:
    """Calls that share one limit."""

    name: str
    """What the limit is called in messages."""
    limit: int
    """How many at a time; 0 for any number."""
    active: int = 0
    """How many now."""


@dataclass(slots=True)
class MethodCount:
    """How one method has fared."""

    started: int = 0
    active: int = 0
    by_code: dict[str, int] = field(default_factory=dict)
    recent_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    frames: int = 0
    frames_dropped: int = 0

    def add_drops(self, dropped: int, counted: int) -> int:
        """Count what a stream has dropped beyond ``counted``; gives what is counted now."""
        self.frames_dropped += dropped - counted
        return dropped

    def percentile(self, share: float) -> float:
        """Milliseconds within which ``share`` of the recent calls ended."""
        ordered = sorted(self.recent_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Call:
    """One call, as a servicer sees it."""

    def __init__(self, method: str, context: Context, count: MethodCount) -> None:
        self.method = method
        """As in ``/package.Service/Method``."""
        self.count = count
        """The figures of its method."""
        self.metadata: dict[str, str | bytes] = dict(context.invocation_metadata() or ())
        """What the caller sent along; of keys that come twice the last."""
        self.request_id = str(self.metadata.get(REQUEST_ID) or uuid.uuid4().hex)[:128]
        """By which it can be cancelled."""
        self.arrived_ms = int(time.time() * 1000)
        """Unix time, milliseconds."""
        self._context = context
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._problem: Exception | None = None

    async def send(self, answer: Answer) -> None:
        """Write one message of a stream; waits while the caller reads too slowly.

        Raises:
            CallCancelledError: the caller is gone.
        """
        try:
            await self._context.write(_bytes(answer))
        except grpc.aio.InternalError:  # a connection that broke meanwhile; told apart by nothing else
            raise CallCancelledError("the caller is gone") from None

    def end(self, problem: Exception) -> None:
        """From any thread: stop the call; the caller gets ``problem``."""
        self._loop.call_soon_threadsafe(self._end, problem)

    def _end(self, problem: Exception) -> None:
        if self._problem is None and self._task is not None and not self._task.done():
            self._problem = problem
            self._task.cancel()

    @property
    def problem(self) -> Exception | None:
        """What :meth:`end` said."""
        return self._problem


Unary = Callable[[Any, Call], Awaitable[Answer]]


class MethodDescriptor(Protocol):
    """What is used of protobuf's."""

    name: str
    full_name: str
    client_streaming: bool
    server_streaming: bool
    input_type: Any


class Calls:
    """Makes gRPC handlers out of a servicer's plain methods."""

    def __init__(self, *, token: str | None, classes: Mapping[str, CallClass]) -> None:
        """Nothing is served yet.

        Args:
            token: What every call must bear, or None.
            classes: The limits, by name.
        """
        self._token = f"Bearer {token}".encode() if token is not None else None
        self.classes = classes
        """The limits, by name."""
        self.counts: dict[str, MethodCount] = {}
        """The figures, by method."""
        self.unavailable: dict[str, str] = {}
        """Methods that answer UNIMPLEMENTED, and why."""
        self.running: dict[str, set[Call]] = {}
        """Calls by request id."""
        self.draining = False
        """Set when no new call is accepted."""

    def cancel(self, request_id: str) -> int:
        """End the calls of a request id; gives how many there were."""
        found = tuple(self.running.get(request_id, ()))
        for call in found:
            call.end(CallCancelledError(f"request_id={request_id!r} was cancelled by another call"))
        return len(found)

    def handlers(
        self, service: Any, servicer: object, call_class: Callable[[str], str], later: Callable[[str], str]
    ) -> grpc.GenericRpcHandler:
        """All methods of a service.

        Args:
            service: Its descriptor.
            servicer: Has a coroutine by the name of each method that is there; it takes the request (of a stream
                an iterator of bytes) and the call, and returns the answer, or sends several by :meth:`Call.send`.
            call_class: From a method's name to the name of its limit.
            later: From a method's name to why it isn't there.
        """
        table = {}
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            function = getattr(servicer, method.name, None)
            if function is None:
                reason = self.unavailable[path] = later(method.name)
                function = _unavailable(reason)
            table[method.name] = self._handler(path, method, function, self.classes[call_class(method.name)])
        return grpc.method_handlers_generic_handler(service.full_name, table)

    def _handler(
        self, path: str, method: MethodDescriptor, function: Any, limit: CallClass
    ) -> grpc.RpcMethodHandler[Any, Any]:
        kind = method.input_type._concrete_class
        count = self.counts[path] = MethodCount()

        # Messages stay bytes for gRPC, so that one that can't be read gets a status of ours.
        def read(raw: bytes) -> Any:
            return parsed(kind, raw)

        async def respond(given: Any, context: Context) -> bytes:
            async def work(call: Call) -> bytes:
                return _bytes(await function(given if method.client_streaming else read(given), call))

            return await self._run(path, context, count, limit, work)

        async def stream(given: Any, context: Context) -> None:
            async def work(call: Call) -> bytes:
                await function(given if method.client_streaming else read(given), call)
                return b""

            await self._run(path, context, count, limit, work)

        if method.client_streaming and method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(stream)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        if method.client_streaming:
            return grpc.stream_unary_rpc_method_handler(respond)
        return grpc.unary_unary_rpc_method_handler(respond)

    async def _run(
        self,
        path: str,
        context: Context,
        count: MethodCount,
        limit: CallClass,
        work: Callable[[Call], Coroutine[Any, Any, bytes]],
    ) -> bytes:
        started = time.monotonic()
        code = grpc.StatusCode.OK
        call = Call(path, context, count)
        count.started += 1
        count.active += 1
        limit.active += 1
        self.running.setdefault(call.request_id, set()).add(call)
        try:
            self._admit(call, limit)
            answer = await work(call)
            if context.cancelled():  # what a stream of requests looks like then is its end
                code = grpc.StatusCode.CANCELLED
            return answer
        except asyncio.CancelledError:
            if call.problem is None:  # the caller went away, or its deadline has passed
                code = grpc.StatusCode.CANCELLED
                raise
            code = await self._fail(context, call, call.problem)
        except Exception as problem:
            code = await self._fail(context, call, problem)
        finally:
            self._forget(call)
            limit.active -= 1
            count.active -= 1
            name = code.name
            count.by_code[name] = count.by_code.get(name, 0) + 1
            count.recent_ms.append((time.monotonic() - started) * 1000)
        return b""

    def _admit(self, call: Call, limit: CallClass) -> None:
        if self._token is not None:
            given = call.metadata.get("authorization", "")
            given = given if isinstance(given, bytes) else given.encode()
            if not hmac.compare_digest(given, self._token):
                raise UnauthenticatedError("the metadata 'authorization: Bearer TOKEN' is missing or wrong")
        if self.draining and limit.limit:
            raise DrainingError("the server is draining; call the next one")
        if limit.limit and limit.active > limit.limit:
            raise CapacityError(f"{limit.limit} {limit.name} are running, which is the limit; try again a little later")

    def _forget(self, call: Call) -> None:
        same = self.running[call.request_id]
        same.discard(call)
        if not same:
            del self.running[call.request_id]

    async def _fail(self, context: Context, call: Call, problem: Exception) -> grpc.StatusCode:
        code = status_of(problem)
        if code is grpc.StatusCode.INTERNAL:
            log.error("%s failed", call.method, exc_info=problem)
        else:
            log.debug("%s: %s %s", call.method, code.name, message_of(problem))
        details = details_of(problem, {"request_id": call.request_id})
        with contextlib.suppress(grpc.aio.AbortError, grpc.aio.InternalError):
            await context.abort(code, message_of(problem), ((_DETAILS, details),))
        return code


def parsed(kind: Any, raw: bytes) -> Any:
    """A message out of its bytes.

    Raises:
        RequestError: they are not one.
    """
    try:
        return kind.FromString(raw)
    except DecodeError as problem:
        raise RequestError(f"the request is not a {kind.DESCRIPTOR.full_name}: {problem}") from None


def _bytes(answer: Answer) -> bytes:
    found = answer if isinstance(answer, bytes) else answer.SerializeToString()
    if len(found) > MAX_RESPONSE:
        raise RequestError(
            f"the response has {len(found)} bytes, and the limit is {MAX_RESPONSE}; ask for less at a time"
        )
    return found


def _unavailable(reason: str) -> Unary:
    async def refuse(request: Any, call: Call) -> Answer:
        raise UnavailableHereError(reason)

    return refuse
