"""Gangs: placed together or not at all, granted in one go, taken back as a whole, grown and shrunk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import World, kinds, node
from hypothesis import given, settings
from hypothesis import strategies as st

from flexray.model import events
from flexray.model.commands import FailRequest, GrantLease, RecallLease, RevokeLease
from flexray.model.gang import Gang
from flexray.model.lifecycle import EndReason, RecallReason
from flexray.model.queue import Queue, QueueAmount
from flexray.model.request import Request

TERM = 5
YIELDS = Request(preemptible=True)


def held(world: World, gang: str) -> list[str]:
    """Where the members of a gang run, by device, in order."""
    return sorted(place for name, place in world.placed.items() if name.startswith(f"{gang}."))


def per_node(world: World, gang: str) -> list[int]:
    """How many members are on each of its nodes, most first."""
    leases = [lease for name, lease in world.leases.items() if name.startswith(f"{gang}.")]
    return sorted(Counter(lease.placement.node for lease in leases).values(), reverse=True)


def recalled(world: World) -> list[tuple[str, str]]:
    return [(c.lease.request, c.reason.value) for c in world.commands if isinstance(c, RecallLease)]


def give_way(world: World) -> None:
    """Everything that was asked to stop does so."""
    asked = world.scheduler.state.evictions
    for lease in [lease for lease in world.leases.values() if lease.slice in asked]:
        world.apply(events.LeaseYielded(lease.lease))
    world.settle()


def checkpoint(world: World, member: str) -> None:
    world.apply(events.LeaseCheckpointed(world.leases[member].lease))


# -- where -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Nodes, what runs there, a gang that comes; on which type and how many on each node it starts, or why not."""

    name: str
    nodes: dict[str, str]
    gang: dict[str, Any]
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    type: str = "nvidia/A100-80GB"
    starts: tuple[int, ...] = ()
    waits: str = ""


PLACES = [
    Place("one node holds all", {"n1": "2xA100", "n2": "4xA100"}, {"gang": 3}, starts=(3,)),
    Place("the smallest that holds all", {"n1": "8xA100", "n2": "4xA100"}, {"gang": 4}, starts=(4,)),
    Place("else the largest first", {"n1": "2xA100", "n2": "3xA100", "n3": "1xA100"}, {"gang": 5}, starts=(3, 2)),
    Place("shares of one device", {"n1": "2xA100"}, {"gpu": 0.25, "gang": 6}, starts=(6,)),
    Place("spread", {"n1": "4xA100", "n2": "4xA100"}, {"gang": Gang(4, layout="spread")}, starts=(2, 2)),
    Place("spread over more nodes than members", {f"n{i}": "2xA100" for i in range(5)},
          {"gang": Gang(3, layout="spread")}, starts=(1, 1, 1)),
    Place("spread where it fits", {"n1": "1xA100", "n2": "3xA100"}, {"gang": Gang(4, layout="spread")}, starts=(3, 1)),
    Place("members of several devices", {"n1": "4xA100", "n2": "4xA100"}, {"gpu": 2, "gang": 4}, starts=(2, 2)),
    Place("the faster type", {"n1": "4xA100", "n2": "4xT4"}, {"gang": 4}, starts=(4,)),
    Place("never two types", {"n1": "2xA100", "n2": "4xT4"}, {"gang": 4}, type="nvidia/T4", starts=(4,)),
    Place("more of a slower one are slower still", {"n1": "2xA100", "n2": "8xT4"}, {"gang": (2, 8)}, starts=(2,)),
    Place("more of a slower one are faster", {"n1": "1xA100", "n2": "8xA10"}, {"gang": (1, 8)},
          type="nvidia/A10", starts=(8,)),
    Place("as many as fit", {"n1": "4xA100"}, {"gang": (2, 8)}, starts=(4,)),
    Place("enough and no fewer", {"n1": "3xA100"}, {"gang": (3, 8)}, starts=(3,)),
    Place("too few now", {"n1": "3xA100"}, {"gang": 3}, {"a": {"gpu": 0.1}}, waits="no_room"),
    Place("host cores count", {"n1": "4xA100", "n2": "4xA100"}, {"gang": 4, "cpus": 3}, starts=(2, 2)),
    Place("host cores between levels", {"n1": "4xA100"}, {"gang": 4, "cpus": 1.9999}, starts=(4,)),
    Place("without devices", {"n1": "", "n2": ""},
          {"request": Request(devices=0, cpus=4000), "gang": 4}, type="host", starts=(2, 2)),
]  # fmt: skip


