"""``tabml bench``: that it measures, shows and writes; never how quick anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.bench import rows, text, vision
from tabml.bench.load import Streamed, parent, transferred
from tabml.bench.rows import Row, medians, table
from tabml.cli import main
from tabml.errors import InferenceError, OptionError, UnavailableHereError

CASES = ("stream", "perplexity", "chats", "talk", "texts", "clients")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    root = tmp_path_factory.mktemp("models")
    tiny.build(tiny.llama_chat, root / "chat")
    tiny.build(tiny.sentence_bert, root / "embed")
    return root


def test_the_command_shows_a_table_and_writes_json_and_a_picture(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    code = main(
        ["bench", "text", "--quick", "--only", ",".join(CASES), "--out", str(tmp_path / "out"),
         "--model", str(models / "chat"), "--embedder", str(models / "embed")]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0
    written = json.loads((tmp_path / "out" / "text.json").read_text())
    headline, *lines = said.out.splitlines()
    assert headline.split()[:4] == ["case", "name", "value", "unit"]
    assert len(lines) == len(written)
    assert all(line.startswith(row["case"]) and row["name"] in line for line, row in zip(lines, written, strict=True))
    assert [f"measuring {case}" for case in CASES] == said.err.splitlines()[: len(CASES)]
    found = [Row(**row) for row in written]
    assert {row.case for row in found} == set(CASES)
    assert all(row.value > 0 for row in found)
    formats = {f"tabml {name}" for name in ("float32", "bfloat16", "float16", "int8", "int4")}
    streams = {row.name: row for row in found if row.case == "stream"}
    assert set(streams) == {"transformers", *formats}
    assert streams["tabml float32"].note == "same text as the peer"
    for row in streams.values():
        assert row.limit_share is not None
    for case, peer in (("stream", "transformers"), ("chats", "transformers"), ("texts", "encode")):
        mine = {row.name: row for row in found if row.case == case}
        for name, row in mine.items():
            assert row.ratio == (pytest.approx(row.value / mine[peer].value) if name != peer else None)
    requests = {row.name: row for row in found if row.case == "clients"}
    for whose in ("encode", "tabml"):
        together, alone = requests[f"{whose} 16 clients"], requests[f"{whose} one at a time"]
        assert together.ratio == pytest.approx(together.value / alone.value)
    perplexities = {row.name: row.value for row in found if row.case == "perplexity"}
    assert set(perplexities) == formats
    with Image.open(tmp_path / "out" / "text.png") as drawn:
        assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_perplexity_is_that_of_transformers(models: Path) -> None:
    import math
    from pydoc_data.topics import topics

    import torch
    import transformers

    effort = text.Effort(text_chars=300)
    with text.Subjects(str(models / "chat")) as subjects:
        (row, *_) = text.perplexity(subjects, effort)
    tokenizer = transformers.AutoTokenizer.from_pretrained(models / "chat")
    model = transformers.AutoModelForCausalLM.from_pretrained(models / "chat").eval()
    ids = tokenizer(" ".join(topics["execmodel"].split())[:300], return_tensors="pt").input_ids
    assert ids.shape[1] <= 256
    with torch.inference_mode():
        assert row.value == pytest.approx(math.exp(float(model(ids, labels=ids).loss)), rel=1e-4)


def test_json_goes_to_stdout(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "text", "--quick", "--json", "--only", "perplexity", "--out", str(tmp_path)]
    assert main([*command, "--model", str(models / "chat")]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "text.json").read_text())


def test_an_unknown_case_names_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "text", "--only", "speed", "--out", str(tmp_path / "out")]) == 1
    assert "stream, binding, lookup, perplexity" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionError, match="only='speed'"):
        text.measure(["speed"])


def test_without_matplotlib_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "find_spec", lambda name: None)
    with pytest.raises(UnavailableHereError, match="pip install matplotlib"):
        rows.written([], tmp_path / "out", "text")
    assert not (tmp_path / "out").exists()
    assert main(["bench", "text", "--only", "speed"]) == 1


def test_the_help_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert ", ".join(text.CASES) in " ".join(capsys.readouterr().out.split())


def test_turns_alternate_and_the_first_is_not_counted() -> None:
    done: list[str] = []
    found = medians({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 2)
    assert done == ["a", "b"] * 3
    assert set(found) == {"a", "b"}


def test_a_table_is_aligned() -> None:
    shown = table(
        [Row(case="c", name="n", value=1.23456, unit="u", ratio=2.0), Row(case="cc", name="m", value=9, unit="u")]
    )
    assert shown.splitlines()[1].split() == ["c", "n", "1.235", "u", "2.00"]
    assert len({line.index("u", 8) for line in shown.splitlines()[1:]}) == 1


def test_memory_counts_files_that_are_only_in_memory(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import time
        from tabml.bench.load import Memory
        from tabml.files import MemoryFile
        memory = Memory()
        file = MemoryFile()
        for _ in range(64):
            file.write(bytes(1 << 20))
        time.sleep(0.2)
        del file
        print(memory.end() >> 20)
    """)
    assert 63 <= int(ended.stdout) < 90, ended.stderr


