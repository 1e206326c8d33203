from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FrameFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_FORMAT_UNSPECIFIED: _ClassVar[FrameFormat]
    FRAME_FORMAT_RGB: _ClassVar[FrameFormat]
    FRAME_FORMAT_BGR: _ClassVar[FrameFormat]
    FRAME_FORMAT_RGBA: _ClassVar[FrameFormat]
    FRAME_FORMAT_GRAY: _ClassVar[FrameFormat]
    FRAME_FORMAT_YUV420: _ClassVar[FrameFormat]
    FRAME_FORMAT_NV12: _ClassVar[FrameFormat]
    FRAME_FORMAT_JPEG: _ClassVar[FrameFormat]
    FRAME_FORMAT_PNG: _ClassVar[FrameFormat]
    FRAME_FORMAT_WEBP: _ClassVar[FrameFormat]
    FRAME_FORMAT_H264: _ClassVar[FrameFormat]
    FRAME_FORMAT_VP8: _ClassVar[FrameFormat]
    FRAME_FORMAT_VP9: _ClassVar[FrameFormat]

class VisionTask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VISION_TASK_UNSPECIFIED: _ClassVar[VisionTask]
    VISION_TASK_FACE_DETECTION: _ClassVar[VisionTask]
    VISION_TASK_FACE_MESH: _ClassVar[VisionTask]
    VISION_TASK_HANDS: _ClassVar[VisionTask]
    VISION_TASK_POSE: _ClassVar[VisionTask]
    VISION_TASK_SEGMENTATION: _ClassVar[VisionTask]
    VISION_TASK_IRISES: _ClassVar[VisionTask]
    VISION_TASK_OBJECTS: _ClassVar[VisionTask]
    VISION_TASK_OBJECT_TRACKING: _ClassVar[VisionTask]
    VISION_TASK_HOLISTIC: _ClassVar[VisionTask]
    VISION_TASK_OBJECTS_3D: _ClassVar[VisionTask]

class MaskFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_FORMAT_UNSPECIFIED: _ClassVar[MaskFormat]
    MASK_FORMAT_GRAY8: _ClassVar[MaskFormat]
    MASK_FORMAT_FLOAT32: _ClassVar[MaskFormat]
    MASK_FORMAT_PNG: _ClassVar[MaskFormat]

class DropPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_POLICY_UNSPECIFIED: _ClassVar[DropPolicy]
    DROP_POLICY_LATEST: _ClassVar[DropPolicy]
    DROP_POLICY_OLDEST: _ClassVar[DropPolicy]
    DROP_POLICY_BLOCK: _ClassVar[DropPolicy]

class BadFramePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BAD_FRAME_POLICY_UNSPECIFIED: _ClassVar[BadFramePolicy]
    BAD_FRAME_POLICY_ERROR: _ClassVar[BadFramePolicy]
    BAD_FRAME_POLICY_REPORT: _ClassVar[BadFramePolicy]
    BAD_FRAME_POLICY_SKIP: _ClassVar[BadFramePolicy]
FRAME_FORMAT_UNSPECIFIED: FrameFormat
FRAME_FORMAT_RGB: FrameFormat
FRAME_FORMAT_BGR: FrameFormat
FRAME_FORMAT_RGBA: FrameFormat
FRAME_FORMAT_GRAY: FrameFormat
FRAME_FORMAT_YUV420: FrameFormat
FRAME_FORMAT_NV12: FrameFormat
FRAME_FORMAT_JPEG: FrameFormat
FRAME_FORMAT_PNG: FrameFormat
FRAME_FORMAT_WEBP: FrameFormat
FRAME_FORMAT_H264: FrameFormat
FRAME_FORMAT_VP8: FrameFormat
FRAME_FORMAT_VP9: FrameFormat
VISION_TASK_UNSPECIFIED: VisionTask
VISION_TASK_FACE_DETECTION: VisionTask
VISION_TASK_FACE_MESH: VisionTask
VISION_TASK_HANDS: VisionTask
VISION_TASK_POSE: VisionTask
VISION_TASK_SEGMENTATION: VisionTask
VISION_TASK_IRISES: VisionTask
VISION_TASK_OBJECTS: VisionTask
VISION_TASK_OBJECT_TRACKING: VisionTask
VISION_TASK_HOLISTIC: VisionTask
VISION_TASK_OBJECTS_3D: VisionTask
MASK_FORMAT_UNSPECIFIED: MaskFormat
MASK_FORMAT_GRAY8: MaskFormat
MASK_FORMAT_FLOAT32: MaskFormat
MASK_FORMAT_PNG: MaskFormat
DROP_POLICY_UNSPECIFIED: DropPolicy
DROP_POLICY_LATEST: DropPolicy
DROP_POLICY_OLDEST: DropPolicy
DROP_POLICY_BLOCK: DropPolicy
BAD_FRAME_POLICY_UNSPECIFIED: BadFramePolicy
BAD_FRAME_POLICY_ERROR: BadFramePolicy
BAD_FRAME_POLICY_REPORT: BadFramePolicy
BAD_FRAME_POLICY_SKIP: BadFramePolicy

