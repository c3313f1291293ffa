"""NVIDIA MIG: a slice is a GPU instance with compute, memory and faults of its own.

Instances are made on demand at the places that the books name, and kept when their slice has
gone: making one takes seconds, and the next slice often wants the same. They are destroyed
when a new one needs their places, or by ``sweep``. What flexray did not make it never
destroys; an instance that the operator made is used where a slice fits it exactly.

What was made is written down before it is made (``mig.json``), so that a crash leaves nothing unknown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from flexray.devices.enforcers.command import CommandFailed, Run, run_command
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.mig_records import Record, read_records, write_records
from flexray.devices.enforcers.nvidia_smi import Instance, NvidiaSmi
from flexray.errors import DeviceError, IsolationFailed
from flexray.model.amounts import WHOLE
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength
from flexray.model.partition import Profile

_ON, _OFF = "Enabled", "Disabled"


class Mig:
    """Makes, finds and destroys GPU instances with ``nvidia-smi mig``. One thread at a time."""

    isolation = Isolation.MIG

    def __init__(self, state: Path, run: Run = run_command) -> None:
        """Args: state: folder of ``mig.json``. run: runs nvidia-smi."""
        self._smi = NvidiaSmi(run)
        self._file = state / "mig.json"
        self._lock = threading.Lock()
        #: GPU -> profile id -> profile; what a GPU can be cut into does not change.
        self._known: dict[str, dict[int, Profile]] = {}

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Usable where MIG mode is on and instances may be listed, which takes the same right as making them."""
        return {device.id: self._support(device.key) for device in devices}

    def _support(self, gpu: str) -> Support:
        if not gpu:
            return Support(False, "the GPU has no UUID; MIG needs NVIDIA's driver to find it")
        try:
            mode = self._smi.query(gpu, "mig.mode.current")
            if mode != _ON:
                return Support(False, f"MIG mode is {mode or 'unknown'}: nvidia-smi -i {gpu} -mig 1 turns it on (root)")
            with self._lock:
                strangers = self._strangers(gpu)
            profiles = tuple(_beside(p, strangers) for p in self._profiles(gpu).values())
        except (DeviceError, OSError, ValueError) as error:
            return Support(False, f"MIG instances cannot be managed here, it takes root: {error}")
        usable = tuple(sorted((p for p in profiles if p.starts), key=lambda p: (p.share, p.memory, p.name)))
        if not usable:
            return Support(False, "every place of the GPU is taken by MIG instances that flexray did not make")
        return Support(True, memory=Strength.HARDWARE, profiles=usable)

    def prepare(self, cell: Cell) -> SliceSetup:
        """The slice's instance: its own from before, one that lies there unused, or a new one."""
        if len(cell.devices) != 1:
            raise IsolationFailed(
                f"{cell.slice}: CUDA gives a process one MIG device, the slice asks for {len(cell.devices)} GPUs; "
                "turn MIG mode off on GPUs that are used together"
            )
        (device,) = cell.devices
        with self._lock:
            again = any(record.slice == cell.slice for record in self._records())
            try:
                number, profile, start = self._choose(cell, device.key)
                self._occupy(cell, device.key, number, profile, start)
                instance = next(i for i in self._smi.instances(device.key) if i.start == start)
                name = self._smi.mig_device(device.key, instance.number)
            except (DeviceError, OSError, ValueError, StopIteration) as error:
                if not again:
                    self._let_go(cell.slice)
                raise error if isinstance(error, IsolationFailed) else _failed(cell, device, error) from error
        return SliceSetup(
            isolation=self.isolation,
            launch={"CUDA_VISIBLE_DEVICES": name, "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"},
            notes=(f"MIG {profile.name} at place {start} of {device.id}: {profile.memory} MiB",),
        )

    def resize(self, cell: Cell) -> None:
        """Always NotResizable."""
        raise NotResizable("a MIG instance cannot change its size while it runs; stop the slice and ask for a new one")

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Memory by the slice's processes; a GPU in MIG mode does not tell how busy it is."""
        return self._smi.memory_of(pids)

    def release(self, cell: Cell) -> None:
        """Its instance stays for the next slice of that size at that place."""
        with self._lock:
            self._let_go(cell.slice)

    def sweep(self, keep: Collection[str]) -> None:
        """Destroy what flexray made and none of these slices has; what is still in use is left for later."""
        with self._lock:
            kept = []
            for record in self._records():
                if record.slice in keep:
                    kept.append(record)
                elif record.made and not self._is_gone(record):
                    kept.append(dataclasses.replace(record, slice=""))
            write_records(self._file, kept)

    def enable(self, device: Device) -> None:
        """Turn MIG mode on for an idle GPU, as root. Raises IsolationFailed, leaving it off."""
        self._switch(device, True)

    def disable(self, device: Device) -> None:
        """Turn MIG mode off for an idle GPU, destroying its free instances. Raises IsolationFailed, leaving it on."""
        with self._lock:
            mine = [record for record in self._records() if record.gpu == device.key]
            if held := [record.slice for record in mine if record.slice]:
                raise IsolationFailed(f"{device.id} stays in MIG mode: slices {', '.join(held)} hold parts of it")
            left = [record for record in self._records() if record.gpu != device.key or not self._is_gone(record)]
            write_records(self._file, left)
        self._switch(device, False)

    def _switch(self, device: Device, on: bool) -> None:
        wanted = _ON if on else _OFF
        try:
            said = self._smi.set_mig_mode(device.key, on)
            if self._smi.query(device.key, "mig.mode.current") == wanted:
                return
            self._smi.set_mig_mode(device.key, not on)  # or it would come about at the next reset, unasked
        except CommandFailed as error:
            raise IsolationFailed(f"MIG mode of {device.id} cannot be {wanted.lower()}: {error}") from error
        raise IsolationFailed(
            f"MIG mode of {device.id} cannot be {wanted.lower()} now: {' '.join(said.split())}; end what uses the GPU, "
            f"or reset it (nvidia-smi --gpu-reset -i {device.key})"
        )

    def _choose(self, cell: Cell, gpu: str) -> tuple[int, Profile, int]:
        """Profile id, profile and start: as the books say, or all of the GPU."""
        known = self._profiles(gpu)
        whole = max(known.values(), key=lambda profile: (profile.share, profile.memory)).name
        name, start = (cell.profile.name, cell.start) if cell.profile else (whole, 0)
        found = next(((number, profile) for number, profile in known.items() if profile.name == name), None)
        if found is None or start not in found[1].starts or (cell.profile is None and cell.share < WHOLE):
            sizes = ", ".join(f"{p.name} at {'/'.join(map(str, p.starts))}" for p in known.values())
            asked = f"{name} at place {start}" if cell.profile else f"part of {cell.share}/1000 without a size"
            raise IsolationFailed(f"{cell.slice}: {gpu} has no MIG {asked}; it has {sizes}")
        return *found, start

    def _occupy(self, cell: Cell, gpu: str, number: int, profile: Profile, start: int) -> None:
        """Write down that the slice has this place, and make its instance unless it is there."""
        records = {(r.gpu, r.start): r for r in self._records()}
        there = False
        for instance in self._smi.instances(gpu):
            if not instance.meets(start, profile.width):
                continue
            record = records.get((gpu, instance.start))
            if record and record.slice and record.slice != cell.slice:
                raise IsolationFailed(f"{cell.slice}: its place on {gpu} is still held by {record.slice}")
            if (instance.profile, instance.start) == (profile.name, start):
                there = True
            elif record and record.made:
                self._smi.destroy(gpu, instance.number)
                records.pop((gpu, instance.start))
            else:
                raise IsolationFailed(
                    f"{cell.slice}: MIG instance {instance.number} ({instance.profile} at {instance.start}) is in the "
                    f"way on {gpu}, and flexray did not make it; destroy it (nvidia-smi mig -dci, -dgi)"
                )
        before = records.get((gpu, start))
        made = before.made if there and before else not there
        records[gpu, start] = Record(gpu, profile.name, start, cell.slice, made)
        write_records(self._file, records.values())
        if not there:
            self._create(gpu, number, start)

    def _create(self, gpu: str, number: int, start: int) -> None:
        try:
            self._smi.create(gpu, number, start)
        except CommandFailed:
            with contextlib.suppress(DeviceError):  # a GPU instance whose compute instance failed is of no use
                for instance in self._smi.instances(gpu):
                    if instance.start == start:
                        self._smi.destroy(gpu, instance.number)
            raise

    def _let_go(self, slice_id: str) -> None:
        records = self._records()
        changed = [dataclasses.replace(r, slice="") if r.slice == slice_id else r for r in records]
        if changed != records:
            write_records(self._file, [record for record in changed if record.slice or record.made])

    def _is_gone(self, record: Record) -> bool:
        """Destroy the instance of a record; whether there is none now."""
        try:
            for instance in self._smi.instances(record.gpu):
                if (instance.profile, instance.start) == (record.profile, record.start):
                    self._smi.destroy(record.gpu, instance.number)
        except DeviceError:
            return False
        return True

    def _strangers(self, gpu: str) -> tuple[Instance, ...]:
        """Instances that flexray did not make."""
        mine = {(r.profile, r.start) for r in self._records() if r.gpu == gpu and r.made}
        return tuple(i for i in self._smi.instances(gpu) if (i.profile, i.start) not in mine)

    def _profiles(self, gpu: str) -> dict[int, Profile]:
        if gpu not in self._known:
            self._known[gpu] = self._smi.profiles(gpu)
        return self._known[gpu]

    def _records(self) -> list[Record]:
        return read_records(self._file)


def _beside(profile: Profile, strangers: Sequence[Instance]) -> Profile:
    """The profile with the starts that are left beside instances of others; one of theirs it may be itself."""
    starts = tuple(
        start
        for start in profile.starts
        if all((i.profile, i.start) == (profile.name, start) or not i.meets(start, profile.width) for i in strangers)
    )
    return dataclasses.replace(profile, starts=starts)


def _failed(cell: Cell, device: Device, error: BaseException) -> IsolationFailed:
    said = str(error) or "nvidia-smi does not list the instance that it has made"
    return IsolationFailed(f"{cell.slice}: no MIG instance on {device.id}: {said}")
