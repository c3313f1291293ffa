"""Preemptible work moves to devices that suit it, or makes room for those who waited long; nothing is lost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from harness import World, kinds, node

from flexray.model import events
from flexray.model.lifecycle import RequestState
from flexray.model.request import Request

FAST_ON_A100 = (("nvidia/A100*", 1.0), ("nvidia/T4", 0.2))
LIKES_BOTH = (("nvidia/A100*", 1.0), ("nvidia/T4", 0.9))


def world(*nodes: Any, **config: Any) -> World:
    return World(*nodes, **{"policy": "balanced", "rematch_seconds": 30, "warm_seconds": 0, **config})


def job(world: World, name: str, throughput: tuple[tuple[str, float], ...], **options: Any) -> None:
    request = Request(runtime=36_000.0, throughput=throughput, preemptible=True, checkpoint_every=60.0)
    world.submit(name, gpu=1, task_class=name, request=request, **options)
    world.settle()


def give_way(world: World) -> None:
    """What was asked to stop saves its state and stops."""
    for slice_id in list(world.scheduler.state.evictions):
        (name,) = [name for name, lease in world.leases.items() if lease.slice == slice_id]
        world.apply(events.LeaseYielded(world.leases[name].lease))
    world.settle()


def test_a_fast_device_that_comes_free_goes_to_who_gains_most() -> None:
    there = world(node("a", "1xA100"), node("t", "2xT4"))
    there.submit("first", gpu=1)
    there.settle()
    job(there, "much", FAST_ON_A100)
    job(there, "little", LIKES_BOTH)
    assert there.placed == {"first": "a/gpu0", "much": there.placed["much"], "little": there.placed["little"]}
    there.now += 40
    there.release("first")
    commands = there.wait(30)
    assert [line for line in kinds(commands) if line.startswith("recall")] == ["recall much#1"]
    give_way(there)
    assert there.placed["much"] == "a/gpu0" and there.placed["little"].startswith("t/")
    assert there.leases["much"].lease.attempt == 2


def test_two_jobs_change_places() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    job(there, "little", LIKES_BOTH)
    job(there, "much", FAST_ON_A100)
    assert there.placed == {"little": "a/gpu0", "much": "t/gpu0"}
    commands = there.wait(61)
    assert {line for line in kinds(commands) if line.startswith("recall")} == {"recall little#1", "recall much#1"}
    there.submit("thief", gpu=1)  # nobody takes the room in between
    give_way(there)
    assert there.placed == {"little": "t/gpu0", "much": "a/gpu0"}


def test_what_does_not_stop_in_its_grace_period_is_stopped() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"), grace_seconds=2)
    job(there, "little", LIKES_BOTH)
    job(there, "much", FAST_ON_A100)
    there.wait(61)
    assert there.scheduler.wake_at == there.now + 2
    commands = there.wait(2)
    assert {"stop s1.1 preempted", "stop s1.2 preempted"} <= set(kinds(commands))
    assert {line for line in kinds(commands) if line.startswith("revoke")} == {
        "revoke little#1 preempted again", "revoke much#1 preempted again"
    }  # fmt: skip
    assert there.placed == {"little": "t/gpu0", "much": "a/gpu0"}


def test_a_job_that_ends_in_its_grace_period_is_done() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    job(there, "little", LIKES_BOTH)
    job(there, "much", FAST_ON_A100)
    there.wait(61)
    there.release("little")
    there.settle()
    give_way(there)
    assert there.placed == {"much": "a/gpu0"}
    assert not there.scheduler.state.evictions and "little" not in there.scheduler.state.requests


@pytest.mark.parametrize("runtime", [20.0, 36_000.0])
def test_a_move_has_to_be_worth_its_cost(runtime: float) -> None:
    """Nine tenths of the speed: with an hour to go it pays, without a checkpoint and with 20 s to go it does not."""
    there = world(node("a", "1xA100"), node("t", "1xT4"), rematch_seconds=5)
    request = Request(runtime=runtime, throughput=LIKES_BOTH, preemptible=True)
    there.submit("first", gpu=1, types="nvidia/A100*")
    there.settle()
    there.submit("r", gpu=1, request=request)
    there.settle()
    assert there.placed["r"] == "t/gpu0"
    there.release("first")
    there.wait(6)
    moved = there.scheduler.state.requests["r"].state is RequestState.DRAINING
    assert moved == (runtime > 100)


def test_work_that_is_not_preemptible_stays() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    there.submit("little", gpu=1, request=Request(runtime=36_000.0, throughput=LIKES_BOTH))
    there.settle()
    job(there, "much", FAST_ON_A100)
    there.wait(61)
    there.wait(3600)
    assert there.placed == {"little": "a/gpu0", "much": "t/gpu0"} and not there.scheduler.state.evictions


def test_nobody_waits_for_ever_behind_preemptible_work() -> None:
    there = world(node("a", "1xA100"), patience_seconds=100)
    job(there, "runs", FAST_ON_A100)
    there.submit("waits", gpu=1)
    there.wait(95)
    assert "waits" not in there.placed
    there.wait(40)
    give_way(there)
    assert there.placed == {"waits": "a/gpu0"} and there.reason("runs") == "no_room"
    there.release("waits")
    there.settle()
    assert there.placed == {"runs": "a/gpu0"}


def test_moves_cost_a_bounded_part_of_the_time() -> None:
    """Two that wait for each other's place take turns by patience: at first often, then as they can afford it."""
    there = world(node("a", "1xA100"), patience_seconds=50)
    job(there, "one", FAST_ON_A100)
    job(there, "two", FAST_ON_A100)
    counts = []
    for _ in range(2):
        before = len(there.commands)
        for _ in range(200):
            there.wait(40)
            give_way(there)
        counts.append(sum(line.startswith("recall") for line in kinds(there.commands[before:])))
    lost = [request.lost for request in there.scheduler.state.requests.values()]
    one_move = 61.0
    assert all(request <= 60 + 0.05 * there.now + one_move for request in lost)
    assert 8 <= counts[1] <= counts[0] <= 20  # it goes on for as long as they are there, 400 s for 61 lost by each


