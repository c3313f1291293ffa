"""Work that saves its state moves together where a request fits in total and on no device."""

from __future__ import annotations

from typing import Any

import pytest
from harness import World, kinds, node

from flexray.model import events
from flexray.model.request import Request

SAVES = {"preemptible": True, "checkpoint_every": 5.0}


def scattered(**how: Any) -> World:
    """0.5 of a device is free, and 0.3 of another on which ``mover`` has 0.3."""
    world = World(node("n1", "1xA100"), node("n2", "1xA100"), lease_term_seconds=1e6, rematch_seconds=0)
    for name, share, request in [("y", 0.4, Request()), ("mover", 0.3, Request(**how)), ("x", 0.5, Request())]:
        world.submit(name, gpu=share, task_class=name, request=request)
        world.settle()
    places = world.placed
    assert places["y"] == places["mover"] != places["x"]
    return world


def wait(world: World, name: str = "large", gpu: float = 0.6, **options: Any) -> list[str]:
    """What is recalled within 20 s of asking, cycles running when the core wants them."""
    seen = len(world.commands)
    world.submit(name, gpu=gpu, **options)
    world.settle()
    until = world.now + 20
    while (at := world.scheduler.wake_at) is not None and at <= until:
        world.now = at
        world.settle()
    world.now = until
    world.settle()
    return [line for line in kinds(world.commands[seen:]) if line.startswith("recall")]


def test_the_request_and_the_work_that_moves_have_their_places_at_once() -> None:
    world = scattered(**SAVES)
    home = world.placed["mover"]
    world.now = 10.0
    seen = len(world.commands)
    world.submit("large", gpu=0.6)
    world.settle()
    assert world.reason("large") == "fragmented"
    world.wait(8)
    (recall,) = [c for c in world.commands[seen:] if kinds([c])[0].startswith("recall")]
    assert (recall.stop, recall.reason.value, recall.winner) == (True, "defragment", "large")
    world.submit("thief", gpu=0.5)  # nobody takes the room in between
    world.apply(events.LeaseYielded(world.leases["mover"].lease))
    world.leases.pop("mover")
    world.settle()
    assert world.placed["large"] == home and world.placed["mover"] == world.placed["x"]
    assert "thief" not in world.leases


@pytest.mark.parametrize(
    ("how", "moves"),
    [
        (SAVES, True),
        ({}, False),
        ({"preemptible": True}, False),  # it saves nothing, as far as is known
        ({"preemptible": True, "checkpoint_every": 1000.0}, False),  # it would lose more than has been waited
        ({**SAVES, "queue": "default", "priority": 9}, True),  # nobody loses a place
    ],
)
def test_what_moves(how: dict[str, Any], moves: bool) -> None:
    world = scattered(**how)
    world.now = 300.0
    assert wait(world) == (["recall mover#1"] if moves else [])


def test_work_that_has_stored_a_checkpoint_moves() -> None:
    world = scattered(preemptible=True)
    world.now = 300.0
    world.apply(events.LeaseCheckpointed(world.leases["mover"].lease))
    assert wait(world) == ["recall mover#1"]


def test_what_comes_free_soon_is_waited_for() -> None:
    """The lease of y is expected to end in two seconds, which makes room as well."""
    world = World(node("n1", "1xA100"), node("n2", "1xA100"), lease_term_seconds=1e6, rematch_seconds=0)
    for name, share, request in [
        ("y", 0.6, Request(runtime=12.0)), ("mover", 0.3, Request(**SAVES)), ("x", 0.5, Request())
    ]:  # fmt: skip
        world.submit(name, gpu=share, task_class=name, request=request)
        world.settle()
    world.now = 10.0
    world.submit("large", gpu=0.55)
    world.settle()
    assert [line for line in kinds(world.wait(1.5)) if line.startswith("recall")] == []


@pytest.mark.parametrize("large", [0.5, 0.81])
def test_nothing_moves_where_it_fits_or_never_would(large: float) -> None:
    world = scattered(**SAVES)
    world.now = 300.0
    assert wait(world, gpu=large) == []


def test_moves_stay_within_their_budget() -> None:
    world = scattered(**SAVES)
    world.scheduler.state.requests["mover"].lost = 1000.0
    world.now = 300.0
    assert wait(world) == []
