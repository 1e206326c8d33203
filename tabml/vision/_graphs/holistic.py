"""Several graphs on one picture, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tabml.vision._graphs.graph import Graph
from tabml.vision._graphs.regions import Pixels
from tabml.vision._pixels import check_pixels

Answer = TypeVar("Answer")


def _as_it_is(found: Any) -> Any:
    return found


class Together:
    """A task that answers with a list: what each graph finds."""

    def __init__(self, graphs: Sequence[Graph], *, threads: int) -> None:
        """Take the graphs, the slowest first.

        Args:
            graphs: At least one; closed with this.
            threads: How many run at a time.
        """
        self._graphs = list(graphs)
        workers = min(threads, len(self._graphs)) - 1  # the caller's own thread works too
        self._pool = ThreadPoolExecutor(workers, "tabml-together") if workers else None

    def run(self, pixels: Pixels, convert: Callable[[Any], Answer], *, after_ms: int = 33) -> Answer:
        """Run all on one picture; see :meth:`tabml.vision._graphs.graph.Graph.run`.

        When one fails, all begin anew with the next frame.
        """
        check_pixels(pixels)
        pending: list[Future[Any]] = []
        if self._pool is not None:
            pending = [self._pool.submit(graph.run, pixels, _as_it_is, after_ms=after_ms) for graph in self._graphs]
        found: list[Any] = []
        problems: list[BaseException] = []
        for at, graph in reversed(list(enumerate(self._graphs))):  # the pool begins at the front, this thread behind
            try:
                mine = not pending or pending[at].cancel()
                found.append(graph.run(pixels, _as_it_is, after_ms=after_ms) if mine else pending[at].result())
            except BaseException as problem:
                problems.append(problem)
        if problems:
            for graph in self._graphs:
                graph.forget()
            raise problems[-1]
        return convert(found[::-1])

    def close(self) -> None:
        """Free the graphs, after a call that is running; twice is fine."""
        if self._pool is not None:
            self._pool.shutdown()
        for graph in self._graphs:
            graph.close()
