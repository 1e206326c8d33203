"""What can be loaded by name: the table is true, and models that calls share answer like the library."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import numpy as np
import pytest

import tabml.vision
from tabml.errors import (
    InvalidNameError,
    ModelClosedError,
    ModelFileNotFoundError,
    ModelKindError,
    OptionError,
    PipelineNotFoundError,
    TabmlError,
    UnavailableHereError,
)
from tabml.files import FileRef, HeldFiles, ResidentFiles, default_provider, load_catalog
from tabml.pipelines import PIPELINES, LoadedVision, Option, Pipeline, find_pipeline, model_spec
from tabml.vision import FaceDetector, Frame, PoseTracker

HERE = [pipeline for pipeline in PIPELINES.values() if not pipeline.reason]


@pytest.mark.parametrize("pipeline", HERE, ids=lambda pipeline: pipeline.name)
def test_options_are_those_of_the_classes(pipeline: Pipeline) -> None:
    for name in pipeline.classes:
        signature = inspect.signature(getattr(tabml.vision, name)).parameters
        expected = {key: each.default for key, each in signature.items() if key not in ("model", "files")}
        assert {option.name: option.default for option in pipeline.options} == expected
        for option in pipeline.options:
            assert type(option.default) is type(expected[option.name])
    for verb, name in zip(pipeline.verbs, pipeline.classes, strict=True):
        assert callable(getattr(getattr(tabml.vision, name), verb))


@pytest.mark.parametrize("pipeline", HERE, ids=lambda pipeline: pipeline.name)
def test_models_are_in_the_catalog_and_capabilities_on_the_wire(pipeline: Pipeline) -> None:
    from tabml_grpc.ml import ml_inference_pb2
    from tabml_grpc.v1 import vision_pb2

    assert set(pipeline.models) <= set(load_catalog())
    paths = {
        f"/{service.full_name}/{method.name}"
        for file in (ml_inference_pb2, vision_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert pipeline.capabilities
    assert set(pipeline.capabilities) <= paths


def test_names_are_forgiving() -> None:
    assert find_pipeline("Face_Detection") is PIPELINES["face-detection"]
    with pytest.raises(PipelineNotFoundError, match=r"did you mean 'face-detection'\?"):
        find_pipeline("face-detecton")
    with pytest.raises(UnavailableHereError, match="text-generation"):
        find_pipeline("text-generation")


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [(True, "1", True), (True, "FALSE", False), (1, "7", 7), (0.5, "1e-3", 0.001), ("a", "b", "b")],
)
def test_texts_become_values(option: Any, text: str, value: Any) -> None:
    found = Option(name="x", default=option, range="fine").parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("option", "text"), [(True, "yes"), (1, "1.5"), (0.5, "half"), (1, "")])
def test_texts_that_are_no_values_are_named(option: Any, text: str) -> None:
    with pytest.raises(OptionError, match=r"x='.*' must be fine"):
        Option(name="x", default=option, range="fine").parse(text)


def test_default_models_follow_the_options() -> None:
    face, hands = PIPELINES["face-detection"], PIPELINES["hand-landmarks"]
    assert face.default_model({}) == "face_detector"
    assert face.default_model({"range": "full"}) == "face_detector_full_range"
    assert hands.default_model({"gestures": False}) == "hand_landmarker"
    assert hands.default_model({"gestures": True}) == "gesture_recognizer"


def test_a_model_of_the_providers_own_needs_its_pipeline_and_file() -> None:
    spec = model_spec(
        "maker/mine", pipeline="pose_landmarks", file="pose.task", revision="v2", options={"num_poses": "2"}
    )
    assert spec.ref == FileRef("maker/mine", "pose.task", "v2")
    assert (spec.pipeline, spec.options) == ("pose-landmarks", (("num_poses", 2),))


@pytest.mark.parametrize(
    ("error", "word", "arguments"),
    [
        (InvalidNameError, "model_id", {"model_id": "../x"}),
        (InvalidNameError, "model_id", {"model_id": ""}),
        (OptionError, "model_id", {"model_id": "x" * 400}),
        (ModelFileNotFoundError, "nothing", {"model_id": "nothing"}),
        (ModelFileNotFoundError, "mine", {"model_id": "mine", "pipeline": "face-detection"}),
        (PipelineNotFoundError, "pipeline='x'", {"model_id": "face_detector", "pipeline": "x"}),
        (UnavailableHereError, "litert", {"model_id": "mine", "pipeline": "litert"}),
        (ModelKindError, "face_detector", {"model_id": "face_detector", "pipeline": "pose-landmarks"}),
        (OptionError, "pipeline", {"model_id": "efficientdet_lite0"}),
        (OptionError, "speed", {"model_id": "face_detector", "options": {"speed": "1"}}),
        (OptionError, "num_hands=0", {"model_id": "hand_landmarker", "options": {"num_hands": "0"}}),
        (OptionError, "gestures=True", {"model_id": "hand_landmarker", "options": {"gestures": "true"}}),
        (OptionError, "range='full'", {"model_id": "face_detector", "options": {"range": "full"}}),
        (OptionError, "architecture='big'", {"model_id": "face_detector", "architecture": "big"}),
    ],
)
def test_a_model_that_can_not_be_says_why(error: type[TabmlError], word: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(error, match=word):
        model_spec(**arguments)


def opened(model_id: str, **options: Any) -> LoadedVision:
    return LoadedVision(model_spec(model_id, options=options), HeldFiles(ResidentFiles(default_provider()))).load()


def test_a_shared_model_answers_like_the_library(portrait: Any) -> None:
    frame = Frame.from_file(portrait)
    model = opened("face_detector", min_detection_confidence=0.9)
    with FaceDetector(min_detection_confidence=0.9) as detector:
        (expected,) = detector.detect(frame)
    (found,) = model.answer(frame, None, None)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert len(model.answer(frame, {"min_detection_confidence": 1.0}, None)) == 0  # the call's own option wins
    assert model.tracker() is None
    with pytest.raises(OptionError, match="num_faces"):
        model.answer(frame, {"num_faces": 2}, None)
    model.close()


def test_each_stream_gets_a_tracker_of_its_own(portrait: Any) -> None:
    frame = Frame.from_file(portrait)
    model = opened("pose_landmarker_full")
    with PoseTracker() as reference:
        expected = reference.track(frame)
    one, two = model.tracker(), model.tracker()
    assert one is not None
    assert two is not None
    assert one is not two
    np.testing.assert_array_equal(model.answer(frame, None, one)[0].landmarks, expected[0].landmarks)
    one.close()
    assert len(model.answer(frame, None, two)) == 1
    two.close()
    model.close()


def test_what_is_lent_while_the_model_is_closed_goes_when_it_comes_back() -> None:
    model = opened("face_detector")
    black = Frame.from_array(np.zeros((48, 48, 3), np.uint8))
    with model.detector() as lent:
        model.close()
        assert len(lent.detect(black)) == 0  # type: ignore[attr-defined]
    assert lent.closed
    with pytest.raises(ModelClosedError):
        model.answer(black, None, None)


def test_no_more_tasks_wait_than_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    model = opened("face_detector")
    gate = threading.Barrier(5)
    lent = []

    def use() -> None:
        with model.detector() as detector:
            lent.append(detector)
            gate.wait(10)

    threads = [threading.Thread(target=use) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in lent}) == 5
    assert sum(not each.closed for each in lent) == 2
    model.close()
    assert all(each.closed for each in lent)
