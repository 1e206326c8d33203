"""What a measurement gives: typed rows, and how they are shown."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from tabml.errors import OptionError, UnavailableHereError

Case = TypeVar("Case")
Say = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure."""

    case: str
    """What was measured, such as ``stream``."""
    name: str
    """Whose figure it is, such as ``tabml int8``."""
    value: float
    """The median of all turns."""
    unit: str
    """Of the value."""
    peer: str = ""
    """What it is compared with; empty where it is itself the peer, or a fact."""
    ratio: float | None = None
    """The value as a multiple of the peer's."""
    limit_share: float | None = None
    """Which part it reaches of what the memory's bandwidth allows, 0 to 1."""
    note: str = ""
    """What else should be known."""

    def to_dict(self) -> dict[str, Any]:
        """Field by field; what has no value is None."""
        return asdict(self)


def medians(works: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Seconds of each work, taken in turns after one that isn't counted."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if turn:
                found[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in found.items()}


def chosen(names: Sequence[str], cases: Mapping[str, Case], say: Say) -> Iterator[Case]:
    """The cases of these names, all when there is none; each is said when its turn comes.

    Raises:
        OptionError: there is no such case.
    """
    for name in names:
        if name not in cases:
            raise OptionError(f"only={name!r:.80} must be one of {', '.join(cases)}")
    for name in names or cases:
        say(f"measuring {name}")
        yield cases[name]


def table(rows: Iterable[Row]) -> str:
    """Rows as aligned columns, a headline above them."""
    cells = [("case", "name", "value", "unit", "ratio", "of the limit", "peer", "note")]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        share = "" if row.limit_share is None else f"{row.limit_share:.2f}"
        cells.append((row.case, row.name, f"{row.value:.4g}", row.unit, ratio, share, row.peer, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    numbers = (2, 4, 5)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def check_picture() -> None:
    """Nothing, when :func:`picture` can draw.

    Raises:
        UnavailableHereError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UnavailableHereError("the picture is drawn by matplotlib; run: python -m pip install matplotlib")


def picture(rows: Sequence[Row], path: Path) -> Path:
    """Bars of all rows, a panel for each case and unit.

    Raises:
        UnavailableHereError: matplotlib is not installed.
    """
    check_picture()
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row.case, row.unit), []).append(row)
    heights = [len(panel) + 1.5 for panel in panels.values()]
    figure = Figure(figsize=(9, 0.32 * sum(heights) + 0.4), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for place, ((case, unit), panel) in zip(axes, panels.items(), strict=True):
        colours = ["tab:blue" if row.name.startswith("tabml") else "tab:gray" for row in panel]
        bars = place.barh(range(len(panel)), [row.value for row in panel], color=colours)
        place.bar_label(bars, [_label(row) for row in panel], padding=3, fontsize=8)
        place.set_yticks(range(len(panel)), [row.name for row in panel], fontsize=8)
        place.set_title(f"{case}, {unit}", fontsize=9, loc="left")
        place.margins(x=0.25)
        place.invert_yaxis()
    figure.savefig(path)
    return path


def written(rows: Sequence[Row], folder: Path, name: str) -> tuple[Path, Path]:
    """The rows as ``name.json`` and ``name.png`` in a folder, which is made.

    Raises:
        UnavailableHereError: matplotlib is not installed.
    """
    check_picture()
    folder.mkdir(parents=True, exist_ok=True)
    answers = folder / f"{name}.json"
    answers.write_text(json.dumps([row.to_dict() for row in rows], indent=1) + "\n")
    return answers, picture(rows, folder / f"{name}.png")


def _label(row: Row) -> str:
    return f"{row.value:.4g}" if row.ratio is None else f"{row.value:.4g} (ratio {row.ratio:.2f})"
