"""Objects as boxes with classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from tabml.vision.results.found import Box, Found


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectDetection:
    """One object."""

    box: Box
    """Where it is; inside the picture."""
    label: str
    """The name of its class, such as ``dog``; its number where the model has no names."""
    score: float
    """The model's confidence, 0 to 1."""
    index: int
    """The number of its class."""

    def __repr__(self) -> str:
        b = self.box
        return f"ObjectDetection({self.label!r} {self.score:.2f}, box=({b.x:.3f}, {b.y:.3f}, {b.width:.3f}, {b.height:.3f}))"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {"box": self.box.to_dict(), "label": self.label, "score": self.score, "index": self.index}

    def _points(self) -> Iterator[dict[str, Any]]:
        yield {"label": self.label, "score": self.score, **self.box.to_dict()}


class ObjectDetections(Found[ObjectDetection]):
    """The objects of one frame, the likeliest first."""

    __slots__ = ()
    _key: ClassVar[str] = "objects"
