"""Regions: the rotated rectangles of a picture that the models look at, cut out of it and mapped back.

All of it in 32-bit floats and in MediaPipe's order: a place that differs in its last bit is rounded to another
1/32 pixel now and then, and the landmark models turn that into 1e-3 of the picture.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_HALF = np.float32(0.5)
_RUN = 64
_STEPS = 32.0
_LEAST_LOGIT = np.float32(-80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A rotated rectangle, normalised: x and width by the picture's width, y and height by its height."""

    x: np.float32
    """Centre."""
    y: np.float32
    """Centre."""
    width: np.float32
    """Along the rectangle's own first axis."""
    height: np.float32
    """Along the rectangle's own second axis."""
    rotation: np.float32
    """Radians, clockwise as seen (y grows downwards)."""
    picture: tuple[int, int]
    """Width and height of the picture, pixels."""

    @property
    def _sine(self) -> np.float32:
        return np.float32(math.sin(self.rotation))

    @property
    def _cosine(self) -> np.float32:
        return np.float32(math.cos(self.rotation))

    def grown(self, scale: float, *, shift_y: float = 0.0) -> Region:
        """Moved along its own second axis by a share of its height, made square in pixels, then scaled.

        Source: MediaPipe's ``rect_transformation_calculator``.
        """
        across, down = self.picture
        x, y = self.x, self.y + self.height * np.float32(shift_y)
        if self.rotation:
            move = down * self.height * np.float32(shift_y)
            x, y = self.x + -move * self._sine / across, self.y + move * self._cosine / down
        side = max(self.width * across, self.height * down)
        return Region(
            x=x,
            y=y,
            width=side / across * np.float32(scale),
            height=side / down * np.float32(scale),
            rotation=self.rotation,
            picture=self.picture,
        )

    def widened(self, scale: float) -> Region:
        """Scaled, and still as wide and high as it was in relation."""
        return replace(self, width=self.width * np.float32(scale), height=self.height * np.float32(scale))

    def project(self, points: Float32) -> Float32:
        """From shares of the region, shape (n, 3), to shares of the picture; z to the scale of x.

        Source: MediaPipe's ``landmark_projection_calculator``; right for regions that are square in pixels.
        """
        sine, cosine = self._sine, self._cosine
        across, down = points[:, 0] - _HALF, points[:, 1] - _HALF
        mapped = np.empty_like(points)
        mapped[:, 0] = (cosine * across - sine * down) * self.width + self.x
        mapped[:, 1] = (sine * across + cosine * down) * self.height + self.y
        mapped[:, 2] = points[:, 2] * self.width
        return mapped

    def map(self, points: Float32) -> Float32:
        """As :meth:`project`, and right for all regions: MediaPipe's way where a graph projects by a matrix.

        z is scaled as a step along the region's first axis is, counted in shares of the picture.
        """
        across, down = self.picture
        wide, high = self.width * np.float32(across), self.height * np.float32(down)
        unit_x, unit_y = np.float32(1) / np.float32(across), np.float32(1) / np.float32(down)
        sine, cosine = self._sine, self._cosine
        start_x = (-_HALF * wide * cosine + _HALF * high * sine + self.x * np.float32(across)) * unit_x
        start_y = (-_HALF * high * cosine - _HALF * wide * sine + self.y * np.float32(down)) * unit_y
        mapped = np.empty_like(points)
        mapped[:, 0] = points[:, 0] * (wide * cosine * unit_x) + points[:, 1] * (-high * sine * unit_x) + start_x
        mapped[:, 1] = points[:, 0] * (wide * sine * unit_y) + points[:, 1] * (high * cosine * unit_y) + start_y
        mapped[:, 2] = points[:, 2] * np.float32(math.hypot(wide * cosine * unit_x, wide * sine * unit_y))
        return mapped

    def turn(self, points: Float32) -> Float32:
        """World points, shape (n, 3), turned back by the region's rotation: upright as the picture is."""
        sine, cosine = self._sine, self._cosine
        turned = points.copy()
        turned[:, 0] = cosine * points[:, 0] - sine * points[:, 1]
        turned[:, 1] = sine * points[:, 0] + cosine * points[:, 1]
        return turned


def sigmoid(logits: Float32) -> Float32:
    """From logits to 0 to 1, rounded as C does: numpy's own 32-bit exp is off by more than the last bit."""
    one = np.float32(1)
    likely: Float32 = one / (
        one + np.exp(-np.clip(logits, _LEAST_LOGIT, -_LEAST_LOGIT).astype(float)).astype(np.float32)
    )
    return likely


