"""What all answers share: boxes, and the findings of one frame as a sequence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from tabml.errors import MissingExtraError

try:
    import orjson
except ImportError:  # the model's own libraries may be here without it
    orjson = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import pandas as pd

Float32 = NDArray[np.float32]


class Finding(Protocol):
    def to_dict(self) -> dict[str, Any]: ...
    def _points(self) -> Iterator[dict[str, Any]]: ...


Item = TypeVar("Item", bound=Finding, covariant=True)


def frozen(array: Float32) -> Float32:
    """The array, contiguous and read-only from now on."""
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def as_json(values: dict[str, Any], indent: int | None = None) -> str:
    """Plain values as one JSON document; ten times as quick as :mod:`json` where orjson is installed."""
    if indent is None and orjson is not None:
        text: str = orjson.dumps(values).decode()
        return text
    return json.dumps(values, indent=indent, allow_nan=False, ensure_ascii=False)


def listed(array: Float32 | None) -> Any:
    """Plain numbers, or None."""
    return None if array is None else array.tolist()


def place(name: str, names: tuple[str, ...], kind: str) -> int:
    """The index of ``name``.

    Raises:
        KeyError: there is none; the message names all.
    """
    try:
        return names.index(name)
    except ValueError:
        raise KeyError(f"{name!r} is not a {kind} landmark; there are: {', '.join(names)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """An upright rectangle, normalised."""

    x: float
    """Left edge, fraction of the picture's width."""
    y: float
    """Top edge, fraction of the picture's height."""
    width: float
    """Fraction of the picture's width, 0 to 1."""
    height: float
    """Fraction of the picture's height, 0 to 1."""

    def to_pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels of a ``width`` by ``height`` picture."""
        return (
            round(self.x * width),
            round(self.y * height),
            round((self.x + self.width) * width),
            round((self.y + self.height) * height),
        )

    def to_dict(self) -> dict[str, float]:
        """The four fields by name."""
        return {"x": self.x, "y": self.y, "width": self.width, "height": self.height}


def bounds(points: Float32) -> Box:
    """The tightest box around points, shape (n, 2) or (n, 3)."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return Box(x=float(low[0]), y=float(low[1]), width=float(high[0] - low[0]), height=float(high[1] - low[1]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found(Sequence[Item]):
    """What one frame holds, in the model's own order; empty when there is nothing."""

    _key: ClassVar[str]

    items: tuple[Item, ...]
    """The findings."""
    width: int
    """The frame's width, pixels."""
    height: int
    """The frame's height, pixels."""
    timestamp_ms: int | None = None
    """The frame's own timestamp, milliseconds, as it came in."""
    frame_number: int | None = None
    """The frame's own number, as it came in."""

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        return self.items[index]

    def __repr__(self) -> str:
        inside = ", ".join(map(repr, self.items))
        return f"{type(self).__name__}([{inside}], {self.width}×{self.height})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "type": self._key,
            "width": self.width,
            "height": self.height,
            "timestamp_ms": self.timestamp_ms,
            "frame_number": self.frame_number,
            self._key: [item.to_dict() for item in self.items],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """:meth:`to_dict` as one JSON document."""
        return as_json(self.to_dict(), indent)

    def to_pandas(self) -> pd.DataFrame:
        """One row a landmark: the frame's number and timestamp, the finding's index, then its values.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("pandas", "pandas") from None
        return pd.DataFrame(
            [
                {"frame_number": self.frame_number, "timestamp_ms": self.timestamp_ms, "index": index, **row}
                for index, item in enumerate(self.items)
                for row in item._points()
            ]
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<li><code>{escape(repr(item))}</code></li>" for item in self.items)
        title = f"<b>{type(self).__name__}</b>: {len(self)} in {self.width}×{self.height}"
        return f"{title}<ul>{rows}</ul>"
