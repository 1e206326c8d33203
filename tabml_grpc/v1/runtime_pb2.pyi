from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ("version", "protocol", "pid", "started_at_ms", "python", "platform", "cpus", "families", "files", "draining", "methods", "call_classes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    CALL_CLASSES_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol: int
    pid: int
    started_at_ms: int
    python: str
    platform: str
    cpus: int
    families: _containers.RepeatedScalarFieldContainer[str]
    files: str
    draining: bool
    methods: _containers.RepeatedCompositeFieldContainer[MethodInfo]
    call_classes: _containers.RepeatedCompositeFieldContainer[CallClass]
    def __init__(self, version: _Optional[str] = ..., protocol: _Optional[int] = ..., pid: _Optional[int] = ..., started_at_ms: _Optional[int] = ..., python: _Optional[str] = ..., platform: _Optional[str] = ..., cpus: _Optional[int] = ..., families: _Optional[_Iterable[str]] = ..., files: _Optional[str] = ..., draining: bool = ..., methods: _Optional[_Iterable[_Union[MethodInfo, _Mapping]]] = ..., call_classes: _Optional[_Iterable[_Union[CallClass, _Mapping]]] = ...) -> None: ...

class MethodInfo(_message.Message):
    __slots__ = ("name", "available", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    available: bool
    reason: str
    def __init__(self, name: _Optional[str] = ..., available: bool = ..., reason: _Optional[str] = ...) -> None: ...

class CallClass(_message.Message):
    __slots__ = ("name", "limit", "active")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    limit: int
    active: int
    def __init__(self, name: _Optional[str] = ..., limit: _Optional[int] = ..., active: _Optional[int] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("prometheus",)
    PROMETHEUS_FIELD_NUMBER: _ClassVar[int]
    prometheus: bool
    def __init__(self, prometheus: bool = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("uptime_s", "rss_bytes", "peak_rss_bytes", "threads", "file_descriptors", "methods", "log_lines_dropped", "prometheus")
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    FILE_DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    LOG_LINES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    PROMETHEUS_FIELD_NUMBER: _ClassVar[int]
    uptime_s: float
    rss_bytes: int
    peak_rss_bytes: int
    threads: int
    file_descriptors: int
    methods: _containers.RepeatedCompositeFieldContainer[MethodStats]
    log_lines_dropped: int
    prometheus: str
    def __init__(self, uptime_s: _Optional[float] = ..., rss_bytes: _Optional[int] = ..., peak_rss_bytes: _Optional[int] = ..., threads: _Optional[int] = ..., file_descriptors: _Optional[int] = ..., methods: _Optional[_Iterable[_Union[MethodStats, _Mapping]]] = ..., log_lines_dropped: _Optional[int] = ..., prometheus: _Optional[str] = ...) -> None: ...

class MethodStats(_message.Message):
    __slots__ = ("method", "started", "active", "by_code", "p50_ms", "p99_ms", "frames", "frames_dropped")
    class ByCodeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    METHOD_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    BY_CODE_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    method: str
    started: int
    active: int
    by_code: _containers.ScalarMap[str, int]
    p50_ms: float
    p99_ms: float
    frames: int
    frames_dropped: int
    def __init__(self, method: _Optional[str] = ..., started: _Optional[int] = ..., active: _Optional[int] = ..., by_code: _Optional[_Mapping[str, int]] = ..., p50_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ..., frames: _Optional[int] = ..., frames_dropped: _Optional[int] = ...) -> None: ...

class StreamEventsRequest(_message.Message):
    __slots__ = ("after", "follow", "min_level")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    MIN_LEVEL_FIELD_NUMBER: _ClassVar[int]
    after: int
    follow: bool
    min_level: str
    def __init__(self, after: _Optional[int] = ..., follow: bool = ..., min_level: _Optional[str] = ...) -> None: ...

class StreamEventsResponse(_message.Message):
    __slots__ = ("sequence", "time_ms", "level", "logger", "message")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LOGGER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time_ms: int
    level: str
    logger: str
    message: str
    def __init__(self, sequence: _Optional[int] = ..., time_ms: _Optional[int] = ..., level: _Optional[str] = ..., logger: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ("cancelled",)
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    cancelled: int
    def __init__(self, cancelled: _Optional[int] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("grace_s",)
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    grace_s: float
    def __init__(self, grace_s: _Optional[float] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("active",)
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    active: int
    def __init__(self, active: _Optional[int] = ...) -> None: ...

class PrewarmRequest(_message.Message):
    __slots__ = ("families",)
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    families: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, families: _Optional[_Iterable[str]] = ...) -> None: ...

class PrewarmResponse(_message.Message):
    __slots__ = ("families", "seconds")
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    families: _containers.RepeatedScalarFieldContainer[str]
    seconds: float
    def __init__(self, families: _Optional[_Iterable[str]] = ..., seconds: _Optional[float] = ...) -> None: ...
