"""Queues in the scheduler: who is served, who has to wait, who takes back from whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from harness import World, kinds, node

from flexray.model import events
from flexray.model.events import QueuesConfigured
from flexray.model.queue import Queue, QueueAmount, parse_queue_amount
from flexray.model.request import Request
from flexray.queue_file import parse_queues


def world(devices: str, *queues: dict[str, Any], nodes: int = 1, **config: Any) -> World:
    there = World(*[node(f"n{n}", devices, cpus=64) for n in range(nodes)], **{"lease_term_seconds": 1e6, **config})
    there.apply(QueuesConfigured(parse_queues({"queues": list(queues)})))
    return there


def ask(world: World, queue: str, count: int = 1, name: str = "", **options: Any) -> None:
    for number in range(count):
        world.submit(f"{name or queue}{number}", **{"gpu": 1, "queue": queue, "task_class": queue, **options})


def running(world: World) -> Counter[str]:
    requests = world.scheduler.state.requests
    return Counter(requests[name].queue for name in world.leases if name in requests)


def give_way(world: World) -> None:
    for slice_id in list(world.scheduler.state.evictions):
        (name,) = [name for name, lease in world.leases.items() if lease.slice == slice_id]
        world.apply(events.LeaseYielded(world.leases[name].lease))
    world.settle()


# -- whose turn it is ------------------------------------------------------------------------


def test_quotas_first_then_weights() -> None:
    """KAI's published case: 100 devices, quotas 10 and 10, weights 3 and 1, both ask for 100: 70 and 30."""
    there = world("10xA100", {"name": "a", "quota": 10, "weight": 3}, {"name": "b", "quota": 10, "weight": 1}, nodes=10)
    for number in range(100):  # in whatever order they come
        there.submit(f"a{number}", gpu=1, queue="a", task_class="f")
        there.submit(f"b{number}", gpu=1, queue="b", task_class="g")
    there.settle()
    assert running(there) == {"a": 70, "b": 30}


def test_what_others_leave_idle_may_be_used() -> None:
    there = world("8xA100", {"name": "a", "quota": 2}, {"name": "b", "quota": 6})
    ask(there, "a", 8)
    there.settle()
    assert running(there) == {"a": 8}


def test_a_t4_and_an_h100_are_not_the_same_promise() -> None:
    """Equal weights: one H100 is worth ten T4 of the test's catalog, so the T4 queue gets all of those."""
    there = world("1xH100 10xT4", {"name": "fast"}, {"name": "slow"})
    ask(there, "fast", 1, types="nvidia/H100")
    ask(there, "slow", 10, types="nvidia/T4")
    ask(there, "fast", 5, name="more", types="nvidia/T4")
    there.settle()
    assert running(there) == {"fast": 1, "slow": 10}


def test_a_limit_caps_and_says_so() -> None:
    there = world("8xA100", {"name": "a", "limit": 3}, {"name": "b"})
    ask(there, "a", 5)
    there.settle()
    assert running(there) == {"a": 3} and there.reason("a3") == "queue_limit"
    there.release("a0")
    there.settle()
    assert running(there) == {"a": 3} and "a3" in there.leases


def test_a_queue_of_some_types_uses_no_others() -> None:
    there = world("1xA100 1xT4", {"name": "cheap", "types": ["nvidia/T4"]}, {"name": "b"})
    ask(there, "cheap", 2)
    there.settle()
    assert there.placed == {"cheap0": "n0/gpu1"}


def test_what_a_queue_does_not_take_is_refused() -> None:
    there = world("1xA100", {"name": "a", "priorities": [0, 5]}, {"name": "g"}, {"name": "b", "parent": "g"})
    ask(there, "a", 1, name="high", priority=9)
    ask(there, "g", 1)
    ask(there, "aa", 1)
    there.settle()
    assert {name: failed.reason.value for name, failed in there.failed.items()} == {
        "high0": "queue_rules", "g0": "unknown_queue", "aa0": "unknown_queue"
    }  # fmt: skip
    assert "Did you mean 'a'?" in there.failed["aa0"].message and "is a group" in there.failed["g0"].message


