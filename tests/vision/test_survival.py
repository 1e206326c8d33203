"""What makes the native library crash, hang, lie or die: each in its own process, which lives on and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

BEFORE = """
    import copy, gc, os, sys, threading, time, warnings
    import numpy as np
    from tabml.cli.demo import portrait
    from tabml.errors import *
    from tabml.vision import *
    from tabml.vision import _mediapipe as door

    good = Frame.from_file(portrait())

    def refused(error, act):
        try:
            act()
        except error as problem:
            assert "\\n" not in str(problem)
        else:
            raise SystemExit(f"not refused: {error}")

    detector, segmenter = FaceDetector(), Segmenter(kind="category")
    assert len(detector.detect(good)) == 1
"""
AFTER = """
    assert len(detector.detect(good)) == 1
    detector.close(); segmenter.close()
    print("alive")
"""

ROWS = {
    "arrays that are not contiguous": """
        flipped = Frame.from_array(good.pixels[:, ::-1])
        twice = Frame.from_array(flipped.pixels[:, ::-1])
        assert np.array_equal(twice.pixels, good.pixels)
        a, b = detector.detect(good)[0], detector.detect(twice)[0]
        assert np.array_equal(a.keypoints, b.keypoints)
        for view in (good.pixels.transpose(1, 0, 2), good.pixels[100:400:2, 50:450:3], good.pixels[::-1]):
            detector.detect(Frame.from_array(view))
        refused(FrameError, lambda: Frame(pixels=good.pixels[::2], format="rgb"))
        task = detector._loaded
        refused(FrameError, lambda: task.run(good.pixels[:, ::-1], lambda _: None))
    """,
    "more or fewer channels": """
        rgba = np.dstack([good.pixels, np.full(good.pixels.shape[:2], 7, np.uint8)])
        assert len(detector.detect(Frame.from_array(rgba))) == 1
        refused(FrameError, lambda: Frame.from_array(np.zeros((9, 9, 5), np.uint8)))
        refused(FrameError, lambda: detector._loaded.run(rgba, lambda _: None))
    """,
    "sixteen bits": """
        assert len(detector.detect(Frame.from_array(good.pixels.astype(np.uint16) << 8))) == 1
        refused(FrameError, lambda: detector._loaded.run(good.pixels.astype(np.uint16), lambda _: None))
    """,
    "pictures that are too large": """
        for shape in ((1, 32767, 3), (32767, 1, 3), (16385, 16, 3)):
            refused(FrameTooLargeError, lambda: detector.detect(Frame.from_array(np.zeros(shape, np.uint8))))
        lots = np.lib.stride_tricks.as_strided(np.zeros(3, np.uint8), (40000, 40000, 3), (0, 0, 1))
        refused(FrameError, lambda: detector._loaded.run(lots, lambda _: None))
        detector.detect(Frame.from_array(np.zeros((1, 16384, 3), np.uint8)))
    """,
    "the smallest pictures": """
        for height, width in ((1, 1), (1, 2), (2, 1), (3, 500), (500, 1)):
            frame = Frame.from_array(np.full((height, width, 3), 128, np.uint8))
            assert segmenter.segment(frame).mask.shape == (height, width)
            for model, verb in ((FaceMesh(), "detect"), (HandTracker(), "track"), (PoseTracker(), "track")):
                with model:
                    assert len(getattr(model, verb)(frame)) == 0
            detector.detect(frame)
    """,
    "copies": """
        other = copy.deepcopy(copy.copy(good))
        assert len(detector.detect(other)) == 1
    """,
    "gray, empty and float frames": """
        detector.detect(Frame.from_array(np.zeros((64, 64), np.uint8)))
        detector.detect(Frame.from_array(np.zeros((64, 64, 3), np.float32)))
        refused(FrameError, lambda: Frame.from_array(np.zeros((0, 4, 3), np.uint8)))
        refused(FrameError, lambda: Frame.from_array(np.full((4, 4), np.nan)))
        refused(FrameError, lambda: detector._loaded.run(np.zeros((0, 4, 3), np.uint8), lambda _: None))
        with PoseTracker() as tracker:
            for kind in (np.uint8, np.float64, bool):
                tracker.track(Frame.from_array(np.zeros((48, 48), kind)))
            assert len(tracker.track(good)) == 1
    """,
    "a graph that died": """
        from tabml.files import load_model
        options = door.FaceDetectorOptions(min_detection_confidence=0.5, min_suppression_threshold=0.3)
        task = door.NativeTask(door.FACE_DETECTOR, options, load_model("face_detector"), video=False)
        real = task._call
        def failing(*arguments):
            task._call = real
            return 13
        task._call = failing
        refused(InferenceError, lambda: task.run(good.pixels, lambda found: None))
        assert task._handle is None
        assert task.run(good.pixels, lambda found: found.detections_count) == 1
        task.close()
    """,
    "a converter that fails": """
        def fail(native): raise ZeroDivisionError
        refused(ZeroDivisionError, lambda: detector._loaded.run(good.pixels, fail))
    """,
    "reference cycles and the garbage collector": """
        for _ in range(5):
            class Keeper: pass
            keeper = Keeper()
            keeper.model = FaceDetector().load()
            keeper.bound = keeper.model.detect
            keeper.model.back = keeper
            keeper.model.detect(good)
            del keeper
            gc.collect()
    """,
    "a stored traceback": """
        try:
            detector.detect("no frame")
        except FrameError as problem:
            kept = problem
        kept.itself = kept
        del kept
        gc.collect()
    """,
    "closing during a call": """
        for _ in range(15):
            model = PoseDetector().load()
            ended = []
            def work():
                try:
                    while True:
                        model.detect(good)
                except ModelClosedError:
                    ended.append(True)
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads: thread.start()
            time.sleep(0.02)
            model.close()
            for thread in threads: thread.join(20)
            assert ended == [True] * 3
    """,
    "a call after close": """
        other = FaceDetector().load()
        task = other._loaded
        other.close()
        refused(ModelClosedError, lambda: other.detect(good))
        refused(ModelClosedError, lambda: task.run(good.pixels, lambda _: None))
    """,
    "answers outlive the model": """
        with Segmenter() as s, FaceMesh() as m:
            mask, mesh = s.segment(good).mask, m.detect(good)[0].landmarks
        before = mask.sum(), mesh.sum()
        del s, m
        gc.collect()
        junk = [np.random.rand(300, 300) for _ in range(50)]
        assert (mask.sum(), mesh.sum()) == before
        refused(IndexError, lambda: mask[10**6, 0])
    """,
    "fork": """
        warnings.simplefilter("ignore")
        child = os.fork()
        if not child:
            code = 1
            try:
                detector.detect(good)
            except ModelForkedError:
                detector.close()
                with FaceDetector() as own:
                    code = 0 if len(own.detect(good)) == 1 else 2
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    """,
    "timestamps": """
        with PoseTracker() as tracker:
            def at(t): return Frame(pixels=good.pixels, format="rgb", timestamp_ms=t)
            for t in (-2**63, -1, 0, 2**63, 2**80):
                assert len(tracker.track(at(t))) == 1
            refused(FrameOrderError, lambda: tracker.track(at(5)))
            assert len(tracker.track(at(2**80 + 1))) == 1
    """,
    "bgr is told from rgb": """
        bgr = np.ascontiguousarray(good.pixels[:, :, ::-1])
        assert np.array_equal(Frame.from_array(bgr, "bgr").to_rgb(), good.pixels)
        assert detector.detect(Frame.from_array(bgr, "bgr")).to_json() == detector.detect(good).to_json()
    """,
    "sizes that change within a stream": """
        with HandTracker() as hands, PoseTracker() as poses, FaceMeshTracker() as mesh:
            for side in (64, 333, 1000, 17, 480):
                frame = good.resize(side, side * 2)
                hands.track(frame), poses.track(frame), mesh.track(frame)
            assert len(poses.track(good)) == 1
    """,
    "many open models": """
        several = [FaceDetector().load() for _ in range(30)]
        assert all(len(model.detect(good)) == 1 for model in several)
        for model in several: model.close()
        deadline = time.monotonic() + 10
        while len(os.listdir("/proc/self/task")) > 20 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(os.listdir("/proc/self/task")) <= 20
    """,
    "leaving without closing": """
        left = [PoseTracker().load(), FaceDetector().load()]
        left[0].track(good)
    """,
}


@pytest.mark.parametrize("row", ROWS)
def test_the_process_lives_and_the_next_good_frame_is_answered(row: str, run_python: Callable[..., Any]) -> None:
    import textwrap

    parts = (BEFORE, ROWS[row], AFTER)
    ended = run_python("\n".join(textwrap.dedent(part) for part in parts), timeout=90)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "alive\n"


GROWTH = """
    import sys
    from tabml.cli.demo import portrait
    from tabml.vision import *

    good = Frame.from_file(portrait())
    kind, times = sys.argv[1], int(sys.argv[2])

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096 / 1e6

    def cycle():
        with FaceDetector() as detector:
            detector.detect(good)

    if kind == "frames":
        tracker = FaceMeshTracker(blendshapes=True, transform=True)
        act = lambda: tracker.track(good)
    else:
        act = cycle
    def least():  # the allocator gives pages back in steps, so one reading says little
        return min([act(), resident()][1] for _ in range(times // 4))

    least()
    first = least()
    for _ in range(times // 2):
        act()
    print(least() - first)
"""


@pytest.mark.parametrize(
    ("kind", "times", "limit"),
    [
        ("frames", 200, 2.0),
        ("cycles", 40, 2.0),
        pytest.param("frames", 2000, 2.0, marks=pytest.mark.soak),
        pytest.param("cycles", 200, 2.0, marks=pytest.mark.soak),
    ],
)
def test_memory_does_not_grow(kind: str, times: int, limit: float, run_python: Callable[..., Any]) -> None:
    # One arena: with several, the allocator alone moves by 3 MB.
    ended = run_python(GROWTH, kind, times, timeout=300, MALLOC_ARENA_MAX="1")
    assert ended.returncode == 0, ended.stderr
    print(f"{times} {kind}: {float(ended.stdout):+.2f} MB")
    assert float(ended.stdout) < limit
