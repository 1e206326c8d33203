"""Objects: MediaPipe's own answers, other models' shapes, and files that lie."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabml.errors import ModelLoadError, OptionError, TabmlError
from tabml.files import load_model
from tabml.vision import Frame, ObjectDetection, ObjectDetector, annotate
from tabml.vision._graphs.metadata import read_metadata
from tabml.vision._graphs.objects import Boxes, suppressed

Find = Callable[[str], Path]
PICTURES = (
    "coupleanddog.jpeg", "face_testImg.jpeg", "hand_test_image.jpg", "hand_thumb_up.jpg", "pose_test_image.jpg",
    "seg_input_image.jpeg",
)  # fmt: skip
PEER = """
    import json, sys
    import mediapipe as mp
    from tabml.files import load_model
    vision = mp.tasks.vision
    answers = {}
    for threshold in map(float, sys.argv[2].split(",")):
        options = vision.ObjectDetectorOptions(
            base_options=mp.tasks.BaseOptions(model_asset_buffer=bytes(load_model("efficientdet_lite0"))),
            score_threshold=threshold,
        )
        with vision.ObjectDetector.create_from_options(options) as detector:
            for path in sys.argv[3:]:
                found = detector.detect(mp.Image.create_from_file(path)).detections
                answers[f"{threshold} {path}"] = [
                    [d.categories[0].category_name, d.categories[0].score, d.bounding_box.origin_x, d.bounding_box.origin_y,
                     d.bounding_box.width, d.bounding_box.height]
                    for d in found
                ]
    json.dump(answers, open(sys.argv[1], "w"))
