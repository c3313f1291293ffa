"""Scenarios of sharing as a table: devices, queues, running, arriving -> who runs, victims, reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import World, node

from flexray.model import events
from flexray.model.commands import RecallLease
from flexray.model.request import Request
from flexray.queue_file import parse_queues

Asked = tuple[str, int, dict[str, Any]]
"""A queue, how many requests of a whole device, and their other options."""


@dataclass(frozen=True)
class Case:
    """What is there, what comes, and what becomes of it.

    Attributes:
        runs: leases by queue in the end.
        victims: (queue, reason) -> how many.
        waits: reason -> how many of those that are no victims.
    """

    devices: str
    queues: tuple[dict[str, Any], ...]
    running: tuple[Asked, ...]
    arriving: tuple[Asked, ...]
    runs: dict[str, int]
    victims: dict[tuple[str, str], int] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)


T4, A100, H100 = ({"types": name} for name in ("nvidia/T4", "nvidia/A100*", "nvidia/H100"))
NOS = ({"name": "a", "quota": 4}, {"name": "b", "quota": 1}, {"name": "c", "quota": 3})
EVEN = ({"name": "a", "quota": 2}, {"name": "b", "quota": 2})
GROUP = (
    {"name": "g", "quota": 2},
    {"name": "x", "parent": "g"},
    {"name": "y", "parent": "g"},
    {"name": "z", "quota": 2},
)
SAVES = {"request": Request(preemptible=True, checkpoint_every=1.0)}

CASES = {
    # -- amounts
    "a quota of a type takes back devices of that type": Case(
        "2xA100 2xT4",
        ({"name": "a", "quota": {"nvidia/T4": 1}}, {"name": "b"}),
        (("b", 4, {}),),
        (("a", 1, T4),),
        {"a": 1, "b": 3},
        {("b", "reclaim"): 1},
    ),
    "also when its queue has borrowed another type": Case(
        "2xA100 2xT4",
        ({"name": "a", "quota": {"nvidia/T4": 1}}, {"name": "b"}),
        (("a", 2, A100), ("b", 2, {})),
        (("a", 2, T4),),
        {"a": 3, "b": 1},
        {("b", "reclaim"): 1},
        {"no_room": 1},
    ),
    "and promises none of another": Case(
        "2xA100 2xT4",
        ({"name": "a", "quota": {"nvidia/T4": 1}}, {"name": "b"}),
        (("b", 4, {}),),
        (("a", 1, A100),),
        {"b": 4},
        waits={"no_room": 1},
    ),
    "compute of 2 is one device of speed 2": Case(
        "1xH100 2xT4",
        ({"name": "a", "quota": {"compute": 2}}, {"name": "b"}),
        (("b", 3, {}),),
        (("a", 1, H100),),
        {"a": 1, "b": 2},
        {("b", "reclaim"): 1},
    ),
    "and compute of 1 is not": Case(
        "1xH100 2xT4",
        ({"name": "a", "quota": {"compute": 1}}, {"name": "b"}),
        (("b", 3, {}),),
        (("a", 1, H100),),
        {"b": 3},
        waits={"no_room": 1},
    ),
    "the types of a queue hold for what it takes back": Case(
        "1xA100 1xT4",
        ({"name": "a", "quota": 2, "types": ["nvidia/T4"]}, {"name": "b"}),
        (("b", 2, {}),),
        (("a", 2, {}),),
        {"a": 1, "b": 1},
        {("b", "reclaim"): 1},
        {"no_room": 1},
    ),
    # -- the tree
    "the limit of a group binds its queues together": Case(
        "4xA100",
        ({"name": "g", "limit": 2}, {"name": "x", "parent": "g"}, {"name": "y", "parent": "g"}),
        (("x", 2, {}),),
        (("y", 1, {}),),
        {"x": 2},
        waits={"queue_limit": 1},
    ),
    "a group takes back what its quota promises it": Case(
        "4xA100", GROUP, (("z", 4, {}),), (("x", 1, {}), ("y", 1, {})), {"x": 1, "y": 1, "z": 2}, {("z", "reclaim"): 2}
    ),
    "inside a group nobody takes back what only the group was promised": Case(
        "4xA100", GROUP, (("x", 2, {}), ("z", 2, {})), (("y", 1, {}),), {"x": 2, "z": 2}, waits={"no_room": 1}
    ),
    # -- fair share
    "of what is left the higher priority takes first, and never a quota": Case(
        "4xA100",
        ({"name": "a", "priority": 1}, {"name": "b", "quota": 1}),
        (),
        (("a", 4, {}), ("b", 4, {})),
        {"a": 3, "b": 1},
        waits={"no_room": 4},
    ),
    "weight 0 takes what nobody else wants": Case(
        "4xA100",
        ({"name": "a", "weight": 0}, {"name": "b"}),
        (),
        (("a", 4, {}), ("b", 3, {})),
        {"a": 1, "b": 3},
        waits={"no_room": 3},
    ),
    "an indivisible rest goes to the lowest share, then to the first name": Case(
        "3xA100",
        ({"name": "a"}, {"name": "b"}),
        (),
        (("b", 3, {}), ("a", 3, {})),
        {"a": 2, "b": 1},
        waits={"no_room": 3},
    ),
    # -- reclaim
    "nobody within quota loses anything": Case(
        "4xA100", EVEN, (("a", 2, {}), ("b", 2, {})), (("a", 1, {}),), {"a": 2, "b": 2}, waits={"no_room": 1}
    ),
    "nobody takes back more than its quota, and its half of what the other leaves idle": Case(
        "4xA100",
        (*EVEN, {"name": "c"}),
        (("c", 4, {}),),
        (("a", 4, {}),),
        {"a": 3, "c": 1},
        {("c", "reclaim"): 3},
        {"no_room": 1},
    ),
    "nos: a quarter of what lies idle may be taken back, and no more": Case(
        "8xA100",
        NOS,
        (("a", 4, {}), ("b", 4, {})),
        (("a", 2, {}),),
        {"a": 5, "b": 3},
        {("b", "reclaim"): 1},
        {"no_room": 1},
    ),
    "nos: its owner takes back all of it": Case(
        "8xA100",
        NOS,
        (("a", 4, {}), ("b", 4, {})),
        (("c", 4, {}),),
        {"a": 4, "b": 1, "c": 3},
        {("b", "reclaim"): 3},
        {"no_room": 1},
    ),
    "an actor is never taken back": Case(
        "2xA100", EVEN, (("a", 2, {"reusable": False}),), (("b", 1, {}),), {"a": 2}, waits={"no_room": 1}
    ),
    "nor what may not be run again": Case(
        "2xA100", EVEN, (("a", 2, {"restartable": False}),), (("b", 1, {}),), {"a": 2}, waits={"no_room": 1}
    ),
    "borrowed is borrowed, preemptible or not": Case(
        "2xA100", EVEN, (("a", 2, {}),), (("b", 1, {}),), {"a": 1, "b": 1}, {("a", "reclaim"): 1}
    ),
    # -- priority inside a queue
    "a high priority takes from a low one of its queue": Case(
        "4xA100",
        EVEN,
        (("a", 2, {}), ("b", 2, SAVES)),
        (("b", 1, {"priority": 1}),),
        {"a": 2, "b": 2},
        {("b", "priority"): 1},
    ),
    "and takes no more than is preemptible": Case(
        "2xA100",
        ({"name": "a", "quota": 2},),
        (("a", 1, SAVES), ("a", 1, {})),
        (("a", 2, {"priority": 1}),),
        {"a": 2},
        {("a", "priority"): 1},
        {"no_room": 1},
    ),
}  # fmt: skip


def submit(world: World, asked: tuple[Asked, ...], prefix: str) -> None:
    for place, (queue, count, options) in enumerate(asked):
        for number in range(count):
            name = f"{prefix}{place}.{number}"
            world.submit(name, **{"gpu": 1, "queue": queue, "task_class": f"{prefix}{place}", **options})
            if prefix == "old":
                world.settle()
                world.now += 10


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = CASES[name]
    world = World(node("n", case.devices, cpus=64), lease_term_seconds=1e6, rematch_seconds=0)
    world.apply(events.QueuesConfigured(parse_queues({"queues": list(case.queues)})))
    submit(world, case.running, "old")
    assert len(world.leases) == sum(count for _, count, _ in case.running)
    submit(world, case.arriving, "new")
    world.settle()
    world.wait(2.0)
    requests = world.scheduler.state.requests
    told = [command for command in world.commands if isinstance(command, RecallLease)]
    assert Counter((requests[one.lease.request].queue, one.reason.value) for one in told) == case.victims
    assert Counter(requests[lease].queue for lease in world.leases) == case.runs
    victims = {one.lease.request for one in told}
    waiting = [one.id for one in world.scheduler.state.waiting() if one.id not in victims]
    assert Counter(world.reason(name) for name in waiting) == case.waits
