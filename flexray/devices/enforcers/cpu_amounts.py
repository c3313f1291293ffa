"""What a slice of CPU devices means in cores: quota, weight, threads."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.devices.enforcers.enforcer import Cell
from flexray.errors import IsolationFailed
from flexray.model.devices import Device

MILLI = 1000
"""Thousandths of a core in a core."""


@dataclass(frozen=True, slots=True)
class CpuLimits:
    """Of a group of processes, in thousandths of a core.

    Attributes:
        cap: what it may use even if nobody else wants it; 0: no limit.
        weight: what counts against its siblings when all of them want more than there is.
    """

    cap: int
    weight: int


def cores_of(cell: Cell) -> tuple[int, ...]:
    """Host cores of all its devices. Raises IsolationFailed when there are none."""
    cores = tuple(sorted({core for device in cell.devices for core in device.cores}))
    if not cores:
        raise IsolationFailed(f"{', '.join(device.id for device in cell.devices) or 'no device'} has no host cores")
    return cores


def limits_of(cell: Cell) -> CpuLimits:
    """Capped at its burst, weighed by its share: what it borrows goes back as soon as its owner wants it."""
    count = len(cores_of(cell))
    return CpuLimits(cap=max(cell.burst, cell.share) * count, weight=cell.share * count)


def whole(cores: int) -> CpuLimits:
    """So many cores and no more."""
    return CpuLimits(cap=cores * MILLI, weight=cores * MILLI)


def threads_of(cell: Cell) -> int:
    """Threads that fill its cap. With more of them some are stopped by the quota while the others wait for those."""
    return max(1, -(-limits_of(cell).cap // MILLI))


def device_seconds(cell: Cell, cpu_seconds: float) -> float:
    """CPU seconds on all cores of its devices, as seconds of devices."""
    return cpu_seconds * len(cell.devices) / len(cores_of(cell))


def no_cores(device: Device) -> str:
    """Why a device is not for the CPU's enforcers; "" when it is."""
    return "" if device.cores else f"{device.id} is no part of the host's CPU"