"""


def pixels(found: ObjectDetection, frame: Frame) -> tuple[int, int, int, int]:
    """As MediaPipe rounds: left, top, width and height in whole pixels."""
    box = found.box
    return tuple(
        int(value * size + 1e-3)
        for value, size in zip((box.x, box.y, box.width, box.height), (frame.width, frame.height) * 2, strict=True)
    )  # type: ignore[return-value]


def test_objects_are_those_of_mediapipe(pictures: Find, portrait: Path, astronaut: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = []
    for path in (*map(pictures, PICTURES), portrait, astronaut):
        frame = Frame.from_file(path)
        for name, turned in (
            ("as", frame.to_rgb()),
            ("mirrored", frame.to_rgb()[:, ::-1]),
            ("turned", np.rot90(frame.to_rgb())),
        ):
            paths.append(folder / f"{path.stem}-{name}.png")
            Frame.from_array(np.ascontiguousarray(turned)).save(paths[-1])
    answers = tmp_path / "answers.json"
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEER), str(answers), "0.5,0.3", *map(str, paths)],
        check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    theirs = json.loads(answers.read_text())
    assert sum(map(len, theirs.values())) > 70
    ties = 0
    for threshold in (0.5, 0.3):
        with ObjectDetector(score_threshold=threshold) as detector:
            for path in paths:
                frame = Frame.from_file(path)
                ties += same(detector.detect(frame), theirs[f"{threshold} {path}"], frame)
    assert ties < 0.25 * sum(map(len, theirs.values()))


def same(found: Any, expected: list[Any], frame: Frame) -> int:
    """Equal, but for which of two boxes of one score comes first and suppresses the other; gives how many those are."""
    ties = 0
    scores = [round(score, 6) for _, score, *_ in expected]
    assert [round(each.score, 6) for each in found] == scores
    for mine, (label, score, *box) in zip(found, expected, strict=True):
        if abs(np.array(pixels(mine, frame)) - box).max() <= 1 and mine.label == label:
            continue
        near = [each for each in found if overlap(pixels(each, frame), box) > 0.3]
        assert any(round(each.score, 6) == round(score, 6) for each in near), (label, score, box)
        ties += 1
    return ties


def overlap(a: Any, b: Any) -> float:
    sides = [max(0, min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    shared = sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_lists_of_classes_leave_others_out(pictures: Find) -> None:
    frame = Frame.from_file(pictures("coupleanddog.jpeg"))
    with ObjectDetector(score_threshold=0.3) as every, ObjectDetector(category_allowlist=["dog"]) as dogs:
        with ObjectDetector(category_denylist=["person"], score_threshold=0.3) as no_people:
            everything = every.detect(frame)
            assert {each.label for each in everything} == {"person", "dog"}
            assert [each.label for each in dogs.detect(frame)] == ["dog"]
            assert "person" not in {each.label for each in no_people.detect(frame)}
        assert every.labels[0] == "person"
    with ObjectDetector(score_threshold=0.3, max_results=1) as one:
        assert [each.score for each in one.detect(frame)] == [everything[0].score]


def test_boxes_lie_inside_the_picture_and_are_drawn(pictures: Find) -> None:
    frame = Frame.from_file(pictures("coupleanddog.jpeg"))
    with ObjectDetector(score_threshold=0) as detector:
        found = detector.detect(frame)
    assert len(found) > 100
    for each in found:
        assert 0 <= each.box.x <= each.box.x + each.box.width <= 1.000001
        assert 0 <= each.box.y <= each.box.y + each.box.height <= 1.000001
        assert each.score > 0
    assert (annotate(frame, found).pixels != frame.to_rgb()).any()
    assert found.to_dict()["objects"][0]["label"] == "person"
    assert set(found.to_pandas()["label"]) >= {"person", "dog"}


@pytest.mark.parametrize(
    "said",
    [
        {"score_threshold": 1.5}, {"max_results": 0}, {"category_allowlist": "dog"}, {"threads": 0},
        {"category_allowlist": ["dog"], "category_denylist": ["cat"]}, {"min_suppression_threshold": -1},
        {"category_denylist": [1]},
    ],
)  # fmt: skip
def test_options_outside_their_range_are_named(said: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(said))):
        ObjectDetector(**said)


def test_a_class_that_the_model_does_not_have_is_told_with_those_it_has() -> None:
    with pytest.raises(OptionError, match=r"'dgo' is none of the model's classes: person, bicycle"):
        ObjectDetector(category_allowlist=["dgo"]).load()


@pytest.mark.parametrize("name", ["selfie_segmenter", "efficientnet_lite0", "face_detector"])
def test_a_model_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match=r"another kind|metadata"):
        ObjectDetector(model=name).load()


def test_metadata_that_lie_are_told_and_nothing_worse() -> None:
    model = bytes(load_model("efficientdet_lite0"))
    random = np.random.default_rng(0)
    starts = [model.index(b"DETECTOR_METADATA"), model.index(b"TFLITE_METADATA"), model.index(b"V001")]
    refused = 0
    for turn in range(150):
        changed = bytearray(model)
        for _ in range(1 + turn % 8):
            place = int(random.integers(-400, 2000)) + starts[turn % 3]
            changed[place] = int(random.integers(256))
        try:
            read_metadata(bytes(changed))
        except ModelLoadError:
            refused += 1
    assert refused > 10
    for end in (0, 4, 100, len(model) // 2):
        with pytest.raises(ModelLoadError):
            read_metadata(model[:end])


def test_labels_that_are_missing_or_huge_are_refused() -> None:
    model = bytes(load_model("efficientdet_lite0"))
    with pytest.raises(ModelLoadError):
        read_metadata(model[: model.rindex(b"PK\x03\x04")])
    with zipfile.ZipFile(io.BytesIO(model)) as files:
        assert files.namelist() == ["labels.txt"]
    bomb = io.BytesIO(model[: model.rindex(b"PK\x03\x04")])
    bomb.seek(0, io.SEEK_END)
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as files:
        files.writestr("labels.txt", bytes(8 << 20))
    with pytest.raises(ModelLoadError, match="bytes long"):
        read_metadata(bomb.getvalue())


@given(st.integers(0, 10_000), st.integers(0, 60), st.floats(0.05, 0.95))
def test_what_remains_overlaps_nothing_likelier(seed: int, count: int, limit: float) -> None:
    random = np.random.default_rng(seed)
    low = random.random((count, 2), np.float32)
    corners = np.concatenate([low, low + random.random((count, 2), np.float32) * 0.5 + 0.01], axis=1)
    found = Boxes(corners=corners, scores=random.random(count, np.float32) + 0.01, classes=np.zeros(count, np.int64))
    kept = suppressed(found, limit)
    boxes = [(x, y, right - x, bottom - y) for x, y, right, bottom in kept.corners.tolist()]
    assert (np.diff(kept.scores) <= 0).all()
    for at, box in enumerate(boxes):
        assert all(overlap(box, other) <= limit + 1e-4 for other in boxes[:at])
    for (x, y, right, bottom), score in zip(found.corners.tolist(), found.scores.tolist(), strict=True):
        box = (x, y, right - x, bottom - y)
        assert any(
            overlap(box, other) > limit - 1e-4 and score <= best + 1e-6
            for other, best in zip(boxes, kept.scores.tolist(), strict=True)
        )


def test_a_frame_of_one_pixel_is_answered() -> None:
    with ObjectDetector() as detector:
        assert len(detector.detect(Frame.from_array(np.zeros((1, 1, 3), np.uint8)))) == 0
        with pytest.raises(TabmlError):
            detector.detect("picture")  # type: ignore[arg-type]
