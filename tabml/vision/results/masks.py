"""Masks."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tabml.errors import MissingExtraError
from tabml.vision.results.found import as_json

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmentation:
    """A mask as large as the frame."""

    mask: NDArray[np.float32] | NDArray[np.uint8]
    """Shape (height, width). ``confidence``: float32, 0 to 1, how surely the pixel is the person.
    ``category``: uint8, the pixel's class as an index into ``labels``."""
    kind: Literal["confidence", "category"]
    """Which of the two the mask is."""
    labels: tuple[str, ...] = ("background", "person")
    """The names of the classes."""
    timestamp_ms: int | None = None
    """The frame's own timestamp, milliseconds, as it came in."""
    frame_number: int | None = None
    """The frame's own number, as it came in."""
    prompt: tuple[tuple[float, float], ...] = ()
    """Where an interactive segmenter was pointed: x and y of each place, 0 to 1."""

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.mask.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.mask.shape[0])

    def selected(self, threshold: float = 0.5) -> NDArray[np.bool_]:
        """Shape (height, width): True where something other than background is."""
        return self.mask >= threshold if self.kind == "confidence" else self.mask > 0

    @property
    def coverage(self) -> float:
        """The share of the frame that is not background, 0 to 1."""
        return float(self.selected().mean())

    def __repr__(self) -> str:
        return f"Segmentation({self.kind}, {self.width}×{self.height}, {self.coverage:.0%} selected)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the mask as run lengths of :meth:`selected`.

        ``runs`` are the lengths of alternating runs in row-major order; the first counts unselected pixels.
        """
        flat = self.selected().ravel()
        edges = np.flatnonzero(np.diff(flat, prepend=False, append=~flat[-1:]))
        return {
            "type": "mask",
            "kind": self.kind,
            "width": self.width,
            "height": self.height,
            "timestamp_ms": self.timestamp_ms,
            "frame_number": self.frame_number,
            "labels": list(self.labels),
            "coverage": self.coverage,
            "prompt": [list(place) for place in self.prompt],
            "runs": np.diff(edges, prepend=0).tolist(),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """:meth:`to_dict` as one JSON document."""
        return as_json(self.to_dict(), indent)

    def to_pandas(self) -> pd.DataFrame:
        """One row a class: its label, its pixels and its share of the frame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("pandas", "pandas") from None
        classes = self.mask if self.kind == "category" else self.selected()
        counts = np.bincount(classes.ravel().astype(np.intp), minlength=len(self.labels))
        return pd.DataFrame(
            {"label": self.labels, "pixels": counts[: len(self.labels)], "share": counts / self.mask.size}
        )

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"
