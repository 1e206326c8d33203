"""Whole pictures: classes and vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

import numpy as np

from tabml.errors import OptionError
from tabml.vision.results.found import Float32, Found, as_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One class of a picture."""

    label: str
    """Its name, such as ``tabby``; its number where the model has no names."""
    score: float
    """The model's confidence, 0 to 1."""
    index: int
    """Its number."""

    def __repr__(self) -> str:
        return f"Category({self.label!r} {self.score:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {"label": self.label, "score": self.score, "index": self.index}

    def _points(self) -> Iterator[dict[str, Any]]:
        yield {"label": self.label, "score": self.score}


class Categories(Found[Category]):
    """The classes of one picture, the likeliest first."""

    __slots__ = ()
    _key: ClassVar[str] = "categories"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureEmbedding:
    """One picture as a vector."""

    vector: Float32
    """Shape (n,); of length 1 when the model was opened with ``l2_normalize``."""
    width: int
    """The frame's width, pixels."""
    height: int
    """The frame's height, pixels."""
    timestamp_ms: int | None = None
    """The frame's own timestamp, milliseconds, as it came in."""
    frame_number: int | None = None
    """The frame's own number, as it came in."""

    def similarity(self, other: PictureEmbedding) -> float:
        """The cosine of the angle between both, −1 to 1; 0 where one of them is zero.

        Raises:
            OptionError: the other one has another size.
        """
        if not isinstance(other, PictureEmbedding) or other.vector.shape != self.vector.shape:
            raise OptionError(f"other must be a PictureEmbedding of {len(self.vector)} values, of the same model")
        lengths = float(np.linalg.norm(self.vector) * np.linalg.norm(other.vector))
        return float(np.clip(self.vector @ other.vector / lengths, -1, 1)) if lengths else 0.0

    def __repr__(self) -> str:
        return f"PictureEmbedding({len(self.vector)} values)"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "type": "embedding",
            "width": self.width,
            "height": self.height,
            "timestamp_ms": self.timestamp_ms,
            "frame_number": self.frame_number,
            "vector": self.vector.tolist(),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """:meth:`to_dict` as one JSON document."""
        return as_json(self.to_dict(), indent)

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"
