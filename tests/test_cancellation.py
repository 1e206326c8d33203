"""The flag that long work looks at: set once, heard by all who listen."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from tabml.cancellation import Cancellation, current_cancellation
from tabml.errors import CallCancelledError


def test_nothing_is_cancelled_until_it_is() -> None:
    cancellation = Cancellation()
    assert not cancellation.cancelled
    cancellation.check()
    cancellation.cancel()
    assert cancellation.cancelled
    with pytest.raises(CallCancelledError, match="the caller cancelled"):
        cancellation.check()


@pytest.mark.parametrize("reason", ["the model was unloaded", ""])
def test_only_the_first_cancel_counts(reason: str) -> None:
    heard: list[int] = []
    cancellation = Cancellation()
    cancellation.on_cancel(lambda: heard.append(1))
    cancellation.cancel(reason)
    cancellation.cancel("another reason")
    with pytest.raises(CallCancelledError) as caught:
        cancellation.check()
    assert str(caught.value) == reason
    assert heard == [1]


def test_who_listens_too_late_is_called_at_once_and_once() -> None:
    heard: list[str] = []
    cancellation = Cancellation()
    cancellation.cancel()
    forget = cancellation.on_cancel(lambda: heard.append("late"))
    assert heard == ["late"]
    forget()
    cancellation.cancel()
    assert heard == ["late"]


def test_who_took_it_back_is_not_called() -> None:
    heard: list[str] = []
    cancellation = Cancellation()
    forget = cancellation.on_cancel(lambda: heard.append("gone"))
    cancellation.on_cancel(lambda: heard.append("here"))
    forget()
    forget()
    cancellation.cancel()
    assert heard == ["here"]
    forget()


def test_the_same_listener_may_listen_twice_and_go_once() -> None:
    heard: list[int] = []
    cancellation = Cancellation()

    def listen() -> None:
        heard.append(1)

    cancellation.on_cancel(listen)
    cancellation.on_cancel(listen)()
    cancellation.cancel()
    assert heard == [1]


def test_a_listener_may_use_the_flag_itself() -> None:
    heard: list[bool] = []
    cancellation = Cancellation()
    forget = cancellation.on_cancel(lambda: None)

    def listen() -> None:
        forget()
        cancellation.cancel("again")
        cancellation.on_cancel(lambda: heard.append(cancellation.cancelled))

    cancellation.on_cancel(listen)
    working = threading.Thread(target=cancellation.cancel, daemon=True)
    working.start()
    working.join(20)
    assert not working.is_alive(), "it waits for itself"
    assert heard == [True]


def test_another_thread_is_woken() -> None:
    cancellation, woken = Cancellation(), threading.Event()
    cancellation.on_cancel(woken.set)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(woken.wait, 20)
        cancellation.cancel()
        assert waiting.result()


def test_of_many_threads_that_cancel_one_calls_back() -> None:
    for _ in range(50):
        cancellation, heard = Cancellation(), []
        cancellation.on_cancel(lambda heard=heard: heard.append(1))  # type: ignore[misc]
        start = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _, c=cancellation, s=start: (s.wait(), c.cancel()), range(4)))  # type: ignore[misc]
        assert heard == [1]


def test_work_deep_inside_finds_what_its_call_is_bound_to() -> None:
    outer, inner = Cancellation(), Cancellation()
    assert current_cancellation() is None
    with outer.bound():
        assert current_cancellation() is outer
        with inner.bound():
            assert current_cancellation() is inner
        with pytest.raises(ZeroDivisionError), inner.bound():
            raise ZeroDivisionError
        assert current_cancellation() is outer
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(current_cancellation).result() is None
            assert pool.submit(copy_context().run, current_cancellation).result() is outer
    assert current_cancellation() is None
