"""Vision against plain MediaPipe Tasks: the same models on the same frames, block by block in one run."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tabml.bench import mediapipe_peer as peer
from tabml.bench.rows import Row, Say, chosen
from tabml.vision import (
    FaceDetector,
    FaceMesh,
    FaceMeshTracker,
    Frame,
    HandDetector,
    HandTracker,
    HolisticTracker,
    ObjectDetector,
    PoseDetector,
    Segmenter,
    read_video,
)
from tabml.vision._model import thread_count
from tabml.vision.effects import MaskSmoother, blur_background

_BLOCK = 20
_TURNS = 5
_PAUSE_S = 0.05  # MediaPipe's threads go on for a moment after an answer
_VGA, _FULL_HD = (640, 480), (1920, 1080)
Work = Callable[[Frame], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What is looked at."""

    still: Frame
    """A person, VGA."""
    large: Frame
    """The same, 1920 by 1080."""
    moving: Sequence[Frame]
    """The person, beside the video where there is one; VGA."""
    frames: int
    """How many are measured of each."""


def subjects(video: Path | None, frames: int) -> Subjects:
    """The demo's photograph, moving; the right half is the video's."""
    photo = Frame.from_file(_portrait())
    still = photo.resize(*_VGA)
    half = photo.resize(320, 480).to_rgb()
    shifted = [np.roll(half, number % 7, axis=1) for number in range(frames)]
    if video is None:
        pixels = [np.hstack([each, np.full_like(each, 90)]) for each in shifted]
    else:
        with read_video(video) as reader:
            beside = [frame.resize(320, 480).to_rgb() for frame, _ in zip(reader, range(frames), strict=False)]
        pixels = [np.hstack([each, beside[at % len(beside)]]) for at, each in enumerate(shifted)]
    moving = [Frame.from_array(np.ascontiguousarray(each)) for each in pixels]
    return Subjects(still=still, large=photo.resize(*_FULL_HD), moving=moving, frames=frames)


def _portrait() -> Path:
    """One face, upper body: comes with matplotlib, which draws the picture."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def by_blocks(works: Mapping[str, Work], frames: Sequence[Frame]) -> dict[str, float]:
    """Milliseconds of each work a frame: a block of frames each in turn, the first not counted; the median of their medians."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        for name, work in works.items():
            taken = []
            for frame in block:
                began = time.perf_counter()
                work(frame)
                taken.append((time.perf_counter() - began) * 1000)
            times[name].append(statistics.median(taken))
            time.sleep(_PAUSE_S)
    return {name: statistics.median(found[1:] or found) for name, found in times.items()}


def _compared(case: str, times: Mapping[str, float], against: Mapping[str, str], note: str = "") -> Iterator[Row]:
    """Rows of times; the ratio is how many times as quick as the peer tabml is."""
    for name, value in times.items():
        other = against.get(name, "")
        ratio = times[other] / value if other else None
        yield Row(
            case=case, name=name, value=value, unit="ms a frame", peer=other, ratio=ratio, note=note if other else ""
        )


def objects(subject: Subjects) -> Iterator[Row]:
    """EfficientDet-Lite0 at one threshold, and both at their defaults."""
    with ExitStack() as stack:
        ours = [stack.enter_context(ObjectDetector(score_threshold=0.4)), stack.enter_context(ObjectDetector())]
        theirs = [
            stack.enter_context(peer.task("ObjectDetector", "efficientdet_lite0", score_threshold=0.4)),
            stack.enter_context(peer.task("ObjectDetector", "efficientdet_lite0")),
        ]
        works: dict[str, Work] = {
            "mediapipe 0.4": lambda frame: theirs[0].detect(peer.image(frame)),
            "tabml 0.4": ours[0].detect,
            "mediapipe default": lambda frame: theirs[1].detect(peer.image(frame)),
            "tabml default": ours[1].detect,
        }
        times = by_blocks(works, subject.moving)
    against = {"tabml 0.4": "mediapipe 0.4", "tabml default": "mediapipe default"}
    yield from _compared("objects", times, against, "the same weights")


