"""Bodies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tabml.vision import landmarks as tables
from tabml.vision.angles import joint_angles
from tabml.vision.results.found import Box, Float32, Found, bounds, place


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pose:
    """One body: 33 landmarks in the picture and in metres."""

    landmarks: Float32
    """Shape (33, 3), normalised; z on the scale of x, relative to the hips, smaller is nearer."""
    world_landmarks: Float32
    """Shape (33, 3), metres, origin midway between the hips, y down."""
    visibility: Float32
    """Shape (33,), 0 to 1: likely inside the picture and not hidden."""
    presence: Float32
    """Shape (33,), 0 to 1: likely inside the picture."""
    aspect: float = 1.0
    """Width over height of the picture, so that angles in the picture are true ones."""

    @property
    def score(self) -> float:
        """Mean presence of the landmarks, 0 to 1: the model itself reports none for the whole pose."""
        return float(self.presence.mean())

    @property
    def box(self) -> Box:
        """The tightest box around the landmarks."""
        return bounds(self.landmarks)

    def __getitem__(self, name: str) -> Float32:
        """Shape (3,): one landmark by name, as in ``pose["left_elbow"]``."""
        point: Float32 = self.landmarks[place(name, tables.POSE_LANDMARKS, "pose")]
        return point

    def angles(
        self, *, space: Literal["world", "image"] = "world", min_visibility: float = 0.5
    ) -> dict[str, float | None]:
        """Joint angles in degrees, 0 to 180, by joint; None where a point is less visible than asked.

        Definition and source: :func:`tabml.vision.angles.joint_angles`.

        Args:
            space: ``"world"`` measures in metres in three dimensions; ``"image"`` measures the flat
                picture (up to 35 degrees off where a limb points at the camera).
            min_visibility: 0 to 1; 0 gives every angle.
        """
        return joint_angles(self, space=space, min_visibility=min_visibility)

    def __repr__(self) -> str:
        return f"Pose({int((self.visibility >= 0.5).sum())} of 33 landmarks visible)"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON; angles from world landmarks."""
        names = tables.POSE_LANDMARKS
        return {
            "landmarks": dict(zip(names, self.landmarks.tolist(), strict=True)),
            "world_landmarks": dict(zip(names, self.world_landmarks.tolist(), strict=True)),
            "visibility": dict(zip(names, self.visibility.tolist(), strict=True)),
            "presence": dict(zip(names, self.presence.tolist(), strict=True)),
            "angles": self.angles(),
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        rows = zip(
            tables.POSE_LANDMARKS,
            self.landmarks.tolist(),
            self.world_landmarks.tolist(),
            self.visibility.tolist(),
            self.presence.tolist(),
            strict=True,
        )
        for name, (x, y, z), (wx, wy, wz), visibility, presence in rows:
            yield {
                "landmark": name, "x": x, "y": y, "z": z, "world_x": wx, "world_y": wy, "world_z": wz,
                "visibility": visibility, "presence": presence,
            }  # fmt: skip


class Poses(Found[Pose]):
    """The bodies of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "poses"
