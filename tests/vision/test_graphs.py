"""The graphs on LiteRT answer what MediaPipe's own tasks answer, on many pictures and at odd options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tabml.files import load_model
from tabml.vision import (
    FaceDetector,
    FaceMesh,
    FaceMeshTracker,
    Frame,
    HandDetector,
    HandTracker,
    PoseDetector,
    PoseTracker,
    read_video,
)  # fmt: skip
from tabml.vision import _mediapipe as door

Pixels = NDArray[np.uint8]
Answer = TypeVar("Answer")
NEAR = 1e-4
"""Of the picture's size; the figures measured are a hundred times smaller."""
PICTURES = (
    "coupleanddog.jpeg",
    "face_testImg.jpeg",
    "hand_test_image.jpg",
    "hand_thumb_up.jpg",
    "pose_test_image.jpg",
    "seg_input_image.jpeg",
)


def changed(pixels: Pixels) -> Iterator[Pixels]:
    """A picture, and the same mirrored, turned, cropped, scaled, framed and doubled."""
    height, width, _ = pixels.shape
    yield pixels
    yield np.ascontiguousarray(pixels[:, ::-1])
    yield np.ascontiguousarray(np.rot90(pixels))
    for degrees in (20, -35, 75):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        yield np.asarray(cv2.warpAffine(pixels, turn, (width, height)), np.uint8)
    yield np.ascontiguousarray(pixels[height // 8 : height - height // 10, width // 7 : width - width // 9])
    yield np.asarray(cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)
    yield np.asarray(cv2.copyMakeBorder(pixels, 30, 200, 100, 10, cv2.BORDER_REFLECT), np.uint8)
    yield np.ascontiguousarray(np.concatenate([pixels, pixels[:, ::-1]], axis=1))


@pytest.fixture(scope="module")
def variants(pictures: Callable[[str], Path], portrait: Path, astronaut: Path) -> list[Pixels]:
    """Some eighty pictures with people, and four without any."""
    paths = [*map(pictures, PICTURES), portrait, astronaut]
    found = [each for path in paths for each in changed(Frame.from_file(path).to_rgb())]
    noise = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    return [*found, np.zeros((480, 640, 3), np.uint8), noise, np.full((1, 1, 3), 7, np.uint8), noise[:3].copy()]


def wandering(pixels: Pixels, count: int, size: tuple[int, int] = (640, 480)) -> Iterator[Pixels]:
    """A video: a window of changing size that wanders over a picture."""
    height, width, _ = pixels.shape
    across, down = size
    for index in range(count):
        wide = width * (0.55 + 0.15 * np.sin(index / 9))
        high = min(wide * down / across, height * 0.9)
        wide = high * across / down
        x = (width - wide) / 2 * (1 + np.sin(index / 13))
        y = (height - high) / 2 * (1 + np.cos(index / 17))
        scale = across / wide
        move = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]], np.float32)
        yield np.asarray(cv2.warpAffine(pixels, move, size), np.uint8)


def interrupted(frames: list[Pixels]) -> list[Pixels]:
    """The same video with one black frame, and with seven."""
    return [np.zeros_like(frame) if 20 <= at < 27 or at == 45 else frame for at, frame in enumerate(frames)]


def joined(frames: list[Pixels]) -> list[Pixels]:
    """The same video and its mirror image side by side; the mirror image comes late and goes early."""
    return [
        np.ascontiguousarray(np.concatenate([frame, frame[:, ::-1] if 25 <= at < 60 else frame * 0 + 90], axis=1))
        for at, frame in enumerate(frames)
    ]


@pytest.fixture(scope="module")
def videos(pictures: Callable[[str], Path]) -> dict[str, list[Pixels]]:
    """Videos of one, of several, and of people who come and go."""
    one = list(wandering(Frame.from_file(pictures("pose_test_image.jpg")).to_rgb(), 70))
    group = list(wandering(Frame.from_file(pictures("seg_input_image.jpeg")).to_rgb(), 50, (500, 700)))
    couple = list(wandering(Frame.from_file(pictures("coupleanddog.jpeg")).to_rgb(), 60))
    return {"one": one, "interrupted": interrupted(one), "joined": joined(one), "group": group, "couple": couple}


def native(
    kind: door.TaskKind, options: Any, name: str, read: Callable[[Any], Answer], pictures: list[Pixels], *, video: bool
) -> list[Answer]:
    """MediaPipe's own answers."""
    task = door.NativeTask(kind, options, load_model(name), video=video)
    try:
        return [task.run(pixels, read, after_ms=_pause(at)) for at, pixels in enumerate(pictures)]
    finally:
        task.close()


