"""Masks of what is pointed at: what MediaPipe's own task gives its model and makes of the answer, and what we do."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pointing import pointing

from tabml.cli import main
from tabml.errors import FrameError, ModelClosedError, ModelLoadError, OptionError
from tabml.files import FileRef, MemoryProvider
from tabml.vision import Box, Frame, InteractiveSegmenter, Segmenter, annotate
from tabml.vision._graphs.interactive import InteractiveGraph, marked
from tabml.vision._graphs.masks import enlarged

CHEST, BACKDROP = (0.35, 0.8), (0.9, 0.15)
PEER = """
    import ctypes, json, sys
    import numpy as np
    import mediapipe as mp
    from mediapipe.tasks.python.components.containers.keypoint_c import MpNormalizedKeypointC
    from mediapipe.tasks.python.vision import interactive_segmenter_legacy as legacy

    class Places:
        '''What the C interface takes; the one in Python knows no scribbles.'''
        def __init__(self, points):
            self.points = (MpNormalizedKeypointC * len(points))(*[MpNormalizedKeypointC(x=x, y=y) for x, y in points])
        def to_ctypes(self):
            if len(self.points) == 1:
                return legacy.MpRegionOfInterestC(format=1, keypoint=self.points)
            return legacy.MpRegionOfInterestC(format=2, scribble=self.points, scribble_count=len(self.points))

    answers = {}
    for name, (model, picture, points) in json.load(open(sys.argv[1])).items():
        options = legacy.InteractiveSegmenterLegacyOptions(
            base_options=mp.tasks.BaseOptions(model_asset_buffer=open(model, "rb").read()),
            output_confidence_masks=True, output_category_mask=True,
        )
        with legacy.InteractiveSegmenterLegacy.create_from_options(options) as task:
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.load(picture))
            found = task.segment(image, Places(points))
            masks = [mask.numpy_view().reshape(image.height, image.width) for mask in found.confidence_masks]
            answers[f"{name} confidence"] = np.dstack(masks)
            answers[f"{name} category"] = found.category_mask.numpy_view().reshape(image.height, image.width).copy()
        task._handle = None
    np.savez(sys.argv[2], **answers)
"""


@pytest.fixture(scope="module")
def face(portrait: Path) -> Frame:
    return Frame.from_file(portrait)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "pointing.tflite"
    path.write_bytes(pointing())
    return path


def asked_of_mediapipe(folder: Path, cases: dict[str, tuple[bytes, Frame, list[tuple[float, float]]]]) -> Any:
    """Confidences and category of each case, by MediaPipe's InteractiveSegmenterLegacy in a process of its own."""
    asked = {}
    for number, (name, (content, frame, points)) in enumerate(cases.items()):
        paths = folder / f"{number}.tflite", folder / f"{number}.npy"
        paths[0].write_bytes(content)
        np.save(paths[1], frame.to_rgb())
        asked[name] = (*map(str, paths), points)
    (folder / "cases.json").write_text(json.dumps(asked))
    command = [sys.executable, "-c", textwrap.dedent(PEER), str(folder / "cases.json"), str(folder / "answers.npz")]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    return np.load(folder / "answers.npz")


def test_the_model_is_given_what_mediapipe_gives_it(face: Frame, tmp_path: Path) -> None:
    mirror = {"as it is": pointing(4, activation="none")}
    mirror["around zero"] = pointing(4, activation="none", mean=127.5, deviation=127.5)
    mirror["small"] = pointing(4, activation="none", side=128)
    frames = {
        "portrait": face,
        "strip": face.resize(900, 130),
        "large": face.resize(1920, 1080),
        "tiny": face.resize(40, 60),
    }
    places = {
        "middle": [(0.5, 0.5)], "corner": [(0.0, 0.0)], "far corner": [(0.98, 0.98)], "edge": [(0.985, 0.377)],
        "scribble": [(0.2, 0.25), (0.21, 0.26), (0.7, 0.9), (0.98, 0.5)],
    }  # fmt: skip
    cases = {
        f"{kind}, {size}, {where}": (mirror[kind], frames[size], points)
        for kind in mirror
        for size in (frames if kind == "as it is" else ("portrait",))
        for where, points in places.items()
    }
    answers = asked_of_mediapipe(tmp_path, cases)
    heats = set()
    for name, (content, frame, points) in cases.items():
        graph = InteractiveGraph(content, threads=1)
        native = graph.run(frame.to_rgb(), lambda found: found, points=points)
        graph.close()
        theirs = answers[f"{name} confidence"]
        ours = np.dstack([enlarged(native[:, :, layer], frame.width, frame.height) for layer in range(4)])
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 0.005, name  # of 1, or of 2 around zero: one step of a pixel
        assert np.abs(ours - theirs).mean() < 1e-4, name
        heats.add(round(float(theirs[:, :, 3].sum()), 1))
    assert len(heats) > 15  # the marks were there, and not the same everywhere


