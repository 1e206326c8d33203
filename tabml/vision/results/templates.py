"""Where a template was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from tabml.vision.results.found import Box, Found


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateMatch:
    """One place that looks like the template."""

    box: Box
    """Where it is; upright, around the template as it was turned."""
    score: float
    """The normalised correlation coefficient, at most 1: 1 for the same up to brightness and contrast."""
    scale: float
    """How many times the template's size it is."""
    rotation: float
    """Degrees by which the template was turned, counter-clockwise."""

    def __repr__(self) -> str:
        b = self.box
        return (
            f"TemplateMatch({self.score:.2f}, box=({b.x:.3f}, {b.y:.3f}, {b.width:.3f}, {b.height:.3f}), "
            f"scale={self.scale:g}, rotation={self.rotation:g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {"box": self.box.to_dict(), "score": self.score, "scale": self.scale, "rotation": self.rotation}

    def _points(self) -> Iterator[dict[str, Any]]:
        yield {"score": self.score, "scale": self.scale, "rotation": self.rotation, **self.box.to_dict()}


class TemplateMatches(Found[TemplateMatch]):
    """The places of one frame, the likest first."""

    __slots__ = ()
    _key: ClassVar[str] = "matches"
