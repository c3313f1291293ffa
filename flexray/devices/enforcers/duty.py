"""CPU devices without control groups: a slice's processes are stopped and continued, so that they run for their share.

A slice tells its process number in a file, as it would join a control group; its children are
found by descent, once a second. The average is held; within a period of a tenth of a second a slice
takes all cores of its device and then stands still, answers to calls included.

A child that lives for less than a second, or that has left its parent before it was seen, is not counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from flexray.devices.enforcers.cgroup_tree import file_name
from flexray.devices.enforcers.command import Run, run_command
from flexray.devices.enforcers.cpu_amounts import MILLI, cores_of, device_seconds, limits_of, no_cores
from flexray.devices.enforcers.data_limit import data_limit_strength
from flexray.devices.enforcers.duty_beat import Beat, Member
from flexray.devices.enforcers.duty_lending import Lending
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.framework import told
from flexray.devices.enforcers.process_use import Known, cpu_seconds, descendants, known, private_memory, state_of
from flexray.devices.private import only_mine, private_folder
from flexray.errors import DeviceError, IsolationFailed
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength

_FAMILY_SECONDS = 1.0
"""How often children are looked for: it reads all of /proc."""
_SCRATCH_SECONDS = 2.0
_PIDS = "pids"


class _Worked:
    """A slice, its duty cycle, the file in which it tells its process number, and who has been named in it."""

    def __init__(self, cell: Cell, file: Path, now: float) -> None:
        self.cell, self.file = cell, file
        self.beat = Beat(limits_of(cell), len(cores_of(cell)), now)
        self.named: set[Known] = set()


class Duty:
    """One thread for all slices of the node; it runs while there are any.

    Args:
        root: ``proc`` is read there.
        run: not needed.
        state: slices tell their process numbers below it.
    """

    isolation = Isolation.DUTY

    def __init__(self, root: Path = Path("/"), run: Run = run_command, state: Path = Path("/run/flexray")) -> None:
        self._proc, self._folder = root / "proc", state / "duty"
        self._slices: dict[str, _Worked] = {}
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Stops and continues a scratch process, and reads its CPU clock."""
        reason = self._try_for_real()
        memory = Strength.NONE if reason else data_limit_strength()
        answers = {}
        for device in devices:
            why = no_cores(device) or reason
            answers[device.id] = Support(not why, why, memory=Strength.NONE if why else memory)
        return answers

    def prepare(self, cell: Cell) -> SliceSetup:
        """A file for its process number, and its account."""
        setup = told(cell)
        with self._lock:
            worked = self._slices.get(cell.slice)
            if worked is None:
                file = self._folder / file_name(cell.slice) / _PIDS
                try:
                    private_folder(file.parent)
                    file.touch()
                except (OSError, DeviceError) as error:
                    raise IsolationFailed(f"{file}: cannot be made: {error}") from None
                worked = self._slices[cell.slice] = _Worked(cell, file, time.monotonic())
            else:
                self._set(worked, cell)
            self._work()
        return dataclasses.replace(
            setup,
            isolation=Isolation.DUTY,
            join=(str(worked.file),),
            notes=("it is stopped between its turns, and answers nothing then",),
        )

    def resize(self, cell: Cell) -> None:
        """The account earns at the new rate from now on; the limit of its heap its process moves itself."""
        with self._lock:
            worked = self._slices.get(cell.slice)
            if worked is None:
                raise NotResizable(f"slice {cell.slice} is not known here; was it prepared?")
            self._set(worked, cell)
            self._changed.set()

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """From the processes' own accounts; the processes named here are looked after from now on."""
        with self._lock:
            worked = self._slices.get(cell.slice)
            if worked is not None:
                worked.named.update(one for one in (known(self._proc, pid) for pid in pids) if one)
        seconds = cpu_seconds(self._proc, pids)
        busy = None if seconds is None else device_seconds(cell, seconds)
        return Usage(busy, private_memory(self._proc, pids))

    def release(self, cell: Cell) -> None:
        """Whoever is left goes on."""
        with self._lock:
            self._drop(cell.slice)
            shutil.rmtree(self._folder / file_name(cell.slice), ignore_errors=True)

    def sweep(self, keep: Collection[str]) -> None:
        """An agent that died may have left slices stopped: they go on, and are then for the agent to end."""
        with self._lock:
            for name in [name for name in self._slices if name not in keep]:
                self._drop(name)
        names = {file_name(one) for one in keep}
        try:
            left = sorted(self._folder.iterdir())
        except OSError:
            return
        for folder in left:
            if folder.name not in names:
                for member in descendants(self._proc, _named_in(self._proc, folder / _PIDS)):
                    _continue(member)
                shutil.rmtree(folder, ignore_errors=True)

    def _drop(self, name: str) -> None:
        worked = self._slices.pop(name, None)
        if worked is not None:
            worked.beat.close()
            self._changed.set()

    def _set(self, worked: _Worked, cell: Cell) -> None:
        worked.cell, worked.beat.limits = cell, limits_of(cell)
        worked.beat.rate = worked.beat.limits.weight / MILLI
        worked.beat.next = time.monotonic()

    def _work(self) -> None:
        """See that the thread runs."""
        self._changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="flexray-duty", daemon=True)
            self._thread.start()

    def _main(self) -> None:
        lending, families = Lending(), 0.0
        while True:
            self._changed.clear()
            with self._lock:
                if not self._slices:
                    self._thread = None
                    return
                now = time.monotonic()
                if now >= families:
                    families = now + _FAMILY_SECONDS
                    self._look_for_families()
                self._look_for_news()
                lending.update([(one.cell.devices[0].id, one.beat) for one in self._slices.values()], now)
                for worked in self._slices.values():
                    if worked.beat.next <= now:
                        worked.beat.step(now)
                wake = min(worked.beat.next for worked in self._slices.values())
            self._changed.wait(max(0.0, wake - time.monotonic()))

    def _look_for_news(self) -> None:
        """Slices that have just told who they are: their first second counts too."""
        for worked in self._slices.values():
            if not worked.beat.members:
                worked.named.update(_named_in(self._proc, worked.file))
                worked.beat.meet(worked.named)

    def _look_for_families(self) -> None:
        for worked in self._slices.values():
            before = worked.beat.members
            # Those seen before stay when their parents end, and so do their children.
            family = descendants(self._proc, {*worked.named, *before})
            worked.named.intersection_update(family)
            worked.beat.meet(family)
            if family and family != before:
                _note(worked.file, family)

    def _try_for_real(self) -> str:
        """Why it does not work here, or ""."""
        if not hasattr(os, "pidfd_open"):
            return "duty: needs Linux, whose processes can be held by descriptors"
        try:
            scratch = subprocess.Popen(("sleep", "60"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except OSError as error:
            return f"duty: no scratch process: {error}"
        try:
            found = known(self._proc, scratch.pid)
            if found is None:
                return f"duty: {self._proc} does not tell of processes"
            member = Member(found)
            member.send(signal.SIGSTOP)
            stopped = _wait_for_state(self._proc, scratch.pid, "T")
            member.close()
            return "" if stopped else "duty: a process that was sent SIGSTOP did not stop"
        except OSError as error:
            return f"duty: {error}"
        finally:
            scratch.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                scratch.wait(_SCRATCH_SECONDS)


def _named_in(proc: Path, file: Path) -> set[Known]:
    """Processes whose numbers stand in the file and that live."""
    try:
        numbers = [int(word) for word in file.read_text().split() if word.isdigit()]
    except OSError:
        return set()
    return {one for one in (known(proc, number) for number in numbers) if one}


def _note(file: Path, family: Sequence[Known]) -> None:
    """Who belongs to the slice, as a control group's file says it; after a crash it tells who may be stopped."""
    fresh = file.with_name(f"{file.name}.new")
    try:
        with open(fresh, "w", opener=only_mine) as out:
            out.writelines(f"{one.pid}\n" for one in family)
        os.replace(fresh, file)
    except OSError:
        pass  # the folder is gone or full; the slice is held without


def _continue(process: Known) -> None:
    try:
        member = Member(process)
    except OSError:
        return
    member.send(signal.SIGCONT)
    member.close()


def _wait_for_state(proc: Path, pid: int, state: str) -> bool:
    deadline = time.monotonic() + _SCRATCH_SECONDS
    while state_of(proc, pid) != state:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
