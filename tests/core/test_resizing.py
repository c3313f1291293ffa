"""A running slice gets another size: where there is room for it, in the books, and what comes of it."""

from __future__ import annotations

import dataclasses

import pytest
from harness import GIB, World, kinds, node

from flexray.model import events
from flexray.model.partition import Profile
from flexray.model.queue import Queue, QueueAmount


@pytest.fixture
def world() -> World:
    return World(node("n1", "1xA100"))


def held(world: World) -> tuple[float, int]:
    (device,) = world.snapshot().devices
    return device.share_held, device.memory_held // GIB


def resize(world: World, name: str = "r", *, done: bool = True, **asked: int) -> str:
    """Ask, play the agent, and return the answer's refusal."""
    world.resize(name, **asked)
    world.settle()
    for slice_id in list(world.resizing):
        world.apply(events.SliceResized(slice_id) if done else events.ResizeRefused(slice_id, "the kernel says no"))
    world.settle()
    return world.answers[-1].refused


def run(world: World, name: str, **options: object) -> None:
    world.submit(name, **options)
    world.settle()
    assert name in world.leases


def test_a_slice_grows_into_free_room_and_shrinks(world: World) -> None:
    run(world, "r", gpu=0.25)
    assert held(world) == (0.25, 20)
    assert resize(world, share=500) == ""
    assert held(world) == (0.5, 40), "memory that was the share's part follows it"
    assert resize(world, memory=8 * GIB) == "" and held(world) == (0.5, 8)
    assert resize(world, share=100) == "" and held(world) == (0.1, 8), "memory of its own stays"
    assert world.leases["r"].placement.share == 100
    (shown,) = world.snapshot().slices
    assert (shown.share, shown.memory) == (0.1, 8 * GIB)


def test_while_it_is_under_way_the_larger_of_both_is_booked(world: World) -> None:
    run(world, "r", gpu=0.5, memory="40GiB")
    world.resize("r", share=250, memory=60 * GIB)
    assert kinds(world.decide()) == ["resize s1.1 250 61440"]
    assert held(world) == (0.5, 60)
    world.apply(events.SliceResized("s1.1"))
    assert held(world) == (0.25, 60)
    assert kinds(world.decide()) == ["answer r#1 done"]


def test_what_the_agent_refuses_leaves_the_size_as_it_was(world: World) -> None:
    run(world, "r", gpu=0.5)
    assert resize(world, done=False, share=250) == "the kernel says no"
    assert held(world) == (0.5, 40)
    world.release("r")
    assert kinds(world.settle()) == [], "it has the size of its class and stays warm"


def test_no_room_is_refused_with_what_is_free(world: World) -> None:
    run(world, "r", gpu=0.5)
    run(world, "other", gpu=0.25)
    refusal = resize(world, share=800)
    assert "needs 0.3 of its compute and 24.0 GiB more of n1/gpu0, where 0.25 and 20.0 GiB are free" in refusal
    assert held(world) == (0.75, 60) and not world.resizing
    assert resize(world, share=750) == ""
    assert held(world) == (1.0, 80)


def test_idle_slices_make_room(world: World) -> None:
    world.stops = False
    run(world, "other", gpu=0.5)
    world.release("other")
    run(world, "r", gpu=0.25)
    world.resize("r", share=800)
    assert kinds(world.settle()) == ["stop s1.1 make_room"]
    assert not world.answers, "it waits for them to end"
    world.ended("s1.1")
    assert kinds(world.settle()) == ["resize s1.2 800 65536"]


def test_room_that_somebody_is_promised_is_not_free(world: World) -> None:
    world.stops = False
    run(world, "other", gpu=0.5)
    run(world, "r", gpu=0.25)
    world.release("other")
    world.submit("large", gpu=0.75)
    assert kinds(world.settle()) == ["stop s1.1 make_room"]
    assert "where 0 and 0 MiB are free" in resize(world, share=300)


def test_a_slice_that_is_asked_back_does_not_grow(world: World) -> None:
    run(world, "r", gpu=0.25)
    world.submit("whole", gpu=1)
    world.settle()
    assert "recall r#1" in kinds(world.wait(30))
    assert "asks for this slice back" in resize(world, share=300)
    assert resize(world, share=100) == "", "it may still shrink"


def test_room_that_others_are_asked_back_for_is_not_free(world: World) -> None:
    run(world, "old", gpu=0.5)
    world.wait(30)
    run(world, "r", gpu=0.25)
    world.submit("large", gpu=0.7)
    world.settle()
    assert [c for c in kinds(world.wait(6)) if c.startswith("recall")] == ["recall old#1"]
    assert "where 0 and 0 MiB are free" in resize(world, share=300)


