"""The real models on real pictures: right answers, the same as mediapipe's own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.errors import (
    CorruptModelError,
    FrameError,
    FrameOrderError,
    ModelClosedError,
    ModelFileNotFoundError,
    ModelLoadError,
    OptionError,
)
from tabml.files import MemoryProvider, load_model
from tabml.vision import (
    FaceDetector,
    FaceMesh,
    FaceMeshTracker,
    Frame,
    HandDetector,
    HandTracker,
    PoseDetector,
    PoseTracker,
    Segmenter,
    landmarks,
    read_video,
)

Find = Callable[[str], Path]
MODELS: list[Any] = [
    FaceDetector, FaceMesh, FaceMeshTracker, HandDetector, HandTracker, PoseDetector, PoseTracker, Segmenter,
]  # fmt: skip


def use(model: Any, frame: Frame) -> Any:
    """The model's one verb."""
    return next(getattr(model, verb) for verb in ("detect", "track", "segment") if hasattr(model, verb))(frame)


@pytest.fixture(scope="module")
def face(portrait: Path) -> Frame:
    return Frame.from_file(portrait)


def test_a_face_is_where_it_is(face: Frame) -> None:
    with FaceDetector() as detector:
        (found,) = detector.detect(face)
    assert found.score > 0.9
    left, top, right, bottom = found.box.to_pixels(face.width, face.height)
    assert abs((left + right) / 2 - 268) < 15
    assert abs((top + bottom) / 2 - 243) < 20
    assert found["right_eye"][0] < found["nose_tip"][0] < found["left_eye"][0]
    assert found["right_eye"][1] < found["nose_tip"][1] < found["mouth_center"][1]
    assert found.keypoints.shape == (6, 2)
    assert found.keypoints.dtype == np.float32


