"""The wire contract: generated code is what the protos say, v1 only grows, and ``ml`` is what it always was."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tabml_grpc.ml import ml_inference_pb2 as ml

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"

SERVICES = """
ModelManagementService: LoadModel(LoadModelRequest)→LoadModelResponse, UnloadModel(UnloadModelRequest)→StatusResponse,
 GetModelFile(ModelFileRequest)→*ModelFileChunk, GetLoadedModels(EmptyRequest)→LoadedModelsResponse
TransformersService: GenerateText(TextRequest)→*TextResponse,
 GenerateEmbeddings(GenerateEmbeddingsRequest)→GeneratedEmbeddingsResponse, ChatCompletion(ChatRequest)→*ChatResponse,
 Rerank(RerankRequest)→RerankResponse
MediapipeService: DetectFaces(ImageRequest)→FaceDetectionResponse, DetectHands(ImageRequest)→HandDetectionResponse,
 DetectPose(ImageRequest)→PoseDetectionResponse, StreamFaceDetection(*VideoFrame)→*FaceDetectionResponse,
 StreamHandTracking(*VideoFrame)→*HandDetectionResponse, StreamPoseTracking(*VideoFrame)→*PoseDetectionResponse,
 StreamHolisticTracking(*VideoFrame)→*HolisticTrackingResponse, StreamFaceMesh(*VideoFrame)→*FaceMeshResponse,
 StreamIrisTracking(*VideoFrame)→*IrisTrackingResponse, StreamObjectDetection(*VideoFrame)→*ObjectDetectionResponse,
 StreamObjectTracking(*VideoFrame)→*ObjectTrackingResponse,
 StreamObjectDetection3D(*VideoFrame)→*ObjectDetection3DResponse,
 StreamSelfieSegmentation(*VideoFrame)→*SegmentationResponse, StreamHairSegmentation(*VideoFrame)→*SegmentationResponse,
 StreamTemplateMatching(*TemplateMatchingRequest)→*TemplateMatchingResponse, StreamAutoFlip(*VideoFrame)→*VideoFrame,
 ProcessMediaSequence(*MediaSequenceFrame)→MediaSequenceResponse
