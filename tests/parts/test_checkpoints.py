"""Checkpoints of a running call, the desk where its client fetches them, and what the client keeps."""

from __future__ import annotations

import pickle
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexray.errors import Cancelled, Preempted, UsageError
from flexray.model.request import Request
from flexray.runtime import keeping
from flexray.runtime.call import Call, Kind
from flexray.runtime.checkpoints import Checkpoints, Desk
from flexray.runtime.current import StopFlag
from flexray.runtime.dispatch import batch_message
from flexray.runtime.folder import Folder
from flexray.runtime.frozen import Frozen, freeze, thaw
from flexray.runtime.keeping import Keeping, Kept
from flexray.runtime.runs import Holder
from flexray.runtime.targets import HeldLease, Target
from parts.test_dispatch import target
from parts.test_run_queue import LATER, LONG, MINE


@dataclass
class Running:
    flag: StopFlag
    giving_way: bool = False
    checkpoints: Checkpoints | None = None


class Task:
    """A running call, and what it has handed over."""

    def __init__(self, **options: Any) -> None:
        self.attempt = Running(StopFlag())
        self.stored: list[Any] = []
        self.own = Checkpoints(options.pop("found", ()), options.pop("folder", None), self.take, **options)

    def take(self, state: Frozen) -> None:
        self.stored.append(thaw(state.head, [bytearray(buffer) for buffer in state.buffers]))

    def checkpoint(self, state: Any, every: float = 0.0) -> None:
        self.own.checkpoint(state, every, self.attempt)

    def ask(self, *, giving_way: bool) -> None:
        self.attempt.giving_way, self.attempt.flag.raised = giving_way, True
        self.own.asked()


# -- a call ------------------------------------------------------------------------------------


def test_every_one_is_stored_or_those_that_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    task = Task()
    task.checkpoint(1)
    task.checkpoint(2)
    for step in range(3, 10):
        now[0] += 10
        task.checkpoint(step, every=25)
    assert task.stored == [1, 2, 5, 8]


def test_a_call_that_is_to_give_way_stores_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task()
    task.ask(giving_way=True)
    with pytest.raises(Preempted):
        task.checkpoint("last", every=3600)
    assert task.stored == ["last"]


def test_one_that_is_asked_while_it_stores_ends_with_what_it_stored() -> None:
    task = Task()
    take = task.take

    def asked_meanwhile(state: Frozen) -> None:
        take(state)
        task.ask(giving_way=True)

    task.own._hand_over = asked_meanwhile
    with pytest.raises(Preempted):
        task.checkpoint("last")
    assert task.stored == ["last"]


def test_one_that_is_cancelled_ends_and_stores_nothing() -> None:
    task = Task()
    task.ask(giving_way=False)
    with pytest.raises(Cancelled):
        task.checkpoint(1)
    assert task.stored == []


def test_a_failed_write_is_raised_and_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "flexray-me-1").write_text("in the way")
    task = Task(folder=lambda: Folder(str(tmp_path), "me-1"))
    with pytest.raises(OSError):
        task.checkpoint(1)
    assert task.stored == []
    (tmp_path / "flexray-me-1").unlink()
    assert task.own.restored() is None  # nothing was stored by this attempt, so that one may look
    task.checkpoint(2)
    assert Folder(str(tmp_path), "me-1").read() == (True, 2)


def test_restored_is_for_the_start() -> None:
    task = Task()
    assert task.own.restored() is None
    task.checkpoint(1)
    with pytest.raises(UsageError, match="start of an attempt"):
        task.own.restored()


def test_where_nobody_could_restore_it_nothing_is_stored() -> None:
    own = Checkpoints((), None, None)
    own.checkpoint(threading.Lock(), 0.0, Running(StopFlag()))
    with pytest.raises(UsageError, match="never repeated"):
        Checkpoints((), None, None, "a stream is never repeated").checkpoint(1, 0.0, Running(StopFlag()))


def test_who_wants_to_know_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    task, told, first, late = Task(), [], threading.Event(), threading.Event()

    def fails() -> None:
        raise ValueError("mine")

    def notes() -> None:
        told.append(threading.current_thread().name)
        first.set()

    task.own.on_yield(fails, task.attempt.flag)
    task.own.on_yield(notes, task.attempt.flag)
    assert told == []
    task.ask(giving_way=True)
    task.ask(giving_way=True)
    task.own.on_yield(late.set, task.attempt.flag)  # late: told at once, in a thread of its own
    assert first.wait(LONG) and late.wait(LONG)
    assert told == ["flexray-on-yield"]
    assert "ValueError: mine" in capfd.readouterr().err


