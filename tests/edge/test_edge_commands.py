"""``tabml edge`` as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.bench import edge as bench
from tabml.cli import main
from tabml.cli.samples import read_arrays, read_folder
from tabml.edge import LiteModel, comparison, inspect_model
from tabml.errors import FrameError, ModelFileNotFoundError, OptionError
from tabml.files import load_model

Run = Callable[..., tuple[int, str, str]]
CLASSIFIER = "efficientnet_lite0_float32"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_SECONDS", 0.0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``tabml edge``: its code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["edge", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def folder(pictures: Callable[[str], Path], portrait: Path, astronaut: Path, tmp_path: Path) -> Path:
    """A few pictures."""
    place = tmp_path / "pictures"
    place.mkdir()
    for path in (pictures("ic_test_image.jpg"), portrait, astronaut, astronaut.with_name("chelsea.png")):
        shutil.copy(path, place)
    (place / "README").write_text("not a picture")
    return place


def test_inspect_says_what_is_in_a_file(run: Run) -> None:
    code, out, err = run("inspect", CLASSIFIER)
    assert (code, err) == (0, "")
    assert "  in   images: float32 (1, 224, 224, 3)\n  out  Softmax: float32 (1, 1000)\n" in out
    assert "33 CONV_2D, 16 DEPTHWISE_CONV_2D" in out
    assert "weights    18.52 MB float32" in out
    assert "1000 classes of probability" in out
    assert "tensors" not in out
    assert "tensors\n  images: float32" in run("inspect", CLASSIFIER, "--tensors")[1]
    found = json.loads(run("inspect", CLASSIFIER, "--json")[1])
    assert found["bytes"] == 18582189
    assert found["sha256"].startswith("6c7ab0a6e5dc")
    assert found["signatures"][0]["outputs"][0]["shape"] == [1, 1000]
    assert sum(found["operators"].values()) == 62
    assert len(found["tensors"]) == len(inspect_model(CLASSIFIER).tensors) > 62


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 a picture", b"# tabml"], ids=["empty", "JPEG", "text"])
def test_inspect_says_what_is_no_model(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.tflite").write_bytes(content)
    code, out, err = run("inspect", tmp_path / "model.tflite")
    assert (code, out) == (1, "")
    assert "model.tflite' is neither a .tflite nor a .task file" in err


@pytest.mark.parametrize("command", ["inspect", "benchmark"])
def test_a_language_model_is_told_apart(run: Run, command: str) -> None:
    code, out, err = run(command, Path(__file__).parents[1] / "models/tiny-lm/i8/model.litertlm")
    assert (code, out) == (1, "")
    assert "is a language model: open it with tabml.edge.LiteLM" in err


def test_inspect_names_custom_operators_members_and_quantised_weights(run: Run) -> None:
    assert "1 CUSTOM Convolution2DTransposeBias" in run("inspect", "selfie_segmenter")[1]
    code, out, err = run("inspect", "face_landmarker")
    assert (code, out) == (1, "")
    assert "member=None must be one of 'face_detector.tflite', 'face_landmarks_detector.tflite'" in err
    assert "DEQUANTIZE" in run("inspect", "face_landmarker", "--member", "face_detector.tflite")[1]
    scaled = {each.dtype for each in inspect_model("efficientnet_lite0").tensors if each.scales > 1}
    assert scaled == {"int8", "int32"}


def test_inspect_runs_nothing_and_believes_nothing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    content = bytes(load_model("face_detector"))
    for damaged in (b"", b"text", content[:1000], content[:8] + bytes(200)):
        path.write_bytes(damaged)
        code, out, err = run("inspect", path)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
    os.mkfifo(tmp_path / "fifo.tflite")
    assert run("inspect", tmp_path / "fifo.tflite")[0] == 1
    named = bytearray(content)
    at = named.index(b"\0input\0") + 1
    named[at : at + 2] = b"\x1b["
    path.write_bytes(named)
    assert "\x1b" not in run("inspect", path)[1]


def test_run_takes_arrays_or_a_picture_and_writes_arrays(run: Run, portrait: Path, tmp_path: Path) -> None:
    inputs, out = tmp_path / "in.npz", tmp_path / "out.npz"
    zeros = np.zeros((1, 224, 224, 3), np.float32)
    np.savez(inputs, images=zeros)
    code, said, err = run("run", CLASSIFIER, inputs, "--out", out)
    assert (code, err) == (0, "")
    assert said.startswith("Softmax: float32 (1, 1000), from ")
    with LiteModel(CLASSIFIER) as model, np.load(out) as written:
        np.testing.assert_array_equal(written["Softmax"], model.run(zeros)["Softmax"])
    found = json.loads(run("run", CLASSIFIER, portrait, "--json")[1])
    assert np.argmax(found["outputs"]["Softmax"]) == 652  # military uniform
    assert "is the original itself" in run("run", CLASSIFIER, inputs, "--out", inputs)[2]
    np.savez(inputs, pictures=zeros)
    assert "'pictures' is none" in run("run", CLASSIFIER, inputs)[2]


def test_classify_names_what_is_in_pictures(run: Run, pictures: Callable[[str], Path], portrait: Path) -> None:
    code, out, _ = run("classify", CLASSIFIER, pictures("ic_test_image.jpg"), portrait, "--num", 2)
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [len(each["categories"]) for each in found] == [2, 2]
    assert found[0]["categories"][0]["label"] == "red wine"
    assert found[1]["source"] == str(portrait)


def test_benchmark_measures_beside_a_bare_interpreter(run: Run, tmp_path: Path) -> None:
    code, out, err = run("benchmark", "face_detector", "--runs", 3, "--threads", "1,2", "--out", tmp_path / "out")
    assert code == 0
    lines = [line.split() for line in out.splitlines()[1:]]
    assert [line[2] for line in lines] == ["LiteRT", "tabml"] * 2
    written = json.loads((tmp_path / "out" / "model.json").read_text())
    assert [row["case"] for row in written] == ["1 thread"] * 2 + ["2 threads"] * 2
    assert all(row["value"] > 0 and row["note"].startswith("90 % under") for row in written)
    assert written[1]["ratio"] == pytest.approx(written[1]["value"] / written[0]["value"])
    assert (tmp_path / "out" / "model.png").read_bytes().startswith(b"\x89PNG")
    assert err.count("\n") == 2
    assert "whole numbers" in run("benchmark", "face_detector", "--threads", "one")[2]
    assert "runs=0" in run("benchmark", "face_detector", "--runs", 0)[2]
    (tmp_path / "taken").write_bytes(b"")
    assert "taken' is a file; give a folder" in run("benchmark", "face_detector", "--out", tmp_path / "taken")[2]


def test_the_bare_interpreter_gives_what_tabml_gives() -> None:
    content = bytes(load_model("face_detector"))
    with LiteModel(content, threads=1) as model:
        found = model.run([np.zeros(spec.shape, spec.dtype) for spec in model.inputs])
    for first, second in zip(bench.bare(content, 1)(), found.values(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_quantize_writes_a_model_and_says_what_it_cost(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.tflite"
    code, said, err = run("quantize", CLASSIFIER, out, "--recipe", "int8", "--calibrate", folder)
    assert (code, err) == (0, "")
    assert "18.58 MB" in said
    assert "times smaller" in said
    assert "agreement, 4 samples" in said
    assert "100% of the weights are quantised" in said
    assert inspect_model(out).weights["int8"] > 4_000_000
    found = json.loads(run("quantize", CLASSIFIER, out, "--json", "--evaluate", folder, "--samples", 2)[1])
    assert (found["samples"], found["recipe"], found["out"]) == (2, "int8-dynamic", str(out))
    assert found["smaller"] == pytest.approx(found["bytes_before"] / found["bytes_after"])


def test_quantize_is_judged_by_folders_named_as_classes(run: Run, folder: Path, tmp_path: Path) -> None:
    right = {
        "military uniform": "grace_hopper.jpg",
        "red wine": "ic_test_image.jpg",
        "Egyptian cat": "chelsea.png",
        "tabby": "astronaut.png",
    }
    for label, name in right.items():
        (tmp_path / "judge" / label).mkdir(parents=True)
        shutil.move(folder / name, tmp_path / "judge" / label)
    found = json.loads(run("quantize", CLASSIFIER, tmp_path / "a", "--evaluate", tmp_path / "judge", "--json")[1])
    assert found["measure"] == "yours"
    assert found["accuracy_before"] == 0.75  # the astronaut is no cat
    assert "share right" in run("quantize", CLASSIFIER, tmp_path / "a", "--evaluate", tmp_path / "judge")[1]
    (tmp_path / "judge" / "military uniform").rename(tmp_path / "judge" / "tuxedo cat")
    code, _, err = run("quantize", CLASSIFIER, tmp_path / "b", "--evaluate", tmp_path / "judge")
    assert code == 1
    assert "'tuxedo cat' is named as none of the model's 1000 classes" in err
    assert not (tmp_path / "b").exists()


def test_quantize_writes_nothing_when_it_loses_too_much(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.tflite"
    arguments = ("quantize", "selfie_segmenter", out, "--recipe", "int8", "--calibrate", folder)
    code, said, err = run(*arguments, "--max-drop", "0.001")
    assert (code, said) == (1, "")
    assert "max_drop=0.001: recipe='int8' loses" in err
    assert err.endswith("[accuracy_drop]\n")
    assert not out.exists()
    assert run(*arguments, "--max-drop", "1")[0] == 0


def test_quantize_says_when_it_judged_by_noise(run: Run, tmp_path: Path) -> None:
    code, _, err = run("quantize", "face_detector", tmp_path / "small.tflite")
    assert code == 0
    assert "compared on noise" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "int8"], "needs calibration="),
        (["--calibrate", "nowhere"], "--calibrate 'nowhere' is no folder"),
        (["--evaluate", "EMPTY"], "has no pictures"),
        (["--max-drop", "0.1"], "nothing to be judged on"),
        (["--max-drop", "7", "--evaluate", "FOLDER"], "max_drop=7.0 must be"),
        (["--threads", "0"], "threads=0"),
        (["--member", "x.tflite"], "is no bundle; leave member out"),
        (["--samples", "-1", "--evaluate", "FOLDER"], "--samples=-1 must be"),
    ],
)
def test_quantize_says_what_does_not_go(
    arguments: list[str], words: str, run: Run, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "FOLDER": folder}
    code, said, err = run("quantize", CLASSIFIER, tmp_path / "out", *(places.get(each, each) for each in arguments))
    assert (code, said) == (1, "")
    assert words in err
    assert not (tmp_path / "out").exists()


def test_the_original_is_left_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(load_model("face_detector"))
    code, _, err = run("quantize", path, path)
    assert code == 1
    assert "is the original itself" in err
    assert path.read_bytes() == bytes(load_model("face_detector"))


def test_a_folder_of_arrays_is_read_evenly_and_safely(tmp_path: Path) -> None:
    with LiteModel("face_detector") as model:
        shape = model.inputs[0].shape
        for at in range(9):
            np.savez(tmp_path / f"{at}.npz", input=np.full(shape, at, np.float32))
        found = [sample["input"].max() for sample in read_folder("--calibrate", str(tmp_path), model, 3)]
        assert found == [0, 4, 8]
        (tmp_path / "9.png").write_bytes(b"no picture")
        with pytest.raises(FrameError):
            list(read_folder("--calibrate", str(tmp_path), model, 100))


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input=np.array([Harmful(tmp_path / "never")], object))
    for name, content in (("b.npz", b"text"), ("c.npz", b"PK\x05\x06" + bytes(18))):
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("input.npy", bytes(100))
        bomb.infolist()[0].file_size = 1 << 40
    (tmp_path / "e.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    os.mkfifo(tmp_path / "f.npz")
    for name in "abde":
        with pytest.raises(OptionError):
            read_arrays(tmp_path / f"{name}.npz")
    assert read_arrays(tmp_path / "c.npz") == {}
    with pytest.raises(ModelFileNotFoundError):
        read_arrays(tmp_path / "f.npz")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("name", ["model.pt2", "model.pt", "model.pth", "weights.PKL", "model.ts"])
def test_files_that_run_code_are_not_converted(name: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    code, _, err = run("convert", tmp_path / name, tmp_path / "out.tflite")
    assert code == 1
    assert "runs the code in it" in err
    assert err.endswith("[model_unsafe]\n")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("model.py", "must be FILE.py:FUNCTION"),
        ("model.py:", "must be FILE.py:FUNCTION"),
        ("model.py:a b", "must be FILE.py:FUNCTION"),
        ("none.py:make", "is no file"),
        ("model.py:gone", "has no function 'gone'"),
        ("model.py:wrong", "wrong() gave int"),
    ],
)
def test_convert_says_what_it_takes(
    said: str, words: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text("def wrong():\n    return 3\n")
    code, _, err = run("convert", said, "out.tflite")
    assert code == 1
    assert words in err


def test_a_wrong_command_line_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["edge"], ["edge", "quantize", "a"], ["edge", "quantize", "a", "b", "--recipe", "int3"]):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
    assert "usage: tabml edge" in capsys.readouterr().err
