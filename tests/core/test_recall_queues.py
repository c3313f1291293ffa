"""Recalls between queues: who may wait for whose lease to be handed back."""

from __future__ import annotations

from typing import Any

import pytest
import sharing
from harness import World, kinds, node

from flexray.core.balance import Balance
from flexray.core.fairness import Entitlement
from flexray.core.queues import QueueTree
from flexray.model.events import QueuesConfigured
from flexray.queue_file import parse_queues

TERM = 5
AB = ({"name": "a"}, {"name": "b"})


def world(devices: str, *queues: dict[str, Any]) -> World:
    there = World(node("n", devices), lease_term_seconds=TERM)
    there.apply(QueuesConfigured(parse_queues({"queues": list(queues)})))
    return there


def fill(world: World, **counts: int) -> None:
    """So many leases by queue, each of a client whose work does not end."""
    for queue, count in counts.items():
        for number in range(count):
            world.submit(f"{queue}{number}", gpu=1, queue=queue, task_class=f"{queue}{number}")
    world.settle()
    assert len(world.leases) == sum(counts.values())


def recalled(world: World) -> list[str]:
    """By queue, the leases that are asked back after a term."""
    found = kinds(world.wait(TERM)) + kinds(world.settle())
    return sorted(line.split()[1][0] for line in found if line.startswith("recall"))


# (devices, queues, running, arriving -> whose leases are recalled)
CASES: dict[str, tuple[str, tuple[dict[str, Any], ...], dict[str, int], dict[str, int], str]] = {
    "one that has nothing waits for those of one that has everything": ("4xT4", AB, {"a": 4}, {"b": 1}, "a"),
    "for as many as it is entitled to, and no more": ("4xT4", AB, {"a": 4}, {"b": 4}, "aa"),
    "with a larger weight for more": ("4xT4", (AB[0], {"name": "b", "weight": 3}), {"a": 4}, {"b": 4}, "aaa"),
    "one that has its share waits for a single one of its own": ("4xT4", AB, {"a": 2, "b": 2}, {"a": 3}, "a"),
    "and so it does alone in the pool": ("2xT4", AB, {"a": 2}, {"a": 2}, "a"),
    "a third part of two devices is enough to wait for one": (
        "2xT4",
        (*AB, {"name": "c"}),
        {"a": 1, "b": 1},
        {"c": 1},
        "a",
    ),
    "inside a group, and not from a sibling of the group that has its share": (
        "4xT4",
        ({"name": "g"}, {"name": "a", "parent": "g"}, {"name": "b", "parent": "g"}, {"name": "c"}),
        {"a": 2, "c": 2},
        {"b": 1},
        "a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_whose_leases_are_recalled(name: str) -> None:
    devices, queues, running, arriving, expected = CASES[name]
    there = world(devices, *queues)
    fill(there, **running)
    for queue, count in arriving.items():
        for number in range(count):
            there.submit(f"new-{queue}{number}", gpu=1, queue=queue, task_class=f"new {queue}{number}")
    there.settle()
    assert recalled(there) == list(expected)


def test_a_flood_of_requests_does_not_hide_leases_from_who_comes_later() -> None:
    """Were each of a's requests to wait for a lease of a, all would be promised when b comes."""
    there = world("4xT4", *AB)
    fill(there, a=4)
    for number in range(20):
        there.submit(f"more{number}", gpu=1, queue="a", task_class=f"more {number}")
    there.settle()
    there.wait(TERM)
    for number in range(2):
        there.submit(f"b{number}", gpu=1, queue="b", task_class="b")
    there.wait(TERM)
    there.settle()
    for name in list(there.leases):
        there.release(name)
        there.settle()
        if {"b0", "b1"} <= set(there.leases):
            break
    assert sum(name.startswith("b") for name in there.leases) == 2
    assert sum(name.startswith("a") for name in there.leases) >= 1, "b did not wait for the last of a's leases"


def test_other_room_goes_to_those_who_have_less_than_their_share() -> None:
    """A lease of b ends. One of a's requests waits for a lease of a, which has its share: b's next has the room."""
    there = world("2xT4", *AB)
    fill(there, a=1, b=1)
    there.submit("more", gpu=1, queue="a", task_class="more")
    there.settle()
    assert recalled(there) == ["a"]
    there.submit("next", gpu=1, queue="b", task_class="next")
    there.settle()
    there.release("b0")
    there.settle()
    assert "next" in there.leases and there.reason("more") == "making_room"


def test_less_and_more_than_entitled() -> None:
    tree = QueueTree(
        [sharing.queue("g"), sharing.queue("a", parent="g"), sharing.queue("b", parent="g"), sharing.queue("c")]
    )
    amounts = {"root": 8, "g": 4, "a": 2, "b": 2, "c": 4}
    used = {"root": 8, "g": 4, "a": 3, "b": 1, "c": 4, "default": 0}
    balance = Balance(tree, used, {name: Entitlement(n, 0, n) for name, n in amounts.items()})
    assert not balance.is_below("b"), "its group has its share"
    assert balance.may_be_recalled_for("b") == {"a", "b"} and balance.may_be_recalled_for("c") == {"c"}
    assert not balance.take("a", 1) and not balance.take("c", 1)
