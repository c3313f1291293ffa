"""CPU slices in control groups: for real in the ``cpu`` hierarchy of cgroup v1 that may be written; on doubles."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from devices.fake_cgroup2 import mount

from flexray.devices.enforcers import cgroup
from flexray.devices.enforcers.cgroup import Cgroup
from flexray.devices.enforcers.command import CommandFailed
from flexray.devices.enforcers.enforcer import Cell, NotResizable
from flexray.devices.enforcers.quota import PERIOD_US, quota_of
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.model.isolation import Strength

NAME = f"flexray-cpu-test-{os.getpid()}"
REAL = Path("/sys/fs/cgroup/cpu")
needs_v1 = pytest.mark.skipif(not os.access(REAL / "cgroup.procs", os.W_OK), reason="no writable cgroup v1 cpu here")

TWO_CORES = Device("n/cpu0", "n", 0, DeviceType("cpu/x86_64", MemoryMiB(4096)), Family.CPU, "cpu", cores=(0, 1))
QUARTER = Cell("s1", (TWO_CORES,), Share(250), Share(250), MemoryMiB(100))


def no_commands(*command: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: float = 0) -> str:
    raise CommandFailed(command, 127, "cannot be run: No such file or directory")


def files(group: Path, *names: str) -> list[str]:
    return [(group / name).read_text().strip() for name in names]


@pytest.fixture
def v1() -> Iterator[Cgroup]:
    """On the machine's own ``cpu`` hierarchy; whatever a test leaves there is removed and fails it."""
    yield Cgroup(run=no_commands, name=NAME)
    left = list((REAL / NAME).glob("*/*/*"))
    for folder in sorted((REAL / NAME).rglob("**"), key=lambda one: -len(one.parts)):
        folder.rmdir()
    assert not left


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cgroup:
    mount(tmp_path / "sys/fs/cgroup", "cpu memory pids", monkeypatch)
    return Cgroup(root=tmp_path, run=no_commands, name=NAME)


# -- for real ------------------------------------------------------------------------------------------------------


