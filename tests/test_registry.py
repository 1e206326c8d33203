"""The registry of loaded models: in scenes whose threads stand still between two lines, against a dict, and in a crowd."""

from __future__ import annotations

import queue
import random
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tabml.cancellation import Cancellation
from tabml.errors import (
    CallCancelledError,
    ModelConflictError,
    ModelInUseError,
    ModelLoadError,
    ModelNotLoadedError,
    TabmlError,
)
from tabml.registry import Entry, Lease, ModelRegistry

PATIENCE_S = 20
"""How long a thread may take to stand still: only a test that fails waits for it."""


class Model:
    """Counts its closings, and knows when one of them is wrong."""

    def __init__(self) -> None:
        self.closed = 0
        self.leases = 0
        self.wrongs: list[str] = []

    def close(self) -> None:
        self.closed += 1
        if self.leases:
            self.wrongs.append("closed while it was leased")
        if self.closed > 1:
            self.wrongs.append("closed twice")


class Watched(threading.Condition):
    """A condition that knows who sleeps in it, and whose time limits are over when the test says so."""

    def __init__(self, pulse: threading.Condition) -> None:
        super().__init__()
        self.pulse = pulse
        self.asleep: set[threading.Thread] = set()
        self.late: set[threading.Thread] = set()
        self.held: set[threading.Thread] = set()
        """Who sleeps on for now, whatever happens."""
        self._owed = False

    def _tell(self, change: Callable[[], None]) -> None:
        with self.pulse:
            change()
            self.pulse.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        me = threading.current_thread()
        while not (done := predicate()) and timeout != 0 and not (timeout and me in self.late):
            self._sleep(me)
            while me in self.held:
                self._sleep(me)
        return done

    def _sleep(self, me: threading.Thread) -> None:
        self._tell(partial(self.asleep.add, me))
        self.wait()

    def notify_all(self) -> None:
        self._owed = bool(self.held)
        self._wake()

    def _wake(self) -> None:
        self._tell(self.asleep.clear)
        super().notify_all()

    def hold(self, threads: Iterable[threading.Thread]) -> None:
        """Let these sleep until :meth:`let_go`, which wakes them if anything did meanwhile."""
        with self:
            self.held.update(threads)

    def let_go(self) -> None:
        with self:
            self.held.clear()
            if self._owed:
                self._owed = False
                self._wake()

    def time_out(self, thread: threading.Thread) -> None:
        with self:
            self.late.add(thread)
            self._wake()


class Op(threading.Thread):
    """One call of the registry, in a thread of its own."""

    def __init__(self, stage: Stage, work: Callable[[Op], Any], **facts: Any) -> None:
        super().__init__(daemon=True)
        self.stage, self.work, self.facts = stage, work, facts
        self.cancellation = Cancellation()
        self.done = False
        self.building = False
        self.gate = threading.Event()
        self.model: Model | None = None
        """What its build is about to give; None fails."""
        self.stop: Cancellation | None = None
        """What its build was given."""
        self.value: Any = None
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.work(self)
        except BaseException as problem:
            self.problem = problem
        with self.stage.pulse:
            self.done = True
            self.stage.pulse.notify_all()

    def build(self, stop: Cancellation) -> Model:
        """Stands still until the test says how it ends."""
        self.stop = stop
        with self.stage.pulse:
            self.building = True
            self.stage.builds.append(self)
            self.stage.pulse.notify_all()
        assert self.gate.wait(PATIENCE_S)
        if self.model is None:
            raise ModelLoadError("the build failed")
        return self.model

    def still(self) -> bool:
        return self.done or self.building or self in self.stage.changed.asleep

    def result(self) -> Any:
        """What the call gave."""
        assert self.done, "the call still waits"
        if self.problem is not None:
            raise self.problem
        return self.value


