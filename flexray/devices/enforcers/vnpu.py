"""Ascend virtual NPUs: a chip is cut into parts by the maker's templates, each with its own AI cores and memory.

``npu-smi`` (as root) makes them and destroys them. A chip is either cut up or used whole, never both: while any
virtual NPU is on it, its other cores are there for further ones only. The books know one share, so a template's share
is its part of the chip's AI cores or of its AI CPUs, whichever is more: what fits by that fits by both.

Huawei documents virtual NPUs for containers, which get ``/dev/vdavinci<id>``. What is set here for a plain process
(``ASCEND_RT_VISIBLE_DEVICES`` = the id) has never been tried on hardware.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from flexray.devices.ascend import chip_words
from flexray.devices.commands import CommandFailed, Run, failure, find_command, run_command
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.vnpu_records import Record, VnpuRecords
from flexray.devices.npu_smi import (
    Chip,
    Split,
    Template,
    parse_fields,
    parse_mapping,
    parse_processes,
    parse_split,
    parse_templates,
)
from flexray.devices.visible import ASCEND
from flexray.errors import DeviceError, IsolationFailed
from flexray.model.amounts import WHOLE, MemoryMiB
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength
from flexray.model.partition import Profile, slots_share

ASK_S = 10.0
"""Time limit of a question."""
CHANGE_S = 60.0
"""Time limit of making or destroying a virtual NPU."""

_FIRST, _PER_CHIP = 100, 16
"""Ids of the virtual NPUs on /dev/davinci<n> start at 100 + 16 n; the 310P has the first half of its 16 only."""
_TRIAL = "trial of "
_log = logging.getLogger(__name__)


class Vnpu:
    """Makes and destroys virtual NPUs; those of others are never touched. Thread-safe, one change at a time."""

    isolation = Isolation.VNPU

    def __init__(self, state: Path, run: Run = run_command) -> None:
        """Args: state: a directory that outlives the process. run: runs npu-smi."""
        self._records = VnpuRecords(state / "vnpu.json")
        self._run = run
        self._lock = threading.Lock()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Makes the smallest virtual NPU on an idle chip of each type, and destroys it; else looks only."""
        if not devices:
            return {}
        with self._lock:
            if refusal := self._refusal():
                return {device.id: Support(False, refusal) for device in devices}
            tried: set[str] = set()
            return {device.id: self._support(device, tried) for device in devices}

    def prepare(self, cell: Cell) -> SliceSetup:
        """The slice's virtual NPU, made unless it is there already; for whole chips, that nothing is on them."""
        with self._lock:
            try:
                if cell.share >= WHOLE:
                    return self._whole(cell)
                return self._part(cell)
            except (CommandFailed, ValueError) as error:
                raise IsolationFailed(f"{cell.slice}: no virtual NPU: {error}") from error

    def resize(self, cell: Cell) -> None:
        """Never: a virtual NPU keeps its template."""
        raise NotResizable(
            "isolation vnpu: a virtual NPU keeps the size that it was made with; "
            "end the slice and start its work again on one of the new size"
        )

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Memory of its processes. The maker's figures of use mean nothing on a chip that is cut up."""
        try:
            told = [parse_processes(self._ask("proc-mem", device)) for device in cell.devices]
        except (CommandFailed, ValueError):
            return Usage()
        mine = set(pids)
        return Usage(memory=sum(used for one in told for pid, used in one.items() if pid in mine))

    def release(self, cell: Cell) -> None:
        """Destroy the slice's virtual NPU, if one was made."""
        with self._lock:
            self._destroy(cell.slice)

    def sweep(self, keep: Collection[str]) -> None:
        """Destroy what was made for other slices. What cannot be destroyed stays on record and is tried again."""
        with self._lock:
            try:
                left = sorted(set(self._records.read()) - set(keep))
            except IsolationFailed as error:
                _log.warning("%s", error)
                return
            for name in left:
                try:
                    self._destroy(name)
                except IsolationFailed as error:
                    _log.warning("%s", error)

    # -- below here the lock is held -----------------------------------------------------------

    def _whole(self, cell: Cell) -> SliceSetup:
        for device in cell.devices:
            virtual = self._split(device).virtual
            if virtual:
                ids = ", ".join(map(str, sorted(virtual)))
                raise IsolationFailed(f"{cell.slice}: {device.id} is cut into virtual NPUs ({ids}), it cannot be whole")
        return SliceSetup(self.isolation)

    def _part(self, cell: Cell) -> SliceSetup:
        if len(cell.devices) != 1 or cell.profile is None:
            raise IsolationFailed(f"{cell.slice}: a part of an NPU needs one chip and one of its templates")
        device, template = cell.devices[0], cell.profile.name
        record = self._records.read().get(cell.slice)
        virtual = self._split(device).virtual
        if record is None or record.chip != device.key or record.template != template:
            self._destroy(cell.slice)
            record = Record(device.key, self._free_id(device, virtual), template)
            self._records.add(cell.slice, record)
        if virtual.get(record.number) != template:
            self._create(cell.slice, device, record)
        name = str(record.number)
        return SliceSetup(
            self.isolation,
            env={ASCEND: name, "ASCEND_VISIBLE_DEVICES": name, "ASCEND_RUNTIME_OPTIONS": "VIRTUAL"},
            notes=(f"virtual NPU {name} ({template}, /dev/vdavinci{name}) on chip {device.key}",),
        )

    def _create(self, slice_id: str, device: Device, record: Record) -> None:
        words = (*chip_words(device), "-f", record.template, "-v", str(record.number))
        try:
            self._change("create-vnpu", *words)
        except CommandFailed:
            with contextlib.suppress(DeviceError):  # it may have been made all the same; else the record is kept
                self._destroy(slice_id)
            raise

    def _destroy(self, slice_id: str) -> None:
        """Destroy the virtual NPU on record for a slice, if it is there and the kind that was made."""
        record = self._records.read().get(slice_id)
        if record is None:
            return
        card, chip = record.chip.split(".")
        words = ("-i", card, "-c", chip)
        try:
            there = parse_split(self._npu_smi(ASK_S, "info", "-t", "info-vnpu", *words)).virtual
            if there.get(record.number) == record.template:
                self._change("destroy-vnpu", *words, "-v", str(record.number))
        except CommandFailed as error:
            raise IsolationFailed(f"{slice_id}: virtual NPU {record.number} cannot be destroyed: {error}") from error
        self._records.remove(slice_id)

    def _free_id(self, device: Device, virtual: Collection[int]) -> int:
        first = _FIRST + _PER_CHIP * self._chip(device).physical
        noted = {record.number for record in self._records.read().values()}
        for number in range(first, first + _PER_CHIP):
            if number not in noted and number not in virtual:
                return number
        raise IsolationFailed(f"{device.id} has {_PER_CHIP} virtual NPUs already")

    def _refusal(self) -> str:
        """Why no chip of the node can be cut up for processes of the host; "" when they may be."""
        try:
            mode = parse_fields(self._npu_smi(ASK_S, "info", "-t", "vnpu-mode")).get("vnpu-mode", "unknown")
        except CommandFailed as error:
            return str(error)
        return "" if mode in ("docker", "0") else f"virtual NPUs are in mode {mode}: npu-smi set -t vnpu-mode -d 0"

    def _support(self, device: Device, tried: set[str]) -> Support:
        """``tried``: types of which a chip was tried; making one takes seconds, and chips of a type are alike."""
        try:
            templates = least_cpus(parse_templates(self._ask("template-info", device)))
            split = self._split(device)
            if not templates:
                return Support(False, "the chip has no templates for virtual NPUs")
            strangers = sorted(set(split.virtual) - {record.number for record in self._records.read().values()})
            if strangers:
                return Support(False, f"others have cut it up: virtual NPU {', '.join(map(str, strangers))}")
            idle = not split.virtual and not parse_processes(self._ask("proc-mem", device))
            if idle and device.type.name not in tried:
                self._try(device, min(templates, key=lambda one: (one.cores, one.gigabytes)))
                tried.add(device.type.name)
        except (DeviceError, ValueError) as error:
            return Support(False, str(error))
        return Support(True, memory=Strength.HARDWARE, profiles=tuple(_profile(one, split) for one in templates))

    def _try(self, device: Device, template: Template) -> None:
        name = _TRIAL + device.key
        record = Record(device.key, self._free_id(device, ()), template.name)
        self._records.add(name, record)
        self._create(name, device, record)
        self._destroy(name)

    def _chip(self, device: Device) -> Chip:
        for chip in parse_mapping(self._npu_smi(ASK_S, "info", "-m")):
            if chip.key == device.key:
                return chip
        raise IsolationFailed(f"npu-smi knows no chip {device.key!r} ({device.id})")

    def _split(self, device: Device) -> Split:
        return parse_split(self._ask("info-vnpu", device))

    def _ask(self, what: str, device: Device) -> str:
        return self._npu_smi(ASK_S, "info", "-t", what, *chip_words(device))

    def _change(self, *words: str) -> None:
        said = self._npu_smi(CHANGE_S, "set", "-t", *words)
        if not re.search(r"Status\s*:\s*OK", said):
            raise failure("npu-smi", said)

    def _npu_smi(self, seconds: float, *words: str) -> str:
        return self._run([find_command("npu-smi", "/usr/local/bin", "/usr/local/sbin"), *words], seconds)


def least_cpus(templates: Sequence[Template]) -> list[Template]:
    """One template of each size: that with the fewest AI CPUs, which leaves the most for others."""
    chosen: dict[tuple[int, int], Template] = {}
    for one in sorted(templates, key=lambda one: (one.cpus, len(one.name), one.name)):
        chosen.setdefault((one.cores, one.gigabytes), one)
    return [chosen[size] for size in sorted(chosen)]


def _profile(template: Template, chip: Split) -> Profile:
    shares = [slots_share(template.cores, chip.cores)]
    if chip.cpus:
        shares.append(slots_share(template.cpus, chip.cpus))
    return Profile(template.name, max(shares), MemoryMiB(template.gigabytes * 1024))
