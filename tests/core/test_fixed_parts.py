"""Devices that are cut into fixed parts: what is granted, where it is put, and that no two share a place."""

from __future__ import annotations

from typing import Any

import pytest
from harness import World, node

from flexray.catalog import profiles_of
from flexray.core.fixed_parts import Places, best_span, spans_of
from flexray.model.commands import RecallLease, StopSlice
from flexray.model.events import LeaseYielded, NodeReported, QueuesConfigured
from flexray.model.lifecycle import FilterReason, WaitReason
from flexray.model.queue import Queue, QueueAmount
from flexray.model.request import Request

A100 = profiles_of("nvidia/A100-40GB")
NAMES = {part.name: part for part in A100}
MOVES = Request(preemptible=True, checkpoint_every=1.0)


class Cut(World):
    """A world of which is known who asked."""

    def __init__(self, what: str, **config: Any) -> None:
        self.asked: list[str] = []
        super().__init__(node("n1", what, cpus=8), **config)

    def end(self, *starts: int) -> None:
        """The leases of the parts that begin there are over, and their slices have gone."""
        there = {lease.placement.start: name for name, lease in self.leases.items()}
        for start in starts:
            self.release(there[start])
        self.wait(self.scheduler.state.options.warm_seconds)


def world(what: str = "1xMIG", **config: Any) -> Cut:
    return Cut(what, **{"warm_seconds": 60, **config})


def fill(there: Cut, *shares: float, **options: Any) -> list[str]:
    """Requests one after the other, each of a class of its own; what became of each, as ``3g.20gb@4`` or a reason."""
    first = len(there.asked)
    names = [f"r{number}" for number in range(first, first + len(shares))]
    there.asked += names
    for name, share in zip(names, shares, strict=True):
        there.submit(name, gpu=share, task_class=f"class {name}", **options)
        there.settle()
    return [at(there, name) for name in names]


def at(there: World, name: str) -> str:
    lease = there.leases.get(name)
    if lease is None:
        return there.reason(name)
    return f"{lease.placement.profile}@{lease.placement.start}"


@pytest.mark.parametrize(
    ("what", "asked", "granted"),
    [
        ("1xMIG", {"gpu": 0.1}, (142, 5120, "1g.5gb", 6)),
        ("1xMIG", {"gpu": 0.143}, (142, 5120, "1g.5gb", 6)),  # one of seven, as it is written
        ("1xMIG", {"gpu": 0.144}, (285, 10240, "2g.10gb", 4)),
        ("1xMIG", {"gpu": 0.142}, (142, 5120, "1g.5gb", 6)),  # a seventh of the device's memory is more than a part has
        ("1xMIG", {"gpu": 0.1, "memory": "5GiB"}, (142, 5120, "1g.5gb", 6)),
        ("1xMIG", {"gpu": 0.1, "memory": "6GiB"}, (142, 10240, "1g.10gb", 6)),
        ("1xMIG", {"gpu": 0.1, "memory": "12GiB"}, (428, 20480, "3g.20gb", 4)),
        ("1xMIG", {"gpu": 0.5}, (571, 20480, "4g.20gb", 0)),
        ("1xMIG", {"gpu": 0.6}, (1000, 40960, "7g.40gb", 0)),
        ("1xMIG", {"gpu": 1}, (1000, 40960, "7g.40gb", 0)),
        ("1xMIG", {"gpu": 1, "memory": "1GiB"}, (1000, 40960, "7g.40gb", 0)),
        ("2xMIG", {"gpu": 2}, (1000, 40960, "7g.40gb", 0)),
        ("1xvNPU", {"npu": 0.25}, (250, 16384, "vir05_1c_16g", -1)),
        ("1xvNPU", {"npu": 0.3}, (500, 32768, "vir10_3c_32g", -1)),
        ("1xvNPU", {"npu": 0.1, "memory": "20GiB"}, (500, 32768, "vir10_3c_32g", -1)),
        ("1xvNPU", {"npu": 1}, (1000, 65536, "", -1)),
        ("2xvNPU", {"npu": 2}, (1000, 65536, "", -1)),
    ],
)
def test_what_is_granted(what: str, asked: dict[str, Any], granted: tuple[object, ...]) -> None:
    there = world(what)
    there.submit("a", **asked)
    there.settle()
    place = there.leases["a"].placement
    assert (place.share, place.memory, place.profile, place.start) == granted
    (device, *_) = there.snapshot().devices
    assert (round(device.share_held * 1000), device.memory_held) == granted[:2]