class Stage:
    """A registry whose calls run in threads; after each step, every thread has ended or can't go on."""

    def __init__(self) -> None:
        self.pulse = threading.Condition()
        self.now = 1000.0
        self.registry: ModelRegistry[Model] = ModelRegistry(clock=lambda: self.now)
        self.changed = self.registry._changed = Watched(self.pulse)
        self.ops: list[Op] = []
        self.builds: list[Op] = []
        self.models: list[Model] = []

    def settle(self) -> None:
        with self.pulse:
            assert self.pulse.wait_for(lambda: all(op.still() for op in self.ops), PATIENCE_S), "a thread is stuck"
            self.ops = [op for op in self.ops if not op.done]

    def start(self, work: Callable[[Op], Any], **facts: Any) -> Op:
        op = Op(self, work, **facts)
        op.start()
        self.ops.append(op)
        self.settle()
        return op

    def load(self, model_id: str, spec: Hashable = 1) -> Op:
        return self.start(
            lambda op: self.registry.load(model_id, spec, op.build, cancellation=op.cancellation),
            id=model_id, spec=spec,
        )  # fmt: skip

    def unload(self, model_id: str, *, cancel: bool = False, timeout_s: float = 1e6) -> Op:
        return self.start(lambda _: self.registry.unload(model_id, cancel=cancel, timeout_s=timeout_s), id=model_id)

    def end_build(self, op: Op, *, good: bool = True) -> Model | None:
        if good:
            op.model = Model()
            self.models.append(op.model)
        op.building = False
        op.gate.set()
        self.settle()
        return op.model

    def loaded(self, model_id: str, spec: Hashable = 1) -> Model:
        model = self.end_build(self.load(model_id, spec))
        assert model is not None
        return model

    def borrow(self, model_id: str) -> Borrowed:
        context = self.registry.use(model_id)
        lease = context.__enter__()
        lease.model.leases += 1
        return Borrowed(self, model_id, context, lease)

    def cancel(self, op: Op) -> None:
        op.cancellation.cancel("enough")
        self.settle()

    def time_out(self, op: Op) -> None:
        self.changed.hold(set(self.ops) - {op})
        self.changed.time_out(op)
        self.settle()
        self.changed.let_go()
        self.settle()

    def end(self) -> None:
        """Let every thread end, whatever it waits for."""
        for _ in range(100):
            for op in [op for op in self.ops if op.building]:
                self.end_build(op, good=False)
            for op in self.ops:
                self.cancel(op)
            if not self.ops:
                return
        raise AssertionError("a thread does not end")


@dataclass
class Borrowed:
    """A lease, and how it ends."""

    stage: Stage
    model_id: str
    context: AbstractContextManager[Lease[Model]]
    lease: Lease[Model]

    def give_back(self) -> None:
        self.lease.model.leases -= 1
        self.context.__exit__(None, None, None)
        self.stage.settle()


def soon(work: Callable[[], Any]) -> Any:
    """What ``work`` gives: a test fails instead of waiting for it forever."""
    given: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=lambda: given.put(work()), daemon=True).start()
    try:
        return given.get(timeout=PATIENCE_S)
    except queue.Empty:
        raise AssertionError("it waits forever") from None


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.end()


def test_loads_of_one_model_at_once_build_once_and_end_alike(stage: Stage) -> None:
    first, second, third = (stage.load("a") for _ in range(3))
    assert stage.builds == [first]
    assert stage.registry.loading("a")
    assert stage.registry.get("a") is None
    model = stage.end_build(first)
    (entry, again), *others = (op.result() for op in (first, second, third))
    assert entry.model is model
    assert (entry.state, again) == ("ready", False)
    assert all(other == (entry, False) for other in others)
    assert stage.load("a").result() == (entry, True)
    assert stage.builds == [first]
    assert stage.registry.get("a") is entry
    assert not stage.registry.loading("a")


def test_models_of_other_names_load_side_by_side(stage: Stage) -> None:
    slow, quick = stage.load("slow"), stage.load("quick")
    model = stage.end_build(quick)
    assert quick.result()[0].model is model
    assert not slow.done
    assert [entry.model_id for entry in stage.registry.entries()] == ["quick"]


