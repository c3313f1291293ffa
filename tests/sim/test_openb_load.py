"""openb under a load: the arithmetic of compressing arrivals, and the replay of the excerpt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from flexray.errors import UsageError
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.request import Request
from flexray.sim.openb import Task, read_nodes, read_tasks
from flexray.sim.openb_load import Load, compress, replay_load
from flexray.sim.sources import Options, run_source

DATA = Path(__file__).parents[1] / "data"
NODES, TASKS = DATA / "openb_excerpt_nodes.csv", DATA / "openb_excerpt_tasks.csv"
KIND = DeviceType("openb/T4", 1000)


def task(name: str, created: int, lived: int, share: int = 1000) -> Task:
    return Task(name, Request(share=share, cpus=1), created, created + lived)


def node(devices: int) -> Inventory:
    held = tuple(Device(f"n/gpu{i}", "n", i, KIND, Family.GPU, "openb") for i in range(devices))
    return Inventory("n", "n", held, cpus=1000, host_memory=1000)


def test_gaps_are_multiplied_so_that_the_load_is_as_asked() -> None:
    """Two devices; lives of 100, 300 and 50 (of 500, clipped to 300) GPU-seconds over gaps of 10 and 30."""
    tasks = [task("a", 5, 100), task("b", 15, 500), task("c", 45, 100, share=500)]
    made = compress(tasks, 2, Load(load=0.5, clip=300, inflate=1.25))
    assert [one.name for one in made.tasks] == ["a", "b", "c"]
    assert (made.lives, made.clipped) == ([100, 300, 100], 1)
    assert made.times == pytest.approx([0, 450 * 10 / 40, 450])  # 450 GPU-seconds over 450 s are half of two devices
    twice = compress(tasks, 2, Load(load=1.0, clip=300, inflate=1.25))
    assert twice.factor == pytest.approx(made.factor / 2)


def test_arrivals_go_on_with_the_same_gaps_when_the_trace_is_used_up() -> None:
    tasks = [task("a", 5, 100), task("b", 15, 100), task("c", 45, 100)]
    made = compress(tasks, 1, Load(load=1.0, clip=1000, inflate=7))
    assert [one.name for one in made.tasks[:3]] == ["a", "b", "c"] and len(made.tasks) == 7
    gaps = [after - before for before, after in zip(made.times, made.times[1:], strict=False)]
    assert gaps == pytest.approx([made.factor * gap for gap in (10, 30, 40 / 3, 10, 30, 40 / 3)])


def test_a_seed_is_an_order_of_arrival_of_its_own() -> None:
    tasks = read_tasks(TASKS)
    names = [[one.name for one in compress(tasks, 10, Load(1.0, 3600, 3, seed)).tasks] for seed in (None, 1, 1, 2)]
    assert names[0] != names[1] == names[2] != names[3]


def test_what_does_not_fit_waits_and_the_allocation_is_over_the_busy_window() -> None:
    """One device, a task of 100 s every 10 s from 0 to 90: each waits for all before it, and it is never idle."""
    tasks = [task(f"t{i}", 10 * i, 100) for i in range(10)]
    found = replay_load([node(1)], tasks, "pack", Load(load=1000 / 90, clip=100, inflate=10))
    assert found.factor == pytest.approx(1.0)
    assert (found.arrived, found.waited, found.arrivals_exhausted) == (10, 9, False)
    assert (found.wait.mean, found.wait.max, found.end) == (45 * 90 / 10, 810, 1000)
    assert (found.window, found.allocation) == ((20, 90), 100)


def test_the_excerpt_runs_and_says_that_tasks_were_drawn_again() -> None:
    nodes, tasks = read_nodes(NODES), read_tasks(TASKS)
    found = replay_load(nodes, tasks, "balanced", Load(1.2, 3600, 3, 7))
    assert found.arrivals_exhausted and found.waited > 0 and found.wait.count == found.arrived
    assert found == replay_load(nodes, tasks, "balanced", Load(1.2, 3600, 3, 7))


def test_without_times_there_is_no_load() -> None:
    tasks = [dataclasses.replace(one, created=None) for one in read_tasks(TASKS)]
    with pytest.raises(UsageError, match="creation_time"):
        compress(tasks, 10, Load(1.0, 3600, 3))
    with pytest.raises(UsageError, match="clip 0 at least"):
        compress(read_tasks(TASKS), 10, Load(1.0, 0, 3))


def test_the_command_runs_every_policy_in_every_order() -> None:
    options = Options(openb_nodes=NODES, openb_tasks=TASKS, timed=True, load=1.0, clip=3600.0, inflate=2.0)
    outcome = run_source(dataclasses.replace(options, seeds="1-2", policies=("pack", "fgd")))
    assert [row[:2] for row in outcome.sheets[0][2]] == [[p, s] for p in ("pack", "fgd") for s in ("seed 1", "seed 2")]
    with pytest.raises(UsageError, match="--load needs --timed, and --clip"):
        run_source(dataclasses.replace(options, clip=None))
    with pytest.raises(UsageError, match="--clip means nothing"):
        run_source(dataclasses.replace(options, load=None, inflate=None))
