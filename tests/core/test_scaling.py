"""What those who wait lack of nodes that can be added, and what is given back."""

from __future__ import annotations

from typing import Any

import pytest
from harness import World, node

from flexray.core.scaling import idle_nodes, lacking
from flexray.errors import UsageError
from flexray.model import events
from flexray.model.lifecycle import EndReason
from flexray.queue_file import parse_queues

A100 = {"type": "nvidia/A100-80GB", "devices": 4, "labels": {"kind": "a100"}}
T4 = {"type": "nvidia/T4", "devices": 1, "cpus": 8}


def world(*nodes: Any, kinds: tuple[dict[str, Any], ...] = (T4, A100), **config: Any) -> World:
    return World(*nodes, scaling={"nodes": kinds}, **config)


def asked(world: World, waited: float = 0, coming: tuple[str, ...] = ()) -> list[tuple[str, int, int]]:
    """What nodes are to be added for, as (type, devices, cores)."""
    lack = lacking(world.scheduler.state, waited, coming)
    return [(bundle.node.type.name, bundle.devices, bundle.cpus) for bundle in lack.bundles]


def test_what_no_node_has_waits_for_one_that_can_come() -> None:
    w = world(node("n1", "1xA10"))
    w.submit("r", gpu=1, types="nvidia/T4")
    w.settle()
    assert not w.failed and w.reason("r") == "scaling"
    assert asked(w) == [("nvidia/T4", 1, 0)]
    w.apply(events.NodeReported(node("n2", "1xT4")))
    w.settle()
    assert w.leases["r"].placement.node == "n2" and asked(w) == []


def test_it_is_infeasible_where_neither_is_there_nor_can_come_what_it_needs() -> None:
    w = world(node("n1", "1xA10"))
    w.submit("type", gpu=1, types="nvidia/H100")
    w.submit("memory", gpu=0.5, memory="100GiB")
    w.submit("cores", gpu=1, types="nvidia/T4", cpus=16)
    w.submit("count", gpu=8)
    w.submit("gang", gpu=1, types="nvidia/H100", gang=2)
    w.settle()
    assert {name: one.reason for name, one in w.failed.items()} == dict.fromkeys(
        ("type", "memory", "cores", "count", "gang"), EndReason.INFEASIBLE
    )
    assert asked(w) == []


def test_parts_are_put_together_and_several_devices_are_of_one_node() -> None:
    w = world(node("n1"), kinds=(A100,))
    for number in range(6):
        w.submit(f"half{number}", gpu=0.5)
    w.submit("three", gpu=3)
    w.submit("small", gpu=0.5)
    w.settle()
    # four on one node, of which one is left for nobody who wants three; these are on another
    assert sorted(asked(w)) == [("nvidia/A100-80GB", 1, 0)] * 4 + [("nvidia/A100-80GB", 3, 0)]


def test_cores_go_with_the_device_they_are_beside() -> None:
    w = world(node("n1"))
    w.submit("a", gpu=0.5, cpus=2)
    w.submit("b", gpu=0.5, cpus=3)
    w.submit("c", gpu=0.5, cpus=4)
    w.settle()
    assert asked(w) == [("nvidia/T4", 1, 5000), ("nvidia/T4", 1, 4000)]


def test_only_who_has_waited_long_and_may_have_more_asks() -> None:
    queues = [{"name": "a", "limit": 1}, {"name": "b"}]
    w = world(node("n1", "1xT4"), kinds=(T4,))
    w.apply(events.QueuesConfigured(parse_queues({"queues": queues})))
    w.submit("first", gpu=1, queue="a")
    w.settle()
    w.submit("limited", gpu=1, queue="a")
    w.wait(1)
    w.submit("free", gpu=1, queue="b")
    w.settle()
    assert asked(w) == [("nvidia/T4", 1, 0)] and asked(w, waited=4) == []
    w.wait(4)
    assert asked(w, waited=4) == [("nvidia/T4", 1, 0)]


def test_a_gang_asks_for_the_members_that_lack() -> None:
    w = world(node("n1", "2xA100 1xT4"), kinds=(T4, A100))
    w.submit("g", gpu=1, gang=5)
    w.settle()
    assert asked(w) == [("nvidia/A100-80GB", 1, 0)] * 3


def test_released_devices_take_nothing_and_are_claimed_again_before_a_node_is_asked_for() -> None:
    w = world(node("n1", "1xT4 released 1xT4 released"))
    w.submit("a", gpu=1)
    w.submit("b", gpu=1)
    w.submit("c", gpu=1)
    w.settle()
    lack = lacking(w.scheduler.state, 0, ())
    assert not w.leases and w.reason("a") == "scaling"
    assert lack.nodes == ("n1",) and [one.devices for one in lack.bundles] == [1]
    w.apply(events.NodeReported(node("n1", "1xT4 unclaimed 1xT4 unclaimed")))
    assert len(asked(w, coming=("n1",))) == 1 and len(asked(w)) == 3
    w.apply(events.NodeReported(node("n1", "2xT4")))
    w.settle()
    assert set(w.leases) == {"a", "b"} and len(asked(w)) == 1


def test_nodes_are_idle_when_nothing_is_on_them() -> None:
    w = world(node("n1", "1xT4"), node("n2", "1xA100"), node("n3", "1xT4 sick"), node("n4", cpus=4))
    w.submit("r", gpu=1, types="nvidia/T4")
    w.settle()
    assert idle_nodes(w.scheduler.state) == ["n2", "n4"]


def test_an_idle_slice_is_not_on_a_node_for_ever() -> None:
    w = world(node("n1", "1xT4"), warm_seconds=10)
    w.submit("r", gpu=1)
    w.settle()
    w.release("r")
    w.wait(1)
    assert idle_nodes(w.scheduler.state) == []
    w.wait(11)
    assert idle_nodes(w.scheduler.state) == ["n1"]


def test_where_accelerators_can_come_no_stand_in_takes_their_work() -> None:
    w = world(node("n1", "1xCPU"))
    w.submit("gpu", gpu=1)
    w.submit("any", accelerator=1)
    w.settle()
    assert set(w.leases) == {"any"} and w.reason("gpu") == "scaling"


def test_without_the_setting_nothing_can_come() -> None:
    w = World(node("n1", "1xA10"))
    w.submit("r", gpu=1, types="nvidia/T4")
    w.settle()
    assert w.failed["r"].reason is EndReason.INFEASIBLE and asked(w) == []


def test_stand_ins_are_nothing_an_autoscaler_adds() -> None:
    with pytest.raises(UsageError, match="no accelerator that Ray counts"):
        world(kinds=({"type": "cpu/x86_64"},))
