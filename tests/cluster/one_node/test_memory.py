"""A slice that uses more memory than it holds ends, alone, and its task learns why."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from devices.fake_cgroup2 import mount

import flexray as flex
from cluster.conftest import until
from flexray.devices.enforcement import Enforcement
from flexray.devices.enforcers.cgroup import Cgroup
from flexray.devices.enforcers.enforcer import Cell, SliceSetup
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.model.events import Event, SliceEnded, SliceFailed
from flexray.model.lease import EnvironmentId, Placement, SliceId
from flexray.runtime.protocol import Environment, SliceSpec
from flexray.runtime.slice_host import SliceHost

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"cpu_devices": 1}
HOG = "import sys, time; block = bytearray(b'x') * (int(sys.argv[1]) * 2**20); time.sleep(600)"
"""A child that holds so many MiB."""


def with_children(log: str, count: int, each: int) -> None:
    """Start children, none of which is over the limit by itself, and wait for their end."""
    with Path(log).open("a") as file:
        file.write("began\n")
    children = [subprocess.Popen([sys.executable, "-c", HOG, str(each)]) for _ in range(count)]
    with Path(log).open("a") as file:
        file.write("".join(f"{child.pid}\n" for child in children))
    for child in children:
        child.wait()


def neighbour(log: str) -> str:
    while Path(log).exists():
        time.sleep(0.02)
    return flex.current().guarantee


def test_all_processes_of_a_slice_together_are_held_to_its_memory(tmp_path: Path) -> None:
    log, stay = tmp_path / "log", tmp_path / "stay"
    stay.touch()
    beside = flex.task(accelerator=0.25, memory="128MiB")(neighbour).remote(str(stay))
    greedy = flex.task(accelerator=0.25, memory="200MiB", retries=3)(with_children)
    with pytest.raises(flex.errors.MemoryLimitExceeded, match="holds 200 MiB; ask for more") as caught:
        greedy.remote(str(log), 3, 100).result(60)
    assert caught.value.limit == 200 * 2**20 < caught.value.used
    lines = log.read_text().split()
    assert lines.count("began") == 1, "it is not repeated: it would use as much again"
    until(lambda: not any(Path(f"/proc/{pid}/statm").exists() for pid in lines if pid.isdigit()))
    stay.unlink()
    assert "memory none" not in beside.result(60)


def test_within_its_memory_a_task_ends_as_it_likes(tmp_path: Path) -> None:
    @flex.task(accelerator=0.25, memory="400MiB")
    def modest() -> int:
        return len(bytearray(b"x") * (200 * 2**20))

    assert modest.remote().result(60) == 200 * 2**20
    until(lambda: all(queue.running == 0 for queue in flex.pool().queues))


def test_one_allocation_that_is_too_large_fails_and_its_slice_goes_on() -> None:
    @flex.task(accelerator=0.25, memory="200MiB")
    def take(mib: int) -> tuple[str, int]:
        return flex.current().slice, len(bytearray(mib * 2**20))

    with pytest.raises(MemoryError):
        take.remote(1000).result(60)
    slices = {one.id for one in flex.pool().slices}
    assert take.remote(10).result(60)[0] in slices


class Agent:
    """A node's agent with one CPU device, as far as a slice host sees it."""

    def __init__(self) -> None:
        cores = tuple(os.sched_getaffinity(0))
        kind = DeviceType("cpu/x86_64", MemoryMiB(4096))
        self.cpu = Device("here/cpu0", "here", 0, kind, Family.CPU, "cpu", cores=cores)
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._running: set[asyncio.Task[None]] = set()

    def device(self, name: str) -> Device:
        return self.cpu

    def actor_options(self, devices: tuple[Device, ...], runtime_env: dict[str, Any]) -> dict[str, Any]:
        return {}

    def report(self, event: Event) -> None:
        self.events.put_nowait(event)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._running.add(asyncio.get_running_loop().create_task(coroutine))


@pytest.mark.parametrize(
    ("events", "cause", "overrun"),
    [("oom 1\noom_kill 2\n", "memory", (200, 200)), ("oom 0\noom_kill 2\n", "died", None)],
    ids=["of its own limit", "of the host's"],
)
def test_a_slice_that_the_kernel_ends_for_its_memory_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: str, cause: str, overrun: tuple[int, int] | None
) -> None:
    base = mount(tmp_path / "sys/fs/cgroup", "cpu memory", monkeypatch)
    name = SliceId(f"killed-{os.getpid()}-{cause}")

    async def live_and_die() -> Event:
        agent = Agent()
        enforcement = Enforcement("here", tmp_path, None, {"cpu": (lambda node, state: Cgroup(root=tmp_path),)})
        enforcement.equip([agent.cpu])
        host = SliceHost("here", agent, enforcement)
        place = Placement("here", (agent.cpu.id,), Share(250), MemoryMiB(200))
        host.start(SliceSpec(name, place, Environment(EnvironmentId("e"), "01000000"), "work", 60.0, 1.0))
        await agent.events.get()
        (live,) = host.live.values()
        (group,) = base.glob(f"*/here/cpu0/{name}")
        assert live.process is not None and live.members == [live.process.pid]
        (group / "memory.events").write_text(events)
        os.kill(live.process.pid, signal.SIGKILL)  # as the kernel does after it has counted
        ended = await asyncio.wait_for(agent.events.get(), 60)
        assert not group.exists() and host.live == {}
        return ended

    ended = asyncio.run(live_and_die())
    assert isinstance(ended, SliceEnded)
    assert (ended.cause, ended.overrun) == (cause, overrun)
    assert ("it used 200 MiB of memory" in ended.message) == (overrun is not None), ended.message


def test_a_slice_that_the_kernel_ends_as_it_starts_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(tmp_path / "sys/fs/cgroup", "cpu memory", monkeypatch)

    class Deadly(Cgroup):
        """Its groups are no place to live in: who joins ends, and the kernel has counted why."""

        def prepare(self, cell: Cell) -> SliceSetup:
            setup = super().prepare(cell)
            Path(setup.join[-1]).unlink()
            Path(setup.join[-1]).parents[1].joinpath("memory.events").write_text("oom 1\noom_kill 1\n")
            return setup

    async def start() -> Event:
        agent = Agent()
        enforcement = Enforcement("here", tmp_path, None, {"cpu": (lambda node, state: Deadly(root=tmp_path),)})
        enforcement.equip([agent.cpu])
        place = Placement("here", (agent.cpu.id,), Share(250), MemoryMiB(200))
        name = SliceId(f"stillborn-{os.getpid()}")
        host = SliceHost("here", agent, enforcement)
        host.start(SliceSpec(name, place, Environment(EnvironmentId("e"), "01000000"), "work", 60.0, 1.0))
        return await asyncio.wait_for(agent.events.get(), 60)

    failed = asyncio.run(start())
    assert isinstance(failed, SliceFailed)
    assert "it used 200 MiB of memory and holds 200 MiB, too little to start with" in failed.message