def test_another_spec_is_a_conflict_until_the_model_is_unloaded(stage: Stage) -> None:
    first = stage.load("a", spec="small")
    for _ in ("loading", "ready"):
        with pytest.raises(ModelConflictError, match=r"model_id='a' is loaded as small, not as large; unload it"):
            stage.load("a", spec="large").result()
        if not first.done:
            stage.end_build(first)
    assert first.result()[0].spec == "small"
    stage.unload("a").result()
    assert stage.loaded("a", spec="large").closed == 0


def test_who_takes_any_spec_gets_the_model_as_it_is(stage: Stage) -> None:
    first = stage.load("a", spec="small")
    second = stage.start(lambda op: stage.registry.load("a", "large", op.build, any_spec=True))
    stage.end_build(first)
    third = stage.start(lambda op: stage.registry.load("a", "large", op.build, any_spec=True))
    assert first.result()[0] is second.result()[0] is third.result()[0]
    assert stage.builds == [first]


def test_a_load_that_nobody_waits_for_is_cancelled(stage: Stage) -> None:
    first, second = stage.load("a"), stage.load("a")
    assert first.stop is not None
    stage.cancel(second)
    with pytest.raises(CallCancelledError, match="enough"):
        second.result()
    assert not first.stop.cancelled
    stage.cancel(first)
    assert first.stop.cancelled
    model = stage.end_build(first)
    with pytest.raises(CallCancelledError, match="nobody waits"):
        first.result()
    assert model is not None
    assert model.closed == 1
    assert stage.registry.get("a") is None


def test_who_builds_may_lose_interest_while_another_still_waits(stage: Stage) -> None:
    first, second = stage.load("a"), stage.load("a")
    stage.cancel(first)
    assert first.stop is not None
    assert not first.stop.cancelled
    assert not first.done
    model = stage.end_build(first)
    with pytest.raises(CallCancelledError, match="enough"):
        first.result()
    assert second.result()[0].model is model
    assert model is not None
    assert model.closed == 0


def test_a_load_after_one_that_was_cancelled_waits_for_its_end_and_builds_anew(stage: Stage) -> None:
    first = stage.load("a", spec="small")
    stage.cancel(first)
    second = stage.load("a", spec="large")
    assert stage.builds == [first]
    stage.end_build(first, good=False)
    assert stage.builds == [first, second]
    with pytest.raises(ModelLoadError):
        first.result()
    model = stage.end_build(second)
    assert second.result()[0].model is model
    assert second.result()[0].spec == "large"


def test_a_load_that_waits_for_another_to_end_can_be_cancelled(stage: Stage) -> None:
    first = stage.load("a")
    stage.cancel(first)
    second = stage.load("a")
    stage.cancel(second)
    with pytest.raises(CallCancelledError, match="enough"):
        second.result()
    stage.end_build(first)
    assert stage.builds == [first]


def test_a_load_that_is_cancelled_beforehand_builds_nothing() -> None:
    registry: ModelRegistry[Model] = ModelRegistry()
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CallCancelledError):
        registry.load("a", 1, lambda _: pytest.fail("it was built"), cancellation=cancellation)
    assert registry.get("a") is None
    assert not registry.loading("a")


def test_a_cancel_at_the_last_moment_does_not_block_the_name() -> None:
    class Late(Cancellation):
        """Cancelled after the build, as its call back is taken back."""

        def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
            forget = super().on_cancel(callback)

            def forget_too_late() -> None:
                self.cancel()
                forget()

            return forget_too_late

    registry: ModelRegistry[Model] = ModelRegistry()
    with pytest.raises(CallCancelledError):
        registry.load("a", 1, lambda _: Model(), cancellation=Late())
    assert soon(lambda: registry.load("a", 1, lambda _: Model()))[0].state == "ready"


