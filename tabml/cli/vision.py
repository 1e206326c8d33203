"""``tabml detect`` and ``tabml track``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tabml.cli import report
from tabml.cli.progress import watched
from tabml.errors import OptionError, TabmlError
from tabml.vision import (
    FaceDetector,
    FaceMesh,
    FaceMeshTracker,
    Frame,
    HandDetector,
    HandTracker,
    HolisticDetector,
    HolisticTracker,
    InteractiveSegmenter,
    IrisDetector,
    IrisTracker,
    ObjectDetector,
    ObjectTracker,
    PoseDetector,
    PoseTracker,
    Segmenter,
    VideoWriter,
    annotate,
    read_video,
)

_DETECTORS: dict[str, Any] = {
    "faces": FaceDetector, "mesh": FaceMesh, "irises": IrisDetector, "hands": HandDetector, "pose": PoseDetector,
    "holistic": HolisticDetector, "objects": ObjectDetector, "mask": Segmenter,
}  # fmt: skip
_TRACKERS: dict[str, Any] = {
    **_DETECTORS,
    "mesh": FaceMeshTracker, "irises": IrisTracker, "hands": HandTracker, "pose": PoseTracker,
    "holistic": HolisticTracker, "objects": ObjectTracker,
}  # fmt: skip
_COUNTS = {"mesh": "num_faces", "irises": "num_faces", "hands": "num_hands", "pose": "num_poses"}


def detect(options: argparse.Namespace) -> int:
    """One line of JSON a picture; a picture that can't be read is reported, and the next one taken."""
    out = Path(options.annotate) if options.annotate else None
    several = len(options.pictures) > 1
    if out is not None and several:
        out.mkdir(parents=True, exist_ok=True)
    failed = False
    places = _places(options)
    kind: Any = InteractiveSegmenter if places else _DETECTORS[options.what]
    with kind(**_arguments(options)) as model:
        find = model.segment if options.what == "mask" else model.detect
        if places:
            find = partial(find, scribble=places)
        for name in options.pictures:
            try:
                frame = Frame.from_file(name)
                found = find(frame)
            except (TabmlError, OSError) as problem:
                if not several:
                    raise
                report(problem)
                failed = True
                continue
            print(json.dumps({"source": name, **found.to_dict()}))
            if out is not None:
                annotate(frame, found).save(out / f"{Path(name).stem}.png" if several else out)
    return int(failed)


def track(options: argparse.Namespace) -> int:
    """One line of JSON a frame."""
    with ExitStack() as stack:
        model = stack.enter_context(_TRACKERS[options.what](**_arguments(options)))
        video = stack.enter_context(read_video(options.video))
        writer = stack.enter_context(VideoWriter(options.annotate, fps=video.fps)) if options.annotate else None
        streams = {"faces": "detect_stream", "mask": "segment_stream"}
        stream: Iterator[Any] = getattr(model, streams.get(options.what, "track_stream"))(video)
        for frame, found in watched(stream, video.frame_count, "frame"):
            print(json.dumps(found.to_dict()))
            if writer is not None:
                writer.write(annotate(frame, found))
        if writer is not None and not writer.frames_written:
            print("tabml: the video has no frames; nothing was written", file=sys.stderr)
    return 0


def _places(options: argparse.Namespace) -> list[tuple[float, float]]:
    """What is pointed at."""
    if options.at and options.what != "mask":
        raise OptionError(f"--at does not go with {options.what}; it goes with mask")
    places = []
    for text in options.at:
        try:
            x, y = map(float, text.split(","))
        except ValueError:
            raise OptionError(
                f"--at {text[:40]!r} must be two numbers with a comma between them, such as 0.5,0.4"
            ) from None
        places.append((x, y))
    return places


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The model's options that were given on the command line."""
    given: dict[str, Any] = {}
    if options.num is not None:
        if options.what not in _COUNTS:
            raise OptionError(f"--num does not go with {options.what}; it goes with {', '.join(_COUNTS)}")
        given[_COUNTS[options.what]] = options.num
    if options.min_confidence is not None:
        if options.what == "mask":
            raise OptionError("--min-confidence does not go with mask")
        given["score_threshold" if options.what == "objects" else "min_detection_confidence"] = options.min_confidence
    if options.range is not None:
        if options.what not in ("faces", "mesh", "irises"):
            raise OptionError(f"--range does not go with {options.what}; it goes with faces, mesh, irises")
        given["range"] = options.range
    if options.model is not None:
        is_file = "/" in options.model or options.model.endswith((".tflite", ".task"))
        given["model"] = Path(options.model) if is_file else options.model
    return given
