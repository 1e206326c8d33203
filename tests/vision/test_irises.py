"""Irises: what mirroring, scale and place may and may not change, and real faces that look at the camera."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tabml.errors import OptionError
from tabml.vision import FaceIrises, Frame, IrisDetector, Irises, IrisTracker, annotate
from tabml.vision import landmarks as tables
from tabml.vision.gaze import IRIS_MM, aspect_ratio, head_angles, look

Find = Callable[[str], Path]
Float64 = NDArray[np.float64]
SIZE = (640, 480)
ANGLES = st.floats(-0.5, 0.5)


def rotation(yaw: float, pitch: float, roll: float) -> Float64:
    """As the angles of a head are defined."""
    c, s = np.cos([yaw, -pitch, roll]), np.sin([yaw, -pitch, roll])
    turn = np.array([[c[0], 0, s[0]], [0, 1, 0], [-s[0], 0, c[0]]])
    nod = np.array([[1, 0, 0], [0, c[1], -s[1]], [0, s[1], c[1]]])
    lean = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    product: Float64 = turn @ nod @ lean
    return product


def face(seed: int = 0) -> NDArray[np.float32]:
    """478 points, of which those of the eyes are eyes."""
    random = np.random.default_rng(seed)
    points = random.uniform(0.3, 0.7, (478, 3)).astype(np.float32)
    for side, middle in (("right", 0.42), ("left", 0.58)):
        outer = -1 if side == "right" else 1
        region = list(tables.EYE_REGION[side])
        points[region[0]], points[region[8]] = (middle + outer * 0.03, 0.5, 0), (middle - outer * 0.03, 0.505, 0)
        for at, (x, y) in {11: (0.3, -0.3), 13: (-0.3, -0.3), 5: (-0.3, 0.3), 3: (0.3, 0.3)}.items():
            points[region[at]] = (middle + outer * 0.03 * x, 0.5 + 0.03 * y, 0)
        iris = list(tables.FACE_REGIONS[f"{side}_iris"])
        centre = np.array([middle + random.uniform(-0.008, 0.008), 0.5 + random.uniform(-0.005, 0.005), 0])
        for index, way in zip(iris, ((0, 0), (1, 0), (0, -1), (-1, 0), (0, 1)), strict=True):
            points[index] = centre + np.array([0.012 * way[0], 0.012 * way[1] * SIZE[0] / SIZE[1], 0])
    return points


def mirrored(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same face in a mirror."""
    flipped = points.copy()
    for one, other in (("right", "left"), ("left", "right")):
        for table in (tables.EYE_REGION, {side: tables.FACE_REGIONS[f"{side}_iris"] for side in ("left", "right")}):
            flipped[list(table[one])] = points[list(table[other])] * (-1, 1, 1) + (1, 0, 0)
    return flipped


def seen(points: NDArray[np.float32], turn: Float64 | None = None, place: Any = (0, 0, -60), **more: Any) -> FaceIrises:
    transform = np.eye(4, dtype=np.float32)
    transform[:3, :3] = np.eye(3) if turn is None else turn
    transform[:3, 3] = place
    said = {"width": SIZE[0], "height": SIZE[1], "score": 1.0, "blink_threshold": 0.2, "focal_length_px": 700.0}
    return look(points, transform, **{**said, **more})


@given(ANGLES, ANGLES, ANGLES)
def test_the_angles_of_a_head_are_those_it_was_turned_by(yaw: float, pitch: float, roll: float) -> None:
    assert head_angles(rotation(yaw, pitch, roll)) == pytest.approx(np.degrees([yaw, pitch, roll]), abs=1e-6)


@given(st.integers(0, 1000), ANGLES, ANGLES, ANGLES)
def test_a_mirror_swaps_the_eyes_and_turns_the_yaw_around(seed: int, yaw: float, pitch: float, roll: float) -> None:
    points = face(seed)
    one = seen(points, rotation(yaw, pitch, roll))
    other = seen(mirrored(points), rotation(-yaw, pitch, -roll))
    for mine, theirs in ((one.left, other.right), (one.right, other.left)):
        np.testing.assert_allclose(mine.gaze, theirs.gaze * (-1, 1, 1), atol=1e-4)
        assert mine.aspect_ratio == pytest.approx(theirs.aspect_ratio, abs=1e-5)
        assert mine.distance_mm == pytest.approx(theirs.distance_mm, rel=1e-4)
    assert (one.head_yaw, one.head_pitch, one.head_roll) == pytest.approx(
        (-other.head_yaw, other.head_pitch, -other.head_roll), abs=1e-3
    )


