"""``tabml.v1.RuntimeService``: what the server can do, how it fares, and how it is told to stop."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor

import tabml
from tabml.pipelines import PIPELINES, prewarm
from tabml_grpc import process
from tabml_grpc.calls import Call, Calls
from tabml_grpc.flags import FAMILIES, LEVELS, Settings
from tabml_grpc.logs import Event, LogRing
from tabml_grpc.models import Models
from tabml_grpc.statuses import RequestError
from tabml_grpc.v1 import runtime_pb2 as v1

PROTOCOL = 1


class RuntimeService:
    """``tabml.v1.RuntimeService``."""

    def __init__(
        self,
        calls: Calls,
        models: Models,
        settings: Settings,
        ring: LogRing,
        executor: Executor,
        drain: Callable[[float | None], None],
    ) -> None:
        self._calls = calls
        self._models = models
        self._settings = settings
        self._ring = ring
        self._executor = executor
        self._drain = drain
        self._started = time.time()

    async def GetInfo(self, request: v1.GetInfoRequest, call: Call) -> v1.GetInfoResponse:
        """Version, place, methods, limits."""
        calls = self._calls
        return v1.GetInfoResponse(
            version=tabml.__version__,
            protocol=PROTOCOL,
            pid=os.getpid(),
            started_at_ms=int(self._started * 1000),
            python=platform.python_version(),
            platform=f"{sys.platform}-{platform.machine()}",
            cpus=os.cpu_count() or 1,
            families=[each for each in self._settings.services if _has_something(each)],
            files=self._models.source,
            draining=calls.draining,
            methods=[
                v1.MethodInfo(
                    name=name, available=name not in calls.unavailable, reason=calls.unavailable.get(name, "")
                )
                for name in calls.counts
            ],
            call_classes=[
                v1.CallClass(name=each.name, limit=each.limit, active=each.active) for each in calls.classes.values()
            ],
        )

    async def GetStats(self, request: v1.GetStatsRequest, call: Call) -> v1.GetStatsResponse:
        """The figures of every method that was called, and of the process."""
        response = v1.GetStatsResponse(
            uptime_s=time.time() - self._started,
            rss_bytes=process.rss_bytes(),
            peak_rss_bytes=process.peak_rss_bytes(),
            threads=process.threads(),
            file_descriptors=process.open_descriptors(),
            log_lines_dropped=self._ring.dropped,
            methods=[
                v1.MethodStats(
                    method=name,
                    started=count.started,
                    active=count.active,
                    by_code=count.by_code,
                    p50_ms=count.percentile(0.5),
                    p99_ms=count.percentile(0.99),
                    frames=count.frames,
                    frames_dropped=count.frames_dropped,
                )
                for name, count in self._calls.counts.items()
                if count.started
            ],
        )
        if request.prometheus:
            response.prometheus = prometheus_text(response)
        return response

    async def StreamEvents(self, request: v1.StreamEventsRequest, call: Call) -> None:
        """Log records."""
        if request.min_level and request.min_level not in LEVELS:
            raise RequestError(f"min_level={request.min_level[:40]!r} must be one of {', '.join(LEVELS)}")
        lowest = LEVELS.index(request.min_level) if request.min_level else 0
        loop, news, said = asyncio.get_running_loop(), asyncio.Event(), request.after

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)

        self._ring.listeners.append(wake)
        try:
            while True:
                news.clear()
                for event in tuple(self._ring.events):
                    if event.sequence > said:
                        said = event.sequence
                        if _rank(event) >= lowest:
                            await call.send(_event(event))
                if not request.follow:
                    return
                await news.wait()
        finally:
            self._ring.listeners.remove(wake)

    async def Cancel(self, request: v1.CancelRequest, call: Call) -> v1.CancelResponse:
        """End the calls of a request id."""
        if not request.request_id:
            raise RequestError("request_id='' must be what a call carries as metadata tabml-request-id")
        return v1.CancelResponse(cancelled=self._calls.cancel(request.request_id))

    async def Drain(self, request: v1.DrainRequest, call: Call) -> v1.DrainResponse:
        """Begin to end."""
        if not 0 <= request.grace_s <= 3600:
            raise RequestError(f"grace_s={request.grace_s:g} must be a number from 0 to 3600")
        active = sum(count.active for count in self._calls.counts.values()) - 1
        asyncio.get_running_loop().call_soon(self._drain, request.grace_s or None)
        return v1.DrainResponse(active=active)

    async def Prewarm(self, request: v1.PrewarmRequest, call: Call) -> v1.PrewarmResponse:
        """Import libraries."""
        for family in request.families:
            if family not in FAMILIES:
                raise RequestError(f"families={family[:40]!r} must be among {', '.join(FAMILIES)}")
        started = time.monotonic()
        families = [each for each in request.families or self._settings.services if each in self._settings.services]
        for family in families:
            await asyncio.get_running_loop().run_in_executor(self._executor, prewarm, family)
        return v1.PrewarmResponse(families=families, seconds=time.monotonic() - started)


def _has_something(family: str) -> bool:
    return any(pipeline.family == family and not pipeline.reason for pipeline in PIPELINES.values())


def _rank(event: Event) -> int:
    return LEVELS.index(event.level) if event.level in LEVELS else len(LEVELS)


def _event(event: Event) -> v1.StreamEventsResponse:
    return v1.StreamEventsResponse(
        sequence=event.sequence,
        time_ms=event.time_ms,
        level=event.level,
        logger=event.logger,
        message=event.message,
    )


def prometheus_text(stats: v1.GetStatsResponse) -> str:
    """The figures in Prometheus' text format, version 0.0.4."""
    lines = []

    def add(name: str, kind: str, rows: list[tuple[str, float]]) -> None:
        lines.append(f"# TYPE tabml_{name} {kind}")
        lines.extend(f"tabml_{name}{labels} {value:g}" for labels, value in rows)

    add("uptime_seconds", "gauge", [("", stats.uptime_s)])
    add("resident_memory_bytes", "gauge", [("", stats.rss_bytes)])
    add("threads", "gauge", [("", stats.threads)])
    add("open_fds", "gauge", [("", stats.file_descriptors)])
    add("log_lines_dropped_total", "counter", [("", stats.log_lines_dropped)])
    methods = stats.methods
    add("calls_started_total", "counter", [(f'{{method="{m.method}"}}', m.started) for m in methods])
    add("calls_active", "gauge", [(f'{{method="{m.method}"}}', m.active) for m in methods])
    ended = [(f'{{method="{m.method}",code="{code}"}}', n) for m in methods for code, n in sorted(m.by_code.items())]
    add("calls_ended_total", "counter", [*ended])
    seconds = [
        (f'{{method="{m.method}",quantile="{quantile}"}}', value / 1000)
        for m in methods
        for quantile, value in (("0.5", m.p50_ms), ("0.99", m.p99_ms))
    ]
    add("call_seconds", "gauge", seconds)
    add("frames_total", "counter", [(f'{{method="{m.method}"}}', m.frames) for m in methods])
    add("frames_dropped_total", "counter", [(f'{{method="{m.method}"}}', m.frames_dropped) for m in methods])
    return "\n".join(lines) + "\n"
