"""A parent in another language: starts the server, serves its files, uses it, and has it end."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.files import load_model
from tabml.files.catalog import find
from tabml.text import GenerationOptions, TextGenerator
from tabml.vision import FaceDetector, Frame

NODE = Path(__file__).parent / "node"
MODELS = ("face_detector", "face_landmarker", "gesture_recognizer", "hand_landmarker")
ABSENT = "pose_landmarker_full"
MAX_CHUNK = 7 << 19
"""3.5 MiB: what every response stays under, for clients that take 4 MiB."""

Play = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with what parent.js needs installed beside it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(f"{'node' if node is None else 'npm'} is not installed; the parent in another language needs it")
    lock, installed = NODE / "package-lock.json", NODE / "node_modules" / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        ended = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=NODE, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
    return node


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the parent serves: a folder a model."""
    folder = tmp_path_factory.mktemp("served")
    for name in MODELS:
        (folder / name).mkdir()
        (folder / name / find(name).file).write_bytes(load_model(name))
    (folder / "chatter").mkdir()
    import tiny_gguf

    tiny_gguf.write(folder / "chatter" / "model.gguf")
    return folder


@pytest.fixture(scope="session", params=["tabml.v1", "only-ml"])
def files_by(request: pytest.FixtureRequest) -> str:
    """Which service the parent serves its files by."""
    by: str = request.param
    return by


@pytest.fixture(scope="session")
def played(
    files_by: str, node: str, model_files: Path, portrait: Path, tmp_path_factory: pytest.TempPathFactory
) -> Play:
    """What came of a scenario; all are played once."""
    pixels = Frame.from_file(portrait).pixels
    raw = tmp_path_factory.mktemp("raw") / "portrait.ppm"
    raw.write_bytes(b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
    command: list[str | Path] = [node, NODE / "parent.js", sys.executable, model_files, portrait, "--raw", raw]
    if files_by == "only-ml":
        command.append("--only-ml")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    said = {line.pop("scenario"): line for line in map(json.loads, ended.stdout.splitlines())}

    def play(scenario: str) -> dict[str, Any]:
        assert scenario in said, ended.stderr
        result: dict[str, Any] = said[scenario]
        assert "problem" not in result, result["problem"]
        return result

    return play


def error_info(refusal: dict[str, Any]) -> Any:
    """The ErrorInfo of a failed call; its status says the same as the call's own."""
    from google.rpc import error_details_pb2, status_pb2
    from grpc import StatusCode

    assert refusal["details"] is not None, refusal
    status = status_pb2.Status.FromString(base64.b64decode(refusal["details"]))
    assert status.code == StatusCode[refusal["code"]].value[0]
    assert status.message == refusal["message"]
    found = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(found) for detail in status.details)
    assert found.domain == "tabml"
    return found


def test_the_ready_line_is_all_that_stdout_carries(played: Play) -> None:
    start = played("start")
    assert start["ready"]["protocol"] == 1
    assert start["ready"]["pid"] == start["spawned_pid"]
    assert start["ready"]["address"].startswith("127.0.0.1:")
    (line,) = played("end")["stdout"]
    assert line.startswith("TABML/1 READY ")


def test_a_load_tells_its_phases_and_then_the_model(played: Play) -> None:
    load = played("load")
    order = ["LOAD_PHASE_WAITING", "LOAD_PHASE_FETCHING", "LOAD_PHASE_BUILDING", "LOAD_PHASE_DONE"]
    phases = [message["phase"] for message in load["progress"]]
    assert len(phases) > 1
    assert phases == sorted(phases, key=order.index)
    assert phases[-1] == "LOAD_PHASE_DONE"
    size = find("face_detector").size
    done = [message["bytes_done"] for message in load["progress"]]
    assert done == sorted(done)
    assert (done[-1], load["progress"][-1]["bytes_total"]) == (size, size)
    *others, model = load["models"]
    assert others == [None] * len(others)
    assert (model["model_id"], model["pipeline"]) == ("face_detector", "face-detection")
    assert model["weights_bytes"] == model["bytes_fetched"] == size
    assert model["files"] == [find("face_detector").file]
    assert "/ml.MediapipeService/DetectFaces" in model["capabilities"]
    assert not model["already_loaded"]
    assert load["again"]["already_loaded"]


def test_a_load_by_the_old_service_says_success_and_is_listed(played: Play) -> None:
    load = played("load")
    answer = load["hand_landmarker"]
    assert answer["success"]
    assert answer["weights_bytes"] == find("hand_landmarker").size
    loaded = {model["model_id"]: model for model in load["loaded"]}
    assert set(loaded) == {"face_detector", "hand_landmarker"}
    assert loaded["hand_landmarker"]["pipeline_type"] == "hand-landmarks"
    assert all(model["loaded_at"] > 1_700_000_000 for model in loaded.values())


@pytest.mark.parametrize("service", ["missing", "missing_ml"])
def test_a_model_that_the_parent_lacks_is_not_found(service: str, played: Play) -> None:
    refusal = played("load")[service]
    assert refusal["code"] == "NOT_FOUND"
    assert ABSENT in refusal["message"]
    assert "\n" not in refusal["message"]
    assert error_info(refusal).reason


def test_a_picture_has_the_face_that_the_library_finds(played: Play, portrait: Path) -> None:
    (face,) = played("detect")["jpeg"]["faces"]
    with FaceDetector() as detector:
        (expected,) = detector.detect(Frame.from_file(portrait))
    found = [face["confidence"], face["x"], face["y"], face["width"], face["height"]]
    box = expected.box
    np.testing.assert_allclose(found, [expected.score, box.x, box.y, box.width, box.height], rtol=1e-6)
    points = {point["name"]: (point["x"], point["y"]) for point in face["keypoints"]}
    assert len(points) == 6
    np.testing.assert_allclose(points["nose_tip"], expected["nose_tip"], rtol=1e-6)