def test_a_build_that_fails_fails_for_all_and_leaves_nothing(stage: Stage) -> None:
    first, second, third = (stage.load("a") for _ in range(3))
    stage.end_build(first, good=False)
    assert {id(op.problem) for op in (first, second, third)} == {id(first.problem)}
    assert isinstance(first.problem, ModelLoadError)
    assert stage.registry.entries() == []
    assert not stage.registry.loading("a")
    with pytest.raises(ModelNotLoadedError):
        stage.borrow("a")
    assert stage.loaded("a", spec=2).closed == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, SystemExit])
def test_a_build_may_fail_with_anything(kind: type[BaseException]) -> None:
    def build(_: Cancellation) -> Model:
        raise kind("stop")

    registry: ModelRegistry[Model] = ModelRegistry()
    with pytest.raises(kind):
        registry.load("a", 1, build)
    assert soon(lambda: registry.load("a", 1, lambda _: Model()))[1] is False


def test_an_unload_waits_for_the_calls_and_lends_to_nobody_meanwhile(stage: Stage) -> None:
    model = stage.loaded("a")
    calls = [stage.borrow("a"), stage.borrow("a")]
    unload = stage.unload("a")
    with pytest.raises(ModelNotLoadedError, match="model_id='a' is being unloaded; load it first"):
        stage.borrow("a")
    with pytest.raises(ModelNotLoadedError, match="nothing to unload"):
        stage.unload("a").result()
    assert stage.registry.entries() == []
    calls.pop().give_back()
    assert not unload.done
    assert not calls[0].lease.cancellation.cancelled
    assert model.closed == 0
    calls.pop().give_back()
    assert unload.result().state == "gone"
    assert (model.closed, model.wrongs) == (1, [])
    assert stage.registry.get("a") is None


def test_an_unload_that_takes_too_long_leaves_the_model_usable(stage: Stage) -> None:
    model = stage.loaded("a")
    call = stage.borrow("a")
    for timeout_s in (0, 1e6):
        unload = stage.unload("a", timeout_s=timeout_s)
        if timeout_s:
            assert not unload.done
            stage.time_out(unload)
        with pytest.raises(ModelInUseError, match=r"model_id='a' is still used by 1 calls after .* s"):
            unload.result()
        stage.borrow("a").give_back()
        assert stage.load("a").result()[1] is True
    assert model.closed == 0
    call.give_back()
    stage.unload("a", timeout_s=0).result()
    assert model.closed == 1


def test_an_unload_waits_no_longer_than_it_is_told() -> None:
    registry: ModelRegistry[Model] = ModelRegistry()
    registry.load("a", 1, lambda _: Model())
    with registry.use("a"), pytest.raises(ModelInUseError, match=r"after 0\.02 s"):
        registry.unload("a", timeout_s=0.02)


def test_an_unload_can_cancel_the_calls_but_still_waits_for_their_end(stage: Stage) -> None:
    model = stage.loaded("a")
    call = stage.borrow("a")
    woken = threading.Event()
    call.lease.cancellation.on_cancel(woken.set)
    unload = stage.unload("a", cancel=True)
    assert woken.is_set()
    with pytest.raises(CallCancelledError, match="model_id='a' was unloaded"):
        call.lease.cancellation.check()
    assert (unload.done, model.closed) == (False, 0)
    call.give_back()
    unload.result()
    assert model.closed == 1


def test_a_call_that_fails_gives_its_model_back(stage: Stage) -> None:
    model = stage.loaded("a")
    with pytest.raises(ZeroDivisionError), stage.registry.use("a"):
        1 / 0  # noqa: B018
    stage.unload("a", timeout_s=0).result()
    assert model.closed == 1


def test_a_load_during_an_unload_builds_anew_after_it(stage: Stage) -> None:
    old = stage.loaded("a", spec="small")
    call = stage.borrow("a")
    unload, load = stage.unload("a"), stage.load("a", spec="large")
    assert len(stage.builds) == 1
    call.give_back()
    unload.result()
    assert old.closed == 1
    assert stage.builds[1:] == [load]
    new = stage.end_build(load)
    assert load.result()[0].model is new