@pytest.mark.parametrize(("masks", "activation"), [(1, "sigmoid"), (2, "softmax")])
def test_masks_are_those_of_mediapipe(masks: Any, activation: Any, face: Frame, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(pointing(masks, activation=activation))
    frames = [face, face.resize(1280, 720), face.resize(150, 200)]
    points = [[CHEST], [BACKDROP], [CHEST, (0.3, 0.85), (0.4, 0.85)]]
    cases = {f"{a} {b}": (path.read_bytes(), frames[a], points[b]) for a in range(3) for b in range(3)}
    answers, seen = asked_of_mediapipe(tmp_path, cases), 0
    with InteractiveSegmenter(model=path) as soft, InteractiveSegmenter(model=path, kind="category") as hard:
        for name, (_, frame, where) in cases.items():
            said: Any = {"keypoint": where[0]} if len(where) == 1 else {"scribble": where}
            confidence, category = soft.segment(frame, **said), hard.segment(frame, **said)
            np.testing.assert_allclose(confidence.mask, answers[f"{name} confidence"][:, :, -1], atol=0.02)
            # Of one mask, 0 is the object and 255 the rest. Category masks are enlarged by another rule there, corner on
            # corner, so that they are not the halves of their own confidence masks; ours are.
            theirs = answers[f"{name} category"] == (0 if masks == 1 else 1)
            assert (category.selected() == theirs).mean() > 0.96
            assert (category.selected() == confidence.selected()).mean() > 0.9999
            assert confidence.labels == ("background", "object")
            assert confidence.prompt == tuple(where)
            seen += 0.05 < confidence.coverage < 0.6
    assert seen == 9


def test_the_mask_is_of_what_is_pointed_at(model: Path, face: Frame) -> None:
    def at(mask: NDArray[Any], x: float, y: float) -> float:
        return float(mask[int(y * mask.shape[0]), int(x * mask.shape[1])])

    with InteractiveSegmenter(model=model) as segmenter:
        for place, elsewhere in ((CHEST, BACKDROP), (BACKDROP, CHEST)):
            mask = segmenter.segment(face, keypoint=place).mask
            assert at(mask, *place) > 0.9
            assert at(mask, *elsewhere) < 0.1


def test_a_box_is_pointed_at_in_its_middle_and_cuts_the_mask(model: Path, face: Frame) -> None:
    box = Box(x=0.2, y=0.7, width=0.3, height=0.2)
    with InteractiveSegmenter(model=model) as segmenter, InteractiveSegmenter(model=model, size="model") as small:
        whole = segmenter.segment(face, keypoint=(0.2 + 0.3 / 2, 0.7 + 0.2 / 2)).mask
        boxed = segmenter.segment(face, box=box)
        assert small.segment(face, box=box).mask.shape == (512, 512)
    left, top, right, bottom = box.to_pixels(face.width, face.height)
    np.testing.assert_array_equal(boxed.mask[top:bottom, left:right], whole[top:bottom, left:right])
    outside = boxed.mask.copy()
    outside[top:bottom, left:right] = 0
    assert boxed.mask.any()
    assert not outside.any()
    assert whole.sum() > boxed.mask.sum() * 1.2


@given(
    st.integers(1, 1500), st.integers(1, 1500), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4)
)  # fmt: skip
def test_marks_lie_where_they_are_asked_for(width: int, height: int, points: list[tuple[float, float]]) -> None:
    canvas = marked(width, height, points)
    radius = max(width / 512, height / 512, 1) + 1
    rows, columns = np.nonzero(canvas)
    near = [np.hypot(columns - x * width, rows - y * height) <= radius + 1 for x, y in points]
    assert np.any(near, axis=0).all()
    assert all(canvas[min(round(y * height), height - 1), min(round(x * width), width - 1)] for x, y in points)
    assert set(np.unique(canvas)) <= {0, 255}


