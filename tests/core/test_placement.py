"""Where requests go and why they wait: a table of pools, of what runs there, and of what arrives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import GIB, TYPES, World, node

from flexray.model.devices import Inventory
from flexray.model.events import NodeReported, QueuesConfigured
from flexray.model.isolation import Isolation
from flexray.model.lifecycle import EndReason, FilterReason, WaitReason
from flexray.model.queue import Queue, QueueAmount
from flexray.model.request import Request

Options = dict[str, Any]


@dataclass
class Case:
    """``running`` is placed before ``arriving``; ``expect`` says where what arrives goes, or why it waits."""

    name: str
    nodes: list[Inventory]
    arriving: list[Options]
    expect: list[str]
    running: list[Options] = field(default_factory=list)
    policy: str = "pack"


def gpu(share: float, **options: Any) -> Options:
    return {"gpu": share, **options}


A100, T4 = "nvidia/A100*", "nvidia/T4"
ONE = [node("n1", "1xA100", cpus=4)]
TWO = [node("n1", "2xA100", cpus=4)]
MIXED = [node("a", "1xA100"), node("b", "1xH100 1xT4"), node("c", "1xA10")]
W = WaitReason
CASES = [
    Case("the rest of a device is filled first", TWO, [gpu(0.3), gpu(0.3)], ["n1/gpu0", "n1/gpu1"], [
        gpu(0.7, types=A100), gpu(0.7)]),
    Case("tightest share wins", TWO, [gpu(0.3)], ["n1/gpu1"], [gpu(0.6), gpu(0.7)]),
    Case("tightest memory wins", TWO, [gpu(0.1)], ["n1/gpu1"], [
        gpu(0.5, memory="41GiB"), gpu(0.501, memory="60GiB")]),
    Case("memory alone fills a device", ONE, [gpu(0.1)], [W.NO_ROOM], [gpu(0.1, memory="73GiB")]),
    Case("memory to the last MiB", ONE, [gpu(0.1, memory="1GiB")], ["n1/gpu0"], [gpu(0.1, memory="79GiB")]),
    Case("share to the last thousandth", ONE, [gpu(0.667)], ["n1/gpu0"], [gpu(0.333)]),
    Case("a thousandth too much", ONE, [gpu(0.668, memory="1GiB")], [W.NO_ROOM], [gpu(0.333)]),
    Case("least capable type first", MIXED, [gpu(1)] * 4, ["b/gpu1", "c/gpu0", "a/gpu0", "b/gpu0"]),
    Case("memory asks for a larger type", MIXED, [gpu(0.1, memory="20GiB"), gpu(0.1, memory="30GiB")],
         ["c/gpu0", "a/gpu0"]),
    Case("spread takes the emptiest", TWO, [gpu(0.1)], ["n1/gpu0"], [gpu(0.1), gpu(0.2)], policy="spread"),
    Case("types name a device", MIXED, [gpu(1, types="nvidia/H100")], ["b/gpu0"]),
    Case("types are patterns, any of", MIXED, [gpu(1, types=["nvidia/H*", "nvidia/A100*"])] * 2,
         ["a/gpu0", "b/gpu0"]),
    Case("several devices of one node", [node("n1", "1xA100"), node("n2", "3xA100")], [gpu(2)], ["n2/gpu0,n2/gpu1"]),
    Case("several devices avoid those in use", [node("n1", "3xA100")], [gpu(2)], ["n1/gpu1,n1/gpu2"], [gpu(0.1)]),
    Case("several devices are equal ones", [node("n1", "1xA100 2xT4 1xA100")], [gpu(2), gpu(2)],
         ["n1/gpu1,n1/gpu2", "n1/gpu0,n1/gpu3"]),
    Case("several devices leave larger groups whole", [node("n1", "4xA100"), node("n2", "2xA100")], [gpu(2)],
         ["n2/gpu0,n2/gpu1"]),
    Case("host cores", [node("n1", "1xA100", cpus=4), node("n2", "1xA100", cpus=8)],
         [gpu(0.1, cpus=6), gpu(0.1, cpus=4), gpu(0.1, cpus=3)], ["n2/gpu0", "n1/gpu0", W.HOST_CPUS]),
    Case("host cores are shared by a node's devices", TWO, [gpu(0.1, cpus=1.5)], [W.HOST_CPUS], [
        gpu(0.5, cpus=2), gpu(0.6, cpus=0.6)]),
    Case("asked isolation or stronger",
         [node("n1", "1xA100", isolation=Isolation.FRAMEWORK), node("n2", "1xA100", isolation=Isolation.MIG)],
         [gpu(0.1, request=Request(isolation="mps"))], ["n2/gpu0"]),
    Case("npu", [node("n1", "1xA100 1x910B")], [{"npu": 0.5}, gpu(0.5)], ["n1/npu0", "n1/gpu0"]),
    Case("any accelerator, CPU stand-ins included", [node("n1", "1x910B 1xCPU 1xT4")], [{"accelerator": 1}] * 4,
         ["n1/cpu0", "n1/gpu0", "n1/npu0", W.NO_ROOM]),
    Case("a CPU stands in for an absent gpu", [node("n1", "1xCPU")], [gpu(1), gpu(0.1)], ["n1/cpu0", W.NO_ROOM]),
    Case("a CPU stands in for an absent npu only", [node("n1", "1xCPU 1xT4")], [{"npu": 1}, gpu(1), gpu(1)],
         ["n1/cpu0", "n1/gpu0", W.NO_ROOM]),
    Case("a gpu used by Ray is not absent", [node("n1", "1xCPU 1xT4 unclaimed")], [gpu(1)], [W.USED_BY_RAY]),
    Case("sick devices take nothing", [node("n1", "1xA100 sick 1xT4")], [gpu(1), gpu(1)], ["n1/gpu1", W.DEVICES_SICK]),
    Case("all sick", [node("n1", "1xA100 sick")], [gpu(0.1)], [W.DEVICES_SICK]),
    Case("no devices yet", [], [gpu(0.1)], [W.NO_DEVICES]),
    Case("a node without devices", [node("n1", "", cpus=4)], [gpu(0.1), gpu(2)], [W.NO_DEVICES] * 2),
    Case("fragmented share", TWO, [gpu(0.5)], [W.FRAGMENTED], [gpu(0.6), gpu(0.7)]),
    Case("fragmented node", TWO, [gpu(2)], [W.NO_ROOM], [gpu(0.6)]),
    Case("fragmented over nodes", [node("n1", "2xT4"), node("n2", "2xA10")], [gpu(2)], [W.FRAGMENTED], [
        gpu(0.5, types=T4), gpu(0.4, types="nvidia/A10")]),
    Case("too little memory in total is no fragmentation", TWO, [gpu(0.1, memory="60GiB")], [W.NO_ROOM], [
        gpu(0.1, memory="60GiB"), gpu(0.1, memory="61GiB")]),
    Case("one that does not fit blocks nobody", ONE, [gpu(0.9), gpu(0.4), gpu(0.8)], [W.NO_ROOM, "n1/gpu0", W.NO_ROOM],
         [gpu(0.5)]),
    Case("first come, first served", ONE, [gpu(0.4), gpu(0.7), gpu(0.4)], ["n1/gpu0", W.NO_ROOM, "n1/gpu0"]),
    Case("priority goes first", ONE, [gpu(0.7), gpu(0.7, priority=1)], [W.NO_ROOM, "n1/gpu0"]),
    Case("priority may be below zero", ONE, [gpu(0.7, priority=-1), gpu(0.7)], [W.NO_ROOM, "n1/gpu0"]),
]  # fmt: skip


def _play(case: Case) -> World:
    world = World(*case.nodes, policy=case.policy)
    for at, options in enumerate(case.running):
        world.submit(f"old{at}", **options)
        world.settle()
    assert len(world.leases) == len(case.running)
    for at, options in enumerate(case.arriving):
        world.submit(f"new{at}", **options)
    world.settle()
    return world


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_where_requests_go(case: Case) -> None:
    world = _play(case)
    names = [f"new{at}" for at in range(len(case.arriving))]
    assert [world.placed.get(name) or WaitReason(world.reason(name)) for name in names] == case.expect


def test_every_wait_reason_is_reached() -> None:
    slow = World(*ONE, starts=False, stops=False)
    slow.submit("a", gpu=1)
    slow.settle()
    starting = slow.reason("a")
    slow.started("s1.1")
    slow.settle()
    slow.release("a")
    slow.submit("b", gpu=0.5)
    slow.settle()
    new = World(*ONE)
    new.submit("c", gpu=0.5)
    fast = World(node("a", "1xA100"), node("t", "1xT4"), policy="balanced")
    for name in ("d", "e"):
        fast.submit(name, gpu=1, request=Request(runtime=100.0))
        fast.settle()
    capped = World(*ONE)
    capped.apply(QueuesConfigured((Queue("default", limit=QueueAmount(devices=0)),)))
    capped.submit("f", gpu=1)
    capped.settle()
    ganged = World(node("n1", "2xA100"), starts=False)
    ganged.submit("g", gpu=1, gang=2)
    ganged.settle()
    ganged.started(ganged.starting[0])
    given_back = World(node("n1", "1xA100 released"))
    given_back.submit("h", gpu=1)
    given_back.settle()
    reached = {
        starting,
        ganged.reason("g.0"),
        slow.reason("b"),
        new.reason("c"),
        fast.reason("e"),
        capped.reason("f"),
        given_back.reason("h"),
    } | {e.value for case in CASES for e in case.expect if e in set(WaitReason)}
    assert reached == {reason.value for reason in WaitReason}


@pytest.mark.parametrize(
    ("nodes", "per_node", "count", "option", "share", "devices_used"),
    [
        (2, "2xA100", 4, "gpu", 0.6, 4),
        (2, "2x910B", 4, "npu", 0.6, 4),
        (2, "2xA100", 20, "gpu", 0.18, 4),
        (2, "8xA100", 80, "gpu", 0.18, 16),
        (1, "3xT4", 9, "gpu", 0.333, 3),
        (1, "1xT4", 100, "gpu", 0.01, 1),
        (2, "2xCPU", 4, "gpu", 0.6, 4),
    ],
)
def test_exact_fit(nodes: int, per_node: str, count: int, option: str, share: float, devices_used: int) -> None:
    world = World(*(node(f"n{i}", per_node) for i in range(nodes)))
    for at in range(count):
        world.submit(f"r{at}", **{option: share}, memory="16MiB")
    world.decide()
    assert len(world.starting) == count, "all in one cycle"
    world.settle()
    assert len(world.leases) == count
    assert len(set(world.placed.values())) == devices_used


@pytest.mark.parametrize(
    ("device", "options", "memory"),
    [
        ("1xA100", gpu(0.25), 20 * GIB),
        ("1xT4", gpu(0.333), 16 * GIB * 333 // 1000),
        ("1xT4", gpu(1), 16 * GIB),
        ("2xT4", gpu(2), 16 * GIB),
        ("1xA100", gpu(0.25, memory="1GiB"), GIB),
        ("2xA100", gpu(2, memory="1GiB"), GIB),
    ],
)
def test_granted_memory(device: str, options: Options, memory: int) -> None:
    world = World(node("n1", device))
    world.submit("r", **options)
    world.settle()
    lease = world.leases["r"]
    assert (lease.placement.memory, lease.device_type) == (memory, TYPES[device[2:]][0].name)
    assert sum(d.memory_held for d in world.snapshot().devices) == memory * len(lease.placement.devices)


def test_granted_isolation_is_the_devices() -> None:
    world = World(node("n1", "1xA100", isolation=Isolation.HAMI))
    world.submit("r", gpu=0.1, request=Request(isolation="framework"))
    world.settle()
    assert world.leases["r"].isolation is Isolation.HAMI


MANY = [
    node("a", "3xA100 1xCPU", cpus=4, isolation=Isolation.FRAMEWORK),
    node("b", "2xT4 1x910B", cpus=64, isolation=Isolation.MPS),
]


@pytest.mark.parametrize(
    ("options", "removed"),
    [
        (gpu(1, types="amd/*"), {"family": 2, "type": 5}),
        (gpu(0.1, memory="81GiB"), {"family": 2, "memory": 5}),
        (gpu(1, types=T4, memory="17GiB"), {"family": 2, "type": 3, "memory": 2}),
        (gpu(1, types=A100, request=Request(isolation="mps")), {"family": 2, "type": 2, "isolation": 3}),
        (gpu(1, request=Request(isolation="mig")), {"family": 2, "isolation": 5}),
        (gpu(1, cpus=65), {"family": 2, "cpus": 5}),
        (gpu(1, types=A100, cpus=5), {"family": 2, "type": 2, "cpus": 3}),
        (gpu(4), {"family": 2, "count": 5}),
        (gpu(3, memory="20GiB", cpus=5), {"family": 2, "memory": 2, "cpus": 3}),
        ({"npu": 2}, {"family": 6, "count": 1}),
        ({"npu": 1, "types": "cpu/*"}, {"family": 6, "type": 1}),
        ({"accelerator": 1, "memory": "1TiB"}, {"memory": 7}),
    ],
)
def test_infeasible_counts_what_each_reason_removed(options: Options, removed: dict[str, int]) -> None:
    world = World(*MANY)
    world.submit("r", **options)
    world.settle()
    failure = world.failed["r"]
    assert failure.reason is EndReason.INFEASIBLE
    assert dict(failure.removed) == removed
    assert set(removed) <= {reason.value for reason in FilterReason}
    assert sum(removed.values()) == 7
    assert "fits none of the pool's 7 devices" in failure.message and "nvidia/T4" in failure.message
    assert [word for word in removed if f"{removed[word]} by {word}" not in failure.message] == []
    assert world.explain("r") is None


def test_infeasible_depends_on_the_inventory_of_the_moment() -> None:
    world = World()
    world.submit("early", types="nvidia/H100", gpu=1)
    world.settle()
    assert world.reason("early") == "no_devices"
    world.apply(NodeReported(node("n1", "1xT4")))
    world.settle()
    assert dict(world.failed["early"].removed) == {"type": 1}
    world.apply(NodeReported(node("n2", "1xH100")))
    world.submit("late", types="nvidia/H100", gpu=1)
    world.settle()
    assert world.placed == {"late": "n2/gpu0"}


def test_a_queued_request_becomes_infeasible_when_its_devices_leave() -> None:
    world = World(node("n1", "1xA100"), node("n2", "1xT4"))
    world.submit("holder", types=A100, gpu=1)
    world.settle()
    world.submit("r", types=A100, gpu=0.5)
    world.settle()
    world.apply(NodeReported(node("n1", "")))
    world.settle()
    assert dict(world.failed["r"].removed) == {"type": 1}


def test_unknown_queue() -> None:
    world = World(*ONE)
    world.submit("r", gpu=1, queue="prod")
    world.settle()
    assert world.failed["r"].reason is EndReason.UNKNOWN_QUEUE
    assert "'prod'" in world.failed["r"].message and "default" in world.failed["r"].message


def _renamed(inventories: list[Inventory], names: dict[str, str]) -> list[Inventory]:
    return [
        dataclasses.replace(
            inv,
            node=names[inv.node],
            devices=tuple(
                dataclasses.replace(d, node=names[d.node], id=d.id.replace(d.node, names[d.node], 1))
                for d in inv.devices
            ),
        )
        for inv in inventories
    ]


def _fill(inventories: list[Inventory]) -> list[str]:
    """Devices of a mixed load, in the order it was submitted."""
    world = World(*inventories)
    shares = [0.5, 1, 0.3, 2, 0.7, 0.2, 2, 0.6, 1, 0.25, 0.9]
    for at, share in enumerate(shares):
        world.submit(f"r{at}", gpu=share)
        world.settle()
    return [world.placed.get(f"r{at}", "") for at in range(len(shares))]


POOL = [node("n1", "2xA100 2xT4"), node("n2", "2xA100 2xT4"), node("n3", "3xA10"), node("n4", "2xT4 2xA100")]


def test_ties_do_not_depend_on_the_order_of_arrival() -> None:
    backwards = [dataclasses.replace(inv, devices=inv.devices[::-1]) for inv in POOL[::-1]]
    assert _fill(POOL) == _fill(POOL[::-1]) == _fill(backwards)


def test_ties_do_not_depend_on_what_has_left() -> None:
    world = World(node("n0", "4xA100"), *POOL)
    world.apply(NodeReported(node("n0", "")))
    for at in range(3):
        world.submit(f"r{at}", gpu=2)
    world.settle()
    fresh = World(*POOL)
    for at in range(3):
        fresh.submit(f"r{at}", gpu=2)
    fresh.settle()
    assert world.placed == fresh.placed


def test_names_decide_only_ties() -> None:
    """Other names: the same kinds of devices in the same order, filled alike."""
    kind = {d.id: d.type.name for inv in POOL for d in inv.devices}
    names = {"n1": "zeta", "n2": "alpha", "n3": "mid", "n4": "0"}
    renamed = _renamed(POOL, names)
    kind |= {d.id: d.type.name for inv in renamed for d in inv.devices}
    one, other = _fill(POOL), _fill(renamed)
    assert [[kind[d] for d in where.split(",") if d] for where in one] == [
        [kind[d] for d in where.split(",") if d] for where in other
    ]
    back = {new: old for old, new in names.items()}
    assert [w.replace(w.split("/")[0], back.get(w.split("/")[0], "")) for w in other] != one, "no tie was decided"


def test_ties_are_not_in_the_order_of_names() -> None:
    world = World(*(node(f"n{i:02}", "1xT4") for i in range(12)))
    for at in range(12):
        world.submit(f"r{at}", gpu=1)
    world.settle()
    order = list(world.placed.values())
    assert len(set(order)) == 12 and order != sorted(order) and order != sorted(order)[::-1]
