"""Classifiers and embedders by what models say about themselves: vision's own answers, without OpenCV or MediaPipe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lite
from hypothesis import given
from hypothesis import strategies as st

from tabml.edge import LiteClassifier, LiteEmbedder
from tabml.edge.prepared import prepared, stretched
from tabml.errors import InferenceError, ModelClosedError, ModelKindError, OptionError, TabmlError
from tabml.files import load_model
from tabml.vision import Frame, ImageClassifier, ImageEmbedder

NAMES = ("coupleanddog.jpeg", "hand_thumb_up.jpg", "ic_test_image.jpg", "pose_test_image.jpg", "seg_input_image.jpeg")


@pytest.fixture(scope="module")
def frames(pictures: Callable[[str], Path], portrait: Path, astronaut: Path) -> list[Frame]:
    return [Frame.from_file(path) for path in (*map(pictures, NAMES), portrait, astronaut)]


@pytest.mark.parametrize(("name", "near"), [("efficientnet_lite0", 0.06), ("efficientnet_lite0_float32", 0.02)])
def test_classes_are_those_of_vision(name: str, near: float, frames: list[Frame]) -> None:
    with LiteClassifier(name, max_results=1000) as ours, ImageClassifier(model=name, max_results=100) as theirs:
        assert ours.labels == theirs.labels
        for frame in frames:
            found = {each.index: each for each in ours.classify(frame)}
            for each in theirs.classify(frame):
                assert found[each.index].score == pytest.approx(each.score, abs=near)
                assert found[each.index].label == each.label


def test_pictures_may_be_arrays_of_any_size(frames: list[Frame]) -> None:
    frame = frames[0]
    with LiteClassifier("efficientnet_lite0_float32", max_results=3) as classifier:
        expected = classifier.classify(frame)
        assert len(expected) == 3
        assert [each.score for each in expected] == sorted((each.score for each in expected), reverse=True)
        assert classifier.classify(frame.to_rgb())[0] == expected[0]
        gray = classifier.classify(frame.to_rgb().mean(axis=2).astype(np.uint8))
        assert len(gray) == 3
        tensor = prepared(classifier.model.inputs[0], classifier.model.metadata.inputs[0], frame)  # type: ignore[union-attr]
        assert tensor.shape == (1, 224, 224, 3)
        assert (tensor.min(), tensor.max()) >= (-1.0, 0.5)
        for already in (tensor, tensor[0], tensor.astype(np.float64)):
            assert classifier.classify(already).items == expected.items
        json.dumps(expected.to_dict())


@pytest.mark.parametrize(
    "lie",
    [np.zeros((10, 10, 4), np.uint8), np.zeros((0, 10, 3), np.uint8), np.zeros((3, 10, 10), np.float64), "a picture", None, {}],
)  # fmt: skip
def test_what_is_no_picture_is_told(lie: Any, frames: list[Frame]) -> None:
    with LiteClassifier("efficientnet_lite0_float32") as classifier:
        with pytest.raises(OptionError):
            classifier.classify(lie)
        assert classifier.classify(frames[0])


def test_classes_are_chosen_by_name_and_score(frames: list[Frame]) -> None:
    frame = frames[2]
    with LiteClassifier("efficientnet_lite0", max_results=5) as every:
        best, *others = every.classify(frame)
    with LiteClassifier("efficientnet_lite0", category_denylist=[best.label], max_results=4) as without:
        assert without.classify(frame).items[:3] == tuple(others[:3])
    with LiteClassifier("efficientnet_lite0", category_allowlist=[others[1].label]) as only:
        assert only.classify(frame).items == (others[1],)
    with LiteClassifier("efficientnet_lite0", score_threshold=best.score) as high:
        assert [each.label for each in high.classify(frame)] == [best.label]
    with pytest.raises(OptionError, match="category_allowlist: 'unicorn'"):
        LiteClassifier("efficientnet_lite0", category_allowlist=["unicorn"]).load()


@pytest.mark.parametrize(
    "lie",
    [{"max_results": 0}, {"max_results": 1001}, {"score_threshold": float("nan")}, {"threads": 0}, {"accelerator": "tpu"},
     {"category_allowlist": ["a"], "category_denylist": ["b"]}],
)  # fmt: skip
def test_options_are_checked_first(lie: Any) -> None:
    with pytest.raises(OptionError, match=next(iter(lie))):
        LiteClassifier("efficientnet_lite0", **lie)


@pytest.mark.parametrize("name", ["selfie_segmenter", "face_detector", "efficientdet_lite0"])
def test_models_of_another_kind_are_refused(name: str) -> None:
    for kind in (LiteClassifier, LiteEmbedder):
        with pytest.raises(ModelKindError):
            kind(name).load()
    with pytest.raises(ModelKindError, match="several inputs"):
        LiteClassifier(tiny_lite.sums()).load()


def test_vectors_are_those_of_vision(frames: list[Frame]) -> None:
    with (
        LiteEmbedder("efficientnet_lite0_float32") as ours,
        ImageEmbedder(model="efficientnet_lite0_float32", layer="output") as theirs,
    ):
        for frame in frames:
            vector = ours.embed(frame)
            assert not vector.flags.writeable
            assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-5)
            assert float(vector @ theirs.embed(frame).vector) > 0.995


def test_a_model_that_says_nothing_takes_numbers_and_numbers_its_classes() -> None:
    with LiteClassifier(tiny_lite.remembering()) as classifier:
        (only,) = classifier.classify([[0.25]])
        assert (only.label, only.index, only.score) == ("0", 0, 0.25)
    with LiteEmbedder(tiny_lite.quantized(), l2_normalize=False) as embedder:
        assert embedder.embed(np.array([1.0, 2.0, 0.5, 0.0], np.float32)).tolist() == [2.0, 4.0, 1.0, 0.0]


def test_a_score_that_is_no_number_is_an_error() -> None:
    with LiteClassifier(tiny_lite.remembering()) as classifier:
        classifier.classify([[np.float32(3e38)]])
        with pytest.raises((InferenceError, OptionError)):
            classifier.classify([[np.float32("nan")]])


def test_a_closed_classifier_says_so(frames: list[Frame]) -> None:
    classifier = LiteClassifier("efficientnet_lite0").load()
    assert repr(classifier) == "LiteClassifier('efficientnet_lite0', loaded)"
    classifier.close()
    classifier.close()
    with pytest.raises(ModelClosedError):
        classifier.classify(frames[0])


def test_the_async_twins_answer_the_same(frames: list[Frame]) -> None:
    async def both() -> None:
        with LiteClassifier("efficientnet_lite0") as classifier, LiteEmbedder("efficientnet_lite0") as embedder:
            assert (await classifier.classify_async(frames[0])).items == classifier.classify(frames[0]).items
            np.testing.assert_array_equal(await embedder.embed_async(frames[0]), embedder.embed(frames[0]))

    asyncio.run(both())


def test_labels_that_were_damaged_are_told() -> None:
    model = bytes(load_model("efficientnet_lite0"))
    at = model.rindex(b"PK\x01\x02")
    told = 0
    for place in range(at, at + 60, 3):
        changed = bytearray(model)
        changed[place] ^= 0xFF
        try:
            with LiteClassifier(bytes(changed)) as classifier:
                assert len(classifier.labels) == 1000
        except TabmlError:
            told += 1
    assert told


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_stretched_picture_keeps_to_its_colours(height: int, width: int, rows: int, columns: int, gray: bool) -> None:
    shape = (height, width) if gray else (height, width, 3)
    pixels = np.random.default_rng(height * width).integers(0, 256, shape, np.uint8)
    found = stretched(pixels, columns, rows)
    assert found.shape == (rows, columns, *shape[2:])
    assert found.min() >= pixels.min()
    assert found.max() <= pixels.max()
    if (rows, columns) == (height, width):
        np.testing.assert_array_equal(found, pixels)


def test_neither_opencv_nor_mediapipe_is_needed(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import sys
        for name in ("cv2", "mediapipe", "PIL", "flatbuffers"):
            sys.modules[name] = None
        import numpy as np
        from tabml.edge import LiteClassifier
        with LiteClassifier("efficientnet_lite0") as classifier:
            print(len(classifier.classify(np.zeros((48, 64, 3), np.uint8))))
    """)
    assert ended.stdout == "5\n", ended.stderr
