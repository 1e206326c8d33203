"""Values, angles, and what is drawn."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tabml.errors import OptionError
from tabml.vision import (
    JOINTS,
    Box,
    FaceDetection,
    FaceDetections,
    FaceMeshes,
    FaceMeshResult,
    Frame,
    Hand,
    Hands,
    Pose,
    Poses,
    Segmentation,
    Style,
    angle,
    annotate,
    landmarks,
)

Points = hnp.arrays(np.float64, (3, 3), elements=st.floats(-10, 10).map(lambda x: round(x, 3)))


def spread(points: Any) -> bool:
    a, b, c = points
    return bool(np.linalg.norm(a - b) > 0.05 and np.linalg.norm(c - b) > 0.05)


def rotation(x: float, y: float, z: float) -> Any:
    """Of the three angles, radians."""
    cx, sx, cy, sy, cz, sz = (f(t) for t in (x, y, z) for f in (math.cos, math.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


@given(Points, *[st.floats(-4, 4)] * 3, hnp.arrays(float, 3, elements=st.floats(-50, 50)), st.floats(0.1, 100))
def test_an_angle_outlives_rotation_translation_and_scale(
    points: Any, x: float, y: float, z: float, shift: Any, scale: float
) -> None:
    assume(spread(points))
    moved = (points @ rotation(x, y, z).T) * scale + shift
    assert angle(*moved) == pytest.approx(angle(*points), abs=1e-4)


@given(Points)
def test_an_angle_is_symmetric_and_from_0_to_180(points: Any) -> None:
    assume(spread(points))
    a, b, c = points
    assert 0 <= angle(a, b, c) <= 180
    assert angle(a, b, c) == pytest.approx(angle(c, b, a), abs=1e-9)
    cosine = np.dot(a - b, c - b) / np.linalg.norm(a - b) / np.linalg.norm(c - b)
    assert angle(a, b, c) == pytest.approx(math.degrees(math.acos(np.clip(cosine, -1, 1))), abs=2e-6)


@pytest.mark.parametrize(("degrees", "c"), [(0, (2, 0)), (90, (0, 3)), (180, (-1, 0)), (45, (1, 1)), (135, (-1, 1))])
def test_known_angles(degrees: float, c: tuple[int, int]) -> None:
    assert angle((1, 0), (0, 0), c) == pytest.approx(degrees, abs=1e-12)


def test_a_ray_without_length_has_no_angle() -> None:
    assert math.isnan(angle((0, 0), (0, 0), (1, 1)))


def make_pose(seed: int = 0, **more: Any) -> Pose:
    generator = np.random.default_rng(seed)
    points = generator.random((2, 33, 3), np.float32)
    fields: dict[str, Any] = {
        "landmarks": points[0], "world_landmarks": points[1],
        "visibility": np.ones(33, np.float32), "presence": np.ones(33, np.float32),
    }  # fmt: skip
    return Pose(**{**fields, **more})


def test_joints_are_named_by_the_landmark_they_sit_at() -> None:
    for name, (_, middle, _) in JOINTS.items():
        assert landmarks.POSE_LANDMARKS[middle] == name
    left = {name: i for name, i in JOINTS.items() if name.startswith("left")}
    for name, indices in left.items():
        assert JOINTS[name.replace("left", "right")] == tuple(index + 1 for index in indices)


def test_angles_in_the_picture_are_corrected_for_its_shape() -> None:
    flat = np.zeros((33, 3), np.float32)
    flat[11, :2], flat[13, :2], flat[15, :2] = (0.5, 0.25), (0.5, 0.75), (0.75, 0.25)
    wide = make_pose(landmarks=flat, aspect=2.0)
    assert wide.angles(space="image")["left_elbow"] == pytest.approx(45)


def test_unseen_joints_have_no_angle() -> None:
    visibility = np.ones(33, np.float32)
    visibility[13] = 0.4
    pose = make_pose(visibility=visibility)
    assert pose.angles()["left_elbow"] is None
    assert pose.angles()["left_shoulder"] is None
    assert pose.angles()["right_elbow"] is not None
    assert pose.angles(min_visibility=0.4 - 1e-6)["left_elbow"] is not None
    for wrong in ({"space": "polar"}, {"min_visibility": 2}, {"min_visibility": math.nan}):
        with pytest.raises(OptionError):
            pose.angles(**wrong)


def make_results(seed: int = 0) -> list[Any]:
    generator = np.random.default_rng(seed)
    size = {"width": 80, "height": 60, "timestamp_ms": 5, "frame_number": 1}
    face = FaceDetection(
        box=Box(x=0.2, y=0.2, width=0.4, height=0.5), score=0.9, keypoints=generator.random((6, 2), np.float32)
    )
    mesh = FaceMeshResult(landmarks=generator.random((478, 3), np.float32))
    hand = Hand(
        landmarks=generator.random((21, 3), np.float32), world_landmarks=generator.random((21, 3), np.float32),
        handedness="Left", handedness_score=0.9, gesture="Thumb_Up", gesture_score=0.8,
    )  # fmt: skip
    mask = Segmentation(mask=generator.random((60, 80), np.float32), kind="confidence")
    return [
        FaceDetections(items=(face,), **size), FaceMeshes(items=(mesh,), **size), Hands(items=(hand, hand), **size),
        Poses(items=(make_pose(seed),), **size), mask,
    ]  # fmt: skip


@pytest.mark.parametrize("result", make_results(), ids=lambda r: type(r).__name__)
def test_every_result_can_be_written_and_shown(result: Any) -> None:
    assert json.loads(result.to_json()) == result.to_dict()
    assert len(result.to_pandas())
    assert type(result).__name__ in repr(result)
    assert type(result).__name__ in result._repr_html_()


def test_results_are_sequences() -> None:
    hands = make_results()[2]
    assert len(hands) == 2
    assert hands[0] is hands[-1] is hands[:1][0]
    assert hands[0] in hands
    assert list(reversed(hands)) == list(hands)
    assert not FaceDetections(items=(), width=4, height=3)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_run_lengths_give_back_the_mask(mask: Any) -> None:
    for kind, values in (("confidence", mask.astype(np.float32)), ("category", mask.astype(np.uint8))):
        runs = Segmentation(mask=values, kind=kind).to_dict()["runs"]
        assert sum(runs) == mask.size
        bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        assert np.array_equal(bits.reshape(mask.shape), mask)


def test_names_that_are_none_are_refused_with_those_that_are() -> None:
    faces, meshes, hands, poses, _ = make_results()
    for item, known in ((faces[0], "nose_tip"), (meshes[0], "left_eye"), (hands[0], "wrist"), (poses[0], "left_knee")):
        assert item[known].dtype == np.float32
        with pytest.raises(KeyError, match=known):
            item["tail"]
    with pytest.raises(KeyError, match="blendshapes=True"):
        meshes[0].blendshape("jawOpen")


@pytest.mark.parametrize("result", make_results(), ids=lambda r: type(r).__name__)
def test_drawing_changes_a_copy(result: Any) -> None:
    blank = Frame.from_array(np.full((60, 80, 3), 128, np.uint8), timestamp_ms=4)
    drawn = annotate(blank, result)
    assert (drawn.width, drawn.height, drawn.timestamp_ms) == (80, 60, 4)
    assert np.any(drawn.pixels != blank.pixels)
    assert np.all(blank.pixels == 128)


def test_everything_is_drawn_at_once_at_any_size() -> None:
    for height, width in ((1, 1), (2, 3), (60, 80), (2000, 30)):
        frame = Frame.from_array(np.zeros((height, width, 3), np.uint8))
        results = [
            *make_results()[:4], Segmentation(mask=np.ones((height, width), np.uint8), kind="category"),
            FaceDetections(items=(), width=width, height=height),
        ]  # fmt: skip
        assert annotate(frame, *results, style=Style(angles=True, mesh_points=True)).width == width


def test_points_far_outside_do_not_hurt() -> None:
    for far in (1e9, -1e9, np.nan, np.inf):
        pose = make_pose(landmarks=np.full((33, 3), far, np.float32))
        frame = Frame.from_array(np.zeros((40, 40, 3), np.uint8))
        annotate(frame, Poses(items=(pose,), width=40, height=40), style=Style(angles=True))


def test_the_left_side_has_its_own_colour() -> None:
    blank = Frame.from_array(np.zeros((200, 200, 3), np.uint8))
    points = np.full((33, 3), 0.5, np.float32)
    points[11, :2], points[13, :2] = (0.8, 0.2), (0.8, 0.8)
    points[12, :2], points[14, :2] = (0.2, 0.2), (0.2, 0.8)
    drawn = annotate(blank, Poses(items=(make_pose(landmarks=points),), width=200, height=200)).pixels
    assert drawn[100, 160].tolist() == [230, 159, 0]
    assert drawn[100, 40].tolist() == [86, 180, 233]


def test_what_can_not_be_drawn_is_refused() -> None:
    frame = Frame.from_array(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(OptionError, match="str"):
        annotate(frame, "a face")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="mask is 80×60"):
        annotate(frame, make_results()[4])
    for wrong in ({"scale": 0}, {"mask_opacity": 2}, {"min_visibility": -1}):
        with pytest.raises(OptionError):
            Style(**wrong)  # type: ignore[arg-type]