def test_a_parent_serves_what_bytes_are_taken_from(models: Path) -> None:
    from tabml_grpc.bench import Bare
    from tabml_grpc.parent import ParentFiles

    (models / "model").mkdir()
    (models / "model" / "weights.bin").write_bytes(bytes(range(256)) * 8192)
    with parent(models) as address:
        found = [transferred(files) for files in (Bare(address), ParentFiles(address), Streamed(models))]
    assert [[bytes(file.view()) for file in files] for files in found] == [[bytes(range(256)) * 8192]] * 3


def test_what_the_wire_adds_is_measured_over_a_real_server() -> None:
    from tabml.bench import wire

    found = list(wire.measure(3, 1))
    assert [row.unit for row in found] == ["ms a token"] * 3 + ["ms a reply"] * 3
    assert all("added" in row.note for row in found if row.peer)


def test_a_process_that_fails_is_an_error_of_ours(capfd: pytest.CaptureFixture[str]) -> None:
    from tabml.bench.processes import ended

    with pytest.raises(InferenceError, match="it says why above"):
        ended("json.tool", "/nowhere")
    assert "nowhere" in capfd.readouterr().err


def test_the_bench_is_a_command_of_its_own(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tabml", "bench", "text", "--only", "x"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("tabml: error: only='x' must be one of stream")


def test_vision_is_measured_against_mediapipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures: Callable[[str], Path]
) -> None:
    out, video = tmp_path / "out", pictures("hand_test_video.mp4")
    assert main(["bench", "vision", "--quick", "--json", "--out", str(out), "--video", str(video)]) == 0
    found = [Row(**row) for row in json.loads(capsys.readouterr().out)]
    assert json.loads((out / "vision.json").read_text()) == [row.to_dict() for row in found]
    assert (out / "vision.png").stat().st_size > 10_000
    assert {row.case.partition(",")[0].partition(" as ")[0] for row in found} == set(vision.CASES)
    assert all(row.value > 0 for row in found)
    peers = {row.peer for row in found if row.ratio is not None}
    assert peers >= {
        "mediapipe",
        "mediapipe, three tasks",
        "mediapipe holistic",
        "mediapipe default",
        "tabml, 1 stream",
    }
    assert main(["bench", "vision", "--only", "speed"]) == 1
    assert main(["bench", "text", "--video", str(video)]) == 1
    assert "goes with vision" in capsys.readouterr().err


def test_a_gpu_is_measured_against_the_plain_libraries_on_it(models: Path) -> None:
    """On the CPU, which takes the same path."""
    from tabml.bench import text_gpu

    given = [f"the quick brown fox {number}" for number in range(6)]
    found = list(
        text_gpu.measure(
            models / "chat", models / "embed", "hello world", given, tokens=5, turns=1, device="cpu", batches=(1, 3)
        )
    )
    assert [row.case for row in found] == [
        case
        for size in ("batch 1", "batch 3", "batch 1, drawn", "batch 3, drawn", "1 texts", "3 texts", "6 texts")
        for case in 2 * [f"gpu, {size}"]
    ]
    mine = [row for row in found if row.peer]
    assert [row.unit for row in mine] == 4 * ["tokens/s"] + 3 * ["texts/s"]
    assert all("cosine at least 1.0" in row.note or "0.99" in row.note for row in mine[4:])


def test_no_gpu_is_said_when_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from tabml.bench import text_gpu

    monkeypatch.setattr(text_gpu, "present", lambda: False)
    with pytest.raises(UnavailableHereError, match="torch sees no GPU"):
        text.measure(["gpu"])
