"""Ends slices that use more memory than they hold, and notes what they used.

The kernel or the device may limit a slice's memory too (see docs/isolation.md); this is the watchdog behind that, for
all processes of the slice together. On CPU stand-ins it counts memory that belongs to the processes themselves, beyond
what the bare process had when the slice started; on other devices what their maker says of the processes, and of the
host's memory the same as on stand-ins, where some was booked (``Request.host_memory``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from flexray.devices.backend import Sample
from flexray.devices.enforcers.enforcer import Cell
from flexray.errors import FlexrayError
from flexray.model.devices import Device, Family
from flexray.model.isolation import Strength
from flexray.runtime.node_memory import Gauge, NodeMemory, last_reserve

LOOK_SECONDS = 0.05
"""Between two looks at the memory of the slices on CPU stand-ins; a look costs some 10 microseconds a process."""

LEAST_EXCESS = 64
"""MiB: ending a slice that uses less beyond what it booked would help nobody."""

#: The node's memory is looked at as often when less than so many times its last reserve is left, else now and then.
_CLOSE, _FAR_SECONDS = 4, 0.25
_END_SECONDS = 10.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Overrun:
    """A slice used more memory than it holds: MiB each.

    Attributes:
        cause: "memory": of its device, or of the CPU stand-in; "host_memory": beside its device; "node_memory": beside
            its device, and its node was running out.
        why: more about that, for messages.
    """

    used: int
    limit: int
    cause: str = "memory"
    why: str = ""

    def describe(self) -> str:
        """For messages."""
        if self.cause == "memory":
            return f"it used {self.used} MiB of memory and holds {self.limit} MiB"
        return f"it used {self.used} MiB of host memory and had booked {self.limit} MiB{self.why}"


def with_watchdog(device: Device) -> Device:
    """A device on which this holds slices to their memory, if nothing does so more strongly."""
    if device.family is not Family.CPU or not _PROC.exists() or device.memory_limit.rank > Strength.SOFT.rank:
        return device
    return dataclasses.replace(device, memory_limit=Strength.SOFT)


def own_memory(pid: int, proc: Path = _PROC) -> int:
    """Bytes of memory that a process does not share with files or other programs (arrays, tensors); 0 when it is gone.

    What forked children have not written yet counts for each of them.
    """
    try:
        fields = (proc / str(pid) / "statm").read_bytes().split()
        return max(0, int(fields[1]) - int(fields[2])) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def settled_memory(pids: Iterable[int], proc: Path = _PROC) -> int:
    """The same for several processes, what they share between them once: exact, and a hundred times as slow."""
    total = 0
    for pid in pids:
        try:
            lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) * 1024
        except (OSError, StopIteration, ValueError):
            total += own_memory(pid, proc)
    return total


def host_overrun(pids: Collection[int], base: int, limit: int, proc: Path = _PROC) -> Overrun | None:
    """Whether these processes use more than ``limit`` MiB beyond ``base`` bytes."""
    most = base + limit * _MIB
    if sum(own_memory(pid, proc) for pid in pids) <= most:
        return None
    used = settled_memory(pids, proc)
    return Overrun((used - base) // _MIB, limit) if used > most else None


def device_overrun(pids: Collection[int], sample: Sample, limit: int) -> Overrun | None:
    """Whether these processes use more than ``limit`` MiB of a device's memory, as far as its maker says."""
    used = sum(process.memory or 0 for process in sample.processes if process.pid in pids)
    return Overrun(used, limit) if used > limit else None


class Watched(Protocol):
    """A slice, as far as its memory goes.

    Attributes:
        cell: what it holds; None until its part was asked for.
        members: its processes, as far as they are known.
        base: bytes that its bare process had.
        host_memory: MiB of host memory that are booked for it beside its device; 0: none, and no limit.
    """

    @property
    def cell(self) -> Cell | None: ...

    @property
    def members(self) -> Collection[int]: ...

    @property
    def base(self) -> int: ...

    @property
    def host_memory(self) -> int: ...


W = TypeVar("W", bound=Watched)


