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
from tabml.vision import FaceDetector, Frame
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


def native(
    kind: door.TaskKind, options: Any, name: str, read: Callable[[Any], Answer], pictures: list[Pixels], *, video: bool
) -> list[Answer]:
    """MediaPipe's own answers."""
    task = door.NativeTask(kind, options, load_model(name), video=video)
    try:
        return [task.run(pixels, read) for pixels in pictures]
    finally:
        task.close()


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