def together(subject: Subjects) -> Iterator[Row]:
    """Face, hands and body on every frame."""
    with ExitStack() as stack:
        three = [
            stack.enter_context(peer.task("FaceLandmarker", "face_landmarker", video=True)),
            stack.enter_context(peer.task("HandLandmarker", "hand_landmarker", video=True, num_hands=2)),
            stack.enter_context(peer.task("PoseLandmarker", "pose_landmarker_full", video=True)),
        ]
        whole = stack.enter_context(peer.task("HolisticLandmarker", "holistic_landmarker", video=True))
        ours = stack.enter_context(HolisticTracker())
        works: dict[str, Work] = {
            "mediapipe, three tasks": peer.one_by_one(*three),
            "mediapipe holistic": peer.one_by_one(whole),
            "tabml": ours.track,
        }
        times = by_blocks(works, subject.moving)
    yield from _compared("together", times, {"tabml": "mediapipe, three tasks"}, "the same landmarks")
    ratio = times["mediapipe holistic"] / times["tabml"]
    yield Row(
        case="together", name="tabml", value=times["tabml"], unit="ms a frame", peer="mediapipe holistic", ratio=ratio
    )


def hands(subject: Subjects) -> Iterator[Row]:
    """Up to two hands in a video."""
    with ExitStack() as stack:
        theirs = stack.enter_context(peer.task("HandLandmarker", "hand_landmarker", video=True, num_hands=2))
        ours = stack.enter_context(HandTracker(num_hands=2, gestures=False))
        times = by_blocks({"mediapipe": peer.one_by_one(theirs), "tabml": ours.track}, subject.moving)
    yield from _compared("hands", times, {"tabml": "mediapipe"}, "num_hands=2")


