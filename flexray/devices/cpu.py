"""Host cores standing in for accelerators: the default where a node has none.

A slice is bound to its device's cores and numeric libraries are told how many threads
to use. Both are isolation FRAMEWORK: the code in the slice can widen its affinity and
start more threads, slices of one device share its cores, and memory is not limited.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from flexray.devices.backend import Health, NodeFacts, ProbeResult, ProbeStatus, Sample, SliceSetup, device_id
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.model.isolation import Isolation

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",  # OpenMP: torch, scikit-learn
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",  # Accelerate on macOS
    "RAYON_NUM_THREADS",  # Rust libraries: tokenizers
)
"""What numeric libraries read, once, when they are loaded."""

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
                isolation=Isolation.FRAMEWORK,
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

    def isolate(self, devices: tuple[Device, ...], share: Share, memory: MemoryMiB) -> SliceSetup:
        """Bind to all cores of the devices and limit threads to the share of them, at least one.

        Slices of one device are bound to the same cores: binding each to some of them would
        let two quarters of a four-core device land on one core.
        """
        cores = tuple(sorted({core for device in devices for core in device.cores}))
        if not cores:
            raise IsolationFailed(f"{', '.join(device.id for device in devices) or 'no device'} has no host cores")
        threads = max(1, (share * len(cores) + 500) // 1000)
        return SliceSetup(
            isolation=Isolation.FRAMEWORK,
            env=dict.fromkeys(THREAD_VARIABLES, str(threads)),
            cores=cores if hasattr(os, "sched_setaffinity") else (),  # macOS cannot bind; threads are still limited
            threads=threads,
        )

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