def test_a_load_during_an_unload_that_gives_up_gets_the_model_that_stays(stage: Stage) -> None:
    model = stage.loaded("a", spec="small")
    call = stage.borrow("a")
    unload = stage.unload("a")
    same, other = stage.load("a", spec="small"), stage.load("a", spec="large")
    stage.time_out(unload)
    entry, again = same.result()
    assert (entry.model, again) == (model, True)
    with pytest.raises(ModelConflictError):
        other.result()
    call.give_back()


def test_an_unload_waits_for_a_load_that_is_running(stage: Stage) -> None:
    load = stage.load("a")
    unload = stage.unload("a")
    assert load.stop is not None
    assert not load.stop.cancelled
    model = stage.end_build(load)
    unload.result()
    assert model is not None
    assert model.closed == 1
    assert stage.registry.get("a") is None


def test_an_unload_can_cancel_a_load_that_is_running(stage: Stage) -> None:
    load, other = stage.load("a"), stage.load("a")
    unload = stage.unload("a", cancel=True)
    assert load.stop is not None
    assert load.stop.cancelled
    model = stage.end_build(load)
    unload.result()
    for op in (load, other):
        with pytest.raises(CallCancelledError, match="is being unloaded"):
            op.result()
    assert model is not None
    assert model.closed == 1


def test_who_wakes_after_the_model_went_again_is_told(stage: Stage) -> None:
    first, late = stage.load("a"), stage.load("a")
    stage.changed.hold([late])
    stage.end_build(first)
    stage.unload("a").result()
    stage.changed.let_go()
    stage.settle()
    with pytest.raises(CallCancelledError, match="model_id='a' was unloaded while it loaded"):
        late.result()


def test_of_two_unloads_that_wait_for_a_load_one_is_told_that_the_other_was_quicker(stage: Stage) -> None:
    load = stage.load("a")
    quick, late = stage.unload("a"), stage.unload("a")
    stage.changed.hold([quick, late])
    stage.end_build(load)
    call = stage.borrow("a")
    stage.changed.held.remove(quick)
    stage.registry._notify()
    stage.settle()
    assert not quick.done
    stage.changed.let_go()
    stage.settle()
    with pytest.raises(ModelNotLoadedError, match="being unloaded by another call"):
        late.result()
    call.give_back()
    quick.result()


