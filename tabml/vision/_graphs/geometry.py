"""Where a head is: the similarity that puts the canonical face onto the landmarks, by a pinhole camera.

Procrustes with weights (Akca, Generalized Procrustes analysis and its applications in photogrammetry, 2003, section
2.4); the steps and constants are those of MediaPipe's ``geometry_pipeline`` and
``face_geometry_from_landmarks_graph``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tabml.errors import ModelLoadError
from tabml.vision._graphs.regions import Float32

Float64 = NDArray[np.float64]

_FIELD_OF_VIEW = math.radians(63.0)  # vertical
_NEAR = 1.0  # cm
_VERTEX = 5  # x, y, z, and two texture coordinates
_TOO_COMPACT = 1e-3
_MESH, _BASIS, _VERTICES = 1, 2, 3
_LANDMARK, _WEIGHT = 1, 2
_VARINT, _BYTES, _FLOAT = 0, 2, 5


class HeadGeometry:
    """The canonical face and the weights of its landmarks."""

    def __init__(self, metadata: bytes) -> None:
        """Read them.

        Args:
            metadata: A serialised ``GeometryPipelineMetadata``.

        Raises:
            ModelLoadError: it is something else.
        """
        values: list[float] = []
        weights: dict[int, float] = {}
        try:
            for field, value in _fields(metadata):
                if field == _MESH and isinstance(value, bytes):
                    values += [each for name, each in _fields(value) if name == _VERTICES and isinstance(each, float)]
                elif field == _BASIS and isinstance(value, bytes):
                    pair = dict(_fields(value))
                    weights[int(pair[_LANDMARK])] = float(pair[_WEIGHT])
            face = np.array(values).reshape(-1, _VERTEX)[:, :3]
            self._count = len(face)
            self._rows = np.array(list(weights), int)
            self._face, self._weights = face[self._rows], np.array(list(weights.values()))
        except (ValueError, IndexError, KeyError, TypeError, struct.error) as problem:
            raise ModelLoadError(f"a model of another kind: its canonical face can't be read ({problem})") from problem
        if not (np.isfinite(self._face).all() and self._weights.sum() > 0):
            raise ModelLoadError("a model of another kind: it has no canonical face")

    def transform(self, points: Float32, picture: tuple[int, int]) -> Float32 | None:
        """The matrix from the canonical face (cm) to the camera, shape (4, 4); None when the face is but a dot.

        Args:
            points: Shape (n, 3), normalised; n is at least that of the canonical face, without irises.
            picture: Width and height, pixels.
        """
        points = points[: self._count]
        away = points[:, :2] - points[:, :2].mean(axis=0)
        if math.sqrt((away * away).sum(axis=1).max()) <= _TOO_COMPACT:
            return None
        width, height = picture
        high = 2 * _NEAR * math.tan(_FIELD_OF_VIEW / 2)
        wide = width * high / height
        screen = (points[self._rows].astype(float) * (1, -1, 1) + (0, 1, 0)) * (wide, high, wide)
        screen -= (wide / 2, high / 2, 0)
        depth = float(points[:, 2].mean(dtype=float)) * wide
        first = _scale_of(self._onto(screen * (1, 1, -1)))
        second = _scale_of(self._onto(_unprojected(screen, depth, first)))
        return self._onto(_unprojected(screen, depth, first * second)).astype(np.float32)

    def _onto(self, targets: Float64) -> Float64:
        """The similarity that puts the canonical face nearest to the targets."""
        weights = self._weights[:, None]
        total = weights.sum()
        middle, wanted = (weights * self._face).sum(axis=0) / total, (weights * targets).sum(axis=0) / total
        centred = self._face - middle
        left, _, right = np.linalg.svd((weights * targets).T @ centred)
        if np.linalg.det(left) * np.linalg.det(right) < 0:
            left[:, 2] *= -1
        rotation = left @ right
        scale = (weights * (centred @ rotation.T) * targets).sum() / (weights * centred * self._face).sum()
        matrix = np.eye(4)
        matrix[:3, :3] = scale * rotation
        matrix[:3, 3] = wanted - matrix[:3, :3] @ middle
        return matrix


def _unprojected(screen: Float64, depth: float, scale: float) -> Float64:
    away = (screen[:, 2:] - depth + _NEAR) / scale
    return np.concatenate([screen[:, :2] * away / _NEAR, -away], axis=1)


def _scale_of(matrix: Float64) -> float:
    return float(np.linalg.norm(matrix[:, 0]))


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Numbers and values of the fields of a protocol buffer message without groups and 64-bit fields.

    Raises:
        ValueError: it is none.
        IndexError: it is cut short.
        struct.error: it is cut short.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number
        elif kind == _FLOAT:
            yield key >> 3, struct.unpack_from("<f", message, at)[0]
            at += 4
        elif kind == _BYTES:
            size, at = _varint(message, at)
            if size > len(message) - at:
                raise ValueError(f"a field of {size} bytes, where {len(message) - at} are left")
            yield key >> 3, message[at : at + size]
            at += size
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number that doesn't end")
