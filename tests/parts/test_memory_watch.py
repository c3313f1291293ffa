"""Whether processes use more memory than their slice holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from flexray.devices.backend import ProcessUse, Sample
from flexray.devices.enforcers.enforcer import Cell
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.runtime import memory_watch
from flexray.runtime.memory_watch import (
    MemoryWatch,
    Overrun,
    device_overrun,
    host_overrun,
    most_excessive,
    own_memory,
    settled_memory,
)
from flexray.runtime.node_memory import NodeMemory

MIB = 2**20


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory_watch, "_PAGE", 4096)
    return tmp_path


def process(proc: Path, pid: int, own: int, shared: int = 0, settled: int | None = None) -> None:
    """A process with so many MiB of its own, and so many once what it shares with its parent is counted once."""
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "statm").write_text(f"99999 {(own + shared) * 256} {shared * 256} 1 0 1 0\n")
    if settled is not None:
        (proc / str(pid) / "smaps_rollup").write_text(f"Rss: 1 kB\nPss_Anon: {settled * 1024} kB\n")


def test_only_memory_of_its_own_counts(proc: Path) -> None:
    process(proc, 1, own=300, shared=2000)
    assert own_memory(1, proc) == 300 * MIB
    assert own_memory(2, proc) == 0, "a process that is gone uses nothing"


def test_processes_count_together_and_the_bare_process_does_not(proc: Path) -> None:
    process(proc, 1, own=300, settled=300)
    process(proc, 2, own=150, settled=150)
    assert host_overrun([1, 2], base=100 * MIB, limit=350, proc=proc) is None
    assert host_overrun([1, 2], base=100 * MIB, limit=349, proc=proc) == Overrun(350, 349)


def test_what_a_forked_child_shares_is_counted_once_before_anybody_is_ended(proc: Path) -> None:
    process(proc, 1, own=300, settled=160)
    process(proc, 2, own=300, settled=160)
    assert settled_memory([1, 2], proc) == 320 * MIB
    assert host_overrun([1, 2], base=0, limit=330, proc=proc) is None
    assert host_overrun([1, 2], base=0, limit=310, proc=proc) == Overrun(320, 310)


def test_a_kernel_without_rollups_counts_roughly(proc: Path) -> None:
    process(proc, 1, own=300)
    assert settled_memory([1, 2], proc) == 300 * MIB


def test_on_a_device_only_its_own_processes_count() -> None:
    sample = Sample(processes=(ProcessUse(1, 600), ProcessUse(2, 500), ProcessUse(3, 4000), ProcessUse(4, None)))
    assert device_overrun([1, 2, 4], sample, 1100) is None
    assert device_overrun([1, 2, 4], sample, 1099) == Overrun(1100, 1099)


@dataclass
class Watched:
    """A slice of one process."""

    name: str
    pid: int
    host_memory: int = 0
    memory: int = 1000
    family: Family = Family.GPU
    base: int = 100 * MIB

    @property
    def members(self) -> list[int]:
        return [self.pid]

    @property
    def cell(self) -> Cell:
        kind = DeviceType("some/thing", MemoryMiB(10_000))
        device = Device("n/d", "n", 0, kind, self.family, "fake")
        return Cell(self.name, (device,), Share(500), Share(500), MemoryMiB(self.memory))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """MiB that processes use."""
    use: dict[int, int] = {}
    monkeypatch.setattr(memory_watch, "own_memory", lambda pid, proc=None: use.get(pid, 0) * MIB)
    return use


def test_who_exceeds_most_what_it_booked(used: dict[int, int]) -> None:
    booked = Watched("booked", 1, host_memory=8000)
    none = Watched("none", 2)
    stand_in = Watched("stand-in", 3, memory=5000, family=Family.CPU)
    used.update({1: 8150, 2: 400, 3: 5000})
    assert most_excessive([booked, none, stand_in]) == (none, 300)
    used[1] = 8500
    assert most_excessive([booked, none, stand_in]) == (booked, 8400)
    assert most_excessive([stand_in]) is None
    used[2] = 150
    assert most_excessive([none]) is None, "what it has would help nobody"


def test_before_a_node_runs_out_one_slice_is_ended_and_waited_for(used: dict[int, int]) -> None:
    greedy, modest, total = Watched("greedy", 1), Watched("modest", 2, host_memory=500), 10_000
    used.update({1: 3000, 2: 600})
    others, ended = 5000, []

    def memory() -> NodeMemory:
        return NodeMemory(total * MIB, (total - others - sum(used.values())) * MIB)

    async def watch() -> None:
        nonlocal others
        watch = MemoryWatch(lambda: [greedy, modest], lambda one, over: ended.append((one, over)), _no_sample, 1.0)
        looking = asyncio.create_task(watch.watch_node(memory))
        await asyncio.sleep(0.3)
        assert ended == []
        others = 900 + 5000
        while not ended:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert len(ended) == 1, "its memory is not free yet"
        used[1] = 0
        await asyncio.sleep(0.3)
        looking.cancel()

    asyncio.run(watch())
    ((who, overrun),) = ended
    assert who is greedy and overrun.cause == "node_memory"
    text = "used 2900 MiB of host memory and had booked 0 MiB, and its node was running out: 500 of 10000 MiB were left"
    assert text in overrun.describe()


def _no_sample(device: Device) -> Sample:
    raise AssertionError(f"nobody asks {device.id}")