def test_an_unload_counts_the_time_that_the_load_took(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("tabml.registry.time.monotonic", lambda: now)
    load, unload = stage.load("a"), stage.unload("a", timeout_s=10)
    stage.changed.hold([unload])
    stage.end_build(load)
    call = stage.borrow("a")
    now = 10.0
    stage.changed.let_go()
    stage.settle()
    with pytest.raises(ModelInUseError, match="still used by 1 calls after 10 s"):
        unload.result()
    call.give_back()


def test_an_unload_gives_up_on_a_load_that_takes_too_long(stage: Stage) -> None:
    load = stage.load("a")
    with pytest.raises(ModelInUseError, match="model_id='a' is still loading after 0 s"):
        stage.unload("a", timeout_s=0).result()
    stage.end_build(load)
    assert load.result()[0].state == "ready"


@pytest.mark.parametrize("state", ["not loaded", "being loaded"])
def test_a_model_that_is_not_ready_is_lent_to_nobody(stage: Stage, state: str) -> None:
    if state == "being loaded":
        stage.load("a")
    with pytest.raises(ModelNotLoadedError, match=f"model_id='a' is {state}; load it first"):
        stage.borrow("a")


def test_nothing_that_is_not_loaded_can_be_unloaded() -> None:
    registry: ModelRegistry[Model] = ModelRegistry()
    with pytest.raises(ModelNotLoadedError, match="model_id='a' is not loaded"):
        registry.unload("a")


class Stubborn(Model):
    def close(self) -> None:
        super().close()
        raise ModelLoadError("it does not close")


def test_a_model_that_does_not_close_is_gone_all_the_same() -> None:
    registry: ModelRegistry[Model] = ModelRegistry()
    registry.load("a", 1, lambda _: Stubborn())
    with pytest.raises(ModelLoadError, match="does not close"):
        registry.unload("a", timeout_s=0)
    stopped = Cancellation()

    def build(stop: Cancellation) -> Model:
        stopped.cancel()
        assert stop.cancelled
        return Stubborn()

    assert registry.get("a") is None
    assert isinstance(
        soon(lambda: _problem(lambda: registry.load("a", 1, build, cancellation=stopped))), ModelLoadError
    )
    assert not registry.loading("a")
    assert soon(lambda: registry.load("a", 2, lambda _: Model()))[1] is False


def _problem(work: Callable[[], Any]) -> BaseException | None:
    try:
        work()
    except BaseException as problem:
        return problem
    return None


def test_the_figures_are_right(stage: Stage) -> None:
    load = stage.load("a")
    stage.now += 2.5
    stage.end_build(load)
    entry: Entry[Model] = load.result()[0]
    assert (entry.load_seconds, entry.loaded_at_ms, entry.last_used_at_ms) == (2.5, 1_002_500, 1_002_500)
    stage.now += 1
    call = stage.borrow("a")
    assert (entry.active, entry.last_used_at_ms) == (1, 1_003_500)
    stage.now += 1
    stage.load("a")
    call.give_back()
    assert (entry.active, entry.last_used_at_ms, entry.loaded_at_ms) == (0, 1_004_500, 1_002_500)


@pytest.fixture
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_take_turns_often")
def test_a_crowd_of_threads_never_sees_a_closed_model() -> None:
    registry: ModelRegistry[Model] = ModelRegistry()
    built: list[Model] = []
    guard = threading.Lock()

    def build(_: Cancellation) -> Model:
        model = Model()
        with guard:
            built.append(model)
        return model

    def work(seed: int) -> int:
        draw, used = random.Random(seed), 0
        for _ in range(1500):
            name = draw.choice("ab")
            try:
                act = draw.random()
                if act < 0.3:
                    registry.load(name, draw.choice([1, 1, 2]), build)
                elif act < 0.5:
                    registry.unload(name, cancel=draw.random() < 0.5, timeout_s=draw.choice([0, 5]))
                else:
                    with registry.use(name) as lease:
                        with guard:
                            lease.model.leases += 1
                        assert not lease.model.closed
                        with guard:
                            lease.model.leases -= 1
                        used += 1
            except TabmlError:
                continue
        return used

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) > 0
    for entry in registry.entries():
        registry.unload(entry.model_id, timeout_s=0)
    assert {model.closed for model in built} == {1}
    assert not [wrong for model in built for wrong in model.wrongs]


@dataclass
class Load:
    """What the dict says of a load that is running."""

    builder: Op
    spec: int
    joiners: list[Op] = field(default_factory=list)
    wanted: int = 1
    stopped: bool = False
    given_up: bool = False


@dataclass
class Slot:
    """What the dict says of one name: nothing, a load, or a model."""

    load: Load | None = None
    model: Model | None = None
    spec: int = 0
    leases: list[Borrowed] = field(default_factory=list)
    unload: Op | None = None
    """The one that waits."""
    unloading: bool = False
    queue: list[Op] = field(default_factory=list)
    """Loads that wait until the name is free."""


