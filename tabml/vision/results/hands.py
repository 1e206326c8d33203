"""Hands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tabml.vision import landmarks as tables
from tabml.vision.results.found import Box, Float32, Found, bounds, place


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hand:
    """One hand: 21 landmarks, which hand it is, and what it signs."""

    landmarks: Float32
    """Shape (21, 3), normalised; z on the scale of x, relative to the wrist, smaller is nearer."""
    world_landmarks: Float32
    """Shape (21, 3), metres, origin at the hand's geometric centre."""
    handedness: Literal["Left", "Right"]
    """The person's own hand, on a picture that is not mirrored."""
    handedness_score: float
    """Confidence of the handedness, 0 to 1."""
    gesture: str | None = None
    """One of ``landmarks.GESTURES``; ``"None"`` when the model knows no gesture in it, None when not asked for."""
    gesture_score: float | None = None
    """Confidence of the gesture, 0 to 1."""

    @property
    def box(self) -> Box:
        """The tightest box around the landmarks."""
        return bounds(self.landmarks)

    def __getitem__(self, name: str) -> Float32:
        """Shape (3,): one landmark by name, as in ``hand["index_finger_tip"]``."""
        point: Float32 = self.landmarks[place(name, tables.HAND_LANDMARKS, "hand")]
        return point

    def __repr__(self) -> str:
        sign = f", gesture={self.gesture!r} {self.gesture_score:.2f}" if self.gesture is not None else ""
        return f"Hand({self.handedness!r} {self.handedness_score:.2f}{sign})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "landmarks": dict(zip(tables.HAND_LANDMARKS, self.landmarks.tolist(), strict=True)),
            "world_landmarks": dict(zip(tables.HAND_LANDMARKS, self.world_landmarks.tolist(), strict=True)),
            "handedness": self.handedness,
            "handedness_score": self.handedness_score,
            "gesture": self.gesture,
            "gesture_score": self.gesture_score,
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        rows = zip(tables.HAND_LANDMARKS, self.landmarks.tolist(), self.world_landmarks.tolist(), strict=True)
        for name, (x, y, z), (wx, wy, wz) in rows:
            yield {
                "landmark": name, "x": x, "y": y, "z": z, "world_x": wx, "world_y": wy, "world_z": wz,
                "handedness": self.handedness, "gesture": self.gesture,
            }  # fmt: skip


class Hands(Found[Hand]):
    """The hands of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "hands"