@needs_v1
def test_the_kernel_holds_what_was_asked(v1: Cgroup) -> None:
    support = v1.probe([TWO_CORES])[TWO_CORES.id]
    assert support.usable and support.memory is Strength.HARD_PROCESS
    assert not (REAL / NAME).exists(), "trying leaves nothing behind"
    setup = v1.prepare(QUARTER)
    (joined,) = map(Path, setup.join)
    assert joined == REAL / NAME / "n/cpu0/s1/run/cgroup.procs" and joined.exists()
    limits = "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"
    period = str(PERIOD_US)
    assert files(joined.parent.parent, *limits) == [str(PERIOD_US // 2), period, "512"]
    assert files(joined.parents[2], *limits) == [str(PERIOD_US * 2), period, "2048"], "no more than the device's cores"
    assert (setup.threads, setup.cores, setup.data_limit) == (1, (0, 1), 100)
    v1.release(QUARTER)
    assert not (REAL / NAME).exists()


@needs_v1
def test_a_resize_is_in_the_kernel_and_one_it_refuses_changes_nothing(v1: Cgroup) -> None:
    group = Path(v1.prepare(QUARTER).join[0]).parent.parent
    v1.resize(dataclasses.replace(QUARTER, share=Share(500), burst=Share(1000)))
    assert files(group, "cpu.cfs_quota_us", "cpu.shares") == [str(PERIOD_US * 2), "1024"], (
        "capped by burst, weighed by share"
    )
    with pytest.raises(NotResizable, match="keeps its size"):
        v1.resize(dataclasses.replace(QUARTER, burst=Share(1001)))  # more than its device has
    assert files(group, "cpu.cfs_quota_us") == [str(PERIOD_US * 2)]
    fewer = dataclasses.replace(QUARTER, memory=MemoryMiB(50))
    v1.resize(fewer)
    assert v1.prepare(fewer).data_limit == 50, "its process moves the limit of its heap"
    v1.release(QUARTER)
    with pytest.raises(NotResizable, match="no control group"):
        v1.resize(QUARTER)


BURN = r"""
import os, sys, threading
fd = os.open(sys.argv[1], os.O_WRONLY)
idle = threading.Thread(target=threading.Event().wait, daemon=True)
idle.start()
os.write(fd, str(os.getpid()).encode())
child = os.fork()
text = open(f"/proc/self/task/{idle.native_id}/cgroup").read() if child else ""
os.write(1, f"{text}{os.getpid()}\n".encode())  # in one piece: both write to the same pipe
while True: pass
"""


@needs_v1
def test_what_joins_is_held_with_its_threads_and_its_children(v1: Cgroup) -> None:
    cell = dataclasses.replace(QUARTER, share=Share(100), burst=Share(100))  # a fifth of a core
    (joined,) = v1.prepare(cell).join
    process = subprocess.Popen([sys.executable, "-c", BURN, joined], stdout=subprocess.PIPE, text=True)
    pids: set[int] = set()
    try:
        assert process.stdout is not None
        lines = []
        while len(pids) < 2:
            lines.append(process.stdout.readline())
            assert lines[-1], "it ended"
            pids |= {int(lines[-1])} if lines[-1].strip().isdigit() else set()
        assert any(line.startswith("1:cpu:") or f"/{NAME}/n/cpu0/s1/run" in line for line in lines), "an older thread"
        assert {int(pid) for pid in Path(joined).read_text().split()} == pids
        before, began = v1.usage(cell, pids).busy_seconds, time.monotonic()
        time.sleep(1.0)
        after, passed = v1.usage(cell, pids).busy_seconds, time.monotonic() - began
        assert before is not None and after is not None
        assert (after - before) / passed < 0.3, "two that burn, unheld, use up to all of the device; they hold 0.1"
        with pytest.raises(IsolationFailed, match="processes are in it"):
            v1.release(cell)
        v1.sweep([])
        assert Path(joined).exists(), "a group with processes stays"
    finally:
        for pid in Path(joined).read_text().split():
            os.kill(int(pid), 9)
        process.wait()
    v1.release(cell)


@needs_v1
def test_what_a_dead_agent_left_goes_and_a_living_one_s_stays(v1: Cgroup) -> None:
    other = Cgroup(run=no_commands, name=NAME)
    group = Path(v1.prepare(QUARTER).join[0]).parent.parent
    other.sweep([])
    assert group.exists(), "its agent lives: this process"
    fresh = dataclasses.replace(QUARTER, slice="s/2")
    v1.prepare(fresh)
    v1.sweep(["s/2"])
    assert not group.exists() and (group.parent / "s_2").exists()
    (REAL / NAME / "gone").mkdir()
    (REAL / NAME / "gone/cpu0").mkdir()
    (REAL / NAME / "gone/cpu0/s9").mkdir()
    other.sweep(["s/2"])
    assert not (REAL / NAME / "gone").exists()
    other.release(fresh)  # as a successor does with what it finds in its notes
    assert not (REAL / NAME).exists()


# -- on doubles ----------------------------------------------------------------------------------------------------


def test_cgroup_v2_limits_memory_too(v2: Cgroup) -> None:
    support = v2.probe([TWO_CORES])[TWO_CORES.id]
    assert (support.usable, support.reason, support.memory) == (True, "", Strength.HARD)
    setup = v2.prepare(dataclasses.replace(QUARTER, burst=Share(1000)))
    group = Path(setup.join[0]).parent.parent
    assert setup.data_limit == 0, "the kernel counts all processes"
    assert files(group, "cpu.max", "cpu.weight") == [f"{2 * PERIOD_US} {PERIOD_US}", "50"]
    assert files(group, "memory.max", "memory.swap.max", "memory.oom.group") == [str(100 << 20), "0", "1"]
    assert setup.notes[0].startswith("cgroup v2")
    assert v2.usage(QUARTER, ()).memory == 0
    (group / "cpu.stat").write_text("usage_usec 3000000\n")
    (group / "memory.current").write_text(str(60 << 20))
    assert v2.usage(QUARTER, ()) == cgroup.Usage(busy_seconds=1.5, memory=60), "two cores are one device"
    with pytest.raises(NotResizable, match="it uses 60 MiB, more than 50"):
        v2.resize(dataclasses.replace(QUARTER, share=Share(500), burst=Share(500), memory=MemoryMiB(50)))
    assert files(group, "cpu.max") == [f"{2 * PERIOD_US} {PERIOD_US}"]
    v2.resize(dataclasses.replace(QUARTER, memory=MemoryMiB(70)))
    assert files(group, "memory.max", "cpu.max") == [str(70 << 20), f"{PERIOD_US // 2} {PERIOD_US}"]
    v2.release(QUARTER)
    assert not group.exists()


def test_the_kernel_says_whether_a_slice_died_of_its_own_limit(v2: Cgroup) -> None:
    events = Path(v2.prepare(QUARTER).join[0]).parent.parent / "memory.events"
    assert not v2.usage(QUARTER, ()).out_of_memory
    events.write_text("low 0\nhigh 0\nmax 12\noom 0\noom_kill 1\noom_group_kill 1\n")
    assert not v2.usage(QUARTER, ()).out_of_memory, "the host was full, or what is above the slice's group"
    events.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\noom_group_kill 0\n")
    assert not v2.usage(QUARTER, ()).out_of_memory, "it made do"
    events.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n")
    assert v2.usage(QUARTER, ()).out_of_memory
    v2.release(QUARTER)
    assert not v2.usage(QUARTER, ()).out_of_memory


def test_without_a_memory_controller_the_heap_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(tmp_path / "sys/fs/cgroup/unified", "cpu", monkeypatch)
    enforcer = Cgroup(root=tmp_path, run=no_commands, name=NAME)
    assert enforcer.probe([TWO_CORES])[TWO_CORES.id].memory is Strength.HARD_PROCESS
    assert enforcer.prepare(QUARTER).data_limit == 100


def test_every_kind_that_does_not_work_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(tmp_path / "sys/fs/cgroup", "hugetlb", monkeypatch)
    enforcer = Cgroup(root=tmp_path, run=no_commands, name=NAME)
    support = enforcer.probe([TWO_CORES])[TWO_CORES.id]
    assert not support.usable
    for part in (
        "cgroup v2: ",
        "has no cpu controller",
        "systemd unit: systemd-run",
        "cgroup v1: ",
        "no cpu hierarchy",
    ):
        assert part in support.reason
    with pytest.raises(IsolationFailed, match="no control groups here: cgroup v2"):
        enforcer.prepare(QUARTER)


def test_a_limit_that_does_not_stick_is_seen(v2: Cgroup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("flexray.devices.enforcers.cgroup_v2.quota_of", lambda cap: (None, PERIOD_US))
    support = v2.probe([TWO_CORES])[TWO_CORES.id]
    assert not support.usable and "0 cores where 0.5 were written" in support.reason
    assert not (tmp_path / "sys/fs/cgroup" / NAME).exists()


class Systemd:
    """systemd-run and systemctl, with a unit that is a folder of the fake tree."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *command: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: float = 0) -> str:
        self.calls.append(command)
        unit = self.base / "system.slice/flexray.service"
        if "--user" in command:
            raise CommandFailed(command, 1, "Failed to connect to bus")
        if command[0] == "systemd-run" and not unit.exists():
            (self.base / "cgroup.subtree_control").write_text("+memory")
            os.mkdir(unit.parent)
            (unit.parent / "cgroup.subtree_control").write_text("+memory")
            os.mkdir(unit)
            # What the host itself may not do, its systemd can:
            (self.base / "cgroup.controllers").write_text("")
        answers = {"ControlGroup": "/system.slice/flexray.service\n", "MainPID": "4711\n"}
        return next((answers[word] for word in command if word in answers), "")


def test_systemd_hands_over_a_part_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = mount(tmp_path / "sys/fs/cgroup", "", monkeypatch)
    systemd = Systemd(base)
    enforcer = Cgroup(root=tmp_path, run=systemd, name=NAME)
    support = enforcer.probe([TWO_CORES])[TWO_CORES.id]
    assert support.usable and support.memory is Strength.HARD
    assert systemd.calls[-1][:2] == ("systemctl", "stop"), "trying leaves nothing behind"
    unit = base / "system.slice/flexray.service"
    assert enforcer.prepare(QUARTER).join == (str(unit / NAME / "n/cpu0/s1/run/cgroup.procs"),)
    started = next(call for call in reversed(systemd.calls) if call[0] == "systemd-run")
    assert "Delegate=cpu memory" in started and f"--pid={os.getpid()}" in started, "it ends with the agent"
    assert files(unit / "keeper", "cgroup.procs") == ["4711"], "its own process is out of the way"
    enforcer.release(QUARTER)
    assert systemd.calls[-1][1] == "stop" and not (unit / NAME).exists()


def test_systemd_that_is_silent_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(tmp_path / "sys/fs/cgroup", "", monkeypatch)
    enforcer = Cgroup(root=tmp_path, run=lambda *command, **rest: "", name=NAME)
    assert "systemd does not tell the ControlGroup" in enforcer.probe([TWO_CORES])[TWO_CORES.id].reason


@pytest.mark.parametrize(("cap", "quota", "period"), [(0, None, 50_000), (500, 25_000, 50_000), (1, 1_000, 1_000_000)])
def test_the_smallest_quota_gets_a_period_that_the_kernel_takes(cap: int, quota: int | None, period: int) -> None:
    assert quota_of(cap) == (quota, period)


def test_several_whole_devices_are_one_group(v2: Cgroup) -> None:
    other = dataclasses.replace(TWO_CORES, id="n/cpu1", index=1, cores=(2, 3))
    both = Cell("s", (TWO_CORES, other), Share(1000), Share(1000), MemoryMiB(100))
    setup = v2.prepare(both)
    group = Path(setup.join[0]).parent.parent
    assert group.parent.name == "several" and setup.threads == 4
    assert files(group, "cpu.max", "memory.max") == [f"{4 * PERIOD_US} {PERIOD_US}", str(200 << 20)]
