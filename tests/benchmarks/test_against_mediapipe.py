"""tabml against plain MediaPipe Tasks: same models, same mode, same pictures, turn by turn in one run.

``make bench`` prints the ratios of the medians; under 1 tabml is faster.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tabml.files import load_model
from tabml.vision import (
    FaceDetector,
    FaceMesh,
    FaceMeshTracker,
    Frame,
    HandDetector,
    HandTracker,
    PoseDetector,
    PoseTracker,
    Segmenter,
    read_video,
)

ROUNDS = 150


@pytest.fixture(scope="module")
def mp() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mediapipe

    return mediapipe


def options_of(mp: Any, name: str, model: str, video: bool, **more: Any) -> Any:
    """A peer task, opened."""
    vision = mp.tasks.vision
    mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
    base = mp.tasks.BaseOptions(model_asset_buffer=load_model(model))
    options = getattr(vision, f"{name}Options")(base_options=base, running_mode=mode, **more)
    return getattr(vision, name).create_from_options(options)


CASES: dict[str, tuple[Any, str, str, str, bool, dict[str, Any]]] = {
    "faces": (FaceDetector, "FaceDetector", "face_detector", "portrait", False, {}),
    "mesh": (
        lambda: FaceMesh(blendshapes=True, transform=True), "FaceLandmarker", "face_landmarker", "portrait", False,
        {"output_face_blendshapes": True, "output_facial_transformation_matrixes": True},
    ),
    "mesh tracked": (
        lambda: FaceMeshTracker(blendshapes=True, transform=True), "FaceLandmarker", "face_landmarker", "portrait",
        True, {"output_face_blendshapes": True, "output_facial_transformation_matrixes": True},
    ),
    "hands": (
        lambda: HandDetector(num_hands=1, gestures=False), "HandLandmarker", "hand_landmarker", "hands", False, {},
    ),
    "hands tracked": (
        lambda: HandTracker(num_hands=1, gestures=False), "HandLandmarker", "hand_landmarker", "hands", True, {},
    ),
    "gestures tracked": (
        lambda: HandTracker(num_hands=1), "GestureRecognizer", "gesture_recognizer", "hands", True, {},
    ),
    "pose": (PoseDetector, "PoseLandmarker", "pose_landmarker_full", "portrait", False, {}),
    "pose tracked": (PoseTracker, "PoseLandmarker", "pose_landmarker_full", "portrait", True, {}),
    "person mask": (
        Segmenter, "ImageSegmenter", "selfie_segmenter", "portrait", False, {"output_confidence_masks": True},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def frames(portrait: Path, pictures: Callable[[str], Path]) -> dict[str, list[Frame]]:
    """VGA frames: a portrait, and a moving hand."""
    face = Frame.from_file(portrait).resize(640, 480)
    hands = [frame.resize(640, 480) for frame in read_video(pictures("hand_test_video.mp4"))]
    return {"portrait": [face], "hands": hands}


@pytest.mark.parametrize("case", CASES)
def test_one_frame(case: str, mp: Any, frames: dict[str, list[Frame]], benchmark: Any) -> None:
    ours_class, name, model, source, video, more = CASES[case]
    pixels = [frame.pixels for frame in frames[source]]
    with ExitStack() as stack:
        ours = stack.enter_context(ours_class())
        theirs = stack.enter_context(options_of(mp, name, model, video, **more))
        verb = "track" if video else "segment" if case == "person mask" else "detect"
        call = getattr(ours, verb)
        peer_verb = {"GestureRecognizer": "recognize", "ImageSegmenter": "segment"}.get(name, "detect")
        peer_call = getattr(theirs, f"{peer_verb}_for_video" if video else peer_verb)
        turn, peer_times = 0, []

        def peer() -> None:
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=pixels[turn % len(pixels)])
            found = peer_call(image, turn * 33) if video else peer_call(image)
            if case == "person mask":
                found.confidence_masks[0].numpy_view().copy()

        def mine() -> None:
            call(Frame(pixels=pixels[turn % len(pixels)], format="rgb", timestamp_ms=turn * 33))

        def before() -> None:
            nonlocal turn
            turn += 1
            begin = time.perf_counter()
            peer()
            peer_times.append(time.perf_counter() - begin)

        benchmark.pedantic(mine, setup=before, rounds=ROUNDS, warmup_rounds=10)
    report(case, benchmark, peer_times[-ROUNDS:])


def report(case: str, benchmark: Any, peer_times: list[float]) -> None:
    """Print the ratio, and keep it with the benchmark."""
    if benchmark.stats is None:  # skipped by --benchmark-skip or disabled
        return
    mine, peer = benchmark.stats.stats.median * 1000, statistics.median(peer_times) * 1000
    benchmark.extra_info.update(peer_ms=peer, ratio=mine / peer)
    print(f"\n{case:18} tabml {mine:7.2f} ms   mediapipe {peer:7.2f} ms   ratio {mine / peer:.3f}")


OURS = """
import sys
from tabml.vision import FaceDetector, Frame
with FaceDetector() as detector:
    assert len(detector.detect(Frame.from_file(sys.argv[1]))) == 1
"""
THEIRS = """
import sys
import mediapipe as mp
from pathlib import Path
from tabml.files import cache_folder
from tabml.files.catalog import find
vision = mp.tasks.vision
model = cache_folder() / "blobs" / find("face_detector").sha256
options = vision.FaceDetectorOptions(base_options=mp.tasks.BaseOptions(model_asset_path=str(model)))
with vision.FaceDetector.create_from_options(options) as detector:
    assert len(detector.detect(mp.Image.create_from_file(sys.argv[1])).detections) == 1
"""


@pytest.mark.parametrize(
    ("what", "mine", "peer"),
    [
        ("first face, cold", ["-c", OURS], ["-c", THEIRS]),
        ("import tabml", ["-c", "import tabml"], ["-c", "import numpy"]),
        ("tabml --help", ["-m", "tabml", "--help"], ["-c", "import numpy"]),
    ],
)
def test_a_cold_process(what: str, mine: list[str], peer: list[str], portrait: Path, benchmark: Any) -> None:
    load_model("face_detector")
    peer_times: list[float] = []
    bare: list[float] = []

    def run(arguments: list[str]) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments, str(portrait)], check=True, capture_output=True)
        return time.perf_counter() - begin

    def before() -> None:
        bare.append(run(["-c", "pass"]))
        peer_times.append(run(peer))

    benchmark.pedantic(lambda: run(mine), setup=before, rounds=11, warmup_rounds=1)
    report(what, benchmark, peer_times)
    if benchmark.stats is not None:
        own = (benchmark.stats.stats.median - statistics.median(bare)) * 1000
        print(f"{'':18} above a bare interpreter: {own:.0f} ms")