@pytest.fixture
def started_late(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Threads that are started from now on: they run when the test says."""
    threads: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: threads.append(thread))
    return threads


def test_nobody_is_told_of_a_call_that_is_over(started_late: list[threading.Thread]) -> None:
    task, told = Task(), []
    task.own.on_yield(lambda: told.append(1), task.attempt.flag)
    task.own.close()
    task.ask(giving_way=True)
    assert (started_late, told) == ([], [])


def test_who_is_to_be_told_is_told_also_when_the_call_ends_at_once(started_late: list[threading.Thread]) -> None:
    task, told = Task(), []
    task.own.on_yield(lambda: told.append(1), task.attempt.flag)
    task.ask(giving_way=False)
    task.own.close()
    (thread,) = started_late
    thread.run()
    assert told == [1]


# -- the desk ----------------------------------------------------------------------------------


class Writer(threading.Thread):
    """A call that hands a state over."""

    def __init__(self, desk: Desk, state: Any, holder: Holder = MINE, call: int = 7) -> None:
        super().__init__()
        self.work = lambda: desk.hand_over(holder, call, False, freeze(state))
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.work()
        except Cancelled as error:
            self.failure = error


def test_a_call_waits_until_its_client_has_the_state() -> None:
    desk = Desk()
    writer = Writer(desk, np.ones(1000))
    offer = desk.next(MINE, 0, LONG, lambda: True)
    assert offer is not None and offer.call == 7 and offer.size > 8000 and offer.parcel is not None
    assert desk.next(MINE, 0, LONG, lambda: True) is offer  # asked again: the answer was lost
    writer.join(0.05)
    assert writer.is_alive()
    assert desk.next(MINE, offer.serial, 0.0, lambda: True) is None
    writer.join(LONG)
    assert not writer.is_alive() and writer.failure is None
    second = Writer(desk, 2)
    following = desk.next(MINE, offer.serial, LONG, lambda: True)
    assert following is not None and following.serial > offer.serial
    desk.next(MINE, following.serial, 0.0, lambda: True)
    second.join(LONG)


def test_a_question_ends_with_the_calls_or_with_the_grant() -> None:
    desk = Desk()
    assert desk.next(MINE, 0, LONG, lambda: False) is None
    writer = Writer(desk, 1)
    desk.new_grant(LATER[1:])
    writer.join(LONG)
    assert isinstance(writer.failure, Cancelled)
    assert desk.next(MINE, 0, LONG, lambda: True) is None


# -- the client --------------------------------------------------------------------------------


class Reference:
    """Stands for an ObjectRef: its value arrives when the test says."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []

    def _on_completed(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def arrive(self, value: Any) -> None:
        for callback in self.callbacks:
            callback(value)


def keeper() -> Keeping:
    from flexray.runtime.calls import Calls

    made = Keeping(Calls(lambda: None), None, lambda function, *args: function(*args))  # type: ignore[arg-type]
    made._node = "here"
    return made


def held(made: Target | None = None) -> HeldLease:
    return next(iter((made or target(1, 1, None)).leases.values()))


def test_a_copy_follows_and_the_last_that_arrived_is_the_second_choice() -> None:
    keep, lease = keeper(), held()
    call = lease.target.backlog[0]
    first, second, third = Reference(), Reference(), Reference()
    keep._keep(lease, call, 10, first)
    assert call.kept is not None and call.kept.references == (first,)
    keep._keep(lease, call, 20, second)
    assert second.callbacks == [] and keep._copied() == 10  # one after the other
    first.arrive([b"state"])
    assert call.kept.references == (second, first) and keep._copied() == 30
    keep._keep(lease, call, 40, third)
    second.arrive(OSError("lost"))
    assert call.kept.references == (third, first) and keep._copied() == 50
    third.arrive([b"state"])
    assert call.kept.references == (third,) and keep._copied() == 40
    call.settle(Kind.VALUE, None)
    assert call.kept is None and keep._copied() == 0


def test_no_more_is_copied_than_there_is_room_for() -> None:
    keep, lease = keeper(), held(target(2, 1, None))
    large, small = Reference(), Reference()
    keep._keep(lease, lease.target.backlog[0], keeping.MOST_COPIED + 1, large)
    keep._keep(lease, lease.target.backlog[1], 5, small)
    assert large.callbacks == [] and len(small.callbacks) == 1


def test_what_is_on_the_clients_node_anyway_is_not_copied() -> None:
    keep, lease, state = keeper(), held(), Reference()
    keep._node = lease.node
    keep._keep(lease, lease.target.backlog[0], 10, state)
    assert state.callbacks == []


def message(lease: HeldLease, calls: list[Call]) -> tuple[list[Any], list[Any]]:
    data, values = batch_message(lease, calls, 0, 0.0)
    return pickle.loads(data), values


def test_only_a_call_that_has_a_checkpoint_carries_one() -> None:
    lease = held(target(2, 1, None))
    plain, kept = lease.target.backlog
    plain.payload = kept.payload = ((1,), {})
    kept.kept = Kept(newest="newest", safe=("safe", [b"copy"]))
    batch, values = message(lease, [plain, kept])
    assert batch[5] == [(plain.number, ((1,), {})), (kept.number, ((1,), {}), (), (0, 0), (0, 2))]
    assert values == [["newest", "safe"]] and batch[8] == 0 and len(batch) == 10
    batch, values = message(lease, [plain])
    assert batch[5] == [(plain.number, ((1,), {}))] and values == []


def test_a_place_travels_with_the_batch() -> None:
    made = target(1, 1, None)
    made.request = Request(checkpoint_place="/shared")
    made.backlog[0].kept = Kept()
    batch, values = message(held(made), [made.backlog[0]])
    assert batch[10] == "/shared" and values == [] and len(batch[5][0]) == 4


def test_what_flex_current_says_may_be_sent_elsewhere() -> None:
    from flexray.runtime.current import Current

    here = Current("s1", (), 0.5, 2**30, "none", "r1", 2, _here=threading.Lock())  # type: ignore[arg-type]
    there = pickle.loads(pickle.dumps(here))
    assert (there.slice, there.attempt, there.memory) == ("s1", 2, 2**30)
    with pytest.raises(UsageError, match="sent elsewhere"):
        there.checkpoint(1)
    with pytest.raises(UsageError, match="sent elsewhere"):
        there.should_yield()
