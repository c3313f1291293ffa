"""Large results whose node dies are made again, for who asks and for whom they are an argument."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexray as flex
from flexray.errors import LeaseLost

from .conftest import until

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
