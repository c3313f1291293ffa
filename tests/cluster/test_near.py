"""Large arguments on two nodes: which nodes the scheduler is told they are on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray as flex

from .conftest import until

Near = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Near]]:
    """A head with T4s and a node with A10s, as type -> node; and what the requests of a function said."""
    import ray
    from ray.cluster_utils import Cluster

    journal = tmp_path_factory.mktemp("near") / "journal.jsonl"
    head = {"num_cpus": 2, "include_dashboard": False, "labels": {"flexray.fake": "2xT4"}}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=2, labels={"flexray.fake": "2xA10"})
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    flex.init(config={"journal": str(journal)})
    until(lambda: len(flex.pool().devices) == 4, 60)
    yield {device.type: device.node for device in flex.pool().devices}, lambda name: requests(journal, name)
    flex.shutdown()
    ray.shutdown()
    made.shutdown()


def requests(journal: Path, name: str) -> list[Any]:
    """``near`` of the requests of a function's class, as the scheduler's journal has them."""
    events = [json.loads(line).get("event", {}) for line in journal.read_text().splitlines()]
    submitted = [event for event in events if event.get("kind") == "RequestSubmitted"]
    return [event.get("near", []) for event in submitted if f"{name}/" in event["task_class"]]


def known(reference: Any) -> bool:
    """Whether Ray has told this process, which owns the object, where it is: that comes a little after its value."""
    from ray.experimental.locations import get_local_object_locations

    return bool(get_local_object_locations([reference])[reference]["node_ids"])


def make(mebibytes: float) -> Any:
    import numpy

    return numpy.zeros(int(mebibytes * 2**20), dtype="uint8")


def test_a_future_of_a_large_result_names_the_node_that_made_it(nodes: tuple[dict[str, str], Near]) -> None:
    on, near = nodes

    @flex.task(gpu=0.5)
    def takes(array: Any, *more: Any) -> int:
        return sum(len(one) for one in (array, *more))

    maker = flex.task(gpu=0.5)(make)
    large, small = maker.options(types="nvidia/A10").remote(8), maker.options(types="nvidia/T4").remote(0.5)
    until(lambda: known(large.object_ref(60)))
    assert takes.remote(large, small).result(60) == 8.5 * 2**20
    (told,) = near("takes")
    assert [on["nvidia/A10"], 8] in told  # the other node may have a copy by then
    assert {mib for _, mib in told} == {8}, "what is small counts nothing"


def test_a_task_without_such_arguments_names_none(nodes: tuple[dict[str, str], Near]) -> None:
    _, near = nodes

    @flex.task(gpu=0.5)
    def plain(number: int) -> int:
        return number

    assert plain.remote(1).result(60) == 1
    assert near("plain") == [[]]


def test_an_object_of_ray_and_an_actors_model_name_the_node_of_this_process(
    nodes: tuple[dict[str, str], Near],
) -> None:
    import ray

    _, near = nodes
    here = ray.get_runtime_context().get_node_id()

    @flex.task(gpu=0.5)
    def refers(array: Any) -> int:
        return len(array)

    @flex.actor(gpu=0.5)
    class Holds:
        def __init__(self, array: Any) -> None:
            self.size = len(array)

        def size_of(self) -> int:
            return self.size

    assert refers.remote(ray.put(make(3))).result(60) == 3 * 2**20
    actor = Holds.remote(make(2))
    assert actor.size_of.remote().result(60) == 2 * 2**20
    actor.stop()
    assert near("refers") == [[[here, 3]]]
    assert near("Holds") == [[[here, 2]]]