class MemoryWatch(Generic[W]):
    """Looks at slices until cancelled.

    Args:
        slices: those that run now.
        over: called, on the event loop, with one that uses more than it holds.
        sample: what a device's maker says of its use; it may raise FlexrayError.
        sample_seconds: between two of these questions.
    """

    def __init__(
        self,
        slices: Callable[[], list[W]],
        over: Callable[[W, Overrun], None],
        sample: Callable[[Device], Sample],
        sample_seconds: float,
    ) -> None:
        self._slices, self._over, self._sample, self._sample_seconds = slices, over, sample, sample_seconds

    async def watch_host(self) -> None:
        """Slices on CPU stand-ins, and those that have booked host memory beside their device."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            here = [one for one in self._slices() if one.cell is not None and (on_host(one.cell) or one.host_memory)]
            if here:
                await self._look(here, _host_overrun)

    async def watch_node(self, look: Callable[[], NodeMemory] | None = None) -> None:
        """The node as a whole: before its memory runs out, the slice that exceeds most what it booked is ended.

        Ray's memory monitor would end the scheduler first, which restarts, then the newest slices, whatever they use.
        """
        look = look or Gauge().look
        while True:
            try:
                now = look()
            except (OSError, KeyError, ValueError):  # no Linux
                return
            reserve = last_reserve(now.total)
            if now.available < reserve:
                await self._make_room(now)
            await asyncio.sleep(LOOK_SECONDS if now.available < _CLOSE * reserve else _FAR_SECONDS)

    async def _make_room(self, now: NodeMemory) -> None:
        found = most_excessive([one for one in self._slices() if one.cell is not None])
        if found is not None:
            one, used = found
            pids = list(one.members)
            self._over(one, Overrun(used, booked(one), "node_memory", _running_out(now)))
            await _gone(pids)

    async def watch_devices(self) -> None:
        """Slices on devices that can tell what each process uses."""
        while True:
            await asyncio.sleep(self._sample_seconds)
            here = [one for one in self._slices() if one.cell is not None and _tells(one.cell)]
            if here:
                await self._look(here, self._device_overrun)

    async def _look(self, here: list[W], measure: Callable[[W, Cell], Overrun | None]) -> None:
        def all_of_them() -> list[tuple[W, Overrun]]:
            found = ((one, measure(one, one.cell)) for one in here if one.cell is not None)
            return [(one, overrun) for one, overrun in found if overrun is not None]

        for one, overrun in await asyncio.get_running_loop().run_in_executor(None, all_of_them):
            self._over(one, overrun)

    def _device_overrun(self, one: W, cell: Cell) -> Overrun | None:
        pids = set(one.members)
        for device in cell.devices:
            try:
                overrun = device_overrun(pids, self._sample(device), cell.memory)
            except FlexrayError:  # its driver does not answer: its health is watched elsewhere
                continue
            if overrun is not None:
                return overrun
        return None


def _host_overrun(one: Watched, cell: Cell) -> Overrun | None:
    overrun = host_overrun(one.members, one.base, booked(one))
    return overrun if overrun is None or on_host(cell) else dataclasses.replace(overrun, cause="host_memory")


def booked(one: Watched) -> int:
    """MiB of host memory that a slice holds: on CPU stand-ins its memory, else what is booked beside its device."""
    assert one.cell is not None
    return one.cell.memory * len(one.cell.devices) if on_host(one.cell) else one.host_memory


def most_excessive(slices: Iterable[W]) -> tuple[W, int] | None:
    """The slice that uses most beyond what it has booked, and MiB that it uses; None where that is little for each."""
    use = [(one, (sum(map(own_memory, one.members)) - one.base) // _MIB) for one in slices]
    over = [(used - booked(one), used, one) for one, used in use if used - booked(one) >= LEAST_EXCESS]
    if not over:
        return None
    _, used, one = max(over, key=lambda row: row[:2])
    return one, used


def _running_out(now: NodeMemory) -> str:
    left, total = now.available // _MIB, now.total // _MIB
    return f", and its node was running out: {left} of {total} MiB were left"


async def _gone(pids: Collection[int]) -> None:
    """Wait until the memory of processes that are being ended is free, so that nobody else is ended for it."""
    for _ in range(int(_END_SECONDS / LOOK_SECONDS)):
        if not any(map(own_memory, pids)):
            return
        await asyncio.sleep(LOOK_SECONDS)


def on_host(cell: Cell) -> bool:
    """Whether a slice's memory is memory of its processes on the host."""
    return all(device.family is Family.CPU for device in cell.devices) and _PROC.exists()


def _tells(cell: Cell) -> bool:
    return all(device.backend not in ("cpu", "fake", "declared") for device in cell.devices)
