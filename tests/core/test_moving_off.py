"""Devices that fall sick, are lost, cordoned or drained: what runs there, what comes, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from harness import World, kinds, node

from flexray.model.devices import Cordon, DeviceState
from flexray.model.events import (
    DeviceCordoned,
    DeviceUncordoned,
    LeaseBlocked,
    LeaseUnblocked,
    LeaseYielded,
    NodeLost,
    NodeReported,
    QueuesConfigured,
)
from flexray.model.lifecycle import RecallReason
from flexray.model.queue import Queue, QueueAmount
from flexray.model.request import Request

MOVABLE = Request(preemptible=True)
RUNS = {"preemptible": {"request": MOVABLE}, "plain": {}, "actor": {"reusable": False, "restartable": False}}


def report(world: World, what: str, name: str = "n1") -> None:
    world.apply(NodeReported(node(name, what)))


def running(*names: str, what: str = "1xA100", spare: str = "", **options: Any) -> World:
    """A world in which these requests run on ``n1/gpu0``; ``spare`` devices come later."""
    world = World(node("n1", what), drain_seconds=60, grace_seconds=2)
    for name in names:
        world.submit(name, gpu=0.5, **options)
    world.settle()
    assert set(world.placed.values()) == {"n1/gpu0"}
    if spare:
        report(world, spare, "n2")
    return world


def test_preemptible_work_leaves_a_sick_device_at_once_and_goes_on_elsewhere() -> None:
    world = running("a", spare="1xA100", request=MOVABLE)
    report(world, "1xA100 sick")
    assert kinds(world.settle()) == ["recall a#1"]
    (recall,) = [c for c in world.commands if type(c).__name__ == "RecallLease"]
    assert recall.stop and recall.reason is RecallReason.DEVICE_SICK
    world.apply(LeaseYielded(world.leases["a"].lease))
    world.settle()
    assert world.placed == {"a": "n2/gpu0"}
    assert not world.scheduler.state.slices.by_device.get("n1/gpu0"), "its slice is not kept warm"


def test_what_does_not_stop_in_time_is_stopped() -> None:
    world = running("a", spare="1xA100", request=MOVABLE)
    report(world, "1xA100 sick")
    world.settle()
    assert "revoke a#1 preempted again" in kinds(world.wait(2))
    assert world.placed == {"a": "n2/gpu0"}


def test_other_work_runs_to_its_end_and_is_moved_by_force_when_that_takes_too_long() -> None:
    world = running("a", "b", spare="1xA100")
    report(world, "1xA100 sick")
    assert kinds(world.settle()) == ["recall a#1", "recall b#1"]
    assert not any(c.stop for c in world.commands if type(c).__name__ == "RecallLease"), "they may finish"
    world.release("a")
    assert kinds(world.settle()) == ["stop s1.1 device_drains"]
    assert world.wait(59) == []
    assert kinds(world.wait(1)) == ["recall b#1"] and world.commands[-1].stop
    assert "revoke b#1 preempted again" in kinds(world.wait(2))
    assert world.placed == {"b": "n2/gpu0"}


def test_an_actor_has_as_long_and_is_lost_then() -> None:
    world = running("a", spare="1xA100", **RUNS["actor"])
    report(world, "1xA100 sick")
    assert kinds(world.settle()) == ["recall a#1"], "so that its holder can make another one elsewhere"
    assert not world.commands[-1].stop
    assert kinds(world.wait(60)) == ["revoke a#1 device_lost", "stop s1.1 device_drains"]


def test_an_actor_that_stayed_is_told_again_the_next_time() -> None:
    world = running("a", **RUNS["actor"])
    for state in ("sick", "", "sick"):
        report(world, f"1xA100 {state}".strip())
        assert kinds(world.settle()) == (["recall a#1"] if state else [])
    assert world.wait(59) == [] and world.placed == {"a": "n1/gpu0"}


@pytest.mark.parametrize("kind", RUNS)
def test_on_a_lost_device_everything_ends_at_once(kind: str) -> None:
    world = running("a", "b", spare="1xA100", **RUNS[kind])
    report(world, "1xA100 lost")
    again = "" if kind == "actor" else " again"
    done = kinds(world.settle())
    assert {f"revoke a#1 device_lost{again}", f"revoke b#1 device_lost{again}"} <= set(done)
    assert set(world.placed.values()) == (set() if kind == "actor" else {"n2/gpu0"})


def test_idle_and_starting_slices_go_too() -> None:
    world = running("a", spare="1xA100")
    world.release("a")
    world.settle()
    world.starts = False
    world.submit("b", types="nvidia/A100*", gpu=0.25)
    world.decide()
    assert world.starting == ["s1.2"]
    report(world, "1xA100 sick")
    assert {"stop s1.1 device_drains", "stop s1.2 device_drains", "start s1.3"} <= set(kinds(world.decide()))


def test_a_suspect_device_keeps_what_runs_and_takes_nothing_new() -> None:
    world = running("a", request=MOVABLE)
    report(world, "1xA100 suspect")
    world.submit("b", gpu=0.25)
    assert world.wait(1000) == [] and world.reason("b") == "devices_sick"


def test_a_device_that_is_well_again_takes_work_again() -> None:
    world = running("a", request=MOVABLE)
    report(world, "1xA100 sick")
    world.settle()
    world.apply(LeaseYielded(world.leases["a"].lease))
    world.settle()
    assert world.reason("a") == "devices_sick" and world.snapshot().devices[0].state == "drained"
    report(world, "1xA100 drained")
    assert world.settle() == []
    report(world, "1xA100")
    world.settle()
    assert world.placed == {"a": "n1/gpu0"} and not world.scheduler.state.emptying


def test_a_gang_moves_as_a_whole() -> None:
    world = World(node("n1", "1xA100"), node("n2", "1xA100"), grace_seconds=2)
    world.submit("g", gpu=1, gang=2, request=MOVABLE)
    world.settle()
    assert set(world.placed.values()) == {"n1/gpu0", "n2/gpu0"}
    report(world, "2xA100", "n3")
    report(world, "1xA100 sick")
    assert sorted(kinds(world.settle())) == ["recall g.0#1", "recall g.1#1"]
    for lease in list(world.leases.values()):
        world.apply(LeaseYielded(lease.lease))
    world.settle()
    assert len(world.placed) == 2 and "n1/gpu0" not in world.placed.values()


def test_a_gang_that_may_not_be_preempted_has_time_too() -> None:
    world = World(node("n1", "1xA100"), node("n2", "1xA100"), node("n3", "1xT4"), grace_seconds=2, drain_seconds=60)
    world.submit("g", gpu=1, gang=2, types="nvidia/A100*")
    world.settle()
    report(world, "1xA100 sick")
    assert world.wait(59) == []
    assert sorted(kinds(world.wait(1))) == ["recall g.0#1", "recall g.1#1"]


def test_work_that_waits_for_work_of_its_own_is_not_stopped_before_the_time_is_over() -> None:
    world = running("a", spare="1xA100", request=MOVABLE)
    world.apply(LeaseBlocked(world.leases["a"].lease, "S2", ("f",)))
    report(world, "1xA100 sick")
    assert [c.stop for c in world.wait(59)] == [False], "it is asked for its lease, not to stop"
    assert [c.stop for c in world.wait(1)] == [True]


def test_it_is_stopped_when_it_waits_no_more() -> None:
    world = running("a", spare="1xA100", request=MOVABLE)
    world.apply(LeaseBlocked(world.leases["a"].lease, "S2", ("f",)))
    report(world, "1xA100 sick")
    world.settle()
    world.apply(LeaseUnblocked(world.leases["a"].lease))
    assert [c.stop for c in world.settle()] == [True]


def test_what_is_planned_on_it_is_planned_elsewhere() -> None:
    world = running("a", "b")
    world.stops = False
    world.submit("c", gpu=1, priority=1)
    world.wait(6)
    assert world.reason("c") == "making_room"
    report(world, "1xA100", "n2")
    world.apply(DeviceCordoned(Cordon("n1/gpu0")))
    world.settle()
    assert world.placed["c"] == "n2/gpu0"


def test_queues_are_charged_for_where_the_work_is() -> None:
    world = World(node("n1", "1xA100"), node("n2", "1xT4"))
    world.apply(QueuesConfigured((Queue("a", quota=QueueAmount(1000)), Queue("b"))))
    world.submit("x", gpu=1, queue="a", request=MOVABLE)
    world.settle()
    report(world, "1xA100 sick")
    world.settle()
    world.apply(LeaseYielded(world.leases["x"].lease))  # the harness checks the books after each step
    world.settle()
    assert world.placed == {"x": "n2/gpu0"}
    used = {queue.name: (queue.devices_held, queue.compute_held) for queue in world.snapshot().queues}
    assert used["a"] == (1.0, 0.2), "a T4 counts for a fifth"


# -- what operators do ---------------------------------------------------------------------------


def test_a_cordoned_device_takes_nothing_new_and_what_runs_goes_on() -> None:
    world = running("a", request=MOVABLE)
    world.apply(DeviceCordoned(Cordon("n1/gpu0", "n1", reason="new fan")))
    world.submit("b", gpu=0.25)
    assert world.wait(1000) == []
    (device,) = world.snapshot().devices
    assert (device.state, device.reason) == ("cordoned", "cordoned by an operator: new fan")
    assert world.explain("b").needs.endswith("1 device is cordoned: n1/gpu0 (cordoned by an operator: new fan)")
    world.apply(DeviceUncordoned("n1/gpu0"))
    world.settle()
    assert set(world.placed) == {"a", "b"} and world.snapshot().devices[0].reason == ""


def test_a_drained_device_is_emptied_until_it_is_uncordoned() -> None:
    world = running("a", spare="1xA100", request=MOVABLE)
    world.apply(DeviceCordoned(Cordon("n1/gpu0", drain=True)))
    world.settle()
    assert world.commands[-1].reason is RecallReason.DRAIN
    assert world.snapshot().devices[0].state == "draining"
    world.wait(2)
    assert world.placed == {"a": "n2/gpu0"}
    assert world.snapshot().devices[0].state == "drained"
    world.submit("b", gpu=1)
    assert world.wait(1000) == []
    world.apply(DeviceUncordoned("n1/gpu0"))
    world.settle()
    assert world.placed["b"] == "n1/gpu0"


def test_a_cordon_outlives_reports_and_its_node() -> None:
    world = World(node("n1", "1xA100 1xT4"))
    world.apply(DeviceCordoned(Cordon("n1/gpu0", "n1")))
    report(world, "1xA100 1xT4")
    world.apply(NodeLost("n1"))
    report(world, "1xA100 1xT4")
    assert [d.state for d in world.snapshot().devices] == ["cordoned", "ready"]


def test_a_cordon_follows_its_device_to_another_id() -> None:
    here, there = node("n1", "2xA100"), node("n9", "2xA100")
    world = World(here)
    world.apply(DeviceCordoned(Cordon("n1/gpu1", "host")))
    world.apply(DeviceCordoned(Cordon("n1/gpu0", "host", key="GPU-7")))
    world.apply(NodeLost("n1"))
    first, second = there.devices
    world.apply(NodeReported(type(there)("n9", "host", (keyed(first, "GPU-8"), second))))
    assert states(world) == {"n9/gpu0": "ready", "n9/gpu1": "cordoned"}, "another card is at the place of the first"
    world.apply(NodeReported(type(there)("n8", "elsewhere", (keyed(node("n8", "1xA100").devices[0], "GPU-7"),))))
    assert states(world)["n8/gpu0"] == "cordoned", "the card is in another node now"
    world.apply(DeviceUncordoned("n8/gpu0"))
    assert states(world)["n8/gpu0"] == "ready"


def test_a_cordon_stays_where_it_is_while_its_device_is_there() -> None:
    world = World(node("n1", "1xA100"))
    world.apply(DeviceCordoned(Cordon("n1/gpu0", "host")))
    world.apply(NodeReported(type(node("n2", "1xA100"))("n2", "host", node("n2", "1xA100").devices)))
    assert states(world) == {"n1/gpu0": "cordoned", "n2/gpu0": "ready"}, "two nodes of one name"


def test_a_fault_goes_before_a_cordon_and_both_are_named() -> None:
    world = World(node("n1", "1xA100"))
    world.apply(DeviceCordoned(Cordon("n1/gpu0")))
    sick = node("n1", "1xA100", state=DeviceState.LOST, reason="XID 79")
    world.apply(NodeReported(sick))
    assert world.scheduler.state.pool.devices["n1/gpu0"].state is DeviceState.LOST
    assert world.snapshot().devices[0].reason == "XID 79; cordoned by an operator"
    report(world, "1xA100")
    assert states(world) == {"n1/gpu0": "cordoned"}, "well again, and cordoned still"


def keyed(device: Any, key: str) -> Any:
    return type(device)(device.id, device.node, device.index, device.type, device.family, device.backend, key=key)


def states(world: World) -> dict[str, str]:
    return {device.id: device.state for device in world.snapshot().devices}
