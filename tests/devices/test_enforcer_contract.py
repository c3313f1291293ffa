"""What every enforcer must do, whatever its mechanism. To add one, add its line to SUBJECTS."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from devices.fake_cgroup2 import mount
from makers import amd_device, install, intel_device, kernel_cpu, kernel_gpu, memory_groups, npu_device, xpu
from nvidia_doubles import Machine, gpu, run_double, vgpu_library

from flexray.devices.enforcers.cgroup import Cgroup
from flexray.devices.enforcers.cu_mask import CuMask
from flexray.devices.enforcers.dmem import Dmem
from flexray.devices.enforcers.duty import Duty
from flexray.devices.enforcers.enforcer import Cell, Enforcer, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.fraction import Fraction
from flexray.devices.enforcers.framework import Framework
from flexray.devices.enforcers.hami import VARIABLE, Hami
from flexray.devices.enforcers.mig import Mig
from flexray.devices.enforcers.mps import Mps
from flexray.devices.enforcers.tiles import Tiles
from flexray.devices.enforcers.turns import Turns
from flexray.devices.enforcers.vnpu import Vnpu
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.model.isolation import MECHANISMS, Strength


@dataclass(frozen=True)
class Subject:
    """An enforcer where it works: over the machine itself, or over a double under ``folder``."""

    enforcer: Enforcer
    devices: tuple[Device, ...]
    choosy: bool = True
    """Whether it can hold some devices only; False: it asks nothing of them."""


def cpu_device(index: int = 0, cores: tuple[int, ...] = (0, 1)) -> Device:
    kind = DeviceType("cpu/x86_64", MemoryMiB(4096))
    return Device(f"n/cpu{index}", "n", index, kind, Family.CPU, "cpu", cores=cores)


def cgroup(folder: Path) -> Subject:
    """In the machine's own ``cpu`` hierarchy."""
    if not os.access("/sys/fs/cgroup/cpu/cgroup.procs", os.W_OK):
        pytest.skip("no writable cgroup v1 cpu here")
    return Subject(Cgroup(name=f"flexray-cpu-contract-{os.getpid()}"), (cpu_device(), cpu_device(1)))


def cgroup_v2(folder: Path, patch: pytest.MonkeyPatch) -> Subject:
    mount(folder / "sys/fs/cgroup", "cpu memory", patch)
    return Subject(Cgroup(root=folder, name="flexray"), (cpu_device(), cpu_device(1)))


def fraction(folder: Path, patch: pytest.MonkeyPatch) -> Subject:
    Machine(folder, patch, "", "")
    return Subject(Fraction(), (gpu(), gpu(1)))


def hami(folder: Path, patch: pytest.MonkeyPatch) -> Subject:
    machine = Machine(folder, patch, "", "")
    env = {VARIABLE: str(vgpu_library(folder))}
    return Subject(Hami(machine.state, env=env, root=folder), (gpu(), gpu(1)))


def mig(folder: Path, patch: pytest.MonkeyPatch) -> Subject:
    machine = Machine(folder, patch, "mig_mode=1", "mig_mode=1")
    return Subject(Mig(machine.state, run_double), (gpu(), gpu(1)))


def mps(folder: Path, patch: pytest.MonkeyPatch) -> Subject:
    machine = Machine(folder, patch, "", "")
    return Subject(Mps(machine.state, run_double), (gpu(), gpu(1)))


AMD_REGION = "drm/0000:05:00.0/vram"


def vnpu(folder: Path, patch: pytest.MonkeyPatch) -> Vnpu:
    install("npu-smi", folder, patch)
    return Vnpu(folder / "state")


def cu_mask(folder: Path) -> CuMask:
    kernel_cpu(folder, 0)
    kernel_gpu(folder, 1)
    return CuMask(memory_groups(folder, AMD_REGION), folder)


def tiles(folder: Path, patch: pytest.MonkeyPatch) -> Tiles:
    install("xpu-smi", folder, patch).set(gpus=[xpu(0)])
    return Tiles(memory_groups(folder))


SUBJECTS: dict[str, Callable[[Path, pytest.MonkeyPatch], Subject]] = {
    "vnpu": lambda folder, patch: Subject(vnpu(folder, patch), (npu_device(0), npu_device(1))),
    "cu_mask": lambda folder, patch: Subject(cu_mask(folder), (amd_device(),)),
    "tiles": lambda folder, patch: Subject(tiles(folder, patch), (intel_device(),)),
    "dmem": lambda folder, patch: Subject(Dmem(memory_groups(folder, AMD_REGION)), (amd_device(),)),
    "framework": lambda folder, patch: Subject(Framework(), (cpu_device(), cpu_device(1))),
    "cgroup": lambda folder, patch: cgroup(folder),
    "cgroup v2": lambda folder, patch: cgroup_v2(folder, patch),
    "duty": lambda folder, patch: Subject(Duty(state=folder), (cpu_device(), cpu_device(1))),
    "fraction": fraction,
    "hami": hami,
    "mig": mig,
    "mps": mps,
    "turns": lambda folder, patch: Subject(Turns(folder), (cpu_device(), cpu_device(1)), choosy=False),
}
"""Name -> makes the subject. It may skip where the machine lacks what it needs; a double never does."""


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    return SUBJECTS[request.param](tmp_path, monkeypatch)