@pytest.mark.parametrize("case", PLACES, ids=lambda case: case.name)
def test_where_a_gang_goes(case: Place) -> None:
    world = World(*(node(name, what, cpus=8) for name, what in case.nodes.items()))
    for name, options in case.running.items():
        world.submit(name, **options)
    world.settle()
    world.submit("g", **{**({} if "request" in case.gang else {"gpu": 1}), **case.gang})
    world.settle()
    assert tuple(per_node(world, "g")) == case.starts
    assert world.reason("g") == case.waits
    assert {world.leases[name].device_type for name in world.leases if name.startswith("g.")} <= {case.type}


def test_members_get_their_leases_in_one_go_with_the_roster() -> None:
    world = World(node("n1", "3xA100"), starts=False)
    world.submit("g", gpu=1, gang=3)
    world.settle()
    first, second, third = list(world.starting)
    world.started(second)
    world.started(third)
    assert world.settle() == []
    assert [world.reason(f"g.{n}") for n in range(3)] == ["slice_starting", "gang", "gang"]
    assert "others of its gang" in world.explain("g.1").needs
    world.started(first)
    granted = [c for c in world.settle() if isinstance(c, GrantLease)]
    assert [c.lease.lease.request for c in granted] == ["g.0", "g.1", "g.2"]
    assert {c.gang for c in granted} == {tuple(c.lease.lease for c in granted)}


def test_infeasible_says_how_many_would_fit() -> None:
    world = World(node("n1", "2xA100"), node("n2", "3xT4"))
    world.submit("g", gpu=1, gang=4)
    assert kinds(world.settle()) == ["fail g infeasible"]
    assert "needs 4 members on devices of one type, and at most 3 would ever fit" in world.failed["g"].message
    assert world.explain("g") is None


def test_what_explain_says_of_a_gang_that_waits() -> None:
    world = World(node("n1", "4xA100"))
    world.submit("a", gpu=1)
    world.settle()
    world.submit("g", gpu=1, gang=4)
    world.submit("z", gpu=1, gang=2, task_class="z")
    world.settle()
    assert held(world, "z") and not held(world, "g"), "it holds nothing, and nobody up"
    found = world.explain("g")
    assert (found.request, found.wait_reason, found.position) == ("g", "no_room", 1)
    assert found.needs.startswith("1 of the 4 members it needs fit now")
    shown = {view.id: (view.position, view.wait_reason) for view in world.snapshot().waiting}
    assert shown == {f"g.{n}": (1, "no_room") for n in range(4)}


def test_a_gang_takes_no_warm_slice_and_leaves_none() -> None:
    world = World(node("n1", "2xA100"))
    world.submit("a", gpu=1, task_class="c")
    world.settle()
    world.release("a")
    world.submit("g", gpu=1, gang=2, task_class="c")
    assert "stop s1.1 make_room" in kinds(world.settle())
    for member in ("g.0", "g.1"):
        world.release(member)
    assert kinds(world.settle()) == ["stop s1.2 not_reusable", "stop s1.3 not_reusable"]
    assert not world.snapshot().slices and not world.scheduler.state.gangs


# -- losing, cancelling, failing -------------------------------------------------------------------


def running(*nodes: Any, gang: Any = 4, **options: Any) -> World:
    world = World(*(nodes or (node("n1", "4xA100"), node("n2", "4xA100"))), lease_term_seconds=TERM, rematch_seconds=10)
    world.submit("g", gpu=1, gang=gang, **options)
    world.settle()
    assert held(world, "g")
    return world


def test_one_lost_member_takes_the_gang_back_and_it_starts_again() -> None:
    world = running()
    world.ended(world.leases["g.2"].slice)
    out = [line for line in kinds(world.settle()) if not line.startswith("start")]
    assert out == ["revoke g.2#1 slice_lost again", "recall g.0#1", "recall g.1#1", "recall g.3#1"]
    assert {c.reason for c in world.commands if isinstance(c, RecallLease)} == {RecallReason.GANG}
    assert world.reason("g.2") == "gang", "it waits for the others"
    give_way(world)
    assert sorted(world.leases) == [f"g.{n}" for n in range(4)]
    assert {lease.lease.attempt for lease in world.leases.values()} == {2}


