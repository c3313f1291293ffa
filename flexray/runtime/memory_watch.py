"""Ends slices that use more memory than they hold, and notes what they used.

The kernel or the device may limit a slice's memory too (see docs/isolation.md); this is the watchdog behind that, for
all processes of the slice together. On CPU stand-ins it counts memory that belongs to the processes themselves, beyond
what the bare process had when the slice started; on other devices what their maker says of the processes.
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

LOOK_SECONDS = 0.05
"""Between two looks at the memory of the slices on CPU stand-ins; a look costs some 10 microseconds a process."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Overrun:
    """A slice used more memory than it holds: MiB each."""

    used: int
    limit: int

    def describe(self) -> str:
        """For messages."""
        return f"it used {self.used} MiB of memory and holds {self.limit} MiB"


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
    """

    @property
    def cell(self) -> Cell | None: ...

    @property
    def members(self) -> Collection[int]: ...

    @property
    def base(self) -> int: ...


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
        """Slices on CPU stand-ins."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            here = [one for one in self._slices() if one.cell is not None and _on_host(one.cell)]
            if here:
                await self._look(here, _host_overrun)

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
    return host_overrun(one.members, one.base, cell.memory * len(cell.devices))


def _on_host(cell: Cell) -> bool:
    return all(device.family is Family.CPU for device in cell.devices) and _PROC.exists()


def _tells(cell: Cell) -> bool:
    return all(device.backend not in ("cpu", "fake", "declared") for device in cell.devices)
