"""Host cores standing in for accelerators: the default where a node has none."""

from __future__ import annotations

import platform
from pathlib import Path

from flexray.devices.backend import Health, NodeFacts, ProbeResult, ProbeStatus, Sample, device_id
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import Device, DeviceType, Family

_IDLE_FIELDS = (3, 4)
"""Columns of /proc/stat: idle, and waiting for I/O, in which the core could have run something else."""
_GUEST_FIELDS = 8
"""Columns from here on are time of guests, already counted as user time."""


class CpuBackend:
    """Makes ``facts.cpu_devices`` devices of the node's cores and half of its memory."""

    name = "cpu"

    def __init__(self, proc: Path = Path("/proc")) -> None:
        """Args: proc: where the kernel's process file system is mounted."""
        self._stat = proc / "stat"
        #: Device id -> (busy, total) ticks of its cores at the last sample.
        self._last: dict[str, tuple[int, int]] = {}

    def probe(self, facts: NodeFacts) -> ProbeResult:
        """Divide cores and half of the host's memory evenly; with more devices than cores, cores are shared."""
        count = facts.cpu_devices
        if count < 1:
            return ProbeResult(ProbeStatus.NO_DEVICES, reason="no CPU stand-ins asked for")
        if not facts.cores:
            return ProbeResult(ProbeStatus.NO_DEVICES, reason="no host cores to make CPU stand-ins of")
        kind = DeviceType(f"cpu/{platform.machine() or 'unknown'}", MemoryMiB(max(1, facts.host_memory // 2 // count)))
        devices = tuple(
            Device(
                id=device_id(facts.node, Family.CPU, index),
                node=facts.node,
                index=index,
                type=kind,
                family=Family.CPU,
                backend=self.name,
                cores=_part(facts.cores, index, count),
            )
            for index in range(count)
        )
        return ProbeResult(ProbeStatus.OK, devices)

    def health(self, device: Device) -> Health:
        """Always well: a node without working cores answers nothing at all."""
        return Health(ok=True)

    def sample(self, device: Device) -> Sample:
        """Use of the device's cores by anybody since the last sample; None the first time and without /proc.

        Memory is None: the host's memory in use is not the device's.
        """
        now = self._ticks(device.cores)
        if now is None:
            return Sample()
        before = self._last.get(device.id)
        self._last[device.id] = now
        if before is None or now[1] <= before[1]:
            return Sample()
        busy = 100.0 * (now[0] - before[0]) / (now[1] - before[1])
        return Sample(utilisation=min(100.0, max(0.0, busy)))

    def _ticks(self, cores: tuple[int, ...]) -> tuple[int, int] | None:
        """Busy and total ticks of these cores since boot, or None where the kernel does not tell."""
        try:
            lines = self._stat.read_text(encoding="ascii").splitlines()
            wanted = {f"cpu{core}" for core in cores}
            rows = [line.split() for line in lines]
            ticks = [[int(field) for field in row[1:]][:_GUEST_FIELDS] for row in rows if row and row[0] in wanted]
            idle = sum(row[field] for row in ticks for field in _IDLE_FIELDS)
        except (OSError, ValueError, IndexError):
            return None
        total = sum(map(sum, ticks))
        return (total - idle, total) if total else None


def _part(cores: tuple[int, ...], index: int, count: int) -> tuple[int, ...]:
    """The cores of device ``index`` of ``count``: neighbours, or one shared core when there are too few."""
    if count > len(cores):
        return (cores[index % len(cores)],)
    return cores[index * len(cores) // count : (index + 1) * len(cores) // count]
