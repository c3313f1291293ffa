"""A pool over several nodes: exact fit, plain Ray beside it, nodes that come and go."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexray as flex
from flexray.errors import Infeasible, LeaseLost

from .conftest import ready, until


class Holder:
    def where(self) -> tuple[str, str | None, str | None]:
        here = flex.current()
        env = os.environ
        return here.device.id, env.get("CUDA_VISIBLE_DEVICES"), env.get("ASCEND_RT_VISIBLE_DEVICES")


def stop_all(actors: list[Any]) -> None:
    for actor in actors:
        actor.stop()
    until(lambda: all(d.share_held == 0 for d in flex.pool().devices))


@pytest.mark.parametrize(("family", "variable"), [("gpu", 1), ("npu", 2)])
def test_four_actors_of_0_6_run_on_two_nodes_of_two(pool: Any, family: str, variable: int) -> None:
    actors = [flex.actor(**{family: 0.6})(Holder).remote() for _ in range(4)]
    places = flex.get([actor.where.remote() for actor in actors], timeout=60)
    assert sorted(place[0] for place in places) == sorted(ready(flex.pool(), family))
    stop_all(actors)
    assert [place[variable] for place in places] == [place[0][-1] for place in places], "each sees what it is booked on"


def test_twenty_actors_of_0_18_run_at_once(pool: Any) -> None:
    actors = [flex.actor(gpu=0.18)(Holder).remote() for _ in range(20)]
    places = flex.get([actor.where.remote() for actor in actors], timeout=120)
    assert sorted(Counter(place[0] for place in places).values()) == [5, 5, 5, 5]
    assert {d.share_held for d in flex.pool().devices if d.family == "gpu"} == {0.9}
    stop_all(actors)


def test_four_tasks_of_0_6_run_in_one_wave(pool: Any, tmp_path: Path) -> None:
    @flex.task(gpu=0.6)
    def meet(name: str) -> str:
        (tmp_path / name).touch()
        while len(list(tmp_path.iterdir())) < 4:
            time.sleep(0.02)
        return flex.current().device.id

    places = flex.get([meet.remote(f"t{number}") for number in range(4)], timeout=60)  # each waits for the others
    assert sorted(places) == sorted(ready(flex.pool(), "gpu"))


def test_several_devices_of_one_node(pool: Any) -> None:
    @flex.task(gpu=2)
    def both() -> tuple[int, str | None]:
        return len(flex.current().devices), os.environ.get("CUDA_VISIBLE_DEVICES")

    assert both.remote().result(60) == (2, "0,1")
    with pytest.raises(Infeasible, match="4 by count"):
        both.options(gpu=3).remote().result(60)


def test_plain_ray_tasks_never_share_a_pooled_card(pool: Any) -> None:
    import ray

    @ray.remote(num_gpus=1, num_cpus=0)
    def plain() -> int:
        return 1

    waiting = plain.remote()
    assert ray.wait([waiting], timeout=1)[0] == []  # every card belongs to the pool
    ray.cancel(waiting, force=True)


T4_FIRST = flex.Request(throughput={"nvidia/T4": 1.0, "declared/gpu": 0.1})


@dataclass(frozen=True)
class Lost:
    """A node that joined, took work, and died."""

    node: str
    ran_on: str
    plain: flex.Future[str]
    keeping: flex.Future[tuple[str, Any]]
    newest_is_safe: bool
    """Whether all that was kept of ``keeping``, before the node died, was its newest checkpoint, with a copy."""


@flex.task(gpu=0.5, types="nvidia/T4", retries=0)
def on_t4() -> str:
    return flex.current().device.type.name


@flex.task(accelerator=0.1, types=["nvidia/T4", "declared/gpu"], retries=2, request=T4_FIRST)
def stay_on_t4(started: Path) -> str:
    started.touch()
    while flex.current().device.type.name == "nvidia/T4":
        time.sleep(0.05)
    return flex.current().device.type.name


@flex.task(accelerator=0.1, types=["nvidia/T4", "declared/gpu"], retries=2, request=T4_FIRST)
def store_on_t4(stored: Path) -> tuple[str, Any]:
    here = flex.current()
    found = here.restored
    if here.device.type.name == "nvidia/T4":
        for number in range(1, 4):
            here.checkpoint(np.full(300_000, number))
        stored.touch()
        while True:
            time.sleep(0.05)
    return here.device.type.name, None if found is None else set(found.tolist())


@pytest.fixture(scope="module")
def lost(pool: Any, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    folder = tmp_path_factory.mktemp("lost")
    started, stored = folder / "started", folder / "stored"
    before = {node.id for node in flex.pool().nodes}
    added = pool.add_node(num_cpus=4, labels={"flexray.fake": "2xT4"})
    until(lambda: len(flex.pool().nodes) == len(before) + 1)
    ran_on = on_t4.remote().result(60)
    plain, keeping = stay_on_t4.remote(started), store_on_t4.remote(stored)
    until(started.exists)
    until(stored.exists)
    until(lambda: keeping.kept is not None and keeping.kept.safe is not None and keeping.kept.coming is None)
    safe = keeping.kept.references == (keeping.kept.newest,)
    (node,) = {node.id for node in flex.pool().nodes} - before
    pool.remove_node(added, allow_graceful=False)
    return Lost(node, ran_on, plain, keeping, safe)


def test_a_node_that_joins_is_found_and_one_that_leaves_is_dropped(lost: Lost) -> None:
    assert lost.ran_on == "nvidia/T4"
    until(lambda: lost.node not in {node.id for node in flex.pool().nodes}, 60)
    assert all(d.type != "nvidia/T4" for d in flex.pool().devices)
    with pytest.raises(Infeasible):
        on_t4.remote().result(60)


def test_work_of_a_lost_node_runs_again_elsewhere(lost: Lost) -> None:
    assert lost.plain.result(90) == "declared/gpu"


def test_a_checkpoint_outlives_its_node_once_its_copy_has_arrived(lost: Lost) -> None:
    assert lost.newest_is_safe
    assert lost.keeping.result(90) == ("declared/gpu", {3})
    assert lost.keeping.kept is None


def test_a_gang_over_three_nodes_goes_on_with_two_when_one_dies(pool: Any, tmp_path: Path) -> None:
    doomed = pool.add_node(num_cpus=4, num_gpus=1)
    until(lambda: len(ready(flex.pool(), "gpu")) == 5)

    @flex.task(gpu=0.5, gang=flex.Gang(3, least=2, layout="spread"), retries=1)
    def stubborn() -> tuple[str, int, str]:
        here = flex.current()
        found = here.restored
        (tmp_path / f"{here.world_size} {here.rank}").write_text(here.devices[0].id)
        while found is None:
            here.checkpoint("kept", every=0.05)
            time.sleep(0.01)
        return found, here.world_size, os.environ["LOCAL_RANK"]

    future = stubborn.remote()
    places = [tmp_path / f"3 {rank}" for rank in range(3)]
    until(lambda: all(place.exists() and place.read_text() for place in places))
    assert len({place.read_text().split("/")[0] for place in places}) == 3
    until(lambda: future.kept is not None and future.kept.safe is not None)  # rank 0 may be on any of them
    pool.remove_node(doomed, allow_graceful=False)
    assert future.result(90) == [("kept", 2, "0")] * 2
    until(lambda: len(ready(flex.pool(), "gpu")) == 4)


T4_FIRST = flex.Request(throughput={"nvidia/T4": 1.0, "declared/gpu": 0.1})
ANYWHERE = {"accelerator": 0.1, "types": ["nvidia/T4", "declared/gpu"], "request": T4_FIRST}
"""On the node that will die while it is there, else on one of the others."""


@pytest.fixture
def doomed(pool: Any) -> Any:
    """A further node, whose devices are the fastest."""
    node = pool.add_node(num_cpus=4, labels={"flexray.fake": "1xT4"})
    until(lambda: any(d.type == "nvidia/T4" and d.state == "ready" for d in flex.pool().devices))
    return node


def made(marks: Path, fill: float, size: int = 300_000) -> Any:
    with (marks / str(fill)).open("a") as file:
        file.write(f"{flex.current().device.type.name}\n")
    return np.full(size, fill)


def total(*arrays: Any) -> float:
    return float(sum(array.sum() for array in arrays))


def where(marks: Path, fill: float) -> list[str]:
    return (marks / str(fill)).read_text().split()


def test_results_of_a_dead_node_are_made_again(pool: Any, doomed: Any, tmp_path: Path) -> None:
    make = flex.task(**ANYWHERE, retries=1)(made)
    double = flex.task(**ANYWHERE, retries=1)(lambda array: array * 2)
    final = flex.task(**ANYWHERE, retries=0)(made)
    asked, awaited, argument = (make.remote(tmp_path, fill) for fill in (1.0, 2.0, 3.0))
    again = make.remote(tmp_path, 4.0)
    chain = double.remote(again)
    once = final.remote(tmp_path, 5.0)
    flex.wait([asked, awaited, argument, chain, once], num_returns=5, timeout=60)
    assert where(tmp_path, 1.0) == where(tmp_path, 5.0) == ["nvidia/T4"]
    del again  # the chain keeps what it needs
    pool.remove_node(doomed, allow_graceful=False)

    consumer = flex.task(gpu=0.1)(total)
    both = [consumer.remote(argument, chain), consumer.remote(argument)]  # the slices find out that they are lost
    assert flex.get(both, timeout=90) == [3.0 * 300_000 + 8.0 * 300_000, 3.0 * 300_000]
    assert where(tmp_path, 3.0) == ["nvidia/T4", "declared/gpu"], "once for both"
    assert asked.result(60).sum() == 300_000

    async def wait_for(future: Any) -> Any:
        return await future

    assert asyncio.run(wait_for(awaited)).sum() == 600_000
    with pytest.raises(LeaseLost, match=r"node that held it.*retries=0"):
        once.result(60)
    with pytest.raises(LeaseLost, match=r"node that held it.*retries=0"):
        consumer.remote(once).result(60)
    assert where(tmp_path, 1.0) == where(tmp_path, 2.0) == where(tmp_path, 4.0) == ["nvidia/T4", "declared/gpu"]


def test_a_gang_begins_with_an_argument_that_was_lost_and_is_made_again_itself(
    pool: Any, doomed: Any, tmp_path: Path
) -> None:
    argument = flex.task(**ANYWHERE, retries=1)(made).remote(tmp_path, 1.0)

    def add_rank(array: Any) -> Any:
        return array + flex.current().rank

    on_t4 = flex.task(**ANYWHERE, retries=1, gang=2)(add_rank)
    lost = on_t4.remote(np.zeros(300_000))
    flex.wait([argument, lost], num_returns=2, timeout=60)
    pool.remove_node(doomed, allow_graceful=False)
    gang = flex.task(gpu=0.2, retries=1, gang=2)(add_rank).remote(argument)
    assert [part.mean() for part in gang.result(90)] == [1.0, 2.0]
    assert [part.mean() for part in lost.result(90)] == [0.0, 1.0]
