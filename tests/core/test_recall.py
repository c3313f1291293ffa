"""Leases that are recalled for those who have waited, and waits that can never end."""

from __future__ import annotations

from typing import Any

import pytest
from harness import World, kinds, lease_id, node

from flexray.model.events import LeaseUnblocked, RequestCancelled
from flexray.model.lifecycle import EndReason

TERM = 5


def busy(*nodes: Any, holders: dict[str, dict[str, Any]] | None = None) -> World:
    """A pool in which each holder has had a lease since 0; slices stop when the test says so."""
    world = World(*(nodes or (node("n1", "1xA100"),)), stops=False, lease_term_seconds=TERM)
    for name, options in (holders or {"old": {"gpu": 1}}).items():
        world.submit(name, task_class=f"class of {name}", **options)
        world.settle()
    assert set(world.leases) == set(holders or {"old": {}})
    return world


# -- recall --------------------------------------------------------------------------------


def test_the_way_of_a_recall() -> None:
    world = busy()
    world.submit("new", gpu=0.5)
    assert world.settle() == [] and world.reason("new") == "no_room"
    assert world.wait(TERM - 0.1) == []
    assert kinds(world.wait(0.1)) == ["recall old#1"]
    assert world.reason("new") == "making_room" and world.explain("old").state == "draining"
    assert world.wait(100) == [], "asked once"
    world.release("old")
    assert kinds(world.settle()) == ["stop s1.1 make_room"]
    world.ended("s1.1")
    assert kinds(world.settle()) == ["start s1.2", "grant new#1"]


@pytest.mark.parametrize(
    ("name", "old", "new", "recalled"),
    [
        ("waited and held long enough", {}, {}, True),
        ("an actor", {"reusable": False}, {}, False),
        ("higher priority", {"priority": 1}, {}, False),
        ("equal priority", {"priority": 1}, {"priority": 1}, True),
        ("lower priority", {}, {"priority": 1}, True),
        ("the request's own line", {"task_class": "c"}, {"task_class": "c"}, False),
        ("the same class with another priority", {"task_class": "c"}, {"task_class": "c", "priority": 1}, True),
        ("the wrong device", {"types": "nvidia/T4"}, {"types": "nvidia/A100*"}, False),
    ],
)
def test_which_leases_are_recalled(name: str, old: dict[str, Any], new: dict[str, Any], recalled: bool) -> None:
    world = World(node("n1", "1xA100 1xT4"), stops=False, lease_term_seconds=TERM)
    world.submit("keeps", gpu=1, reusable=False, types="nvidia/A100*" if "types" in old else "nvidia/T4")
    world.settle()
    world.submit("old", **{"gpu": 1, "task_class": "old", **old})
    world.settle()
    world.submit("new", **{"gpu": 1, "task_class": "new", **new})
    world.settle()
    assert kinds(world.wait(TERM)) == (["recall old#1"] if recalled else [])


def test_both_terms_count() -> None:
    world = busy()
    world.wait(100)
    world.submit("new", gpu=1)
    assert world.settle() == []
    assert world.wait(TERM - 0.1) == []  # held long, not waited long
    assert kinds(world.wait(0.1)) == ["recall old#1"]


def test_a_young_lease_is_left_alone() -> None:
    world = busy()
    world.submit("new", gpu=1)
    world.settle()
    world.now += TERM - 1
    world.ended("s1.1")  # the old one starts again, first in line
    assert "grant old#2" in kinds(world.settle())
    assert world.wait(1) == [] and world.wait(TERM - 1.1) == []
    assert kinds(world.wait(0.1)) == ["recall old#2"]


def test_a_lease_whose_task_waits_is_left_alone() -> None:
    world = busy()
    world.block("old", "nobody's class")
    world.submit("new", gpu=1)
    world.settle()
    assert world.wait(TERM) == []
    world.apply(LeaseUnblocked(lease_id("old")))
    assert kinds(world.settle()) == ["recall old#1"]


def test_no_more_is_recalled_than_needed() -> None:
    world = busy(holders={name: {"gpu": 0.25} for name in "abcd"})
    world.submit("new", gpu=0.5)
    world.settle()
    assert kinds(world.wait(TERM)) == ["recall a#1", "recall b#1"]


