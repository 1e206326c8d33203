"""Objects of many classes, as boxes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tabml.errors import InferenceError, OptionError
from tabml.files import FileProvider
from tabml.vision._model import Detector, ModelSource, Task, Tracker, count, names, ratio, thread_count
from tabml.vision.frame import Frame
from tabml.vision.results import Box, ObjectDetection, ObjectDetections, TrackedObject, TrackedObjects
from tabml.vision.results.found import frozen
from tabml.vision.tracking import BoxTracker, ByteTracker

if TYPE_CHECKING:
    from tabml.vision._graphs.objects import ObjectGraph

_LONGEST_TRAJECTORY = 10_000
_REMEMBERED_MS = 10_000.0


class ObjectDetector(Detector[ObjectDetections]):
    """Finds objects of the 80 classes of COCO (Lin et al., 2014, arXiv:1405.0312), or of another model's.

    The default is EfficientDet-Lite0 (Tan, Pang and Le, 2020, arXiv:1911.09070) with 8-bit weights. Any detector with
    TFLite metadata that MediaPipe Tasks takes will do.
    """

    def __init__(
        self,
        *,
        score_threshold: float = 0.5,
        max_results: int | None = None,
        category_allowlist: Sequence[str] = (),
        category_denylist: Sequence[str] = (),
        min_suppression_threshold: float = 0.3,
        threads: int | None = None,
        model: ModelSource = "efficientdet_lite0",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            score_threshold: Objects that score less, or nothing at all, are left out, 0 to 1.
            max_results: The most objects to give, 1 to 100; all when None.
            category_allowlist: Only objects of these classes; of all when empty.
            category_denylist: No objects of these classes.
            min_suppression_threshold: Boxes that overlap a likelier one more (intersection over union, 0 to 1) are
                left out.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Which model.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range, or both lists are given.
        """
        self._score = ratio("score_threshold", score_threshold)
        self._most = None if max_results is None else count("max_results", max_results)
        self._allow = names("category_allowlist", category_allowlist)
        self._deny = names("category_denylist", category_denylist)
        if self._allow and self._deny:
            raise OptionError("category_allowlist and category_denylist can't both be given; use one of them")
        self._suppression = ratio("min_suppression_threshold", min_suppression_threshold)
        self._threads = thread_count("threads", threads)
        self._labels: tuple[str, ...] = ()
        super().__init__(model=model, files=files)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; loads the model."""
        self.load()
        return self._labels

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.objects import ObjectGraph

        graph = ObjectGraph(
            model,
            threads=self._threads,
            min_score=self._score,
            min_suppression=self._suppression,
            max_results=self._most,
            allow=self._allow,
            deny=self._deny,
        )
        _check_names(graph, (*self._allow, *self._deny))
        self._labels = graph.labels
        return graph

    def _read(self, native: Any, frame: Frame) -> ObjectDetections:
        corners = native.corners.clip(0, 1).tolist()
        return ObjectDetections(
            items=tuple(
                ObjectDetection(
                    box=Box(x=left, y=top, width=right - left, height=bottom - top),
                    label=_name(self._labels, index),
                    score=score,
                    index=index,
                )
                for (left, top, right, bottom), score, index in zip(
                    corners, native.scores.tolist(), native.classes.tolist(), strict=True
                )
            ),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


class ObjectTracker(Tracker[TrackedObjects]):
    """Follows objects through one video: each keeps its number, also when it was hidden for a while.

    Detects on every frame with :class:`ObjectDetector`'s models, and matches boxes by
    :class:`~tabml.vision.tracking.ByteTracker` (ByteTrack: Zhang et al., 2022, arXiv:2110.06864). A new object is given
    from the second frame on that it is seen in; those of the first frame at once.
    """

    def __init__(
        self,
        *,
        score_threshold: float = 0.5,
        low_score_threshold: float = 0.1,
        lost_ms: float = 1000.0,
        trajectory_length: int = 64,
        category_allowlist: Sequence[str] = (),
        category_denylist: Sequence[str] = (),
        min_suppression_threshold: float = 0.3,
        threads: int | None = None,
        tracker: BoxTracker | None = None,
        model: ModelSource = "efficientdet_lite0",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            score_threshold: What scores less begins no track, 0 to 1.
            low_score_threshold: What scores less is ignored, 0 to 1; boxes between the two keep tracks alive.
            lost_ms: How long an object that isn't seen is remembered, milliseconds.
            trajectory_length: How many boxes of its past an object has at most, 1 to 10,000.
            category_allowlist: Only objects of these classes; of all when empty.
            category_denylist: No objects of these classes.
            min_suppression_threshold: Boxes that overlap a likelier one more (intersection over union, 0 to 1) are
                left out.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            tracker: Another way to match boxes, for this object alone; ``score_threshold``, ``low_score_threshold`` and
                ``lost_ms`` don't reach it.
            model: Which model.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range, or both lists are given.
        """
        self._detector = ObjectDetector(
            score_threshold=low_score_threshold,
            category_allowlist=category_allowlist,
            category_denylist=category_denylist,
            min_suppression_threshold=min_suppression_threshold,
            threads=threads,
            model=model,
            files=files,
        )
        self._boxes = tracker or ByteTracker(
            high_threshold=ratio("score_threshold", score_threshold),
            low_threshold=ratio("low_score_threshold", low_score_threshold),
            lost_ms=lost_ms,
        )
        if (
            isinstance(trajectory_length, bool)
            or not isinstance(trajectory_length, int)
            or not (1 <= trajectory_length <= _LONGEST_TRAJECTORY)
        ):
            raise OptionError(f"trajectory_length={trajectory_length!r} must be from 1 to {_LONGEST_TRAJECTORY}")
        self._long = trajectory_length
        self._remembered_ms = lost_ms
        self._paths: dict[int, _Path] = {}
        super().__init__(model=model, files=files)

    def _build(self, model: bytes | memoryview) -> Task:
        return _Following(self._detector._build(model), self._boxes)

    def _read(self, native: Any, frame: Frame) -> TrackedObjects:
        boxes, ids, after_ms = native
        corners = boxes.corners.clip(0, 1)
        seen = np.flatnonzero(ids > 0)
        self._age(after_ms)
        labels = self._detector._labels
        items = []
        for row in seen.tolist():
            left, top, right, bottom = corners[row].tolist()
            number, index = int(ids[row]), int(boxes.classes[row])
            path = self._paths.setdefault(number, _Path())
            path.unseen_ms = 0.0
            path.boxes = [*path.boxes, (left, top, right - left, bottom - top)][-self._long :]
            items.append(
                TrackedObject(
                    track_id=number,
                    box=Box(x=left, y=top, width=right - left, height=bottom - top),
                    label=_name(labels, index),
                    score=float(boxes.scores[row]),
                    index=index,
                    trajectory=frozen(np.array(path.boxes, np.float32)),
                )
            )
        return TrackedObjects(
            items=tuple(items),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )

    def _age(self, after_ms: float) -> None:
        for path in self._paths.values():
            path.unseen_ms += after_ms
        forgotten = max(self._remembered_ms, _REMEMBERED_MS)
        self._paths = {number: path for number, path in self._paths.items() if path.unseen_ms <= forgotten}