@given(st.integers(0, 1000), st.floats(0.3, 2), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), ANGLES)
def test_gaze_and_lids_do_not_depend_on_scale_or_place(seed: int, scale: float, x: float, y: float, yaw: float) -> None:
    points = face(seed)
    moved = ((points - 0.5) * scale + (0.5 + x, 0.5 + y, 0.5)).astype(np.float32)
    one, other = (seen(each, rotation(yaw, 0, 0)) for each in (points, moved))
    for mine, theirs in zip(one.eyes, other.eyes, strict=True):
        np.testing.assert_allclose(mine.gaze, theirs.gaze, atol=2e-3)
        assert mine.aspect_ratio == pytest.approx(theirs.aspect_ratio, rel=1e-3)


@given(st.floats(200, 2000), st.floats(300, 3000))
def test_an_iris_is_as_far_away_as_its_size_tells(focal: float, distance: float) -> None:
    radius = focal * IRIS_MM / distance / 2
    points = face()
    for side in ("left", "right"):
        for index, way in zip(
            tables.FACE_REGIONS[f"{side}_iris"], ((0, 0), (1, 0), (0, -1), (-1, 0), (0, 1)), strict=True
        ):
            points[index] = (0.5 + radius * way[0] / SIZE[0], 0.5 + radius * way[1] / SIZE[1], 0)
    found = seen(points, focal_length_px=focal)
    assert found.distance_mm == pytest.approx(distance, rel=2e-3)
    assert seen(points, focal_length_px=None).distance_mm is None


@given(ANGLES, ANGLES)
def test_who_faces_the_camera_from_the_side_has_no_yaw(across: float, up: float) -> None:
    place = np.array([math.tan(across), math.tan(up), -1]) * 60
    z = -place / np.linalg.norm(place)
    x = np.cross((0, 1, 0), z) / np.linalg.norm(np.cross((0, 1, 0), z))
    found = seen(face(), np.stack([x, np.cross(z, x), z], axis=1), place)
    assert (found.head_yaw, found.head_pitch, found.head_roll) == pytest.approx((0, 0, 0), abs=1e-3)


def test_lids_that_meet_have_no_opening() -> None:
    region = np.zeros((71, 2))
    region[[0, 8], 0] = (0, 30)
    region[[11, 5, 13, 3], 0] = (10, 20, 20, 10)
    assert aspect_ratio(region) == 0
    region[[11, 13], 1] = 9
    assert aspect_ratio(region) == pytest.approx(0.3 * 1.0, abs=0.01)
    assert aspect_ratio(np.zeros((71, 2))) == 0


def test_people_who_look_at_the_camera_do(portrait: Path, astronaut: Path, pictures: Find) -> None:
    for path, many in ((portrait, 1), (astronaut, 1), (pictures("face_testImg.jpeg"), 2)):
        frame = Frame.from_file(path)
        with IrisDetector(num_faces=4, focal_length_px=frame.width * 1.2) as detector:
            found = detector.detect(frame)
        assert len(found) == many
        for each in found:
            camera = np.mean([eye.gaze_in_camera for eye in each.eyes], axis=0)
            assert math.degrees(math.acos(camera[2] / np.linalg.norm(camera))) < 20
            assert not any(eye.closed for eye in each.eyes)
            assert 0.2 < min(eye.aspect_ratio for eye in each.eyes) < 0.5
            assert each.distance_mm is not None
            assert each.left.distance_mm == pytest.approx(each.right.distance_mm, rel=0.1)
            assert each.left.region.shape == (71, 3)
            assert each.left.iris[0, 0] > each.right.iris[0, 0]  # the person's left is on the picture's right


def test_answers_are_values_that_can_be_written_and_drawn(portrait: Path) -> None:
    frame = Frame.from_file(portrait)
    with IrisTracker(focal_length_px=800) as tracker:
        found = tracker.track(frame)
    assert isinstance(found, Irises)
    assert found.to_dict()["irises"][0]["left"]["side"] == "left"
    assert len(found.to_json()) > 1000
    assert list(found.to_pandas()["eye"]) == ["left", "right"]
    assert "Eye(left" in repr(found)
    assert not found[0].left.gaze.flags.writeable
    changed = (annotate(frame, found).pixels != frame.to_rgb()).any(axis=2)
    assert 100 < changed.sum() < 0.05 * changed.size


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1"])
def test_a_focal_length_is_a_number_above_0(value: Any) -> None:
    with pytest.raises(OptionError, match="focal_length_px"):
        IrisDetector(focal_length_px=value)
