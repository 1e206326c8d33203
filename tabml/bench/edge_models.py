"""LiteRT models through tabml against LiteRT's bare interpreter, MediaPipe Tasks and OpenCV's DNN, in one run."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from tabml.bench.edge import bare, in_turns
from tabml.bench.rows import Row, Say, chosen
from tabml.edge import LiteClassifier, LiteModel
from tabml.files import load_model

MODELS = (
    "face_detector", "selfie_segmenter", "efficientnet_lite0", "efficientnet_lite0_float32", "efficientdet_lite0",
)  # fmt: skip
_RUNS, _QUICK_RUNS, _SLOW_RUNS = 200, 20, 20
_GROWTH_RUNS = 10_000
Works = dict[str, Callable[[], Any]]


def _compared(case: str, works: Works, peer: str, runs: int, notes: Mapping[str, str]) -> Iterator[Row]:
    """Milliseconds of each, in turns; the ratio is how many times as long as the peer it takes."""
    found = in_turns(list(works.values()), runs)
    yield from _ratios(case, dict(zip(works, found, strict=True)), peer, notes)


def _ratios(case: str, found: Mapping[str, Sequence[float]], peer: str, notes: Mapping[str, str]) -> Iterator[Row]:
    times = {name: statistics.median(each) for name, each in found.items()}
    for name, value in times.items():
        against = "" if name == peer else peer
        ratio = value / times[peer] if against else None
        yield Row(case=case, name=name, value=value, unit="ms", peer=against, ratio=ratio, note=notes.get(name, ""))


def models(runs: int) -> Iterator[Row]:
    """One call on one thread and on two: with the copies in and out, and on lent memory without them."""
    for threads in (1, 2):
        for name in MODELS:
            case = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
            yield from _ratios(case, _called(name, threads, runs), "LiteRT", {"tabml buffers": "no copies"})


def _called(name: str, threads: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each call: half of them with LiteRT's own loaded first, half last; where a model lies makes 2 %."""
    found: dict[str, list[float]] = {"LiteRT": [], "tabml": [], "tabml buffers": []}
    for first in (True, False):
        with ExitStack() as stack:
            peer = bare(bytes(load_model(name)), threads) if first else None
            model = stack.enter_context(LiteModel(name, threads=threads))
            inputs = [np.zeros(spec.shape, spec.dtype) for spec in model.inputs]
            lent = stack.enter_context(LiteModel(name, threads=threads))
            buffers = stack.enter_context(lent.buffers())
            peer = peer or bare(bytes(load_model(name)), threads)
            works = (peer, partial(model.run, inputs), buffers.run)
            for times, more in zip(found.values(), in_turns(works, runs // 2), strict=True):
                times += more
    return found


def classes(runs: int) -> Iterator[Row]:
    """A photograph to its five likeliest classes, as MediaPipe's task does it."""
    import matplotlib

    from tabml.bench import mediapipe_peer as peer
    from tabml.vision import Frame

    frame = Frame.from_file(f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg").resize(640, 480)
    for name in ("efficientnet_lite0", "efficientnet_lite0_float32"):
        task = peer.task("ImageClassifier", name, max_results=5)
        with task, LiteClassifier(name, threads=1) as one, LiteClassifier(name, threads=2) as two:
            works: Works = {
                "mediapipe": partial(_classified, task, frame),
                "tabml, 1 thread": partial(one.classify, frame),
                "tabml, 2 threads": partial(two.classify, frame),
            }
            yield from _compared(f"classes, {name}", works, "mediapipe", runs, {})


def _classified(task: Any, frame: Any) -> Any:
    from tabml.bench import mediapipe_peer as peer

    return task.classify(peer.image(frame))


def opencv(runs: int) -> Iterator[Row]:
    """The same files in OpenCV's DNN, where it can read them."""
    import cv2

    for name in MODELS:
        content = bytes(load_model(name))
        try:
            net = cv2.dnn.readNetFromTFLite(np.frombuffer(content, np.uint8))
            with LiteModel(content, threads=1) as model:
                inputs = [np.zeros(spec.shape, spec.dtype) for spec in model.inputs]
                net.setInput(np.zeros(np.array(model.inputs[0].shape)[[0, 3, 1, 2]], np.float32))
                works: Works = {
                    "opencv": partial(net.forward, net.getUnconnectedOutLayersNames()),
                    "tabml": partial(model.run, inputs),
                }
                before = cv2.getNumThreads()
                cv2.setNumThreads(1)
                try:
                    yield from _compared(f"opencv, {name}, 1 thread", works, "opencv", min(runs, _SLOW_RUNS), {})
                finally:
                    cv2.setNumThreads(before)
        except cv2.error:
            continue  # it has no such layer


def together(runs: int) -> Iterator[Row]:
    """Two models in two threads, against one of them in one."""
    name = "efficientnet_lite0"
    with LiteModel(name, threads=1) as one, LiteModel(name, threads=1) as other:
        array = np.zeros(one.inputs[0].shape, one.inputs[0].dtype)
        other.load()
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(5):
            for used in ([one], [one, other]):
                threads = [threading.Thread(target=_repeat, args=(model, array, runs)) for model in used]
                began = time.perf_counter()
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                rates[len(used)].append(len(used) * runs / (time.perf_counter() - began))
    single, double = (statistics.median(rates[count]) for count in (1, 2))
    yield Row(case="together", name="tabml, 1 model", value=single, unit="runs/s")
    yield Row(
        case="together",
        name="tabml, 2 models",
        value=double,
        unit="runs/s",
        peer="tabml, 1 model",
        ratio=double / single,
    )


def _repeat(model: LiteModel, array: Any, runs: int) -> None:
    for _ in range(runs):
        model.run(array)


def loads(runs: int) -> Iterator[Row]:
    """From bytes to a model that is ready: of a file the catalog knows, and of the same one when it doesn't."""
    for name in ("face_detector", "efficientnet_lite0", "efficientdet_lite0"):
        content, count = bytes(load_model(name)), iter(range(10**9))
        works: Works = {
            "tabml, known": partial(_opened, content),
            "tabml, unknown": partial(_opened, content, count),
        }
        notes = {"tabml, unknown": "its tables are checked, and it runs in another process first"}
        yield from _compared(f"load, {name}", works, "tabml, known", min(runs, _SLOW_RUNS), notes)


def _opened(content: bytes, count: Iterator[int] | None = None) -> None:
    """Open a model and close it; with another number behind it each time, where it should be unknown."""
    LiteModel(content if count is None else content + next(count).to_bytes(8, "little"), threads=1).load().close()


def growth(runs: int) -> Iterator[Row]:
    """What 10,000 runs leave behind; with --quick 1,000."""
    count = _GROWTH_RUNS if runs > _QUICK_RUNS else _GROWTH_RUNS // 10
    with LiteModel("face_detector", threads=1) as model:
        array = np.zeros(model.inputs[0].shape, np.float32)
        _repeat(model, array, count // 10)
        before = _resident_mb()
        _repeat(model, array, count)
        grown = max(0.0, _resident_mb() - before)
    yield Row(case="growth", name="tabml", value=grown, unit="MB", note=f"after {count} runs")


def _resident_mb() -> float:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * 4096 / 1e6


CASES: dict[str, Callable[[int], Iterator[Row]]] = {
    "models": models, "classes": classes, "opencv": opencv, "together": together, "loads": loads, "growth": growth,
}  # fmt: skip
"""What can be measured, by name."""


def measure(names: Sequence[str] = (), *, quick: bool = False, say: Say = lambda line: None) -> list[Row]:
    """Measure, one case after another.

    Args:
        names: Of :data:`CASES`; all when empty.
        quick: A tenth of the runs.
        say: Is told what is measured now.

    Raises:
        OptionError: there is no such case.
        MissingExtraError: a library is not installed.
    """
    runs = _QUICK_RUNS if quick else _RUNS
    return [row for case in chosen(names, CASES, say) for row in case(runs)]