def test_raw_pixels_and_the_encoded_picture_have_the_same_answer(played: Play) -> None:
    detect = played("detect")
    assert detect["raw"]["faces"] == detect["jpeg"]["faces"]


def test_options_travel_in_the_metadata(played: Play) -> None:
    detect = played("detect")
    assert (detect["echo"]["timestamp_ms"], detect["echo"]["frame_number"]) == (1_700_000_000_000, 7)
    assert detect["strict"]["faces"] == []


@pytest.mark.parametrize(("request_", "word"), [("short", "100"), ("option", "num_hands")])
def test_a_bad_request_is_refused_with_its_reason(request_: str, word: str, played: Play) -> None:
    refusal = played("detect")[request_]
    assert refusal["code"] == "INVALID_ARGUMENT"
    assert word in refusal["message"]
    assert error_info(refusal).reason


@pytest.mark.parametrize(("stream", "frames", "found"), [("faces", 60, 1), ("hands", 5, 0)])
def test_each_frame_of_a_stream_has_its_own_answer(stream: str, frames: int, found: int, played: Play) -> None:
    said = played("stream")
    first = said["first_ms"]
    assert said[stream]["answers"] == [
        {"timestamp_ms": first + 33 * number, "frame_number": number, "found": found, "problem": ""}
        for number in range(frames)
    ]
    assert said[stream]["ended"]


def test_a_cancelled_stream_is_soon_gone(played: Play) -> None:
    cancel = played("cancel")
    assert cancel["landmarks"] == [478, 478, 478]
    assert cancel["before"]["active"] == 1
    assert cancel["ended"] == "CANCELLED"
    assert cancel["after"]["active"] == 0
    # gRPC may tell the server of the end of the frames before it tells of the cancel: then it was a stream that ended.
    assert cancel["after"]["by_code"] in ({"CANCELLED": 1}, {"OK": 1})
    assert cancel["idle_ms"] < 5000


@pytest.mark.parametrize("model", ["face_detector", "hand_landmarker"])
def test_the_server_hands_back_the_files_of_loaded_models(model: str, played: Play, model_files: Path) -> None:
    file = played("get_file")["files"][model]
    content = (model_files / model / find(model).file).read_bytes()
    assert file["received"] == file["served"] == hashlib.sha256(content).hexdigest()
    assert set(file["said"]) <= {file["served"]}
    assert file["offsets"] == [sum(file["lengths"][:number]) for number in range(len(file["lengths"]))]
    assert set(file["total_sizes"]) == {len(content)}
    assert max(file["lengths"]) <= MAX_CHUNK
    assert file["is_last"] == [False] * (len(file["is_last"]) - 1) + [True]


@pytest.mark.parametrize("which", ["other_file", "not_loaded"])
def test_a_file_that_no_loaded_model_holds_is_not_found(which: str, played: Play) -> None:
    refusal = played("get_file")[which]
    assert refusal["code"] == "NOT_FOUND"
    assert error_info(refusal).reason


def test_text_comes_in_pieces_that_join_to_what_the_library_says(played: Play, model_files: Path) -> None:
    said = played("text")
    options = GenerationOptions(temperature=0, max_new_tokens=24)
    with TextGenerator(model_files / "chatter" / "model.gguf") as model:
        whole = model.generate("ab ab", options)
        chat = model.chat([{"role": "user", "content": "ab"}], options)
    assert "".join(said["deltas"]) == said["after"] == whole.text
    assert len(said["deltas"]) > 1
    assert said["last"]["done"]
    assert said["last"]["finish_reason"] == whole.finish_reason
    assert said["last"]["usage"]["completion_tokens"] == whole.usage.completion_tokens
    assert said["chat"] == chat.text
    assert "".join(each["text"] for each in said["old"]) == whole.text
    assert [each["done"] for each in said["old"]].count(True) == 1
    assert said["ended"] == "CANCELLED"
    assert said["schema"]["code"] == "INVALID_ARGUMENT"
    assert error_info(said["schema"]).reason


def test_an_unloaded_model_is_gone_and_the_others_stay(played: Play) -> None:
    unload = played("unload")
    assert unload["answer"]["success"]
    assert unload["again"]["code"] == "FAILED_PRECONDITION"
    assert "hand_landmarker" in unload["after"]
    assert set(unload["before"]) - set(unload["after"]) == {"face_detector"}


def test_a_drained_server_ends_with_0_though_nobody_reads_its_stderr(played: Play) -> None:
    unload = played("unload")
    assert unload["drain"]["active"] <= 1  # Drain itself may count
    assert unload["exit"] == {"code": 0, "signal": None}
    assert unload["exit_ms"] < 10_000


def test_the_parent_is_asked_by_the_service_that_it_has(played: Play, files_by: str) -> None:
    asked = played("end")["asked"]
    methods = {line.split()[0] for line in asked}
    assert methods == ({"ml.GetModelFile"} if files_by == "only-ml" else methods - {"ml.GetModelFile"})
    read = [line for line in asked if not line.startswith("ListFiles") and ABSENT not in line]
    names = [f"{name}/{find(name).file}" for name in MODELS]
    assert sorted(line.split()[1] for line in read) == sorted([*names, "chatter/model.gguf"])
