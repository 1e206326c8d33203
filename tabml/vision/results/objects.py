"""Objects as boxes with classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from tabml.vision.results.found import Box, Float32, Found


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackedObject:
    """One object that is followed."""

    track_id: int
    """Its number, from 1; never another object's in the same stream."""
    box: Box
    """Where it is; inside the picture."""
    label: str
    """The name of its class; its number where the model has no names."""
    score: float
    """The model's confidence, 0 to 1."""
    index: int
    """The number of its class."""
    trajectory: Float32
    """Shape (n, 4), n ≥ 1: where it was seen, the oldest first and this frame last; left, top, width and height,
    normalised."""

    def __repr__(self) -> str:
        b = self.box
        return (
            f"TrackedObject({self.track_id}, {self.label!r} {self.score:.2f}, "
            f"box=({b.x:.3f}, {b.y:.3f}, {b.width:.3f}, {b.height:.3f}))"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "track_id": self.track_id,
            "box": self.box.to_dict(),
            "label": self.label,
            "score": self.score,
            "index": self.index,
            "trajectory": self.trajectory.tolist(),
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        yield {"track_id": self.track_id, "label": self.label, "score": self.score, **self.box.to_dict()}


class TrackedObjects(Found[TrackedObject]):
    """The objects that are followed and seen in one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "tracks"
