"""Control groups, version 1: the ``cpu`` hierarchy. Memory is left alone, whose hierarchy belongs to the host."""

from __future__ import annotations

from pathlib import Path

from flexray.devices.enforcers.control_files import make, read, write
from flexray.devices.enforcers.cpu_amounts import MILLI, CpuLimits
from flexray.devices.enforcers.quota import quota_of
from flexray.errors import IsolationFailed

_SHARES = (2, 262_144)
"""Least and most that the kernel takes as cpu.shares; 1024 is a core's worth."""


class CgroupV1:
    """A folder of the ``cpu`` hierarchy in which groups are made."""

    name = "cgroup v1"

    def __init__(self, base: Path) -> None:
        self.base = base

    def start(self) -> None:
        """Raises IsolationFailed when there is no such hierarchy."""
        if not (self.base / "cgroup.procs").exists():
            raise IsolationFailed(f"{self.base} is no cpu hierarchy of cgroup v1")

    def close(self) -> None:
        """Nothing was started."""

    def open(self, group: Path) -> None:
        """Make a group; every group can hold further ones."""
        make(group)

    def limit(self, group: Path, limits: CpuLimits) -> None:
        """The parent's limits must be there before, and be at least as wide: the kernel refuses others."""
        low, high = _SHARES
        write(group / "cpu.shares", str(min(high, max(low, limits.weight * 1024 // MILLI))))
        quota, period = quota_of(limits.cap)
        if quota is None or int(read(group / "cpu.cfs_period_us")) != period:
            write(group / "cpu.cfs_quota_us", "-1")  # a quota of the old period may be more than the parent has
            write(group / "cpu.cfs_period_us", str(period))
        if quota is not None:
            write(group / "cpu.cfs_quota_us", str(quota))

    def cap(self, group: Path) -> int:
        """Thousandths of a core that the kernel holds it to, as read back; 0: no limit."""
        quota, period = int(read(group / "cpu.cfs_quota_us")), int(read(group / "cpu.cfs_period_us"))
        return 0 if quota < 0 else round(quota * MILLI / period)

    def limit_memory(self, group: Path, memory: int) -> bool:
        """It never does."""
        return False

    def memory(self, group: Path) -> int | None:
        """Nobody counts."""
        return None

    def out_of_memory(self, group: Path) -> bool:
        """Nobody limits it."""
        return False

    def cpu_seconds(self, group: Path) -> float | None:
        """Where ``cpuacct`` is mounted with ``cpu``, as most systems do."""
        try:
            return int((group / "cpuacct.usage").read_text()) / 1e9
        except (OSError, ValueError):
            return None