def test_idle_slices_and_recalls_make_room_together() -> None:
    world = busy(holders={"a": {"gpu": 0.5}, "b": {"gpu": 0.4}})
    world.submit("new", gpu=0.8)
    world.settle()
    world.now = TERM - 1.0
    world.release("b")
    assert world.settle() == []
    assert kinds(world.wait(1)) == ["recall a#1", "stop s1.2 make_room"]


def test_promised_room_is_not_taken_by_others() -> None:
    world = busy(holders={"a": {"gpu": 0.5}, "b": {"gpu": 0.5}})
    world.submit("large", gpu=1)
    world.settle()
    assert kinds(world.wait(TERM)) == ["recall a#1", "recall b#1"]
    world.submit("small", gpu=0.5)
    world.submit("urgent", gpu=0.5, priority=9)
    world.release("a")
    world.settle()
    world.ended("s1.1")
    assert world.settle() == [], "half the device is free, and promised"
    assert [world.reason(name) for name in ("large", "small", "urgent")] == ["making_room", "no_room", "no_room"]
    world.release("b")
    world.settle()
    world.ended("s1.2")
    assert kinds(world.settle()) == ["start s1.3", "grant large#1"]


def test_the_recalled_session_asks_again_behind_those_who_waited() -> None:
    world = busy()
    world.stops = True
    world.submit("new", gpu=1)
    world.settle()
    world.wait(TERM)
    world.release("old")
    world.submit("again", gpu=1, task_class="class of old")
    world.settle()
    assert set(world.placed) == {"new"} and world.reason("again") == "no_room"


def test_a_recalled_lease_nobody_needs_any_more_stays_warm() -> None:
    world = busy()
    world.submit("new", gpu=1)
    world.settle()
    world.wait(TERM)
    world.apply(RequestCancelled("new"))
    world.release("old")
    assert world.settle() == []
    assert [s.state for s in world.snapshot().slices] == ["idle"]


def test_a_recall_for_host_cores_gives_them_up() -> None:
    world = busy(node("n1", "1xA100 1xT4", cpus=4), holders={"old": {"gpu": 1, "cpus": 4, "types": "nvidia/A100*"}})
    world.submit("new", gpu=1, cpus=1, types="nvidia/T4")
    world.settle()
    assert world.reason("new") == "host_cpus"
    assert kinds(world.wait(TERM)) == ["recall old#1"]
    world.release("old")
    assert kinds(world.settle()) == ["stop s1.1 make_room"]
    world.ended("s1.1")
    assert kinds(world.settle()) == ["start s1.2", "grant new#1"]


def test_lines_for_which_nothing_can_be_recalled_do_not_hide_others() -> None:
    world = busy(node("n1", "1xA100 1xT4"), holders={"actor": {"gpu": 1, "reusable": False}, "old": {"gpu": 1}})
    for at in range(20):
        world.submit(f"hopeless{at}", gpu=1, types="nvidia/T4", task_class=f"h{at}")
    world.submit("new", gpu=1, types="nvidia/A100*")
    world.settle()
    assert kinds(world.wait(TERM)) == ["recall old#1"]


# -- deadlock ------------------------------------------------------------------------------


def test_a_deadlock_is_found_and_named() -> None:
    world = busy(holders={"parent": {"gpu": 0.8}})
    world.block("parent", "leaf")
    world.submit("child", gpu=0.5, task_class="leaf")
    assert world.settle() == [] and world.wait(0.9) == []
    assert kinds(world.wait(0.1)) == ["fail child deadlock"]
    failure = world.failed["child"]
    assert failure.reason is EndReason.DEADLOCK
    assert "class of parent (holds gpu=0.8 on n1/gpu0) -> leaf" in failure.message
    assert world.wait(1) == []
    world.release("parent")  # which learns of it and ends
    assert world.settle() == [] and not world.snapshot().running


@pytest.mark.parametrize("tiers", [2, 3, 5])
def test_a_long_cycle_is_named_in_full(tiers: int) -> None:
    world = busy(holders={f"p{at}": {"gpu": 1 / tiers} for at in range(tiers)})
    for at in range(tiers):
        world.block(f"p{at}", "leaf")
    world.submit("child", gpu=1, task_class="leaf")
    world.settle()
    assert kinds(world.wait(1)) == ["fail child deadlock"]
    assert [at for at in range(tiers) if f"class of p{at} " not in world.failed["child"].message] == []