def test_yesterdays_heavy_user_waits_today() -> None:
    there = world("4xA100", {"name": "a", "half_life": 3600}, {"name": "b", "half_life": 3600})
    ask(there, "a", 4, name="old")
    there.settle()
    there.now += 20_000
    for number in range(4):
        there.release(f"old{number}")
    ask(there, "a", 4)
    ask(there, "b", 4)
    there.settle()
    assert running(there)["b"] > running(there)["a"]


# -- reclaim -----------------------------------------------------------------------------------


TEAMS = ({"name": "a", "quota": 4}, {"name": "b", "quota": 4})


def borrowed(**options: Any) -> World:
    """Queue a has everything, half of it borrowed; b has just asked for two devices."""
    there = world("8xA100", *TEAMS)
    for number in range(8):
        there.now += 10
        ask(there, "a", 1, name=f"a{number}.", **options)
        there.settle()
    there.now += 10
    ask(there, "b", 2)
    return there


def test_a_queue_below_its_quota_takes_back_from_one_that_borrows() -> None:
    there = borrowed()
    commands = there.decide()
    recalls = [line for line in kinds(commands) if line.startswith("recall")]
    assert recalls == ["recall a7.0#1", "recall a6.0#1"], "those that ran for the shortest time lose the least"
    assert there.reason("b0") == "making_room"
    give_way(there)
    assert running(there) == {"a": 6, "b": 2} and there.reason("a7.0") == "no_room"


def test_those_who_ignore_it_are_stopped_after_their_grace() -> None:
    there = borrowed()
    there.settle()
    assert running(there) == {"a": 8}
    there.wait(2.0)
    assert running(there) == {"a": 6, "b": 2}


def test_nobody_within_quota_loses_anything() -> None:
    there = borrowed()
    ask(there, "b", 6, name="more")
    there.settle()
    give_way(there)
    there.now += 60
    there.settle()
    give_way(there)
    assert running(there) == {"a": 4, "b": 4} and not there.scheduler.state.evictions


def test_the_least_work_is_lost() -> None:
    """A lease with a checkpoint every second loses next to nothing, however long it ran."""
    there = world("2xA100", *TEAMS)
    ask(there, "a", 1, name="saves", request=Request(preemptible=True, checkpoint_every=1.0))
    there.settle()
    there.now += 100
    ask(there, "a", 1, name="long")
    there.settle()
    there.now += 50
    ask(there, "b", 1)
    assert [line for line in kinds(there.decide()) if line.startswith("recall")] == ["recall saves0#1"]


def test_as_few_as_needed_and_none_that_is_not() -> None:
    """Two devices of one node are needed: the shares on the other node are spared although they lose less."""
    there = world("2xA100", {"name": "a", "quota": 0}, {"name": "b", "quota": 4}, nodes=2)
    for number, share in enumerate((1, 1, 0.5, 0.5, 0.5, 0.5)):
        ask(there, "a", 1, name=f"a{number}.", gpu=share)
        there.settle()
        there.now += 5
    ask(there, "b", 1, gpu=2)
    recalls = [line.split()[1] for line in kinds(there.decide()) if line.startswith("recall")]
    nodes = {there.leases[name.split("#")[0]].placement.node for name in recalls}
    assert len(nodes) == 1 and len(recalls) in (2, 4)
    give_way(there)
    assert running(there)["b"] == 1


def test_a_lease_that_has_just_begun_is_left_alone_for_a_while() -> None:
    there = world("1xA100", {"name": "a", "quota": 0}, {"name": "b", "quota": 1})
    ask(there, "a")
    there.settle()
    ask(there, "b")
    assert not any(line.startswith("recall") for line in kinds(there.decide()))
    assert there.scheduler.wake_at is not None
    there.now = there.scheduler.wake_at
    assert any(line.startswith("recall") for line in kinds(there.decide()))


