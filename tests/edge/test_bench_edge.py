"""``tabml bench edge``: that it measures, shows and writes; never how quick anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tabml.bench import edge_lm, edge_models
from tabml.bench.rows import Row
from tabml.cli import main
from tabml.errors import OptionError


def test_the_command_measures_every_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_models, "MODELS", ("face_detector",))
    assert main(["bench", "edge", "--quick", "--json", "--out", str(tmp_path)]) == 0
    found = [Row(**row) for row in json.loads(capsys.readouterr().out)]
    assert json.loads((tmp_path / "edge.json").read_text()) == [row.to_dict() for row in found]
    assert (tmp_path / "edge.png").stat().st_size > 5_000
    assert {row.case.partition(",")[0] for row in found} == {
        "face_detector", "classes", "opencv", "together", "load", "growth",
    }  # fmt: skip
    assert all(row.value > 0 for row in found if row.case != "growth")
    assert {row.peer for row in found if row.ratio is not None} == {
        "LiteRT", "mediapipe", "opencv", "tabml, 1 model", "tabml, known",
    }  # fmt: skip
    for row in found:
        if row.ratio is not None:
            (peer,) = [each for each in found if each.case == row.case and each.name == row.peer]
            assert row.ratio == pytest.approx(row.value / peer.value)


def test_an_unknown_case_names_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "edge", "--only", "speed", "--out", str(tmp_path)]) == 1
    assert "models, classes, opencv" in capsys.readouterr().err
    with pytest.raises(OptionError, match="only='speed'"):
        edge_models.measure(["speed"])
    assert main(["bench", "edge", "--video", "x.mp4", "--out", str(tmp_path)]) == 1
    assert main(["bench", "edge", "--lm", str(tmp_path / "none.litertlm"), "--out", str(tmp_path)]) == 1
    capsys.readouterr()
    lm = str(Path(__file__).parents[1] / "models/tiny-lm/i8/model.litertlm")
    for flags in (["--gguf", lm], ["--folder", str(tmp_path)], ["--threads", "0"], ["--threads", "4096"]):
        assert main(["bench", "edge", "--lm", lm, *flags, "--out", str(tmp_path)]) == 1
        assert f"{flags[0][2:]}=" in capsys.readouterr().err
    assert main(["bench", "edge", "--threads", "1", "--out", str(tmp_path)]) == 1
    assert "--threads goes with --lm" in capsys.readouterr().err
    for name, said in (("README.md", "must be a .litertlm"), ("text.litertlm", "text.litertlm is no .litertlm file")):
        (tmp_path / name).write_text("# tabml")
        assert main(["bench", "edge", "--lm", str(tmp_path / name), "--out", str(tmp_path)]) == 1
        assert said in capsys.readouterr().err


def test_a_language_model_is_measured_beside_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = Path(__file__).parents[1] / "models/tiny-lm/i8/model.litertlm"
    assert main(["bench", "edge", "--lm", str(lm), "--threads", "1", "--quick", "--json", "--out", str(tmp_path)]) == 0
    rows = {(row["case"], row["name"]): row for row in json.loads(capsys.readouterr().out)}
    for name in ("LiteRT-LM benchmark", "LiteRT-LM", "tabml"):
        assert rows["LM, decode", name]["value"] > 0
        assert rows["LM, first", name]["value"] > 0
    assert rows["LM, decode", "tabml"]["peer"] == "LiteRT-LM benchmark"
    assert (tmp_path / "edge.png").is_file()


def test_prompts_that_are_padded_tell_no_speed_of_reading() -> None:
    assert edge_lm._prefill(128, 0.1, 0.2) == {"prefill": pytest.approx(1280)}
    assert edge_lm._prefill(128, 0.1, 0.1001) == edge_lm._prefill(128, 0.1, 0.09) == {}


def test_the_help_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert ", ".join(edge_models.CASES) in " ".join(capsys.readouterr().out.split())