def test_what_moves_have_cost_is_forgiven_with_time() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    job(there, "little", LIKES_BOTH)
    job(there, "much", FAST_ON_A100)
    there.scheduler.state.requests["little"].lost = 20 * 61.0  # many moves, of a minute each
    there.wait(61)
    assert there.placed["much"] == "t/gpu0" and not there.scheduler.state.evictions
    there.wait(24_000)
    give_way(there)
    assert there.placed == {"little": "t/gpu0", "much": "a/gpu0"}


def test_preemptible_work_takes_what_there_is_and_is_moved() -> None:
    """Work that has to stay waits for the fast device, which is to be free in 100 s; work that is moved begins."""
    request = Request(runtime=36_000.0, throughput=FAST_ON_A100, preemptible=True, checkpoint_every=60.0)
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    there.submit("first", gpu=1, types="nvidia/A100*", request=Request(runtime=100.0))
    there.settle()
    there.submit("stays", gpu=1, request=dataclasses.replace(request, preemptible=False, checkpoint_every=None))
    there.settle()
    assert there.reason("stays") == "faster_soon"
    there.submit("moves", gpu=1, request=request)
    there.settle()
    assert there.placed["moves"] == "t/gpu0"


def test_a_preemptible_task_too_short_for_rounds_waits_for_the_faster_device() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    there.submit("first", gpu=1, types="nvidia/A100*", request=Request(runtime=5.0))
    there.settle()
    there.submit("short", gpu=1, request=Request(runtime=25.0, throughput=FAST_ON_A100, preemptible=True))
    there.settle()
    assert there.reason("short") == "faster_soon"


def test_steps_of_a_call_that_goes_on_say_where_it_is_fast() -> None:
    """Nothing is declared, and the T4 turns out to be ten times the faster one for it."""
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    for name in ("one", "two"):
        there.submit(name, gpu=1, task_class="f", request=Request(preemptible=True, checkpoint_every=60.0))
        there.settle()
    at = {there.placed[name]: name for name in ("one", "two")}
    there.submit("other", gpu=1)
    for _ in range(4):
        for place, per_step in (("a/gpu0", 0.1), ("t/gpu0", 0.01)):
            there.apply(events.StepsRan(there.leases[at[place]].lease, 10 / per_step, 10.0))
        commands = there.wait(6)  # "other" has waited for a lease's term, but steps are no end of a call
        assert not [line for line in kinds(commands) if line.startswith("recall")]
    there.apply(events.RequestCancelled("other"))
    there.release(at["t/gpu0"])
    there.wait(31)
    give_way(there)
    assert there.placed == {at["a/gpu0"]: "t/gpu0"}


def test_steps_beside_others_say_nothing() -> None:
    there = world(node("t", "1xT4"))
    there.submit("half", gpu=0.5, task_class="f")
    there.settle()
    there.apply(events.StepsRan(there.leases["half"].lease, 100.0, 10.0))
    assert there.scheduler.state.pool.speeds.observations == 0


def test_where_one_of_a_round_finds_no_place_none_moves() -> None:
    """Both would gain, but host memory is counted in levels, and what is there is a little less than it looks."""
    there = world(node("a", "1xA100", cpus=8.1), node("t", "1xT4", cpus=8.1))
    job(there, "little", LIKES_BOTH, cpus=8)
    job(there, "much", FAST_ON_A100, cpus=8)
    before = dict(there.placed)
    assert before == {"little": "a/gpu0", "much": "t/gpu0"}
    place = there.scheduler.state.pool.chooser.place
    there.scheduler.state.pool.chooser.place = lambda request, *rest: (  # type: ignore[method-assign]
        None if request.types == ("nvidia/T4",) else place(request, *rest)
    )
    there.wait(61)
    state = there.scheduler.state
    assert there.placed == before and not state.evictions and not state.slices.pending
    assert not any(record.draining for record in state.slices.by_id.values())


def test_a_target_that_is_lost_leaves_the_work_where_it_is() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"), stops=False)
    there.submit("first", gpu=1)
    there.settle()
    job(there, "much", FAST_ON_A100)
    there.release("first")
    there.settle()
    there.wait(61)
    assert there.scheduler.state.requests["much"].next is not None
    there.apply(events.NodeLost("a"))
    there.node_is_gone("a")
    there.settle()
    assert there.scheduler.state.requests["much"].next is None
    there.stops = True
    give_way(there)
    assert there.placed["much"] == "t/gpu0"


def test_what_runs_without_a_device_is_left_where_it_is() -> None:
    there = world(node("a", "1xA100", cpus=4))
    there.submit("host", request=Request(devices=0, cpus=2000, preemptible=True))
    there.settle()
    there.wait(100)
    assert "host" in there.leases and "recall" not in " ".join(kinds(there.commands))
