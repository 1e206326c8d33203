"""Smaller models: real ones, judged on real pictures, and refused when they lose too much."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tabml._litert import LiteGraph
from tabml._litert.check import check_tflite
from tabml._litert.metadata import read_metadata
from tabml._litert.rewriting import finished, modern, weights_of
from tabml.cancellation import Cancellation
from tabml.edge import LiteModel, comparison, quantize
from tabml.edge.comparison import Tally, kinds_of
from tabml.edge.prepared import prepared
from tabml.edge.quantizing import Quantized
from tabml.errors import (
    AccuracyDropError,
    CallCancelledError,
    CorruptModelError,
    ModelFileNotFoundError,
    ModelKindError,
    ModelLoadError,
    OptionError,
)
from tabml.files import load_model
from tabml.vision import Frame, ImageClassifier

Find = Callable[[str], Path]
Samples = list[dict[str, np.ndarray]]
CLASSIFIER, SEGMENTER, SELFIE = "efficientnet_lite0_float32", "deeplab_v3", "selfie_segmenter"
NAMES = ("coupleanddog.jpeg", "hand_thumb_up.jpg", "ic_test_image.jpg", "pose_test_image.jpg", "seg_input_image.jpeg")


@pytest.fixture(scope="module", autouse=True)
def _hasty() -> Iterator[None]:
    """Speed isn't judged here: a few calls of each model are enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def frames(pictures: Find, portrait: Path, astronaut: Path) -> list[Frame]:
    paths = [
        *map(pictures, NAMES),
        portrait,
        astronaut,
        astronaut.with_name("chelsea.png"),
        astronaut.with_name("coffee.png"),
    ]
    found = [Frame.from_file(path) for path in paths]
    mirrored = [Frame.from_array(np.ascontiguousarray(each.to_rgb()[:, ::-1])) for each in found]
    parts = [each.crop(each.width // 8, each.height // 8, each.width * 7 // 8, each.height * 7 // 8) for each in found]
    corners = [each.crop(0, 0, each.width * 3 // 4, each.height * 3 // 4) for each in found]
    return [frame for four in zip(found, mirrored, parts, corners, strict=True) for frame in four]


def samples_for(name: str, frames: list[Frame]) -> Samples:
    with LiteModel(name, threads=1) as model:
        (spec,), said = model.inputs, model.metadata
        assert said is not None
        return [{spec.name: prepared(spec, said.inputs[0], frame)} for frame in frames]


@pytest.fixture(scope="module")
def samples(frames: list[Frame]) -> Samples:
    return samples_for(CLASSIFIER, frames)


@pytest.fixture(scope="module")
def dynamic(samples: Samples) -> Quantized:
    return quantize(CLASSIFIER, evaluation=samples)


@pytest.mark.parametrize(
    ("name", "recipe", "smaller", "agreement", "sqnr_db", "weights"),
    [
        (CLASSIFIER, "int8-dynamic", 3.3, 0.8, 15, 0.95),
        (CLASSIFIER, "int8", 3.4, 0.7, 13, 0.99),
        (CLASSIFIER, "int4", 3.7, 0.7, 14, 0.94),
        (SEGMENTER, "int8-dynamic", 3.0, 0.95, 23, 0.9),
        (SEGMENTER, "int8", 2.8, 0.95, 20, 0.99),
        (SELFIE, "int8-dynamic", 1.1, 0.98, 18, 0.8),
    ],
)
def test_a_recipe_makes_a_model_smaller_and_leaves_it_alike(
    name: str, recipe: Any, smaller: float, agreement: float, sqnr_db: float, weights: float, frames: list[Frame]
) -> None:
    seen, other = samples_for(name, frames[::2]), samples_for(name, frames[1::2])
    made = quantize(name, recipe=recipe, calibration=seen, evaluation=other)
    original, found = bytes(load_model(name)), made.comparison
    assert (found.bytes_before, found.bytes_after) == (len(original), len(made.model))
    assert found.smaller > smaller
    assert found.samples == len(other)
    assert not found.generated
    (output,) = found.outputs
    assert found.accuracy_after == output.agreement > agreement
    assert output.sqnr_db > sqnr_db
    assert made.quantized_weights > weights
    check_tflite(made.model)
    with LiteModel(name) as before, LiteModel(made.model) as after:
        assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
        assert after.metadata == before.metadata


def test_figures_are_those_of_the_two_files(dynamic: Quantized, samples: Samples) -> None:
    (output,) = dynamic.comparison.outputs
    before, after = LiteGraph(bytes(load_model(CLASSIFIER))), LiteGraph(dynamic.model)
    pairs = [
        [graph.run(list(each.values()), lambda out: out[0].copy()) for graph in (before, after)] for each in samples
    ]
    assert output.agreement == np.mean([first.argmax() == second.argmax() for first, second in pairs])
    assert output.max_error == pytest.approx(max(np.abs(first - second).max() for first, second in pairs))
    signal = sum(float((first.astype(float) ** 2).sum()) for first, _ in pairs)
    noise = sum(float(((first.astype(float) - second) ** 2).sum()) for first, second in pairs)
    assert output.sqnr_db == pytest.approx(10 * np.log10(signal / noise))
    assert dynamic.to_dict()["outputs"][0]["kind"] == "classes"
    assert dynamic.comparison.ms_before > 0 < dynamic.comparison.ms_after


def test_a_smaller_classifier_still_knows_its_labels(dynamic: Quantized, portrait: Path, tmp_path: Path) -> None:
    path = dynamic.save(tmp_path / "small.tflite")
    with ImageClassifier(model=path) as classifier:
        assert classifier.classify(Frame.from_file(portrait))[0].label == "military uniform"
        assert len(classifier.labels) == 1000


def test_mediapipe_takes_a_smaller_classifier_too(dynamic: Quantized, portrait: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mediapipe as mp

    vision = mp.tasks.vision
    options = vision.ImageClassifierOptions(base_options=mp.tasks.BaseOptions(model_asset_buffer=dynamic.model))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=Frame.from_file(portrait).to_rgb())
        assert classifier.classify(image).classifications[0].categories[0].category_name == "military uniform"


def test_the_same_model_is_made_twice(dynamic: Quantized, samples: Samples) -> None:
    found: list[Quantized] = []
    threads = [threading.Thread(target=lambda: found.append(quantize(CLASSIFIER))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.model for each in found] == [dynamic.model] * 2


def test_old_files_are_quantised_only_in_todays_spelling() -> None:
    from tabml._litert.rewriting import SIGNATURE
    from tabml.edge._quantizer import quantised

    content = bytes(load_model(CLASSIFIER))
    untouched = quantised(content, "int8-dynamic", signature=SIGNATURE, samples=(), threads=1)
    assert weights_of(untouched).share == 0
    assert (
        weights_of(quantised(modern(content), "int8-dynamic", signature=SIGNATURE, samples=(), threads=1)).share > 0.9
    )


@pytest.mark.parametrize("name", [CLASSIFIER, SEGMENTER, SELFIE, "face_detector", "objectron_cup"])
def test_a_file_written_anew_answers_to_the_last_bit_as_before(name: str) -> None:
    content = bytes(load_model(name))
    again = finished(modern(content), content)
    check_tflite(modern(content))
    check_tflite(again)
    before, after = LiteGraph(content), LiteGraph(again)
    assert [(spec.name, spec.shape) for spec in after.outputs] == [(spec.name, spec.shape) for spec in before.outputs]
    inputs = [np.random.default_rng(0).uniform(0, 1, spec.shape).astype(spec.dtype) for spec in before.inputs]
    for first, second in zip(
        *(graph.run(inputs, lambda out: [array.copy() for array in out]) for graph in (before, after)), strict=True
    ):
        np.testing.assert_array_equal(first, second)
    assert read_metadata(again) == read_metadata(content)
    assert weights_of(again).quantised == 0


@pytest.mark.parametrize(
    ("name", "kinds"),
    [(CLASSIFIER, ["classes"]), (SEGMENTER, ["classes"]), (SELFIE, ["sides"]), ("face_detector", ["values", "values"])],
)
def test_what_is_compared_follows_from_the_model(name: str, kinds: list[str]) -> None:
    assert list(kinds_of(bytes(load_model(name))).values()) == kinds


def test_too_great_a_loss_is_refused_with_the_figures(samples: Samples) -> None:
    with pytest.raises(
        AccuracyDropError, match=r"max_drop=0: recipe='int8' loses 0\.\d+ \(from 1\.0000 to 0\.\d+"
    ) as caught:
        quantize(CLASSIFIER, recipe="int8", calibration=samples[:2], evaluation=samples, max_drop=0)
    assert "times smaller" in str(caught.value)
    assert caught.value.limit == 0 < caught.value.drop < 1
    assert quantize(CLASSIFIER, evaluation=samples, max_drop=1).comparison.drop < 1


def test_accuracy_may_be_ones_own_measure(samples: Samples) -> None:
    seen: list[str] = []

    def falling(predict: Any) -> float:
        (name,) = predict(samples[0])
        seen.append(name)
        return 0.9 - 0.25 * (len(seen) - 1)

    with pytest.raises(AccuracyDropError, match=r"from 0\.9000 to 0\.6500 of its own measure") as caught:
        quantize(CLASSIFIER, accuracy=falling, max_drop=0.2)
    assert caught.value.drop == pytest.approx(0.25)
    assert seen == ["Softmax", "Softmax"]
    found = quantize(CLASSIFIER, accuracy=lambda predict: 0.5).comparison
    assert (found.measure, found.accuracy_before, found.accuracy_after) == ("yours", 0.5, 0.5)


def test_noise_looks_better_than_pictures_and_is_never_a_judge(samples: Samples, dynamic: Quantized) -> None:
    found = quantize(CLASSIFIER).comparison
    assert found.generated
    assert found.accuracy_after > dynamic.comparison.accuracy_after
    with pytest.raises(OptionError, match="nothing to be judged on"):
        quantize(CLASSIFIER, max_drop=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "int7"}, "recipe='int7' must be one of 'int8-dynamic', 'int8', 'int4'"),
        ({"recipe": ["int8"]}, "recipe=['int8']"),
        ({"recipe": "int8"}, "needs calibration="),
        ({"max_drop": -0.1}, "max_drop=-0.1 must be"),
        ({"max_drop": float("nan")}, "max_drop=nan must be"),
        ({"max_drop": True}, "max_drop=True must be"),
        ({"max_drop": "1"}, "max_drop='1' must be"),
        ({"threads": 0}, "threads=0 must be"),
        ({"accuracy": 3}, "accuracy=3 must be a function"),
        ({"accuracy": lambda predict: float("nan")}, "is no number"),
        ({"accuracy": lambda: 1}, "must take a model"),
        ({"calibration": []}, "calibration has no samples"),
        ({"evaluation": "abc"}, "evaluation must be a list of samples"),
        ({"evaluation": {"images": np.zeros(3)}}, "evaluation must be a list of samples"),
        ({"evaluation": [np.zeros(3)]}, "evaluation[0] has ndarray; the model takes 'images'"),
        ({"evaluation": [{"image": np.zeros(3)}]}, "evaluation[0] has 'image'; the model takes 'images'"),
        ({"evaluation": [{"images": np.zeros((1, 224, 224, 3))}]}, "is float64 (1, 224, 224, 3); the model takes float32"),
        ({"evaluation": [{"images": np.zeros((2, 9), np.float32)}]}, "is float32 (2, 9)"),
        ({"evaluation": [{"images": [1.0]}]}, "evaluation[0]['images'] is list"),
        ({"evaluation": [{"images": np.full((1, 224, 224, 3), np.nan, np.float32)}]}, "no numbers"),
    ],
)  # fmt: skip
def test_wrong_arguments_say_so(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        quantize(CLASSIFIER, **options)
    assert words in str(caught.value)


def test_samples_have_a_limit_that_is_told(monkeypatch: pytest.MonkeyPatch, samples: Samples) -> None:
    from tabml.edge import samples as module

    monkeypatch.setattr(module, "MAX_SAMPLE_BYTES", 3 * samples[0]["images"].nbytes)
    with pytest.raises(OptionError, match="give fewer"):
        quantize(CLASSIFIER, evaluation=(samples[0] for _ in iter(int, 1)))  # they never end


def test_models_that_it_is_not_for_are_named() -> None:
    with pytest.raises(ModelKindError, match="is quantised already"):
        quantize("efficientnet_lite0")
    with pytest.raises(ModelKindError, match="take 'int8-dynamic'"):
        quantize(SEGMENTER, recipe="int4")
    with pytest.raises(ModelKindError, match="several signatures"):
        quantize(with_two_signatures(bytes(load_model("face_detector"))))
    with pytest.raises(OptionError, match=r"member=None must be one of 'face_detector.tflite'"):
        quantize("face_landmarker")
    with pytest.raises(ModelFileNotFoundError):
        quantize("no_such_model")


def with_two_signatures(model: bytes) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    root = schema.ModelT.InitFromPackedBuf(modern(model))
    (first,) = root.signatureDefs
    root.signatureDefs = [first, schema.SignatureDefT(**{**vars(first), "signatureKey": b"again"})]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(root.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_file_of_a_bundle_is_quantised_by_its_name() -> None:
    made = quantize("gesture_recognizer", member="hand_landmarker.task/hand_detector.tflite")
    assert made.comparison.bytes_before < len(load_model("gesture_recognizer"))
    assert made.quantized_weights > 0.5


def test_a_model_for_any_batch_is_quantised() -> None:
    made = quantize("objectron_cup")
    with LiteModel(made.model) as model:
        assert model.inputs[0].is_dynamic
        assert made.quantized_weights > 0.8


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", CorruptModelError),
        (b"no model at all", CorruptModelError),
        (b"\x1c\0\0\0TFL3" + bytes(64), CorruptModelError),
    ],
)
def test_what_is_no_model_is_refused(content: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        quantize(content)


def test_damaged_files_are_refused_or_quantised_but_never_end_the_process() -> None:
    content = bytearray(load_model("face_detector"))
    with pytest.raises(CorruptModelError):
        quantize(bytes(content[:100_000]))
    random = np.random.default_rng(0)
    for _ in range(12):
        damaged = bytearray(content)
        for at in random.integers(0, len(content), 8):
            damaged[at] ^= 1 << random.integers(8)
        try:
            check_tflite(quantize(bytes(damaged)).model)
        except (CorruptModelError, ModelLoadError, ModelKindError):
            pass


def test_the_original_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    content = bytes(load_model("face_detector"))
    path.write_bytes(content)
    (tmp_path / "soft.tflite").symlink_to(path)
    os.link(path, tmp_path / "hard.tflite")
    made = quantize(path)
    for name in ("model.tflite", "soft.tflite", "hard.tflite", "../" + tmp_path.name + "/model.tflite"):
        with pytest.raises(OptionError, match="is the original itself"):
            made.save(tmp_path / name)
    with pytest.raises(OptionError, match="no regular file"):
        made.save(tmp_path)
    with pytest.raises(OptionError, match="make it first"):
        made.save(tmp_path / "none" / "out.tflite")
    (tmp_path / "out.tflite").write_text("old")
    assert made.save(tmp_path / "out.tflite").read_bytes() == made.model
    assert path.read_bytes() == content
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "hard.tflite",
        "model.tflite",
        "out.tflite",
        "soft.tflite",
    ]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, dynamic: Quantized, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.tflite").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        dynamic.save(tmp_path / "out.tflite")
    assert [each.name for each in tmp_path.iterdir()] == ["out.tflite"]
    assert (tmp_path / "out.tflite").read_text() == "old"


def test_it_can_be_cancelled(samples: Samples) -> None:
    cancellation = Cancellation()

    def until_cancelled() -> Any:
        yield samples[0]
        cancellation.cancel()

    with cancellation.bound(), pytest.raises(CallCancelledError):
        quantize(CLASSIFIER, evaluation=until_cancelled())


def test_nothing_is_written_to_the_terminal(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import warnings
        import numpy as np
        warnings.simplefilter("error")
        from tabml.edge import comparison, quantize
        comparison._SECONDS = 0
        zeros = [{"images": np.zeros((1, 224, 224, 3), np.float32)}]
        for recipe in ("int8-dynamic", "int8", "int4"):
            quantize("efficientnet_lite0_float32", recipe=recipe, calibration=zeros)
    """)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_without_the_quantiser_the_command_that_brings_it_is_named(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import sys
        sys.modules["ai_edge_quantizer"] = None
        from tabml.edge import quantize
        from tabml.errors import MissingExtraError
        try:
            quantize("face_detector")
        except MissingExtraError as problem:
            print(problem)
    """)
    assert "python -m pip install 'tabml[quantize]'" in ended.stdout, ended.stderr


FLOATS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 3), st.integers(2, 5)), elements=st.floats(-100, 100, width=32)
)


@given(FLOATS)
def test_a_model_agrees_with_itself(answers: np.ndarray) -> None:
    for kind in ("classes", "sides", "equal", "values"):
        tally = Tally("out", kind)
        tally.add(answers, answers.copy())
        found = tally.result()
        assert (found.agreement, found.max_error) == (pytest.approx(1), 0)
        assert found.sqnr_db == np.inf
        assert found.cosine == pytest.approx(1)


@given(FLOATS, FLOATS, st.sampled_from(["classes", "sides", "equal", "values"]))
@settings(max_examples=50)
def test_agreement_is_a_share(first: np.ndarray, second: np.ndarray, kind: Any) -> None:
    tally = Tally("out", kind)
    tally.add(first, second)
    assert 0 <= tally.result().agreement <= 1 + 1e-12
    assert -1 - 1e-12 <= tally.result().cosine <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_number_agrees_with_nothing(bad: float) -> None:
    tally = Tally("out", "classes")
    tally.add(np.array([[0.1, 0.9]], np.float32), np.array([[bad, 0.9]], np.float32))
    found = tally.result()
    assert (found.agreement, found.max_error, found.sqnr_db) == (0, np.inf, -np.inf)
