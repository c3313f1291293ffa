"""The kernel's limit on device memory: the ``dmem`` controller of cgroup v2, for the drivers amdgpu and xe.

From Linux 6.14. It counts what all processes of a group have in a region such as ``drm/0000:03:00.0/vram0``, whatever
library they use. Over its limit a group's own buffers are moved to host memory, or it is refused more.

Compute is not limited at all: ``Dmem`` is for devices on which nothing limits that, the others use its groups.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.errors import IsolationFailed
from flexray.model.amounts import WHOLE
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength

CGROUP = Path("sys/fs/cgroup")
_SCRATCH = "probe"
_MIB = 2**20


class MemoryGroups:
    """Groups of processes with limits on device memory, one for each slice, in a group of the node's own."""

    def __init__(self, root: Path = Path("/"), node: str = "node", rmdir: Callable[[Path], None] = os.rmdir) -> None:
        """Args: root: of the file system. rmdir: removes a group; only a double of the kernel's files needs another."""
        self._cgroup = root / CGROUP
        self._own = self._cgroup / f"flexray-dmem-{quote(node, safe='')}"
        self._rmdir = rmdir

    def regions(self, device: Device) -> tuple[str, ...]:
        """The regions of a device's memory, in order: one, or one for each tile. () when the kernel has none."""
        try:
            lines = (self._cgroup / "dmem.capacity").read_text().splitlines()
        except OSError:
            return ()
        names = [line.split()[0] for line in lines if line.split()]
        return tuple(sorted(name for name in names if device.key and name.startswith(f"drm/{device.key}/vram")))

    def refusal(self, device: Device) -> str:
        """Why a device's memory cannot be limited; "" when a group with a limit could be made, and was removed."""
        regions = self.regions(device)
        if not regions:
            return "the kernel has no dmem controller for it (Linux 6.14 with CONFIG_CGROUP_DMEM, driver amdgpu or xe)"
        try:
            self.make(_SCRATCH, {regions[0]: _MIB})
            kept = _pairs((self._group(_SCRATCH) / "dmem.max").read_text()).get(regions[0])
        except (OSError, IsolationFailed) as error:
            return f"a group with a limit on its memory cannot be made: {error}"
        finally:
            with contextlib.suppress(IsolationFailed, OSError):
                self.remove(_SCRATCH)
                self._remove_own()
        return "" if kept == str(_MIB) else f"the kernel keeps another limit than it was given: {kept}"

    def make(self, slice_id: str, limits: Mapping[str, int]) -> str:
        """Make a slice's group with limits in bytes by region, or set its limits; the file that processes join by.

        Raises IsolationFailed.
        """
        group = self._group(slice_id)
        try:
            _write(self._cgroup / "cgroup.subtree_control", "+dmem")
            self._own.mkdir(exist_ok=True)
            _write(self._own / "cgroup.subtree_control", "+dmem")
            group.mkdir(exist_ok=True)
            for region, limit in limits.items():
                _write(group / "dmem.max", f"{region} {limit}\n")
        except OSError as error:
            raise IsolationFailed(f"{slice_id}: no limit on device memory in {group}: {error}") from error
        return str(group / "cgroup.procs")

    def used(self, slice_id: str) -> int | None:
        """MiB of device memory in use by a slice; None when nobody can tell."""
        try:
            amounts = _pairs((self._group(slice_id) / "dmem.current").read_text()).values()
            return sum(map(int, amounts)) // _MIB
        except (OSError, ValueError):
            return None

    def remove(self, slice_id: str) -> None:
        """Remove a slice's group, if it is there. Raises IsolationFailed while processes are in it."""
        group = self._group(slice_id)
        try:
            self._rmdir(group)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise IsolationFailed(f"{group} cannot be removed: {error}") from error

    def sweep(self, keep: Collection[str]) -> None:
        """Remove the groups of all other slices; one that is in use stays."""
        names = {quote(slice_id, safe="") for slice_id in keep}
        for group in sorted(path for path in self._own.glob("*") if path.is_dir() and path.name not in names):
            with contextlib.suppress(OSError):
                self._rmdir(group)
        with contextlib.suppress(OSError):
            self._remove_own()

    def _remove_own(self) -> None:
        """Once no slice has a group."""
        if not any(path.is_dir() for path in self._own.iterdir()):
            self._rmdir(self._own)

    def _group(self, slice_id: str) -> Path:
        return self._own / quote(slice_id, safe="")


class Dmem:
    """Limits the memory of slices of AMD and Intel GPUs, and nothing else. Thread-safe."""

    isolation = Isolation.NONE

    def __init__(self, groups: MemoryGroups) -> None:
        """Args: groups: of the node."""
        self._groups = groups
        self._lock = threading.Lock()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Makes a group with a limit for each device, and removes it."""
        with self._lock:
            refusals = {device.id: self._groups.refusal(device) for device in devices}
        return {
            name: Support(False, reason) if reason else Support(True, memory=Strength.HARD)
            for name, reason in refusals.items()
        }

    def prepare(self, cell: Cell) -> SliceSetup:
        """A group with the slice's memory as its limit; torch is told it too, to fail early and cleanly."""
        with self._lock:
            join = self._groups.make(cell.slice, memory_limits(self._groups, cell))
        fraction = 0.0 if cell.share >= WHOLE else memory_fraction(cell)
        return SliceSetup(self.isolation, join=(join,), memory_fraction=fraction)

    def resize(self, cell: Cell) -> None:
        """The group gets its new limit; the slice's share means nothing here."""
        try:
            with self._lock:
                self._groups.make(cell.slice, memory_limits(self._groups, cell))
        except IsolationFailed as error:
            raise NotResizable(str(error)) from error

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Memory, as the kernel counts it."""
        return Usage(memory=self._groups.used(cell.slice))

    def release(self, cell: Cell) -> None:
        """Remove the group."""
        with self._lock:
            self._groups.remove(cell.slice)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove the groups of other slices."""
        with self._lock:
            self._groups.sweep(keep)


def memory_limits(groups: MemoryGroups, cell: Cell) -> dict[str, int]:
    """Bytes by region: a slice's memory, spread over the tiles of each of its devices. Raises IsolationFailed."""
    limits: dict[str, int] = {}
    for device in cell.devices:
        regions = groups.regions(device)
        if not regions:
            raise IsolationFailed(f"{cell.slice}: the kernel knows no memory of {device.id} ({device.key or 'no bus'})")
        limits.update(dict.fromkeys(regions, cell.memory * _MIB // len(regions)))
    return limits


def memory_fraction(cell: Cell) -> float:
    """The part of its smallest device's memory that is the slice's, for torch's allocator."""
    smallest = min((device.type.memory for device in cell.devices), default=0)
    return min(1.0, cell.memory / smallest) if smallest else 0.0


def _write(path: Path, text: str) -> None:
    """One write, as the kernel wants it, whose error is seen (a buffered file hides it until it is closed)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _pairs(text: str) -> dict[str, str]:
    """The last value of each region."""
    return {words[0]: words[1] for line in text.splitlines() if len(words := line.split()) == 2}