# -- priority inside a queue -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "preemptible", "taken"),
    [(0, 1, True, True), (0, 0, True, False), (1, 0, True, False), (0, 1, False, False)],
)
def test_a_higher_priority_takes_from_a_strictly_lower_preemptible_one(
    low: int, high: int, preemptible: bool, taken: bool
) -> None:
    there = World(node("n", "1xA100"), lease_term_seconds=1e6)
    there.submit("low", gpu=1, priority=low, request=Request(preemptible=preemptible))
    there.settle()
    there.now += 10
    there.submit("high", gpu=1, priority=high)
    there.settle()
    give_way(there)
    assert ("high" in there.leases) == taken and ("low" in there.leases) != taken


def test_priority_acts_only_inside_a_queue() -> None:
    there = world("2xA100", {"name": "a", "quota": 1}, {"name": "b", "quota": 1})
    for queue in "ab":
        ask(there, queue, 1, request=Request(preemptible=True))
    there.settle()
    there.now += 10
    ask(there, "b", 1, name="urgent", priority=100)
    there.settle()
    give_way(there)
    assert set(there.leases) == {"a0", "urgent0"}


# -- other queues at run time ---------------------------------------------------------------------


def test_queues_change_without_losing_a_request() -> None:
    there = world("4xA100", {"name": "a", "quota": 4}, {"name": "b"})
    ask(there, "a", 3)
    ask(there, "b", 3)
    there.settle()
    assert running(there) == {"a": 3, "b": 1}
    there.apply(QueuesConfigured((Queue("a", limit=parse_queue_amount(1)),)))
    there.settle()
    assert running(there) == {"a": 3, "default": 1}
    for name in ("a0", "a1", "a2"):
        there.release(name)
    there.settle()
    assert running(there) == {"default": 3}
    there.apply(QueuesConfigured(()))
    ask(there, "default", 1)
    there.settle()
    assert running(there) == {"default": 4} and not there.failed


def test_promises_are_scaled_when_a_node_is_lost() -> None:
    there = world("4xA100", {"name": "a", "quota": 4}, {"name": "b", "quota": 4}, nodes=2)
    ask(there, "a", 4)
    ask(there, "b", 4)
    there.settle()
    there.apply(events.NodeLost("n1"))
    there.node_is_gone("n1")
    there.leases = {name: lease for name, lease in there.leases.items() if lease.placement.node == "n0"}
    there.now += 10
    there.settle()
    give_way(there)
    assert running(there) == {"a": 2, "b": 2}
    assert there.scheduler.state.sharing.warnings


def test_amounts_say_what_they_are() -> None:
    assert parse_queue_amount(2.5) == QueueAmount(devices=2500)


def test_rounds_take_nothing_from_another_queue_or_a_higher_priority() -> None:
    there = world("1xA100", {"name": "a", "quota": 1}, {"name": "b"}, patience_seconds=50, rematch_seconds=10)
    ask(there, "a", 1, priority=1, request=Request(preemptible=True, checkpoint_every=1.0))
    there.settle()
    ask(there, "b", 1)
    ask(there, "a", 1, name="low")
    for _ in range(30):
        there.wait(20)
        give_way(there)
    assert set(there.leases) == {"a0"}


def test_no_way_leads_past_a_limit() -> None:
    """Neither recalls for those who waited long, nor rounds, nor reclaim give a queue more than its limit."""
    there = world(
        "4xA100", {"name": "a", "quota": 1, "limit": 1}, {"name": "b"},
        lease_term_seconds=5, patience_seconds=20, rematch_seconds=5,
    )  # fmt: skip
    ask(there, "b", 3, request=Request(preemptible=True, checkpoint_every=1.0))
    ask(there, "a", 3, request=Request(preemptible=True, checkpoint_every=1.0))
    for _ in range(30):
        there.wait(6)
        give_way(there)
        assert running(there)["a"] <= 1
    assert running(there) == {"a": 1, "b": 3}


def test_a_limit_does_not_protect_low_priorities_from_high_ones() -> None:
    there = world("4xA100", {"name": "a", "limit": 1}, {"name": "b"})
    ask(there, "a", 1, name="low", request=Request(preemptible=True))
    there.settle()
    there.now += 10
    ask(there, "a", 1, name="high", priority=1)
    there.settle()
    give_way(there)
    assert set(there.leases) == {"high0"}
