"""Boxes in three dimensions: lifted from where they are seen, and found on a real cup."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabml.errors import ModelLoadError, OptionError
from tabml.vision import Frame, ObjectDetector3D, annotate
from tabml.vision._graphs.boxes3d import CORNERS, anchors, lift
from tabml.vision.results import Box, Object3D


def turn(roll: float, pitch: float, yaw: float) -> Any:
    """About the object's own axis last: yaw, pitch, roll, in degrees."""
    a, b, c = map(math.radians, (roll, pitch, yaw))
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    about_y = np.array([[math.cos(c), 0, math.sin(c)], [0, 1, 0], [-math.sin(c), 0, math.cos(c)]])
    return about_y @ about_x @ about_z


def seen(points: Any, focal: tuple[float, float]) -> Any:
    """Where a camera at the origin that looks along −z sees them; shares of the picture."""
    x, y = points[:, 0] / -points[:, 2] * focal[0], points[:, 1] / -points[:, 2] * focal[1]
    return np.column_stack([(x + 1) / 2, (1 - y) / 2]).astype(np.float32)


@settings(max_examples=80)
@given(
    st.floats(-60, 60), st.floats(-50, 50), st.floats(-170, 170),
    st.tuples(*[st.floats(0.4, 2.0)] * 3), st.floats(-1, 1), st.floats(-1, 1), st.floats(1.0, 2.5),
)  # fmt: skip
def test_a_box_is_lifted_to_where_it_was(
    roll: float, pitch: float, yaw: float, size: tuple[float, ...], x: float, y: float, focal: float
) -> None:
    rotation, middle = turn(roll, pitch, yaw), np.array([x, y, -5.0])
    points = np.vstack([middle, (CORNERS * size) @ rotation.T + middle])
    both = (focal, focal * 1.3)
    found = lift(seen(points, both), both)
    assert found is not None
    scale = 5.0 / -found.points[0, 2]
    np.testing.assert_allclose(found.points * scale, points, atol=0.05)
    np.testing.assert_allclose(found.rotation, rotation, atol=0.02)
    np.testing.assert_allclose(found.size * scale, size, rtol=0.05, atol=0.02)
    item = Object3D(
        label="", score=1.0, box=Box(x=0, y=0, width=1, height=1), keypoints=found.points[:, :2],
        keypoints_3d=found.points, rotation=rotation.astype(np.float32), size=found.size,
    )  # fmt: skip
    np.testing.assert_allclose(item.angles, (roll, pitch, yaw), atol=0.01)


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.floats(0, 3))
def test_any_points_are_lifted_or_none(seed: int, spread: float) -> None:
    points = np.random.default_rng(seed).normal(0.5, spread, (9, 2)).astype(np.float32)
    found = lift(points, (1.0, 1.0))
    if found is not None:
        assert found.points[0, 2] < 0
        np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-4)
        assert np.linalg.det(found.rotation) == pytest.approx(1, abs=1e-4)
    assert lift(np.full((9, 2), np.nan, np.float32), (1.0, 1.0)) is None


def test_there_are_as_many_anchors_as_the_model_has_boxes() -> None:
    found = anchors()
    assert found.shape == (1917, 4)
    assert (found[:, :2] > 0).all()
    assert (found[:, :2] < 1).all()
    np.testing.assert_allclose(found[-1], (0.5, 0.5, math.sqrt(0.95), math.sqrt(0.95)), atol=1e-6)


@pytest.fixture(scope="module")
def coffee() -> Frame:
    """A cup, from above: comes with scikit-image."""
    import skimage

    return Frame.from_file(Path(skimage.__file__).parent / "data" / "coffee.png", timestamp_ms=9)


def test_a_real_cup_is_found_where_it_stands(coffee: Frame) -> None:
    with ObjectDetector3D(category="cup", focal_length_px=600) as detector:
        found = detector.detect(coffee)
        (cup,) = found
        mirrored = detector.detect(Frame.from_array(np.ascontiguousarray(coffee.pixels[:, ::-1])))
    assert cup.label == "Coffee cup"
    low, high = cup.keypoints.min(axis=0), cup.keypoints.max(axis=0)
    np.testing.assert_allclose([*low, *high], (0.26, 0.02, 0.73, 0.79), atol=0.06)  # by eye
    assert cup.rotation[2, 1] > 0.5  # one looks down on it: its top faces the camera
    assert cup.rotation[1, 1] > 0.3
    assert (cup.keypoints_3d[:, 2] < 0).all()
    assert (cup.size > 0).all()
    assert found.timestamp_ms == 9
    np.testing.assert_allclose(mirrored[0].keypoints[0, 0], 1 - cup.keypoints[0, 0], atol=0.03)
    assert (annotate(coffee, found).pixels != coffee.pixels).any()
    assert len(found.to_pandas()) == 9
    assert '"yaw"' in found.to_json()


def test_other_things_are_none(coffee: Frame, portrait: Path) -> None:
    with ObjectDetector3D(category="chair") as detector:
        assert len(detector.detect(coffee)) == 0
    with ObjectDetector3D(category="cup") as detector:
        assert len(detector.detect(Frame.from_file(portrait))) == 0


@pytest.mark.parametrize("category", ["chair", "camera", "sneakers"])
def test_every_categorys_model_opens(category: Any, coffee: Frame) -> None:
    with ObjectDetector3D(category=category, min_detection_confidence=0.01, max_objects=2) as detector:
        assert len(detector.detect(coffee)) <= 2


def test_wrong_options_and_models_are_named(coffee: Frame) -> None:
    for wrong in ({"category": "car"}, {"max_objects": 0}, {"focal_length_px": -1}, {"min_presence_confidence": 2}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            ObjectDetector3D(**wrong)  # type: ignore[arg-type]
    for models in ({"model": "face_detector"}, {"detector": "efficientdet_lite0"}):
        with pytest.raises(ModelLoadError, match="another kind"):
            ObjectDetector3D(**models).load()  # type: ignore[arg-type]
