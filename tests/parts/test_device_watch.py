"""The node's watch over its devices, with a maker and slices that say what they are told."""

from __future__ import annotations

from typing import Any

from flexray.devices.backend import Health, ProcessUse, Sample
from flexray.devices.faults import xid_fault
from flexray.errors import BackendUnavailable
from flexray.model.devices import Device, DeviceNote, DeviceState, DeviceType, Family, ForeignProcess
from flexray.runtime.device_watch import DeviceWatch

GPU = Device("n/gpu0", "n", 0, DeviceType("nvidia/T4", 15360), Family.GPU, "nvidia", key="GPU-1")
CPU = Device("n/cpu0", "n", 0, DeviceType("cpu/x86_64", 4096), Family.CPU, "cpu")


class World:
    """A maker, the slices of a node, and a clock."""

    def __init__(self) -> None:
        self.now, self.own, self.busy = 1000.0, set[int](), False
        self.says: Any = Health(ok=True)
        self.processes: tuple[ProcessUse, ...] = ()
        self.devices = {GPU.id: GPU, CPU.id: CPU}
        self.watch = DeviceWatch(self, self, 10.0, lambda: self.now)

    def health(self, device: Device) -> Health:
        assert device.backend == "nvidia", "nothing can be told of a CPU"
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def sample(self, device: Device) -> Sample:
        if isinstance(self.says, Exception):
            raise self.says
        return Sample(processes=self.processes)

    def on_device(self, device: str) -> bool:
        return self.busy

    def pids(self) -> set[int]:
        return self.own

    def look(self, says: Any = None, seconds: float = 1.0) -> bool:
        """Time passes, and the devices are looked at; whether there is news."""
        self.now += seconds
        self.says = says or Health(ok=True)
        changed, news = self.watch.look(self.devices)
        for name, (state, reason) in changed.items():
            old = self.devices[name]
            self.devices[name] = Device(*old_fields(old), key=old.key, state=state, reason=reason)
        return news

    @property
    def state(self) -> tuple[str, str]:
        gpu = self.devices[GPU.id]
        return gpu.state.value, gpu.reason


def old_fields(device: Device) -> tuple[Any, ...]:
    return device.id, device.node, device.index, device.type, device.family, device.backend


def test_a_fault_is_told_once_and_so_is_its_end() -> None:
    world = World()
    world.busy = True
    assert not world.look()
    assert world.look(Health.of([xid_fault(95)]))
    assert world.state == ("sick", xid_fault(95).describe())
    assert not world.look(), "that it is well now is not known to last"
    world.busy = False
    assert world.look() and world.state[0] == "drained"
    assert world.look(seconds=10) and world.state == ("ready", "")


def test_a_driver_that_does_not_answer_makes_its_devices_suspect() -> None:
    world = World()
    assert world.look(BackendUnavailable("killed"))
    assert world.state == ("suspect", "the driver does not answer: killed")
    world.look()
    assert world.look(seconds=10) and world.state == ("ready", "")


def test_a_device_that_was_lost_when_it_was_found_comes_back() -> None:
    world = World()
    world.devices[GPU.id] = Device(*old_fields(GPU), key=GPU.key, state=DeviceState.LOST)
    world.look()
    world.look(seconds=10)
    assert world.state == ("ready", "")


def test_faults_of_applications_are_noted_and_not_too_often() -> None:
    world = World()
    hit = Health.of([xid_fault(31, 7)])
    assert world.look(hit) and world.state[0] == "ready"
    assert world.watch.notes == (DeviceNote(GPU.id, xid_fault(31, 7).describe(), 1001.0),)
    assert not world.look(hit), "the same"
    assert world.look(hit, seconds=60), "again"
    for code in (8, 11, 13, 43, 45):
        world.look(Health.of([xid_fault(code)]))
    assert [note.what.split(":")[0] for note in world.watch.notes] == ["XID 8", "XID 11", "XID 13", "XID 43", "XID 45"]


def test_processes_that_belong_to_no_slice_are_told_of() -> None:
    world = World()
    world.own = {1, 2}
    world.processes = (ProcessUse(1, 10), ProcessUse(99, 500), ProcessUse(98, None))
    assert not world.look(), "a slice may just have started it"
    assert world.look()
    assert world.watch.foreign == (ForeignProcess(GPU.id, 99, 500, 1001.0), ForeignProcess(GPU.id, 98, None, 1001.0))
    world.own = {1, 2, 99}
    world.processes = (ProcessUse(1, 10), ProcessUse(99, 800))
    assert world.look() and world.watch.foreign == (), "it was a slice's, and the other has ended"
    assert not world.look()
