"""Results drawn into the picture they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import MissingExtraError, OptionError
from tabml.vision import landmarks as tables
from tabml.vision.angles import JOINTS
from tabml.vision.frame import Frame
from tabml.vision.results import (
    Box,
    Categories,
    Eye,
    FaceDetections,
    FaceMeshes,
    FaceMeshResult,
    Found,
    Hand,
    Hands,
    Holistic,
    Irises,
    ObjectDetections,
    Objects3D,
    Pose,
    Poses,
    Segmentation,
    TemplateMatches,
    TrackedObjects,
)
from tabml.vision.results.objects3d import EDGES, FACING

Colour = tuple[int, int, int]
Result = Found[Any] | Holistic | Segmentation

# Okabe & Ito, Color Universal Design, 2008: told apart with any colour vision.
ORANGE: Colour = (230, 159, 0)
SKY: Colour = (86, 180, 233)
GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
VERMILION: Colour = (213, 94, 0)
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How results are drawn; sizes grow with the picture."""

    labels: bool = True
    """Write scores, sides and gestures."""
    angles: bool = False
    """Write the joints' angles, degrees."""
    mesh_points: bool = False
    """Dot every point of a face mesh, beside its contours."""
    scale: float = 1.0
    """Thickness of lines and size of text, above 0, at most 10."""
    mask_opacity: float = 0.45
    """How strongly a mask tints, 0 to 1."""
    min_visibility: float = 0.5
    """Points of a pose that are less visible are left out, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 10:
            raise OptionError(f"scale={self.scale!r} must be above 0 and at most 10")
        for name in ("mask_opacity", "min_visibility"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name}={getattr(self, name)!r} must be a number from 0 to 1")


DEFAULT_STYLE = Style()

_LIDS = (*((i, i + 1) for i in range(8)), (0, 9), *((i, i + 1) for i in range(9, 15)), (15, 8))
"""Of an eye's region."""


def annotate(frame: Frame, *results: Result, style: Style = DEFAULT_STYLE) -> Frame:
    """A new rgb frame with the results drawn in, masks first; ``frame`` stays as it is.

    Args:
        frame: The picture that the results came from.
        results: Any of the vision models' answers for it.
        style: How to draw them.

    Raises:
        OptionError: something among ``results`` is not a result, or a mask has another size than the frame.
    """
    canvas = _Canvas(frame.to_rgb().copy(), style)
    for result in sorted(results, key=lambda one: not isinstance(one, Segmentation)):
        draw = _DRAW.get(type(result))
        if draw is None:
            raise OptionError(f"results: {type(result).__name__} is not a result of a vision model")
        draw(canvas, result)
    return Frame(pixels=canvas.pixels, format="rgb", timestamp_ms=frame.timestamp_ms, frame_number=frame.frame_number)