class Frame(_message.Message):
    __slots__ = ("data", "format", "width", "height", "stride", "timestamp_ms", "frame_number")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    FRAME_NUMBER_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    format: FrameFormat
    width: int
    height: int
    stride: int
    timestamp_ms: int
    frame_number: int
    def __init__(self, data: _Optional[bytes] = ..., format: _Optional[_Union[FrameFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., stride: _Optional[int] = ..., timestamp_ms: _Optional[int] = ..., frame_number: _Optional[int] = ...) -> None: ...

class VisionConfig(_message.Message):
    __slots__ = ("model", "min_detection_confidence", "min_presence_confidence", "min_tracking_confidence", "min_suppression_threshold", "num_faces", "num_hands", "num_poses", "range", "blendshapes", "transform", "gestures", "kind", "mask_format", "stride", "timestamp_ms", "frame_number", "blink_threshold", "focal_length_px", "score_threshold", "max_results", "category_allowlist", "category_denylist", "low_score_threshold", "lost_ms", "trajectory_length", "classes", "size", "scales", "category", "max_objects", "rotations")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MIN_DETECTION_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_PRESENCE_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_TRACKING_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_SUPPRESSION_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NUM_FACES_FIELD_NUMBER: _ClassVar[int]
    NUM_HANDS_FIELD_NUMBER: _ClassVar[int]
    NUM_POSES_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    BLENDSHAPES_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_FIELD_NUMBER: _ClassVar[int]
    GESTURES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MASK_FORMAT_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    FRAME_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BLINK_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FOCAL_LENGTH_PX_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_ALLOWLIST_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_DENYLIST_FIELD_NUMBER: _ClassVar[int]
    LOW_SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    LOST_MS_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    MAX_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    ROTATIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    min_detection_confidence: float
    min_presence_confidence: float
    min_tracking_confidence: float
    min_suppression_threshold: float
    num_faces: int
    num_hands: int
    num_poses: int
    range: str
    blendshapes: bool
    transform: bool
    gestures: bool
    kind: str
    mask_format: MaskFormat
    stride: int
    timestamp_ms: int
    frame_number: int
    blink_threshold: float
    focal_length_px: float
    score_threshold: float
    max_results: int
    category_allowlist: str
    category_denylist: str
    low_score_threshold: float
    lost_ms: float
    trajectory_length: int
    classes: str
    size: str
    scales: str
    category: str
    max_objects: int
    rotations: str
    def __init__(self, model: _Optional[str] = ..., min_detection_confidence: _Optional[float] = ..., min_presence_confidence: _Optional[float] = ..., min_tracking_confidence: _Optional[float] = ..., min_suppression_threshold: _Optional[float] = ..., num_faces: _Optional[int] = ..., num_hands: _Optional[int] = ..., num_poses: _Optional[int] = ..., range: _Optional[str] = ..., blendshapes: bool = ..., transform: bool = ..., gestures: bool = ..., kind: _Optional[str] = ..., mask_format: _Optional[_Union[MaskFormat, str]] = ..., stride: _Optional[int] = ..., timestamp_ms: _Optional[int] = ..., frame_number: _Optional[int] = ..., blink_threshold: _Optional[float] = ..., focal_length_px: _Optional[float] = ..., score_threshold: _Optional[float] = ..., max_results: _Optional[int] = ..., category_allowlist: _Optional[str] = ..., category_denylist: _Optional[str] = ..., low_score_threshold: _Optional[float] = ..., lost_ms: _Optional[float] = ..., trajectory_length: _Optional[int] = ..., classes: _Optional[str] = ..., size: _Optional[str] = ..., scales: _Optional[str] = ..., category: _Optional[str] = ..., max_objects: _Optional[int] = ..., rotations: _Optional[str] = ...) -> None: ...

class TaskConfig(_message.Message):
    __slots__ = ("task", "config")
    TASK_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    task: VisionTask
    config: VisionConfig
    def __init__(self, task: _Optional[_Union[VisionTask, str]] = ..., config: _Optional[_Union[VisionConfig, _Mapping]] = ...) -> None: ...

class AnalyzeRequest(_message.Message):
    __slots__ = ("frame", "tasks")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    tasks: _containers.RepeatedCompositeFieldContainer[TaskConfig]
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[TaskConfig, _Mapping]]] = ...) -> None: ...

