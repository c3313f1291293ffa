"""The reference of the published policies (benchmarks/openb_published.py), on hand-made clusters and the excerpt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from openb_published import POLICIES, Cluster, Published

from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.request import Request
from flexray.sim.fragments import Fragments, typical_shapes
from flexray.sim.openb import Experiment, Task, arrivals, read_nodes, read_tasks, shape_of

DATA = Path(__file__).parents[1] / "data"
KIND = DeviceType("openb/T4", 1000)


def excerpt(policy: str) -> Experiment:
    return Experiment(
        read_nodes(DATA / "openb_excerpt_nodes.csv"), read_tasks(DATA / "openb_excerpt_tasks.csv"), policy
    )


def node(name: str, devices: int, cpus: int = 8000) -> Inventory:
    held = tuple(Device(f"{name}/gpu{i}", name, i, KIND, Family.GPU, "openb") for i in range(devices))
    return Inventory(name, name, held, cpus=cpus, host_memory=1000)


def task(share: int, devices: int = 1, cpus: int = 1000, memory: int = 10) -> Task:
    return Task(f"{share}x{devices}", Request(share=share, devices=devices, cpus=cpus, host_memory=memory))


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_kept_scores_are_those_of_scoring_every_node_again(policy: str) -> None:
    given = excerpt(policy)
    kept = Published(given.nodes, given.tasks, policy, seed=1)
    fragments = Fragments(given.nodes, typical_shapes((shape_of(one), 1) for one in given.tasks))
    for one in arrivals(given.tasks, 1.3 * given.capacity, seed=1):
        known = dict(kept._known)
        kept._known.clear()
        afresh = kept._scores(shape_of(one))[0].copy()
        kept._known = known
        assert (kept._scores(shape_of(one))[0] == afresh).all()
        place = kept.place(one)
        if place is not None:
            fragments.take(place.node, place.devices, place.share, one.request.cpus)
    cluster = kept._cluster
    rows = np.arange(len(given.nodes))
    assert cluster.fragments(rows, cluster.cpus, cluster.devices).sum() == pytest.approx(fragments.total)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_the_experiment_runs_with_a_published_policy(policy: str) -> None:
    given = excerpt(policy)
    result = given.run(3, placer=Published(given.nodes, given.tasks, policy, seed=3))
    assert 80 < result.allocated[100] <= 100
    assert result == given.run(3, placer=Published(given.nodes, given.tasks, policy, seed=3))


def test_best_fit_takes_the_fullest_node_and_its_fullest_device() -> None:
    placed = Published([node("big", 4), node("small", 2)], [task(500)], "published-bestfit", seed=1)
    places = [placed.place(task(share)) for share in (600, 500, 300)]
    assert [place.devices for place in places if place] == [("small/gpu0",), ("small/gpu1",), ("small/gpu0",)]


def test_fgd_keeps_whole_devices_for_those_who_ask_for_them() -> None:
    """Half of the tasks ask for 0.5 and half for a whole device: the second 0.5 belongs beside the first."""
    tasks = [task(500), task(1000)]
    placed = Published([node("a", 2)], tasks, "published-fgd", seed=1)
    places = [placed.place(one) for one in (task(500), task(500), task(1000), task(500))]
    assert [place and place.devices for place in places] == [("a/gpu0",), ("a/gpu0",), ("a/gpu1",), None]


def test_fgd_counts_what_the_host_has_no_cores_for_as_fragments() -> None:
    """With one core left nothing else of the mix fits, so a task of two cores wastes least where cores remain."""
    cluster = Cluster([node("a", 1, cpus=2000)], [task(500, cpus=2000)])
    rows, devices = np.array([0]), np.array([[500]])
    assert cluster.fragments(rows, np.array([2000]), devices).tolist() == [0.0]
    assert cluster.fragments(rows, np.array([1999]), devices).tolist() == [500.0]


def test_host_memory_keeps_a_task_away() -> None:
    placed = Published([node("a", 1)], [task(100)], "published-fgd", seed=1)
    assert placed.place(task(100, memory=1001)) is None
    assert placed.place(task(100, memory=1000)) is not None
    placed.check(100)
    with pytest.raises(AssertionError):
        placed.check(200)
