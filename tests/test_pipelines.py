"""What can be loaded by name: the table is true, and models that calls share answer like the library."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tabml.text
import tabml.vision
from tabml.errors import (
    CorruptModelError,
    InvalidNameError,
    ModelClosedError,
    ModelFileNotFoundError,
    ModelKindError,
    OptionError,
    PipelineNotFoundError,
    TabmlError,
    UnavailableHereError,
)
from tabml.files import FileRef, HeldFiles, MemoryProvider, ResidentFiles, default_provider, load_catalog
from tabml.pipelines import MAX_MODEL_ID, PIPELINES, Option, Pipeline, find_pipeline, model_spec
from tabml.pipelines.vision import LoadedVision
from tabml.vision import FaceDetector, Frame, HandDetector, HandTracker, PoseTracker

NOBODYS = next(name for name in load_catalog() if not any(name in pipeline.models for pipeline in PIPELINES.values()))
"""A model of the catalog that no pipeline takes."""
FILES = {"litert-lm": "model.litertlm"}
_NUMBERS = ("context_length", "threads")
HERE = [pipeline for pipeline in PIPELINES.values() if not pipeline.reason]


@pytest.mark.parametrize("pipeline", HERE, ids=lambda pipeline: pipeline.name)
def test_options_are_those_of_the_classes(pipeline: Pipeline) -> None:
    if pipeline.family != "vision":
        module, _, name = pipeline.factory.partition(":")
        kind = getattr(importlib.import_module(module), name)
        signature = inspect.signature(kind).parameters
        said = ("model", "files", "revision", "architecture", "truncate_dim")
        said += ("progress", "allow_pickle", "trust_remote_code")  # of programs, which no server offers
        expected = {
            key: each.default or (each.default if each.default is False else 0 if key in _NUMBERS else "")
            for key, each in signature.items()
            if key not in said
        }
        assert {option.name: option.default for option in pipeline.options} == expected
        assert getattr(importlib.import_module(f"tabml.{pipeline.family}"), name) is kind
        return
    expected = {
        key: each.default
        for name in pipeline.classes
        for key, each in inspect.signature(getattr(tabml.vision, name)).parameters.items()
        if key not in ("model", "face", "hands", "detector", "files", "threads", "search_interval", "tracker")
    }
    assert {option.name for option in pipeline.options} == set(expected)
    for option in pipeline.options:
        default = expected[option.name]
        assert option.default == default or not (option.default or default)  # None and () have no type on the wire
        assert type(option.default) is type(default) or default in (None, ())
    for verb, name in zip(pipeline.verbs, pipeline.classes, strict=True):
        assert callable(getattr(getattr(tabml.vision, name), verb))


@pytest.mark.parametrize("pipeline", HERE, ids=lambda pipeline: pipeline.name)
def test_models_are_in_the_catalog_and_capabilities_on_the_wire(pipeline: Pipeline) -> None:
    from tabml_grpc.ml import ml_inference_pb2
    from tabml_grpc.v1 import edge_pb2, text_pb2, vision_pb2

    assert set(pipeline.models) <= set(load_catalog())
    paths = {
        f"/{service.full_name}/{method.name}"
        for file in (ml_inference_pb2, text_pb2, vision_pb2, edge_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert pipeline.capabilities
    assert set(pipeline.capabilities) <= paths


def test_names_are_forgiving() -> None:
    assert find_pipeline("Face_Detection") is PIPELINES["face-detection"]
    with pytest.raises(PipelineNotFoundError, match=r"did you mean 'face-detection'\?"):
        find_pipeline("face-detecton")
    with pytest.raises(UnavailableHereError, match="image-to-text"):
        find_pipeline("image-to-text")


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [(True, "1", True), (True, "FALSE", False), (1, "7", 7), (0.5, "1e-3", 0.001), ("a", "b", "b")],
)
def test_texts_become_values(option: Any, text: str, value: Any) -> None:
    found = Option(name="x", default=option, range="fine").parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("option", "text"), [(True, "yes"), (True, "no"), (True, "on"), (True, ""), (1, "1.5"), (0.5, "half"), (1, "")]
)
def test_texts_that_are_no_values_are_named(option: Any, text: str) -> None:
    with pytest.raises(OptionError, match=r"x='.*' must be fine"):
        Option(name="x", default=option, range="fine").parse(text)


@given(st.text())
def test_few_texts_are_true_or_false(text: str) -> None:
    option = Option(name="x", default=True, range="fine")
    if text.lower() in ("true", "1", "false", "0"):
        assert option.parse(text) is (text.lower() in ("true", "1"))
    else:
        with pytest.raises(OptionError):
            option.parse(text)


@pytest.mark.parametrize("pipeline", HERE, ids=lambda pipeline: pipeline.name)
def test_defaults_are_allowed_and_can_be_written(pipeline: Pipeline) -> None:
    texts = {option.name: str(option.default) for option in pipeline.options}
    values = pipeline.parse(texts)
    assert values == {option.name: option.default for option in pipeline.options}
    model = pipeline.default_model(values) if pipeline.models else "org/model"
    assert not pipeline.models or model == pipeline.default_model({}) == pipeline.models[0]
    file = "" if pipeline.models or pipeline.family == "text" else FILES.get(pipeline.name, "model.tflite")
    specs = [model_spec(model, pipeline=pipeline.name, options=said, file=file) for said in (values, texts)]
    assert specs[0] == specs[1]
    with pytest.raises(
        OptionError, match=rf"'speed' is not an option of {pipeline.name}; there are: .*{option_names(pipeline)}"
    ):
        pipeline.parse({"speed": "1"})


def option_names(pipeline: Pipeline) -> str:
    return ", ".join(option.name for option in pipeline.options)


@pytest.mark.parametrize("pipeline", [one for one in PIPELINES.values() if one.reason], ids=lambda one: one.name)
def test_what_comes_later_has_a_reason_and_nothing_else(pipeline: Pipeline) -> None:
    assert pipeline.name in pipeline.reason
    assert (pipeline.models, pipeline.options, pipeline.capabilities) == ((), (), ())


def test_a_name_like_no_other_gets_no_guess() -> None:
    with pytest.raises(
        PipelineNotFoundError,
        match=r"pipeline='qqqq' is not known; there are: face-detection, .*text-generation, .*litert",
    ):
        find_pipeline("qqqq")


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


def test_a_model_of_the_catalog_needs_nothing_but_may_say_more() -> None:
    file = load_catalog()["face_detector"].file
    plain = model_spec("face_detector")
    assert (plain.pipeline, plain.ref, plain.options) == ("face-detection", FileRef("face_detector", file), ())
    for said in ({"pipeline": "face-detection"}, {"file": file}, {"architecture": "Face-Detection"}):
        assert model_spec("face_detector", **said) == plain
    assert model_spec("face_detector", architecture="FACE_DETECTOR") == plain
    assert model_spec("face_detector", revision="v2").ref == FileRef("face_detector", file, "v2")
    assert model_spec("face_detector", file="other.tflite").ref == FileRef("face_detector", "other.tflite")
    assert model_spec(NOBODYS, pipeline="face-detection").pipeline == "face-detection"
    assert len(model_spec("x" * MAX_MODEL_ID, pipeline="face-detection", file="f").ref.repo) == 256


def test_two_loads_are_the_same_however_they_are_said() -> None:
    one = model_spec("hand_landmarker", options={"num_hands": "1", "min_tracking_confidence": "0.25"})
    two = model_spec("hand_landmarker", options={"min_tracking_confidence": 0.25, "num_hands": 1})
    assert one == two
    assert hash(one) == hash(two)
    assert one != model_spec("hand_landmarker", options={"num_hands": 1})
    assert str(one).startswith("hand-landmarks hand_landmarker/")
    assert str(one).endswith(" min_tracking_confidence=0.25, num_hands=1")


@pytest.mark.parametrize(
    ("error", "word", "arguments"),
    [
        (InvalidNameError, "model_id", {"model_id": "../x"}),
        (InvalidNameError, "model_id", {"model_id": ""}),
        (InvalidNameError, r"file='\.\./x'", {"model_id": "face_detector", "file": "../x"}),
        (InvalidNameError, r"revision='v1/\.\.'", {"model_id": "face_detector", "revision": "v1/.."}),
        (OptionError, "model_id", {"model_id": "x" * 257, "pipeline": "face-detection", "file": "f"}),
        (ModelFileNotFoundError, "one of face_detector", {"model_id": "mine", "pipeline": "face-detection"}),
        (ModelFileNotFoundError, "did you mean face_detector", {"model_id": "face_detectr"}),
        (OptionError, "range='short'", {"model_id": "face_detector_full_range", "options": {"range": "short"}}),
        (OptionError, "gestures=False", {"model_id": "gesture_recognizer", "options": {"gestures": "false"}}),
        (OptionError, "kind='soft'", {"model_id": "selfie_segmenter", "options": {"kind": "soft"}}),
        (OptionError, "num_hands='two'", {"model_id": "hand_landmarker", "options": {"num_hands": "two"}}),
        (OptionError, "num_hands=2.5", {"model_id": "hand_landmarker", "options": {"num_hands": 2.5}}),
        (
            OptionError,
            "min_tracking_confidence=nan",
            {"model_id": "hand_landmarker", "options": {"min_tracking_confidence": "nan"}},
        ),
        (ModelFileNotFoundError, "nothing", {"model_id": "nothing"}),
        (ModelFileNotFoundError, "mine", {"model_id": "mine", "pipeline": "face-detection"}),
        (PipelineNotFoundError, "pipeline='x'", {"model_id": "face_detector", "pipeline": "x"}),
        (UnavailableHereError, "text-to-speech", {"model_id": "mine", "pipeline": "text-to-speech"}),
        (ModelFileNotFoundError, "say its file", {"model_id": "mine", "pipeline": "litert"}),
        (
            OptionError,
            "accelerator='tpu'",
            {"model_id": "a/b.tflite", "pipeline": "litert", "options": {"accelerator": "tpu"}},
        ),
        (OptionError, ".litertlm", {"model_id": "a/b.tflite", "pipeline": "litert-lm"}),
        (ModelKindError, "face_detector", {"model_id": "face_detector", "pipeline": "pose-landmarks"}),
        (OptionError, "pipeline", {"model_id": NOBODYS}),
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


def test_shared_hands_answer_like_the_library(pictures: Callable[[str], Path]) -> None:
    frame = Frame.from_file(pictures("hand_thumb_up.jpg"))
    model = opened("hand_landmarker")
    with HandDetector(gestures=False) as detector, HandTracker(gestures=False) as reference:
        (expected,), (followed,) = detector.detect(frame), reference.track(frame)
    with ThreadPoolExecutor(2) as pool:
        for (found,) in pool.map(lambda _: model.answer(frame, None, None), range(4)):
            np.testing.assert_array_equal(found.landmarks, expected.landmarks)
            assert (found.handedness, found.gesture) == (expected.handedness, None)
    tracker = model.tracker({"num_hands": 2})
    assert isinstance(tracker, HandTracker)
    np.testing.assert_array_equal(model.answer(frame, None, tracker)[0].landmarks, followed.landmarks)
    assert model.files.names == (model.spec.ref.path,)
    tracker.close()
    model.close()
    assert model.files.names == ()


def test_a_bad_model_is_told_at_its_load() -> None:
    spec = model_spec("mine", pipeline="face-detection", file="f")
    for content, error in ((b"not a model", CorruptModelError), (None, ModelFileNotFoundError)):
        files = {("mine", "f"): content} if content is not None else {}
        model = LoadedVision(spec, HeldFiles(ResidentFiles(MemoryProvider(files))))
        with pytest.raises(error):
            model.load()
        model.close()


def test_options_of_a_stream_are_checked_before_its_first_frame() -> None:
    model = opened("face_detector")
    for options in ({"speed": 1}, {"min_detection_confidence": 2}):
        with pytest.raises(OptionError, match=r"speed|min_detection_confidence=2"):
            model.tracker(options)
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


def test_a_task_is_lent_again_unless_its_call_failed() -> None:
    model = opened("face_detector")
    with model.detector() as first:
        pass
    with pytest.raises(ZeroDivisionError), model.detector() as second:
        raise ZeroDivisionError
    assert second is first
    assert first.closed
    with model.detector() as third:
        assert third is not first
        assert not third.closed
    model.close()
    assert third.closed


def test_the_task_that_waited_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    model = opened("face_detector")
    lent = []
    for confidence in (0.5, 0.6, 0.7):
        with model.detector({"min_detection_confidence": confidence}) as detector:
            lent.append(detector)
    assert [each.closed for each in lent] == [True, True, False]
    model.close()


def test_only_what_a_family_needs_is_prewarmed(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import sys
        from tabml.pipelines import prewarm
        prewarm("text")
        assert "tabml.vision" not in sys.modules
        assert "/mediapipe/" not in open("/proc/self/maps").read()
        prewarm("vision")
        assert "/mediapipe/" in open("/proc/self/maps").read()
        assert "cv2" in sys.modules
    """)
    assert ended.returncode == 0, ended.stderr


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


def test_a_bad_frame_costs_no_task() -> None:
    model = opened("face_detector")
    with model.detector() as first:
        pass
    with pytest.raises(TabmlError):
        model.answer("no frame", None, None)  # type: ignore[arg-type]
    with model.detector() as again:
        assert again is first
    model.close()
