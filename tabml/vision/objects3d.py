"""Chairs, cups, cameras and shoes as boxes in three dimensions."""

from __future__ import annotations

import math
from typing import Any, Literal

from tabml.errors import OptionError
from tabml.files import FileProvider
from tabml.files.lite import load_lite_model
from tabml.vision._model import Detector, ModelSource, Task, count, one_of, ratio, thread_count
from tabml.vision.frame import Frame
from tabml.vision.results import Box, Object3D, Objects3D
from tabml.vision.results.found import frozen

Category = Literal["chair", "cup", "camera", "sneakers"]
_LABELS: dict[str, tuple[str, ...]] = {
    "chair": ("Chair",),
    "cup": ("Coffee cup", "Mug"),
    "camera": ("Camera",),
    "sneakers": ("Footwear",),
}


class ObjectDetector3D(Detector[Objects3D]):
    """Finds objects of one category as boxes in three dimensions, with how they are turned.

    Objectron (Ahmadyan et al., 2020, arXiv:2012.09988): a detector, nine keypoints of each object's box, and EPnP. Google's models, from
    its npm package.
    """

    def __init__(
        self,
        *,
        category: Category = "chair",
        max_objects: int = 5,
        min_detection_confidence: float = 0.5,
        min_presence_confidence: float = 0.5,
        focal_length_px: float | None = None,
        threads: int | None = None,
        model: ModelSource | None = None,
        detector: ModelSource = "objectron_detector",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            category: What to find: ``"chair"``, ``"cup"``, ``"camera"`` or ``"sneakers"`` (any footwear).
            max_objects: The most to find, 1 to 100.
            min_detection_confidence: For an object to be found at all, 0 to 1.
            min_presence_confidence: For its box to be believed, 0 to 1.
            focal_length_px: The camera's, in pixels of the frame; half the frame's width and height when None, as MediaPipe takes it,
                which is a wide view and makes depths too small for most cameras.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Another model of keypoints, instead of the category's.
            detector: The model that finds objects.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        one_of("category", category, tuple(_LABELS))
        self._labels = _LABELS[category]
        self._most = count("max_objects", max_objects)
        self._min_detection = ratio("min_detection_confidence", min_detection_confidence)
        self._min_presence = ratio("min_presence_confidence", min_presence_confidence)
        if focal_length_px is not None and not (
            isinstance(focal_length_px, int | float) and 0 < focal_length_px < math.inf
        ):
            raise OptionError(f"focal_length_px={focal_length_px!r} must be a number of pixels above 0, or None")
        self._focal = focal_length_px
        self._threads = thread_count("threads", threads)
        self._detector = detector
        super().__init__(model=f"objectron_{category}" if model is None else model, files=files)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.boxes3d import BoxGraph

        return BoxGraph(
            load_lite_model(self._detector, files=self._files),
            model,
            labels=self._labels,
            threads=self._threads,
            max_objects=self._most,
            min_detection=self._min_detection,
            min_presence=self._min_presence,
        )

    def _read(self, native: Any, frame: Frame) -> Objects3D:
        from tabml.vision._graphs.boxes3d import LABELS, lift

        focal = (1.0, 1.0) if self._focal is None else (2 * self._focal / frame.width, 2 * self._focal / frame.height)
        items = []
        for found in native:
            lifted = lift(found.keypoints, focal)
            if lifted is None:  # no box is seen so
                continue
            left, top, right, bottom = found.corners.tolist()
            items.append(
                Object3D(
                    label=LABELS[found.index],
                    score=found.score,
                    box=Box(x=left, y=top, width=right - left, height=bottom - top),
                    keypoints=frozen(found.keypoints),
                    keypoints_3d=frozen(lifted.points),
                    rotation=frozen(lifted.rotation),
                    size=frozen(lifted.size),
                )
            )
        return Objects3D(
            items=tuple(items),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )
