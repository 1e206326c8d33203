"""Masks on LiteRT: those of MediaPipe's own segmenter, and what only some of its classes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from relabelled import relabelled

from tabml.errors import ModelLoadError, OptionError
from tabml.files import load_model
from tabml.vision import Frame, HairSegmenter, Segmenter
from tabml.vision import _mediapipe as door
from tabml.vision._graphs.masks import enlarged, likeliest

Find = Callable[[str], Path]
PICTURES = ("coupleanddog.jpeg", "hand_thumb_up.jpg", "pose_test_image.jpg", "seg_input_image.jpeg")


def changed(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """A picture, mirrored, turned, cropped, and as a strip."""
    yield pixels
    yield np.ascontiguousarray(pixels[:, ::-1])
    yield np.ascontiguousarray(np.rot90(pixels))
    yield np.ascontiguousarray(pixels[20:-30, 40:-10])
    yield np.ascontiguousarray(pixels[: len(pixels) // 3])


@pytest.fixture(scope="module")
def variants(pictures: Find, portrait: Path) -> list[NDArray[np.uint8]]:
    frames = [Frame.from_file(path).to_rgb() for path in (*map(pictures, PICTURES), portrait)]
    return [each for frame in frames for each in changed(frame)]


def native(name: str, pictures: list[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.float32]]]:
    """MediaPipe's own confidences, all classes."""
    options = door.ImageSegmenterOptions(display_names_locale=b"", output_confidence_masks=True)
    task = door.NativeTask(door.IMAGE_SEGMENTER, options, load_model(name), video=False)

    def read(found: Any) -> list[NDArray[np.float32]]:
        return [door.mask_pixels(found.confidence_masks[i], np.float32) for i in range(found.confidence_masks_count)]

    try:
        for pixels in pictures:
            yield task.run(pixels, read)
    finally:
        task.close()


@pytest.mark.parametrize("name", ["selfie_segmenter", "deeplab_v3"])
def test_masks_are_those_of_mediapipe(name: str, variants: list[NDArray[np.uint8]]) -> None:
    seen = 0
    with Segmenter(model=name) as soft, Segmenter(model=name, kind="category") as hard:
        for pixels, layers in zip(variants, native(name, variants), strict=True):
            frame = Frame.from_array(pixels)
            confidence, category = soft.segment(frame), hard.segment(frame)
            expected = layers[0] if len(layers) == 1 else 1 - layers[0]
            np.testing.assert_allclose(confidence.mask, expected, atol=1e-4)
            classes = (layers[0] >= 0.5).astype(np.uint8) if len(layers) == 1 else np.argmax(layers, axis=0)
            assert (category.mask == classes).mean() >= 0.9999
            assert category.mask.dtype == np.uint8
            seen += category.coverage > 0.05
    assert seen > 15


def test_only_the_classes_that_are_meant_count(pictures: Find) -> None:
    frame = Frame.from_file(pictures("coupleanddog.jpeg"))
    (layers,) = native("deeplab_v3", [frame.to_rgb()])
    with Segmenter(model="deeplab_v3", kind="category") as every:
        labels = every.segment(frame).labels
    for classes in (("person",), ("dog",), ("dog", "person")):
        with Segmenter(model="deeplab_v3", classes=classes) as some:
            mask = some.segment(frame).mask
        np.testing.assert_allclose(mask, sum(layers[labels.index(name)] for name in classes), atol=1e-4)
        assert mask.max() > (0.9 if "person" in classes else 0.2)
    with Segmenter(classes=("background",)) as behind, Segmenter() as person:
        np.testing.assert_allclose(behind.segment(frame).mask, 1 - person.segment(frame).mask, atol=1e-5)


def test_masks_of_the_models_own_size_are_the_same_before_they_are_enlarged(pictures: Find) -> None:
    frame = Frame.from_file(pictures("pose_test_image.jpg"))
    with Segmenter(size="model") as small, Segmenter() as large:
        mask = small.segment(frame)
        assert (mask.width, mask.height) == (256, 256)
        np.testing.assert_array_equal(enlarged(mask.mask, frame.width, frame.height), large.segment(frame).mask)
    with Segmenter(size="model", kind="category", model="deeplab_v3") as small:
        assert small.segment(frame).mask.shape == (257, 257)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 40), st.integers(1, 40), st.floats(0.5, 12))
@settings(max_examples=60, deadline=None)
def test_the_likeliest_class_is_the_one_of_all_enlarged_masks(
    seed: int, count: int, width: int, height: int, contrast: float
) -> None:
    random = np.random.default_rng(seed)
    powers = np.exp(random.normal(0, contrast, (7, 9, count)))
    confidences = (powers / powers.sum(axis=2, keepdims=True)).astype(np.float32)
    layers = [enlarged(confidences[:, :, index], width, height) for index in range(count)]
    np.testing.assert_array_equal(likeliest(confidences, width, height), np.argmax(layers, axis=0))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientdet_lite0", "face_detector"])
def test_a_model_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match=r"another kind|metadata"):
        Segmenter(model=name).load()


@pytest.mark.parametrize(
    ("said", "word"),
    [({"classes": "person"}, "classes"), ({"size": "huge"}, "size"), ({"threads": 65}, "threads"), ({"kind": "x"}, "kind")],
)  # fmt: skip
def test_options_outside_their_range_are_named(said: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        Segmenter(**said)


def test_hair_is_never_somebody_elses_mask() -> None:
    with pytest.raises(OptionError, match="'hair' is none of the model's: background, person"):
        Segmenter(classes=("hair",)).load()
    for model in ("selfie_segmenter", "deeplab_v3"):
        with pytest.raises(OptionError, match="'hair' is none of the model's"):
            HairSegmenter(model=model).load()


def test_a_class_called_hair_is_hair(portrait: Path, tmp_path: Path) -> None:
    frame, path = Frame.from_file(portrait), tmp_path / "hair.tflite"
    path.write_bytes(relabelled(bytes(load_model("deeplab_v3")), person="hair"))
    with HairSegmenter(model=path) as hair, Segmenter(model="deeplab_v3", classes=("person",)) as person:
        np.testing.assert_array_equal(hair.segment(frame).mask, person.segment(frame).mask)
