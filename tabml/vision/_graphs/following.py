"""Video: following regions from frame to frame, and the smoothing of what is found in them.

The One-Euro filter is Casiez, Roussel and Vogel, "1 € Filter", CHI 2012; its steps and their precision here are
MediaPipe's ``one_euro_filter`` and ``low_pass_filter``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.vision._graphs.regions import Float32, Region

_FIRST_FREQUENCY = 30.0
_LEAST_SCALE = 1e-6


class LowPass:
    """An exponential mean of arrays of one shape."""

    def __init__(self) -> None:
        self.raw: Float32 | None = None
        """The values that came last."""
        self._mean: Float32 | None = None

    def __call__(self, values: Float32, alpha: Float32 | np.float32) -> Float32:
        """The mean after ``values``; ``alpha`` is their weight, 0 to 1."""
        mean: Float32 = values
        if self._mean is not None:
            mean = np.asarray(alpha * values + (1.0 - np.asarray(alpha, float)) * self._mean, np.float32)
        self.raw, self._mean = values, mean
        return mean


class OneEuro:
    """Smooths landmarks: strongly while they rest, hardly while they move."""

    def __init__(self, *, min_cutoff: float, beta: float, derivate_cutoff: float = 1.0) -> None:
        """Begin.

        Args:
            min_cutoff: Hz, while the landmarks rest.
            beta: How much the cutoff grows with the speed (in object sizes a second).
            derivate_cutoff: Hz, for the speed itself.
        """
        self._min_cutoff = float(np.float32(min_cutoff))
        self._beta = float(np.float32(beta))
        self._derivate_cutoff = float(np.float32(derivate_cutoff))
        self._frequency = _FIRST_FREQUENCY
        self._last_ns = 0
        self._values, self._speeds = LowPass(), LowPass()

    def __call__(self, values: Float32, at_ms: int, scale: np.float32 | None = None) -> Float32:
        """The landmarks smoothed.

        Args:
            values: Any shape, the same in every call.
            at_ms: The frame's time, later than the last call's.
            scale: The object's size in the unit of ``values``; 1 when None.
        """
        if scale is not None and scale < _LEAST_SCALE:
            return values
        now = at_ms * 1_000_000
        if self._last_ns:
            self._frequency = 1.0 / ((now - self._last_ns) * 1e-9)
        self._last_ns = now
        factor = 1.0 if scale is None else float(np.float32(1) / scale)
        moved: NDArray[np.floating[Any]] = np.zeros(values.shape)
        if self._values.raw is not None:
            moved = (values.astype(float) - self._values.raw) * factor * self._frequency
        speeds = self._speeds(moved.astype(np.float32), np.float32(self._alpha(self._derivate_cutoff)))
        cutoffs = self._min_cutoff + self._beta * np.abs(speeds.astype(float))
        return self._values(values, self._alpha(cutoffs).astype(np.float32))

    def _alpha(self, cutoffs: Any) -> Any:
        period, constants = 1.0 / self._frequency, 1.0 / (2 * math.pi * cutoffs)
        return 1.0 / (1.0 + constants / period)


class Follower:
    """Which regions to look at in the next frame, and whether to search the whole of it for more."""

    def __init__(self, *, most: int, search_interval: int) -> None:
        """Begin with none.

        Args:
            most: How many are followed at most.
            search_interval: While some but fewer than ``most`` are followed, search every so many frames.
        """
        self._most = most
        self._interval = search_interval
        self._waited = 0
        self.regions: list[Region] = []
        """Where what was found last is expected."""

    def wants_search(self) -> bool:
        """Whether the detector has to run on this frame."""
        if len(self.regions) >= self._most:
            return False
        if self.regions and self._waited + 1 < self._interval:
            self._waited += 1
            return False
        self._waited = 0
        return True

    def expect(self, regions: Sequence[Region]) -> None:
        """Follow these; a loss is searched for at once."""
        if len(regions) < len(self.regions):
            self._waited = self._interval
        self.regions = list(regions)

    def forget(self) -> None:
        """Begin anew."""
        self.regions, self._waited = [], 0


def replaced(followed: Sequence[Region], found: Sequence[Region], min_overlap: float) -> list[Region]:
    """Both lists as one, where the later of two regions that overlap more than ``min_overlap`` remains.

    Source: MediaPipe's ``association_calculator``.
    """
    kept: list[Region] = []
    for region in (*followed, *found):
        kept = [other for other in kept if overlap(region, other) <= min_overlap]
        kept.append(region)
    return kept


def added(followed: Sequence[Region], found: Sequence[Region], min_overlap: float) -> list[Region]:
    """Both lists as one, without what was found and overlaps an earlier region more than ``min_overlap``.

    Source: MediaPipe's ``hand_association_calculator``.
    """
    kept = list(followed)
    for region in found:
        if not any(overlap(region, other) > min_overlap for other in kept):
            kept.append(region)
    return kept


def overlap(a: Region, b: Region) -> float:
    """Intersection over union of two regions as if they were upright, 0 to 1."""
    shared = 1.0
    for start_a, side_a, start_b, side_b in (
        (a.x - a.width / 2, a.width, b.x - b.width / 2, b.width),
        (a.y - a.height / 2, a.height, b.y - b.height / 2, b.height),
    ):
        shared *= max(0.0, float(min(start_a + side_a, start_b + side_b) - max(start_a, start_b)))
    union = float(a.width * a.height + b.width * b.height) - shared
    return shared / union if union > 0 else 0.0