def _pause(at: int) -> int:
    return 33 if at % 7 else 50


def timed(pictures: list[Pixels]) -> Iterator[Frame]:
    """The frames as :func:`native` plays them."""
    clock = 0
    for at, pixels in enumerate(pictures):
        clock += _pause(at) if at else 0
        yield Frame.from_array(pixels, timestamp_ms=clock)


def native_faces(result: Any) -> list[tuple[float, NDArray[np.float32], tuple[int, ...]]]:
    faces = [result.detections[i] for i in range(result.detections_count)]
    boxes = [each.bounding_box for each in faces]
    return [
        (door.best(face)[1], door.keypoints_xy(face), (box.left, box.top, box.right, box.bottom))
        for face, box in zip(faces, boxes, strict=True)
    ]


@pytest.mark.parametrize("reach", ["short", "full"])
@pytest.mark.parametrize(("confidence", "suppression"), [(0.5, 0.3), (0.2, 0.3), (0.3, 1.0)])
def test_faces_are_those_of_mediapipe(
    variants: list[Pixels], reach: Any, confidence: float, suppression: float
) -> None:
    name = "face_detector" if reach == "short" else "face_detector_full_range"
    options = door.FaceDetectorOptions(min_detection_confidence=confidence, min_suppression_threshold=suppression)
    expected = native(door.FACE_DETECTOR, options, name, native_faces, variants, video=False)
    assert sum(map(len, expected)) > 50
    with FaceDetector(
        range=reach, min_detection_confidence=confidence, min_suppression_threshold=suppression
    ) as detector:
        for pixels, faces in zip(variants, expected, strict=True):
            height, width, _ = pixels.shape
            found = detector.detect(Frame.from_array(pixels))
            assert len(found) == len(faces)
            for face, (score, keypoints, box) in zip(found, faces, strict=True):
                assert face.score == pytest.approx(score, abs=NEAR)
                np.testing.assert_allclose(face.keypoints, keypoints, atol=NEAR)
                np.testing.assert_allclose(face.box.to_pixels(width, height), box, atol=1)


def native_poses(result: Any) -> list[tuple[NDArray[np.float32], ...]]:
    rows = [door.landmark_rows(result.pose_landmarks[i]) for i in range(result.pose_landmarks_count)]
    world = [door.landmark_rows(result.pose_world_landmarks[i]) for i in range(result.pose_world_landmarks_count)]
    return [
        (door.xyz(row), door.xyz(metres), *door.visibility_and_presence(row))
        for row, metres in zip(rows, world, strict=True)
    ]


def pose_options(number: int, detection: float, presence: float) -> Any:
    return door.PoseLandmarkerOptions(
        num_poses=number,
        min_pose_detection_confidence=detection,
        min_pose_presence_confidence=presence,
        min_tracking_confidence=0.5,
    )


def same_poses(found: Any, expected: list[tuple[NDArray[np.float32], ...]]) -> None:
    assert len(found) == len(expected)
    for pose, values in zip(found, expected, strict=True):
        for mine, theirs in zip(
            (pose.landmarks, pose.world_landmarks, pose.visibility, pose.presence), values, strict=True
        ):
            np.testing.assert_allclose(mine, theirs, atol=NEAR)
            assert not mine.flags.writeable


@pytest.mark.parametrize(("number", "detection", "presence"), [(1, 0.5, 0.5), (4, 0.2, 0.3)])
def test_poses_are_those_of_mediapipe(variants: list[Pixels], number: int, detection: float, presence: float) -> None:
    expected = native(
        door.POSE_LANDMARKER,
        pose_options(number, detection, presence),
        "pose_landmarker_full",
        native_poses,
        variants,
        video=False,
    )
    assert sum(map(len, expected)) > 50
    with PoseDetector(
        num_poses=number, min_detection_confidence=detection, min_presence_confidence=presence
    ) as detector:
        for pixels, poses in zip(variants, expected, strict=True):
            same_poses(detector.detect(Frame.from_array(pixels)), poses)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["one", "interrupted", "joined", "group", "couple"])
