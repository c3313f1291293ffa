"""AMD compute unit masks: each slice of a GPU has units of its own, which each of its processes is confined to.

ROCr reads ``HSA_CU_MASK=<gpu>:<units>`` when it is loaded. A wrong mask is not refused: the whole mask is dropped
without a word, and the process has the whole GPU. What a right one is was measured by others (GPUStack, "AMD
CU-mask conformance", on gfx1101 and gfx942): on RDNA units go in pairs; on CDNA with several dies (XCC) bit i is a
unit of die i modulo their number, and a die without a bit is not limited at all, so that only whole rows of dies
may be taken. ``ComputeNode.atom`` is that row or pair. Shares are rounded down to it: parts that fit in the
books always have units.

The number before the colon is ROCr's, after ``ROCR_VISIBLE_DEVICES``. HIP's mask, which is Ray's, comes after
that; so the slice is given one GPU by ROCr's mask, and it is number 0 to both.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from flexray.devices.enforcers.dmem import MemoryGroups, memory_fraction, memory_limits
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.kfd import ComputeNode, compute_nodes, memory_of
from flexray.devices.visible import HIP
from flexray.errors import IsolationFailed
from flexray.model.amounts import WHOLE, Share
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength


class CuMask:
    """Gives slices compute units, lowest first. Thread-safe.

    Which units are whose is kept in memory only: the slices of an agent that dies, die with it.
    """

    isolation = Isolation.CU_MASK

    def __init__(self, groups: MemoryGroups, root: Path = Path("/")) -> None:
        """Args: groups: limit the slices' memory where the kernel can. root: of the file system."""
        self._groups = groups
        self._root = root
        #: Device id -> slice -> its atoms: unit number // ``ComputeNode.atom``.
        self._taken: dict[str, dict[str, tuple[int, ...]]] = {}
        self._lock = threading.Lock()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Looks the GPUs up in the kernel's files: whether a mask takes effect only a program on the GPU could tell."""
        nodes = {node.bus: node for node in compute_nodes(self._root)}
        with self._lock:
            return {device.id: self._support(device, nodes.get(device.key)) for device in devices}

    def prepare(self, cell: Cell) -> SliceSetup:
        """Units for the slice. A whole device needs none; its slice is alone there."""
        if cell.share >= WHOLE:
            return SliceSetup(self.isolation)
        node = self._node(cell)
        with self._lock:
            atoms = self._take(cell, node)
            join: tuple[str, ...] = ()
            try:
                if self._groups.regions(cell.devices[0]):
                    join = (self._groups.make(cell.slice, memory_limits(self._groups, cell)),)
            except IsolationFailed:
                del self._taken[cell.devices[0].id][cell.slice]
                raise
        units = len(atoms) * node.atom
        return SliceSetup(
            self.isolation,
            env={
                "ROCR_VISIBLE_DEVICES": node.name,
                HIP: "0",
                "HSA_CU_MASK": f"0:{unit_list(atoms, node.atom)}",
            },
            join=join,
            memory_fraction=memory_fraction(cell),
            notes=(f"{units} of {node.units} compute units, {1000 * units // node.units} thousandths",),
        )

    def resize(self, cell: Cell) -> None:
        """Never: the mask was read when the process started."""
        raise NotResizable(
            "isolation cu_mask: a process keeps the compute units that it started with; "
            "end the slice and start its work again on one of the new size"
        )

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Memory, as the driver counts it for each process. Nobody tells how busy some of the units are."""
        nodes = {node.bus: node for node in compute_nodes(self._root)}
        told = [memory_of(self._root, nodes[d.key], pids) for d in cell.devices if d.key in nodes]
        known = [amount for amount in told if amount is not None]
        return Usage(memory=sum(known) if known else None)

    def release(self, cell: Cell) -> None:
        """The units are free again."""
        with self._lock:
            for slices in self._taken.values():
                slices.pop(cell.slice, None)
            self._groups.remove(cell.slice)

    def sweep(self, keep: Collection[str]) -> None:
        """Forget the units of other slices, and remove their groups."""
        with self._lock:
            for device, slices in self._taken.items():
                self._taken[device] = {name: atoms for name, atoms in slices.items() if name in keep}
            self._groups.sweep(keep)

    def _support(self, device: Device, node: ComputeNode | None) -> Support:
        if node is None:
            where = device.key or "a GPU without a place on the bus"
            return Support(False, f"the kernel's compute driver (amdgpu, /sys/class/kfd) does not know {where}")
        if node.units < 2 * node.atom:
            return Support(False, f"its {node.units} compute units cannot be divided")
        limited = not self._groups.refusal(device)
        return Support(True, memory=Strength.HARD if limited else Strength.COOPERATIVE)

    def _node(self, cell: Cell) -> ComputeNode:
        if len(cell.devices) != 1:
            raise IsolationFailed(f"{cell.slice}: a part of {len(cell.devices)} GPUs; parts are of one")
        device = cell.devices[0]
        for node in compute_nodes(self._root):
            if node.bus == device.key:
                return node
        raise IsolationFailed(f"{cell.slice}: the kernel's compute driver does not know {device.id} ({device.key})")

    def _take(self, cell: Cell, node: ComputeNode) -> tuple[int, ...]:
        """The slice's atoms: those it has, or the lowest that are free. Caller holds the lock."""
        slices = self._taken.setdefault(cell.devices[0].id, {})
        total = node.units // node.atom
        count = total * cell.share // WHOLE
        if count == 0:
            least = Share(-(-WHOLE // total))
            raise IsolationFailed(
                f"{cell.slice}: {cell.share} thousandths of {node.units} compute units are less than the smallest "
                f"part of {cell.devices[0].id}, {node.atom} units; ask for at least {least} thousandths"
            )
        if len(slices.get(cell.slice, ())) == count:
            return slices[cell.slice]
        others = {atom for name, atoms in slices.items() if name != cell.slice for atom in atoms}
        free = [atom for atom in range(total) if atom not in others]
        if len(free) < count:
            raise IsolationFailed(
                f"{cell.slice}: {count * node.atom} compute units of {cell.devices[0].id} are not free"
            )
        slices[cell.slice] = tuple(free[:count])
        return slices[cell.slice]


def unit_list(atoms: Iterable[int], size: int) -> str:
    """Atoms as the mask names their units: (0, 1, 3) of 2 units each are ``0-3,6-7``."""
    ranges: list[list[int]] = []
    for atom in sorted(atoms):
        first, last = atom * size, (atom + 1) * size - 1
        if ranges and ranges[-1][1] == first - 1:
            ranges[-1][1] = last
        else:
            ranges.append([first, last])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)
