"""How much memory a node has, and has left: the machine's, or less where a control group holds the node to less.

In a container /proc/meminfo shows the machine; the kernel ends processes at the container's limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from flexray.model.amounts import MemoryMiB

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")

#: Ray's memory monitor ends workers beyond this part of the node's memory, and that is what its variables say.
_RAYS_PART = 0.95
_RAYS_VARIABLE, _RAYS_FREE = "RAY_memory_usage_threshold", "RAY_min_memory_free_bytes"
#: We act this much earlier: a part of the memory, in which nothing is likely to fill the rest between two looks.
_EARLIER_PART, _EARLIER_MOST = 0.02, 2 * 2**30
#: Larger limits are no limits: version 1 has no word for "none".
_NO_LIMIT = 2**62


class NodeMemory(NamedTuple):
    """Bytes."""

    total: int
    available: int


class _Files(NamedTuple):
    """Where a version of control groups keeps what; the last two are lines of ``memory.stat``."""

    limit: str
    used: str
    inactive: str
    active: str


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file", "active_file")


class Gauge:
    """Reads the least of what the machine and the control groups around this process have left.

    Which groups have a limit is looked up once: a look costs one file where none has, as on a machine of one's own.
    """

    def __init__(self, proc: Path = PROC, cgroup: Path = CGROUP) -> None:
        self._meminfo = proc / "meminfo"
        found = ((group, files, _number(group / files.limit)) for group, files in _groups(proc, cgroup))
        self._limits = [
            (group, files, limit) for group, files, limit in found if limit is not None and limit < _NO_LIMIT
        ]

    def look(self) -> NodeMemory:
        """What there is now. Raises OSError, KeyError or ValueError where /proc does not say it as Linux does."""
        rows = dict(line.split(":", 1) for line in self._meminfo.read_text().splitlines() if ":" in line)
        total, available = (int(rows[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
        for group, files, limit in self._limits:
            used = _number(group / files.used)
            if used is not None:
                total = min(total, limit)
                available = min(available, max(0, limit - used + _reclaimable(group, files)))
        return NodeMemory(total, available)


def host_memory() -> MemoryMiB:
    """What a node offers as host memory."""
    try:
        return MemoryMiB(Gauge().look().total >> 20)
    except (OSError, KeyError, ValueError):  # no Linux
        return MemoryMiB(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20)


def last_reserve(total: int, environment: Mapping[str, str] = os.environ) -> int:
    """Bytes that should stay available, of so many: somewhat more than what Ray's memory monitor wants to see."""
    try:
        part = float(environment.get(_RAYS_VARIABLE, _RAYS_PART))
        free = int(environment.get(_RAYS_FREE, -1))
    except ValueError:
        part, free = _RAYS_PART, -1
    rays = int(total * (1 - part))
    if free >= 0:
        rays = min(rays, free)
    return rays + min(int(total * _EARLIER_PART), _EARLIER_MOST)


def _groups(proc: Path, cgroup: Path) -> Iterator[tuple[Path, _Files]]:
    """The memory groups of this process and those above it, as far as they can be seen from here."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, files = cgroup, _V2
        elif "memory" in controllers.split(","):
            root, files = cgroup / "memory", _V1
        else:
            continue
        group = root / path.lstrip("/")
        if not group.is_dir():  # a container sees its own group as the root, under its name outside
            group = root
        yield from ((one, files) for one in (group, *group.parents) if one == root or root in one.parents)


def _reclaimable(group: Path, files: _Files) -> int:
    """Bytes of file cache, which the kernel gives up before it ends anybody."""
    try:
        rows = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(rows[files.inactive]) + int(rows[files.active])
    except (OSError, KeyError, ValueError):
        return 0


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None
