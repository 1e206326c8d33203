"""Models of the server: loaded once, listed with exact figures, unloaded as asked, their files served."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from child import Child, fails, frames, serving
from test_streams import Feed

from tabml.files import load_model
from tabml.files.catalog import find
from tabml.pipelines import PIPELINES
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import models_pb2 as v1
from tabml_grpc.v1 import runtime_pb2, vision_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def server() -> Iterator[Child]:
    """A server whose models no other module has loaded."""
    with serving() as child:
        yield child


def load(server: Child, model_id: str, **more: Any) -> Any:
    *progress, last = server.v1_models.LoadModel(v1.LoadModelRequest(model_id=model_id, **more))
    phases = [each.phase for each in progress]
    assert phases == sorted(phases)
    assert last.phase == v1.LOAD_PHASE_DONE
    return last.model


def loaded(server: Child) -> dict[str, Any]:
    return {each.model_id: each for each in server.v1_models.ListModels(v1.ListModelsRequest()).models}


def test_a_model_is_loaded_listed_and_unloaded() -> None:
    with serving() as server:
        model = load(server, "pose_landmarker_full")
        size = find("pose_landmarker_full").size
        assert (model.weights_bytes, model.bytes_fetched) == (size, size)
        assert model.pipeline == "pose-landmarks"
        assert model.load_seconds >= model.fetch_seconds > 0
        assert model.rss_bytes > 0
        assert not model.already_loaded
        assert "/ml.MediapipeService/DetectPose" in model.capabilities
        assert load(server, "pose_landmarker_full").already_loaded
        (old,) = server.models.GetLoadedModels(ml.EmptyRequest()).models
        assert (old.model_id, old.pipeline_type, old.weights_bytes) == ("pose_landmarker_full", "pose-landmarks", size)
        assert old.ram_mb >= 1
        assert abs(old.loaded_at - time.time()) < 60
        full = server.stats().rss_bytes
        ended = server.models.UnloadModel(ml.UnloadModelRequest(model_id="pose_landmarker_full"))
        assert ended.success
        assert loaded(server) == {}
        assert server.stats().rss_bytes < full - (20 << 20)
        with fails(grpc.StatusCode.FAILED_PRECONDITION, "pose_landmarker_full"):
            server.models.UnloadModel(ml.UnloadModelRequest(model_id="pose_landmarker_full"))


def test_the_old_contract_loads_too(server: Child) -> None:
    request = ml.LoadModelRequest(
        model_id="hand_landmarker", pipeline_type="hand_landmarks", options={"num_hands": "1"}
    )
    answer = server.models.LoadModel(request)
    assert answer.success
    assert answer.weights_bytes == find("hand_landmarker").size
    assert answer.ram_allocated_mb >= 8
    assert answer.pipeline_class == "HandDetector"
    assert server.models.LoadModel(request).already_loaded
    server.models.UnloadModel(ml.UnloadModelRequest(model_id="hand_landmarker"))


def test_another_load_with_other_options_is_a_conflict(server: Child) -> None:
    load(server, "face_landmarker_full_range", options={"num_faces": "2"})
    with fails(grpc.StatusCode.ALREADY_EXISTS, "num_faces=2", "num_faces=3", "unload"):
        load(server, "face_landmarker_full_range", options={"num_faces": "3"})
    load(server, "face_landmarker_full_range", options={"num_faces": "2"})
    request = v1.UnloadModelsRequest(model_ids=["face_landmarker_full_range"])
    answer = server.v1_models.UnloadModels(request)
    assert list(answer.model_ids) == ["face_landmarker_full_range"]
    assert answer.weights_bytes == find("face_landmarker_full_range").size


def test_options_of_the_load_are_the_defaults_of_calls(server: Child, jpeg: bytes) -> None:
    load(server, "face_detector_full_range", options={"min_detection_confidence": "1"})
    config = vision_pb2.VisionConfig(model="face_detector_full_range")
    request = ml.ImageRequest(image_data=jpeg)
    metadata = [("tabml-options-bin", config.SerializeToString())]
    assert not server.vision.DetectFaces(request, metadata=metadata).faces
    config.min_detection_confidence = 0.5
    assert server.vision.DetectFaces(request, metadata=[("tabml-options-bin", config.SerializeToString())]).faces
    server.v1_models.UnloadModels(v1.UnloadModelsRequest(model_ids=["face_detector_full_range"]))


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (v1.LoadModelRequest(model_id="no_such"), grpc.StatusCode.NOT_FOUND, ["no_such", "face_detector"]),
        (v1.LoadModelRequest(model_id="mine", pipeline="dreaming"), grpc.StatusCode.NOT_FOUND, ["pipeline='dreaming'"]),
        (v1.LoadModelRequest(model_id="mine", pipeline="image-to-text"), grpc.StatusCode.UNIMPLEMENTED, ["later"]),
        (v1.LoadModelRequest(model_id="mine", pipeline="face-detection"), grpc.StatusCode.NOT_FOUND, ["file"]),
        (
            v1.LoadModelRequest(model_id="face_detector", pipeline="pose-landmarks"),
            grpc.StatusCode.FAILED_PRECONDITION,
            ["face-detection"],
        ),
        (v1.LoadModelRequest(model_id="../etc"), INVALID, ["model_id"]),
        (v1.LoadModelRequest(model_id="/etc/passwd"), INVALID, ["model_id"]),
        (v1.LoadModelRequest(model_id="a\0b"), INVALID, ["model_id"]),
        (v1.LoadModelRequest(model_id="x" * 100_000), INVALID, ["model_id"]),
        (v1.LoadModelRequest(model_id=""), INVALID, ["model_id"]),
        (v1.LoadModelRequest(model_id="mine", pipeline="face-detection", file="../x"), INVALID, ["file="]),
        (v1.LoadModelRequest(model_id="face_detector", options={"speed": "9"}), INVALID, ["speed"]),
        (v1.LoadModelRequest(model_id="face_landmarker", options={"num_faces": "0"}), INVALID, ["num_faces=0"]),
        (v1.LoadModelRequest(model_id="face_detector", architecture="resnet"), INVALID, ["architecture='resnet'"]),
        (v1.LoadModelRequest(model_id="face_detector", options={"range": "full"}), INVALID, ["range='full'"]),
    ],
)
def test_a_load_that_can_not_be_says_why(request_: Any, code: grpc.StatusCode, words: list[str], server: Child) -> None:
    with fails(code, *words):
        list(server.v1_models.LoadModel(request_))


def test_eight_loads_at_once_are_one() -> None:
    with serving() as server:
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(load(server, "face_landmarker"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 8
        assert len({each.loaded_at_ms for each in answers}) == 1
        assert list(loaded(server)) == ["face_landmarker"]


def test_an_unload_waits_for_streams_or_cancels_them(jpeg: bytes) -> None:
    with serving() as server:
        feed = Feed()
        call = server.vision.StreamFaceMesh(iter(feed))
        feed.send(next(frames(jpeg, 1)))
        next(call)
        wait = v1.UnloadModelsRequest(model_ids=["face_landmarker"], timeout_s=0.3)
        assert loaded(server)["face_landmarker"].active_requests == 1
        with fails(grpc.StatusCode.FAILED_PRECONDITION, "1 calls", "cancel"):
            server.v1_models.UnloadModels(wait)
        feed.send(next(frames(jpeg, 1)))
        assert len(next(call).faces) == 1  # it goes on
        wait.mode = v1.UNLOAD_MODE_CANCEL
        wait.timeout_s = 5
        server.v1_models.UnloadModels(wait)
        with fails(grpc.StatusCode.CANCELLED, "unloaded"):
            next(call)
        feed.end()
        assert loaded(server) == {}
        assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces
        answer = server.v1_models.UnloadModels(v1.UnloadModelsRequest(all=True))
        assert list(answer.model_ids) == ["face_detector"]


def test_memory_comes_back_when_models_go(jpeg: bytes) -> None:
    with serving() as server:
        server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg))
        before = server.stats().rss_bytes
        for method in ("StreamFaceMesh", "StreamHandTracking", "StreamPoseTracking", "StreamSelfieSegmentation"):
            list(getattr(server.vision, method)(frames(jpeg, 3)))
        full = server.stats().rss_bytes
        answer = server.v1_models.UnloadModels(v1.UnloadModelsRequest(all=True))
        assert full - before > 100 << 20
        assert answer.rss_bytes - before < 80 << 20


def test_what_to_unload_must_be_said(server: Child) -> None:
    for request in (
        v1.UnloadModelsRequest(),
        v1.UnloadModelsRequest(model_ids=["x"], all=True),
        v1.UnloadModelsRequest(model_ids=["x"], timeout_s=-1),
        v1.UnloadModelsRequest(model_ids=["x"], mode=7),  # type: ignore[arg-type]
    ):
        with fails(INVALID):
            server.v1_models.UnloadModels(request)


def test_files_of_loaded_models_are_served(server: Child) -> None:
    load(server, "hand_landmarker")
    request = ml.ModelFileRequest(model_id="hand_landmarker", file_path="hand_landmarker.task")
    chunks = list(server.models.GetModelFile(request))
    content = b"".join(chunk.data for chunk in chunks)
    assert content == load_model("hand_landmarker")
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [chunk.offset for chunk in chunks] == [n << 20 for n in range(len(chunks))]
    assert {chunk.total_size for chunk in chunks} == {len(content)}
    assert chunks[0].sha256 == hashlib.sha256(content).hexdigest()
    server.models.UnloadModel(ml.UnloadModelRequest(model_id="hand_landmarker"))
    with fails(grpc.StatusCode.NOT_FOUND, "hand_landmarker"):
        list(server.models.GetModelFile(request))
    with fails(INVALID, "file_path"):
        list(server.models.GetModelFile(ml.ModelFileRequest(model_id="x", file_path="../x")))


def test_pipelines_are_listed_with_what_is_not_here_yet(server: Child) -> None:
    listed = {each.name: each for each in server.v1_models.ListPipelines(v1.ListPipelinesRequest()).pipelines}
    assert set(listed) == set(PIPELINES)
    face = listed["face-detection"]
    assert face.available
    assert face.models[0] == "face_detector"
    assert ("min_detection_confidence", "float", "0.5") in [(o.name, o.type, o.default) for o in face.options]
    assert listed["text-generation"].available
    assert listed["litert-lm"].available
    assert not listed["text-to-speech"].available
    assert "later release" in listed["text-to-speech"].reason
    methods = {each.name: each for each in server.runtime.GetInfo(runtime_pb2.GetInfoRequest()).methods}
    assert methods["/ml.MediapipeService/DetectFaces"].available
    assert methods["/ml.TransformersService/GenerateText"].available
    assert all(each.available for name, each in methods.items() if name.startswith("/ml.MediapipeService/"))
    assert not methods["/tabml.v1.VisionService/Describe"].available
    assert "later release" in methods["/tabml.v1.VisionService/Describe"].reason
