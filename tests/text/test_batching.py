"""Texts of several callers in one batch: order, turns, waits, errors, cancels, the end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabml.cancellation import Cancellation
from tabml.errors import CallCancelledError, CapacityError, ModelClosedError
from tabml.text.batching import Batcher, by_length


class Model:
    """Doubles numbers, remembers its batches, and waits while its gate is shut."""

    def __init__(self, max_cost: int = 64, **options: int) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batcher: Batcher[int, int] = Batcher(self.compute, cost=abs, max_cost=max_cost, **options)

    def compute(self, items: list[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.gate.wait(20)
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]

    def waits_for(self, count: int) -> None:
        until = time.monotonic() + 10
        while self.batcher.waiting != count:
            assert time.monotonic() < until
            time.sleep(0.001)


class Lanes:
    """Doubles numbers by several workers, and remembers what was computed beside what; each number may have a gate."""

    def __init__(self, workers: int, max_cost: int = 64, least: int = 0) -> None:
        self.seen: list[tuple[str, list[int]]] = []
        self.gates: dict[int, threading.Event] = {}
        self.running: list[str] = []
        self.together: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()
        self.batcher: Batcher[int, int] = Batcher(
            lambda items: self.compute("alone", items), part=lambda items: self.compute("part", items),
            cost=abs, max_cost=max_cost, workers=workers, least=least,
        )  # fmt: skip

    def compute(self, how: str, items: list[int]) -> Sequence[int]:
        with self._lock:
            self.seen.append((how, list(items)))
            self.running.append(how)
            self.together.add(tuple(sorted(self.running)))
        try:
            for item in items:
                assert self.gates.get(item) is None or self.gates[item].wait(20)
            if 13 in items:
                raise ValueError("thirteen")
            return [2 * item for item in items]
        finally:
            with self._lock:
                self.running.remove(how)

    def reaches(self, count: int) -> None:
        until = time.monotonic() + 10
        while len(self.seen) < count:
            assert time.monotonic() < until
            time.sleep(0.001)


@given(st.lists(st.integers(0, 300)), st.integers(1, 512))
def test_batches_by_length_have_every_item_once_and_keep_the_limit(costs: list[int], most: int) -> None:
    batches = by_length(costs, most)
    assert sorted(at for batch in batches for at in batch) == list(range(len(costs)))
    assert all(len(batch) == 1 or len(batch) * max(costs[at] for at in batch) <= most for batch in batches)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(1, 40), max_size=30)), min_size=1, max_size=8),
    st.integers(1, 200),
)
def test_every_caller_gets_its_own_results_in_order(calls: list[tuple[int, list[int]]], most: int) -> None:
    model = Model(most)
    with ThreadPoolExecutor(len(calls)) as threads:
        jobs = [threads.submit(model.batcher.run, items, caller=caller) for caller, items in calls]
        for job, (_, items) in zip(jobs, calls, strict=True):
            if 13 in items:
                with pytest.raises(ValueError, match="thirteen"):
                    job.result(20)
            else:
                assert job.result(20) == [2 * item for item in items]
    assert model.batcher.waiting == 0
    assert not model.batcher._calls
    assert not model.batcher._turns
    assert all(len(batch) == 1 or len(batch) * max(batch) <= most for batch in model.batches)
    model.batcher.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(1, 40), max_size=30)), min_size=1, max_size=8),
    st.integers(1, 200),
    st.integers(2, 4),
    st.integers(0, 64),
)
def test_workers_share_what_is_more_than_one_batch(
    calls: list[tuple[int, list[int]]], most: int, workers: int, least: int
) -> None:
    model = Lanes(workers, most, least)
    with ThreadPoolExecutor(len(calls)) as threads:
        jobs = [threads.submit(model.batcher.run, items, caller=caller) for caller, items in calls]
        for job, (_, items) in zip(jobs, calls, strict=True):
            if 13 in items:
                with pytest.raises(ValueError, match="thirteen"):
                    job.result(20)
            else:
                assert job.result(20) == [2 * item for item in items]
    model.batcher.close()
    assert model.batcher.waiting == model.batcher._waiting_cost == model.batcher._busy == 0
    assert not model.batcher._calls
    assert all(len(batch) == 1 or len(batch) * max(batch) <= most for _, batch in model.seen)
    assert all(set(together) == {"part"} or len(together) == 1 for together in model.together)
    assert max(map(len, model.together), default=0) <= workers


def test_what_is_alone_has_all_threads_and_what_is_more_is_shared_out() -> None:
    model = Lanes(2)
    assert model.batcher.run([5]) == [10]
    model.gates[6] = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(model.batcher.run, [6, 6, 6, 6])
        model.reaches(3)
        model.gates[6].set()
        assert job.result(5) == [12] * 4
    assert model.seen == [("alone", [5]), ("part", [6, 6]), ("part", [6, 6])]
    model.batcher.close()
    few = Lanes(2, least=20)
    assert few.batcher.run([5, 5, 5, 5]) == [10] * 4
    assert few.seen == [("alone", [5, 5, 5, 5])]
    few.batcher.close()


def test_a_worker_does_not_wait_for_another() -> None:
    model = Lanes(2)
    model.gates[7] = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(model.batcher.run, [7, 3], caller="slow")
        model.reaches(2)
        for _ in range(3):
            assert model.batcher.run([4], caller="quick") == [8]
        assert not slow.done()
        model.gates[7].set()
        assert slow.result(5) == [14, 6]
    assert [how for how, _ in model.seen] == ["part"] * 5
    model.batcher.close()


def test_what_comes_while_one_has_all_threads_waits() -> None:
    model = Lanes(3)
    model.gates[7] = threading.Event()
    with ThreadPoolExecutor(3) as threads:
        alone = threads.submit(model.batcher.run, [7])
        model.reaches(1)
        others = [threads.submit(model.batcher.run, [size]) for size in (4, 5)]
        until = time.monotonic() + 10
        while model.batcher.waiting != 2:
            assert time.monotonic() < until
        time.sleep(0.02)
        assert len(model.seen) == 1
        model.gates[7].set()
        assert [job.result(5) for job in (alone, *others)] == [[14], [8], [10]]
    assert model.together <= {("alone",), ("part",), ("part", "part")}
    model.batcher.close()


def test_closing_waits_for_all_workers() -> None:
    model = Lanes(2)
    before = threading.active_count()
    model.gates[7] = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        job = threads.submit(model.batcher.run, [7, 7, 7])
        model.reaches(2)
        closing = threads.submit(model.batcher.close)
        time.sleep(0.02)
        assert not closing.done()
        model.gates[7].set()
        closing.result(5)
        assert job.result(5) == [14] * 3
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [2, 4])
def test_a_cancel_while_it_closes_wakes_all_workers(workers: int) -> None:
    def ask(cancellation: Cancellation, batcher: Batcher[int, int]) -> None:
        with suppress(CallCancelledError, ModelClosedError), cancellation.bound():
            batcher.run([1] * 4)

    for _ in range(40):  # each of them hung one time in ten
        model = Lanes(workers, max_cost=1)
        cancellations = [Cancellation() for _ in range(8)]
        with ThreadPoolExecutor(9) as threads:
            for cancellation in cancellations:
                threads.submit(ask, cancellation, model.batcher)
            closing = threads.submit(model.batcher.close)
            for cancellation in cancellations:
                cancellation.cancel("enough")
            try:
                closing.result(10)
            finally:
                with model.batcher._changed:
                    model.batcher._shared.notify_all()  # or a failure would never end


def test_texts_that_arrive_while_the_model_works_are_computed_together() -> None:
    model = Model()
    model.gate.clear()
    with ThreadPoolExecutor(5) as threads:
        jobs = [threads.submit(model.batcher.run, [1])]
        assert model.entered.wait(5)
        jobs += [threads.submit(model.batcher.run, [at]) for at in (2, 3, 4, 3)]
        model.waits_for(4)
        model.gate.set()
        assert [job.result(5) for job in jobs] == [[2], [4], [6], [8], [6]]
    assert model.batches[0] == [1]
    assert sorted(model.batches[1]) == [2, 3, 3, 4]
    model.batcher.close()


def test_a_caller_with_one_text_does_not_wait_for_a_thousand() -> None:
    model = Model(max_cost=10)
    model.gate.clear()
    with ThreadPoolExecutor(2) as threads:
        many = threads.submit(model.batcher.run, [1] * 1000)
        assert model.entered.wait(5)
        one = threads.submit(model.batcher.run, [7])
        model.waits_for(991)
        model.gate.set()
        assert one.result(5) == [14]
        assert [7] in model.batches[:4]
        assert many.result(5) == [2] * 1000
    model.batcher.close()


def test_callers_take_turns() -> None:
    model = Model(max_cost=4)
    model.gate.clear()
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(model.batcher.run, [1])
        assert model.entered.wait(5)
        jobs = [threads.submit(model.batcher.run, [size] * 3, caller=size) for size in (30, 31, 32)]
        model.waits_for(9)
        model.gate.set()
        for job in (first, *jobs):
            job.result(5)
    turns = [batch[0] for batch in model.batches[1:]]
    assert sorted(turns[:3]) == sorted(turns[3:6]) == sorted(turns[6:]) == [30, 31, 32]
    model.batcher.close()


def test_one_bad_text_fails_only_its_caller() -> None:
    model = Model()
    model.gate.clear()
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(model.batcher.run, [1])]
        assert model.entered.wait(5)
        jobs += [threads.submit(model.batcher.run, items) for items in ([12, 14], [13, 12], [11])]
        model.waits_for(5)
        model.gate.set()
        assert jobs[1].result(5) == [24, 28]
        assert jobs[3].result(5) == [22]
        with pytest.raises(ValueError, match="thirteen"):
            jobs[2].result(5)
    assert model.batcher.run([5]) == [10]
    model.batcher.close()


def test_a_wrong_number_of_results_is_an_error_for_all() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [1], cost=abs, max_cost=64)
    with pytest.raises(RuntimeError, match="1 results for 2"):
        batcher.run([1, 2])
    batcher.close()


def test_an_idle_model_answers_at_once() -> None:
    model = Model()
    model.batcher.run([1])
    took = []
    for _ in range(50):
        begin = time.perf_counter()
        model.batcher.run([1])
        took.append(time.perf_counter() - begin)
    assert sorted(took)[25] < 0.003
    model.batcher.close()


def test_a_caller_that_comes_in_another_thread_each_time_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    wait = threading.Condition.wait
    monkeypatch.setattr(
        threading.Condition, "wait", lambda self, timeout=None: waits.append(timeout) or wait(self, timeout)
    )
    model = Model()
    for caller in range(5):
        assert model.batcher.run([caller], caller=caller) == [2 * caller]
    assert not [seconds for seconds in waits if seconds is not None]
    assert len(model.batches) == 5


def test_callers_that_ask_again_and_again_come_together() -> None:
    model = Model(max_cost=1000)
    begin = threading.Barrier(4)

    def ask() -> None:
        begin.wait(5)
        for _ in range(30):
            assert model.batcher.run([5]) == [10]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(model.batches) < 80, "120 texts"
    model.batcher.close()


def test_a_cancelled_call_leaves_the_queue() -> None:
    model = Model(max_cost=1)
    model.gate.clear()
    cancellation = Cancellation()

    def ask() -> list[int]:
        with cancellation.bound():
            return model.batcher.run([1] * 100)

    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(ask)
        assert model.entered.wait(5)
        cancellation.cancel("enough")
        with pytest.raises(CallCancelledError, match="enough"):
            job.result(5)
    assert model.batcher.waiting == 0
    model.gate.set()
    assert model.batcher.run([3]) == [6]
    assert len(model.batches) == 2
    with cancellation.bound(), pytest.raises(CallCancelledError):
        model.batcher.run([1])
    model.batcher.close()


def test_the_queue_is_bounded_but_one_call_may_be_large() -> None:
    model = Model(max_cost=1, max_waiting=10)
    assert model.batcher.run([1] * 50) == [2] * 50
    model.gate.clear()
    model.entered.clear()
    with ThreadPoolExecutor(2) as threads:
        job = threads.submit(model.batcher.run, [1] * 9)
        assert model.entered.wait(5)
        with pytest.raises(CapacityError, match="limit of 10"):
            model.batcher.run([1, 1, 1])
        model.gate.set()
        assert job.result(5) == [2] * 9
    model.batcher.close()


def test_close_finishes_what_waits_and_ends_the_thread() -> None:
    model = Model(max_cost=1)
    model.gate.clear()
    before = threading.active_count()
    with ThreadPoolExecutor(2) as threads:
        job = threads.submit(model.batcher.run, [1, 2, 3])
        assert model.entered.wait(5)
        closing = threads.submit(model.batcher.close)
        time.sleep(0.02)
        assert not closing.done()
        model.gate.set()
        closing.result(5)
        assert job.result(5) == [2, 4, 6]
    assert threading.active_count() == before
    with pytest.raises(ModelClosedError):
        model.batcher.run([1])
    model.batcher.close()


def test_nothing_starts_a_thread_before_the_first_text() -> None:
    before = threading.active_count()
    model = Model()
    assert model.batcher.run([]) == []
    assert threading.active_count() == before
    model.batcher.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told(run_python) -> None:  # type: ignore[no-untyped-def]
    done = run_python(
        """
        import os
        from tabml.errors import ModelForkedError
        from tabml.text.batching import Batcher

        batcher = Batcher(lambda items: items, cost=abs, max_cost=9)
        batcher.run([1])
        if not (child := os.fork()):
            try:
                batcher.run([1])
            except ModelForkedError:
                os._exit(7)
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert done.stdout.strip() == "7", done.stderr