def masks(subject: Subjects) -> Iterator[Row]:
    """Masks of a frame of 1920 by 1080."""
    for model in ("selfie_segmenter", "deeplab_v3"):
        with ExitStack() as stack:
            works: dict[str, Work] = {}
            for kind in ("confidence", "category"):
                wanted = {
                    f"output_{each}_mask{'s' if each == 'confidence' else ''}": each == kind
                    for each in ("confidence", "category")
                }
                task = stack.enter_context(peer.task("ImageSegmenter", model, **wanted))
                works[f"mediapipe {kind}"] = _mask_of(task, kind)
                ours = stack.enter_context(Segmenter(model=model, kind=kind))
                works[f"tabml {kind}"] = ours.segment
            small = stack.enter_context(Segmenter(model=model, size="model"))
            works["tabml confidence, the model's size"] = small.segment
            times = by_blocks(works, [subject.large] * (subject.frames // 2))
        against = {f"tabml {kind}": f"mediapipe {kind}" for kind in ("confidence", "category")}
        against["tabml confidence, the model's size"] = "mediapipe confidence"
        yield from _compared(f"masks, {model}", times, against)


def _mask_of(task: Any, kind: str) -> Work:
    def run(frame: Frame) -> Any:
        found = task.segment(peer.image(frame))
        mask = found.category_mask if kind == "category" else found.confidence_masks[0]
        return mask.numpy_view().copy()

    return run


def effects(subject: Subjects) -> Iterator[Row]:
    """A person mask, steadied, and a blurred background; one thread."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with Segmenter(size="model", threads=1) as segmenter:
            smoother = MaskSmoother()
            times = by_blocks(
                {"tabml": lambda frame: blur_background(frame, smoother.smooth(segmenter.segment(frame)))},
                subject.moving,
            )
    finally:
        cv2.setNumThreads(before)
    yield Row(case="effects", name="tabml", value=1000 / times["tabml"], unit="frames a second", note="one core, VGA")


def single(subject: Subjects) -> Iterator[Row]:
    """Single pictures, the whole machine for one caller."""
    kinds: tuple[tuple[str, Any, str, str], ...] = (
        ("faces", FaceDetector, "FaceDetector", "face_detector"),
        ("mesh", FaceMesh, "FaceLandmarker", "face_landmarker"),
        ("hands", lambda: HandDetector(num_hands=1, gestures=False), "HandLandmarker", "hand_landmarker"),
        ("pose", PoseDetector, "PoseLandmarker", "pose_landmarker_full"),
    )
    for case, ours_class, name, model in kinds:
        with ExitStack() as stack:
            ours, theirs = stack.enter_context(ours_class()), stack.enter_context(peer.task(name, model))
            works: dict[str, Work] = {"mediapipe": _detect(theirs), "tabml": ours.detect}
            yield from _compared(f"single, {case}", by_blocks(works, subject.moving), {"tabml": "mediapipe"})


def _detect(task: Any) -> Work:
    return lambda frame: task.detect(peer.image(frame))


def results(subject: Subjects) -> Iterator[Row]:
    """A mesh with blendshapes and matrix as arrays, and as JSON, after the model has answered."""
    from tabml.vision.faces import mesh_of

    options = {"output_face_blendshapes": True, "output_facial_transformation_matrixes": True}
    with ExitStack() as stack:
        theirs = stack.enter_context(peer.task("FaceLandmarker", "face_landmarker", **options))
        ours = stack.enter_context(FaceMesh(blendshapes=True, transform=True))
        found, mine = theirs.detect(peer.image(subject.still)), ours.detect(subject.still)
        native = ours._ready().run(subject.still.to_rgb(), list)
        frames = [subject.still] * max(100, subject.frames)
        arrays = by_blocks(
            {"mediapipe": lambda _: peer.as_arrays(found), "tabml": lambda _: [mesh_of(each) for each in native]},
            frames,
        )
        texts = by_blocks({"mediapipe": lambda _: peer.as_json(found), "tabml": lambda _: mine.to_json()}, frames)
    yield from _compared("results as numpy", arrays, {"tabml": "mediapipe"})
    yield from _compared("results as JSON", texts, {"tabml": "mediapipe"})


def streams(subject: Subjects) -> Iterator[Row]:
    """Frames a second of one, two and eight streams of meshes, each with a tracker of one thread; medians of some turns."""
    with ExitStack() as stack:
        trackers = [stack.enter_context(FaceMeshTracker(threads=1)).load() for _ in range(8)]
        turns = [
            {number: _rate(trackers[:number], subject, max(0.5, subject.frames / 200)) for number in (1, 2, 8)}
            for _ in range(_TURNS)
        ]
    rates = {number: statistics.median(turn[number] for turn in turns) for number in turns[0]}
    against = {1: 0, 2: 1, 8: 2}
    for number, rate in rates.items():
        other = against[number]
        peer_name = f"tabml, {other} stream{'s' if other > 1 else ''}" if other else ""
        name = f"tabml, {number} stream{'s' if number > 1 else ''}"
        ratio = rate / rates[other] if other else None
        yield Row(case="streams", name=name, value=rate, unit="frames a second", peer=peer_name, ratio=ratio)


def _rate(trackers: Sequence[FaceMeshTracker], subject: Subjects, seconds: float) -> float:
    """Frames a second of all trackers together, by as many threads as there are cores: a stream's next frame waits its turn.

    A thread for each stream would be slower: 8 on 2 cores by a tenth, in switching between them.
    """
    waiting = deque((tracker, itertools.cycle(subject.moving)) for tracker in trackers)
    counts, began = [0] * min(len(trackers), thread_count("threads", None)), time.perf_counter()

    def run(at: int) -> None:
        while time.perf_counter() < began + seconds:
            tracker, frames = waiting.popleft()
            tracker.track(next(frames))
            waiting.append((tracker, frames))
            counts[at] += 1

    workers = [threading.Thread(target=run, args=(at,)) for at in range(len(counts))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - began)


CASES: dict[str, Callable[[Subjects], Iterator[Row]]] = {
    "objects": objects, "together": together, "hands": hands, "masks": masks, "effects": effects, "single": single,
    "results": results, "streams": streams,
}  # fmt: skip
"""What can be measured, by name."""


def measure(
    names: Sequence[str] = (), *, quick: bool = False, video: Path | None = None, say: Say = lambda line: None
) -> list[Row]:
    """Measure, one case after another.

    Args:
        names: Of :data:`CASES`; all when empty.
        quick: A tenth of the frames.
        video: One with a hand in it, for the cases with hands; without it there is none to be seen.
        say: Is told what is measured now.

    Raises:
        OptionError: there is no such case.
        MissingExtraError: a library is not installed.
    """
    subject = subjects(video, 20 if quick else 200)
    return [row for case in chosen(names, CASES, say) for row in case(subject)]
