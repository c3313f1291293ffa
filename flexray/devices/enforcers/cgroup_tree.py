"""Where the groups of slices are: one below the other, the same in every kind of control group.

    <base>/flexray-<uid>/<node>/<device>/<slice>/run

A device's group may use the device's cores and no more, so that slices which lend to each other never
take more than the device. The slice's limits are on ``<slice>``, its processes in ``run`` below: whoever
is handed ``run`` can share it out further, and cannot lift the limits.

The agent of a node holds a lock on the node's folder while it lives. A folder that nobody
holds is left over from an agent that has died.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from flexray.devices.enforcers.control_files import groups_in, remove, remove_if_empty
from flexray.devices.enforcers.cpu_amounts import MILLI, CpuLimits, limits_of, whole
from flexray.devices.enforcers.enforcer import Cell
from flexray.errors import IsolationFailed

_RUN = "run"
_SEVERAL = "several"
"""Instead of a device: a slice of several whole ones shares them with nobody."""
_TRIES = 3
_ENDING_SECONDS = 2.0


class Groups(Protocol):
    """What the kinds of control groups have in common. What changes something, and ``cap``, raises IsolationFailed."""

    name: str
    base: Path

    def start(self) -> None:
        """Make the base usable. May be repeated."""

    def close(self) -> None:
        """Undo ``start``: nothing is in the base."""

    def open(self, group: Path) -> None:
        """Make a group, unless it is there."""

    def limit(self, group: Path, limits: CpuLimits) -> None:
        """Set its CPU limits."""

    def cap(self, group: Path) -> int:
        """Thousandths of a core that the kernel says it is held to; 0: no limit."""

    def limit_memory(self, group: Path, memory: int) -> bool:
        """Hold it to so many MiB. False: this kind cannot."""

    def memory(self, group: Path) -> int | None:
        """MiB in use."""

    def out_of_memory(self, group: Path) -> bool:
        """Whether the kernel has ended processes in it for its limit of memory."""

    def cpu_seconds(self, group: Path) -> float | None:
        """Used by all processes that ever were in it."""


class Tree:
    """The groups of one kind.

    Args:
        groups: the kind.
        name: of the uppermost group.
    """

    def __init__(self, groups: Groups, name: str) -> None:
        self.groups, self._name = groups, name
        #: Folder of a node -> the open file that holds its lock.
        self._locks: dict[Path, int] = {}

    @property
    def top(self) -> Path:
        """The uppermost group."""
        return self.groups.base / self._name

    def place(self, cell: Cell) -> Path:
        """The group of a slice."""
        first = cell.devices[0]
        device = first.id.removeprefix(f"{first.node}/") if len(cell.devices) == 1 else _SEVERAL
        return self.top / file_name(first.node) / file_name(device) / file_name(cell.slice)

    def build(self, cell: Cell) -> Path:
        """Make its groups, with limits, and return where its processes go. Raises IsolationFailed."""
        self.groups.start()
        for attempt in range(_TRIES):
            try:
                return self._build(cell)
            except IsolationFailed:
                node = self.place(cell).parent.parent
                if attempt == _TRIES - 1 or node.exists():
                    raise
                self._let_go(node)  # another agent on this host has just removed it, empty as it was
        raise AssertionError("unreachable")

    def _build(self, cell: Cell) -> Path:
        place = self.place(cell)
        device, node = place.parent, place.parent.parent
        host = CpuLimits(cap=0, weight=(os.cpu_count() or 1) * MILLI)
        device_limits = whole(len(cell.devices[0].cores)) if device.name != _SEVERAL else host
        for group, limits in ((self.top, host), (node, host), (device, device_limits), (place, limits_of(cell))):
            self.groups.open(group)
            self.groups.limit(group, limits)
            if group == node:
                self._hold(node)
        self.groups.open(place / _RUN)
        return place / _RUN

    def remove(self, cell: Cell) -> None:
        """Remove a slice's groups, and those above that hold nothing now. Raises IsolationFailed."""
        place = self.place(cell)
        remove(place, _ENDING_SECONDS)
        self._tidy(place.parent)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove groups of slices other than these, of this agent and of dead ones; none with processes in it."""
        names = {file_name(one) for one in keep}
        for node in groups_in(self.top):
            if node not in self._locks and not _is_free(node):
                continue
            for device in groups_in(node):
                for place in [one for one in groups_in(device) if one.name not in names]:
                    _remove_or_leave(place)
                self._tidy(device)

    def _tidy(self, device: Path) -> None:
        """Remove the device's group and those above as far as they are empty."""
        for group in (device, device.parent, self.top):
            if not remove_if_empty(group):
                return
            self._let_go(group)
        self.groups.close()

    def _hold(self, node: Path) -> None:
        if node not in self._locks:
            self._locks[node] = os.open(node, os.O_RDONLY)
            fcntl.flock(self._locks[node], fcntl.LOCK_SH)  # unbounded: others only look (_is_free)

    def _let_go(self, node: Path) -> None:
        if node in self._locks:
            os.close(self._locks.pop(node))


def file_name(name: str) -> str:
    """A name that can be a folder's."""
    return re.sub(r"[^\w.-]", "_", name)


def _is_free(node: Path) -> bool:
    """Whether no agent holds it."""
    try:
        file = os.open(node, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _remove_or_leave(place: Path) -> None:
    try:
        remove(place)
    except IsolationFailed:
        pass  # processes are in it; ending them is the agent's, which knows whose they are
