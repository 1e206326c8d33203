"""Faces as boxes."""

from __future__ import annotations

from tabml.vision._graphs.detection import FACE_FULL, FACE_SHORT, Detections, SsdDetector
from tabml.vision._graphs.graph import Graph
from tabml.vision._graphs.regions import Pixels


class FaceGraph(Graph):
    """Answers with :class:`~tabml.vision._graphs.detection.Detections` of six keypoints each."""

    def __init__(
        self, model: bytes | memoryview, *, threads: int, min_confidence: float, min_suppression: float
    ) -> None:
        """Load a short or full range BlazeFace.

        Raises:
            ModelLoadError: it is another model.
        """
        self._detector = SsdDetector(
            model,
            FACE_SHORT,
            FACE_FULL,
            threads=threads,
            min_confidence=min_confidence,
            min_suppression=min_suppression,
        )
        super().__init__(self._detector)

    def _find(self, pixels: Pixels, after_ms: int) -> Detections:
        return self._detector.find(pixels)