def test_a_mesh_has_irises_blendshapes_and_a_pose(face: Frame) -> None:
    with FaceMesh(blendshapes=True, transform=True) as mesh:
        (found,) = mesh.detect(face)
    assert found.landmarks.shape == (478, 3)
    assert found.mesh.shape == (468, 3)
    assert np.shares_memory(found.mesh, found.landmarks)
    for side in ("left", "right"):
        iris, eye = found.irises[f"{side}_iris"], found[f"{side}_eye"]
        assert eye[:, 0].min() < iris[0, 0] < eye[:, 0].max()
    assert found.blendshapes is not None
    assert found.blendshapes.shape == (52,)
    assert 0 <= found.blendshape("jawOpen") <= 1
    assert found.transform is not None
    np.testing.assert_allclose(found.transform[3], [0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(found.transform[:3, :3]), 1, atol=0.05)


def test_full_range_finds_what_short_range_misses(pictures: Find) -> None:
    frame = Frame.from_file(pictures("pose_test_image.jpg"))
    with FaceMesh() as short, FaceMesh(range="full") as full, FaceDetector(range="full") as detector:
        assert len(short.detect(frame)) == 0
        assert len(full.detect(frame)) == 1
        assert len(detector.detect(frame)) == 1


def test_a_hand_has_a_side_and_a_gesture(pictures: Find) -> None:
    with HandDetector() as hands, HandDetector(gestures=False) as plain:
        frame = Frame.from_file(pictures("hand_thumb_up.jpg"))
        (hand,) = hands.detect(frame)
        (bare,) = plain.detect(frame)
    assert hand.gesture == "Thumb_Up"
    assert hand.gesture in landmarks.GESTURES
    assert hand.gesture_score == pytest.approx(0.8, abs=0.05)
    assert hand["thumb_tip"][1] < hand["wrist"][1]
    assert bare.gesture is None
    assert bare.handedness == hand.handedness
    np.testing.assert_allclose(bare.landmarks, hand.landmarks, atol=0.02)
    assert np.ptp(hand.world_landmarks, axis=0).max() < 0.3


def test_a_pose_has_metres_and_angles(pictures: Find) -> None:
    with PoseDetector() as poses:
        (pose,) = poses.detect(Frame.from_file(pictures("pose_test_image.jpg")))
    assert pose.landmarks.shape == pose.world_landmarks.shape == (33, 3)
    assert pose["left_shoulder"][0] > pose["right_shoulder"][0]
    assert np.linalg.norm(pose.world_landmarks[11] - pose.world_landmarks[12]) == pytest.approx(0.3, abs=0.1)
    angles = pose.angles(min_visibility=0)
    assert len(angles) == 12
    assert all(value is not None and 0 <= value <= 180 for value in angles.values())


def test_several_people_are_found(pictures: Find) -> None:
    with PoseDetector(num_poses=3) as poses:
        assert len(poses.detect(Frame.from_file(pictures("coupleanddog.jpeg")))) == 2


def test_the_person_is_masked(face: Frame) -> None:
    with Segmenter() as soft, Segmenter(kind="category") as hard:
        mask, classes = soft.segment(face), hard.segment(face)
    assert mask.mask.shape == (face.height, face.width)
    assert mask.mask.dtype == np.float32
    assert mask.mask[400, 260] > 0.9
    assert mask.mask[60, 420] < 0.1
    assert np.array_equal(classes.mask > 0, mask.mask >= 0.5)
    assert classes.labels == ("background", "person")


def test_a_model_of_many_classes_names_them(face: Frame) -> None:
    with Segmenter(model="deeplab_v3", kind="category") as many, Segmenter(model="deeplab_v3") as any_class:
        found, sure = many.segment(face), any_class.segment(face)
    assert found.labels[int(found.mask[400, 260])] == "person"
    assert sure.mask[400, 260] > 0.5
    assert sure.mask[60, 420] < 0.5


def test_a_tracker_follows_a_clip(pictures: Find) -> None:
    with HandTracker(num_hands=1) as tracker, read_video(pictures("hand_test_video.mp4")) as video:
        answers = [found for _, found in tracker.track_stream(video)]
    assert len(answers) == 202
    assert sum(len(found) == 1 for found in answers) >= 200
    assert [found.frame_number for found in answers] == list(range(202))
    centres = np.array([found[0].landmarks[:, :2].mean(axis=0) for found in answers if found])
    assert np.abs(np.diff(centres, axis=0)).max() < 0.15


def test_answers_are_read_only_values(face: Frame) -> None:
    with PoseDetector() as poses:
        found = poses.detect(face)
    for array in (found[0].landmarks, found[0].world_landmarks, found[0].visibility, found[0].presence):
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        found[0].landmarks = None
    with pytest.raises(KeyError, match="left_elbow"):
        found[0]["elbow"]
    assert json.loads(found.to_json()) == found.to_dict()
    table = found.to_pandas()
    assert list(table.landmark) == list(landmarks.POSE_LANDMARKS)
    assert "<b>Poses</b>" in found._repr_html_()


@pytest.mark.parametrize("model_class", MODELS)
def test_every_model_answers_the_same_async_and_as_a_stream(model_class: Any, face: Frame) -> None:
    def fresh(at: int) -> Frame:
        return Frame(pixels=face.pixels, format="rgb", timestamp_ms=at, frame_number=at)

    class Source:
        closed = False

        def __iter__(self) -> Iterator[Frame]:
            return iter([fresh(0), fresh(40)])

        async def __aiter__(self) -> AsyncIterator[Frame]:
            yield fresh(0)
            yield fresh(40)

        def close(self) -> None:
            self.closed = True

        async def aclose(self) -> None:
            self.closed = True

    verb = next(verb for verb in ("detect", "track", "segment") if hasattr(model_class, verb))

    async def in_async() -> list[str]:
        with model_class() as model:
            first = await getattr(model, f"{verb}_async")(fresh(0))
        source = Source()
        with model_class() as model:
            stream = getattr(model, f"{verb}_stream_async")(source)
            both = [found async for _, found in stream]
        assert source.closed
        return [found.to_json() for found in [first, *both]]

    source = Source()
    with model_class() as model:
        sync = [found.to_json() for _, found in getattr(model, f"{verb}_stream")(source)]
    assert source.closed
    assert asyncio.run(in_async()) == [sync[0], *sync]


@pytest.mark.parametrize("model_class", MODELS)
def test_a_closed_model_says_so(model_class: Any, face: Frame) -> None:
    model = model_class()
    assert "not loaded" in repr(model)
    use(model, face)
    model.close()
    model.close()
    assert model.closed
    assert "closed" in repr(model)
    with pytest.raises(ModelClosedError, match="open a new one"):
        use(model, face)
    with pytest.raises(ModelClosedError):
        model.load()


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("wrong", [None, np.zeros((4, 4, 3), np.uint8), "party.jpg", b"\xff\xd8"])
def test_what_is_no_frame_is_refused_with_the_remedy(model_class: Any, wrong: object) -> None:
    with model_class() as model, pytest.raises(FrameError, match=r"Frame\.from_"):
        use(model, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model_class", "option", "value"),
    [
        (model_class, option, value)
        for model_class, options in {
            FaceDetector: ("min_detection_confidence", "min_suppression_threshold", "range"),
            FaceMesh: ("min_detection_confidence", "min_presence_confidence", "min_tracking_confidence", "num_faces"),
            HandTracker: ("min_detection_confidence", "min_presence_confidence", "num_hands"),
            PoseTracker: ("min_detection_confidence", "min_tracking_confidence", "num_poses"),
            Segmenter: ("kind",),
        }.items()
        for option in options
        for value in (float("nan"), -1, 2_000_000, "much", None, float("inf"), True, 1.5)
    ],
)
def test_options_out_of_range_are_refused_at_construction(model_class: Any, option: str, value: object) -> None:
    with pytest.raises(OptionError, match=option):
        model_class(**{option: value})


def test_timestamps_must_grow_and_later_frames_are_answered(face: Frame) -> None:
    def at(timestamp: int | None) -> Frame:
        return Frame(pixels=face.pixels, format="rgb", timestamp_ms=timestamp)

    with FaceMeshTracker() as tracker:
        for timestamp in (-(2**70), -5, 0, 100):
            assert len(tracker.track(at(timestamp))) == 1
        for timestamp in (100, 99, -(2**80)):
            with pytest.raises(FrameOrderError, match="not later"):
                tracker.track(at(timestamp))
        assert len(tracker.track(at(101))) == 1
        assert len(tracker.track(at(None))) == 1
        assert len(tracker.track(at(2**80))) == 1


def test_two_trackers_share_nothing(pictures: Find) -> None:
    frames = list(read_video(pictures("hand_test_video.mp4")))[:30]
    black = Frame.from_array(np.zeros((360, 640, 3), np.uint8))

    def lone() -> list[str]:
        with HandTracker() as tracker:
            return [tracker.track(frame).to_json() for frame in frames]

    expected, found = lone(), []
    with HandTracker() as tracker, HandTracker() as other:
        for frame in frames:
            other.track(black)
            found.append(tracker.track(frame).to_json())
    assert found == expected


def test_two_trackers_in_two_threads_answer_as_alone(pictures: Find) -> None:
    frames = list(read_video(pictures("hand_test_video.mp4")))[:40]

    def follow(model: Any, into: list[str]) -> None:
        with model as tracker:
            into.extend(tracker.track(frame).to_json() for frame in frames)

    alone: list[list[str]] = [[], []]
    follow(HandTracker(), alone[0])
    follow(PoseTracker(), alone[1])
    together: list[list[str]] = [[], []]
    threads = [
        threading.Thread(target=follow, args=(HandTracker(), together[0])),
        threading.Thread(target=follow, args=(PoseTracker(), together[1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_threads_may_share_one_detector(face: Frame) -> None:
    answers: list[str] = []
    with FaceDetector() as detector:

        def look() -> None:
            answers.extend(detector.detect(face).to_json() for _ in range(10))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 40
    assert len(set(answers)) == 1


def test_any_format_gives_the_same_answer(face: Frame) -> None:
    rgb = face.pixels
    same = [
        Frame.from_array(rgb[:, :, ::-1], "bgr"),
        Frame.from_array(np.asfortranarray(rgb)),
        Frame.from_array(np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])),
        Frame.from_array(rgb.astype(np.float32) / 255),
        Frame.from_array(rgb.astype(np.uint16) << 8),
    ]
    with FaceDetector() as detector:
        expected = detector.detect(face)[0]
        for frame in same:
            found = detector.detect(frame)[0]
            np.testing.assert_array_equal(found.keypoints, expected.keypoints)
        gray = detector.detect(Frame.from_array(rgb.mean(axis=2).astype(np.uint8)))[0]
        np.testing.assert_allclose(gray.keypoints, expected.keypoints, atol=0.02)


def test_model_files_come_from_any_provider(face: Frame, tmp_path: Path) -> None:
    content = load_model("face_detector")
    memory = MemoryProvider({("face_detector", "face_detector.tflite"): content})
    file = tmp_path / "mine.tflite"
    file.write_bytes(content)
    for arguments in ({"files": memory}, {"model": file}):
        with FaceDetector(**arguments) as detector:  # type: ignore[arg-type]
            assert len(detector.detect(face)) == 1


def test_models_that_are_none_are_refused_and_the_process_lives(face: Frame, tmp_path: Path) -> None:
    content = load_model("face_detector")
    file = tmp_path / "wrong.tflite"
    for wrong, error in (
        (b"", CorruptModelError),
        (b"<html>not found</html>", CorruptModelError),
        (content[: len(content) // 2], CorruptModelError),
        (load_model("face_landmarker"), ModelLoadError),
    ):
        file.write_bytes(wrong)
        with FaceDetector(model=file) as detector, pytest.raises(error) as caught:
            detector.load()
        assert "\n" not in str(caught.value)
    file.write_bytes(load_model("selfie_segmenter"))
    with FaceDetector(model=file) as detector:
        for _ in range(2):
            with pytest.raises(ModelLoadError, match="another kind"):
                detector.detect(face)
    flipped = bytearray(content)
    flipped[1000] ^= 1
    memory = MemoryProvider({("face_detector", "face_detector.tflite"): bytes(flipped)})
    with FaceDetector(files=memory) as detector, pytest.raises(CorruptModelError, match="sha256"):
        detector.load()
    with FaceDetector(model="face_detectr") as detector, pytest.raises(ModelFileNotFoundError, match="did you mean"):
        detector.load()
    with FaceDetector(model=tmp_path) as detector, pytest.raises(ModelFileNotFoundError, match="regular file"):
        detector.load()
    with FaceDetector() as detector:
        assert len(detector.detect(face)) == 1


PEER = """
    import json, sys
    import mediapipe as mp
    import numpy as np
    from tabml.files import load_model
    from tabml.vision import Frame

    vision, base = mp.tasks.vision, lambda name: mp.tasks.BaseOptions(model_asset_buffer=load_model(name))
    pixels = Frame.from_file(sys.argv[1]).to_rgb()
    picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=pixels)
    answers = {}

    def points(landmarks):
        return [[p.x, p.y, p.z] for p in landmarks]

    with vision.FaceDetector.create_from_options(vision.FaceDetectorOptions(base_options=base("face_detector"))) as t:
        answers["faces"] = [
            [d.bounding_box.origin_x, d.bounding_box.origin_y, d.bounding_box.width, d.bounding_box.height,
             d.categories[0].score, [[k.x, k.y] for k in d.keypoints]]
            for d in t.detect(picture).detections
        ]
    options = vision.FaceLandmarkerOptions(
        base_options=base("face_landmarker"), output_face_blendshapes=True, output_facial_transformation_matrixes=True
    )
    with vision.FaceLandmarker.create_from_options(options) as t:
        r = t.detect(picture)
        answers["mesh"] = [points(face) for face in r.face_landmarks]
        answers["blendshapes"] = [{c.category_name: c.score for c in face} for face in r.face_blendshapes]
        answers["transform"] = [m.tolist() for m in r.facial_transformation_matrixes]
    options = vision.PoseLandmarkerOptions(base_options=base("pose_landmarker_full"))
    with vision.PoseLandmarker.create_from_options(options) as t:
        r = t.detect(picture)
        answers["pose"] = [points(pose) for pose in r.pose_landmarks]
        answers["world"] = [points(pose) for pose in r.pose_world_landmarks]
        answers["visibility"] = [[p.visibility for p in pose] for pose in r.pose_landmarks]
        answers["presence"] = [[p.presence for p in pose] for pose in r.pose_landmarks]
    options = vision.GestureRecognizerOptions(base_options=base("gesture_recognizer"), num_hands=2)
    with vision.GestureRecognizer.create_from_options(options) as t:
        r = t.recognize(picture)
        answers["hands"] = [points(hand) for hand in r.hand_landmarks]
        answers["hand_world"] = [points(hand) for hand in r.hand_world_landmarks]
        answers["sides"] = [[h[0].category_name, h[0].score] for h in r.handedness]
        answers["gestures"] = [[g[0].category_name, g[0].score] for g in r.gestures]
    options = vision.ImageSegmenterOptions(base_options=base("selfie_segmenter"), output_confidence_masks=True)
    with vision.ImageSegmenter.create_from_options(options) as t:
        np.save(sys.argv[2], t.segment(picture).confidence_masks[0].numpy_view().squeeze())
    json.dump(answers, open(sys.argv[3], "w"))
"""


@pytest.mark.parametrize("name", ["portrait", "astronaut", "pose_test_image.jpg", "face_testImg.jpeg"])
def test_answers_equal_mediapipes_own(
    name: str, pictures: Find, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = pictures(name) if "." in name else request.getfixturevalue(name)
    mask, answers = tmp_path / "mask.npy", tmp_path / "answers.json"
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEER), str(path), str(mask), str(answers)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    theirs = json.loads(answers.read_text())
    frame = Frame.from_file(path)
    with FaceDetector() as m:
        faces = m.detect(frame)
    with FaceMesh(blendshapes=True, transform=True) as m:
        meshes = m.detect(frame)
    with PoseDetector() as m:
        poses = m.detect(frame)
    with HandDetector() as m:
        hands = m.detect(frame)
    with Segmenter() as m:
        ours = m.segment(frame)

    same = lambda a, b: np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=1e-6)  # noqa: E731
    assert len(faces) == len(theirs["faces"])
    for face, (x, y, w, h, score, keypoints) in zip(faces, theirs["faces"], strict=True):
        assert face.box.to_pixels(frame.width, frame.height) == (x, y, x + w, y + h)
        same([face.score], [score])
        same(face.keypoints, keypoints)
    same([mesh.landmarks for mesh in meshes], theirs["mesh"])
    for mesh, matrix in zip(meshes, theirs["transform"], strict=True):
        np.testing.assert_allclose(mesh.transform, matrix, rtol=1e-5, atol=1e-5)  # theirs is computed in 32 bits
    shapes = [dict(zip(landmarks.BLENDSHAPES, mesh.blendshapes.tolist(), strict=True)) for mesh in meshes]  # type: ignore[union-attr]
    assert shapes == theirs["blendshapes"]
    same([pose.landmarks for pose in poses], theirs["pose"])
    same([pose.world_landmarks for pose in poses], theirs["world"])
    same([pose.visibility for pose in poses], theirs["visibility"])
    same([pose.presence for pose in poses], theirs["presence"])
    same([hand.landmarks for hand in hands], theirs["hands"])
    same([hand.world_landmarks for hand in hands], theirs["hand_world"])
    assert [[hand.handedness, hand.handedness_score] for hand in hands] == theirs["sides"]
    assert [[hand.gesture, hand.gesture_score] for hand in hands] == theirs["gestures"]
    np.testing.assert_allclose(ours.mask, np.load(mask), atol=1e-4)
