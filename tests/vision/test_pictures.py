"""Whole pictures: MediaPipe's own classes and vectors, and vectors that tell what is alike."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabml.errors import ModelLoadError, OptionError
from tabml.files import load_model
from tabml.vision import Frame, ImageClassifier, ImageEmbedder, PictureEmbedding, annotate
from tabml.vision._graphs.pictures import features_instead

Find = Callable[[str], Path]
NAMES = ("coupleanddog.jpeg", "hand_thumb_up.jpg", "ic_test_image.jpg", "pose_test_image.jpg", "seg_input_image.jpeg")


@pytest.fixture(scope="module")
def frames(pictures: Find, portrait: Path, astronaut: Path) -> list[Frame]:
    stills = [Frame.from_file(path) for path in (*map(pictures, NAMES), portrait, astronaut)]
    mirrored = [Frame.from_array(np.ascontiguousarray(frame.to_rgb()[:, ::-1])) for frame in stills]
    cropped = [frame.crop(20, 30, frame.width - 10, frame.height - 40) for frame in stills]
    return [*stills, *mirrored, *cropped]


@pytest.fixture(scope="module")
def mp() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mediapipe

    return mediapipe


def image(mp: Any, frame: Frame) -> Any:
    return mp.Image(image_format=mp.ImageFormat.SRGB, data=frame.to_rgb())


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite0_float32"])
def test_classes_are_mediapipes(name: str, mp: Any, frames: list[Frame]) -> None:
    vision = mp.tasks.vision
    base = mp.tasks.BaseOptions(model_asset_buffer=bytes(load_model(name)))
    with (
        vision.ImageClassifier.create_from_options(vision.ImageClassifierOptions(base_options=base)) as theirs,
        ImageClassifier(model=name, max_results=100) as ours,
    ):
        for frame in frames:
            expected = {each.index: each for each in theirs.classify(image(mp, frame)).classifications[0].categories}
            found = ours.classify(frame)
            assert len(found) == 100
            for each in found:
                assert abs(each.score - expected[each.index].score) <= 1e-4
                assert each.label == expected[each.index].category_name
            best = sorted((each.score for each in expected.values()), reverse=True)[:100]
            np.testing.assert_allclose([each.score for each in found], best, atol=1e-4)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_models_output_is_mediapipes_vector(normalize: bool, mp: Any, frames: list[Frame]) -> None:
    vision = mp.tasks.vision
    name = "efficientnet_lite0_float32"
    base = mp.tasks.BaseOptions(model_asset_buffer=bytes(load_model(name)))
    options = vision.ImageEmbedderOptions(base_options=base, l2_normalize=normalize)
    with (
        vision.ImageEmbedder.create_from_options(options) as theirs,
        ImageEmbedder(layer="output", l2_normalize=normalize) as ours,
    ):
        for frame in frames:
            expected = theirs.embed(image(mp, frame)).embeddings[0].embedding
            np.testing.assert_allclose(ours.embed(frame).vector, expected, atol=1e-4)


def test_what_is_known_is_named(pictures: Find, portrait: Path) -> None:
    with ImageClassifier(max_results=3) as classifier:
        found = classifier.classify(Frame.from_file(portrait, timestamp_ms=5))
        assert len(classifier.labels) == 1000
    assert found[0].label == "suit"
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert json.loads(found.to_json())["categories"][0]["label"] == "suit"
    assert list(found.to_pandas()["label"]) == [each.label for each in found]
    assert found.timestamp_ms == 5
    frame = Frame.from_file(portrait)
    assert (annotate(frame, found).pixels != frame.pixels).any()


def test_classes_may_be_chosen(portrait: Path) -> None:
    frame = Frame.from_file(portrait)
    with ImageClassifier(category_denylist=["suit"]) as classifier:
        others = classifier.classify(frame)
    assert len(others) == 5
    assert "suit" not in [each.label for each in others]
    with ImageClassifier(category_allowlist=["tabby", "suit"], score_threshold=0.1) as classifier:
        (only,) = classifier.classify(frame)
    assert only.label == "suit"


def test_features_tell_what_is_alike(frames: list[Frame]) -> None:
    with ImageEmbedder() as embedder:
        vectors = [embedder.embed(frame) for frame in frames]
    assert vectors[0].vector.shape == (1280,)
    assert np.linalg.norm(vectors[0].vector) == pytest.approx(1, abs=1e-5)
    size = len(NAMES) + 2
    for at in range(size):
        alike = [vectors[at].similarity(vectors[at + more]) for more in (size, 2 * size)]
        others = [vectors[at].similarity(each) for other, each in enumerate(vectors) if other % size != at]
        assert min(alike) > max(others)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8), st.floats(0.1, 10))
def test_similarity_is_of_directions(values: list[float], times: float) -> None:
    def of(array: Any) -> PictureEmbedding:
        return PictureEmbedding(vector=np.array(array, np.float32), width=1, height=1)

    one, other = of(values), of(np.array(values) * times)
    expected = 1.0 if np.linalg.norm(one.vector) * np.linalg.norm(other.vector) else 0.0
    assert one.similarity(other) == pytest.approx(expected, abs=1e-3)
    assert one.similarity(of(-one.vector)) == pytest.approx(-one.similarity(one), abs=1e-3)
    with pytest.raises(OptionError, match="other must be"):
        one.similarity(of([*values, 1.0]))


def test_another_output_changes_nothing_else() -> None:
    model = bytes(load_model("efficientnet_lite0_float32"))
    changed = features_instead(model)
    assert len(changed) == len(model)
    assert sum(a != b for a, b in zip(model, changed, strict=True)) <= 4
    with pytest.raises(ModelLoadError, match="layer='output'"):
        features_instead(bytes(load_model("selfie_segmenter")))


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_spoilt_models_are_refused_or_read(seed: int, changes: int) -> None:
    """Nothing but an error of ours, and never out of the file's bounds."""
    model = bytearray(bytes(load_model("efficientnet_lite0"))[-600_000:])
    whole = bytearray(load_model("efficientnet_lite0"))
    random = np.random.default_rng(seed)
    for at in random.integers(0, 4096, changes):
        whole[int(at)] = int(random.integers(0, 256))
    for spoilt in (bytes(whole), bytes(whole[: int(random.integers(0, len(whole)))]), bytes(model)):
        try:
            assert len(features_instead(spoilt)) == len(spoilt)
        except ModelLoadError:
            pass