def cell_on(subject: Subject, name: str, share: int = 250, memory: int = 1024) -> Cell:
    """A cell of that much, or of the smallest part that the device has."""
    device = subject.devices[0]
    support = subject.enforcer.probe([device])[device.id]
    device = dataclasses.replace(device, isolation=subject.enforcer.isolation, profiles=support.profiles)
    if support.profiles:
        profile = min(support.profiles, key=lambda one: (one.share, one.memory))
        start = profile.starts[0] if profile.starts else -1
        return Cell(name, (device,), profile.share, profile.share, profile.memory, profile, start)
    return Cell(name, (device,), Share(share), Share(share), MemoryMiB(memory))


def test_it_works_where_it_is_tried(subject: Subject) -> None:
    supports = subject.enforcer.probe(subject.devices)
    assert set(supports) == {device.id for device in subject.devices}
    for support in supports.values():
        assert isinstance(support, Support) and (support.usable, support.reason) == (True, "")


def test_a_device_that_it_cannot_hold_is_refused_with_a_reason(subject: Subject) -> None:
    kind = DeviceType("acme/nothing", MemoryMiB(1))
    stranger = Device("n/gpu99", "n", 99, kind, Family.GPU, "acme", key="no such device")
    support = subject.enforcer.probe([stranger])[stranger.id]
    assert support.usable is not subject.choosy
    assert support.usable or len(support.reason) > 5


def test_nothing_is_tried_without_devices(subject: Subject) -> None:
    assert subject.enforcer.probe([]) == {}


def test_a_slice_is_prepared_again_and_again_and_released_again_and_again(subject: Subject) -> None:
    cell = cell_on(subject, "s1")
    setup = subject.enforcer.prepare(cell)
    assert isinstance(setup, SliceSetup) and setup.isolation is subject.enforcer.isolation
    assert subject.enforcer.prepare(cell) == setup
    for _ in range(2):
        subject.enforcer.release(cell)


def test_what_it_says_is_not_more_than_its_mechanism_gives(subject: Subject) -> None:
    cell = cell_on(subject, "s1")
    support = subject.enforcer.probe([subject.devices[0]])[subject.devices[0].id]
    setup = subject.enforcer.prepare(cell)
    device = dataclasses.replace(cell.devices[0], memory_limit=support.memory)
    assert device.guarantee.meets(MECHANISMS[setup.isolation])
    if support.memory is Strength.HARD_PROCESS and MECHANISMS[setup.isolation].memory is Strength.NONE:
        assert setup.data_limit or setup.env or setup.launch, "a limit of each process has to reach the process"
    for name, value in {**setup.env, **setup.launch}.items():
        assert isinstance(name, str) and isinstance(value, str)
    subject.enforcer.release(cell)


def test_a_released_slice_was_never_there(subject: Subject) -> None:
    cell = cell_on(subject, "s1")
    subject.enforcer.release(cell)  # an agent may have died between its note and the making
    subject.enforcer.prepare(cell)
    subject.enforcer.release(cell)
    assert subject.enforcer.prepare(cell).isolation is subject.enforcer.isolation
    subject.enforcer.release(cell)


def test_two_slices_at_once_are_apart(subject: Subject) -> None:
    one, other = cell_on(subject, "s1"), cell_on(subject, "s2")
    if one.profile is not None:
        start = next((s for s in one.profile.starts if s >= one.start + one.profile.width), -1)
        other = dataclasses.replace(other, start=start)
    first, second = subject.enforcer.prepare(one), subject.enforcer.prepare(other)
    per_process = MECHANISMS[first.isolation].compute is Strength.HARD_PROCESS  # that needs no name of the slice
    if (first.join or first.launch) and not per_process:
        assert (first.join, first.launch) != (second.join, second.launch)
    subject.enforcer.release(one)
    assert subject.enforcer.prepare(other) == second, "the other one's end changes nothing"
    subject.enforcer.release(other)


def test_a_resize_is_done_or_refused_clearly(subject: Subject) -> None:
    cell = cell_on(subject, "s1")
    subject.enforcer.prepare(cell)
    try:
        subject.enforcer.resize(dataclasses.replace(cell, share=Share(500), burst=Share(500)))
    except NotResizable as error:
        assert len(str(error)) > 20, "it says why, and what to do instead"
    subject.enforcer.release(cell)


def test_usage_is_told_or_unknown(subject: Subject) -> None:
    cell = cell_on(subject, "s1")
    subject.enforcer.prepare(cell)
    usage = subject.enforcer.usage(cell, ())
    assert isinstance(usage, Usage)
    assert usage.busy_seconds is None or usage.busy_seconds >= 0
    assert usage.memory is None or usage.memory >= 0
    subject.enforcer.release(cell)
    assert isinstance(subject.enforcer.usage(cell, ()), Usage), "it may be asked too late"


def test_what_a_dead_agent_left_is_swept(subject: Subject) -> None:
    kept, left = cell_on(subject, "s1"), cell_on(subject, "s2")
    if kept.profile is None:
        subject.enforcer.prepare(left)
    setup = subject.enforcer.prepare(kept)
    subject.enforcer.sweep(["s1"])
    assert subject.enforcer.prepare(kept) == setup
    subject.enforcer.sweep([])
    subject.enforcer.release(kept)


def test_a_cell_that_makes_no_sense_is_refused(subject: Subject) -> None:
    cell = cell_on(subject, "s1")
    nowhere = dataclasses.replace(cell.devices[0], id="n/none0", key="gone", cores=(), index=77)
    with pytest.raises(IsolationFailed):
        subject.enforcer.prepare(dataclasses.replace(cell, devices=(nowhere,)))