def test_who_waits_for_idle_slices_may_lose_the_room_to_others(world: World) -> None:
    world.stops = False
    run(world, "other", gpu=0.5)
    world.release("other")
    run(world, "r", gpu=0.25)
    world.resize("r", share=800)
    world.settle()
    world.submit("quicker", gpu=0.7)
    world.settle()
    assert "where 0.05" in world.answers[-1].refused
    assert kinds(world.settle()) == []


def test_another_size_is_not_given_to_the_next_of_the_class(world: World) -> None:
    run(world, "r", gpu=0.25)
    resize(world, share=500)
    world.submit("next", gpu=0.25)
    world.settle()
    world.release("r")
    assert "stop s1.1 resized" in kinds(world.settle())
    assert world.leases["next"].placement.share == 250


def test_a_request_that_starts_again_has_the_size_it_asked_for(world: World) -> None:
    run(world, "r", gpu=0.25)
    resize(world, share=500)
    world.ended("s1.1")
    world.settle()
    assert world.leases["r"].placement.share == 250 and held(world) == (0.25, 20)


def test_a_lease_that_ends_meanwhile_is_answered_and_its_room_comes_back(world: World) -> None:
    run(world, "r", gpu=0.25)
    world.resize("r", share=500)
    world.decide()
    world.release("r")
    commands = kinds(world.settle())
    assert "answer r#1 refused" in commands and "stop s1.1 resized" in commands
    assert held(world) == (0.0, 0)
    world.apply(events.SliceResized("s1.1"))  # the agent's word comes too late
    assert world.settle() == []


def test_a_lease_that_nobody_holds(world: World) -> None:
    run(world, "r", gpu=0.25)
    lease = world.leases["r"].lease
    world.release("r")
    world.apply(events.ResizeAsked(lease, share=500, number=7))
    world.settle()
    (answer,) = world.answers
    assert (answer.number, answer.placement, answer.refused) == (7, None, "r#1: the lease is over")


def test_limits_of_queues_count_and_charges_follow(world: World) -> None:
    world.apply(events.QueuesConfigured((Queue("a", limit=QueueAmount(600)),)))
    run(world, "r", gpu=0.25, queue="a")
    assert "queue 'a' would exceed its limit" in resize(world, share=700)
    assert resize(world, share=500) == ""
    assert next(q for q in world.snapshot().queues if q.name == "a").devices_held == 0.5
    world.submit("second", gpu=0.25, queue="a")
    world.settle()
    assert world.reason("second") == "queue_limit"
    assert resize(world, share=100) == ""
    assert "second" in world.leases


def test_a_queue_over_its_limit_may_shrink(world: World) -> None:
    run(world, "r", gpu=0.5, queue="default")
    world.apply(events.QueuesConfigured((Queue("default", limit=QueueAmount(250)),)))
    assert resize(world, share=400) == "" and held(world) == (0.4, 32)


def test_fixed_parts_and_whole_devices_have_no_other_size() -> None:
    fixed = node("n1", "1xA100")
    parts = (Profile("3g.40gb", 428, 40 * GIB), Profile("7g.80gb", 1000, 80 * GIB))
    world = World(node("n2", "2xT4"), dataclasses.replace(
        fixed, devices=(dataclasses.replace(fixed.devices[0], profiles=parts),)))  # fmt: skip
    run(world, "part", gpu=0.4, types="nvidia/A100*")
    assert "cannot change its size while it runs; ask for a new slice" in resize(world, "part", share=1000)
    run(world, "whole", gpu=2)
    assert "a slice of several whole devices has no size" in resize(world, "whole", share=500)


def test_one_change_at_a_time(world: World) -> None:
    run(world, "r", gpu=0.25)
    world.resize("r", share=500)
    world.decide()
    world.resize("r", share=300)
    assert kinds(world.decide()) == ["answer r#1 refused"]
    assert "another change of its size is under way" in world.answers[-1].refused


def test_nothing_grows_on_a_sick_device(world: World) -> None:
    run(world, "r", gpu=0.5)
    world.apply(events.NodeReported(node("n1", "1xA100 sick")))
    assert "n1/gpu0 is sick" in resize(world, share=600)
    assert resize(world, share=250) == ""


def test_other_sizes_teach_nothing_of_the_class(world: World) -> None:
    run(world, "r", gpu=0.25, task_class="f")
    resize(world, share=1000)
    world.apply(events.TasksRan(world.leases["r"].lease, 100, 1.0))
    assert not world.scheduler.state.pool.speeds.knows("f")


def test_a_burst_is_granted_and_neither_booked_nor_charged(world: World) -> None:
    run(world, "r", gpu=(0.25, 1.0))
    assert world.leases["r"].placement.burst == 1000
    assert held(world) == (0.25, 20)
    assert resize(world, share=1000) == ""
    assert world.leases["r"].placement.burst == 0, "a share as large as the burst has none"
