"""What decides between places of one class: company, arguments, links. And waiting for a faster device."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from harness import World, node

from flexray.core.ends import SLICE_START_SECONDS
from flexray.model.devices import DeviceState, Inventory
from flexray.model.events import TasksRan
from flexray.model.request import Request
from flexray.sim.scenario import parse_scenario, simulate


def world(*nodes: Inventory, policy: str = "balanced", **config: Any) -> World:
    return World(*nodes, policy=policy, **config)


def run(world: World, name: str, **options: Any) -> str:
    """Submit and let it be placed. Returns its devices."""
    world.submit(name, **options)
    world.settle()
    return world.placed[name]


def terms(world: World, name: str) -> dict[str, float]:
    found = world.explain(name)
    assert found is not None
    return dict(found.scores)


# -- company -------------------------------------------------------------------------------


def teach(world: World, one: str, other: str, log_factor: float) -> None:
    """Both classes were seen to slow each other down, or not to."""
    for _ in range(40):
        world.scheduler.state.pool.company.observe(one, {other: 1.0}, log_factor, 1)
        world.scheduler.state.pool.company.observe(other, {one: 1.0}, log_factor, 1)


@pytest.mark.parametrize("policy", ["balanced", "fast"])
def test_a_bad_neighbour_is_avoided_and_a_good_one_taken(policy: str) -> None:
    there = world(node("n", "2xA100"), policy=policy)
    first = run(there, "a", gpu=0.5, task_class="a")
    teach(there, "a", "b", 0.7)
    assert run(there, "b", gpu=0.5, task_class="b") != first
    assert terms(there, "b")["company"] == 0
    there.release("b")
    teach(there, "a", "c", 0.0)
    assert run(there, "c", gpu=0.5, task_class="c") == first  # one device stays whole


def test_where_there_is_no_choice_bad_company_is_better_than_waiting() -> None:
    there = world(node("n", "1xA100"))
    first = run(there, "a", gpu=0.5, task_class="a")
    teach(there, "a", "b", 0.7)
    assert run(there, "b", gpu=0.5, task_class="b") == first
    assert terms(there, "b")["company"] < -0.5  # half of its own pace, and of its neighbour's


def test_of_several_warm_slices_the_one_in_good_company_is_taken() -> None:
    there = world(node("n1", "1xA100"), node("n2", "1xA100"))
    one, two = (run(there, name, gpu=0.6, task_class="b") for name in ("b1", "b2"))
    where = run(there, "a", gpu=0.4, task_class="a")
    assert one != two and where in (one, two)
    teach(there, "a", "b", 0.7)
    for name in ("b1", "b2"):
        there.release(name)
    there.settle()
    assert run(there, "b3", gpu=0.6, task_class="b") == (one if where == two else two)


def test_company_learnt_in_a_run_changes_who_runs_beside_whom() -> None:
    """Two classes slow each other to half; after learning, hardly any of them shares a device with the other."""
    requests = [
        {"id": f"{c}{i}", "at": 12 * i + 3 * k, "gpu": 0.5, "duration": 20 + k, "class": c, "known": "none"}
        for i in range(60)
        for k, c in enumerate("abcd")
    ]
    data = {
        "version": 1,
        "nodes": [{"name": f"n{n}", "devices": "2xnvidia/A100-80GB"} for n in range(3)],
        "requests": requests,
        "slowdown": {"a, b, *": 2.0, "b, a, *": 2.0},
        "config": {"warm_seconds": 0},
    }

    def slowed(weights: dict[str, float]) -> float:
        run = simulate(parse_scenario({**data, "config": {"warm_seconds": 0, "policy_weights": weights}}))
        late = [course for course in run.courses.values() if course.job.id[0] in "ab"][60:]
        works = [(course, course.attempts[-1]) for course in late]
        return sum(one.end - one.start > 1.1 * (course.job.work_on("x") or 0) for course, one in works) / len(works)

    assert slowed({"company": 0.0}) > 0.2
    assert slowed({}) < 0.05


# -- where the arguments are ------------------------------------------------------------------


def test_large_arguments_draw_a_request_to_their_node() -> None:
    nodes = [node(f"n{n}", "1xA100") for n in range(6)]
    for home in ("n1", "n4"):
        there = world(*nodes)
        assert run(there, "r", gpu=0.5, near=((home, 4096), ("elsewhere", 100))) == f"{home}/gpu0"
        assert terms(there, "r")["near"] == pytest.approx(0.25 * 4096 / 4196)


def test_small_arguments_draw_nobody_from_a_faster_device() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    assert run(there, "r", gpu=1, near=(("t", 200),)) == "a/gpu0"


def test_of_several_warm_slices_the_one_near_the_arguments_is_taken() -> None:
    there = world(*[node(f"n{n}", "1xA100") for n in range(3)])
    for number in range(3):
        run(there, f"r{number}", gpu=1, task_class="f")
    for number in range(3):
        there.release(f"r{number}")
    there.settle()
    for home in ("n1", "n0", "n2"):
        assert run(there, home, gpu=1, task_class="f", near=((home, 100),)) == f"{home}/gpu0"
        there.release(home)


# -- links -------------------------------------------------------------------------------------


def linked_node(name: str, what: str, group: int) -> Inventory:
    """Devices in fully linked groups."""
    plain = node(name, what)
    of = [d.index // group for d in plain.devices]
    devices = [
        dataclasses.replace(
            d, links=tuple((e.index, 1) for e in plain.devices if e != d and of[e.index] == of[d.index])
        )
        for d in plain.devices
    ]
    return dataclasses.replace(plain, devices=tuple(devices))


def test_several_devices_are_taken_where_they_are_linked() -> None:
    there = world(linked_node("n", "4xA100", 2))
    assert run(there, "one", gpu=1) == "n/gpu0"
    assert run(there, "pair", gpu=2) == "n/gpu2,n/gpu3"
    assert terms(there, "pair")["linked"] == 0.25


def test_a_node_with_a_linked_pair_is_preferred() -> None:
    for names in (("n0", "n1"), ("n1", "n0")):
        halves, pair = linked_node(names[0], "4xA100", 2), linked_node(names[1], "4xA100", 2)
        there = world(sick(halves, 1, 2), sick(pair, 0, 1))
        assert run(there, "pair", gpu=2) == f"{names[1]}/gpu2,{names[1]}/gpu3"


def sick(inventory: Inventory, *indexes: int) -> Inventory:
    broken = {index: DeviceState.SICK for index in indexes}
    devices = [dataclasses.replace(d, state=broken.get(d.index, d.state)) for d in inventory.devices]
    return dataclasses.replace(inventory, devices=tuple(devices))


# -- waiting for a faster device -------------------------------------------------------------


def busy(world: World, name: str, seconds: float, **options: Any) -> str:
    return run(world, name, gpu=1, request=Request(runtime=seconds, throughput=(("*", 1.0),)), **options)


FIVE_TIMES = (("nvidia/A100*", 1.0), ("nvidia/T4", 0.2))


def ask(world: World, name: str, seconds_on_t4: float) -> None:
    """A class that is five times as fast on the A100, and says so."""
    world.submit(name, gpu=1, task_class=name, request=Request(runtime=seconds_on_t4, throughput=FIVE_TIMES))
    world.settle()


def test_a_fast_device_soon_is_better_than_a_slow_one_now() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    assert busy(there, "first", 10.0, types="nvidia/A100*") == "a/gpu0"
    ask(there, "r", 100.0)  # 100 s there now, or 10 + 20 s here
    assert "r" not in there.placed and there.reason("r") == "faster_soon"
    there.now += 10
    there.release("first")
    there.settle()
    assert there.placed["r"] == "a/gpu0"


def test_a_slow_device_now_is_better_than_a_fast_one_late() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    busy(there, "first", 200.0, types="nvidia/A100*")
    ask(there, "r", 100.0)
    assert there.placed["r"] == "t/gpu0"


def test_those_who_wait_wait_for_each_other_too() -> None:
    """Each takes 20 s on the A100, which is busy for 10: they would end at 30, 50, 70, 90; the T4 takes 100."""
    there = world(node("a", "1xA100"), node("t", "2xT4"))
    busy(there, "first", 10.0, types="nvidia/A100*")
    for number in range(5):
        ask(there, f"r{number}", 100.0)
    waiting = [f"r{number}" for number in range(5) if f"r{number}" not in there.placed]
    assert waiting == ["r0", "r1", "r2"]  # the fourth would save less than a tenth
    assert {there.placed[f"r{number}"] for number in (3, 4)} == {"t/gpu0", "t/gpu1"}


def test_an_end_that_does_not_come_is_not_waited_for_for_ever() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    busy(there, "first", 10.0, types="nvidia/A100*")
    ask(there, "r", 100.0)
    assert there.scheduler.wake_at == 10.0
    there.now = 11.0  # it runs on
    there.settle()
    assert there.placed["r"] == "t/gpu0"


def test_nobody_waits_where_nothing_is_known_or_little_is_saved() -> None:
    there = world(node("a", "1xA100"), node("t", "3xT4"))
    busy(there, "first", 10.0, types="nvidia/A100*")
    assert run(there, "unknown", gpu=1, task_class="unknown").startswith("t/")
    ask(there, "short", 2 * SLICE_START_SECONDS)
    assert there.placed["short"].startswith("t/")


def test_run_times_that_were_measured_count() -> None:
    there = world(node("a", "1xA100"), node("t", "1xT4"))
    for number, kind in enumerate(["nvidia/A100*", "nvidia/T4"] * 8):
        run(there, f"m{number}", gpu=1, task_class="f", types=kind)
        there.apply(TasksRan(there.leases[f"m{number}"].lease, 1, 20.0 if "A100" in kind else 100.0))
        there.release(f"m{number}")
        there.settle()
    assert run(there, "one", gpu=1, task_class="f") == "a/gpu0"
    there.now += 5
    there.submit("two", gpu=1, task_class="f")
    there.settle()
    assert there.reason("two") == "faster_soon"


def test_waiting_makes_a_scenario_finish_sooner() -> None:
    data = {
        "version": 1,
        "nodes": [{"name": "n", "devices": "1xnvidia/A100-80GB, 1xnvidia/T4"}],
        "requests": [{"id": "r", "count": 4, "gpu": 1, "known": "true",
                      "duration": {"nvidia/A100-80GB": 20, "nvidia/T4": 100}}],
        "costs": {"start": 0},
    }  # fmt: skip

    def end(policy: str) -> float:
        courses = simulate(parse_scenario({**data, "policy": policy})).courses.values()
        return max(course.attempts[-1].end for course in courses)

    assert end("balanced") < 0.85 * end("pack")


def test_those_behind_one_that_waits_for_a_faster_device_take_the_slow_one_where_that_is_sooner_for_them() -> None:
    """As list scheduling would: the second waits for the fast device, for the third that is free too late."""
    data = {
        "version": 1,
        "nodes": [{"name": "n", "devices": "1xnvidia/A100-80GB, 1xnvidia/T4"}],
        "requests": [{"id": "r", "count": 5, "gpu": 1, "known": "true",
                      "duration": {"nvidia/A100-80GB": 20, "nvidia/T4": 50}}],
        "costs": {"start": 0},
    }  # fmt: skip
    courses = simulate(parse_scenario(data)).courses
    runs = {
        name: (one.attempts[0].lease.placement.devices[0], one.attempts[0].start // 1_000_000)
        for name, one in courses.items()
    }
    assert runs["r/0"] == ("n/gpu0", 0) and runs["r/1"] == ("n/gpu0", 20) and runs["r/2"] == ("n/gpu1", 0)
    assert {runs["r/3"], runs["r/4"]} == {("n/gpu0", 40), ("n/gpu0", 60)}
