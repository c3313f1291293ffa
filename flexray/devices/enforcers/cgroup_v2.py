"""Control groups, version 2: CPU and, where the controller can be had, memory."""

from __future__ import annotations

from pathlib import Path

from flexray.devices.enforcers.control_files import make, read, write
from flexray.devices.enforcers.cpu_amounts import MILLI, CpuLimits
from flexray.devices.enforcers.quota import quota_of
from flexray.errors import IsolationFailed

_WEIGHTS = (1, 10_000)
"""Least and most that the kernel takes as cpu.weight; 100 is a core's worth."""


class CgroupV2:
    """A folder of the unified hierarchy in which groups are made."""

    name = "cgroup v2"

    def __init__(self, base: Path) -> None:
        self.base = base

    def start(self) -> None:
        """Hand the controllers down to groups of the folder. Raises IsolationFailed when ``cpu`` cannot be."""
        if not (self.base / "cgroup.controllers").exists():
            raise IsolationFailed(f"{self.base} is no cgroup v2")
        if "cpu" not in read(self.base / "cgroup.controllers").split():
            raise IsolationFailed(f"{self.base} has no cpu controller; it is used by cgroup v1 or was not delegated")
        self._hand_down(self.base)

    def close(self) -> None:
        """Nothing was started."""

    def open(self, group: Path) -> None:
        """Make a group and hand its controllers down to the groups in it."""
        if make(group):
            self._hand_down(group)

    def limit(self, group: Path, limits: CpuLimits) -> None:
        """Raises IsolationFailed."""
        low, high = _WEIGHTS
        write(group / "cpu.weight", str(min(high, max(low, limits.weight * 100 // MILLI))))
        quota, period = quota_of(limits.cap)
        write(group / "cpu.max", f"{'max' if quota is None else quota} {period}")

    def cap(self, group: Path) -> int:
        """Thousandths of a core that the kernel holds it to, as read back; 0: no limit."""
        quota, period = read(group / "cpu.max").split()
        return 0 if quota == "max" else round(int(quota) * MILLI / int(period))

    def limit_memory(self, group: Path, memory: int) -> bool:
        """Whether all processes of the group together are held to so many MiB: over it they are killed, all at once.

        Raises IsolationFailed when it uses more already: the kernel would kill it there and then.
        """
        if not (group / "memory.max").exists():
            return False
        used = self.memory(group)
        if used is not None and used > memory:
            raise IsolationFailed(f"it uses {used} MiB, more than {memory}")
        if (group / "memory.swap.max").exists():  # not where the kernel has no swap
            write(group / "memory.swap.max", "0")
        write(group / "memory.oom.group", "1")  # half a slice is of no use
        write(group / "memory.max", str(memory << 20))
        return True

    def memory(self, group: Path) -> int | None:
        """MiB in use."""
        try:
            return int((group / "memory.current").read_text()) >> 20
        except (OSError, ValueError):
            return None

    def out_of_memory(self, group: Path) -> bool:
        """Whether the kernel has killed processes in it because of its own limit, not because the host is full."""
        try:
            rows = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
            return int(rows["oom_kill"]) > 0 and int(rows["oom"]) > 0  # the host's troubles count as oom_kill only
        except (OSError, ValueError, KeyError):
            return False

    def cpu_seconds(self, group: Path) -> float | None:
        """Of all processes that ever were in it, in there."""
        try:
            rows = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
            return int(rows["usage_usec"]) / 1e6
        except (OSError, ValueError, KeyError):
            return None

    def _hand_down(self, group: Path) -> None:
        write(group / "cgroup.subtree_control", "+cpu")
        if "memory" in read(group / "cgroup.controllers").split():
            try:
                write(group / "cgroup.subtree_control", "+memory")
            except IsolationFailed:
                pass  # a group that has processes of its own cannot hand it down; the heap's limit takes its place
