"""Requests that run in room which others have reserved: when they are asked back, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest
from harness import World, kinds, node

from flexray.model import events
from flexray.model.events import QueuesConfigured, RequestCancelled
from flexray.model.request import Request
from flexray.queue_file import parse_queues

TERM = 5


def reserved(**config: Any) -> World:
    """At 5 ``large`` has reserved the device, half of which ``long`` has until 100; the other half is free."""
    world = World(node("n1", "1xA100", cpus=4), lease_term_seconds=TERM, **config)
    world.submit("long", gpu=0.5, request=Request(runtime=100.0))
    world.settle()
    world.submit("large", gpu=1)
    world.settle()
    assert kinds(world.wait(TERM)) == ["recall long#1"]
    return world


def ask(world: World, name: str, runtime: float | None, **more: Any) -> None:
    world.submit(name, gpu=0.5, task_class=name, request=Request(runtime=runtime, **more))
    world.settle()


@pytest.mark.parametrize(
    ("runtime", "lent"), [(10.0, True), (94.0, True), (94.1, False), (200.0, False), (None, False)]
)
def test_what_is_done_in_time_runs(runtime: float | None, lent: bool) -> None:
    """95 s are left, of which a start takes one."""
    world = reserved()
    ask(world, "r", runtime)
    assert ("r" in world.leases) is lent


def test_it_is_asked_back_one_run_time_before_the_reservation_can_start() -> None:
    world = reserved()
    ask(world, "r", 10.0)
    world.now = 89.9
    assert kinds(world.settle()) == [] and world.scheduler.wake_at == 90.0
    world.now = 90.0
    assert kinds(world.settle()) == ["recall r#1"]
    world.release("r")
    world.settle()
    world.release("long")
    world.settle()
    assert set(world.leases) == {"large"}


def test_a_lease_that_was_just_granted_has_time_to_send_something() -> None:
    world = reserved()
    world.starts = False
    ask(world, "r", 94.0)
    world.now = 20.0
    world.started(world.starting[0])  # much later than expected
    assert kinds(world.settle()) == ["grant r#1"]
    assert kinds(world.wait(0.5)) == ["recall r#1"]


@pytest.mark.parametrize("preemptible", [True, False])
def test_what_runs_over_its_time_is_preempted_if_it_may_be(preemptible: bool) -> None:
    world = reserved()
    ask(world, "r", 94.0, preemptible=preemptible)
    world.now = 99.0
    world.settle()
    world.release("long")
    assert not [line for line in kinds(world.settle()) if line.startswith("recall")]
    world.now = 100.0
    assert ("recall r#1" in kinds(world.settle())) is preemptible
    world.wait(2)
    assert ("large" in world.leases) is preemptible


def test_nobody_keeps_what_was_lent_when_its_session_gives_it_up_early() -> None:
    world = reserved()
    world.starts = False
    ask(world, "r", 10.0)
    world.apply(RequestCancelled("r"))
    world.starts = True
    world.settle()
    assert [s.state for s in world.snapshot().slices] == ["held", "pending"]


def test_what_was_lent_is_its_own_once_nobody_waits_for_it() -> None:
    world = reserved()
    ask(world, "r", 10.0)
    world.apply(RequestCancelled("large"))
    world.wait(85)
    assert set(world.leases) == {"long", "r"}
    assert not [line for line in kinds(world.commands) if line == "recall r#1"]


def test_a_task_that_waits_for_others_gives_up_what_it_was_lent() -> None:
    world = reserved()
    ask(world, "r", 10.0)
    world.block("r", "nobody's class")
    world.settle()
    assert world.reason("large") == "no_room"


def test_a_queue_borrows_no_room_beyond_its_limit() -> None:
    world = reserved()
    queues = [{"name": "small", "limit": 0.25}, {"name": "other"}]
    world.apply(QueuesConfigured(parse_queues({"queues": queues})))
    world.submit("s", gpu=0.5, task_class="s", request=Request(runtime=1.0, queue="small"))
    world.submit("o", gpu=0.5, task_class="o", request=Request(runtime=1.0, queue="other"))
    world.settle()
    assert set(world.leases) == {"long", "o"}


def test_young_leases_make_room_for_who_needs_several_and_serve_out_their_term() -> None:
    world = World(node("n1", "1xA100"), lease_term_seconds=TERM)
    world.submit("large", gpu=1, task_class="large")
    world.submit("large2", gpu=1, task_class="large2")
    world.settle()
    world.now = 8.0
    world.release("large")
    world.settle()
    assert set(world.leases) == {"large2"}
    world.submit("third", gpu=1, task_class="third")
    world.settle()
    world.now = 9.0
    world.release("large2")
    for name in "ab":
        world.submit(name, gpu=0.5, task_class=name)
    world.apply(RequestCancelled("third"))
    world.settle()
    world.submit("late", gpu=1, task_class="late")
    world.settle()
    world.now = 11.0
    world.release("a")
    world.submit("c", gpu=0.5, task_class="c")
    world.settle()
    assert set(world.leases) == {"b", "c"}
    world.now = 14.0
    assert kinds(world.settle()) == ["recall b#1"], "c is promised too, and asked when it has had its term"
    world.release("b")
    world.submit("d", gpu=0.5, task_class="d")
    world.settle()
    assert set(world.leases) == {"c"}
    world.now = 16.0
    assert kinds(world.settle()) == ["recall c#1"]
    world.apply(events.LeaseReleased(world.leases.pop("c").lease))
    world.settle()
    assert set(world.leases) == {"late"}