def normalised_angle(angle: float) -> np.float32:
    """The same angle from −π to π."""
    return np.float32(angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi)))


def heading(start: Any, end: Any, target: float) -> np.float32:
    """How far to turn a picture so that the way from ``start`` to ``end`` (pixels) points at ``target`` radians."""
    return normalised_angle(float(np.float32(target) - np.float32(math.atan2(-(end[1] - start[1]), end[0] - start[0]))))


def padding(width: int, height: int) -> tuple[np.float32, np.float32]:
    """How much of a square around a picture is empty on the left, and at the top: shares of the square."""
    shape = np.float32(height) / np.float32(width)
    if shape < 1:
        return np.float32(0), (1 - shape) / 2
    return (1 - 1 / shape) / 2, np.float32(0)


def cut(pixels: Pixels, region: Region | None, side: int, *, replicate: bool, low: float, high: float = 1.0) -> Float32:
    """The region as a model's input.

    Args:
        pixels: Shape (height, width, 3), uint8, RGB.
        region: What to cut out; upright and ``side`` pixels wide and high afterwards, bilinear. None is the
            whole picture in the middle of a square.
        side: The model's input side in pixels.
        replicate: Outside the picture: the nearest pixel instead of black.
        low: What black becomes.
        high: What white becomes.

    Returns:
        Shape (1, side, side, 3), float32, from ``low`` to ``high``.
    """
    height, width, _ = pixels.shape
    if region is None:
        where, between = _letterbox_sources(width, height, side)
    else:
        degrees = np.float32(float(region.rotation * np.float32(180)) / math.pi)
        centre = float(region.x * width), float(region.y * height)
        sides = float(region.width * width), float(region.height * height)
        where, between = _sources(centre, sides, float(degrees), side, side)
    border = cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT
    upright = cv2.remap(pixels, where, between, cv2.INTER_LINEAR, borderMode=border)
    return scaled(upright, low=low, high=high)


def scaled(pixels: Any, *, low: float, high: float) -> Float32:
    """Pixels as a model's input, shape (1, height, width, 3), float32, black as ``low`` and white as ``high``."""
    values: Float32 = np.multiply(pixels, np.float32((high - low) / 255), dtype=np.float32)
    if low:
        values += np.float32(low)
    return values[None]


def stretched(pixels: Pixels, columns: int, rows: int) -> Pixels:
    """The whole picture, made ``columns`` pixels wide and ``rows`` high."""
    height, width, _ = pixels.shape
    where, between = _stretched_sources(width, height, columns, rows)
    upright = cv2.remap(pixels, where, between, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(upright, np.uint8)


def _sources(
    centre: tuple[float, float], sides: tuple[float, float], degrees: float, columns: int, rows: int
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Where each pixel of an upright picture of ``columns`` by ``rows`` comes from, as ``cv2.remap`` takes it.

    The same steps in the same order as in MediaPipe, whose OpenCV rounds places to 1/32 pixel and works
    through rows in runs of 64; newer ones don't round.
    """
    upright = np.array([[0, rows], [0, 0], [columns, 0], [columns, rows]], np.float32)
    corners = cv2.boxPoints((centre, sides, degrees))
    back = cv2.invert(cv2.getPerspectiveTransform(corners, upright))[1]
    column = np.arange(columns)
    inside = column % _RUN
    starts, steps = np.multiply.outer(back[:, 0], column - inside), np.multiply.outer(back[:, 0], inside)
    down = np.multiply.outer(back[:, 1], np.arange(rows))[:, :, None]
    x, y, depth = (down + starts[:, None] + back[:, 2, None, None]) + steps[:, None]
    scale = np.divide(_STEPS, depth, out=depth)
    places = [np.rint(np.multiply(axis, scale, out=axis), out=axis).astype(np.int32) for axis in (x, y)]
    where = np.empty((rows, columns, 2), np.int16)
    for axis, place in enumerate(places):
        np.right_shift(place, 5, out=where[:, :, axis], casting="unsafe")
    return where, ((places[1] & 31) << 5 | places[0] & 31).astype(np.uint16)


@functools.lru_cache(maxsize=8)
def _letterbox_sources(width: int, height: int, side: int) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Of a whole picture in the middle of a square: the same for every frame of a stream."""
    longer = float(max(width, height))
    return _sources((width / 2, height / 2), (longer, longer), 0.0, side, side)


@functools.lru_cache(maxsize=8)
def _stretched_sources(
    width: int, height: int, columns: int, rows: int
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Of a whole picture that fills another."""
    return _sources((width / 2, height / 2), (float(width), float(height)), 0.0, columns, rows)
