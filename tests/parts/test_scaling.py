"""When nodes are asked for, claimed again and given back; Ray's side of it is in tests/cluster/test_autoscaler.py."""

from __future__ import annotations

from collections import Counter

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.scaling import Bundle
from flexray.model import events
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import Device, DeviceState, DeviceType, Family, Inventory
from flexray.model.request import request_from_options
from flexray.runtime.scaling import Scaler

T4 = "nvidia/T4"


class Nodes:
    """What is asked of the cluster's nodes."""

    head = "head"

    def __init__(self) -> None:
        self.given_back: frozenset[str] = frozenset()

    def release(self, node: str) -> None:
        self.given_back |= {node}

    def claim(self, node: str) -> None:
        self.given_back -= {node}


class World:
    """A core with nodes, and what scales it."""

    def __init__(self) -> None:
        config = PoolConfig.model_validate(
            {"scaling": {"nodes": [{"type": T4}], "wait_seconds": 5, "idle_seconds": 60}}
        )
        assert config.scaling is not None
        self.core, self.now, self.nodes = build_scheduler(config), 0.0, Nodes()
        self.scaler = Scaler(config.scaling, self.core.state, self.nodes, self.apply)
        self.apply(events.SessionOpened("S", "E"))
        self.report("head", 1)

    def apply(self, event: events.Event) -> None:
        self.core.apply(event, self.now)

    def report(self, node: str, count: int, kind: str = T4, state: DeviceState = DeviceState.READY) -> None:
        made = DeviceType(kind, MemoryMiB(16 * 1024))
        devices = [Device(f"{node}/gpu{i}", node, i, made, Family.GPU, "fake", state=state) for i in range(count)]
        self.apply(events.NodeReported(Inventory(node, node, tuple(devices))))

    def submit(self, name: str) -> None:
        self.apply(events.RequestSubmitted(name, "S", "E", "f", request_from_options({"gpu": 1})))

    def look(self, seconds: float) -> Counter[Bundle]:
        self.now += seconds
        self.core.decide(self.now)
        return self.scaler.look()

    def states(self, node: str) -> set[str]:
        return {d.state.value for d in self.core.state.pool.devices.values() if d.node == node}


def count(wanted: Counter[Bundle]) -> int:
    return sum(wanted.values())


def test_a_node_is_asked_for_until_its_device_is_there() -> None:
    world = World()
    world.submit("a")
    world.submit("b")
    assert count(world.look(1)) == 0  # a has the device of the head; b has not waited for long
    assert count(world.look(5)) == 1
    world.report("n1", 1, state=DeviceState.UNCLAIMED)
    assert count(world.look(1)) == 0  # it is about to be claimed
    assert count(world.look(70)) == 1  # plain Ray has it, it seems
    world.report("n1", 1)
    assert count(world.look(1)) == 0


def test_an_idle_node_is_given_back_once_and_the_head_never() -> None:
    world = World()
    world.report("n1", 2)
    world.look(1)
    world.look(50)
    assert world.nodes.given_back == frozenset() and world.states("n1") == {"ready"}
    world.look(20)
    assert world.nodes.given_back == {"n1"} and world.states("n1") == {"released"}
    world.look(100)
    assert world.states("head") == {"ready"}


def test_what_was_given_back_is_claimed_again_when_it_is_needed() -> None:
    world = World()
    world.report("n1", 1)
    world.look(1)
    world.look(61)
    assert world.states("n1") == {"released"}
    world.submit("a")
    world.submit("b")
    assert count(world.look(1)) == 0 and world.nodes.given_back == {"n1"}
    assert count(world.look(5)) == 0 and world.nodes.given_back == frozenset()
    world.report("n1", 1, state=DeviceState.UNCLAIMED)
    assert count(world.look(1)) == 0
    world.report("n1", 1)
    world.look(1)
    assert all(request.slice for request in world.core.state.requests.values())


def test_a_node_that_is_used_in_between_is_not_idle() -> None:
    world = World()
    world.report("n1", 1)
    world.look(1)
    world.submit("a")
    world.submit("b")
    world.look(50)
    world.look(50)
    assert world.nodes.given_back == frozenset()


def test_a_node_that_leaves_is_forgotten() -> None:
    world = World()
    world.report("n1", 1)
    world.look(1)
    world.look(61)
    world.apply(events.NodeLost("n1"))
    world.submit("a")
    world.submit("b")
    world.look(1)
    assert count(world.look(5)) == 1


def test_a_kind_of_node_that_brings_something_else_is_not_asked_for_again() -> None:
    world = World()
    world.submit("a")
    world.submit("b")
    world.look(1)
    bundle = next(iter(world.look(5)))
    world.report("n1", 1)
    world.scaler.came(bundle, "n1")
    assert world.scaler.notes == []
    world.apply(events.NodeLost("n1"))
    world.report("n2", 1, kind="nvidia/K80")
    world.submit("c")
    world.scaler.came(bundle, "n2")
    assert "node n2, which came, has nvidia/K80" in world.scaler.notes[0]
    world.submit("d")
    world.look(1)
    assert count(world.look(10)) == 0


def test_nothing_is_done_while_a_new_scheduler_finds_out_what_there_is() -> None:
    world = World()
    world.report("n1", 1)
    world.look(1)
    world.apply(events.RecoveryBegan())
    assert count(world.look(100)) == 0 and world.nodes.given_back == frozenset()
