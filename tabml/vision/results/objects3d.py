"""Objects as boxes in three dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tabml.vision.results.found import Box, Float32, Found

EDGES: tuple[tuple[int, int], ...] = (
    (1, 2), (1, 3), (1, 5), (2, 4), (2, 6), (3, 4), (3, 7), (4, 8), (5, 6), (5, 7), (6, 8), (7, 8),
)  # fmt: skip
"""Pairs of keypoints that an edge of the box joins."""
FACING: tuple[tuple[int, int], ...] = ((2, 8), (4, 6))
"""The diagonals of the box's front."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Object3D:
    """One object. Lengths are in one unit that the picture doesn't tell: a small near one looks like a large far one."""

    label: str
    """The name of its class."""
    score: float
    """How surely it is there, 0 to 1."""
    box: Box
    """Where it is in the picture."""
    keypoints: Float32
    """Shape (9, 2), normalised: the box's middle, then its corners."""
    keypoints_3d: Float32
    """Shape (9, 3): the same as the camera sees them; x to the right, y up, z towards the camera, so all z are negative."""
    rotation: Float32
    """Shape (3, 3): from the object's axes (x to its right, y up, z to its front) to the camera's."""
    size: Float32
    """Shape (3,): along the object's own axes, in the unit of ``keypoints_3d``."""

    @property
    def translation(self) -> Float32:
        """Shape (3,): its middle, as the camera sees it."""
        middle: Float32 = self.keypoints_3d[0]
        return middle

    @property
    def angles(self) -> tuple[float, float, float]:
        """Roll, pitch and yaw, degrees: turned about the camera's up axis (yaw), then right axis (pitch), then its own (roll)."""
        r = self.rotation.astype(float)
        pitch = np.degrees(np.arcsin(np.clip(-r[1, 2], -1, 1)))
        yaw = np.degrees(np.arctan2(r[0, 2], r[2, 2]))
        roll = np.degrees(np.arctan2(r[1, 0], r[1, 1]))
        return float(roll), float(pitch), float(yaw)

    def __repr__(self) -> str:
        roll, pitch, yaw = self.angles
        return f"Object3D({self.label!r} {self.score:.2f}, roll={roll:.0f}, pitch={pitch:.0f}, yaw={yaw:.0f})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        roll, pitch, yaw = self.angles
        return {
            "label": self.label,
            "score": self.score,
            "box": self.box.to_dict(),
            "keypoints": self.keypoints.tolist(),
            "keypoints_3d": self.keypoints_3d.tolist(),
            "rotation": self.rotation.tolist(),
            "size": self.size.tolist(),
            "roll": roll,
            "pitch": pitch,
            "yaw": yaw,
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        for number, ((x, y), (a, b, c)) in enumerate(
            zip(self.keypoints.tolist(), self.keypoints_3d.tolist(), strict=True)
        ):
            yield {"label": self.label, "landmark": number, "x": x, "y": y, "x_3d": a, "y_3d": b, "z_3d": c}


class Objects3D(Found[Object3D]):
    """The objects of one frame, the likeliest first."""

    __slots__ = ()
    _key: ClassVar[str] = "objects_3d"
