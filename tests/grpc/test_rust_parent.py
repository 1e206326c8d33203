"""The Rust program of examples/rust-parent, as its reader builds and runs it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabml.files import load_model
from tabml.files.catalog import find

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "rust-parent"
TARGET = ROOT / ".venv" / "rust-target"
CRATES = Path("/usr/share/cargo/registry")
MODEL = "face_detector"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def program() -> Path:
    """The program, built offline from Debian's crates."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    for crate in ("h2-0.3", "prost-0.11", "prost-build-0.11", "tokio-1", "http-0.2", "bytes-1"):
        if not list(CRATES.glob(f"{crate}.*")):
            package = f"librust-{crate.rpartition('-')[0]}-dev"
            pytest.skip(f"the crate {crate} is not in {CRATES}: apt-get install {package}")
    if "PROTOC" not in os.environ and shutil.which("protoc") is None:
        pytest.skip("protoc is not installed: apt-get install protobuf-compiler")
    built = subprocess.run(
        ["cargo", "build", "--release", "--offline", "--target-dir", str(TARGET)],
        cwd=EXAMPLE, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert "warning" not in built.stderr, built.stderr
    return TARGET / "release" / "rust-parent"


@pytest.fixture
def run(program: Path) -> Run:
    """The program with its arguments, ended."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return call


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """FOLDER/<model_id>/<file>."""
    file = tmp_path / "models" / MODEL / find(MODEL).ref.path
    file.parent.mkdir(parents=True)
    file.write_bytes(load_model(MODEL))
    return tmp_path / "models"


def test_the_program_calls_every_service_and_ends_well(run: Run, models: Path, portrait: Path) -> None:
    ended = run(sys.executable, models, portrait)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    *lines, last = ended.stdout.splitlines()
    size = len(load_model(MODEL))
    summary = re.fullmatch(rf"ok: {MODEL} of {size} bytes, faces: 1, (\d+) of 30 frames answered, (\d+) dropped", last)
    assert summary, last
    answered, dropped = map(int, summary.groups())
    assert answered >= 1
    assert answered + dropped == 30
    assert [line.partition(" ")[0] for line in lines if not line.startswith("load:")] == [
        "TABML/1", "health:", "info:", "loaded:", "face:", "analysis:", "stream:", "unloaded:",
    ]  # fmt: skip
    assert _gone(_pid(ended.stdout))


def test_pictures_larger_than_the_flow_control_window_arrive(run: Run, models: Path, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=95)
    assert (tmp_path / "noise.jpg").stat().st_size > 2_000_000
    ended = run(sys.executable, models, tmp_path / "noise.jpg")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "analysis: 1600 x 1200" in ended.stdout


def test_a_failing_call_is_said_and_the_server_goes_with_the_program(run: Run, portrait: Path, tmp_path: Path) -> None:
    ended = run(sys.executable, tmp_path, portrait)
    assert ended.returncode == 1
    assert f"error: NOT_FOUND: {MODEL}" in ended.stderr
    assert "ok:" not in ended.stdout
    assert _gone(_pid(ended.stdout))


def test_a_server_that_does_not_start_is_said(run: Run, models: Path, portrait: Path) -> None:
    ended = run("/bin/echo", models, portrait)
    assert ended.returncode == 1
    assert "instead of being ready" in ended.stderr


CALLER = """
    import hashlib, json, sys
    from pathlib import Path

    import grpc

    from tabml.files import FileRef
    from tabml_grpc.ml import ml_inference_pb2 as ml, ml_inference_pb2_grpc as ml_calls
    from tabml_grpc.parent import ParentFiles
    from tabml_grpc.v1 import files_pb2 as v1, files_pb2_grpc as v1_calls

    def code(call):
        try:
            list(call) if hasattr(call, "__iter__") else call()
        except grpc.RpcError as problem:
            return problem.code().name
        return "OK"

    channel = grpc.insecure_channel(sys.argv[-1])
    v1_files = v1_calls.ModelFileServiceStub(channel)
    ml_files = ml_calls.ModelManagementServiceStub(channel)
    read = lambda path, model="m", **wanted: v1_files.ReadFile(v1.ReadFileRequest(model_id=model, path=path, **wanted))
    get = lambda path, model="m": ml_files.GetModelFile(ml.ModelFileRequest(model_id=model, file_path=path))
    bad = ["../m/small", "a/../../m/small", "/etc/passwd", "..\\\\small", "a//b", "./small", ""]
    files = ParentFiles(sys.argv[-1])
    with files.open(FileRef(repo="m", path="large")) as stream:
        digest = hashlib.sha256(b"".join(stream)).hexdigest()
    old = list(get("large"))
    part = list(read("large", offset=5, length=2_500_000, chunk_bytes=1_000_000))
    answers = {
        "list": [(info.path, info.size) for info in files.list("m")],
        "large": digest,
        "old": hashlib.sha256(b"".join(chunk.data for chunk in old)).hexdigest(),
        "last": [chunk.is_last for chunk in old],
        "part": hashlib.sha256(b"".join(chunk.data for chunk in part)).hexdigest(),
        "offsets": [(chunk.offset, len(chunk.data), chunk.total_size) for chunk in part],
        "empty": [(chunk.data.decode(), chunk.total_size) for chunk in read("a/empty")],
        "nothing": [code(read("none")), code(read("a")), code(get("none")), code(read("small", "none"))],
        "outside": [code(call(path)) for path in bad for call in (read, get)],
        "models": [code(read("small", path)) for path in bad],
        "listed": [code(lambda: v1_files.ListFiles(v1.ListFilesRequest(model_id=path))) for path in (*bad, "none")],
        "range": [code(read("small", offset=-1)), code(read("small", offset=99)), code(read("small", length=-1))],
        "other": code(lambda: ml_files.GetLoadedModels(ml.EmptyRequest())),
    }
    Path(OUT).write_text(json.dumps(answers))
"""


@pytest.fixture
def served(run: Run, tmp_path: Path, portrait: Path) -> tuple[dict[str, Any], bytes]:
    """What a caller of the file server was told, and the content of its large file."""
    large = os.urandom((5 << 20) + 3)
    folder = tmp_path / "served"
    (folder / "m" / "a").mkdir(parents=True)
    for name, content in {"large": large, "small": b"small", "a/empty": b""}.items():
        (folder / "m" / name).write_bytes(content)
    caller, python = tmp_path / "caller.py", tmp_path / "python"
    caller.write_text(textwrap.dedent(CALLER).replace("OUT", repr(str(tmp_path / "out.json"))))
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{caller}" "$@"\n')
    python.chmod(0o755)
    ended = run(python, folder, portrait)  # the caller is started in the server's place
    assert (tmp_path / "out.json").is_file(), ended.stderr
    return json.loads((tmp_path / "out.json").read_text()), large


def test_its_file_server_keeps_to_the_contract(served: tuple[dict[str, Any], bytes]) -> None:
    told, large = served
    assert told["list"] == [["a/empty", 0], ["large", len(large)], ["small", 5]]
    assert told["large"] == told["old"] == _sha256(large)
    assert told["last"] == [False] * 5 + [True]
    assert told["part"] == _sha256(large[5:2_500_005])
    assert told["offsets"] == [
        [5, 1_000_000, len(large)], [1_000_005, 1_000_000, len(large)], [2_000_005, 500_000, len(large)],
    ]  # fmt: skip
    assert told["empty"] == [["", 0]]
    assert set(told["nothing"]) == {"NOT_FOUND"}
    assert set(told["outside"]) == set(told["models"]) == set(told["range"]) == {"INVALID_ARGUMENT"}
    assert told["listed"] == ["INVALID_ARGUMENT"] * 7 + ["NOT_FOUND"]
    assert told["other"] == "UNIMPLEMENTED"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pid(stdout: str) -> int:
    ready = stdout.partition("TABML/1 READY ")[2].partition("\n")[0]
    return int(json.loads(ready)["pid"])


def _gone(pid: int) -> bool:
    """Whether the process ends within seconds; a zombie has ended, and waits for whoever inherited it."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False
