"""Holds the slices of one node to their parts: which mechanism does it for which device, and what was made.

    equip(devices)    tries the mechanisms of each device, best first, and says on the device what it got
    prepare(cell)     makes what a slice needs; the cell is on disk before that
    resize, usage     of running slices
    release(slice)    undoes it when the slice's processes are gone
    recover()         undoes what agents left that have died

Thread-safe; every method may take as long as the maker's commands do.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from flexray.devices.cells import CellFile
from flexray.devices.enforcers import ENFORCERS, Maker
from flexray.devices.enforcers.enforcer import Cell, Enforcer, NotResizable, SliceSetup, Support, Usage
from flexray.model.devices import BackendReport, Device
from flexray.model.isolation import Isolation

_log = logging.getLogger(__name__)


class Enforcement:
    """The enforcers of one node, and the slices they hold.

    Args:
        node: id of the node.
        state: a directory private to the user that outlives the process.
        wanted: type pattern -> mechanism to use there; where none is given, the best that works.
        makers: the enforcers of each backend, best first.
    """

    def __init__(
        self,
        node: str,
        state: Path,
        wanted: Mapping[str, str] | None = None,
        makers: Mapping[str, Sequence[Maker]] = ENFORCERS,
    ) -> None:
        self._enforcers = {name: [make(node, state) for make in row] for name, row in makers.items()}
        self._wanted = dict(wanted or {})
        self._file = CellFile(state / "cells.json")
        self._equipped: dict[str, _Equipped] = {}
        self._cells: dict[str, tuple[Enforcer, Cell]] = {}
        self._lock = threading.RLock()

    def equip(self, devices: Sequence[Device]) -> tuple[Device, ...]:
        """The devices with what their slices will be held by; found out once for each device."""
        with self._lock:
            fresh = [device for device in devices if device.id not in self._equipped]
            for backend in sorted({device.backend for device in fresh}):
                self._choose(backend, [device for device in fresh if device.backend == backend])
            return tuple(self._equipped[device.id].on(device) for device in devices)

    def reports(self) -> tuple[BackendReport, ...]:
        """What came of each mechanism that was tried: how many devices it holds, or why it holds none of some."""
        held = Counter(one.enforcer.isolation.value for one in self._equipped.values() if one.enforcer is not None)
        reasons: dict[str, dict[str, None]] = {}
        for equipped in self._equipped.values():
            for mechanism, reason in equipped.refused:
                reasons.setdefault(mechanism, {})[reason] = None
        names = sorted({*held, *reasons})
        return tuple(BackendReport(f"isolation {n}", held[n], "; ".join(reasons.get(n, ()))) for n in names)

    def prepare(self, cell: Cell) -> SliceSetup:
        """Make what a slice needs. Raises IsolationFailed, leaving nothing."""
        enforcer = self._enforcer_of(cell)
        if enforcer is None:
            return SliceSetup()
        with self._lock:
            self._cells[cell.slice] = (enforcer, cell)
            self._file.add(enforcer.isolation, cell)
        try:
            return enforcer.prepare(cell)
        except BaseException:
            self.release(cell.slice)
            raise

    def resize(self, cell: Cell) -> SliceSetup:
        """A running slice gets the amounts of ``cell``; returns what its process has to change in its turn.

        Where nothing holds slices there is nothing to change. Raises NotResizable or IsolationFailed, changing nothing.
        """
        enforcer, before = self._cells.get(cell.slice, (None, cell))
        if enforcer is None:
            if self._enforcer_of(cell) is None:
                return SliceSetup()
            raise NotResizable(f"slice {cell.slice} is not held here; was it prepared?")
        with self._lock:
            self._file.add(enforcer.isolation, cell)
            self._cells[cell.slice] = (enforcer, cell)
        try:
            enforcer.resize(cell)
            return enforcer.prepare(cell)  # may be repeated; says what the process is to be told
        except BaseException:
            with self._lock:
                self._file.add(enforcer.isolation, before)
                self._cells[cell.slice] = (enforcer, before)
            raise

    def usage(self, name: str, pids: Collection[int]) -> Usage:
        """What a slice, whose processes these are, uses now."""
        enforcer, cell = self._cells.get(name, (None, None))
        return Usage() if enforcer is None or cell is None else enforcer.usage(cell, pids)

    def release(self, name: str) -> None:
        """Remove what was made for a slice; its processes are gone. What cannot be removed is tried again later."""
        enforcer, cell = self._cells.get(name, (None, None))
        if enforcer is not None and cell is not None and _release(enforcer, cell):
            with self._lock:
                del self._cells[name]
                self._file.remove(name)

    def recover(self) -> None:
        """Undo what agents that have died left behind. Call before the first ``prepare``; their slices are gone."""
        with self._lock:
            for isolation, cell in self._file.load():
                enforcer = self._find(cell.devices[0].backend, isolation)
                if enforcer is None or _release(enforcer, cell):
                    self._file.remove(cell.slice)
                else:
                    self._cells[cell.slice] = (enforcer, cell)
            self._sweep(tuple(self._cells))

    def close(self) -> None:
        """Every slice is gone: leave the node as it was found."""
        for name in list(self._cells):
            self.release(name)
        self._sweep(())

    def _sweep(self, keep: Collection[str]) -> None:
        """Remove what is nobody's any more; where one mechanism cannot, the others still do."""
        for enforcer in _each(self._enforcers.values()):
            try:
                enforcer.sweep(keep)
            except Exception as error:
                _log.warning("what %s left behind cannot be removed: %s", enforcer.isolation.value, error)

    def _choose(self, backend: str, devices: list[Device]) -> None:
        """Give each device the first mechanism that works on it, of those that are wanted there."""
        refused: dict[str, list[tuple[str, str]]] = {device.id: [] for device in devices}
        left = devices
        for enforcer in self._enforcers.get(backend, []):
            tried = [d for d in left if (wish := self._wish(d)) is None or wish is enforcer.isolation]
            answers = enforcer.probe(tried) if tried else {}
            for device in tried:
                support = answers.get(device.id, Support(False, "no answer"))
                if support.usable:
                    self._equipped[device.id] = _Equipped(enforcer, support, tuple(refused[device.id]))
                else:
                    refused[device.id].append((enforcer.isolation.value, support.reason))
            left = [device for device in left if device.id not in self._equipped]
        for device in left:
            self._equipped[device.id] = _Equipped(None, Support(False), tuple(refused[device.id]))

    def _wish(self, device: Device) -> Isolation | None:
        """The mechanism that the configuration asks for on a device's type."""
        return next((Isolation(v) for k, v in self._wanted.items() if fnmatchcase(device.type.name, k)), None)

    def _enforcer_of(self, cell: Cell) -> Enforcer | None:
        equipped = self._equipped.get(cell.devices[0].id) if cell.devices else None
        return None if equipped is None else equipped.enforcer

    def _find(self, backend: str, isolation: Isolation) -> Enforcer | None:
        return next((one for one in self._enforcers.get(backend, []) if one.isolation is isolation), None)


@dataclasses.dataclass(frozen=True, slots=True)
class _Equipped:
    """What a device's slices are held by, and what was refused before."""

    enforcer: Enforcer | None
    support: Support
    refused: tuple[tuple[str, str], ...]

    def on(self, device: Device) -> Device:
        isolation = Isolation.NONE if self.enforcer is None else self.enforcer.isolation
        support = self.support
        return dataclasses.replace(
            device, isolation=isolation, memory_limit=support.memory, profiles=support.profiles or device.profiles
        )


def _each(rows: Collection[Sequence[Enforcer]]) -> list[Enforcer]:
    return [enforcer for row in rows for enforcer in row]


def _release(enforcer: Enforcer, cell: Cell) -> bool:
    try:
        enforcer.release(cell)
    except Exception as error:
        _log.warning("what was made for slice %s cannot be removed: %s", cell.slice, error)
        return False
    return True