def test_followed_poses_are_those_of_mediapipe(videos: dict[str, list[Pixels]], name: str, number: int) -> None:
    frames = videos[name]
    expected = native(
        door.POSE_LANDMARKER, pose_options(number, 0.5, 0.5), "pose_landmarker_full", native_poses, frames, video=True
    )
    with PoseTracker(num_poses=number, search_interval=1) as tracker:
        for frame, poses in zip(timed(frames), expected, strict=True):
            same_poses(tracker.track(frame), poses)


def native_hands(result: Any) -> list[tuple[Any, ...]]:
    """Landmarks, world landmarks, side and gesture of each hand."""
    sides = [door.best(result.handedness[i]) for i in range(result.handedness_count)]
    gestures = [door.best(result.gestures[i]) for i in range(getattr(result, "gestures_count", 0))] or [None] * len(
        sides
    )
    return [
        (
            door.xyz(door.landmark_rows(result.hand_landmarks[i])),
            door.xyz(door.landmark_rows(result.hand_world_landmarks[i])),
            side,
            gesture,
        )
        for i, (side, gesture) in enumerate(zip(sides, gestures, strict=True))
    ]


def native_hand_answers(
    pictures: list[Pixels], *, number: int, detection: float, presence: float, gestures: bool, video: bool
) -> list[list[tuple[Any, ...]]]:
    options = {
        "num_hands": number,
        "min_hand_detection_confidence": detection,
        "min_hand_presence_confidence": presence,
        "min_tracking_confidence": 0.5,
    }
    if not gestures:
        kind, made = door.HAND_LANDMARKER, door.HandLandmarkerOptions(**options)
        return native(kind, made, "hand_landmarker", native_hands, pictures, video=video)
    every = door.ClassifierOptions(max_results=-1)
    both = door.GestureRecognizerOptions(
        **options, canned_gestures_classifier_options=every, custom_gestures_classifier_options=every
    )
    return native(door.GESTURE_RECOGNIZER, both, "gesture_recognizer", native_hands, pictures, video=video)


def same_hands(found: Any, expected: list[tuple[Any, ...]]) -> None:
    assert len(found) == len(expected)
    for hand, (points, metres, (side, side_score), gesture) in zip(found, expected, strict=True):
        np.testing.assert_allclose(hand.landmarks, points, atol=NEAR)
        np.testing.assert_allclose(hand.world_landmarks, metres, atol=NEAR)
        assert hand.handedness == side
        assert hand.handedness_score == pytest.approx(side_score, abs=NEAR)
        if gesture is None:
            assert hand.gesture is None
        else:
            assert hand.gesture == gesture[0]
            assert hand.gesture_score == pytest.approx(gesture[1], abs=10 * NEAR)


@pytest.mark.parametrize("gestures", [True, False])
@pytest.mark.parametrize(("number", "detection", "presence"), [(2, 0.5, 0.5), (1, 0.3, 0.2), (6, 0.2, 0.3)])
def test_hands_are_those_of_mediapipe(
    variants: list[Pixels], number: int, detection: float, presence: float, gestures: bool
) -> None:
    expected = native_hand_answers(
        variants, number=number, detection=detection, presence=presence, gestures=gestures, video=False
    )
    assert sum(map(len, expected)) > 30
    with HandDetector(
        num_hands=number, gestures=gestures, min_detection_confidence=detection, min_presence_confidence=presence
    ) as detector:
        for pixels, hands in zip(variants, expected, strict=True):
            same_hands(detector.detect(Frame.from_array(pixels)), hands)


@pytest.fixture(scope="module")
def hand_videos(pictures: Callable[[str], Path]) -> dict[str, list[Pixels]]:
    """Videos of one hand, of hands that come and go, and a real one."""
    one = list(wandering(Frame.from_file(pictures("hand_thumb_up.jpg")).to_rgb(), 60))
    two = list(wandering(Frame.from_file(pictures("pose_test_image.jpg")).to_rgb(), 40, (960, 540)))
    with read_video(pictures("hand_test_video.mp4")) as video:
        real = [frame.to_rgb() for frame in video]
    return {"one": one, "interrupted": interrupted(one), "joined": joined(one), "two": two, "real": real}


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["one", "interrupted", "joined", "two", "real"])
def test_followed_hands_are_those_of_mediapipe(hand_videos: dict[str, list[Pixels]], name: str, number: int) -> None:
    frames = hand_videos[name][:90]
    expected = native_hand_answers(frames, number=number, detection=0.5, presence=0.5, gestures=number == 2, video=True)
    assert any(expected)
    with HandTracker(num_hands=number, gestures=number == 2, search_interval=1) as tracker:
        for frame, hands in zip(timed(frames), expected, strict=True):
            same_hands(tracker.track(frame), hands)


