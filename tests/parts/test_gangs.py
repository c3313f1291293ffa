"""Gangs of a client, without Ray: a scheduler and slices that say what the test wants them to say."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from flexray.config import PoolConfig
from flexray.errors import Cancelled, Infeasible, LeaseLost, TaskError, TaskTimeout
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.commands import FailRequest, GrantLease, RecallLease, RevokeLease
from flexray.model.events import Event, LeaseFound, LeaseReleased, LeaseYielded, RequestCancelled, RequestSubmitted
from flexray.model.gang import Gang
from flexray.model.isolation import Isolation
from flexray.model.lease import Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.lifecycle import EndReason
from flexray.model.request import Request
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.engine import Engine
from flexray.runtime.gang_run import memberships
from flexray.runtime.packing import PackedFunction, pack_error
from flexray.runtime.performing import read_batch
from flexray.runtime.protocol import Code, Granted, Member, Reply
from flexray.runtime.targets import Target

ME = SessionId("me")
GRACE = PoolConfig().grace_seconds
NUMBER = 7


class Ref:
    """An answer that is to come."""

    def __init__(self) -> None:
        self.callback: Callable[[Any], None] = lambda answer: None

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        self.callback = callback


class Method:
    """An actor's method: notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], Ref]] = []

    def remote(self, *args: Any) -> Ref:
        self.calls.append((args, Ref()))
        return self.calls[-1][1]


class FakeSlice:
    """What the client asked of one slice."""

    def __init__(self) -> None:
        self.run, self.meeting_place, self.give_way, self.cancel = Method(), Method(), Method(), Method()

    def meets(self, place: Any = "10.0.0.1:4000") -> None:
        self.meeting_place.calls.pop()[1].callback(place)

    @property
    def member(self) -> Member | None:
        """What the call it was sent last is of the gang."""
        return read_batch(self.run.calls[-1][0][0]).member

    def answers_nothing(self) -> None:
        """The answer to a batch of which nothing has run."""
        self.run.calls.pop(0)[1].callback(pickle.dumps(tuple(Reply((), 0))))

    def answers(self, code: Code, payload: Any = None) -> None:
        self.run.calls.pop()[1].callback(pickle.dumps(tuple(Reply(((NUMBER, int(code), payload),), 0, 1, 1.0))))

    @property
    def asked(self) -> int:
        return len(self.give_way.calls)