def test_a_gang_that_lost_a_member_starts_again_before_others_take_its_room() -> None:
    world = running(node("n1", "4xA100"))
    world.submit("later", gpu=1, task_class="later")
    world.settle()
    world.ended(world.leases["g.2"].slice)
    world.settle()
    assert world.reason("g.2") == "gang" and world.reason("later") == "no_room"
    for name in ("g.0", "g.3"):
        world.apply(events.LeaseYielded(world.leases.pop(name).lease))
        world.settle()
        assert world.reason("later") == "no_room"
    give_way(world)
    assert len(held(world, "g")) == 4 and world.reason("later") == "no_room"


def test_what_it_planned_is_given_up_when_it_is_not_enough_any_more() -> None:
    world = running(node("n1", "2xA100"), node("n2", "2xA100"), node("n3", "4xT4"))
    world.submit("all of n3", gpu=4, reusable=False)
    world.submit("later", gpu=1, task_class="later", types="nvidia/A100*")
    world.ended(world.leases["g.0"].slice)
    world.settle()
    world.apply(events.NodeLost("n2"))
    world.node_is_gone("n2")
    world.settle()
    assert "later" in world.leases, "the gang holds nothing for two of its members"
    give_way(world)
    world.release("later")
    world.apply(events.NodeReported(node("n2", "2xA100")))
    world.settle()
    assert len(held(world, "g")) == 4


def test_members_that_do_not_yield_are_stopped_after_the_grace_period() -> None:
    world = running()
    world.ended(world.leases["g.0"].slice)
    world.settle()
    out = kinds(world.wait(2))
    assert [line for line in out if "preempted" in line][:2] == ["revoke g.1#1 preempted again", "stop s1.2 preempted"]
    assert len(held(world, "g")) == 4


def test_an_elastic_gang_goes_on_with_enough_members() -> None:
    world = running(gang=(2, 4))
    world.ended(world.leases["g.1"].slice)
    assert kinds(world.settle()) == ["revoke g.1#1 slice_lost again"]
    world.ended(world.leases["g.3"].slice)
    world.settle()
    assert sorted(world.leases) == ["g.0", "g.2"]
    assert "its gang runs with 2 of 4 members" in world.explain("g.1").needs
    assert world.explain("g").state == "leased" and len(world.explain("g").devices) == 2
    world.ended(world.leases["g.0"].slice)
    world.settle()
    assert recalled(world) == [("g.2", "gang")]


def test_a_lost_member_that_is_still_starting_gives_everything_up_at_once() -> None:
    world = World(node("n1", "2xA100"), starts=False, stops=False)
    world.submit("g", gpu=1, gang=2)
    world.settle()
    first, second = list(world.starting)
    world.started(first)
    world.failed_to_start(second)
    out = kinds(world.settle())
    assert [line.split()[0] for line in out] == ["stop", "start"] and out[0] == f"stop {first} cancelled"
    assert sorted(world.reason(f"g.{n}") for n in (0, 1)) == ["making_room", "slice_starting"]
    world.ended(first)
    assert [line.split()[0] for line in kinds(world.settle())] == ["start"]


def test_a_member_that_cannot_be_started_fails_the_gang_once() -> None:
    world = World(node("n1", "2xA100"), starts=False)
    world.submit("g", gpu=1, gang=2)
    for _ in range(3):
        world.settle()
        world.failed_to_start(world.starting[0])
    out = world.settle()
    assert [(c.request, c.reason) for c in out if isinstance(c, FailRequest)] == [("g", EndReason.START_FAILED)]
    assert not world.snapshot().slices and not world.scheduler.state.requests


def test_the_node_of_all_members_is_lost() -> None:
    world = running(node("n1", "4xA100"))
    world.apply(events.NodeLost("n1"))
    world.node_is_gone("n1")
    revoked = [c for c in world.settle() if isinstance(c, RevokeLease)]
    assert [(c.lease.request, c.requeued) for c in revoked] == [(f"g.{n}", True) for n in range(4)]
    assert world.reason("g") == "no_devices"
    world.apply(events.NodeReported(node("n3", "4xA100")))
    world.settle()
    assert len(held(world, "g")) == 4


