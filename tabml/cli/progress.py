"""Progress on stderr, when a person watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing import Self

Item = TypeVar("Item")


def watched(items: Iterable[Item], total: int | None, unit: str) -> Iterator[Item]:
    """The items, with a bar on a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, total=total, unit=unit, leave=False)


class Fetching:
    """A line for each file on its way: what a provider's ``progress`` calls."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._name = ""

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """One step."""
        if not sys.stderr.isatty():
            if name != self._name:
                print(f"fetching {name}", file=sys.stderr)
                self._name = name
            return
        from tqdm import tqdm

        if name != self._name:
            self.close()
            self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=name, leave=False)
            self._name = name
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the line away."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