class World:
    """An engine with one gang's call, its scheduler and its slices."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gang: Gang, retries: int) -> None:
        self.told: list[Event] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.slices: dict[str, FakeSlice] = {}
        monkeypatch.setattr(ray, "get_actor", lambda name, namespace: self.slices.setdefault(name, FakeSlice()))
        post = lambda function, *args: function(*args)  # noqa: E731
        self.engine = Engine(PoolConfig(), post, lambda seconds, do: self.timers.append((seconds, do)))
        said = {"environment": SimpleNamespace(id="e"), "tell": self.told.append, "flush": lambda: None, "epoch": 1}
        self.engine.leases.session = SimpleNamespace(id=ME, **said)  # type: ignore[assignment]
        target = Target("key", "f", Request(gang=gang), PackedFunction("k", b"", ()), print, retries, None)
        self.call = Call(None, target, NUMBER)  # type: ignore[arg-type]
        self.engine.submit(self.call)

    @property
    def name(self) -> RequestId:
        """What the gang was asked for as, last."""
        return [event.id for event in self.told if isinstance(event, RequestSubmitted)][-1]

    def lease(self, index: int, attempt: int = 1) -> LeaseId:
        return LeaseId(RequestId(f"{self.name}.{index}"), attempt)

    def slice(self, index: int, attempt: int = 1) -> FakeSlice:
        return self.slices[str(self.lease(index, attempt))]

    def grant(self, *members: LeaseId, roster: tuple[LeaseId, ...] = (), node: str = "n") -> None:
        """Grant leases that run together, with others that are held already."""
        for lease in members:
            place = Placement(node, ("d",), Share(250), MemoryMiB(0))
            found = Lease(lease, SliceId(str(lease)), place, "cpu/generic", Isolation.NONE)
            self.engine.orders.on_message(Granted(GrantLease(ME, found, roster or members), b""))

    def starts(self, size: int, attempt: int = 1) -> list[FakeSlice]:
        """Grant so many, and let them meet; returns their slices."""
        leases = [self.lease(index, attempt) for index in range(size)]
        self.grant(*leases)
        self.slices[str(leases[0])].meets()
        return [self.slices[str(lease)] for lease in leases]

    def lose(self, lease: LeaseId, reason: EndReason = EndReason.SLICE_LOST, cause: str = "") -> None:
        running = () if reason is EndReason.PREEMPTED else (NUMBER,)
        self.engine.orders.on_message(RevokeLease(ME, lease, reason, "gone", True, running, cause))

    def recall(self, *leases: LeaseId) -> None:
        for lease in leases:
            self.engine.orders.on_message(RecallLease(ME, lease, stop=True))

    def after_grace(self) -> None:
        """What is due then happens."""
        due, self.timers = self.timers, []
        for seconds, do in due:
            if seconds == GRACE:
                do()

    def said(self, kind: type) -> list[Any]:
        """Of what events of a kind were, in order of their names."""
        found = [event for event in self.told if type(event) is kind]
        return sorted(getattr(event, "lease", None) or event.id for event in found)

    def nothing_is_left(self) -> bool:
        return not self.engine.leases.all() and not self.engine.leases.targets() and not self.engine.calls.waiting


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(size: int = 3, least: int | None = None, retries: int = 3) -> World:
        made.append(World(monkeypatch, Gang(size, least), retries))
        return made[-1]

    yield make
    for one in made:
        assert one.call.settled, "every test follows a gang to its end"
        assert one.nothing_is_left()


def error(text: str) -> bytes:
    return pack_error(RuntimeError(text))


def test_a_gang_starts_once_all_its_members_are_granted(world: Callable[..., World]) -> None:
    w = world()
    assert [type(event) for event in w.told] == [RequestSubmitted]
    roster = tuple(w.lease(index) for index in range(3))
    w.grant(*roster[:2], roster=roster)
    assert not any(one.meeting_place.calls for one in w.slices.values())
    w.grant(roster[2], roster=roster)
    first = w.slice(0)
    assert w.call.phase is Phase.BACKLOG
    first.meets("10.0.0.1:4000")
    assert w.call.phase is Phase.SENT and w.engine.calls.waiting == 0
    assert [w.slice(index).member for index in range(3)] == [
        Member(rank, 3, "10.0.0.1:4000", rank, 3) for rank in range(3)
    ]
    for rank in (2, 0, 1):
        assert not w.call.settled and not w.said(LeaseReleased)  # nobody is given back before all are done
        w.slice(rank).answers(Code.PLAIN, 10 * rank)
    assert w.call.value() == [0, 10, 20]
    assert w.said(LeaseReleased) == list(roster) and not w.said(RequestCancelled)


def test_ranks_on_a_node_are_counted_apart() -> None:
    assert [(m.rank, m.local_rank, m.local_size) for m in memberships(["a", "b", "a"], "x:1")] == [
        (0, 0, 2),
        (1, 0, 1),
        (2, 1, 2),
    ]


def test_a_lost_member_ends_the_attempt_and_charges_it_once(world: Callable[..., World]) -> None:
    w = world()
    a, b, c = w.starts(3)
    w.lose(w.lease(1))
    assert (a.asked, b.asked, c.asked) == (1, 0, 1)
    w.lose(w.lease(2))  # the same crash
    a.answers(Code.ERROR, error("gloo: connection closed by peer"))
    assert not w.call.settled and w.call.attempts == 1
    assert w.told[-1] == w.told[0], "it waits for the scheduler to take back the rest"
    w.recall(w.lease(0))
    assert w.said(LeaseYielded) == [w.lease(0)]
    a, b, c = w.starts(3, attempt=2)
    assert a.member == Member(0, 3, "10.0.0.1:4000", 0, 3)
    for one in (a, b, c):
        one.answers(Code.PLAIN, 1)
    assert w.call.value() == [1, 1, 1]


def test_an_error_is_judged_once_it_is_known_whether_a_member_was_lost(world: Callable[..., World]) -> None:
    w = world()
    a, _, c = w.starts(3)
    a.answers(Code.ERROR, error("connection closed"))  # before anybody knows why
    c.answers(Code.ERROR, error("connection closed"))
    assert not w.call.settled
    w.lose(w.lease(1))
    assert not w.call.settled and w.call.phase is Phase.BACKLOG
    w.recall(w.lease(0), w.lease(2))
    for one in w.starts(3, attempt=2):
        one.answers(Code.PLAIN, None)


def test_without_retries_a_lost_member_fails_it(world: Callable[..., World]) -> None:
    w = world(retries=0)
    a, b, _ = w.starts(3)
    w.lose(w.lease(2))
    a.answers(Code.YIELDED)
    assert not w.call.settled
    w.after_grace()
    assert b.cancel.calls[0][0][1:] == (NUMBER, True) and not a.cancel.calls
    w.lose(w.lease(1), cause="cancel")
    with pytest.raises(LeaseLost, match=r"f lost its slice .*retries=0"):
        raise w.call.failure() or AssertionError
    assert w.said(LeaseReleased) == [w.lease(0)] and w.said(RequestCancelled) == [w.name]


def test_an_exception_fails_it_with_the_rank_and_stops_the_others(world: Callable[..., World]) -> None:
    w = world()
    a, b, c = w.starts(3)
    c.answers(Code.ERROR, error("mine"))
    assert (a.asked, b.asked) == (1, 1)
    a.answers(Code.ERROR, error("[gloo/transport/tcp/pair.cc] Connection closed by peer"))
    w.after_grace()
    w.lose(w.lease(1), cause="cancel")
    failure = w.call.failure()
    assert isinstance(failure, TaskError) and isinstance(failure, RuntimeError)
    assert str(failure).startswith("rank 2 of 3: RuntimeError: mine")


def test_an_exception_fails_it_also_where_the_others_yield(world: Callable[..., World]) -> None:
    w = world()
    a, b, c = w.starts(3)
    c.answers(Code.ERROR, error("mine"))
    a.answers(Code.YIELDED)
    b.answers(Code.PLAIN, 1)
    assert str(w.call.failure()).startswith("rank 2 of 3: RuntimeError: mine")


def test_the_cause_is_told_whoever_is_heard_of_first(world: Callable[..., World]) -> None:
    w = world()
    a, b, c = w.starts(3)
    b.answers(Code.ERROR, error("[gloo/transport/tcp/pair.cc] Connection closed by peer"))
    a.answers(Code.YIELDED)
    c.answers(Code.ERROR, error("mine"))
    assert str(w.call.failure()).startswith("rank 2 of 3: RuntimeError: mine")


def test_of_several_exceptions_that_of_the_lowest_rank_is_told(world: Callable[..., World]) -> None:
    w = world()
    for one in reversed(w.starts(3)):
        one.answers(Code.ERROR, error("all the same"))
    assert str(w.call.failure()).startswith("rank 0 of 3: ")


def test_preempted_as_a_whole_it_goes_on_elsewhere_uncharged(world: Callable[..., World]) -> None:
    w = world(retries=0)
    a, b, c = w.starts(3)
    w.recall(*(w.lease(index) for index in range(3)))
    assert {a.asked, b.asked, c.asked} == {2}  # with its lease, and as a member
    a.answers(Code.YIELDED)
    b.answers(Code.PLAIN, "done")  # it came to its end; there is no gang without it
    assert not w.said(LeaseYielded), "a member's lease goes back when nobody runs beside it any more"
    w.after_grace()
    assert not c.cancel.calls, "the pool ends what it took back itself"
    w.lose(w.lease(2), EndReason.PREEMPTED)
    assert w.said(LeaseYielded) == [w.lease(0), w.lease(1)] and not w.said(LeaseReleased)
    for one in w.starts(3, attempt=2):
        one.answers(Code.PLAIN, 0)
    assert w.call.attempts == 0


def test_an_elastic_gang_goes_on_with_those_that_are_left(world: Callable[..., World]) -> None:
    w = world(size=3, least=2)
    a, b, c = w.starts(3)
    w.recall(w.lease(1))
    assert a.asked and c.asked
    for one in (a, b, c):
        one.answers(Code.YIELDED)
    assert w.said(LeaseYielded) == [w.lease(1)] and w.call.attempts == 0
    a.meets("10.0.0.1:5000")
    assert (a.member, c.member) == (Member(0, 2, "10.0.0.1:5000", 0, 2), Member(1, 2, "10.0.0.1:5000", 1, 2))
    a.answers(Code.PLAIN, "a")
    c.answers(Code.PLAIN, "c")
    assert w.call.value() == ["a", "c"]
    assert w.said(RequestCancelled) == [w.name], "the member that waits to come back is not wanted any more"


def test_a_member_that_does_not_leave_for_the_others_is_stopped(world: Callable[..., World]) -> None:
    w = world(size=3, least=1)
    _, b, c = w.starts(3)
    w.lose(w.lease(0))
    b.answers(Code.YIELDED)
    w.after_grace()
    assert c.cancel.calls
    w.lose(w.lease(2), cause="cancel")
    b.meets()
    assert b.member == Member(0, 1, "10.0.0.1:4000", 0, 1) and w.call.attempts == 1
    b.answers(Code.PLAIN, 1)
    assert w.call.value() == [1]


def test_a_gang_that_may_grow_is_asked_and_not_forced(world: Callable[..., World]) -> None:
    w = world(size=3, least=1)
    (a,) = w.starts(1)
    w.grant(w.lease(1), w.lease(2), roster=tuple(w.lease(index) for index in range(3)))
    assert a.asked == 1
    w.after_grace()
    assert not a.cancel.calls
    a.answers(Code.YIELDED)
    a.meets("10.0.0.2:1")
    assert [w.slice(rank).member for rank in range(3)] == [Member(rank, 3, "10.0.0.2:1", rank, 3) for rank in range(3)]
    for rank in range(3):
        w.slice(rank).answers(Code.PLAIN, rank)
    assert w.call.value() == [0, 1, 2]


def test_a_gang_that_does_not_look_ends_as_it_is(world: Callable[..., World]) -> None:
    w = world(size=2, least=1)
    (a,) = w.starts(1)
    w.grant(w.lease(1), roster=(w.lease(0), w.lease(1)))
    a.answers(Code.PLAIN, "alone")
    assert w.call.value() == ["alone"] and w.said(LeaseReleased) == [w.lease(0), w.lease(1)]


def test_once_one_has_left_to_grow_the_others_have_to(world: Callable[..., World]) -> None:
    w = world(size=3, least=2)
    a, b = w.starts(2)
    w.grant(w.lease(2), roster=tuple(w.lease(index) for index in range(3)))
    a.answers(Code.YIELDED)
    w.after_grace()
    assert b.cancel.calls
    b.cancel.calls.pop()[1].callback("taken")  # it had not begun
    b.answers_nothing()
    a.meets()
    for rank in range(3):
        w.slice(rank).answers(Code.PLAIN, rank)
    assert w.call.value() == [0, 1, 2]


def test_a_member_lost_before_they_have_met_is_waited_for(world: Callable[..., World]) -> None:
    w = world(size=2)
    w.grant(w.lease(0), w.lease(1))
    late = w.slice(0).meeting_place.calls[-1][1]
    w.lose(w.lease(1))
    late.callback("10.0.0.1:1")  # nobody is there to meet
    assert w.call.phase is Phase.BACKLOG and not w.slice(0).run.calls
    w.recall(w.lease(0))
    for one in w.starts(2, attempt=2):
        one.answers(Code.PLAIN, 1)
    assert w.call.attempts == 0


def test_a_slice_that_does_not_say_where_is_asked_again(world: Callable[..., World]) -> None:
    w = world(size=1)
    w.grant(w.lease(0))
    w.slice(0).meets(OSError("no port"))
    for _, do in list(w.timers):
        do()
    w.slice(0).meets()
    w.slice(0).answers(Code.PLAIN, 1)
    assert w.call.value() == [1]


def test_cancelled_while_it_waits(world: Callable[..., World]) -> None:
    from flexray.runtime.cancelling import cancel_call

    w = world()
    assert cancel_call(w.engine, w.call, False)
    assert w.said(RequestCancelled) == [w.name]
    w.grant(w.lease(0))  # they crossed
    assert w.said(LeaseReleased) == [w.lease(0)] and isinstance(w.call.failure(), Cancelled)


def test_a_cancelled_member_cancels_the_gang(world: Callable[..., World]) -> None:
    w = world(size=2)
    a, b = w.starts(2)
    assert w.call.target.gang is not None
    w.call.target.gang.cancelled = True
    a.answers(Code.ERROR, error("the other one left"))
    b.answers(Code.CANCELLED)
    assert isinstance(w.call.failure(), Cancelled)


def test_a_timeout_is_final(world: Callable[..., World]) -> None:
    w = world(size=2)
    a, b = w.starts(2)
    b.answers(Code.TIMEOUT, 5.0)
    a.answers(Code.YIELDED)
    assert isinstance(w.call.failure(), TaskTimeout)


def test_a_gang_that_can_never_run_fails(world: Callable[..., World]) -> None:
    w = world()
    w.engine.orders.on_message(FailRequest(ME, w.name, EndReason.INFEASIBLE, "too many"))
    assert isinstance(w.call.failure(), Infeasible)


def test_a_gang_that_the_pool_gives_up_while_it_runs_leaves_nothing(world: Callable[..., World]) -> None:
    w = world(size=2)
    a, b = w.starts(2)
    w.engine.orders.on_message(FailRequest(ME, w.name, EndReason.QUEUE_RULES, "no"))
    assert w.call.settled and a.asked and b.asked
    a.answers(Code.YIELDED)
    b.answers(Code.PLAIN, 1)
    assert w.call.outcome[0] is Kind.ERROR and w.said(LeaseReleased) == [w.lease(0), w.lease(1)]


def test_a_scheduler_that_knows_nothing_is_told_of_it(world: Callable[..., World]) -> None:
    w = world(size=2)
    (waits,) = w.engine.leases.facts()
    assert isinstance(waits, RequestSubmitted) and (waits.id, waits.attempt) == (w.name, 0)
    w.starts(2)
    held = [one for one in w.engine.leases.facts() if isinstance(one, LeaseFound)]
    assert [one.lease.lease for one in held] == [w.lease(0), w.lease(1)]
    assert {one.submitted.id for one in held} == {w.name}
    w.engine.orders.on_message(RevokeLease(ME, w.lease(0), EndReason.SLICE_LOST, "gone", requeued=True))
    (left,) = w.engine.leases.facts()
    assert isinstance(left, LeaseFound) and left.lease.lease == w.lease(1)
    assert (left.submitted.attempt, left.closing, left.stop) == (1, False, False)
    w.engine.orders.on_message(RevokeLease(ME, w.lease(1), EndReason.SLICE_LOST, "gone", requeued=True))
    (waits,) = w.engine.leases.facts()
    assert isinstance(waits, RequestSubmitted) and (waits.id, waits.attempt) == (w.name, 1)
    for one in w.starts(2, attempt=2):
        one.answers(Code.PLAIN, 1)
    assert w.engine.leases.facts() == []


def test_when_the_pool_is_gone_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(monkeypatch, Gang(2), 3)
    w.starts(2)
    w.engine.orders.on_dead(RuntimeError("gone"))
    assert str(w.call.failure()) == "gone"


def test_a_large_result_is_fetched_before_its_slice_goes(world: Callable[..., World]) -> None:
    w = world(size=1)
    (a,) = w.starts(1)
    header, stored = Ref(), object()
    a.fetch = Method()  # type: ignore[attr-defined]
    a.fetch.options = lambda num_returns: a.fetch  # type: ignore[attr-defined]
    a.fetch.remote = lambda token, number: (header, stored)  # type: ignore[attr-defined]
    a.answers(Code.KEPT, False)
    assert not w.call.settled and not w.said(LeaseReleased)
    header.callback(b"")
    assert w.call.outcome == (Kind.PARTS, ((Kind.REFERENCE, stored),))
