"""Objects of many classes, as boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabml.errors import OptionError
from tabml.files import FileProvider
from tabml.vision._model import Detector, ModelSource, Task, count, ratio, thread_count
from tabml.vision.frame import Frame
from tabml.vision.results import Box, ObjectDetection, ObjectDetections


def names(name: str, value: Sequence[str]) -> tuple[str, ...]:
    """``value``, when it is a sequence of texts.

    Raises:
        OptionError: it is something else.
    """
    if isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise OptionError(f"{name}={value!r} must be a sequence of names, such as ('person', 'dog')")
    return tuple(value)


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
        self._labels = graph.labels
        strange = sorted({*self._allow, *self._deny} - set(graph.labels))
        if strange:
            graph.close()
            raise OptionError(f"{strange[0]!r:.80} is none of the model's classes: {', '.join(graph.labels)[:2000]}")
        return graph

    def _read(self, native: Any, frame: Frame) -> ObjectDetections:
        corners = native.corners.clip(0, 1).tolist()
        return ObjectDetections(
            items=tuple(
                ObjectDetection(
                    box=Box(x=left, y=top, width=right - left, height=bottom - top),
                    label=self._labels[index] if index < len(self._labels) else str(index),
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