class _Canvas:
    """Draws normalised shapes on pixels, at a thickness that suits the picture's size."""

    _FIXED = 4  # bits of sub-pixel precision in OpenCV's coordinates

    def __init__(self, pixels: NDArray[np.uint8], style: Style) -> None:
        try:
            import cv2
        except ImportError:
            raise MissingExtraError("vision", "opencv-contrib-python") from None
        self._cv2: Any = cv2
        self.pixels = pixels
        self._style = style
        self._height, self._width = pixels.shape[:2]
        self._unit: float = style.scale * max(1.0, (self._width * self._height) ** 0.5 / 400)

    def _points(self, normalised: NDArray[np.float32]) -> NDArray[np.int32]:
        scaled = normalised[:, :2] * (self._width, self._height) * (1 << self._FIXED)
        return np.clip(np.nan_to_num(scaled), -(2**24), 2**24).astype(np.int32)

    def _thickness(self, times: float = 1.0) -> int:
        return int(max(1, round(self._unit * times)))

    def lines(
        self, points: NDArray[np.float32], pairs: Any, colour: Colour, *, width: float = 1.0, halo: bool = False
    ) -> None:
        at = self._points(points)
        ends = [np.stack([at[a], at[b]]) for a, b in pairs]
        if halo:
            self._polylines(ends, BLACK, self._thickness(width) + 2)
        self._polylines(ends, colour, self._thickness(width))

    def _polylines(self, ends: list[NDArray[np.int32]], colour: Colour, thickness: int) -> None:
        if ends:
            self._cv2.polylines(self.pixels, ends, False, colour, thickness, self._cv2.LINE_AA, self._FIXED)

    def dots(self, points: NDArray[np.float32], colour: Colour, *, radius: float = 1.6) -> None:
        size = max(1, round(self._unit * radius * (1 << self._FIXED)))
        for x, y in self._points(points).tolist():
            for extra, tint in ((1 << self._FIXED, BLACK), (0, colour)):
                self._cv2.circle(self.pixels, (x, y), size + extra, tint, -1, self._cv2.LINE_AA, self._FIXED)

    def text(self, words: str, x: float, y: float, colour: Colour) -> None:
        """Words on a plate above the point, moved inside the picture."""
        font, size = self._cv2.FONT_HERSHEY_SIMPLEX, 0.42 * self._unit
        thick = self._thickness(0.8)
        (width, height), base = self._cv2.getTextSize(words, font, size, thick)
        pad = max(2, round(2 * self._unit))
        left = int(min(max(0.0, x), max(0, self._width - width - 2 * pad)))
        top = int(min(max(0.0, y - height - base - 2 * pad), max(0, self._height - height - base - 2 * pad)))
        corner = (left + width + 2 * pad, top + height + base + 2 * pad)
        self._cv2.rectangle(self.pixels, (left, top), corner, colour, -1)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120
        self._cv2.putText(
            self.pixels, words, (left + pad, top + pad + height), font, size, BLACK if dark else WHITE, thick,
            self._cv2.LINE_AA,
        )  # fmt: skip

    def label(self, words: str, x: float, y: float, colour: Colour) -> None:
        """:meth:`text` at a normalised place, unless the style leaves labels out."""
        if self._style.labels:
            self.text(words, x * self._width, y * self._height, colour)

    def box(self, box: Box, words: str) -> None:
        left, top, right, bottom = box.to_pixels(self._width, self._height)
        self._cv2.rectangle(self.pixels, (left, top), (right, bottom), ORANGE, self._thickness(1.3))
        if self._style.labels:
            self.text(words, left, top, ORANGE)

    def mesh(self, mesh: FaceMeshResult) -> None:
        if self._style.mesh_points:
            self.dots(mesh.mesh, SKY, radius=0.4)
        for region, pairs in tables.FACE_CONTOURS.items():
            if region.endswith("iris") and len(mesh.landmarks) <= tables.FACE_MESH_POINTS:
                continue
            colour = SKY if region.startswith("right") else ORANGE if region.startswith("left") else WHITE
            self.lines(mesh.landmarks, pairs, YELLOW if region.endswith("iris") else colour, width=0.7)

    def hand(self, hand: Hand) -> None:
        colour = ORANGE if hand.handedness == "Left" else SKY
        self.lines(hand.landmarks, tables.HAND_CONNECTIONS, colour, width=1.3, halo=True)
        self.dots(hand.landmarks, WHITE)
        if self._style.labels:
            known = hand.gesture not in (None, "None")
            words = hand.handedness + (f" {(hand.gesture or '').replace('_', ' ')}" if known else "")
            self.text(words, hand.box.x * self._width, hand.box.y * self._height - 4 * self._unit, colour)

    def eye(self, eye: Eye) -> None:
        colour = ORANGE if eye.side == "left" else SKY
        self.lines(eye.region, _LIDS, colour, width=0.7)
        if eye.closed:
            return
        self.lines(eye.iris, ((1, 2), (2, 3), (3, 4), (4, 1)), YELLOW, width=0.7)
        size = np.array([self._width, self._height], np.float32)
        start = eye.iris[0, :2] * size
        long = 2 * float(np.linalg.norm((eye.region[0, :2] - eye.region[8, :2]) * size))
        self.arrow(start, start + long * eye.gaze_in_camera[:2] * (1, -1), YELLOW)

    def arrow(self, start: NDArray[np.float32], end: NDArray[np.float32], colour: Colour) -> None:
        """From one pixel to another."""
        fixed = [tuple(np.rint(point * (1 << self._FIXED)).astype(int).tolist()) for point in (start, end)]
        for tint, thickness in ((BLACK, self._thickness(1.3) + 2), (colour, self._thickness(1.3))):
            self._cv2.arrowedLine(
                self.pixels, *fixed, tint, thickness, self._cv2.LINE_AA, self._FIXED, tipLength=0.25
            )  # fmt: skip

    def pose(self, pose: Pose) -> None:
        seen = pose.visibility >= self._style.min_visibility
        for colour, side in ((WHITE, ""), (ORANGE, "left"), (SKY, "right")):
            pairs = [(a, b) for a, b in tables.POSE_CONNECTIONS if seen[a] and seen[b] and _side(a, b) == side]
            self.lines(pose.landmarks, pairs, colour, width=1.6, halo=True)
        self.dots(pose.landmarks[seen], WHITE, radius=1.8)
        if self._style.angles:
            for name, degrees in pose.angles(min_visibility=self._style.min_visibility).items():
                if degrees is not None:
                    x, y, _ = pose.landmarks[JOINTS[name][1]].tolist()
                    self.text(f"{degrees:.0f}", x * self._width, y * self._height, YELLOW)

    def mask(self, result: Segmentation) -> None:
        if (result.height, result.width) != (self._height, self._width):
            raise OptionError(
                f"results: the mask is {result.width}×{result.height}, the frame {self._width}×{self._height}"
            )
        weight = result.mask if result.kind == "confidence" else result.selected()
        alpha = (np.clip(weight, 0, 1).astype(np.float32) * self._style.mask_opacity)[:, :, None]
        tinted = self.pixels * (1 - alpha) + np.asarray(GREEN, np.float32) * alpha
        self.pixels = np.rint(tinted).astype(np.uint8)
        outline, _ = self._cv2.findContours(
            result.selected().astype(np.uint8), self._cv2.RETR_EXTERNAL, self._cv2.CHAIN_APPROX_SIMPLE
        )
        self._cv2.drawContours(self.pixels, outline, -1, GREEN, self._thickness(), self._cv2.LINE_AA)
        if result.prompt:
            self.dots(np.array(result.prompt, np.float32), YELLOW)