def test_a_class_named_twice_fails_once() -> None:
    world = busy(holders={"parent": {"gpu": 1}})
    world.block("parent", "leaf", "leaf")
    world.submit("child", gpu=0.5, task_class="leaf")
    world.settle()
    assert kinds(world.wait(1)) == ["fail child deadlock"]


def _nothing(world: World) -> None:
    """The plain deadlock, against which the others are no deadlock."""


def _unblock(world: World) -> None:
    world.apply(LeaseUnblocked(world.leases["parent"].lease))


def _another_child_runs(world: World) -> None:
    world.submit("sibling", gpu=0.1, task_class="leaf")


@pytest.mark.parametrize(
    ("holders", "also", "deadlocked"),
    [
        ({"parent": {"gpu": 0.8}}, _nothing, True),
        ({"parent": {"gpu": 0.5}, "other": {"gpu": 0.5, "reusable": False}}, _nothing, False),  # the other will end
        ({"parent": {"gpu": 0.8}}, _unblock, False),
        ({"parent": {"gpu": 0.8}}, _another_child_runs, False),
        ({"parent": {"gpu": 0.5}}, _nothing, False),  # it fits beside its parent
    ],
)
def test_what_is_a_deadlock(holders: dict[str, Any], also: Any, deadlocked: bool) -> None:
    world = busy(holders=holders)
    world.block("parent", "leaf")
    world.submit("child", gpu=0.5, task_class="leaf")
    world.settle()
    also(world)
    world.settle()
    world.wait(1.5)
    assert ("child" in world.failed) is deadlocked


def test_a_blocked_parent_that_will_move_frees_the_others() -> None:
    """b waits for a child that fits; when b is done, a's child fits."""
    world = busy(holders={"a": {"gpu": 0.5}, "b": {"gpu": 0.4}, "c": {"gpu": 0.1}})
    world.block("a", "large")
    world.block("b", "small")
    world.submit("large", gpu=0.5, task_class="large")
    world.submit("small", gpu=0.1, task_class="small")
    world.wait(1.5)
    assert world.failed == {}
    world.block("c", "small")
    assert kinds(world.wait(1.5)) == ["fail large deadlock", "fail small deadlock"]


def test_a_wait_that_can_never_end_is_found_after_a_recall_too() -> None:
    """The parent is asked to hand its lease back for its own child, and then waits for the child."""
    world = busy(holders={"parent": {"gpu": 1}})
    world.submit("child", gpu=1, task_class="leaf")
    world.settle()
    assert kinds(world.wait(TERM)) == ["recall parent#1"]
    world.block("parent", "leaf")
    assert kinds(world.wait(2)) == ["fail child deadlock"]


def test_one_that_waits_for_a_recalled_lease_takes_other_room_that_comes_free() -> None:
    world = World(node("n1", "2xT4"), lease_term_seconds=5)
    for name in ("long", "short"):
        world.submit(name, gpu=1, task_class=name)
    world.settle()
    world.now = 1.0
    world.submit("a", gpu=1, task_class="a")
    world.submit("b", gpu=1, task_class="b")
    world.settle()
    world.now = 7.0
    world.settle()  # both leases are recalled, one for each
    world.release("short")
    world.settle()
    first = next(name for name in ("a", "b") if name in world.leases)
    second = "b" if first == "a" else "a"
    assert second not in world.leases
    world.now = 8.0
    world.release(first)
    world.settle()
    assert second in world.leases, "long still runs, and nobody waits for it any more"


def test_one_that_is_planned_on_recalled_room_takes_free_room_in_the_same_cycle() -> None:
    world = World(node("n1", "1xA100"), node("n2", "1xA100"), stops=False, lease_term_seconds=TERM)
    world.submit("keeps", gpu=0.5, reusable=False)
    world.submit("old", task_class="old", gpu=0.8)
    world.settle()
    world.submit("first", task_class="first", gpu=0.6)
    world.settle()
    assert "recall old#1" in kinds(world.wait(TERM)) and world.reason("first") == "making_room"
    world.submit("second", task_class="second", gpu=0.4)  # where it would fit best, nothing is free yet
    assert [kind.split()[0] for kind in kinds(world.decide())] == ["start"]