def test_a_gang_that_does_not_start_again_fails_with_its_member() -> None:
    world = running(restartable=False)
    world.ended(world.leases["g.1"].slice)
    out = world.settle()
    assert [c.request for c in out if isinstance(c, FailRequest)] == ["g"]
    assert [c.requeued for c in out if isinstance(c, RevokeLease)] == [False] * 4
    assert not world.leases and not world.snapshot().slices


@pytest.mark.parametrize("gang", [2, (2, 3)])
def test_one_that_does_not_start_again_fails_when_all_members_are_lost_at_once(gang: Any) -> None:
    world = running(node("n1", "2xA100"), gang=gang, restartable=False)
    world.apply(events.NodeLost("n1"))
    world.node_is_gone("n1")
    assert [c.request for c in world.settle() if isinstance(c, FailRequest)] == ["g"]
    assert not world.scheduler.state.gangs and not world.scheduler.state.requests, "nobody waits for what never comes"


@pytest.mark.parametrize("released", [False, True])
def test_cancelling(released: bool) -> None:
    world = running(node("n1", "4xA100"), gang=(2, 8))
    world.apply(events.RequestCancelled("g"))
    world.settle()
    assert len(world.leases) == 4, "leases are handed back by the client"
    assert not world.snapshot().waiting
    for name in list(world.leases):
        world.release(name) if released else world.ended(world.leases[name].slice)
    world.settle()
    assert not world.leases and not world.scheduler.state.gangs and not world.snapshot().slices


def test_a_gang_that_waits_is_cancelled_as_one() -> None:
    world = World(node("n1", "2xA100"))
    world.submit("a", gpu=1)
    world.settle()
    world.submit("g", gpu=1, gang=2)
    world.settle()
    world.apply(events.RequestCancelled("g"))
    assert world.settle() == []
    assert not world.scheduler.state.gangs and not world.snapshot().waiting


def test_its_session_closes() -> None:
    world = running(gang=(2, 8))
    world.apply(events.SessionClosed("S"))
    world.session_is_gone("S")
    world.settle()
    assert not world.scheduler.state.gangs and not world.scheduler.state.requests and not world.snapshot().slices


def test_members_are_done_one_after_the_other_and_none_starts_again() -> None:
    world = running()
    world.release("g.0")
    assert kinds(world.settle()) == ["stop s1.1 not_reusable"]
    world.ended(world.leases["g.1"].slice)
    assert kinds(world.settle()) == ["revoke g.1#1 slice_lost"], "one that is done cannot be started with it again"
    world.release("g.2")
    world.release("g.3")
    world.settle()
    assert not world.scheduler.state.gangs


def test_a_member_that_is_done_while_the_gang_comes_back_stays_done() -> None:
    world = running()
    world.ended(world.leases["g.1"].slice)
    world.settle()
    world.release("g.0")
    give_way(world)
    assert sorted(world.leases) == ["g.1", "g.2", "g.3"]
    roster = [c.gang for c in world.commands if isinstance(c, GrantLease)][-1]
    assert [lease.request for lease in roster] == ["g.1", "g.2", "g.3"]


# -- two gangs -------------------------------------------------------------------------------------


def test_two_gangs_never_hold_devices_for_each_other() -> None:
    """Each needs 3 of 4 devices; one runs, and loses a member's device: neither may sit on what the other needs."""
    world = World(node("n1", "2xA100"), node("n2", "2xA100"))
    for name in ("g", "h"):
        world.submit(name, gpu=1, gang=3, task_class=name)
    world.settle()
    assert len(held(world, "g")) == 3 and not held(world, "h")
    world.ended(world.leases["g.0"].slice)
    world.apply(events.NodeReported(node("n2", "1xA100 sick 1xA100 sick")))
    world.settle()
    give_way(world)
    assert not world.snapshot().slices, "with 2 devices left nobody holds any"
    world.apply(events.NodeReported(node("n2", "2xA100")))
    world.settle()
    assert len(held(world, "g")) == 3
    for name in held_names(world, "g"):
        world.release(name)
    world.settle()
    assert len(held(world, "h")) == 3


