"""Plain MediaPipe Tasks, as its own Python interface gives them: what vision is measured against."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tabml.files import load_model
from tabml.vision import _mediapipe as door
from tabml.vision.frame import Frame


@cache
def mediapipe() -> Any:
    """The package, after its usage record was stopped.

    Raises:
        MissingExtraError: it is not installed.
    """
    door.library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("mediapipe")


def task(name: str, model: str, *, video: bool = False, **options: Any) -> Any:
    """A task of a name such as ``FaceDetector``, opened with a model of the catalog."""
    mp = mediapipe()
    vision = mp.tasks.vision
    mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
    base = mp.tasks.BaseOptions(model_asset_buffer=bytes(load_model(model)))
    return getattr(vision, name).create_from_options(
        getattr(vision, f"{name}Options")(base_options=base, running_mode=mode, **options)
    )


def image(frame: Frame) -> Any:
    """A frame as MediaPipe takes it."""
    mp = mediapipe()
    return mp.Image(image_format=mp.ImageFormat.SRGB, data=frame.to_rgb())


class Clock:
    """Milliseconds that grow from call to call, as VIDEO tasks want them."""

    def __init__(self) -> None:
        self._now = 0

    def __call__(self) -> int:
        """33 ms later."""
        self._now += 33
        return self._now


def one_by_one(*tasks: Any) -> Callable[[Frame], list[Any]]:
    """VIDEO tasks on each frame, one after another."""
    clock = Clock()

    def run(frame: Frame) -> list[Any]:
        picture, now = image(frame), clock()
        return [each.detect_for_video(picture, now) for each in tasks]

    return run


def as_arrays(found: Any) -> list[Any]:
    """A mesh result as arrays, as one does it from MediaPipe's objects."""
    return [
        np.array([[point.x, point.y, point.z] for point in found.face_landmarks[0]], np.float32),
        np.array([each.score for each in found.face_blendshapes[0]], np.float32),
        np.array(found.facial_transformation_matrixes[0], np.float32),
    ]


def as_json(found: Any) -> str:
    """A mesh result as JSON, as one does it from MediaPipe's objects."""
    return json.dumps(
        {
            "landmarks": [[point.x, point.y, point.z] for point in found.face_landmarks[0]],
            "blendshapes": {each.category_name: float(each.score) for each in found.face_blendshapes[0]},
            "transform": np.array(found.facial_transformation_matrixes[0]).tolist(),
        }
    )