class AnalyzeResponse(_message.Message):
    __slots__ = ("analysis",)
    ANALYSIS_FIELD_NUMBER: _ClassVar[int]
    analysis: Analysis
    def __init__(self, analysis: _Optional[_Union[Analysis, _Mapping]] = ...) -> None: ...

class StreamConfig(_message.Message):
    __slots__ = ("tasks", "drop_policy", "max_fps", "max_age_ms", "on_bad_frame")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    DROP_POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_FPS_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    ON_BAD_FRAME_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskConfig]
    drop_policy: DropPolicy
    max_fps: float
    max_age_ms: int
    on_bad_frame: BadFramePolicy
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskConfig, _Mapping]]] = ..., drop_policy: _Optional[_Union[DropPolicy, str]] = ..., max_fps: _Optional[float] = ..., max_age_ms: _Optional[int] = ..., on_bad_frame: _Optional[_Union[BadFramePolicy, str]] = ...) -> None: ...

class StreamAnalyzeRequest(_message.Message):
    __slots__ = ("config", "frame")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    config: StreamConfig
    frame: Frame
    def __init__(self, config: _Optional[_Union[StreamConfig, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class StreamAnalyzeResponse(_message.Message):
    __slots__ = ("analysis",)
    ANALYSIS_FIELD_NUMBER: _ClassVar[int]
    analysis: Analysis
    def __init__(self, analysis: _Optional[_Union[Analysis, _Mapping]] = ...) -> None: ...

class Analysis(_message.Message):
    __slots__ = ("timestamp_ms", "frame_number", "width", "height", "faces", "meshes", "hands", "poses", "mask", "timing", "error", "irises", "objects", "holistic", "objects_3d")
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    FRAME_NUMBER_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    MESHES_FIELD_NUMBER: _ClassVar[int]
    HANDS_FIELD_NUMBER: _ClassVar[int]
    POSES_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IRISES_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    HOLISTIC_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_3D_FIELD_NUMBER: _ClassVar[int]
    timestamp_ms: int
    frame_number: int
    width: int
    height: int
    faces: _containers.RepeatedCompositeFieldContainer[Face]
    meshes: _containers.RepeatedCompositeFieldContainer[Mesh]
    hands: _containers.RepeatedCompositeFieldContainer[Hand]
    poses: _containers.RepeatedCompositeFieldContainer[Pose]
    mask: Mask
    timing: Timing
    error: FrameProblem
    irises: _containers.RepeatedCompositeFieldContainer[FaceIrises]
    objects: _containers.RepeatedCompositeFieldContainer[Object]
    holistic: Holistic
    objects_3d: _containers.RepeatedCompositeFieldContainer[Object3D]
    def __init__(self, timestamp_ms: _Optional[int] = ..., frame_number: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., faces: _Optional[_Iterable[_Union[Face, _Mapping]]] = ..., meshes: _Optional[_Iterable[_Union[Mesh, _Mapping]]] = ..., hands: _Optional[_Iterable[_Union[Hand, _Mapping]]] = ..., poses: _Optional[_Iterable[_Union[Pose, _Mapping]]] = ..., mask: _Optional[_Union[Mask, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., error: _Optional[_Union[FrameProblem, _Mapping]] = ..., irises: _Optional[_Iterable[_Union[FaceIrises, _Mapping]]] = ..., objects: _Optional[_Iterable[_Union[Object, _Mapping]]] = ..., holistic: _Optional[_Union[Holistic, _Mapping]] = ..., objects_3d: _Optional[_Iterable[_Union[Object3D, _Mapping]]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("decode_ms", "inference_ms", "queue_ms", "dropped")
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    decode_ms: float
    inference_ms: float
    queue_ms: float
    dropped: int
    def __init__(self, decode_ms: _Optional[float] = ..., inference_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., dropped: _Optional[int] = ...) -> None: ...

class FrameProblem(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    width: float
    height: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ...) -> None: ...

class Face(_message.Message):
    __slots__ = ("box", "score", "keypoints")
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    box: Box
    score: float
    keypoints: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., score: _Optional[float] = ..., keypoints: _Optional[_Iterable[float]] = ...) -> None: ...

class Mesh(_message.Message):
    __slots__ = ("landmarks", "blendshapes", "transform")
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    BLENDSHAPES_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_FIELD_NUMBER: _ClassVar[int]
    landmarks: _containers.RepeatedScalarFieldContainer[float]
    blendshapes: _containers.RepeatedScalarFieldContainer[float]
    transform: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, landmarks: _Optional[_Iterable[float]] = ..., blendshapes: _Optional[_Iterable[float]] = ..., transform: _Optional[_Iterable[float]] = ...) -> None: ...

class Hand(_message.Message):
    __slots__ = ("landmarks", "world_landmarks", "handedness", "handedness_score", "gesture", "gesture_score")
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    WORLD_LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    HANDEDNESS_FIELD_NUMBER: _ClassVar[int]
    HANDEDNESS_SCORE_FIELD_NUMBER: _ClassVar[int]
    GESTURE_FIELD_NUMBER: _ClassVar[int]
    GESTURE_SCORE_FIELD_NUMBER: _ClassVar[int]
    landmarks: _containers.RepeatedScalarFieldContainer[float]
    world_landmarks: _containers.RepeatedScalarFieldContainer[float]
    handedness: str
    handedness_score: float
    gesture: str
    gesture_score: float
    def __init__(self, landmarks: _Optional[_Iterable[float]] = ..., world_landmarks: _Optional[_Iterable[float]] = ..., handedness: _Optional[str] = ..., handedness_score: _Optional[float] = ..., gesture: _Optional[str] = ..., gesture_score: _Optional[float] = ...) -> None: ...

class Pose(_message.Message):
    __slots__ = ("landmarks", "world_landmarks", "visibility", "presence", "score")
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    WORLD_LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    landmarks: _containers.RepeatedScalarFieldContainer[float]
    world_landmarks: _containers.RepeatedScalarFieldContainer[float]
    visibility: _containers.RepeatedScalarFieldContainer[float]
    presence: _containers.RepeatedScalarFieldContainer[float]
    score: float
    def __init__(self, landmarks: _Optional[_Iterable[float]] = ..., world_landmarks: _Optional[_Iterable[float]] = ..., visibility: _Optional[_Iterable[float]] = ..., presence: _Optional[_Iterable[float]] = ..., score: _Optional[float] = ...) -> None: ...

class Holistic(_message.Message):
    __slots__ = ("face", "left_hand", "right_hand", "pose")
    FACE_FIELD_NUMBER: _ClassVar[int]
    LEFT_HAND_FIELD_NUMBER: _ClassVar[int]
    RIGHT_HAND_FIELD_NUMBER: _ClassVar[int]
    POSE_FIELD_NUMBER: _ClassVar[int]
    face: Mesh
    left_hand: Hand
    right_hand: Hand
    pose: Pose
    def __init__(self, face: _Optional[_Union[Mesh, _Mapping]] = ..., left_hand: _Optional[_Union[Hand, _Mapping]] = ..., right_hand: _Optional[_Union[Hand, _Mapping]] = ..., pose: _Optional[_Union[Pose, _Mapping]] = ...) -> None: ...

class FaceIrises(_message.Message):
    __slots__ = ("left", "right", "score", "head_yaw", "head_pitch", "head_roll")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    HEAD_YAW_FIELD_NUMBER: _ClassVar[int]
    HEAD_PITCH_FIELD_NUMBER: _ClassVar[int]
    HEAD_ROLL_FIELD_NUMBER: _ClassVar[int]
    left: Eye
    right: Eye
    score: float
    head_yaw: float
    head_pitch: float
    head_roll: float
    def __init__(self, left: _Optional[_Union[Eye, _Mapping]] = ..., right: _Optional[_Union[Eye, _Mapping]] = ..., score: _Optional[float] = ..., head_yaw: _Optional[float] = ..., head_pitch: _Optional[float] = ..., head_roll: _Optional[float] = ...) -> None: ...

class Eye(_message.Message):
    __slots__ = ("iris", "region", "aspect_ratio", "closed", "gaze", "gaze_in_camera", "yaw", "pitch", "distance_mm")
    IRIS_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ASPECT_RATIO_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    GAZE_FIELD_NUMBER: _ClassVar[int]
    GAZE_IN_CAMERA_FIELD_NUMBER: _ClassVar[int]
    YAW_FIELD_NUMBER: _ClassVar[int]
    PITCH_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_MM_FIELD_NUMBER: _ClassVar[int]
    iris: _containers.RepeatedScalarFieldContainer[float]
    region: _containers.RepeatedScalarFieldContainer[float]
    aspect_ratio: float
    closed: bool
    gaze: _containers.RepeatedScalarFieldContainer[float]
    gaze_in_camera: _containers.RepeatedScalarFieldContainer[float]
    yaw: float
    pitch: float
    distance_mm: float
    def __init__(self, iris: _Optional[_Iterable[float]] = ..., region: _Optional[_Iterable[float]] = ..., aspect_ratio: _Optional[float] = ..., closed: bool = ..., gaze: _Optional[_Iterable[float]] = ..., gaze_in_camera: _Optional[_Iterable[float]] = ..., yaw: _Optional[float] = ..., pitch: _Optional[float] = ..., distance_mm: _Optional[float] = ...) -> None: ...

class Object(_message.Message):
    __slots__ = ("box", "label", "score", "index", "track_id", "trajectory")
    BOX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TRACK_ID_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORY_FIELD_NUMBER: _ClassVar[int]
    box: Box
    label: str
    score: float
    index: int
    track_id: int
    trajectory: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., label: _Optional[str] = ..., score: _Optional[float] = ..., index: _Optional[int] = ..., track_id: _Optional[int] = ..., trajectory: _Optional[_Iterable[float]] = ...) -> None: ...

class Object3D(_message.Message):
    __slots__ = ("label", "score", "box", "keypoints", "keypoints_3d", "rotation", "size")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_3D_FIELD_NUMBER: _ClassVar[int]
    ROTATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    box: Box
    keypoints: _containers.RepeatedScalarFieldContainer[float]
    keypoints_3d: _containers.RepeatedScalarFieldContainer[float]
    rotation: _containers.RepeatedScalarFieldContainer[float]
    size: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., keypoints: _Optional[_Iterable[float]] = ..., keypoints_3d: _Optional[_Iterable[float]] = ..., rotation: _Optional[_Iterable[float]] = ..., size: _Optional[_Iterable[float]] = ...) -> None: ...

class Mask(_message.Message):
    __slots__ = ("data", "format", "width", "height", "kind", "labels")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    format: MaskFormat
    width: int
    height: int
    kind: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, data: _Optional[bytes] = ..., format: _Optional[_Union[MaskFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., kind: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ClassifyImageRequest(_message.Message):
    __slots__ = ("frame", "model", "top_k", "labels")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    model: str
    top_k: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ..., model: _Optional[str] = ..., top_k: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ClassifyImageResponse(_message.Message):
    __slots__ = ("categories",)
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedCompositeFieldContainer[Category]
    def __init__(self, categories: _Optional[_Iterable[_Union[Category, _Mapping]]] = ...) -> None: ...

class Category(_message.Message):
    __slots__ = ("label", "score", "index")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    index: int
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ..., index: _Optional[int] = ...) -> None: ...

class EmbedImageRequest(_message.Message):
    __slots__ = ("frame", "model")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    model: str
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class EmbedImageResponse(_message.Message):
    __slots__ = ("embedding",)
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    embedding: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, embedding: _Optional[_Iterable[float]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("frame", "model", "prompt")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    model: str
    prompt: str
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ..., model: _Optional[str] = ..., prompt: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...