def held_names(world: World, gang: str) -> list[str]:
    return [name for name in world.leases if name.startswith(f"{gang}.")]


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=2, max_size=6),
    losses=st.lists(st.integers(0, 50), max_size=8),
    layout=st.sampled_from(["pack", "spread"]),
)
def test_every_gang_runs_in_the_end(sizes: list[tuple[int, int]], losses: list[int], layout: str) -> None:
    """Whatever is lost on the way: when everything that runs ends, everybody gets a turn."""
    world = World(node("n1", "4xA100"), node("n2", "4xT4"), lease_term_seconds=2)
    for index, (least, more) in enumerate(sizes):
        world.submit(f"g{index}", gpu=1, gang=Gang(least + more, least, layout), task_class=f"c{index}")
    world.settle()
    for loss in losses:
        if world.leases:
            world.ended(world.leases[sorted(world.leases)[loss % len(world.leases)]].slice)
        world.wait(1)
        give_way(world)
    ran = set()
    for _ in range(4 * len(sizes)):
        ran |= {name.split(".")[0] for name in world.leases}
        for name in list(world.leases):
            world.release(name)
        world.wait(1)
        give_way(world)
    assert ran == {f"g{index}" for index in range(len(sizes))}
    assert not world.scheduler.state.gangs and not world.scheduler.state.requests


# -- growing and shrinking -------------------------------------------------------------------------


def grown(world: World) -> int:
    return len(held(world, "g"))


def test_a_gang_grows_after_a_checkpoint_and_some_time() -> None:
    world = World(node("n1", "4xA100"), rematch_seconds=10, lease_term_seconds=1000)
    world.submit("a", gpu=1, task_class="a")
    world.submit("b", gpu=1, task_class="b")
    world.settle()
    world.submit("g", gpu=1, gang=(2, 4))
    world.settle()
    world.release("a")
    world.wait(5)
    checkpoint(world, "g.0")
    assert world.settle() == [] and world.wait(4.9) == []
    assert kinds(world.wait(0.1)) == ["stop s1.1 make_room", "start s1.5", "grant g.2#1"]
    roster = [c.gang for c in world.commands if isinstance(c, GrantLease)][-1]
    assert [lease.request for lease in roster] == ["g.0", "g.1", "g.2"]
    world.release("b")
    assert world.wait(60) == [], "what was done since has not been stored"
    checkpoint(world, "g.2")
    assert "grant g.3#1" in kinds(world.settle())


def test_a_gang_does_not_grow_once_a_member_is_done() -> None:
    world = running(node("n1", "4xA100"), gang=(2, 8))
    world.release("g.3")
    world.wait(1)
    checkpoint(world, "g.0")
    world.wait(60)
    assert sorted(world.leases) == ["g.0", "g.1", "g.2"] and not world.snapshot().waiting


def test_those_who_wait_go_before_a_gang_that_grows() -> None:
    world = World(node("n1", "3xA100"), rematch_seconds=10, lease_term_seconds=1000)
    world.submit("a", gpu=1, task_class="a")
    world.settle()
    world.submit("g", gpu=1, gang=(2, 4))
    world.settle()
    world.wait(1)
    checkpoint(world, "g.0")
    world.wait(20)
    world.submit("b", gpu=1, task_class="b")
    world.release("a")
    world.settle()
    assert "b" in world.leases and grown(world) == 2


def test_a_grown_member_that_cannot_be_started_is_left_out() -> None:
    world = running(node("n1", "2xA100"), gang=(2, 3))
    world.apply(events.NodeReported(node("n2", "1xA100")))
    world.wait(1)
    checkpoint(world, "g.0")
    world.starts = False
    world.wait(20)
    for _ in range(3):
        assert world.reason("g.2") == "slice_starting"
        world.failed_to_start(world.starting[0])
        world.settle()
    assert sorted(world.leases) == ["g.0", "g.1"] and "g.2" not in world.scheduler.state.requests


def test_a_gang_with_a_checkpoint_gives_up_members_for_who_has_waited() -> None:
    world = running(node("n1", "4xA100"), gang=(2, 4))
    world.submit("a", gpu=1, task_class="a")
    world.wait(TERM)
    assert recalled(world) == [], "without a checkpoint all its work would be lost"
    checkpoint(world, "g.1")
    world.settle()
    assert recalled(world) == [("g.3", "starving")]
    give_way(world)
    assert sorted(world.leases) == ["a", "g.0", "g.1", "g.2"]