def test_the_place_is_drawn_into_the_picture(model: Path, face: Frame) -> None:
    with InteractiveSegmenter(model=model) as segmenter:
        found = segmenter.segment(face, scribble=[CHEST, (0.3, 0.82)])
    drawn = annotate(face, found).pixels.astype(int)
    for x, y in found.prompt:
        red, green, blue = drawn[round(y * face.height), round(x * face.width)]
        assert min(red, green) > 200 > 120 > blue  # yellow
    assert found.to_dict()["prompt"] == [list(place) for place in found.prompt]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "exactly one"), ({"keypoint": (0.5, 0.5), "scribble": [(0.5, 0.5)]}, "exactly one"),
        ({"keypoint": (1.2, 0.5)}, "keypoint="), ({"keypoint": (0.5, float("nan"))}, "keypoint="), ({"keypoint": 3}, "keypoint=3"),
        ({"scribble": [(0.1, 0.1), (0.1, -1)]}, r"scribble\[1\]="), ({"scribble": [(0.5, 0.5)] * 10_001}, "10000"),
        ({"box": (0, 0, 1, 1)}, "box="), ({"box": Box(x=0, y=0, width=0, height=1)}, "box="),
        ({"box": Box(x=0.9, y=0, width=0.9, height=1)}, "the middle of box="),
    ],
)  # fmt: skip
def test_what_is_meant_has_to_be_said_and_in_the_picture(
    said: dict[str, Any], words: str, model: Path, face: Frame
) -> None:
    with InteractiveSegmenter(model=model) as segmenter, pytest.raises(OptionError, match=words):
        segmenter.segment(face, **said)


def test_other_models_are_refused_each_way(model: Path, tmp_path: Path, face: Frame) -> None:
    with pytest.raises(ModelLoadError, match="for those of three there is Segmenter"):
        InteractiveSegmenter(model="selfie_segmenter").load()
    with pytest.raises(ModelLoadError, match="not one picture"):
        Segmenter(model=model).load()
    (tmp_path / "five.tflite").write_bytes(pointing(4, channels=5, activation="none"))
    with pytest.raises(ModelLoadError, match=r"\(1, 512, 512, 5\)"):
        InteractiveSegmenter(model=tmp_path / "five.tflite").load()
    with InteractiveSegmenter(model=model) as segmenter:
        with pytest.raises(FrameError, match="Frame"):
            segmenter.segment(face.pixels, keypoint=CHEST)  # type: ignore[arg-type]
        segmenter.segment(face, keypoint=CHEST)
    with pytest.raises(ModelClosedError):
        segmenter.segment(face, keypoint=CHEST)


def test_a_model_that_is_nowhere_says_so(face: Frame) -> None:
    nowhere = InteractiveSegmenter(model=FileRef("mine", "magic_touch.tflite"), files=MemoryProvider({}))
    with nowhere, pytest.raises(FileNotFoundError, match="magic_touch"):
        nowhere.segment(face, keypoint=CHEST)


def test_the_twin_in_a_thread_answers_the_same(model: Path, face: Frame) -> None:
    with InteractiveSegmenter(model=model) as segmenter:
        found = asyncio.run(segmenter.segment_async(face, keypoint=CHEST))
        np.testing.assert_array_equal(found.mask, segmenter.segment(face, keypoint=CHEST).mask)


def test_the_command_line_points_too(
    model: Path, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    where = ["--at", "0.35,0.8", "--at", "0.3,0.82"]
    assert main(["detect", "mask", *where, "--model", str(model), "--annotate", str(out), str(portrait)]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == [[0.35, 0.8], [0.3, 0.82]]
    assert Frame.from_file(out).width == 512
    for wrong in (["mask", "--at", "0.5"], ["faces", "--at", "0.5,0.5"]):
        assert main(["detect", *wrong, str(portrait)]) == 1
        assert "--at" in capsys.readouterr().err
