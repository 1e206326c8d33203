"""From the landmarks of a face to where its eyes look, how far they are open and how far away they are.

Everything here is geometry of arrays; :mod:`tabml.vision.irises` has the models.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tabml.vision import landmarks as tables
from tabml.vision.results.found import Float32, frozen
from tabml.vision.results.irises import Eye, FaceIrises

Float64 = NDArray[np.float64]

IRIS_MM = 11.7
"""The horizontal diameter of the iris, ± 0.5 mm in almost everybody (Ablavatski et al., MediaPipe Iris, 2020)."""
IRIS_FROM_PIVOT = 0.375
"""How far in front of the point that the eyeball turns about the iris lies, counted in distances between the corners of
an eye (28 mm): that point is about 13.5 mm behind the cornea (Fry and Hill, 1962), the iris 3 mm."""
PIVOT_BEHIND_CORNERS = 0.16
"""How far behind the middle between the corners that point lies, counted likewise: the corners are 9 mm behind the
cornea."""
RESTING = (0.035, 0.065)
"""Where the iris rests beside that middle when the eye looks straight ahead, away from the nose and upwards, counted
likewise: the inner corner reaches further than the eyeball, and both lie below its middle. Means of eight eyes in
portraits; it differs by some degrees from person to person."""
_OUTER, _INNER = 0, 8  # of an eye's region, as the next ones
_LIDS = [0, 11, 13, 8, 5, 3]  # Soukupová and Čech's p1 to p6
_CENTRE, _RIM = 0, ((1, 3), (2, 4))


def look(
    landmarks: Float32,
    transform: Float32,
    *,
    width: int,
    height: int,
    score: float,
    blink_threshold: float,
    focal_length_px: float | None,
) -> FaceIrises:
    """Both eyes of a face.

    Args:
        landmarks: Shape (478, 3), normalised.
        transform: Shape (4, 4), from the canonical face to the camera.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        score: Passed on.
        blink_threshold: An eye of a smaller aspect ratio is closed.
        focal_length_px: Of the camera, pixels; None when unknown.
    """
    turn = _rotation(transform)
    ray = _towards(transform[:3, 3].astype(float))
    seen = ray.T @ turn
    size = np.array([width, height, width])
    eyes = {
        side: _eye(side, landmarks, size, seen, ray, blink_threshold=blink_threshold, focal_length_px=focal_length_px)
        for side in ("left", "right")
    }
    yaw, pitch, roll = head_angles(seen)
    return FaceIrises(
        left=eyes["left"], right=eyes["right"], score=score, head_yaw=yaw, head_pitch=pitch, head_roll=roll
    )


def head_angles(rotation: Float64) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a head's rotation, shape (3, 3): R = R_y(yaw) R_x(-pitch) R_z(roll)."""
    return (
        math.degrees(math.atan2(rotation[0, 2], rotation[2, 2])),
        math.degrees(math.asin(min(1.0, max(-1.0, rotation[1, 2])))),
        math.degrees(math.atan2(rotation[1, 0], rotation[1, 1])),
    )


def aspect_ratio(region: Float64) -> float:
    """(|p2 - p6| + |p3 - p5|) / 2 |p1 - p4| of an eye's region, shape (71, 2 or more), in pixels.

    Source: Soukupová and Čech, Real-Time Eye Blink Detection using Facial Landmarks, CVWW 2016, equation 1.
    """
    p1, p2, p3, p4, p5, p6 = region[_LIDS, :2]
    across = float(np.linalg.norm(p1 - p4))
    if across == 0:
        return 0.0
    return float(np.linalg.norm(p2 - p6) + np.linalg.norm(p3 - p5)) / (2 * across)