"""
MESSAGES = """
LoadModelRequest: model_id string=1, pipeline_type string=2, architecture string=3, options map<string,string>=4
LoadModelResponse: success bool=1, message string=2, vram_allocated_mb int64=3, ram_allocated_mb int64=4
UnloadModelRequest: model_id string=1
ModelFileRequest: model_id string=1, file_path string=2
ModelFileChunk: data bytes=1, offset int64=2, total_size int64=3, is_last bool=4
EmptyRequest:
LoadedModelsResponse: models repeated LoadedModelInfo=1
LoadedModelInfo: model_id string=1, pipeline_type string=2, vram_mb int64=3, ram_mb int64=4, loaded_at int64=5
StatusResponse: success bool=1, message string=2
TextRequest: prompt string=1, model string=2, max_length int32=3, temperature float=4, top_p float=5
TextResponse: text string=1, done bool=2, tokens_generated int32=3
GenerateEmbeddingsRequest: texts repeated string=1, model string=2
GeneratedEmbeddingsResponse: embeddings repeated GeneratedEmbedding=1
GeneratedEmbedding: values repeated float=1
ChatRequest: messages repeated ChatMessage=1, model string=2, temperature float=3
ChatMessage: role string=1, content string=2
ChatResponse: content string=1, done bool=2, finish_reason string=3
RerankRequest: model string=1, query string=2, documents repeated string=3, top_n int32=4
RerankResponse: results repeated RerankResult=1
RerankResult: index int32=1, score float=2, document string=3
ImageRequest: image_data bytes=1, format string=2, width int32=3, height int32=4
VideoFrame: frame_data bytes=1, format string=2, width int32=3, height int32=4, timestamp_ms int64=5, frame_number int32=6, metadata map<string,string>=7
MediaSequenceFrame: frame_data bytes=1, timestamp_ms int64=2, frame_number int32=3, features map<string,float>=4
MediaSequenceResponse: labels repeated SequenceLabel=1, features map<string,float>=2, total_frames int32=3
SequenceLabel: label string=1, confidence float=2, start_frame int32=3, end_frame int32=4
FaceDetectionResponse: faces repeated FaceDetection=1, timestamp_ms int64=2, frame_number int32=3
FaceDetection: x float=1, y float=2, width float=3, height float=4, confidence float=5, keypoints repeated KeyPoint=6
KeyPoint: x float=1, y float=2, confidence float=3, name string=4
FaceMeshResponse: faces repeated FaceMesh=1, timestamp_ms int64=2, frame_number int32=3
FaceMesh: landmarks repeated Landmark=1, contours repeated int32=2, confidence float=3
IrisTrackingResponse: eyes repeated IrisTracking=1, timestamp_ms int64=2, frame_number int32=3
IrisTracking: iris_landmarks repeated Landmark=1, eye_landmarks repeated Landmark=2, eye string=3, confidence float=4
HandDetectionResponse: hands repeated HandDetection=1, timestamp_ms int64=2, frame_number int32=3
HandDetection: landmarks repeated Landmark=1, handedness string=2, confidence float=3, gestures repeated Gesture=4
Gesture: name string=1, confidence float=2
PoseDetectionResponse: poses repeated PoseDetection=1, timestamp_ms int64=2, frame_number int32=3
PoseDetection: landmarks repeated Landmark=1, confidence float=2, world_landmarks repeated Landmark=3
HolisticTrackingResponse: face FaceMesh=1, pose PoseDetection=2, hands repeated HandDetection=3, timestamp_ms int64=4, frame_number int32=5
ObjectDetectionResponse: objects repeated ObjectDetection=1, timestamp_ms int64=2, frame_number int32=3
ObjectDetection: label string=1, confidence float=2, bbox BoundingBox=3, track_id int32=4
BoundingBox: x float=1, y float=2, width float=3, height float=4
ObjectTrackingResponse: objects repeated TrackedObject=1, timestamp_ms int64=2, frame_number int32=3
TrackedObject: track_id int32=1, label string=2, bbox BoundingBox=3, confidence float=4, trajectory repeated BoundingBox=5
ObjectDetection3DResponse: objects repeated Object3D=1, timestamp_ms int64=2, frame_number int32=3
Object3D: label string=1, confidence float=2, bbox BoundingBox=3, pose Pose3D=4, keypoints_3d repeated Landmark=5
Pose3D: x float=1, y float=2, z float=3, roll float=4, pitch float=5, yaw float=6
SegmentationResponse: mask bytes=1, width int32=2, height int32=3, format string=4, timestamp_ms int64=5, frame_number int32=6
TemplateMatchingRequest: frame_data bytes=1, template_data bytes=2, frame_width int32=3, frame_height int32=4, template_width int32=5, template_height int32=6, threshold float=7
TemplateMatchingResponse: matches repeated TemplateMatch=1, timestamp_ms int64=2
TemplateMatch: x float=1, y float=2, confidence float=3
Landmark: x float=1, y float=2, z float=3, visibility float=4, presence float=5
"""
"""The interface that existing clients were built with."""

_TYPES = {1: "double", 2: "float", 3: "int64", 5: "int32", 8: "bool", 9: "string", 12: "bytes"}
FROZEN = re.compile(r"Request$|^VideoFrame$|^MediaSequenceFrame$|^ChatMessage$")
"""What clients send: they build these with literals that name every field."""


def type_of(field) -> str:  # type: ignore[no-untyped-def]
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = message.fields
        return f"map<{_TYPES[key.type]},{_TYPES[value.type]}>"
    name = _TYPES[field.type] if message is None else message.name
    return f"repeated {name}" if field.is_repeated else name


def test_services_are_what_they_always_were() -> None:
    found = "\n"
    for service in ml.DESCRIPTOR.services_by_name.values():
        methods = [
            f"{m.name}({'*' * m.client_streaming}{m.input_type.name})→{'*' * m.server_streaming}{m.output_type.name}"
            for m in service.methods
        ]
        found += f"{service.name}: {', '.join(methods)}\n"
    assert found == SERVICES.replace(",\n ", ", ")


@pytest.mark.parametrize("line", MESSAGES.strip().splitlines(), ids=lambda line: line.partition(":")[0])
def test_messages_are_what_they_always_were(line: str) -> None:
    name, _, fields = line.partition(":")
    message = ml.DESCRIPTOR.message_types_by_name[name]
    old = [f"{field.name} {type_of(field)}={field.number}" for field in message.fields if field.number < 50]
    assert ", ".join(old) == fields.strip()
    if FROZEN.search(name):
        assert len(old) == len(message.fields), "a request may never grow"


def test_no_message_is_forgotten() -> None:
    listed = {line.partition(":")[0] for line in MESSAGES.strip().splitlines()}
    assert set(ml.DESCRIPTOR.message_types_by_name) == listed | {"FrameStats"}


def test_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "protos", f"PROTO_OUT={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    generated = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2*"))
    committed = sorted(
        path.relative_to(ROOT) for path in (ROOT / "tabml_grpc").rglob("*_pb2*.py*") if "cache" not in str(path)
    )
    assert generated == committed
    for path in generated:
        assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes(), f"{path}: run make protos"


def buf(*arguments: object, cwd: Path = PROTOS) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("buf")), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_buf_finds_nothing() -> None:
    for arguments in (["lint"], ["breaking", "--against", "released.binpb"], ["format", "--diff", "--exit-code"]):
        ended = buf(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        ("ml/ml_inference.proto", "float confidence = 5;", "float confidence = 7;", "confidence"),
        ("v1/vision.proto", "int32 stride = 5;", "int64 stride = 5;", "stride"),
        ("v1/runtime.proto", "rpc Drain(DrainRequest) returns (DrainResponse);", "", "Drain"),
    ],
)
def test_the_test_above_can_fail(file: str, old: str, new: str, word: str, tmp_path: Path) -> None:
    copy = shutil.copytree(PROTOS, tmp_path / "protos")
    path = copy / "tabml_grpc" / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    ended = buf("breaking", "--against", "released.binpb", cwd=copy)
    assert ended.returncode != 0
    assert word in ended.stdout
