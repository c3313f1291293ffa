"""Estimated starts: exact in small pools, pure, bounded."""

from __future__ import annotations

import json

import pytest
from harness import World, node
from walk import walk

from flexray.core.estimate import estimate_starts
from flexray.model import events
from flexray.model.explanation import StartEstimate
from flexray.model.request import Request
from flexray.model.wire import to_plain


def estimate(world: World, *names: str, **bounds: int) -> dict[str, StartEstimate]:
    return estimate_starts(world.scheduler.copy(), names, world.now, **bounds)


def full(**config: object) -> World:
    """Two devices, taken for 100 and for 40 seconds as declared, and one request that waits for either."""
    world = World(node("n1", "2xA100", cpus=8), **{"lease_term_seconds": 1e6, **config})
    world.submit("long", gpu=1, runtime=100.0, task_class="a")
    world.submit("short", gpu=1, runtime=40.0, task_class="b")
    world.settle()
    world.submit("next", gpu=1, runtime=10.0, task_class="c")
    world.wait(15)
    return world


def test_declared_ends_come_first() -> None:
    """25 s until ``short`` is over, its slice stops at once, and another starts in 1 s."""
    world = full()
    (found,) = estimate(world, "next").values()
    assert (found.seconds, found.basis, found.declared, found.node) == (26.0, "declared", 1, "n1")
    assert found.devices == world.leases["short"].placement.devices
    assert str(found) == "start: in about 26 s; run times of the lease that ends before: 1 declared"


def test_each_in_its_turn() -> None:
    world = full()
    world.submit("after", gpu=1, runtime=5.0, task_class="c")
    world.submit("big", gpu=2, task_class="d")
    world.settle()
    found = estimate(world, "next", "after", "big")
    # ``after`` is of the class of ``next``, whose slice is warm when it ends
    assert [round(one.seconds, 3) for one in found.values()] == [26.0, 36.0, 86.0]
    assert [one.declared for one in found.values()] == [1, 2, 4]


def test_what_is_declared_is_measured_against_what_it_took() -> None:
    """Three tasks took half of what was declared, so ``short`` is expected to take 20 of its 40 s: 5 are left."""
    world = World(node("n1", "2xA100"), lease_term_seconds=1e6)
    for number in range(3):
        world.submit(f"r{number}", gpu=1, runtime=10.0, task_class="c")
        world.settle()
        world.now += 5
        world.release(f"r{number}")
    world.submit("short", gpu=2, runtime=40.0, task_class="b")
    world.settle()
    world.submit("next", gpu=1, task_class="c")
    world.wait(15)
    assert estimate(world, "next")["next"].seconds == 6.0


@pytest.mark.parametrize(
    ("took", "ran", "left", "basis"),
    [
        ([30.0], 10.0, 20.0, "guessed"),  # one other that ended lately took 30 s
        ([30.0, 50.0, 60.0], 10.0, 40.0, "guessed"),  # the one in the middle of those
        ([30.0, 50.0], 40.0, 10.0, "guessed"),  # those that had lived 40 s lived 10 s longer
        ([30.0], 40.0, 40.0, "guessed"),  # none had: as long again
        ([], 40.0, 40.0, "guessed"),
    ],
)
def test_guesses_come_from_what_ended_lately(took: list[float], ran: float, left: float, basis: str) -> None:
    world = World(node("n1", "1xA100"), lease_term_seconds=1e6, warm_seconds=0.0)
    for number, seconds in enumerate(took):
        world.submit(f"r{number}", gpu=1, task_class=f"past{number}")
        world.settle()
        world.now += seconds
        world.release(f"r{number}")
        world.settle()
    world.submit("runs", gpu=1, task_class="unknown")
    world.settle()
    world.submit("next", gpu=1)
    world.wait(ran)
    found = estimate(world, "next")["next"]
    assert (found.seconds, found.basis, found.guessed) == (left + 1.0, basis, 1)