@pytest.mark.parametrize("name", ["one", "real"])
def test_a_hand_alone_is_the_same_when_others_are_searched_for_now_and_then(
    hand_videos: dict[str, list[Pixels]], name: str
) -> None:
    frames = hand_videos[name]
    expected = native_hand_answers(frames, number=2, detection=0.5, presence=0.5, gestures=False, video=True)
    other = 0
    with HandTracker(num_hands=2, gestures=False) as tracker:
        for frame, hands in zip(timed(frames), expected, strict=True):
            try:
                same_hands(tracker.track(frame), hands)
            except AssertionError:
                other += 1
    assert other <= len(frames) / 100


def native_meshes(result: Any) -> list[tuple[Any, ...]]:
    """Landmarks, blendshapes and matrix of each face."""
    shapes, matrices = result.face_blendshapes_count, result.facial_transformation_matrixes_count
    return [
        (
            door.xyz(door.landmark_rows(result.face_landmarks[i])),
            door.scores_by_index(result.face_blendshapes[i]) if i < shapes else None,
            door.matrix(result.facial_transformation_matrixes[i]) if i < matrices else None,
        )
        for i in range(result.face_landmarks_count)
    ]


def native_mesh_answers(
    pictures: list[Pixels], *, number: int, detection: float, presence: float, reach: str, video: bool
) -> list[list[tuple[Any, ...]]]:
    options = door.FaceLandmarkerOptions(
        num_faces=number,
        min_face_detection_confidence=detection,
        min_face_presence_confidence=presence,
        min_tracking_confidence=0.5,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    name = "face_landmarker" if reach == "short" else "face_landmarker_full_range"
    return native(door.FACE_LANDMARKER, options, name, native_meshes, pictures, video=video)


def same_meshes(found: Any, expected: list[tuple[Any, ...]]) -> None:
    assert len(found) == len(expected)
    for face, (points, shapes, matrix) in zip(found, expected, strict=True):
        np.testing.assert_allclose(face.landmarks, points, atol=NEAR)
        np.testing.assert_allclose(face.blendshapes, shapes, atol=10 * NEAR)
        np.testing.assert_allclose(face.transform[:3, :3], matrix[:3, :3], atol=10 * NEAR)
        np.testing.assert_allclose(face.transform[:3, 3], matrix[:3, 3], rtol=10 * NEAR, atol=0.02)  # cm


@pytest.mark.parametrize("reach", ["short", "full"])
@pytest.mark.parametrize(("number", "detection", "presence"), [(1, 0.5, 0.5), (4, 0.2, 0.3)])
def test_meshes_are_those_of_mediapipe(
    variants: list[Pixels], number: int, detection: float, presence: float, reach: Any
) -> None:
    expected = native_mesh_answers(
        variants, number=number, detection=detection, presence=presence, reach=reach, video=False
    )
    assert sum(map(len, expected)) > 30
    with FaceMesh(
        num_faces=number, min_detection_confidence=detection, min_presence_confidence=presence, range=reach,
        blendshapes=True, transform=True,
    ) as detector:  # fmt: skip
        for pixels, faces in zip(variants, expected, strict=True):
            same_meshes(detector.detect(Frame.from_array(pixels)), faces)


@pytest.fixture(scope="module")
def face_videos(pictures: Callable[[str], Path], portrait: Path) -> dict[str, list[Pixels]]:
    """Videos of one face and of faces that come and go."""
    one = list(wandering(Frame.from_file(portrait).to_rgb(), 60))
    group = list(wandering(Frame.from_file(pictures("coupleanddog.jpeg")).to_rgb(), 50, (500, 400)))
    return {"one": one, "interrupted": interrupted(one), "joined": joined(one), "group": group}


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["one", "interrupted", "joined", "group"])
def test_followed_meshes_are_those_of_mediapipe(face_videos: dict[str, list[Pixels]], name: str, number: int) -> None:
    frames = face_videos[name]
    expected = native_mesh_answers(frames, number=number, detection=0.5, presence=0.5, reach="short", video=True)
    assert any(expected)
    with FaceMeshTracker(num_faces=number, search_interval=1, blendshapes=True, transform=True) as tracker:
        for frame, faces in zip(timed(frames), expected, strict=True):
            same_meshes(tracker.track(frame), faces)