# -- taking back -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taking:
    """What runs, in its order; a request with a higher priority, or of a queue with a quota; who has to give way."""

    name: str
    running: dict[str, dict[str, Any]]
    arriving: dict[str, Any]
    victims: list[str]
    starts: int = 1


TAKING = [
    Taking("optional members one by one, the last first", {"g": {"gang": (2, 4), "request": YIELDS}},
           {"gpu": 1, "priority": 1}, ["g.3"]),
    Taking("two of them", {"g": {"gang": (1, 4), "request": YIELDS}}, {"gpu": 2, "priority": 1}, ["g.3", "g.2"]),
    Taking("the whole gang or nothing", {"g": {"gang": 4, "request": YIELDS}}, {"gpu": 1, "priority": 1},
           ["g.0", "g.1", "g.2", "g.3"]),
    Taking("not one that did not say so", {"g": {"gang": 4}}, {"gpu": 1, "priority": 1}, [], starts=0),
    Taking("a single one that loses less", {"g": {"gang": 3, "request": YIELDS}, "a": {"gpu": 1, "request": YIELDS}},
           {"gpu": 1, "priority": 1}, ["a"]),
    Taking("a gang takes from single ones, no more than it needs",
           {name: {"gpu": 1, "request": YIELDS} for name in "abcd"}, {"gang": 3, "priority": 1}, ["d", "c", "b"], 3),
    Taking("as many as it needs, not as it may have", {name: {"gpu": 1, "request": YIELDS} for name in "abcd"},
           {"gang": (2, 4), "priority": 1}, ["d", "c"], 2),
    Taking("a gang takes from a gang", {"g": {"gang": 4, "request": YIELDS}}, {"gang": 2, "priority": 1},
           ["g.0", "g.1", "g.2", "g.3"], 2),
    Taking("none, if all of them are not enough", {"a": {"gpu": 1, "request": YIELDS}, "g": {"gang": 3}},
           {"gang": 2, "priority": 1}, [], 0),
    Taking("for a quota, optional ones first", {"g": {"gang": (2, 4)}}, {"gpu": 1, "queue": "prod"}, ["g.3"]),
    Taking("for a quota, a whole gang", {"g": {"gang": 4}}, {"gpu": 1, "queue": "prod"},
           ["g.0", "g.1", "g.2", "g.3"]),
    Taking("a gang for its quota", {name: {"gpu": 1} for name in "abcd"}, {"gang": 2, "queue": "prod"}, ["d", "c"], 2),
    Taking("no gang beyond its quota", {name: {"gpu": 1} for name in "abcd"}, {"gang": 3, "queue": "prod"}, [], 0),
]  # fmt: skip


@pytest.mark.parametrize("case", TAKING, ids=lambda case: case.name)
def test_who_gives_way(case: Taking) -> None:
    world = World(node("n1", "4xA100"), lease_term_seconds=1000, rematch_seconds=0)
    if "queue" in case.arriving:
        queues = (Queue("prod", quota=QueueAmount(2000)), Queue("rest"))
        world.apply(events.QueuesConfigured(queues))
    queue = {"queue": "rest"} if "queue" in case.arriving else {}
    for name, options in case.running.items():
        world.submit(name, task_class=name, **{"gpu": 1, **options, **queue})
        world.wait(1)
    world.wait(2)
    world.submit("new", task_class="new", **{"gpu": 1, **case.arriving})
    world.settle()
    assert [name for name, _ in recalled(world)] == case.victims
    reason = "reclaim" if "queue" in case.arriving else "priority"
    assert {why for _, why in recalled(world)} <= {reason}
    winners = {c.winner for c in world.commands if isinstance(c, RecallLease)}
    assert winners <= {"new"}
    give_way(world)
    assert sum(name.split(".")[0] == "new" for name in world.leases) == case.starts
    if case.victims and case.victims[0] == "g.0":
        assert not held(world, "g") and world.reason("g") in ("no_room", "fragmented"), "it waits as a whole"