class RegistryMachine(RuleBasedStateMachine):
    """The registry against a dict. Rules draw the same whatever state it is in, for threads may wake in any order."""

    @initialize()
    def begin(self) -> None:
        self.stage = Stage()
        self.slots = {"a": Slot(), "b": Slot()}

    names = st.sampled_from("aab")
    specs = st.sampled_from([1, 1, 1, 2])
    picks = st.integers(0, 11)

    def _gave(self, op: Op, outcome: type[BaseException] | tuple[Model, bool]) -> None:
        """``op`` has ended as it must."""
        assert op.done, "a call that should have ended still waits"
        if isinstance(outcome, tuple):
            entry, before = op.result()
            assert (entry.model, before) == outcome
        else:
            assert type(op.problem) is outcome, op.problem

    def _waits(self, *ops: Op) -> None:
        assert not [op.value or op.problem for op in ops if op.done], "a call that should wait has ended"

    @rule(name=names, spec=specs)
    def load(self, name: str, spec: int) -> None:
        slot, builds = self.slots[name], len(self.stage.builds)
        self._place(slot, self.stage.load(name, spec))
        if slot.load is None or slot.load.joiners or slot.queue:
            assert len(self.stage.builds) == builds

    def _place(self, slot: Slot, op: Op) -> None:
        spec = op.facts["spec"]
        if slot.load is None and slot.model is None:
            assert self.stage.builds[-1] is op
            slot.load = Load(op, spec)
        elif slot.unloading or (slot.load is not None and slot.load.stopped):
            slot.queue.append(op)
        elif (slot.load.spec if slot.load is not None else slot.spec) != spec:
            self._gave(op, ModelConflictError)
        elif slot.load is not None:
            slot.load.joiners.append(op)
            slot.load.wanted += 1
        else:
            assert slot.model is not None
            self._gave(op, (slot.model, True))
        self._waits(*slot.queue, *(slot.load.joiners if slot.load else []))

    def _requeue(self, slot: Slot) -> None:
        """The name is free, or its model stays: those who waited go on, any of them first."""
        queue, slot.queue = slot.queue, []
        winner = self.stage.builds[-1] if self.stage.builds else None
        if slot.model is None and winner in queue:
            queue.remove(winner)
            queue.insert(0, winner)
        for op in queue:
            self._place(slot, op)

    @rule(name=names, good=st.sampled_from([True, True, False]))
    def the_build_ends(self, name: str, good: bool) -> None:
        slot = self.slots[name]
        load = slot.load
        if load is None:
            return
        model = self.stage.end_build(load.builder, good=good)
        slot.load = None
        if model is None or load.stopped:
            problem = ModelLoadError if model is None else CallCancelledError
            for op in (load.builder, *load.joiners):
                self._gave(op, problem)
            assert model is None or model.closed == 1
            if slot.unload is not None:
                assert slot.unload.result().state == "gone"
                slot.unload = None
            self._requeue(slot)
            return
        assert not slot.queue
        slot.model, slot.spec = model, load.spec
        self._gave(load.builder, CallCancelledError if load.given_up else (self._gone(slot), False))
        for op in load.joiners:
            if slot.unload is None or op.problem is None:
                self._gave(op, (self._gone(slot), False))
            else:  # the unload was quicker
                self._gave(op, CallCancelledError)
        if slot.unload is not None:
            self._unloaded(slot)

    def _gone(self, slot: Slot) -> Any:
        """What an entry says is its model once the unload that waited for it has run, too."""
        return slot.model if slot.unload is None else None

    def _unloaded(self, slot: Slot) -> None:
        assert slot.unload is not None
        assert slot.model is not None
        assert slot.unload.result().state == "gone"
        assert slot.model.closed == 1
        slot.model, slot.unload, slot.unloading = None, None, False
        self._requeue(slot)

    @rule(name=names, spec=specs)
    def a_model_is_loaded_and_borrowed(self, name: str, spec: int) -> None:
        self.load(name, spec)
        self.the_build_ends(name, True)
        self.borrow(name)

    @rule(name=names, pick=picks)
    def a_load_is_cancelled(self, name: str, pick: int) -> None:
        slot = self.slots[name]
        load = slot.load
        waiting = [*slot.queue, *((load.builder, *load.joiners) if load else ())]
        if not waiting:
            return
        op = waiting[pick % len(waiting)]
        self.stage.cancel(op)
        if op in slot.queue:
            slot.queue.remove(op)
            self._gave(op, CallCancelledError)
            return
        assert load is not None
        if op is load.builder:
            load.wanted -= not load.given_up
            load.given_up = True
            self._waits(op)
        else:
            load.joiners.remove(op)
            load.wanted -= 1
            self._gave(op, CallCancelledError)
        load.stopped = load.stopped or load.wanted == 0

    @rule(name=names)
    def borrow(self, name: str) -> None:
        slot = self.slots[name]
        if slot.model is None or slot.unloading:
            with pytest.raises(ModelNotLoadedError):
                self.stage.borrow(name)
            return
        slot.leases.append(self.stage.borrow(name))
        assert slot.leases[-1].lease.model is slot.model
        assert not slot.leases[-1].lease.cancellation.cancelled

    @rule(name=names, pick=picks)
    def give_back(self, name: str, pick: int) -> None:
        slot = self.slots[name]
        if not slot.leases:
            return
        slot.leases.pop(pick % len(slot.leases)).give_back()
        if slot.unloading and not slot.leases:
            self._unloaded(slot)

    @rule(name=names, cancel=st.booleans(), patient=st.booleans())
    def unload(self, name: str, cancel: bool, patient: bool) -> None:
        slot = self.slots[name]
        if slot.load is not None and slot.unload is not None:
            return  # which of two is served would be chance
        op = self.stage.unload(name, cancel=cancel, timeout_s=1e6 if patient else 0)
        if slot.load is not None:
            slot.load.stopped = slot.load.stopped or cancel
            self._unload_waits(slot, op, patient)
        elif slot.model is None or slot.unloading:
            self._gave(op, ModelNotLoadedError)
        else:
            assert all(call.lease.cancellation.cancelled for call in slot.leases) or not cancel
            if not slot.leases:
                slot.unload = op
                self._unloaded(slot)
            else:
                slot.unloading = self._unload_waits(slot, op, patient)

    def _unload_waits(self, slot: Slot, op: Op, patient: bool) -> bool:
        if patient:
            self._waits(op)
            slot.unload = op
        else:
            self._gave(op, ModelInUseError)
        return patient

    @rule(name=names)
    def the_unload_gives_up(self, name: str) -> None:
        slot = self.slots[name]
        if slot.unload is None:
            return
        self.stage.time_out(slot.unload)
        self._gave(slot.unload, ModelInUseError)
        slot.unload = None
        if slot.unloading:
            slot.unloading = False
            self._requeue(slot)

    @invariant()
    def the_registry_says_what_the_dict_says(self) -> None:
        if not hasattr(self, "slots"):
            return
        registry = self.stage.registry
        ready = {name: slot for name, slot in self.slots.items() if slot.model is not None and not slot.unloading}
        assert {entry.model_id: entry.model for entry in registry.entries()} == {
            name: slot.model for name, slot in ready.items()
        }
        for name, slot in self.slots.items():
            assert registry.loading(name) == (slot.load is not None)
            entry = registry.get(name)
            assert (entry is not None) == (name in ready)
            assert entry is None or (entry.active, entry.spec) == (len(slot.leases), slot.spec)
            if slot.load is not None:
                assert slot.load.builder.stop is not None
                assert slot.load.builder.stop.cancelled == slot.load.stopped
                self._waits(slot.load.builder, *slot.load.joiners)
            self._waits(*slot.queue, *([slot.unload] if slot.unload else []))

    @invariant()
    def a_model_is_closed_once_when_it_goes_and_never_while_it_is_leased(self) -> None:
        if not hasattr(self, "slots"):
            return
        here = [slot.model for slot in self.slots.values()]
        for model in self.stage.models:
            assert model.wrongs == []
            assert model.closed == (model not in here)

    def teardown(self) -> None:
        if not hasattr(self, "slots"):
            return
        with ExitStack() as stack:
            stack.callback(self.stage.end)
            for slot in self.slots.values():
                for call in slot.leases:
                    call.give_back()
        for entry in self.stage.registry.entries():
            self.stage.unload(entry.model_id, timeout_s=0).result()
        assert {model.closed for model in self.stage.models} <= {1}
        assert self.stage.registry._entries == {}


TestRegistryAgainstADict = RegistryMachine.TestCase
TestRegistryAgainstADict.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