@pytest.mark.parametrize(
    ("kind", "said", "word"),
    [
        (ImageClassifier, {"max_results": 0}, "max_results=0"),
        (ImageClassifier, {"category_allowlist": ["tabby"], "category_denylist": ["tabby"]}, "can't both"),
        (ImageClassifier, {"category_allowlist": ["tabbi"]}, "'tabbi' is none of the model's 1000 classes"),
        (ImageEmbedder, {"layer": "last"}, "layer='last'"),
        (ImageEmbedder, {"threads": 0}, "threads=0"),
    ],
)
def test_wrong_options_are_named(kind: Any, said: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        kind(**said).load()


@pytest.mark.parametrize("name", ["face_detector", "efficientdet_lite0", "deeplab_v3", "pose_landmarker_full"])
def test_models_of_another_kind_are_refused(name: str) -> None:
    for kind in (ImageClassifier, ImageEmbedder):
        with pytest.raises((ModelLoadError, OptionError)):
            kind(model=name).load()


def test_streams_and_threads(frames: list[Frame]) -> None:
    with ImageClassifier() as classifier, ImageEmbedder() as embedder:
        assert [found[0].label for _, found in classifier.classify_stream(frames[:2])] == [
            classifier.classify(frame)[0].label for frame in frames[:2]
        ]
        assert len(asyncio.run(embedder.embed_async(frames[0])).vector) == 1280
