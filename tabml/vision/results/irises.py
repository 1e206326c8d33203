"""Eyes: irises, lids, and where they look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from tabml.vision.results.found import Float32, Found, frozen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Eye:
    """One eye.

    Directions are in head space unless said otherwise: x to the person's left, y up, z out of the face.
    """

    side: Literal["left", "right"]
    """Whose eye: the person's own left or right."""
    iris: Float32
    """Shape (5, 3), normalised as all landmarks: the centre, then four points of the rim."""
    region: Float32
    """Shape (71, 3), normalised: the lids, three rings around them and the brow; ``landmarks.EYE_REGION`` has the order.
    The first 16 are the lids' edges."""
    aspect_ratio: float
    """Height of the opening by its width, 0 when closed, about 0.3 when open (Soukupová and Čech, Real-Time Eye Blink
    Detection using Facial Landmarks, CVWW 2016)."""
    closed: bool
    """Whether the aspect ratio is below the model's ``blink_threshold``."""
    gaze: Float32
    """Shape (3,), a unit vector in head space: where the eye looks."""
    gaze_in_camera: Float32
    """Shape (3,), the same direction as the camera sees it: x to the right of the picture, y up, z towards the camera."""
    yaw: float
    """Of the gaze in head space, degrees: positive to the person's left."""
    pitch: float
    """Of the gaze in head space, degrees: positive upwards."""
    distance_mm: float | None = None
    """From the camera, millimetres; None unless the model was given a focal length."""

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"yaw {self.yaw:.0f}°, pitch {self.pitch:.0f}°"
        far = "" if self.distance_mm is None else f", {self.distance_mm / 10:.0f} cm"
        return f"Eye({self.side}, {state}{far})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "side": self.side,
            "iris": self.iris.tolist(),
            "region": self.region.tolist(),
            "aspect_ratio": self.aspect_ratio,
            "closed": self.closed,
            "gaze": self.gaze.tolist(),
            "gaze_in_camera": self.gaze_in_camera.tolist(),
            "yaw": self.yaw,
            "pitch": self.pitch,
            "distance_mm": self.distance_mm,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceIrises:
    """Both eyes of one face, and how the head is held.

    The head's angles are degrees, relative to the ray from the camera to the face, so that who looks straight at the
    camera from the side of the picture has none.
    """

    left: Eye
    """The person's left eye."""
    right: Eye
    """The person's right eye."""
    score: float
    """How surely this is a face, 0 to 1."""
    head_yaw: float
    """Positive: turned to the person's left."""
    head_pitch: float
    """Positive: turned up."""
    head_roll: float
    """Positive: leaned towards the person's right shoulder."""

    @property
    def eyes(self) -> tuple[Eye, Eye]:
        """Left, then right."""
        return self.left, self.right

    @property
    def gaze(self) -> Float32:
        """Shape (3,), a unit vector in head space: the mean of both eyes, whose errors to the side cancel out."""
        mean = self.left.gaze + self.right.gaze
        return frozen(mean / np.linalg.norm(mean))

    @property
    def distance_mm(self) -> float | None:
        """The mean of both eyes, millimetres; None unless the model was given a focal length."""
        if self.left.distance_mm is None or self.right.distance_mm is None:
            return None
        return (self.left.distance_mm + self.right.distance_mm) / 2

    def __repr__(self) -> str:
        return f"FaceIrises({self.left!r}, {self.right!r}, head yaw {self.head_yaw:.0f}°)"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "left": self.left.to_dict(),
            "right": self.right.to_dict(),
            "score": self.score,
            "gaze": self.gaze.tolist(),
            "head_yaw": self.head_yaw,
            "head_pitch": self.head_pitch,
            "head_roll": self.head_roll,
            "distance_mm": self.distance_mm,
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        for eye in self.eyes:
            yield {
                "eye": eye.side, "x": float(eye.iris[0, 0]), "y": float(eye.iris[0, 1]), "yaw": eye.yaw,
                "pitch": eye.pitch, "aspect_ratio": eye.aspect_ratio, "closed": eye.closed,
                "distance_mm": eye.distance_mm,
            }  # fmt: skip


class Irises(Found[FaceIrises]):
    """The eyes of the faces of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "irises"