def iris_distance_mm(iris: Float64, *, width: int, height: int, focal_length_px: float) -> float | None:
    """How far an iris is from the camera, millimetres; None when it is but a dot.

    Its size is the longer of its diameters, since turning away shortens one; off the picture's middle the way is longer.
    Source: MediaPipe's ``iris_to_depth``.

    Args:
        iris: Shape (5, 2 or more), pixels.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        focal_length_px: Of the camera, pixels.
    """
    diameter = max(float(np.linalg.norm(iris[a, :2] - iris[b, :2])) for a, b in _RIM)
    if diameter == 0:
        return None
    aside = float(np.linalg.norm(iris[_CENTRE, :2] - (width / 2, height / 2)))
    return IRIS_MM * math.hypot(focal_length_px, aside) / diameter


def gaze_direction(iris: Float64, region: Float64, rotation: Float64, *, side: Literal["left", "right"]) -> Float64:
    """Where an eye looks, a unit vector in head space.

    The iris turns about a point behind the eye's corners. How far it is seen beside their middle, counted in distances
    between them, tells the direction as the camera sees it; the head's rotation takes it to head space. The depth of
    the iris isn't used: the model knows little about it.

    Args:
        iris: Shape (5, 3), pixels; x right, y down, z away from the camera.
        region: Shape (71, 3), the same.
        rotation: Shape (3, 3), from head space to what the camera sees along its ray to the face.
        side: Whose eye.
    """
    corners = region[[_OUTER, _INNER]]
    across = float(np.linalg.norm(corners[0] - corners[1]))
    if across == 0:
        return np.array([0.0, 0.0, 1.0])
    outwards, upwards = RESTING
    middle = rotation @ (outwards if side == "left" else -outwards, upwards, -PIVOT_BEHIND_CORNERS)
    aside = (iris[_CENTRE] - corners.mean(axis=0))[:2] * (1, -1) / across - middle[:2]
    x, y = aside / IRIS_FROM_PIVOT
    length = math.hypot(x, y)
    if length > 1:
        x, y = x / length, y / length
    gaze: Float64 = rotation.T @ np.array([x, y, math.sqrt(max(0.0, 1 - x * x - y * y))])
    return gaze


def _eye(
    side: Literal["left", "right"],
    landmarks: Float32,
    size: Float64,
    seen: Float64,
    ray: Float64,
    *,
    blink_threshold: float,
    focal_length_px: float | None,
) -> Eye:
    iris, region = landmarks[list(tables.FACE_REGIONS[f"{side}_iris"])], landmarks[list(tables.EYE_REGION[side])]
    round_iris, around = iris * size, region * size
    opening = aspect_ratio(around)
    gaze = gaze_direction(round_iris, around, seen, side=side)
    distance = None
    if focal_length_px is not None:
        distance = iris_distance_mm(
            round_iris, width=int(size[0]), height=int(size[1]), focal_length_px=focal_length_px
        )
    return Eye(
        side=side,
        iris=frozen(iris),
        region=frozen(region),
        aspect_ratio=opening,
        closed=opening < blink_threshold,
        gaze=frozen(gaze.astype(np.float32)),
        gaze_in_camera=frozen((ray @ seen @ gaze).astype(np.float32)),
        yaw=math.degrees(math.atan2(gaze[0], gaze[2])),
        pitch=math.degrees(math.asin(min(1.0, max(-1.0, gaze[1])))),
        distance_mm=distance,
    )


def _rotation(transform: Float32) -> Float64:
    """The rotation in a similarity, shape (3, 3)."""
    matrix = transform[:3, :3].astype(float)
    turn: Float64 = matrix / np.linalg.norm(matrix[:, 0])
    return turn


def _towards(place: Float64) -> Float64:
    """The rotation that turns the camera's axis, -z, to a place; its x axis stays level."""
    z = -place / max(float(np.linalg.norm(place)), 1e-9)
    x = np.cross((0.0, 1.0, 0.0), z)
    x /= max(float(np.linalg.norm(x)), 1e-9)
    return np.stack([x, np.cross(z, x), z], axis=1)
