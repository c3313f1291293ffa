"""The openb reader and experiment, on an excerpt of the trace (origin: tests/data/openb_excerpt_origin.md)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flexray.errors import UsageError
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.request import Request
from flexray.sim.fragments import Fragments, Shape, typical_shapes
from flexray.sim.openb import Experiment, arrivals, read_nodes, read_tasks
from flexray.sim.openb_timed import replay_times, simulate_times
from flexray.sim.parallel import parse_seeds, run_seeds
from flexray.sim.result import as_json

DATA = Path(__file__).parents[1] / "data"
NODES = DATA / "openb_excerpt_nodes.csv"
TASKS = DATA / "openb_excerpt_tasks.csv"


def quiet(done: float, of: float) -> None:
    """No progress."""


def experiment(policy: str = "pack") -> Experiment:
    """29 nodes with 140 GPUs, and demand for 182."""
    return Experiment(read_nodes(NODES), read_tasks(TASKS), policy)


def test_nodes_are_read() -> None:
    nodes = read_nodes(NODES)
    assert len(nodes) == 29
    first = nodes[0]
    assert (first.node, first.cpus, first.host_memory, len(first.devices)) == ("openb-node-0000", 64000, 262144, 2)
    assert first.devices[0].type == DeviceType("openb/P100", 1000)


def test_tasks_are_read() -> None:
    tasks = {task.name: task for task in read_tasks(TASKS)}
    assert tasks["openb-pod-0001"].request == Request(share=460, cpus=6000, host_memory=12288)
    assert tasks["openb-pod-0005"].request == Request(devices=0, cpus=20000, host_memory=65536)
    assert tasks["openb-pod-0017"].request == Request(devices=8, cpus=88000, host_memory=327680, types=("openb/G2",))
    assert tasks["openb-pod-0031"].request.types == ("openb/V100M16", "openb/V100M32")
    assert (tasks["openb-pod-0001"].created, tasks["openb-pod-0001"].deleted) == (427061, 12902960)
    assert (tasks["openb-pod-0017"].demand, tasks["openb-pod-0005"].demand) == (8000, 0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name,cpu_milli\n", "has no column 'memory_mib'"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\n", "has no rows"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,x,1\n", "line 2: num_gpu is 'x'; a number is needed"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,-1,1\n", "line 2: num_gpu is '-1'; a whole number"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,1,\n", "line 2: gpu_milli is empty"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,0,0\n", "no task asks for a GPU"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        read_tasks(path)


def test_arrivals_are_the_trace_in_random_order_and_then_more_of_it() -> None:
    tasks = read_tasks(TASKS)
    whole = sum(task.demand for task in tasks)
    some = [task.name for task in arrivals(tasks, 2 * whole, seed=1)]
    assert sorted(some[: len(tasks)]) == sorted(task.name for task in tasks) != some[: len(tasks)]
    assert some == [task.name for task in arrivals(tasks, 2 * whole, seed=1)]
    assert some != [task.name for task in arrivals(tasks, 2 * whole, seed=2)]
    demand = [task.demand for task in arrivals(tasks, 2 * whole, seed=1)]
    assert sum(demand) >= 2 * whole > sum(demand[:-1])


def test_the_experiment() -> None:
    result = experiment().run(42)
    assert result.arrived > result.placed > 0
    assert max(result.allocated) >= 130
    values = list(result.allocated.values())
    assert values == sorted(values) and values[-1] <= 100
    assert all(0 <= value <= 100 for value in result.fragmented.values())
    # Nothing is refused while the cluster is nearly empty: what arrived is what is allocated.
    early = [at for at in result.allocated if at <= 20]
    assert early and all(abs(result.allocated[at] - at) <= 0.5 for at in early)


def test_the_experiment_is_the_same_each_time_and_the_mean_is_one() -> None:
    one, again = (run_seeds(experiment(), [1, 2], quiet, workers=1) for _ in range(2))
    assert as_json(one) == as_json(again)
    both = [seed.allocated for seed in one.seeds]
    at = max(set(both[0]) & set(both[1]))
    assert one.mean.allocated[at] == pytest.approx((both[0][at] + both[1][at]) / 2, abs=1e-4)


def test_seeds_run_in_processes_of_their_own() -> None:
    assert run_seeds(experiment(), [3, 1], quiet, workers=2) == run_seeds(experiment(), [1, 3], quiet, workers=1)


def test_seeds_are_numbers_and_ranges() -> None:
    assert parse_seeds("42-44, 7,43") == [42, 43, 44, 7]
    for wrong in ("", "a", "3-1", "1-", "1,,2"):
        with pytest.raises(UsageError, match="such as 42-51"):
            parse_seeds(wrong)


def node(name: str, count: int, cpus: int, kind: str = "t/A") -> Inventory:
    devices = tuple(Device(f"{name}/gpu{i}", name, i, DeviceType(kind, 1000), Family.GPU, "x") for i in range(count))
    return Inventory(name, name, devices, cpus=cpus)


def slowly(left: list[int], cpus: int, kind: str, shapes: list[tuple[Shape, float]]) -> float:
    """The definition, word by word."""
    total = 0.0
    for shape, weight in shapes:
        enough = [r for r in left if r >= shape.share]
        usable = shape.devices and (not shape.types or kind in shape.types) and cpus >= shape.cpus
        fits = usable and len(enough) >= shape.devices
        total += weight * (sum(r for r in left if r < shape.share) if fits else sum(left))
    return total


def test_fragments_follow_their_definition() -> None:
    counted = Counter({Shape(0, 0, 0, ()): 2, Shape(500, 300, 1, ()): 5, Shape(0, 1000, 2, ("t/A",)): 3})
    shapes = typical_shapes(counted.items())
    nodes = [node("a", 3, 1000), node("b", 2, 700, "t/B")]
    fragments = Fragments(nodes, shapes)
    left, cpus = {"a": [1000] * 3, "b": [1000] * 2}, {"a": 1000, "b": 700}
    rng = np.random.default_rng(0)
    for _ in range(30):
        kinds = {"a": "t/A", "b": "t/B"}
        expected = sum(slowly(left[name], cpus[name], kinds[name], shapes) for name in left)
        assert fragments.total == pytest.approx(expected)
        name = str(rng.choice(["a", "b"]))
        device, share, cores = int(rng.integers(len(left[name]))), 50 * int(rng.integers(1, 6)), 50
        if left[name][device] >= share and cpus[name] >= cores:
            left[name][device] -= share
            cpus[name] -= cores
            fragments.take(name, [f"{name}/gpu{device}"], share, cores)


def test_typical_shapes_cover_95_per_cent() -> None:
    counts = [(Shape(0, 100, 1, ()), 90), (Shape(0, 200, 1, ()), 6), (Shape(0, 300, 1, ()), 4)]
    assert typical_shapes(counts) == [(counts[0][0], 90 / 96), (counts[1][0], 6 / 96)]


def test_times_are_replayed() -> None:
    tasks = read_tasks(TASKS)
    result = replay_times(read_nodes(NODES), tasks, "pack")
    assert (result.tasks, result.waited, result.infeasible) == (29, 0, 0)
    assert result.end == 12902960
    simulation = simulate_times(read_nodes(NODES), tasks, "pack")
    for course in simulation.courses.values():
        task = next(task for task in tasks if course.job.id.startswith(f"{task.name}#"))
        (attempt,) = course.attempts
        assert (attempt.start, attempt.end) == (1_000_000 * task.created, 1_000_000 * task.deleted)


def test_what_does_not_fit_waits_in_the_replay() -> None:
    (wide,) = [one for one in read_nodes(NODES) if one.node == "openb-node-0000"]
    result = replay_times([wide], read_tasks(TASKS), "pack")
    assert result.waited > 0 and result.infeasible > 0


def test_a_replay_needs_times(tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,1,500\n")
    with pytest.raises(UsageError, match="--timed needs a task list with the columns creation_time"):
        replay_times(read_nodes(NODES), read_tasks(path), "pack")
