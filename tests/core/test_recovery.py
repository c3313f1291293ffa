"""A scheduler that was started again puts together what is there: slices of nodes, leases and requests of sessions."""

from __future__ import annotations

import dataclasses

import pytest
from harness import World, kinds, node

from flexray.core.journal import replay
from flexray.core.recovery import begin
from flexray.model.commands import AnswerResize, RevokeLease, StopSlice
from flexray.model.events import (
    HistoryRestored,
    LeaseBlocked,
    LeaseFound,
    LeaseReleased,
    NodeReported,
    QueuesConfigured,
    RecoveryBegan,
    RecoveryEnded,
    ResizeAsked,
    SessionClosed,
    SliceEnded,
    SliceFound,
)
from flexray.model.lease import Placement
from flexray.model.lifecycle import SliceState
from flexray.model.queue import Queue
from flexray.model.request import Request

NODE = node("n1", "2xA100", cpus=8)
PREEMPTIBLE = {"request": Request(preemptible=True)}


def found(world: World, name: str, state: SliceState = SliceState.IDLE, **fields: object) -> SliceFound:
    """What the node says of the slice under a lease."""
    lease, event = world.leases[name], world.submitted[name.split(".")[0]][1]
    reusable = event.reusable and event.request.gang is None
    facts = {"environment": event.environment, "task_class": event.task_class, "reusable": reusable}
    return SliceFound(lease.slice, lease.placement, **{"host": event.request.host, "state": state, **facts, **fields})


def restarted(world: World, *slices: SliceFound, sessions: tuple[str, ...] = ("S",)) -> World:
    """The scheduler dies; the node reports, and sessions join."""
    world.restart()
    world.apply(NodeReported(NODE))
    for one in slices:
        world.apply(one)
    for session in sessions:
        world.open(session)
    return world


def test_what_runs_goes_on_and_keeps_its_place_in_the_books(core: World) -> None:
    core.submit("a", gpu=0.5, memory="8GiB")
    core.settle()
    lease = core.leases["a"]
    restarted(core, found(core, "a"))
    core.apply(core.holds("a", held=7.0))
    core.apply(RecoveryEnded())
    assert core.settle() == [] and core.leases["a"] == lease
    (device, _), (piece,) = core.snapshot().devices, core.snapshot().slices
    assert (device.share_held, device.memory_held, piece.state, piece.request) == (0.5, 8192, "held", "a")
    core.release("a")
    core.settle()
    assert core.snapshot().slices[0].state == "idle"