def test_a_starving_gang_has_leases_recalled() -> None:
    world = World(node("n1", "4xA100"), lease_term_seconds=TERM)
    for name in "abcd":
        world.submit(name, gpu=1, task_class=name)
        world.settle()
    world.submit("g", gpu=1, gang=3, task_class="g")
    world.wait(TERM)
    assert recalled(world) == [("a", "starving"), ("b", "starving"), ("c", "starving")]
    for name in "abc":
        assert not held(world, "g")
        world.release(name)
        world.settle()
    assert len(held(world, "g")) == 3


def test_a_gang_that_waits_for_recalled_leases_takes_other_room_that_comes_free() -> None:
    world = World(node("n1", "3xA100"), lease_term_seconds=TERM)
    for name in "abc":
        world.submit(name, gpu=1, task_class=name)
        world.settle()
    world.submit("g", gpu=1, gang=2, task_class="g")
    world.wait(TERM)
    assert [name for name, _ in recalled(world)] == ["a", "b"]
    world.release("c")
    world.settle()
    world.release("b")
    world.settle()
    assert len(held(world, "g")) == 2, "a goes on, and nobody waits for it any more"


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "gang", "starts"),
    [
        (QueueAmount(3000), (2, 8), 3),
        (QueueAmount(2000), 3, 0),
        (QueueAmount(3000), 3, 3),
        (QueueAmount(types=(("nvidia/A100*", 1000),)), 2, 2),  # two T4, since only one A100 is allowed
    ],
)
def test_limits_count_all_members(limit: QueueAmount, gang: Any, starts: int) -> None:
    world = World(node("n1", "4xA100"), node("n2", "4xT4"))
    world.apply(events.QueuesConfigured((Queue("q", limit=limit),)))
    world.submit("g", gpu=1, gang=gang, queue="q")
    world.settle()
    assert len(held(world, "g")) == starts
    assert world.reason("g") == ("" if starts else "queue_limit")


def test_a_gang_does_not_grow_beyond_a_limit() -> None:
    world = World(node("n1", "4xA100"), rematch_seconds=10)
    world.apply(events.QueuesConfigured((Queue("q", limit=QueueAmount(3000)),)))
    world.submit("g", gpu=1, gang=(2, 4), queue="q")
    world.wait(1)
    checkpoint(world, "g.0")
    world.wait(60)
    assert grown(world) == 3


@pytest.mark.parametrize(("queue", "priority", "reason"), [("nope", 0, "unknown_queue"), ("q", 7, "queue_rules")])
def test_a_queue_that_does_not_take_it(queue: str, priority: int, reason: str) -> None:
    world = World(node("n1", "4xA100"))
    world.apply(events.QueuesConfigured((Queue("q", priorities=(0, 1)),)))
    world.submit("g", gpu=1, gang=2, queue=queue, priority=priority)
    assert kinds(world.settle()) == [f"fail g {reason}"]
    assert not world.scheduler.state.gangs and not world.scheduler.state.requests


def test_queues_that_go_take_no_gang_with_them() -> None:
    world = World(node("n1", "2xA100"))
    world.apply(events.QueuesConfigured((Queue("q"),)))
    world.submit("a", gpu=1)
    world.settle()
    world.submit("g", gpu=1, gang=2, queue="q")
    world.settle()
    world.apply(events.QueuesConfigured(()))
    world.release("a")
    world.settle()
    assert len(held(world, "g")) == 2


# -- others ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gang", "deadlocked"), [(3, True), (2, False)])
def test_a_task_that_waits_for_a_gang(gang: int, deadlocked: bool) -> None:
    world = World(node("n1", "3xA100"))
    world.submit("parent", gpu=1, task_class="parent", reusable=False)
    world.submit("other", gpu=1, task_class="other", reusable=False)
    world.settle()
    world.block("parent", "child")
    world.submit("g", gpu=1, gang=gang, task_class="child")
    world.settle()
    world.wait(1.5)
    assert ("g" in world.failed) is deadlocked
    assert kinds(world.commands).count("fail g deadlock") == deadlocked


def test_rounds_leave_gangs_alone() -> None:
    world = World(node("n1", "2xT4"), rematch_seconds=1, policy="balanced")
    world.submit("g", gpu=1, gang=2, request=YIELDS)
    world.settle()
    world.apply(events.NodeReported(node("n2", "4xH100")))
    for _ in range(5):
        world.wait(10)
    assert recalled(world) == []
