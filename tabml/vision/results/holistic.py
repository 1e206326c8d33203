"""One person whole: face, hands and body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from tabml.errors import MissingExtraError
from tabml.vision.results.faces import FaceMeshResult
from tabml.vision.results.found import Float32, as_json, frozen
from tabml.vision.results.hands import Hand
from tabml.vision.results.poses import Pose

if TYPE_CHECKING:
    import pandas as pd

PARTS: tuple[str, ...] = ("face", "left_hand", "right_hand", "pose", "irises")
"""In the order of :attr:`Holistic.landmarks`: 468, 21, 21, 33 and 10 points."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Holistic:
    """What is seen of one person; what isn't seen is None."""

    face: FaceMeshResult | None
    """The face's mesh."""
    left_hand: Hand | None
    """The person's own left hand."""
    right_hand: Hand | None
    """The person's own right hand."""
    pose: Pose | None
    """The body."""
    width: int
    """The frame's width, pixels."""
    height: int
    """The frame's height, pixels."""
    timestamp_ms: int | None = None
    """The frame's own timestamp, milliseconds, as it came in."""
    frame_number: int | None = None
    """The frame's own number, as it came in."""

    @property
    def hands(self) -> tuple[Hand, ...]:
        """Those that are seen, the left one first."""
        return tuple(hand for hand in (self.left_hand, self.right_hand) if hand is not None)

    @property
    def parts(self) -> dict[str, slice]:
        """Where each part that is seen lies in :attr:`landmarks`."""
        found, start = {}, 0
        for name, points in self._arrays():
            found[name] = slice(start, start + len(points))
            start += len(points)
        return found

    @property
    def landmarks(self) -> Float32:
        """Shape (n, 3), normalised: the parts that are seen, one after another in the order of :data:`PARTS`.

        n is 553 when everything is: 543 of MediaPipe Holistic and 10 of the irises. z is on the scale of x, and relative
        to each part's own middle.
        """
        arrays = [points for _, points in self._arrays()]
        return frozen(np.concatenate(arrays) if arrays else np.empty((0, 3), np.float32))

    def _arrays(self) -> Iterator[tuple[str, Float32]]:
        if self.face is not None:
            yield "face", self.face.mesh
        for side in ("left_hand", "right_hand"):
            hand: Hand | None = getattr(self, side)
            if hand is not None:
                yield side, hand.landmarks
        if self.pose is not None:
            yield "pose", self.pose.landmarks
        if self.face is not None:
            yield "irises", self.face.landmarks[len(self.face.mesh) :]

    def __repr__(self) -> str:
        seen = ", ".join(name for name in PARTS[:-1] if getattr(self, name) is not None) or "nothing"
        return f"Holistic({seen}, {self.width}×{self.height})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        parts = {name: getattr(self, name) for name in PARTS[:-1]}
        return {
            "type": "holistic",
            "width": self.width,
            "height": self.height,
            "timestamp_ms": self.timestamp_ms,
            "frame_number": self.frame_number,
            **{name: None if part is None else part.to_dict() for name, part in parts.items()},
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """:meth:`to_dict` as one JSON document."""
        return as_json(self.to_dict(), indent)

    def to_pandas(self) -> pd.DataFrame:
        """One row a landmark: the frame's number and timestamp, the part, then its values.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("pandas", "pandas") from None
        return pd.DataFrame(
            [
                {"frame_number": self.frame_number, "timestamp_ms": self.timestamp_ms, "part": name, **row}
                for name in PARTS[:-1]
                if getattr(self, name) is not None
                for row in getattr(self, name)._points()
            ]
        )

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"
