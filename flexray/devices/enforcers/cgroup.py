"""CPU devices by the kernel's control groups: quota and, with cgroup v2, memory of all processes of a slice together.

The kind is chosen by trying: a scratch process is moved into a scratch group whose limits are
read back. cgroup v2 comes first, then a part of it that systemd hands over, then cgroup v1.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from flexray.devices.enforcers.cgroup_tree import Groups, Tree
from flexray.devices.enforcers.cgroup_v1 import CgroupV1
from flexray.devices.enforcers.cgroup_v2 import CgroupV2
from flexray.devices.enforcers.command import Run, run_command
from flexray.devices.enforcers.control_files import read, write
from flexray.devices.enforcers.cpu_amounts import device_seconds, limits_of, no_cores
from flexray.devices.enforcers.data_limit import data_limit_strength
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.framework import told
from flexray.devices.enforcers.process_use import cpu_seconds, private_memory
from flexray.devices.enforcers.quota import PERIOD_US
from flexray.devices.enforcers.systemd_unit import SystemdUnit
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength

_TRIAL_SHARE = Share(250)
_TRIAL_MEMORY = MemoryMiB(64)
_PROCS = "cgroup.procs"
_END_SECONDS = 2.0


class Cgroup:
    """One tree of groups, of the first kind that works.

    Args:
        root: ``sys/fs/cgroup`` and ``proc`` are read there.
        run: runs systemd's commands.
        state: not needed; the kernel's folders say what was made.
        name: of the uppermost group.
    """

    isolation = Isolation.CGROUP

    def __init__(
        self,
        root: Path = Path("/"),
        run: Run = run_command,
        state: Path = Path("/run/flexray"),
        name: str = f"flexray-{os.getuid()}",
    ) -> None:
        self._proc = root / "proc"
        self._trees = [Tree(groups, name) for groups in _kinds(root / "sys/fs/cgroup", run)]
        self._tree: Tree | None = None
        #: Why each kind before the chosen one does not work.
        self._reasons: list[str] = []
        #: Slice -> MiB it was given; for those whose memory nobody can change.
        self._memory: dict[str, MemoryMiB] = {}
        self._lock = threading.Lock()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Tries each device for real, with a scratch process; kinds are tried until one works."""
        with self._lock:
            return {device.id: self._try_device(device) for device in devices}

    def prepare(self, cell: Cell) -> SliceSetup:
        """Its groups; the slice joins them itself."""
        setup = told(cell)
        with self._lock:
            tree = self._chosen(cell.devices[0])
            try:
                where = tree.build(cell)
                held = tree.groups.limit_memory(where.parent, cell.memory * len(cell.devices))
            except IsolationFailed as error:
                _remove_quietly(tree, cell)
                raise IsolationFailed(f"slice {cell.slice} on {cell.devices[0].id}: {error}") from None
            self._memory[cell.slice] = cell.memory
        return dataclasses.replace(
            setup,
            isolation=Isolation.CGROUP,
            join=(str(where / _PROCS),),
            data_limit=0 if held else setup.data_limit,
            notes=(f"{tree.groups.name}, in periods of {PERIOD_US // 1000} ms",),
        )

    def resize(self, cell: Cell) -> None:
        """Write the new numbers. Its libraries keep the number of threads that they started with."""
        with self._lock:
            tree = self._find(cell)
            if tree is None:
                raise NotResizable(f"slice {cell.slice} has no control group here; was it prepared?")
            try:
                self._resize(tree, cell)
            except IsolationFailed as error:
                raise NotResizable(f"slice {cell.slice} keeps its size: {error}") from None

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """From the kernel's accounts of the group where it keeps some, else from those of the processes."""
        tree = self._find(cell)
        seconds = tree.groups.cpu_seconds(tree.place(cell)) if tree else None
        memory = tree.groups.memory(tree.place(cell)) if tree else None
        killed = tree.groups.out_of_memory(tree.place(cell)) if tree else False
        if seconds is None:
            seconds = cpu_seconds(self._proc, pids)
        return Usage(
            None if seconds is None else device_seconds(cell, seconds),
            private_memory(self._proc, pids) if memory is None else memory,
            killed,
        )

    def release(self, cell: Cell) -> None:
        """Remove its groups, whichever kind they are."""
        with self._lock:
            self._memory.pop(cell.slice, None)
            for tree in self._trees:
                if tree.place(cell).exists():
                    tree.remove(cell)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove empty groups of agents that have died."""
        with self._lock:
            for tree in self._trees:
                tree.sweep(keep)

    def _find(self, cell: Cell) -> Tree | None:
        return next((tree for tree in self._trees if tree.place(cell).exists()), None)

    def _chosen(self, device: Device) -> Tree:
        if self._tree is None and not self._try_device(device).usable:
            raise IsolationFailed(f"{device.id}: no control groups here: {'; '.join(self._reasons)}")
        assert self._tree is not None
        return self._tree

    def _resize(self, tree: Tree, cell: Cell) -> None:
        place, before = tree.place(cell), self._memory.get(cell.slice)
        held = tree.groups.limit_memory(place, cell.memory * len(cell.devices))
        try:  # without a limit of the kernel's for memory, the slice's process moves that of its heap
            tree.groups.limit(place, limits_of(cell))
        except IsolationFailed:
            if held and before is not None:
                tree.groups.limit_memory(place, before * len(cell.devices))
            raise
        self._memory[cell.slice] = cell.memory

    def _try_device(self, device: Device) -> Support:
        reason = no_cores(device)
        if reason:
            return Support(False, reason)
        if self._tree is not None:
            return self._answer(self._tree, device)
        self._reasons = []
        for tree in self._trees:
            answer = self._answer(tree, device)
            if answer.usable:
                self._tree = tree
                return answer
            self._reasons.append(answer.reason)
        return Support(False, "; ".join(self._reasons))

    def _answer(self, tree: Tree, device: Device) -> Support:
        cell = Cell(f"trial-{os.getpid()}", (device,), _TRIAL_SHARE, _TRIAL_SHARE, _TRIAL_MEMORY)
        try:
            held = _try_for_real(tree, cell)
        except (IsolationFailed, OSError) as error:
            return Support(False, f"{tree.groups.name}: {error}")
        return Support(True, memory=Strength.HARD if held else data_limit_strength())


def _kinds(mount: Path, run: Run) -> list[Groups]:
    """In the order in which they are tried; on hosts with both versions v2 is at ``unified``."""
    unified = mount if (mount / "cgroup.controllers").exists() else mount / "unified"
    together = mount / "cpu,cpuacct"
    return [
        CgroupV2(unified),
        *(SystemdUnit(unified, run, uid) for uid in sorted({0, os.getuid()}, reverse=True)),
        CgroupV1(together if together.exists() else mount / "cpu"),
    ]


def _try_for_real(tree: Tree, cell: Cell) -> bool:
    """Hold a process of our own as if it were a slice; whether its memory is held too. Leaves nothing behind."""
    scratch = subprocess.Popen(("sleep", "60"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        where = tree.build(cell)
        held = tree.groups.limit_memory(where.parent, cell.memory)
        write(where / _PROCS, str(scratch.pid))
        if str(scratch.pid) not in read(where / _PROCS).split():
            raise IsolationFailed(f"{where / _PROCS}: a process that was moved there is not there")
        asked, read_back = limits_of(cell).cap, tree.groups.cap(where.parent)
        if read_back != asked:
            raise IsolationFailed(f"{where.parent}: {read_back / 1000:g} cores where {asked / 1000:g} were written")
        return held
    finally:
        scratch.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # held by the kernel: the tree's removal says so
            scratch.wait(_END_SECONDS)
        _remove_quietly(tree, cell)


def _remove_quietly(tree: Tree, cell: Cell) -> None:
    """Undo what was begun; the error that is on its way is the one to tell."""
    try:
        tree.remove(cell)
    except IsolationFailed:
        pass
