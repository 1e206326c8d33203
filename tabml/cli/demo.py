"""``tabml demo``: the main job on a photograph that came with matplotlib, which mediapipe brings."""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tabml.cli.models import DEFAULTS, pull
from tabml.errors import MissingExtraError
from tabml.vision import FaceDetector, FaceMesh, Frame, PoseDetector, Segmenter, annotate

_STEPS: tuple[tuple[str, Any, str, dict[str, Any]], ...] = (
    ("faces", FaceDetector, "detect", {}),
    ("face mesh", FaceMesh, "detect", {"blendshapes": True, "transform": True}),
    ("pose", PoseDetector, "detect", {}),
    ("person mask", Segmenter, "segment", {}),
)


def portrait() -> Path:
    """The portrait of Grace Hopper (public domain) in matplotlib's sample data.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    spec = find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("vision", "matplotlib")
    return Path(spec.submodule_search_locations[0], "mpl-data", "sample_data", "grace_hopper.jpg")


def demo(options: argparse.Namespace) -> int:
    """Write an annotated PNG and a JSON file, and print how long each step took."""
    if code := pull(argparse.Namespace(names=list(DEFAULTS))):
        return code
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    frame = Frame.from_file(portrait())
    results: dict[str, Any] = {}
    print(f"{'step':12} {'load ms':>8} {'run ms':>8}  found", file=sys.stderr)
    for name, model_class, verb, arguments in _STEPS:
        begin = time.perf_counter()
        with model_class(**arguments) as model:
            model.load()
            loaded = time.perf_counter()
            found = getattr(model, verb)(frame)
            ended = time.perf_counter()
        results[name.replace(" ", "_")] = found
        summary = f"{found.coverage:.0%} of the picture" if name == "person mask" else f"{len(found)}"
        load_ms, run_ms = (loaded - begin) * 1000, (ended - loaded) * 1000
        print(f"{name:12} {load_ms:8.1f} {run_ms:8.1f}  {summary}", file=sys.stderr)
    picture = annotate(frame, *results.values()).save(folder / "grace_hopper.png")
    answers = folder / "grace_hopper.json"
    answers.write_text(json.dumps({name: found.to_dict() for name, found in results.items()}, indent=1))
    print(f"picture: {picture.resolve()}\nresults: {answers.resolve()}")
    return 0
