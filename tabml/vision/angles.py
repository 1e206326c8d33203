"""Joint angles of a pose: the angle at the middle of three landmarks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from tabml.errors import OptionError

if TYPE_CHECKING:
    from tabml.vision.results import Pose

JOINTS: dict[str, tuple[int, int, int]] = {
    "left_elbow": (11, 13, 15),
    "right_elbow": (12, 14, 16),
    "left_shoulder": (13, 11, 23),
    "right_shoulder": (14, 12, 24),
    "left_hip": (11, 23, 25),
    "right_hip": (12, 24, 26),
    "left_knee": (23, 25, 27),
    "right_knee": (24, 26, 28),
    "left_wrist": (13, 15, 19),
    "right_wrist": (14, 16, 20),
    "left_ankle": (25, 27, 31),
    "right_ankle": (26, 28, 32),
}
"""Three indices into the 33 pose landmarks a joint; the angle is at the second (wrist: elbow–wrist–index
finger; ankle: knee–ankle–toe). Numbering: BlazePose GHUM 3D model card."""


def angle(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> float:
    """The angle at ``b`` between the rays to ``a`` and ``c``, degrees, 0 to 180; NaN where a ray has no length.

    ``2·atan2(‖u−v‖, ‖u+v‖)`` of the unit rays u and v, which stays exact near 0 and 180 where acos of the dot
    product does not: W. Kahan, *How Futile are Mindless Assessments of Roundoff*, 2006, section 12.

    Args:
        a: Shape (2,) or (3,), any unit.
        b: The same shape and unit.
        c: The same shape and unit.
    """
    origin = np.asarray(b, np.float64)
    u, v = np.asarray(a, np.float64) - origin, np.asarray(c, np.float64) - origin
    u_length, v_length = math.sqrt(float(u @ u)), math.sqrt(float(v @ v))
    if not u_length or not v_length:
        return math.nan
    u, v = u / u_length, v / v_length
    apart, together = u - v, u + v
    return math.degrees(2 * math.atan2(math.sqrt(float(apart @ apart)), math.sqrt(float(together @ together))))


def joint_angles(
    pose: Pose, *, space: Literal["world", "image"] = "world", min_visibility: float = 0.5
) -> dict[str, float | None]:
    """Every joint of :data:`JOINTS` in degrees, 0 to 180: the interior angle of the three landmarks.

    A straight arm is 180. Clinical flexion is 180 minus this (Norkin & White, *Measurement of Joint Motion*).

    Args:
        pose: One body.
        space: ``"world"`` uses the landmarks in metres; ``"image"`` the flat ones, corrected for the
            picture's aspect.
        min_visibility: A joint is None when one of its three landmarks is less visible; 0 to 1.

    Raises:
        OptionError: ``space`` is neither, or ``min_visibility`` is outside 0 to 1.
    """
    if space not in ("world", "image"):
        raise OptionError(f"space={space!r} must be 'world' or 'image'")
    if not 0 <= min_visibility <= 1:
        raise OptionError(f"min_visibility={min_visibility!r} must be between 0 and 1")
    points = pose.world_landmarks if space == "world" else pose.landmarks[:, :2] * (pose.aspect, 1.0)
    found: dict[str, float | None] = {}
    for name, indices in JOINTS.items():
        degrees = math.nan
        if pose.visibility[list(indices)].min() >= min_visibility:
            degrees = angle(*(points[index] for index in indices))
        found[name] = None if math.isnan(degrees) else degrees
    return found
