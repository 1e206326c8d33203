"""Texts of several callers computed together: what arrives while the model works goes into its next batches.

Batches are made by turns: each belongs to the next caller, and is filled up with texts of the others that are about as long.
A caller with one text waits for one batch of everyone else, not for all of them.

A model may have several workers. What is alone has the whole processor, by the first worker, so that a model has one team of
processor threads; what is more is shared out, and no worker waits for the others.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from tabml.cancellation import current_cancellation
from tabml.errors import CapacityError, ModelClosedError, ModelForkedError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WAITING = 100_000
"""Of all callers together."""
_WAIT_S = 0.005
_LEAST_FILLING = 0.5
"""The shortest of a batch against its longest, where they are of different callers; the rest is padding."""
_SHORT = 16
"""Costs up to which that doesn't matter."""
_MOST_UNEQUAL = 1.6
"""The largest part, padded, against an equal share of what is in all of them."""


def by_length(costs: Sequence[int], max_cost: int) -> list[list[int]]:
    """Indices in batches, longest first, none of which has more than ``max_cost`` when padded to its longest.

    Args:
        costs: Of each item, such as its tokens.
        max_cost: The longest of a batch times its number; an item above it is a batch of its own.
    """
    batches: list[list[int]] = []
    for at in sorted(range(len(costs)), key=lambda at: -costs[at]):
        if batches and (len(batches[-1]) + 1) * costs[batches[-1][0]] <= max_cost:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


