"""Templates, crops that follow and labels of clips, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from child import Child, chunk_messages, fails
from encoded import encoded

from tabml.vision import Frame, TemplateMatcher
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import vision_pb2 as v1

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def photo(portrait: Path) -> Frame:
    return Frame.from_file(portrait)


def request(frame: Frame, template: Frame | None = None, *, encoded: bool = True, **more: Any) -> Any:
    parts: dict[str, Any] = {"frame_data": frame.encode("png")}
    if not encoded:
        parts = {"frame_data": frame.pixels.tobytes(), "frame_width": frame.width, "frame_height": frame.height}
    if template is not None:
        parts |= {
            "template_data": template.pixels.tobytes(), "template_width": template.width,
            "template_height": template.height,
        }  # fmt: skip
    return ml.TemplateMatchingRequest(**{**parts, **more})


def test_a_template_is_found_and_stays_until_the_next(server: Child, photo: Frame) -> None:
    badge, face = photo.crop(80, 470, 180, 530), photo.crop(160, 120, 280, 220)
    answers = list(
        server.vision.StreamTemplateMatching(
            iter([request(photo, face), request(photo, encoded=False), request(photo, badge, threshold=0.95)])
        )
    )
    (expected,) = TemplateMatcher(face).match(photo)
    for answer in answers[:2]:
        (found,) = answer.matches
        assert (found.x, found.y, found.width) == pytest.approx((expected.box.x, expected.box.y, expected.box.width))
        assert found.confidence == pytest.approx(expected.score)
        assert (found.scale, found.rotation, answer.stats.error) == (1, 0, "")
    assert answers[2].matches[0].x == pytest.approx(80 / 512)
    assert answers[0].timestamp_ms <= answers[2].timestamp_ms
    turned = Frame.from_array(np.rot90(photo.pixels, 1).copy())
    options = v1.VisionConfig(rotations="0, 90", max_results=1).SerializeToString()
    (answer,) = server.vision.StreamTemplateMatching(
        iter([request(turned, face)]), metadata=[("tabml-options-bin", options)]
    )
    assert answer.matches[0].rotation == 90


def test_bad_templates_and_frames_are_reported_and_the_stream_goes_on(server: Child, photo: Frame) -> None:
    plain = Frame.from_array(np.full((20, 20, 3), 9, np.uint8))
    face = photo.crop(160, 120, 280, 220)
    given = [
        request(photo), request(photo, plain), request(photo.crop(0, 0, 50, 50), face), request(photo, face, frame_data=b"x"),
        request(photo, face, threshold=3), request(photo, face),
    ]  # fmt: skip
    answers = list(server.vision.StreamTemplateMatching(iter(given)))
    words = ["template_data must be set", "contrast", "smaller than the template", "[frame_invalid]", "threshold=3", ""]
    for answer, word in zip(answers, words, strict=True):
        assert word in answer.stats.error
        assert bool(answer.stats.error) == bool(word)
    assert len(answers[-1].matches) == 1
    wrong = v1.VisionConfig(num_faces=2).SerializeToString()
    with fails(INVALID, "num_faces"):
        list(server.vision.StreamTemplateMatching(iter(given), metadata=[("tabml-options-bin", wrong)]))
    assert list(server.vision.StreamTemplateMatching(iter(()))) == []


def video(frames: list[Frame], format: str, **options: str) -> Iterator[ml.VideoFrame]:
    for number, frame in enumerate(frames):
        data = frame.encode("jpeg") if format == "jpeg" else frame.pixels.tobytes()
        yield ml.VideoFrame(
            frame_data=data, format=format, width=frame.width, height=frame.height, timestamp_ms=7 * number,
            frame_number=number, metadata={f"opt.{name}": value for name, value in options.items()} if not number else {},
        )  # fmt: skip


@pytest.fixture(scope="module")
def walk(photo: Frame) -> list[Frame]:
    """A face that moves from left to right."""
    face, frames = photo.resize(200, 234).to_rgb(), []
    for number in range(24):
        pixels = np.full((270, 480, 3), 90, np.uint8)
        pixels[20:254, 10 + 10 * number : 210 + 10 * number] = face
        frames.append(Frame.from_array(pixels))
    return frames


def assert_the_face_is_followed(answers: list[Any]) -> None:
    first, last = (
        Frame.from_named(each.frame_data, each.format, width=270, height=270).to_rgb().astype(int)
        for each in (answers[0], answers[-1])
    )
    assert np.abs(first - 90).max(axis=2)[:, 10:20].mean() > 20  # the face is at the left edge of the picture
    assert np.abs(last - 90).max(axis=2)[100:150, 40:230].mean() > 20


@pytest.mark.parametrize("format", ["rgb", "jpeg"])
def test_a_video_comes_back_in_another_shape(format: str, server: Child, walk: list[Frame]) -> None:
    answers = list(server.vision.StreamAutoFlip(video(walk, format, aspect_ratio="1:1", lookahead="10")))
    assert [(a.frame_number, a.timestamp_ms) for a in answers] == [(n, 7 * n) for n in range(24)]
    assert {(a.width, a.height, a.format) for a in answers} == {(270, 270, format)}
    assert_the_face_is_followed(answers)


@pytest.mark.parametrize("codec", ["h264", "vp8", "vp9"])
def test_an_encoded_video_comes_back_in_another_shape(codec: str, server: Child, walk: list[Frame]) -> None:
    chunks = encoded(codec, [frame.pixels for frame in walk])
    sent = chunk_messages(codec, chunks, aspect_ratio="1:1", lookahead="10")
    answers = list(server.vision.StreamAutoFlip(sent))
    assert [(a.frame_number, a.timestamp_ms) for a in answers] == [(n, 5000 - n) for n in range(24)]
    assert {(a.width, a.height, a.format) for a in answers} == {(270, 270, "jpeg")}
    assert_the_face_is_followed(answers)


def test_frames_that_a_decoder_holds_back_are_cropped_too(server: Child, walk: list[Frame]) -> None:
    chunks = encoded("h264", [frame.pixels for frame in walk], bf="3", tune="film", preset="medium", gop=24)
    answers = list(server.vision.StreamAutoFlip(chunk_messages("h264", chunks, aspect_ratio="1:1")))
    assert sorted(a.frame_number for a in answers) == list(range(24))


def test_a_clip_with_chunks_missing_says_which(server: Child, walk: list[Frame]) -> None:
    chunks = encoded("vp8", [frame.pixels for frame in walk])
    messages = [each for each in chunk_messages("vp8", chunks, aspect_ratio="1:1") if each.frame_number != 7]
    with fails(INVALID, "frame_number goes from 6 to 8", "keyframe"):
        list(server.vision.StreamAutoFlip(iter(messages)))


def test_options_of_the_shape_are_named(server: Child, walk: list[Frame]) -> None:
    for options, word in (
        ({"aspect_ratio": "wide"}, "aspect_ratio='wide'"), ({"lookahead": "0"}, "lookahead=0"),
        ({"stride": "x"}, "opt.stride='x'"), ({"num_faces": "1"}, "'num_faces' is not an option of auto-flip"),
    ):  # fmt: skip
        with fails(INVALID, word):
            list(server.vision.StreamAutoFlip(video(walk[:2], "rgb", **options)))
    with fails(INVALID, "resize it first"):
        list(server.vision.StreamAutoFlip(video([walk[0], walk[0].resize(100, 100)], "rgb")))
    assert list(server.vision.StreamAutoFlip(iter(()))) == []


def test_a_clips_features_become_labels(server: Child) -> None:
    wave = [0, 0.4, 0.8, 0.6, 0.2, 0]
    frames = (ml.MediaSequenceFrame(frame_number=3 * n, features={"wave": v}) for n, v in enumerate(wave))
    answer = server.vision.ProcessMediaSequence(frames)
    (label,) = answer.labels
    assert (label.label, label.start_frame, label.end_frame) == ("wave", 3, 9)
    assert label.confidence == pytest.approx(0.6)
    assert answer.features["wave"] == pytest.approx(2 / 6)
    assert answer.total_frames == 6


def test_frames_without_features_get_those_of_the_detector(server: Child, photo: Frame) -> None:
    empty = Frame.from_array(np.full((240, 320, 3), 90, np.uint8)).encode("jpeg")
    person = photo.encode("jpeg")
    frames = [ml.MediaSequenceFrame(frame_number=n, frame_data=person if 2 <= n < 7 else empty) for n in range(10)]
    answer = server.vision.ProcessMediaSequence(iter(frames))
    found = next(each for each in answer.labels if each.label == "person")
    assert (found.start_frame, found.end_frame) == (2, 6)
    assert answer.total_frames == 10


def test_clips_that_can_not_be_read_say_why(server: Child) -> None:
    with fails(INVALID, "frame_number=0"):
        server.vision.ProcessMediaSequence(iter([ml.MediaSequenceFrame(features={"x": 1.0})] * 2))
    with fails(INVALID, "finite"):
        server.vision.ProcessMediaSequence(iter([ml.MediaSequenceFrame(features={"x": float("nan")})]))
    with fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "1000 names"):
        many = {str(number): 1.0 for number in range(1001)}
        server.vision.ProcessMediaSequence(iter([ml.MediaSequenceFrame(features=many)]))
    assert server.vision.ProcessMediaSequence(iter(())).total_frames == 0
