"""One person whole: the landmarks of the single models, side by side, and named parts that are there or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.errors import FrameError, FrameOrderError, InferenceError, ModelClosedError, ModelLoadError, OptionError
from tabml.vision import (
    FaceMesh,
    FaceMeshTracker,
    Frame,
    Hand,
    HandDetector,
    HandTracker,
    HolisticDetector,
    HolisticTracker,
    Pose,
    PoseDetector,
    PoseTracker,
    annotate,
    read_video,
)
from tabml.vision.holistic import sides

Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def scene(portrait: Path, pictures: Find) -> list[Frame]:
    """A woman beside a moving hand; she leaves in the middle, and comes back."""
    woman = Frame.from_file(portrait).resize(320, 480).to_rgb()
    frames = []
    for number, hand in enumerate(read_video(pictures("hand_test_video.mp4"))):
        if number % 4 == 0:
            beside = np.zeros_like(woman) if 60 < number < 100 else np.roll(woman, number % 5, 1)
            pixels = np.ascontiguousarray(np.hstack([beside, hand.resize(320, 480).to_rgb()]))
            frames.append(Frame(pixels=pixels, format="rgb", timestamp_ms=number * 40, frame_number=number))
    return frames


@pytest.mark.parametrize("threads", [1, 2, None])
def test_landmarks_are_those_of_the_three_trackers(threads: int | None, scene: list[Frame]) -> None:
    seen = []
    with (
        HolisticTracker(threads=threads) as whole,
        FaceMeshTracker(threads=1) as faces,
        HandTracker(threads=1, gestures=False) as hands,
        PoseTracker(threads=1) as poses,
    ):
        for frame in scene:
            found = whole.track(frame)
            seen.append(set(found.parts))
            face, hand, pose = faces.track(frame), hands.track(frame), poses.track(frame)
            assert ("face" in found.parts, len(found.hands), "pose" in found.parts) == (
                len(face) == 1, len(hand), len(pose) == 1,
            )  # fmt: skip
            if found.face is not None:
                np.testing.assert_array_equal(found.face.landmarks, face[0].landmarks)
            if found.pose is not None:
                np.testing.assert_array_equal(found.pose.landmarks, pose[0].landmarks)
                np.testing.assert_array_equal(found.pose.world_landmarks, pose[0].world_landmarks)
            theirs = {each.landmarks.tobytes() for each in hand}  # two of one name get other names here
            assert {each.landmarks.tobytes() for each in found.hands} == theirs
            assert (found.timestamp_ms, found.frame_number) == (frame.timestamp_ms, frame.frame_number)
    assert {"face", "pose", "right_hand", "irises"} in seen
    assert any("face" not in parts and parts for parts in seen)


def test_single_pictures_are_those_of_the_three_detectors(pictures: Find, portrait: Path) -> None:
    with HolisticDetector() as whole, FaceMesh() as faces, HandDetector() as hands, PoseDetector() as poses:
        for path in (portrait, pictures("pose_test_image.jpg"), pictures("coupleanddog.jpeg")):
            frame = Frame.from_file(path)
            found = whole.detect(frame)
            face, hand, pose = faces.detect(frame), hands.detect(frame), poses.detect(frame)
            assert (found.face is None) == (not face)
            assert len(found.hands) == len(hand)
            if face:
                assert found.face is not None
                np.testing.assert_array_equal(found.face.landmarks, face[0].landmarks)
            assert found.pose is not None
            np.testing.assert_array_equal(found.pose.landmarks, pose[0].landmarks)
            assert (annotate(frame, found).pixels != frame.to_rgb()).any()


def test_parts_are_named_and_what_is_not_seen_is_absent(scene: list[Frame]) -> None:
    with HolisticDetector(blendshapes=True) as whole:
        found = whole.detect(scene[10])
        nothing = whole.detect(Frame.from_array(np.zeros((120, 160, 3), np.uint8), timestamp_ms=3))
    assert found.face is not None
    assert found.face.blendshapes is not None
    assert found.left_hand is None
    assert found.landmarks.shape == (468 + 21 + 33 + 10, 3)
    assert {name: part.stop - part.start for name, part in found.parts.items()} == {
        "face": 468, "right_hand": 21, "pose": 33, "irises": 10,
    }  # fmt: skip
    assert found.pose is not None
    np.testing.assert_array_equal(found.landmarks[found.parts["pose"]], found.pose.landmarks)
    both = replace(found, left_hand=found.right_hand)
    assert both.landmarks.shape == (553, 3)
    assert list(both.parts) == ["face", "left_hand", "right_hand", "pose", "irises"]
    assert not found.landmarks.flags.writeable
    plain = json.loads(found.to_json())
    assert plain["left_hand"] is None
    assert len(plain["face"]["landmarks"]) == 478
    assert len(found.to_pandas()) == 478 + 21 + 33
    assert repr(found) == "Holistic(face, right_hand, pose, 640×480)"
    assert (nothing.landmarks.shape, nothing.parts, nothing.hands) == ((0, 3), {}, ())
    assert repr(nothing) == "Holistic(nothing, 160×120)"
    assert len(nothing.to_pandas()) == 0


def hand_at(x: float, side: Any, score: float = 0.9) -> Hand:
    points = np.full((21, 3), x, np.float32)
    return Hand(landmarks=points, world_landmarks=points, handedness=side, handedness_score=score)


@pytest.mark.parametrize("turned", [False, True])
def test_two_hands_of_one_name_are_told_apart(turned: bool) -> None:
    points = np.zeros((33, 3), np.float32)
    points[15], points[16] = 0.8, 0.2  # the wrists, left and right
    pose = Pose(
        landmarks=points, world_landmarks=points, visibility=np.ones(33, np.float32), presence=np.ones(33, np.float32)
    )
    pair = [hand_at(0.75, "Right"), hand_at(0.3, "Right", 0.7)][:: -1 if turned else 1]
    left, right = sides(pair, pose)
    assert left is not None
    assert right is not None
    assert (float(left.landmarks[0, 0]), left.handedness, right.handedness) == (0.75, "Left", "Right")
    left, right = sides(pair, None)  # the surer one keeps its name
    assert left is not None
    assert float(left.landmarks[0, 0]) == pytest.approx(0.3)
    left, right = sides([hand_at(0.1, "Left"), hand_at(0.2, "Right")], pose)
    assert left is not None
    assert float(left.landmarks[0, 0]) == pytest.approx(0.1)
    assert sides([], pose) == (None, None)


def test_a_graph_that_fails_makes_all_begin_anew(scene: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabml.vision._graphs.hands import HandGraph

    with HolisticTracker() as whole, HolisticTracker() as fresh:
        whole.track(scene[0])

        def broken(*_: Any) -> Iterator[Any]:
            raise InferenceError("broken for the test")

        with monkeypatch.context() as patch:
            patch.setattr(HandGraph, "_find", broken)
            with pytest.raises(InferenceError, match="broken for the test"):
                whole.track(scene[1])
        np.testing.assert_array_equal(whole.track(scene[2]).landmarks, fresh.track(scene[2]).landmarks)


def test_bad_input_is_named(scene: list[Frame], pictures: Find) -> None:
    with pytest.raises(OptionError, match="min_presence_confidence=2"):
        HolisticTracker(min_presence_confidence=2)
    with HolisticTracker() as whole:
        whole.track(scene[0])
        with pytest.raises(FrameOrderError):
            whole.track(scene[0])
        with pytest.raises(FrameError, match="frame must be a Frame"):
            whole.track(scene[0].pixels)  # type: ignore[arg-type]
        assert whole.track(scene[1]).face is not None
    with pytest.raises(ModelClosedError):
        whole.track(scene[2])
    for wrong in ({"model": "face_landmarker"}, {"face": "hand_landmarker"}, {"hands": "face_landmarker"}):
        with pytest.raises(ModelLoadError, match="another kind"), HolisticDetector(**wrong) as bad:  # type: ignore[arg-type]
            bad.load()


def test_models_may_be_others(scene: list[Frame]) -> None:
    with HolisticDetector(face="face_landmarker_full_range", hands="gesture_recognizer") as whole:
        assert set(whole.detect(scene[10]).parts) == {"face", "right_hand", "pose", "irises"}


def test_the_assembled_bundle_brings_its_own_face(scene: list[Frame]) -> None:
    with HolisticDetector(model="holistic_landmarker") as whole, HolisticDetector() as usual:
        np.testing.assert_allclose(whole.detect(scene[0]).landmarks, usual.detect(scene[0]).landmarks, atol=0.02)
