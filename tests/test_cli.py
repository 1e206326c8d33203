"""The command line as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabml.cli import main
from tabml.files import cache_folder, load_model
from tabml.files.catalog import find
from tabml.vision import Frame, read_video

Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command: its code, the JSON lines (or the text) of stdout, and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.parametrize("what", ["faces", "mesh", "irises", "hands", "pose", "holistic", "objects", "mask"])
def test_detect_writes_a_line_of_json_and_a_picture(what: str, run: Run, portrait: Path, tmp_path: Path) -> None:
    code, out, err = run("detect", what, portrait, "--annotate", tmp_path / "out.png")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["source"] == str(portrait)
    assert (found["width"], found["height"]) == (512, 600)
    drawn = Frame.from_file(tmp_path / "out.png")
    changed = (drawn.pixels != Frame.from_file(portrait).pixels).any()
    assert changed == (what != "hands")


def test_several_pictures_go_on_after_a_bad_one(run: Run, portrait: Path, astronaut: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    code, out, err = run("detect", "faces", portrait, bad, tmp_path / "none.jpg", astronaut, "--annotate", tmp_path)
    assert code == 1
    assert [len(json.loads(line)["faces"]) for line in out.splitlines()] == [1, 1]
    assert len(err.splitlines()) == 2
    assert "[frame_invalid]" in err
    assert (tmp_path / "grace_hopper.png").is_file()
    assert (tmp_path / "astronaut.png").is_file()


def test_track_writes_a_line_a_frame_and_a_video(run: Run, pictures: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "track", "hands", pictures("hand_test_video.mp4"), "--annotate", tmp_path / "out.mp4", "--num", 1
    )
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 202
    assert sum(len(line["hands"]) for line in lines) >= 200
    assert [line["frame_number"] for line in lines] == list(range(202))
    with read_video(tmp_path / "out.mp4") as video:
        assert sum(1 for _ in video) == 202


@pytest.mark.parametrize("what", ["faces", "mesh", "irises", "pose", "holistic", "objects", "mask"])
def test_track_knows_every_model(what: str, run: Run, portrait: Path, tmp_path: Path) -> None:
    from tabml.vision import VideoWriter

    with VideoWriter(tmp_path / "still.mp4") as video:
        for _ in range(3):
            video.write(Frame.from_file(portrait))
    code, out, _ = run("track", what, tmp_path / "still.mp4")
    assert code == 0
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num", "0"], "num_faces=0"),
        (["--min-confidence", "2"], "min_detection_confidence=2.0"),
        (["--model", "face_landmarkr"], "did you mean"),
        (["--model", "no/such.task"], "no/such.task"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], words: str, run: Run, portrait: Path) -> None:
    code, out, err = run("detect", "mesh", portrait, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("tabml: error: ")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("what", "option"),
    [
        ("faces", "--num=1"),
        ("objects", "--num=1"),
        ("holistic", "--num=1"),
        ("mask", "--num=1"),
        ("mask", "--min-confidence=1"),
        ("pose", "--range=full"),
    ],
)
def test_options_that_do_not_go_together_say_so(what: str, option: str, run: Run, portrait: Path) -> None:
    code, _, err = run("detect", what, portrait, option)
    assert code == 1
    assert "does not go with" in err


def test_options_reach_the_model(run: Run, pictures: Run) -> None:
    picture = pictures("pose_test_image.jpg")
    assert json.loads(run("detect", "mesh", picture)[1])["meshes"] == []
    assert len(json.loads(run("detect", "mesh", picture, "--range", "full")[1])["meshes"]) == 1
    assert len(json.loads(run("detect", "pose", pictures("coupleanddog.jpeg"), "--num", 2)[1])["poses"]) == 2
    assert json.loads(run("detect", "faces", picture, "--min-confidence", 0.99)[1])["faces"] == []


@pytest.fixture
def clip(portrait: Path, tmp_path: Path) -> Path:
    """Three frames of a person."""
    from tabml.vision import VideoWriter

    path = tmp_path / "still.mp4"
    with VideoWriter(path) as video:
        for _ in range(3):
            video.write(Frame.from_file(portrait))
    return path


def test_effects_change_what_is_behind_people(run: Run, portrait: Path, astronaut: Path, clip: Path) -> None:
    folder, original = clip.parent, Frame.from_file(portrait).to_rgb().astype(int)
    for what, *more in (["blur", "--strength", 0.05], ["replace", "--background", "navy"], ["replace"]):
        assert run("effect", what, portrait, folder / "out.png", *more) == (0, "", "")
        changed = abs(Frame.from_file(folder / "out.png").to_rgb() - original).mean(axis=2)
        assert changed[200:400, 200:300].mean() < 3 < changed[:40].mean()
    assert run("effect", "replace", portrait, folder / "out.png", "--background", astronaut)[0] == 0
    assert run("effect", "cutout", portrait, folder / "out.png")[0] == 0
    cut = Frame.from_file(folder / "out.png")
    assert cut.format == "rgba"
    assert cut.pixels[:40, :40, 3].max() < 30 < 250 < cut.pixels[300, 250, 3]


def test_effects_change_videos_before_videos(run: Run, clip: Path) -> None:
    out = clip.parent / "out.mp4"
    for more in (["blur"], ["replace", "--background", clip]):
        assert run("effect", more[0], clip, out, *more[1:])[0] == 0
        with read_video(out) as video:
            assert sum(1 for _ in video) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["blur", "PICTURE", "out.png", "--background", "red"], "--background goes with replace"),
        (["replace", "PICTURE", "out.png", "--background", "reddd"], "neither a file nor a colour"),
        (["blur", "PICTURE", "out.png", "--strength", "3"], "strength=3.0"),
        (["replace", "PICTURE", "out.png", "--strength", "0.1"], "--strength goes with blur"),
        (["cutout", "CLIP", "out.mp4"], "use replace instead"),
        (["blur", "none.jpg", "out.png"], "none.jpg"),
        (["blur", "PICTURE", "out.xyz"], "out.xyz"),
    ],
)
def test_effects_say_what_does_not_go(arguments: list[str], words: str, run: Run, portrait: Path, clip: Path) -> None:
    places = {"PICTURE": portrait, "CLIP": clip}
    code, _, err = run("effect", *(places.get(each, each) for each in arguments))
    assert code == 1
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["detect"], ["detect", "cats", "x.jpg"], ["models"], ["--nonsense"]])
def test_a_wrong_command_line_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: tabml" in capsys.readouterr().err


def test_models_can_be_listed_and_checked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model("face_detector")
    blob = cache_folder() / "blobs" / find("face_detector").sha256
    monkeypatch.setenv("TABML_HOME", str(tmp_path))
    (tmp_path / "blobs").mkdir()
    assert run("models", "where")[1].strip() == str(tmp_path)
    rows = [json.loads(line) for line in run("models", "list", "--json")[1].splitlines()]
    assert {row["name"] for row in rows} >= {"face_detector", "pose_landmarker_full", "holistic_landmarker"}
    assert not any(row["here"] for row in rows)
    shutil.copy(blob, tmp_path / "blobs")
    assert "face_detector                here" in run("models", "list")[1]
    assert run("models", "verify")[:2] == (0, "face_detector                good\n")
    (tmp_path / "blobs" / blob.name).write_bytes(b"spoilt")
    code, out, _ = run("models", "verify")
    assert code == 1
    assert "models pull face_detector" in out


def test_pull_says_what_was_here_and_what_can_not_be_had(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model("face_detector")
    monkeypatch.setenv("TABML_SOURCES", "")
    code, out, err = run("models", "pull", "face_detector", "pose_landmarker_lite")
    assert (code, out) == (1, "")
    assert "face_detector: 229746 bytes, was here" in err
    assert "pose_landmarker_lite" in err
    assert run("models", "pull", "nonsense")[0] == 1


def test_the_doctor_names_what_is_missing_and_what_mends_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("doctor")[0] == 0
    monkeypatch.setenv("TABML_HOME", str(tmp_path))
    found = json.loads(run("doctor", "--json")[1])
    assert found["extras"]["vision"]["mediapipe"].startswith("1.2")
    assert any(problem["run"] == "python -m tabml models pull" for problem in found["mend"])

    from tabml.cli import doctor

    real = doctor.version_of
    two = {"opencv-python": "4.11", "opencv-contrib-python": "5.0", "av": None}
    monkeypatch.setattr(doctor, "version_of", lambda name: two[name] if name in two else real(name))
    code, out, _ = run("doctor")
    assert code == 1
    assert "pip install 'tabml[vision]'" in out
    assert "pip uninstall -y opencv-python" in out


def test_the_doctor_names_the_vector_instructions_that_matter(run: Run) -> None:
    from tabml.cli.doctor import vectors

    said = "processor\t: 0\nflags\t\t: fpu avx avx2 avx512f avx512_vnni avx512_bf16x\n\nprocessor\t: 1\nflags\t\t: amx_bf16\n"
    assert vectors(said) == ["avx2", "avx512f", "avx512_vnni"]
    assert vectors("Features\t: fp asimd") == []
    assert "vector instructions: " in run("doctor")[1]


def test_the_demo_writes_a_picture_and_json(run: Run, tmp_path: Path) -> None:
    code, out, err = run("demo", "--out", tmp_path)
    assert code == 0
    written = [Path(line.partition(": ")[2]) for line in out.splitlines()]
    assert [path.suffix for path in written] == [".png", ".json"]
    results = json.loads(written[1].read_text())
    assert {name: len(results[name].get(key, "x")) for name, key in (("faces", "faces"), ("pose", "poses"))} == {
        "faces": 1, "pose": 1,
    }  # fmt: skip
    assert "load ms" in err
    assert Frame.from_file(written[0]).width == 512


def shell(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def test_a_reader_that_leaves_is_no_error(portrait: Path) -> None:
    command = f"{sys.executable} -m tabml detect mesh {portrait} {portrait} {portrait} | head -c 10"
    ended = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_traceback_is_shown_when_asked_for(tmp_path: Path) -> None:
    quiet = shell("tabml", "detect", "faces", tmp_path / "none.jpg")
    assert quiet.returncode == 1
    assert quiet.stderr.count("\n") == 1
    loud = shell("tabml", "detect", "faces", tmp_path / "none.jpg", env={**os.environ, "TABML_DEBUG": "1"})
    assert "Traceback" in loud.stderr


def test_the_version_is_the_projects() -> None:
    from importlib import metadata

    assert shell("tabml", "--version").stdout.strip() == f"tabml {metadata.version('tabml')}"