def _side(a: int, b: int) -> str:
    names = tables.POSE_LANDMARKS[a], tables.POSE_LANDMARKS[b]
    for side in ("left", "right"):
        if all(side in name for name in names):
            return side
    return ""


def _faces(canvas: _Canvas, result: FaceDetections) -> None:
    for face in result:
        canvas.box(face.box, f"{face.score:.0%}")
        canvas.dots(face.keypoints, YELLOW)


def _meshes(canvas: _Canvas, result: FaceMeshes) -> None:
    for mesh in result:
        canvas.mesh(mesh)


def _hands(canvas: _Canvas, result: Hands) -> None:
    for hand in result:
        canvas.hand(hand)


def _holistic(canvas: _Canvas, result: Holistic) -> None:
    if result.pose is not None:
        canvas.pose(result.pose)
    if result.face is not None:
        canvas.mesh(result.face)
    for hand in result.hands:
        canvas.hand(hand)


def _irises(canvas: _Canvas, result: Irises) -> None:
    for face in result:
        for eye in face.eyes:
            canvas.eye(eye)
        if face.distance_mm is not None:
            x, y, _ = face.right.region[:, :3].min(axis=0).tolist()
            canvas.label(f"{face.distance_mm / 10:.0f} cm", x, y, WHITE)


def _objects(canvas: _Canvas, result: ObjectDetections) -> None:
    for found in reversed(result):
        canvas.box(found.box, f"{found.label} {found.score:.0%}")


def _categories(canvas: _Canvas, result: Categories) -> None:
    for row, found in enumerate(result):
        canvas.label(f"{found.label} {found.score:.0%}", 0.0, 0.06 * (row + 1), SKY)


def _boxes(canvas: _Canvas, result: Objects3D) -> None:
    for found in reversed(result):
        canvas.lines(found.keypoints, EDGES, ORANGE, width=1.3, halo=True)
        canvas.lines(found.keypoints, FACING, SKY)
        x, y = found.keypoints[1:].min(axis=0).tolist()
        canvas.label(f"{found.label} {found.score:.0%}", x, y, ORANGE)


def _matches(canvas: _Canvas, result: TemplateMatches) -> None:
    for found in reversed(result):
        canvas.box(found.box, f"{found.score:.0%}")


def _tracks(canvas: _Canvas, result: TrackedObjects) -> None:
    for found in result:
        feet = found.trajectory[:, :2] + found.trajectory[:, 2:] * (0.5, 1)
        canvas.lines(feet, [(i, i + 1) for i in range(len(feet) - 1)], YELLOW, halo=True)
        canvas.box(found.box, f"{found.track_id} {found.label}")


def _poses(canvas: _Canvas, result: Poses) -> None:
    for pose in result:
        canvas.pose(pose)


_DRAW: dict[type, Callable[[_Canvas, Any], None]] = {
    Categories: _categories,
    FaceDetections: _faces,
    FaceMeshes: _meshes,
    Hands: _hands,
    Holistic: _holistic,
    Irises: _irises,
    ObjectDetections: _objects,
    Objects3D: _boxes,
    Poses: _poses,
    Segmentation: _Canvas.mask,
    TemplateMatches: _matches,
    TrackedObjects: _tracks,
}
