"""Gestures of a hand: its landmarks, made independent of place and size, embedded and classified.

Gesture Recognizer model card, 2023; constants of MediaPipe's ``hand_gesture_recognizer_graph``.
"""

from __future__ import annotations

import numpy as np

from tabml._litert import LiteGraph
from tabml._litert.bundle import members
from tabml.errors import ModelLoadError
from tabml.vision._graphs.graph import expect_shapes
from tabml.vision._graphs.regions import Float32

_POINTS = 21
_EMBEDDED = 128
_LEAST_SIZE = np.float32(1e-5)


class GestureModel:
    """The embedder and the classifier of seven gestures and None."""

    def __init__(self, bundle: bytes | memoryview) -> None:
        """Load a ``hand_gesture_recognizer.task``.

        Raises:
            ModelLoadError: it is another bundle.
        """
        embedder, classifier = members(bundle, "gesture_embedder.tflite", "canned_gesture_classifier.tflite")
        try:
            (labels,) = members(classifier, "labels.txt")
            self._labels = labels.decode().split()
        except (ModelLoadError, UnicodeDecodeError) as problem:
            raise ModelLoadError(f"a model of another kind: the gestures have no names ({problem})") from problem
        self._embedder, self._classifier = LiteGraph(embedder), LiteGraph(classifier)
        expect_shapes(self._embedder, [(1, _POINTS, 3), (1, 1), (1, _POINTS, 3), (1, _EMBEDDED)])
        expect_shapes(self._classifier, [(1, _EMBEDDED), (1, len(self._labels))])

    def name(self, points: Float32, world: Float32, left: float, picture: tuple[int, int]) -> tuple[str, float]:
        """The likeliest gesture and its score, 0 to 1.

        Args:
            points: Shape (21, 3), normalised.
            world: Shape (21, 3), metres.
            left: How likely it is a left hand, 0 to 1.
            picture: Width and height, pixels.
        """
        shares = np.array([*picture, 0], np.float32)[:2] / np.float32(max(picture))
        flat = points.copy()
        flat[:, :2] = (points[:, :2].astype(float) - 0.5) * shares.astype(float) + 0.5
        inputs = [_placeless(flat)[None], np.array([[left]], np.float32), _placeless(world)[None]]
        embedded = self._embedder.run(inputs, lambda out: out[0].copy())
        scores = self._classifier.run([embedded], lambda out: out[0][0].copy())
        best = int(scores.argmax())
        return self._labels[best], float(scores[best])

    def close(self) -> None:
        """Free the models; twice is fine."""
        self._embedder.close()
        self._classifier.close()


def _placeless(points: Float32) -> Float32:
    """Relative to the wrist and to the larger side of the box around the points.

    Source: MediaPipe's ``landmarks_to_matrix_calculator``; the steps by 0.5 are those of its rotation by 0.
    """
    turned = points.copy()
    turned[:, :2] = (points[:, :2].astype(float) - 0.5).astype(np.float32).astype(float) + 0.5
    relative = turned - turned[0]
    size = (relative[:, :2].max(axis=0) - relative[:, :2].min(axis=0)).max() + _LEAST_SIZE
    placed: Float32 = relative / size
    return placed
