"""Single pictures over a real socket: every format, the library's own answers, and what bad input gets."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from child import Child, fails
from PIL import Image

from tabml.vision import (
    FaceDetector,
    FaceMesh,
    Frame,
    HandDetector,
    ImageClassifier,
    ImageEmbedder,
    PoseDetector,
    Segmenter,
)
from tabml_grpc import convert, convert_pictures
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import vision_pb2 as v1

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def planes(rgb: np.ndarray[Any, Any], kind: str) -> bytes:
    """Pixels as a camera gives them."""
    import cv2

    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    if kind == "yuv420":
        return bytes(i420.tobytes())
    height = len(rgb)
    chroma = i420[height:].reshape(2, -1)
    return bytes(i420[:height].tobytes() + np.stack([chroma[0], chroma[1]], 1).tobytes())


def encoded(frame: Frame, format: str) -> bytes:
    rgb = frame.to_rgb()
    if format in ("yuv420", "nv12"):
        return planes(rgb, format)
    if format in ("jpeg", "png", "webp"):
        return frame.encode(format)  # type: ignore[arg-type]
    mode = {"rgb": rgb, "bgr": rgb[..., ::-1], "gray": np.asarray(frame.to_pil().convert("L"))}
    if format == "rgba":
        return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]).tobytes()
    return bytes(np.ascontiguousarray(mode[format]).tobytes())


@pytest.mark.parametrize("format", ["rgb", "bgr", "rgba", "gray", "yuv420", "nv12", "jpeg", "png", "webp"])
def test_every_format_shows_the_same_face(format: str, server: Child, portrait: Path) -> None:
    frame = Frame.from_file(portrait)
    with FaceDetector() as detector:
        (expected,) = detector.detect(frame)
    data = encoded(frame, format)
    answer = server.vision.DetectFaces(ml.ImageRequest(image_data=data, format=format, width=512, height=600))
    (face,) = answer.faces
    assert abs(face.x - expected.box.x) < 0.02
    assert abs(face.height - expected.box.height) < 0.03
    assert [point.name for point in face.keypoints][2] == "nose_tip"
    number = next(n for n, name in convert.FORMATS.items() if name == format)
    request = v1.AnalyzeRequest(
        frame=v1.Frame(data=data, format=number, width=512, height=600, timestamp_ms=7, frame_number=8),  # type: ignore[arg-type]
        tasks=[v1.TaskConfig(task=v1.VISION_TASK_FACE_DETECTION)],
    )
    analysis = server.v1_vision.Analyze(request).analysis
    assert analysis.faces[0].box.x == face.x
    assert (analysis.timestamp_ms, analysis.frame_number) == (7, 8)
    assert (analysis.width, analysis.height) == (512, 600)


def test_padded_rows_are_left_out(server: Child, portrait: Path) -> None:
    pixels = Frame.from_file(portrait).to_rgb()
    padded = np.zeros((600, 512 * 3 + 64), np.uint8)
    padded[:, : 512 * 3] = pixels.reshape(600, -1)
    config = v1.VisionConfig(stride=512 * 3 + 64, timestamp_ms=-5, frame_number=3)
    answer = server.vision.DetectFaces(
        ml.ImageRequest(image_data=padded.tobytes(), format="rgb", width=512, height=600),
        metadata=[("tabml-options-bin", config.SerializeToString())],
    )
    assert len(answer.faces) == 1
    assert (answer.timestamp_ms, answer.frame_number) == (-5, 3)
    plain = server.vision.DetectFaces(ml.ImageRequest(image_data=pixels.tobytes(), format="rgb", width=512, height=600))
    assert plain.faces == answer.faces


def test_a_picture_without_a_timestamp_gets_the_time_of_its_arrival(server: Child, jpeg: bytes) -> None:
    before = int(time.time() * 1000)
    answer = server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg))
    assert before <= answer.timestamp_ms <= time.time() * 1000
    assert answer.stats.decode_ms > 0
    assert answer.stats.inference_ms > 0


def test_exif_is_honoured(server: Child, portrait: Path) -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.open(portrait).rotate(90, expand=True).save(out, "jpeg", exif=exif.tobytes())
    answer = server.vision.DetectFaces(ml.ImageRequest(image_data=out.getvalue(), format="jpeg", width=600, height=512))
    assert len(answer.faces) == 1
    assert answer.faces[0].keypoints[0].y < answer.faces[0].keypoints[3].y  # eyes above the mouth


def test_answers_are_the_librarys(server: Child, portrait: Path, jpeg: bytes) -> None:
    frame = Frame.from_file(portrait)
    with PoseDetector() as poses:
        expected = convert.poses_to_ml(poses.detect(frame))
    found = server.vision.DetectPose(ml.ImageRequest(image_data=jpeg, format="jpeg"))
    assert found.poses == expected.poses
    tasks = [v1.TaskConfig(task=task) for task in v1.VisionTask.values()[1:]]  # type: ignore[arg-type]
    analysis = server.v1_vision.Analyze(v1.AnalyzeRequest(frame=v1.Frame(data=jpeg), tasks=tasks)).analysis
    with FaceMesh() as meshes, Segmenter() as segmenter:
        mesh, mask = meshes.detect(frame)[0], segmenter.segment(frame)
    np.testing.assert_array_equal(convert.meshes_from_v1(analysis)[0].landmarks, mesh.landmarks)
    received = convert.mask_from_v1(analysis)
    assert received is not None
    assert np.abs(received.mask - mask.mask).max() <= 0.5 / 255 + 1e-6
    assert len(analysis.faces) == len(analysis.poses) == 1


def test_hands_come_with_gestures(server: Child, pictures: Any) -> None:
    path = pictures("hand_thumb_up.jpg")
    with HandDetector() as detector:
        expected = convert.hands_to_ml(detector.detect(Frame.from_file(path)))
    found = server.vision.DetectHands(ml.ImageRequest(image_data=path.read_bytes(), format="jpeg"))
    assert found.hands == expected.hands
    assert found.hands[0].gestures[0].name == "Thumb_Up"


def options(**values: Any) -> list[tuple[str, bytes]]:
    return [("tabml-options-bin", v1.VisionConfig(**values).SerializeToString())]


def test_options_come_as_metadata(server: Child, jpeg: bytes) -> None:
    request = ml.ImageRequest(image_data=jpeg, format="jpeg")
    assert not server.vision.DetectFaces(request, metadata=options(min_detection_confidence=0.99)).faces
    assert server.vision.DetectFaces(request, metadata=options(range="full")).faces


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"num_hands": 3}, "num_hands"),
        ({"min_detection_confidence": 1.5}, "min_detection_confidence"),
        ({"min_detection_confidence": float("nan")}, "min_detection_confidence"),
        ({"range": "far"}, "range"),
        ({"mask_format": 99}, "mask_format"),
    ],
)
def test_an_impossible_option_is_named(values: dict[str, Any], word: str, server: Child, jpeg: bytes) -> None:
    with fails(INVALID, word) as found:
        server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg), metadata=options(**values))
    assert found["ErrorInfo"].reason == "OPTION_INVALID"


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (ml.ImageRequest(image_data=b"", format="jpeg"), INVALID, ["picture"]),
        (ml.ImageRequest(image_data=b"no picture", format="jpeg"), INVALID, ["JPEG"]),
        (ml.ImageRequest(image_data=bytes(11), format="rgb", width=2, height=2), INVALID, ["11 bytes", "12"]),
        (ml.ImageRequest(image_data=bytes(13), format="rgb", width=2, height=2), INVALID, ["13 bytes"]),
        (ml.ImageRequest(image_data=bytes(12), format="rgb", width=-2, height=-2), INVALID, ["width=-2"]),
        (ml.ImageRequest(image_data=bytes(12), format="rgb", width=0, height=2), INVALID, ["width=0"]),
        (ml.ImageRequest(image_data=bytes(12), format="rgb", width=2**31 - 1, height=2**31 - 1), INVALID, ["width="]),
        (ml.ImageRequest(image_data=bytes(12), format="cmyk", width=2, height=2), INVALID, ["format='cmyk'", "rgb"]),
        (ml.ImageRequest(image_data=bytes(6), format="nv12", width=1, height=4), INVALID, ["even"]),
    ],
)
def test_bad_pictures_get_a_status_that_says_what(
    request_: Any, code: grpc.StatusCode, words: list[str], server: Child, jpeg: bytes
) -> None:
    with fails(code, *words):
        server.vision.DetectFaces(request_)
    assert server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg)).faces


def test_a_size_that_is_not_the_pictures_is_refused(server: Child, jpeg: bytes) -> None:
    with fails(INVALID, "512×600"):
        server.vision.DetectFaces(ml.ImageRequest(image_data=jpeg, format="jpeg", width=640, height=480))


def test_a_bomb_is_refused_before_it_is_decoded(server: Child) -> None:
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "jpeg")
    data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    before = server.stats().peak_rss_bytes
    with fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "promises more"):
        server.vision.DetectFaces(ml.ImageRequest(image_data=bytes(data), format="jpeg"))
    assert server.stats().peak_rss_bytes - before < 150 << 20


def test_what_is_not_a_message_is_an_invalid_argument(server: Child) -> None:
    for path in ("/ml.MediapipeService/DetectFaces", "/tabml.v1.ModelService/LoadModel"):
        call = server.channel.unary_unary if path.endswith("Faces") else server.channel.unary_stream
        with fails(INVALID, "the request is not a"):
            answer: Any = call(path)(b"\xff\xff\xff")  # type: ignore[operator]
            list(answer)
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary("/ml.MediapipeService/DetectEverything")(b"")  # type: ignore[call-arg]
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_a_request_of_more_than_64_mib_is_refused(server: Child) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.vision.DetectFaces(ml.ImageRequest(image_data=bytes(65 << 20)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_what_is_not_here_yet_says_so(server: Child, jpeg: bytes) -> None:
    with fails(grpc.StatusCode.UNIMPLEMENTED, "Describe", "later release"):
        server.v1_vision.Describe(v1.DescribeRequest(frame=v1.Frame(data=jpeg), prompt="what is it?"))


def test_tasks_are_checked(server: Child, jpeg: bytes) -> None:
    frame = v1.Frame(data=jpeg)
    face = v1.TaskConfig(task=v1.VISION_TASK_FACE_DETECTION)
    for request, word in (
        (v1.AnalyzeRequest(frame=frame), "tasks"),
        (v1.AnalyzeRequest(frame=frame, tasks=[face, face]), "different"),
        (v1.AnalyzeRequest(frame=frame, tasks=[v1.TaskConfig(task=99)]), "99"),  # type: ignore[arg-type]
        (v1.AnalyzeRequest(tasks=[face]), "frame"),
    ):
        with fails(INVALID, word):
            server.v1_vision.Analyze(request)


def test_a_model_must_be_loaded_and_of_the_right_kind(server: Child, jpeg: bytes) -> None:
    request = ml.ImageRequest(image_data=jpeg)
    server.vision.DetectPose(request)
    with fails(grpc.StatusCode.NOT_FOUND, "no-such-model"):
        server.vision.DetectFaces(request, metadata=options(model="no-such-model"))
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "deeplab_v3", "LoadModel"):
        server.vision.DetectFaces(request, metadata=options(model="deeplab_v3"))
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "pose_landmarker_full", "pose-landmarks"):
        server.vision.DetectFaces(request, metadata=options(model="pose_landmarker_full"))


def test_pictures_are_classified_and_embedded(server: Child, portrait: Path, jpeg: bytes) -> None:
    frame = Frame.from_file(portrait)
    found = server.v1_vision.ClassifyImage(v1.ClassifyImageRequest(frame=v1.Frame(data=jpeg), top_k=2))
    with ImageClassifier(max_results=2) as classifier, ImageEmbedder() as embedder:
        expected, vector = classifier.classify(frame), embedder.embed(frame)
    assert [(each.label, each.index) for each in found.categories] == [(each.label, each.index) for each in expected]
    received = convert_pictures.categories_from_v1(found, 512, 600)
    assert [each.score for each in received] == pytest.approx([each.score for each in expected])
    answer = server.v1_vision.EmbedImage(v1.EmbedImageRequest(frame=v1.Frame(data=jpeg)))
    np.testing.assert_allclose(convert_pictures.embedding_from_v1(answer, 512, 600).vector, vector.vector, atol=1e-5)
    with fails(grpc.StatusCode.UNIMPLEMENTED, "zero-shot"):
        server.v1_vision.ClassifyImage(v1.ClassifyImageRequest(frame=v1.Frame(data=jpeg), labels=["a", "b"]))
    with fails(INVALID, "max_results=-1"):
        server.v1_vision.ClassifyImage(v1.ClassifyImageRequest(frame=v1.Frame(data=jpeg), top_k=-1))
    with fails(INVALID, "frame must be set"):
        server.v1_vision.EmbedImage(v1.EmbedImageRequest())