@pytest.mark.parametrize(
    ("what", "asked", "reason"),
    [
        ("1xvNPU", {"npu": 0.6}, FilterReason.PROFILE),
        ("1xMIG", {"gpu": 0.1, "memory": "41GiB"}, FilterReason.MEMORY),
        ("1xvNPU", {"npu": 0.1, "memory": "40GiB"}, FilterReason.MEMORY),
        ("1xvNPU", {"npu": 0.6, "memory": "40GiB"}, FilterReason.PROFILE),
    ],
)
def test_what_no_part_is_large_enough_for(what: str, asked: dict[str, Any], reason: FilterReason) -> None:
    there = world(what)
    there.submit("a", **asked)
    there.settle()
    assert there.failed["a"].removed == ((reason.value, 1),)


@pytest.mark.parametrize(
    ("free", "part", "start"),
    [
        ((0, 1, 2, 3, 4, 5, 6, 7), "1g.5gb", 6),  # the whole left half stays, and two of 2g
        ((0, 1, 2, 3, 4, 5, 7), "1g.5gb", 5),
        ((0, 1, 2, 3, 7), "1g.5gb", 3),
        ((0, 1, 2, 3, 4, 5, 6, 7), "2g.10gb", 4),
        ((0, 1, 2, 3, 4, 5, 6, 7), "3g.20gb", 4),  # the only place of 4g stays
        ((1, 2, 3, 4, 5, 6, 7), "3g.20gb", 4),  # after a 1g at 0
        ((1, 2, 3), "3g.20gb", None),
        ((1, 2, 3, 4, 5, 6, 7), "4g.20gb", None),
        ((0, 1, 2, 3), "4g.20gb", 0),
        ((2, 3, 4, 5), "3g.20gb", None),  # four free ones, but no beginning
        ((1, 2), "1g.10gb", None),
        ((6, 7), "1g.10gb", 6),
        ((6, 7), "2g.10gb", None),
        ((7,), "1g.5gb", None),
        ((0, 1, 2, 3, 4, 5, 6, 7), "7g.40gb", 0),
    ],
)
def test_where_a_part_goes(free: tuple[int, ...], part: str, start: int | None) -> None:
    span = best_span(A100, spans_of(NAMES[part]), Places(sum(1 << place for place in free)))
    assert span == (((1 << NAMES[part].width) - 1) << start if start is not None else 0)


def test_a_part_waits_for_as_little_as_it_can() -> None:
    everything, left, right = 0xFF, 0x0F, 0xF0
    spans = spans_of(NAMES["3g.20gb"])
    assert best_span(A100, spans, Places(everything, held=right)) == left
    assert best_span(A100, spans, Places(everything, held=0x10, warm=left)) == left
    assert best_span(A100, spans, Places(everything, warm=right)) == left
    assert best_span(A100, spans, Places(everything, warm=0x21)) == right  # as many: what leaves most


CASES = [
    ([1 / 7] * 8, ["1g.5gb@6", "1g.5gb@5", "1g.5gb@4", "1g.5gb@3", "1g.5gb@2", "1g.5gb@1", "1g.5gb@0", "no_room"]),
    ([0.4, 0.4, 0.1], ["3g.20gb@4", "3g.20gb@0", "no_room"]),  # a seventh is left, and neither memory nor a place
    ([0.4, 0.5, 0.001], ["3g.20gb@4", "4g.20gb@0", "no_room"]),
    ([0.5, 0.5], ["4g.20gb@0", "no_room"]),
    ([0.14, 0.4, 0.4], ["1g.5gb@6", "3g.20gb@0", "no_room"]),
    ([0.28, 0.28, 0.28, 0.14], ["2g.10gb@4", "2g.10gb@2", "2g.10gb@0", "1g.5gb@6"]),
    ([0.1, 1], ["1g.5gb@6", "no_room"]),
]


@pytest.mark.parametrize(("shares", "expect"), CASES)
def test_parts_side_by_side(shares: list[float], expect: list[str]) -> None:
    assert fill(world(), *shares) == [e if "@" in e else WaitReason(e).value for e in expect]


def test_all_room_comes_back() -> None:
    there = world()
    assert fill(there, 0.4, 0.25, 0.14) == ["3g.20gb@4", "2g.10gb@2", "1g.5gb@1"]
    there.end(4, 2, 1)
    assert [(d.share_free, d.memory_free) for d in there.snapshot().devices] == [(1.0, 40960)]
    assert fill(there, 1) == ["7g.40gb@0"]


def test_why_a_part_waits_is_said_in_its_own_terms() -> None:
    there = world()
    fill(there, *[1 / 7] * 7)
    there.end(0, 1, 3, 4, 6)
    assert fill(there, 0.4) == ["fragmented"]
    found = there.explain(there.asked[-1])
    assert found is not None
    assert found.needs == (
        "a slice that is in the way of its part has to end; nearest is n1/gpu0 (nvidia/A100-40GB): "
        "6 of 8 places are free, and 3g.20gb fits nowhere between what runs there"
    )


