"""Documentation runs: the README, the pages, the example and the notebook."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
HERE = [page for page in PAGES if page.name != "files.md"]  # its blocks run in tests/files


@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_one_after_another(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "docs"}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        exec(compile(block, page.name, "exec"), names)


def test_the_readmes_video_block_runs(pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"^```python notest\n(.*?)^```", PAGES[0].read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (code,) = block
    exec(code.replace('"hands.mp4"', repr(str(pictures("hand_test_video.mp4")))), {"__name__": "docs"})
    assert (tmp_path / "out.mp4").stat().st_size > 10_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page.read_text("utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_commands_of_the_pages_exist() -> None:
    from tabml.cli import _parser

    said = set(re.findall(r"python -m tabml ([a-z]+)", "".join(page.read_text("utf-8") for page in PAGES)))
    assert said >= {"detect", "track", "models", "doctor", "demo"}
    known = re.findall(r"^    ([a-z]+)\b", _parser().format_help(), re.MULTILINE)
    assert said <= set(known)


def test_the_example_runs(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "examples" / "quickstart.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "FaceDetections([FaceDetection(score=0.9" in ended.stdout
    assert (tmp_path / "quickstart.png").is_file()


def test_the_client_example_runs(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "examples" / "grpc_client.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "LOAD_PHASE_DONE 229746" in ended.stdout
    assert "1 faces, 1 people" in ended.stdout
    assert "\n29 1 " in ended.stdout


def test_the_table_of_statuses_is_the_codes() -> None:
    import grpc

    from tabml import errors
    from tabml_grpc import statuses

    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TabmlError)}
    kinds |= set(statuses.STATUSES)
    expected: dict[str, set[str]] = {}
    for kind in kinds - {errors.TabmlError, errors.ModelError}:
        status = statuses.status_of(kind.__new__(kind))
        expected.setdefault(status.name, set()).add(kind.__name__)
    page = (ROOT / "docs" / "grpc.md").read_text("utf-8")
    rows = re.findall(r"^\| ([A-Z_]+) \| (.+) \|$", page, re.MULTILINE)
    assert {status: set(re.findall(r"\w+Error", row)) for status, row in rows} == expected
    assert all(status in grpc.StatusCode.__members__ for status in expected)


def test_every_flag_is_documented() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tabml_grpc", "--help"], capture_output=True, text=True, timeout=30, check=True
    )
    page = (ROOT / "docs" / "grpc.md").read_text("utf-8")
    assert set(re.findall(r"--[a-z][a-z-]+", ended.stdout)) - {"--help"} == set(re.findall(r"--[a-z][a-z-]+", page))


def test_the_shim_is_a_server(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "grpc.md").read_text("utf-8")
    (block,) = re.findall(r"^```python notest\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "ml_server.py").write_text(block)
    command = [sys.executable, str(tmp_path / "ml_server.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith(b"TABML/1 READY ")
        child.terminate()
        assert child.wait(15) == 0


@pytest.mark.parametrize(
    ("name", "pictures", "words"),
    [
        ("quickstart", 4, ""), ("gaze", 1, "cm away"), ("background_blur", 3, ""), ("rep_counter", 1, "5 repetitions"),
        ("webcam", 1, ""),
    ],
)  # fmt: skip
def test_a_notebook_runs_and_draws(name: str, pictures: int, words: str, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nbclient import NotebookClient

        notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
        assert all(not cell.get("outputs") for cell in notebook.cells), "commit the notebook without outputs"
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == pictures
    assert words in "".join(out.get("text", "") for out in outputs)


def test_every_notebook_is_run() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.ipynb")}
    assert names == {"quickstart", "gaze", "background_blur", "rep_counter", "webcam"}
