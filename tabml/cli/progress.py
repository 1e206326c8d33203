"""Progress on stderr, when a person watches."""

from __future__ import annotations

import sys
import threading
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
    """A line for all files on their way: what a provider's ``progress`` calls, from one thread or several."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._lock = threading.Lock()
        self._files: dict[str, tuple[int, int]] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """One step."""
        with self._lock:
            is_new = name not in self._files
            self._files[name] = done, max(done, total or 0)
            if not sys.stderr.isatty():
                if is_new:
                    print(f"fetching {name}", file=sys.stderr)
                return
            from tqdm import tqdm

            if self._bar is None:
                self._bar = tqdm(unit="B", unit_scale=True, leave=False)
            if is_new:
                self._bar.set_description(name, refresh=False)
            self._bar.total = sum(size for _, size in self._files.values())
            self._bar.update(sum(part for part, _ in self._files.values()) - self._bar.n)
            if all(part == size for part, size in self._files.values()):
                self._close()

    def close(self) -> None:
        """Take the line away; it goes by itself when all files are here."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