def test_only_idle_slices_in_the_way_are_stopped() -> None:
    there = world(stops=False)
    fill(there, *[1 / 7] * 7)
    where = {there.leases[name].slice: there.leases[name].placement.start for name in there.leases}
    for name in list(there.leases):
        there.release(name)
    there.submit("large", gpu=0.4)
    stopped = [command.slice for command in there.settle() if isinstance(command, StopSlice)]
    assert sorted(where[name] for name in stopped) == [4, 5, 6]
    # what is promised is nobody else's, whatever comes free first
    there.submit("small", gpu=0.3, types="nvidia/*")
    there.settle()
    for name in list(there.stopping):
        there.ended(name)
    there.settle()
    assert at(there, "large") == "3g.20gb@4"
    assert at(there, "small") in ("making_room", "3g.20gb@0")


def test_leases_in_the_way_are_asked_back_and_no_others() -> None:
    there = world(lease_term_seconds=5)
    fill(there, *[1 / 7] * 7)
    there.submit("large", gpu=0.5)
    commands = there.wait(6) + there.wait(6)
    recalled = {command.lease.request for command in commands if isinstance(command, RecallLease)}
    assert sorted(there.leases[name].placement.start for name in recalled) == [0, 1, 2, 3]
    for name in recalled:
        there.release(name)
        there.settle()
    assert at(there, "large") == "4g.20gb@0"


def test_work_moves_for_a_part_that_fits_nowhere() -> None:
    there = world(lease_term_seconds=1000, rematch_seconds=0)
    fill(there, *[1 / 7] * 7, request=MOVES)
    there.apply(NodeReported(node("n2", "1xMIG", cpus=8)))
    fill(there, *[1 / 7] * 7, request=MOVES)
    there.end(0, 1, 3)  # of n2, which was filled last
    assert {lease.placement.start for lease in there.leases.values() if lease.placement.node == "n2"} == {2, 4, 5, 6}
    there.wait(10)
    names = {(lease.placement.node, lease.placement.start): name for name, lease in there.leases.items()}
    there.release(names["n1", 0])
    there.wait(60)
    assert fill(there, 0.4) == ["fragmented"]
    commands = there.wait(2)
    evicted = [command.lease.request for command in commands if isinstance(command, RecallLease)]
    assert evicted == [names["n2", 2]]  # the only one in the way of 0 to 3; it goes to n1
    there.apply(LeaseYielded(there.leases.pop(evicted[0]).lease))
    there.settle()
    assert at(there, there.asked[-1]) == "3g.20gb@0"
    assert there.leases[evicted[0]].placement.node == "n1" and at(there, evicted[0]) == "1g.5gb@0"


def test_a_gang_fits_by_places() -> None:
    there = world("2xMIG")
    there.submit("g", gpu=0.4, gang=4)
    there.settle()
    assert sorted(at(there, f"g.{member}") for member in range(4)) == ["3g.20gb@0"] * 2 + ["3g.20gb@4"] * 2
    there.submit("h", gpu=0.5, gang=3)  # 4g fits once on each, whatever its share
    there.settle()
    assert there.failed["h"].message.count("at most 2")


def test_a_queue_is_charged_what_is_granted() -> None:
    there = world("2xMIG")
    there.apply(QueuesConfigured((Queue("default", limit=QueueAmount(devices=600)),)))
    assert fill(there, 0.5, 0.1) == ["4g.20gb@0", WaitReason.QUEUE_LIMIT.value]
    (own,) = [queue for queue in there.snapshot().queues if queue.name == "default"]
    assert own.devices_held == pytest.approx(0.571)


def test_a_limit_counts_what_would_be_granted() -> None:
    there = world("2xMIG")
    there.apply(QueuesConfigured((Queue("default", limit=QueueAmount(devices=550)),)))
    assert fill(there, 0.5) == [WaitReason.QUEUE_LIMIT.value]
    assert fill(there, 0.4) == ["3g.20gb@4"]


def test_a_device_that_is_cut_anew_keeps_its_parts_until_it_is_empty() -> None:
    there = world()
    fill(there, 0.14)
    whole = node("n1", "1xMIG", cpus=8, profiles=())
    there.apply(NodeReported(whole))
    assert fill(there, 0.3) == ["3g.20gb@0"]
    there.end(6, 0)
    there.apply(NodeReported(whole))
    assert fill(there, 0.3) == ["@-1"]
    there.apply(NodeReported(node("n1", "1xMIG", cpus=8)))
    assert fill(there, 0.3) == ["@-1"]


def test_a_slice_lives_on_when_its_device_falls_sick() -> None:
    there = world()
    fill(there, 0.4)
    there.apply(NodeReported(node("n1", "1xMIG sick", cpus=8)))
    assert fill(there, 0.4) == [WaitReason.DEVICES_SICK.value]
    there.apply(NodeReported(node("n1", "1xMIG", cpus=8)))
    there.settle()
    assert sorted(at(there, name) for name in there.leases) == ["3g.20gb@0", "3g.20gb@4"]
