from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOAD_PHASE_UNSPECIFIED: _ClassVar[LoadPhase]
    LOAD_PHASE_WAITING: _ClassVar[LoadPhase]
    LOAD_PHASE_FETCHING: _ClassVar[LoadPhase]
    LOAD_PHASE_BUILDING: _ClassVar[LoadPhase]
    LOAD_PHASE_DONE: _ClassVar[LoadPhase]

class UnloadMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNLOAD_MODE_UNSPECIFIED: _ClassVar[UnloadMode]
    UNLOAD_MODE_WAIT: _ClassVar[UnloadMode]
    UNLOAD_MODE_CANCEL: _ClassVar[UnloadMode]
LOAD_PHASE_UNSPECIFIED: LoadPhase
LOAD_PHASE_WAITING: LoadPhase
LOAD_PHASE_FETCHING: LoadPhase
LOAD_PHASE_BUILDING: LoadPhase
LOAD_PHASE_DONE: LoadPhase
UNLOAD_MODE_UNSPECIFIED: UnloadMode
UNLOAD_MODE_WAIT: UnloadMode
UNLOAD_MODE_CANCEL: UnloadMode

class LoadModelRequest(_message.Message):
    __slots__ = ("model_id", "pipeline", "architecture", "options", "file", "revision")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    pipeline: str
    architecture: str
    options: _containers.ScalarMap[str, str]
    file: str
    revision: str
    def __init__(self, model_id: _Optional[str] = ..., pipeline: _Optional[str] = ..., architecture: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ..., file: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("phase", "file", "bytes_done", "bytes_total", "model")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    phase: LoadPhase
    file: str
    bytes_done: int
    bytes_total: int
    model: ModelInfo
    def __init__(self, phase: _Optional[_Union[LoadPhase, str]] = ..., file: _Optional[str] = ..., bytes_done: _Optional[int] = ..., bytes_total: _Optional[int] = ..., model: _Optional[_Union[ModelInfo, _Mapping]] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("model_id", "pipeline", "options", "pipeline_class", "device", "dtype", "capabilities", "weights_bytes", "rss_bytes", "load_seconds", "fetch_seconds", "bytes_fetched", "loaded_at_ms", "last_used_at_ms", "active_requests", "already_loaded", "files")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_CLASS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FETCH_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FETCHED_FIELD_NUMBER: _ClassVar[int]
    LOADED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ALREADY_LOADED_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    pipeline: str
    options: _containers.ScalarMap[str, str]
    pipeline_class: str
    device: str
    dtype: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    weights_bytes: int
    rss_bytes: int
    load_seconds: float
    fetch_seconds: float
    bytes_fetched: int
    loaded_at_ms: int
    last_used_at_ms: int
    active_requests: int
    already_loaded: bool
    files: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model_id: _Optional[str] = ..., pipeline: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ..., pipeline_class: _Optional[str] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., weights_bytes: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., load_seconds: _Optional[float] = ..., fetch_seconds: _Optional[float] = ..., bytes_fetched: _Optional[int] = ..., loaded_at_ms: _Optional[int] = ..., last_used_at_ms: _Optional[int] = ..., active_requests: _Optional[int] = ..., already_loaded: bool = ..., files: _Optional[_Iterable[str]] = ...) -> None: ...

class UnloadModelsRequest(_message.Message):
    __slots__ = ("model_ids", "all", "mode", "timeout_s")
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    all: bool
    mode: UnloadMode
    timeout_s: float
    def __init__(self, model_ids: _Optional[_Iterable[str]] = ..., all: bool = ..., mode: _Optional[_Union[UnloadMode, str]] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class UnloadModelsResponse(_message.Message):
    __slots__ = ("model_ids", "weights_bytes", "rss_bytes")
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    weights_bytes: int
    rss_bytes: int
    def __init__(self, model_ids: _Optional[_Iterable[str]] = ..., weights_bytes: _Optional[int] = ..., rss_bytes: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ...) -> None: ...

class ListPipelinesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPipelinesResponse(_message.Message):
    __slots__ = ("pipelines",)
    PIPELINES_FIELD_NUMBER: _ClassVar[int]
    pipelines: _containers.RepeatedCompositeFieldContainer[Pipeline]
    def __init__(self, pipelines: _Optional[_Iterable[_Union[Pipeline, _Mapping]]] = ...) -> None: ...

class Pipeline(_message.Message):
    __slots__ = ("name", "family", "architectures", "options", "available", "reason", "models", "capabilities")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    family: str
    architectures: _containers.RepeatedScalarFieldContainer[str]
    options: _containers.RepeatedCompositeFieldContainer[PipelineOption]
    available: bool
    reason: str
    models: _containers.RepeatedScalarFieldContainer[str]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., family: _Optional[str] = ..., architectures: _Optional[_Iterable[str]] = ..., options: _Optional[_Iterable[_Union[PipelineOption, _Mapping]]] = ..., available: bool = ..., reason: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class PipelineOption(_message.Message):
    __slots__ = ("name", "type", "default", "range")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    default: str
    range: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., default: _Optional[str] = ..., range: _Optional[str] = ...) -> None: ...