@dataclass(slots=True)
class _Path:
    """Where a track was."""

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    unseen_ms: float = 0.0


class _Following:
    """A task that detects and numbers what it found; one frame at a time."""

    def __init__(self, graph: Task, tracker: BoxTracker) -> None:
        self._graph, self._tracker = graph, tracker
        self._lock = threading.Lock()

    def run(self, pixels: Any, convert: Callable[[Any], Any], *, after_ms: int = 33) -> Any:
        """See :class:`tabml.vision._model.Task`."""
        height, width, _ = pixels.shape
        size = np.array([width, height, width, height], np.float32)

        def numbered(boxes: Any) -> Any:
            ids = self._tracker.update(boxes.corners * size, boxes.scores, boxes.classes, after_ms=after_ms)
            return convert((boxes, ids, after_ms))

        with self._lock:
            try:
                return self._graph.run(pixels, numbered, after_ms=after_ms)
            except InferenceError:
                self._tracker.reset()
                raise

    def close(self) -> None:
        """See :class:`tabml.vision._model.Task`."""
        self._graph.close()


def _check_names(graph: ObjectGraph, names: Sequence[str]) -> None:
    strange = sorted(set(names) - set(graph.labels))
    if strange:
        graph.close()
        raise OptionError(f"{strange[0]!r:.80} is none of the model's classes: {', '.join(graph.labels)[:2000]}")


def _name(labels: Sequence[str], index: int) -> str:
    return labels[index] if index < len(labels) else str(index)