def test_together_they_end_as_those_before_did() -> None:
    """Four leases of which nothing is known, after four that took 10 to 40 s: each is taken for another of these."""
    world = World(node("n1", "4xA100"), lease_term_seconds=1e6)
    for number in range(4):
        world.submit(f"past{number}", gpu=1, task_class=f"past{number}")
    world.settle()
    for number in range(4):
        world.now += 10
        world.release(f"past{number}")
    for number in range(4):
        world.submit(f"runs{number}", gpu=1, task_class="unknown")
    world.settle()
    for number in range(4):
        world.submit(f"next{number}", gpu=1, task_class="next")
    found = estimate(world, *(f"next{number}" for number in range(4)))
    assert [one.seconds for one in found.values()] == [11.0, 21.0, 31.0, 41.0]


def test_learnt_run_times_are_those_of_the_class() -> None:
    world = World(node("n1", "1xA100"), lease_term_seconds=1e6)
    for number, seconds in enumerate((10.0, 20.0, 30.0)):
        world.submit(f"r{number}", gpu=1, task_class="known")
        world.settle()
        world.now += seconds
        world.apply(events.TasksRan(world.leases[f"r{number}"].lease, 1, seconds))
        world.release(f"r{number}")
        world.settle()
    world.submit("runs", gpu=1, task_class="known")
    world.settle()
    world.submit("next", gpu=1)
    world.wait(15)
    found = estimate(world, "next")["next"]
    assert (found.seconds, found.basis, found.learnt) == (15.0 + 1.0, "learnt", 1)  # the later of 20 and 30, less 15


def test_a_lease_that_goes_from_call_to_call_ends_when_it_is_recalled() -> None:
    """Its calls take 2 s; asked back when ``next`` has waited for a term of 5 s, it is given back half a call later."""
    world = World(node("n1", "1xA100"), lease_term_seconds=5)
    world.submit("many", gpu=1, task_class="calls")
    world.settle()
    world.apply(events.TasksRan(world.leases["many"].lease, 4, 8.0))
    world.submit("next", gpu=1)
    world.settle()
    found = estimate(world, "next")["next"]
    assert (round(found.seconds, 3), found.basis) == (5.0 + 1.0 + 1.0, "learnt")


def test_what_is_unknown_is_said() -> None:
    world = World(node("n1", "1xA100"), lease_term_seconds=1e6)
    world.submit("runs", gpu=1, task_class="unknown")
    world.settle()
    world.submit("next", gpu=1)
    world.settle()
    found = estimate(world, "next")["next"]
    assert (found.seconds, found.basis) == (None, "unknown") and "how long runs runs" in found.why
    assert str(found).startswith("start: cannot be estimated: nothing is known")


def test_replays_are_bounded() -> None:
    world = full()
    found = estimate(world, "next", most_events=0)["next"]
    assert found.seconds is None and "were replayed" in found.why


def test_preemption_is_replayed() -> None:
    """A higher priority takes what is preemptible: after the grace period, and a start."""
    world = World(node("n1", "1xA100"), grace_seconds=2, lease_term_seconds=1e6)
    world.submit("low", gpu=1, request=Request(preemptible=True), runtime=1000.0)
    world.settle()
    world.now = 10.0
    world.submit("high", gpu=1, priority=5)
    found = estimate(world, "high", "low")
    assert (found["high"].seconds, found["high"].basis) == (3.0, "room") and "low" not in found


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_decides_as_its_original_and_apart_from_it(seed: int) -> None:
    world = walk(seed, 120)
    copied, now = world.scheduler.copy(), world.now
    before = _all_of(world)
    for later in (1.0, 2.0, 60.0):
        commands = copied.decide(now + later)
    assert _all_of(world) == before
    for later in (1.0, 2.0, 60.0):
        again = world.scheduler.decide(now + later)
    assert again == commands


def test_asking_changes_nothing() -> None:
    world = full()
    before = _all_of(world)
    estimate(world, "next")
    world.explain("next")
    assert before == _all_of(world) and world.decide() == []


def _all_of(world: World) -> tuple[str, int, str]:
    expected = repr(vars(world.scheduler.state.ends)["_by_kind"])
    return json.dumps(to_plain(world.snapshot())), len(world.journal), expected
