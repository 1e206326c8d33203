"""Regions: the rotated rectangles of a picture that the models look at, cut out of it and mapped back."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_RUN = 64
_STEPS = 32.0
_LEAST_LOGIT = np.float32(-80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A rotated rectangle, in pixels of the picture."""

    x: float
    """Centre."""
    y: float
    """Centre."""
    width: float
    """Along the rectangle's own first axis."""
    height: float
    """Along the rectangle's own second axis."""
    rotation: float = 0.0
    """Radians, clockwise as seen (y grows downwards)."""

    def grown(self, scale: float, *, shift_y: float = 0.0, square: bool = True) -> Region:
        """Moved along its own second axis by a share of its height, made square, then scaled."""
        sine, cosine = math.sin(self.rotation), math.cos(self.rotation)
        move = self.height * shift_y
        width, height = self.width, self.height
        if square:
            width = height = max(width, height)
        return Region(
            x=self.x - move * sine,
            y=self.y + move * cosine,
            width=width * scale,
            height=height * scale,
            rotation=self.rotation,
        )

    def project(self, points: Float32) -> Float32:
        """From shares of the region, shape (n, 2) or more columns, to pixels; a third column, z, to the scale of x.

        Source: MediaPipe's ``landmark_projection_calculator``.
        """
        sine, cosine = math.sin(self.rotation), math.cos(self.rotation)
        across, down = (points[:, 0] - 0.5) * self.width, (points[:, 1] - 0.5) * self.height
        mapped = points.copy()
        mapped[:, 0] = across * cosine - down * sine + self.x
        mapped[:, 1] = across * sine + down * cosine + self.y
        if points.shape[1] > 2:
            mapped[:, 2] *= self.width
        return mapped

    def turn(self, points: Float32) -> Float32:
        """World points, shape (n, 3), as seen upright in the picture: turned back by the region's rotation."""
        sine, cosine = math.sin(self.rotation), math.cos(self.rotation)
        turned = points.copy()
        turned[:, 0] = cosine * points[:, 0] - sine * points[:, 1]
        turned[:, 1] = sine * points[:, 0] + cosine * points[:, 1]
        return turned


def sigmoid(logits: Float32) -> Float32:
    """From logits to 0 to 1; what exp can't bear in 32 bits counts as the most it can."""
    one = np.float32(1)
    likely: Float32 = one / (one + np.exp(-np.clip(logits, _LEAST_LOGIT, -_LEAST_LOGIT)))
    return likely


def normalised_angle(angle: float) -> float:
    """The same angle from −π to π."""
    return angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))


def heading(start: Any, end: Any, target: float) -> float:
    """How far to turn a picture so that the way from ``start`` to ``end`` (pixels) points at ``target`` radians."""
    return normalised_angle(target - math.atan2(-(float(end[1]) - float(start[1])), float(end[0]) - float(start[0])))


def whole(width: int, height: int) -> Region:
    """The square around a whole picture: the model sees all of it, letterboxed."""
    side = float(max(width, height))
    return Region(x=width / 2, y=height / 2, width=side, height=side)


def cut(pixels: Pixels, region: Region, side: int, *, replicate: bool, low: float, high: float = 1.0) -> Float32:
    """The region as a model's input.

    Args:
        pixels: Shape (height, width, 3), uint8, RGB.
        region: What to cut out; upright and ``side`` pixels wide and high afterwards, bilinear.
        side: The model's input side in pixels.
        replicate: Outside the picture: the nearest pixel instead of black.
        low: What black becomes.
        high: What white becomes.

    Returns:
        Shape (1, side, side, 3), float32, from ``low`` to ``high``.
    """
    where, between = _upright_sources(region, side) if region.rotation == 0 else _sources(region, side)
    border = cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT
    upright = cv2.remap(pixels, where, between, cv2.INTER_LINEAR, borderMode=border)
    values = np.multiply(upright, np.float32((high - low) / 255), dtype=np.float32)
    if low:
        values += np.float32(low)
    return values[None]


def _sources(region: Region, side: int) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Where each pixel of an upright ``side`` by ``side`` picture comes from, as ``cv2.remap`` takes it.

    The same steps in the same order as in MediaPipe, whose OpenCV rounds places to 1/32 pixel and works
    through rows in runs of 64; newer ones don't round, and a different rounding of a few pixels moves a box
    by 1e-3 of the picture.
    """
    box = ((region.x, region.y), (region.width, region.height), math.degrees(region.rotation))
    upright = np.array([[0, side], [0, 0], [side, 0], [side, side]], np.float32)
    back = cv2.invert(cv2.getPerspectiveTransform(cv2.boxPoints(box), upright))[1]
    column = np.arange(side)
    inside = column % _RUN
    starts, steps = np.multiply.outer(back[:, 0], column - inside), np.multiply.outer(back[:, 0], inside)
    rows = np.multiply.outer(back[:, 1], np.arange(side))[:, :, None]
    x, y, depth = (rows + starts[:, None] + back[:, 2, None, None]) + steps[:, None]
    scale = np.divide(_STEPS, depth, out=depth)
    places = [np.rint(np.multiply(axis, scale, out=axis), out=axis).astype(np.int32) for axis in (x, y)]
    where = np.empty((side, side, 2), np.int16)
    for axis, place in enumerate(places):
        np.right_shift(place, 5, out=where[:, :, axis], casting="unsafe")
    return where, ((places[1] & 31) << 5 | places[0] & 31).astype(np.uint16)


_upright_sources = functools.lru_cache(maxsize=8)(_sources)  # of whole pictures: the same for every frame of a stream
