"""Landmarks of a video without their jitter: the One-Euro filter, for hands, poses, meshes or any array.

Casiez, Roussel and Vogel, "1 € Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems", CHI
2012: the faster something moves, the less it is smoothed, so that it neither trembles at rest nor lags behind in motion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tabml.errors import FrameOrderError, OptionError
from tabml.vision._graphs.following import OneEuro
from tabml.vision.results.faces import FaceMeshes
from tabml.vision.results.found import Box, Found, frozen
from tabml.vision.results.hands import Hands
from tabml.vision.results.poses import Poses

Result = TypeVar("Result", FaceMeshes, Hands, Poses)
_STEP_MS = 33
_LEAST_OVERLAP = 0.1


class OneEuroFilter:
    """Smooths arrays of one shape, value by value."""

    def __init__(self, *, min_cutoff: float = 1.5, beta: float = 0.05, derivative_cutoff: float = 1.0) -> None:
        """Begin.

        Args:
            min_cutoff: Hz, above 0: lower trembles less at rest and lags more.
            beta: From 0: how much the cutoff grows with the speed (units of the values a second); higher lags less in
                motion.
            derivative_cutoff: Hz, above 0: of the speed itself.

        Raises:
            OptionError: an option is outside its range.
        """
        for name, value, above in (
            ("min_cutoff", min_cutoff, True), ("beta", beta, False), ("derivative_cutoff", derivative_cutoff, True),
        ):  # fmt: skip
            good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not good or value < 0 or (above and value == 0):
                raise OptionError(f"{name}={value!r} must be a number {'above' if above else 'from'} 0")
        self._settings = {"min_cutoff": min_cutoff, "beta": beta, "derivate_cutoff": derivative_cutoff}
        self._euro = OneEuro(**self._settings)
        self._shape: tuple[int, ...] | None = None
        self._clock = 0
        self._last: int | None = None

    def filter(
        self, values: NDArray[Any], timestamp_ms: int | None = None, *, scale: float = 1.0
    ) -> NDArray[np.float32]:
        """The values, smoothed.

        Args:
            values: Any shape; another one than before begins anew.
            timestamp_ms: Later than the last call's; 33 ms later when None.
            scale: The object's size in the unit of ``values``, above 0: speeds are measured in it.

        Raises:
            FrameOrderError: ``timestamp_ms`` is not later than the last one; later values are filtered.
            OptionError: ``scale`` is not above 0, or a value is not finite.
        """
        array = np.asarray(values, np.float32)
        if not np.isfinite(array).all():
            raise OptionError("values must be finite")
        if not scale > 0 or not math.isfinite(scale):
            raise OptionError(f"scale={scale!r} must be a number above 0")
        if timestamp_ms is not None and self._last is not None and timestamp_ms <= self._last:
            raise FrameOrderError(f"timestamp_ms={timestamp_ms} is not later than the last one, {self._last}")
        if array.shape != self._shape:
            self._euro, self._shape, self._clock = OneEuro(**self._settings), array.shape, 0
        after = _STEP_MS if timestamp_ms is None or self._last is None else timestamp_ms - self._last
        self._last, self._clock = timestamp_ms, self._clock + after
        return self._euro(array, self._clock, np.float32(scale))


@dataclass(slots=True)
class _Followed:
    """Somebody, from frame to frame."""

    box: Box
    kind: str
    filters: dict[str, OneEuroFilter] = field(default_factory=dict)


class LandmarkSmoother:
    """Smooths the landmarks of hands, poses or meshes from frame to frame, several of each.

    Who is who is told by how boxes overlap. MediaPipe smooths one face and one pose by itself, never hands and never several: this is
    for them. Speeds are measured in sizes of what moves, so that near and far ones are smoothed alike.
    """

    def __init__(self, *, min_cutoff: float = 1.5, beta: float = 0.05, derivative_cutoff: float = 1.0) -> None:
        """Begin with nobody; the arguments are those of :class:`OneEuroFilter`, speeds in sizes a second.

        Raises:
            OptionError: an option is outside its range.
        """
        self._settings = {"min_cutoff": min_cutoff, "beta": beta, "derivative_cutoff": derivative_cutoff}
        OneEuroFilter(**self._settings)  # looks at the options
        self._known: list[_Followed] = []
        self._last: int | None = None

    def smooth(self, found: Result) -> Result:
        """The next frame's findings, smoothed; who is new, or comes back, begins anew.

        Raises:
            FrameOrderError: the frame's timestamp is not later than the last one's.
            OptionError: these are no hands, poses or meshes.
        """
        if not isinstance(found, FaceMeshes | Hands | Poses):
            raise OptionError(f"found must be Hands, Poses or FaceMeshes, not {type(found).__name__}")
        now = found.timestamp_ms
        if now is not None and self._last is not None and now <= self._last:
            raise FrameOrderError(f"timestamp_ms={now} is not later than the last frame's {self._last}")
        self._last = now
        before, self._known = self._known, []
        items = []
        for item in found:
            kind = getattr(item, "handedness", type(item).__name__)
            here = _taken(before, item.box, kind) or _Followed(item.box, kind)
            here.box = item.box
            self._known.append(here)
            items.append(self._smoothed(item, here, found))
        return replace(found, items=tuple(items))

    def _smoothed(self, item: Any, here: _Followed, found: Found[Any]) -> Any:
        size = np.array([found.width, found.height, found.width], np.float32)
        extent = float(max(item.box.width * found.width, item.box.height * found.height, 1.0))
        changed = {"landmarks": frozen(self._one(here, "landmarks", item.landmarks * size, found, extent) / size)}
        world = getattr(item, "world_landmarks", None)
        if world is not None:
            span = max(float(np.ptp(world, axis=0).max()), 1e-3)
            changed["world_landmarks"] = frozen(self._one(here, "world_landmarks", world, found, span))
        return replace(item, **changed)

    def _one(self, here: _Followed, name: str, values: Any, found: Found[Any], scale: float) -> NDArray[np.float32]:
        chosen = here.filters.get(name)
        if chosen is None:
            chosen = here.filters[name] = OneEuroFilter(**self._settings)
        return chosen.filter(values, found.timestamp_ms, scale=scale)


def _taken(known: list[_Followed], box: Box, kind: str) -> _Followed | None:
    """Whom the box is of: taken out of the list."""
    shares = [_overlap(each.box, box) if each.kind == kind else 0.0 for each in known]
    best = int(np.argmax(shares)) if shares else -1
    return known.pop(best) if best >= 0 and shares[best] >= _LEAST_OVERLAP else None


def _overlap(a: Box, b: Box) -> float:
    wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(0.0, wide) * max(0.0, high)
    union = a.width * a.height + b.width * b.height - shared
    return shared / union if union > 0 else 0.0