def test_nothing_is_given_or_taken_before_everybody_has_spoken(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    restarted(core, found(core, "a"))
    core.submit("b", gpu=1)
    core.now += 100
    assert core.decide() == [] and core.scheduler.wake_at is None
    core.apply(core.holds("a"))
    core.apply(RecoveryEnded())
    core.settle()
    assert core.placed == {"a": "n1/gpu0", "b": "n1/gpu1"}


@pytest.mark.parametrize("first", ["lease", "slice"])
def test_sessions_and_nodes_come_in_any_order(core: World, first: str) -> None:
    core.submit("a", gpu=1)
    core.settle()
    there, held = found(core, "a"), core.holds("a")
    restarted(core)
    for event in (held, there) if first == "lease" else (there, held):
        core.apply(event)
    core.apply(RecoveryEnded())
    assert core.settle() == [] and core.snapshot().running[0].id == "a"


def test_leases_and_tokens_go_on_rising(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    core.ended(core.leases["a"].slice)
    core.settle()
    assert core.leases["a"].lease.attempt == 2
    restarted(core, found(core, "a"))
    core.apply(core.holds("a"))
    core.apply(RecoveryEnded())
    core.settle()
    core.ended(core.leases["a"].slice)
    core.settle()
    assert core.leases["a"].lease.attempt == 3
    core.ended(core.leases["a"].slice)
    core.decide()
    restarted(core)  # it waits: its session says how often it has had a lease
    core.apply(core.again("a"))
    core.apply(RecoveryEnded())
    core.settle()
    assert core.leases["a"].lease.attempt == 4
    grants = core.leases["a"].grant
    core.release("a")
    core.submit("b", gpu=1)
    core.settle()
    assert core.leases["b"].grant == grants + 1


def test_a_slice_that_nobody_says_to_hold_is_stopped(core: World) -> None:
    core.submit("a", gpu=1)
    core.submit("b", gpu=1, session="S")
    core.settle()
    restarted(core, found(core, "a"), found(core, "b"))
    assert core.decide() == []
    core.apply(RecoveryEnded())
    assert sorted(kinds(core.decide())) == ["stop s1.1 session_ended", "stop s1.2 session_ended"]


def test_one_that_was_still_starting_is_for_the_next_of_its_class(core: World) -> None:
    core.submit("a", gpu=1)
    core.submit("b", gpu=1, reusable=False)
    core.settle()
    restarted(core, found(core, "a", SliceState.STARTING), found(core, "b", SliceState.STARTING))
    core.apply(core.again("a"))
    core.apply(RecoveryEnded())
    assert kinds(core.decide()) == ["stop s1.2 session_ended"], "an actor's is nobody else's"
    core.started("s1.1")
    assert core.leases["a"].slice == "s1.1" and core.snapshot().running[0].id == "a"


def test_what_was_handed_back_meanwhile_stays_warm(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    restarted(core, found(core, "a"))
    core.apply(core.holds("a"))
    core.apply(LeaseReleased(core.leases.pop("a").lease))
    core.apply(RecoveryEnded())
    assert core.settle() == [] and core.snapshot().slices[0].state == "idle"


@pytest.mark.parametrize(
    "change", [{"task_class": "another"}, {"environment": "another"}, None], ids=["class", "environment", "gone"]
)
def test_a_lease_that_cannot_be_held_again_is_lost_and_its_request_waits(
    core: World, change: dict[str, str] | None
) -> None:
    core.submit("a", gpu=1)
    core.settle()
    restarted(core, *[found(core, "a", **change)] if change else [])
    core.apply(core.holds("a"))
    core.apply(RecoveryEnded())
    first = core.decide()
    assert "revoke a#1 slice_lost again" in kinds(first)
    core.settle()
    assert core.leases["a"].lease.attempt == 2


def test_two_cannot_hold_one_slice(core: World) -> None:
    core.submit("a", gpu=1, task_class="f")
    core.submit("b", gpu=1, task_class="f", restartable=False)
    core.settle()
    restarted(core, found(core, "a"))
    stolen = LeaseFound(core.again("b"), dataclasses.replace(core.leases["b"], slice=core.leases["a"].slice))
    core.apply(core.holds("a"))
    core.apply(stolen)
    (told,) = core.decide()
    assert isinstance(told, RevokeLease) and "somebody else" in told.message and not told.requeued


def test_who_comes_too_late_is_told_and_starts_again(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    held = core.holds("a")
    restarted(core, found(core, "a"))
    core.apply(RecoveryEnded())
    core.settle()
    core.apply(held)
    (told, *_) = core.settle()
    assert isinstance(told, RevokeLease) and "too late" in told.message and told.requeued
    assert core.leases["a"].lease.attempt == 2


def test_who_was_taken_for_dead_is_told_so(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    held = core.holds("a")
    core.apply(SessionClosed("S"))
    core.settle()
    core.open("S")
    core.apply(held)
    (told, *_) = core.settle()
    assert isinstance(told, RevokeLease) and "taken for dead" in told.message and told.requeued


def test_what_ran_when_a_slice_ended_is_told_as_ever(core: World) -> None:
    """The slice was being stopped, or had ended, when the scheduler was started again."""
    core.submit("a", gpu=1)
    core.settle()
    stopping = found(core, "a", SliceState.STOPPING)
    restarted(core, stopping)
    core.apply(core.holds("a"))
    assert core.decide() == []
    core.apply(SliceEnded(stopping.slice, "too large", (7,), "memory", (9, 8)))
    (told,) = core.decide()
    assert isinstance(told, RevokeLease) and (told.running, told.cause, told.overrun) == ((7,), "memory", (9, 8))


def test_a_slice_for_which_there_is_no_room_is_stopped_and_not_booked(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    there = found(core, "a")
    elsewhere = SliceFound("s0.1", Placement("n1", ("n1/gpu9",), 500, 1), "E", "f", True, (0, 0), SliceState.IDLE)
    twice = SliceFound("s0.2", there.placement, "E", "f", True, (0, 0), SliceState.IDLE)
    unknown = SliceFound("s0.3", Placement("n7", (), 0, 0), "E", "f", True, (0, 0), SliceState.IDLE)
    restarted(core, there, elsewhere, twice, unknown)
    assert {c.slice for c in core.decide() if isinstance(c, StopSlice)} == {"s0.1", "s0.2", "s0.3"}
    for name in ("s0.1", "s0.2", "s0.3"):
        core.ended(name)
    assert not core.scheduler.state.strangers and core.snapshot().devices[0].share_held == 1.0


def test_a_node_that_reports_too_late_has_its_slices_stopped(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    there = found(core, "a")
    core.restart()
    core.open("S")
    core.apply(core.holds("a"))
    core.apply(RecoveryEnded())
    assert "revoke a#1 slice_lost again" in kinds(core.decide())
    core.apply(NodeReported(NODE))
    core.apply(there)
    commands = kinds(core.decide())
    assert "stop s1.1 session_ended" in commands
    core.settle()
    assert core.leases["a"].slice != there.slice


def test_everybody_stands_in_line_as_they_came(core: World) -> None:
    core.open("S2")
    for name in ("a", "b"):
        core.submit(name, gpu=1)
    core.settle()
    waiting = ("c", "d", "e", "f")
    for number, name in enumerate(waiting):
        core.now += 1
        core.submit(name, session=("S", "S2")[number % 2], gpu=1)
    core.settle()
    core.now += 3
    slices = (found(core, "a"), found(core, "b"))
    restarted(core, *slices, sessions=("S", "S2"))
    for name in ("d", "f", "c", "e"):  # one session after the other
        core.apply(core.again(name))
    for name in ("a", "b"):
        core.apply(core.holds(name))
    core.apply(RecoveryEnded())
    core.decide()
    assert [one.id for one in core.snapshot().waiting] == list(waiting)
    order = []
    for _ in waiting:
        name = next(iter(core.leases))
        core.release(name)
        core.settle()
        order += [one for one in core.leases if one not in order and one in waiting]
    assert order == list(waiting)


def test_what_was_recalled_stays_recalled(core: World) -> None:
    core.submit("a", gpu=1, **PREEMPTIBLE)
    core.settle()
    restarted(core, found(core, "a"))
    core.apply(core.holds("a", recalled=True, stop=True))
    core.apply(RecoveryEnded())
    core.decide()
    assert core.snapshot().running[0].state == "draining"
    core.now += core.scheduler.state.options.grace_seconds
    assert {"revoke a#1 preempted again", "stop s1.1 preempted"} <= set(kinds(core.decide()))


def test_what_is_said_of_a_lease_before_its_session_has_come_waits_for_that(core: World) -> None:
    """A task inside the slice waits for others of its own session; that joins before its parent's does."""
    core.submit("a", gpu=1)
    core.settle()
    restarted(core, found(core, "a"), sessions=("inner", "S"))
    lease = core.leases["a"].lease
    core.apply(LeaseBlocked(lease, "inner", ("f",)))
    assert not core.scheduler.state.blocked
    core.apply(core.holds("a"))
    assert list(core.scheduler.state.blocked) == [lease]


def test_a_session_that_ends_again_takes_what_it_said_to_hold_along(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    there = found(core, "a")
    restarted(core)
    core.apply(core.holds("a"))
    core.apply(SessionClosed("S"))
    core.apply(there)
    core.apply(RecoveryEnded())
    assert kinds(core.decide()) == ["stop s1.1 session_ended"]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_gang_is_a_gang_again(core: World, lost: int) -> None:
    core.submit("g", gpu=0.5, gang=3, reusable=True)
    core.settle()
    assert len(core.leases) == 3
    slices = [found(core, name) for name in core.leases]
    restarted(core, *slices[lost:])
    for name in list(core.leases):
        core.apply(core.holds(name, held=5.0))
    core.apply(RecoveryEnded())
    commands = kinds(core.decide())
    if not lost:
        assert commands == [] and len(core.scheduler.state.gangs["g"].running) == 3
        for name in list(core.leases):
            core.release(name)
        core.settle()
        assert not core.scheduler.state.gangs and not core.snapshot().slices
    else:  # as if it had lost the member while it ran: the others are asked to stop, and it starts again
        assert "revoke g.0#1 slice_lost again" in commands
        assert {"recall g.1#1", "recall g.2#1"} <= set(commands)


def test_a_gang_that_waits_is_one_request(core: World) -> None:
    core.submit("a", gpu=1)
    core.submit("b", gpu=1)
    core.settle()
    core.submit("g", gpu=0.5, gang=3)
    core.settle()
    slices = (found(core, "a"), found(core, "b"))
    restarted(core, *slices)
    for name in ("a", "b"):
        core.apply(core.holds(name))
    core.apply(core.again("g"))
    core.apply(RecoveryEnded())
    core.settle()
    for name in ("a", "b"):
        core.release(name)
    core.settle()
    assert set(core.leases) == {"g.0", "g.1", "g.2"}


def test_what_a_session_is_done_with_only_ends(core: World) -> None:
    core.submit("g", gpu=0.5, gang=2)
    core.settle()
    slices = [found(core, name) for name in core.leases]
    core.release("g.0")
    restarted(core, *slices)
    core.apply(core.holds("g.1", closing=True))
    core.apply(RecoveryEnded())
    core.settle()
    assert set(core.leases) == {"g.1"}
    core.release("g.1")
    core.settle()
    assert not core.scheduler.state.gangs and not core.scheduler.state.requests


def test_a_change_of_size_is_booked_with_the_larger_amount_until_it_is_over(core: World) -> None:
    core.submit("a", gpu=0.25, memory="8GiB")
    core.settle()
    lease = core.leases["a"].lease
    small = found(core, "a", resized=True)
    large = Placement("n1", small.placement.devices, 500, 8192)
    restarted(core, dataclasses.replace(small, placement=large))
    core.apply(core.holds("a"))
    core.apply(ResizeAsked(lease, 100, None, 5))
    assert core.snapshot().devices[0].share_held == 0.5
    core.apply(small)
    assert core.snapshot().devices[0].share_held == 0.25
    core.apply(RecoveryEnded())
    core.settle()
    assert [a.placement.share for a in core.answers if isinstance(a, AnswerResize) and a.placement] == [500, 250]
    core.resize("a", share=100)  # what was asked meanwhile has begun only now, so that this is one too many
    core.settle()
    assert core.resizing == [small.slice] and "under way" in core.answers[-1].refused


def test_what_queues_have_used_is_remembered(core: World) -> None:
    queues = QueuesConfigured((Queue("a", half_life=60.0), Queue("b", half_life=60.0)))
    core.apply(queues)
    core.submit("r", gpu=1, queue="a")
    core.settle()
    core.now += 60
    core.release("r")
    rows = core.scheduler.state.sharing.history(core.now)
    before = core.scheduler.state.sharing.fair_shares(core.now)
    restarted(core)
    core.apply(queues)
    core.now += 1
    core.apply(HistoryRestored(tuple(rows)))
    core.apply(RecoveryEnded())
    part = {name: use for name, use, _ in core.scheduler.state.sharing.history(core.now)}
    assert part["a"] == pytest.approx(dict((n, u) for n, u, _ in rows)["a"] * 0.5 ** (1 / 60)) and part["b"] == 0
    assert before["a"].amount <= before["b"].amount


def test_it_is_all_in_the_journal(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    restarted(core, found(core, "a"))
    core.apply(core.holds("a"))
    core.submit("b", gpu=1)
    core.apply(RecoveryEnded())
    core.settle()
    again = World(node("n1"), warm_seconds=60, lease_term_seconds=5)
    again.restart()
    journal = core.journal[1:]  # the first line is what ``restart`` did there too
    assert list(replay(journal, again.scheduler)) == [] and set(core.leases) == {"a", "b"}


def test_to_begin_twice_forgets_nothing(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    restarted(core, found(core, "a"))
    begin(core.scheduler.state, RecoveryBegan(), core.now)
    core.apply(core.holds("a"))
    core.apply(RecoveryEnded())
    core.apply(RecoveryEnded())
    assert core.settle() == [] and core.snapshot().running[0].id == "a"