def shares(costs: Sequence[int], count: int, least: int) -> list[list[int]]:
    """Indices in ``count`` parts that cost about the same, each of items about as long; else all in one part.

    Args:
        costs: Of each item, such as its tokens.
        count: Of parts.
        least: That a part has to cost.
    """
    total = sum(costs)
    if count < 2 or total < count * least:
        return [list(range(len(costs)))]
    parts: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for at in sorted(range(len(costs)), key=lambda at: -costs[at]):
        parts[min(before * count // total, count - 1)].append(at)
        before += costs[at]
    if not all(parts) or max(len(part) * costs[part[0]] for part in parts) * count > total * _MOST_UNEQUAL:
        return [list(range(len(costs)))]
    return parts


class _Call(Generic[Item, Result]):
    """What one caller wants: items left, longest first, and results in the order of the request."""

    def __init__(self, caller: Hashable, items: Sequence[Item], costs: list[int]) -> None:
        self.caller = caller
        self.items = items
        self.costs = costs
        self.left = deque(sorted(range(len(items)), key=lambda at: -costs[at]))
        self.results: list[Any] = [None] * len(items)
        self.missing = len(items)
        self.problem: BaseException | None = None
        self.cancelled = False
        self.done = threading.Event()

    @property
    def next_cost(self) -> int:
        return self.costs[self.left[0]]

    def fail(self, problem: BaseException) -> None:
        self.problem = problem
        self.done.set()


class Batcher(Generic[Item, Result]):
    """One queue in front of one model. Thread-safe.

    An idle model begins at once. After a batch its worker waits up to 5 ms, and only while fewer callers are there than were
    when the batch was done, those with their answers among them.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Result]],
        *,
        cost: Callable[[Item], int],
        max_cost: int,
        free_cost: int = 0,
        max_waiting: int = MAX_WAITING,
        part: Callable[[list[Item]], Sequence[Result]] | None = None,
        workers: int = 1,
        least: int = 0,
        name: str = "batcher",
    ) -> None:
        """Workers start with the first call.

        Args:
            compute: The model: as many results as items, in their order; called by one thread while no other computes.
            cost: Of an item, such as its tokens.
            max_cost: Of a batch: its most costly item times their number.
            free_cost: Of a batch up to which it may be as unequal as it is.
            max_waiting: Items in the queue; a single call may have more when nothing else waits.
            part: The same as ``compute``, but called by several threads at once; needed for more than one worker.
            workers: That compute at once.
            least: What a batch may cost at least, before it is shared out among workers.
            name: Of the threads.
        """
        self._compute, self._part, self._cost = compute, part or compute, cost
        self._count, self._least = workers, least
        self._max_cost, self._free_cost, self._max_waiting, self._name = max_cost, free_cost, max_waiting, name
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._shared = threading.Condition(lock)
        """What idle workers but the first wait for: one of them is woken where there is more than one batch."""
        self._turns: deque[Hashable] = deque()
        self._calls: dict[Hashable, deque[_Call[Item, Result]]] = {}
        self._waiting = 0
        self._waiting_cost = 0
        self._busy = 0
        self._alone = False
        self._workers: list[threading.Thread] = []
        self._closed = False
        self._process = os.getpid()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return self._waiting

    def run(self, items: Sequence[Item], *, caller: Hashable = None) -> list[Result]:
        """The results, in the order of ``items``; blocks until they are there.

        Args:
            items: May be empty.
            caller: Who takes turns with the others; the thread when None.

        Raises:
            CapacityError: too much is waiting.
            CallCancelledError: the bound cancellation was set; the rest of the items is not computed.
            ModelClosedError: after :meth:`close`.
            ModelForkedError: in a forked child.
        """
        if os.getpid() != self._process:
            raise ModelForkedError("this model was opened before a fork; open a new one in the child")
        cancellation = current_cancellation()
        if cancellation is not None:
            cancellation.check()
        call = _Call[Item, Result](
            threading.get_ident() if caller is None else caller, items, [self._cost(item) for item in items]
        )
        if not items:
            return []
        self._join(call)

        def wake() -> None:
            call.cancelled = True
            call.done.set()

        forget = cancellation.on_cancel(wake) if cancellation is not None else None
        try:
            call.done.wait()
        finally:
            if forget is not None:
                forget()
            self._leave(call)
        if call.cancelled and cancellation is not None:
            cancellation.check()
        if call.problem is not None:
            raise call.problem
        return call.results

    def close(self) -> None:
        """Finish what waits, then end the workers; twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._shared.notify_all()
        for worker in self._workers:
            if worker is not threading.current_thread() and os.getpid() == self._process:
                worker.join()

    def _join(self, call: _Call[Item, Result]) -> None:
        with self._changed:
            if self._closed:
                raise ModelClosedError("this model is closed; open a new one")
            if self._waiting and self._waiting + call.missing > self._max_waiting:
                raise CapacityError(
                    f"{self._waiting} texts are waiting and {call.missing} more would be over the limit of "
                    f"{self._max_waiting}; try again a little later"
                )
            self._waiting += call.missing
            self._waiting_cost += sum(call.costs)
            if call.caller not in self._calls:
                self._calls[call.caller] = deque()
                self._turns.append(call.caller)
            self._calls[call.caller].append(call)
            if not self._workers:
                for number in range(self._count):
                    worker = threading.Thread(target=self._work, args=(not number,), name=self._name, daemon=True)
                    self._workers.append(worker)
                    worker.start()
            self._changed.notify_all()
            self._share()

    def _leave(self, call: _Call[Item, Result]) -> None:
        """Take out what is still in the queue."""
        with self._changed:
            self._drop(call)

    def _drop(self, call: _Call[Item, Result]) -> None:
        self._waiting -= len(call.left)
        self._waiting_cost -= sum(call.costs[at] for at in call.left)
        call.left.clear()
        self._tidy(call.caller)

    def _tidy(self, caller: Hashable) -> None:
        calls = self._calls.get(caller)
        if calls is None:
            return
        while calls and not calls[0].left:
            calls.popleft()
        if not calls:
            del self._calls[caller]
            self._turns.remove(caller)

    def _work(self, first: bool) -> None:
        expected, served_at, wake = 0, 0.0, self._changed if first else self._shared
        while True:
            with self._changed:
                while not self._is_mine(first) and not (self._closed and not self._turns):
                    wake.wait()
                if not self._turns:
                    self._shared.notify_all()  # a cancelled call may have been the last
                    return
                self._let_others_come(expected, served_at + _WAIT_S)
                if not self._is_mine(first):
                    continue
                batch = self._take()
                self._alone = not self._busy and not self._turns
                self._busy += 1
                compute = self._compute if self._alone else self._part
                self._share()
            self._answer(batch, compute)
            with self._changed:
                self._busy -= 1
                self._alone = False
                expected = len({call.caller for call, _ in batch} | self._calls.keys())
                served_at = time.monotonic()
                self._changed.notify_all()
                if self._closed:
                    self._shared.notify_all()

    def _share(self) -> None:
        if self._turns and self._busy and not self._alone:
            self._shared.notify()

    def _is_mine(self, first: bool) -> bool:
        """Whether a worker may take a batch: the first one any, the others what is beside another."""
        return bool(self._turns) and not self._alone and (first or self._busy > 0)

    def _let_others_come(self, expected: int, until: float) -> None:
        """As many as have just been answered often ask again at once: with them the batch is fuller."""
        while not self._closed and self._turns and len(self._calls) < expected and self._waiting_cost < self._max_cost:
            left = until - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _take(self) -> list[tuple[_Call[Item, Result], int]]:
        """The next batch: one item of the caller whose turn it is, then by turns what fits into a worker's share."""
        idle, most = self._count - self._busy, self._max_cost
        if idle > 1:
            most = min(most, max(-(-self._waiting_cost // idle), self._least))
        owner = self._turns[0]
        batch = [self._pop(owner)]
        shortest = longest = batch[0][0].costs[batch[0][1]]
        order = deque(self._turns)
        while order:
            caller = order.popleft()
            calls = self._calls.get(caller)
            if not calls:
                continue
            low, high = min(shortest, calls[0].next_cost), max(longest, calls[0].next_cost)
            whole = (len(batch) + 1) * high
            alike = low >= high * _LEAST_FILLING or high <= _SHORT or whole <= self._free_cost
            if whole <= most and alike:
                batch.append(self._pop(caller))
                order.append(caller)
                shortest, longest = low, high
        if owner in self._calls:
            self._turns.remove(owner)
            self._turns.append(owner)
        return batch

    def _pop(self, caller: Hashable) -> tuple[_Call[Item, Result], int]:
        call = self._calls[caller][0]
        at = call.left.popleft()
        self._waiting -= 1
        self._waiting_cost -= call.costs[at]
        self._tidy(caller)
        return call, at

    def _answer(
        self,
        batch: list[tuple[_Call[Item, Result], int]],
        compute: Callable[[list[Item]], Sequence[Result]],
    ) -> None:
        """Compute, and tell everyone; what fails together is tried again for each caller by itself."""
        try:
            results = compute([call.items[at] for call, at in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} texts")
        except BaseException as problem:
            calls = list(dict.fromkeys(call for call, _ in batch))
            if len(calls) == 1:
                with self._changed:
                    self._drop(calls[0])
                    calls[0].fail(problem)
                return
            for one in calls:
                self._answer([(call, at) for call, at in batch if call is one], compute)
            return
        with self._changed:  # other workers may have a part of the same call
            for (call, at), result in zip(batch, results, strict=True):
                call.results[at] = result
                call.missing -= 1
                if not call.missing:
                    call.done.set()
