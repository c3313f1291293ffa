"""``nvidia-smi``: what the enforcers of NVIDIA GPUs ask it and tell it. GPUs are named by their UUID.

The tables of ``nvidia-smi mig`` are read as NVIDIA's MIG user guide prints them.
"""

from __future__ import annotations

import math
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection
from dataclasses import dataclass

from flexray.devices.enforcers.command import CommandFailed, Run
from flexray.devices.enforcers.enforcer import Usage
from flexray.errors import DeviceError
from flexray.model.amounts import MemoryMiB
from flexray.model.partition import Profile, slots_share

_PROFILE_ROW = re.compile(r"\|\s*\d+\s+MIG\s+((\d+)g\.\d+gb)\s+(\d+)\s+\d+/\d+\s+([\d.]+)\s")
"""Index, name, id, free/total, memory in GiB. Names with ``+me`` and the like are the same part with other engines."""
_PLACES_ROW = re.compile(r"Profile ID\s+(\d+)\s+Placements?\s*:\s*\{([\d,\s]+)\}\s*:\s*(\d+)")
_INSTANCE_ROW = re.compile(r"\|\s*\d+\s+MIG\s+(\S+)\s+\d+\s+(\d+)\s+(\d+):(\d+)\s*\|")
_GPU_LINE = re.compile(r"GPU \d+: .*\(UUID: (\S+)\)")
_DEVICE_LINE = re.compile(r"\s+MIG \S+\s+Device\s+(\d+): \(UUID: (\S+)\)")
_KEPT_SECONDS = 0.5
"""So long one answer serves all slices of a node: they are asked about together, and nvidia-smi takes a while."""
_NONE_THERE = ("No GPU instances found", "No compute instances found", "Not Found")


@dataclass(frozen=True, slots=True)
class Instance:
    """A GPU instance that exists.

    Attributes:
        number: its id on its GPU.
        profile: such as ``1g.5gb``, also with a suffix such as ``+me``.
        start: the first of its places.
        width: how many it takes.
    """

    number: int
    profile: str
    start: int
    width: int

    def meets(self, start: int, width: int) -> bool:
        """Whether it takes one of these places."""
        return self.start < start + width and start < self.start + self.width


class NvidiaSmi:
    """Asks ``nvidia-smi``. Everything raises CommandFailed, or DeviceError where its answer cannot be read."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._asked = (-math.inf, "")

    def query(self, gpu: str, field: str) -> str:
        """One field of ``--query-gpu``, without its unit."""
        return self._run("nvidia-smi", "-i", gpu, f"--query-gpu={field}", "--format=csv,noheader,nounits").strip()

    def set_compute_mode(self, gpu: str, mode: str) -> None:
        """``DEFAULT``, ``EXCLUSIVE_PROCESS`` or ``PROHIBITED``; needs root."""
        self._run("nvidia-smi", "-i", gpu, "-c", mode)

    def set_mig_mode(self, gpu: str, on: bool) -> str:
        """Ask for MIG mode on or off, needs root; what nvidia-smi said. Look at ``mig.mode.current`` afterwards."""
        return self._run("nvidia-smi", "-i", gpu, "-mig", str(int(on)))

    def profiles(self, gpu: str) -> dict[int, Profile]:
        """Id -> size of GPU instance, where GPU instances may be made at all."""
        places = {
            int(number): (int(width), tuple(sorted(int(start) for start in starts.split(","))))
            for number, starts, width in _PLACES_ROW.findall(self._mig(gpu, "-lgipp"))
        }
        rows = [
            (int(number), name, int(slots), float(gigabytes))
            for name, slots, number, gigabytes in _PROFILE_ROW.findall(self._mig(gpu, "-lgip"))
        ]
        if not rows or not places:
            raise DeviceError(f"nvidia-smi lists no GPU instance profiles for {gpu}")
        total = max(slots for _, _, slots, _ in rows)
        return {
            number: Profile(name, slots_share(slots, total), MemoryMiB(int(gigabytes * 1024)), *places[number])
            for number, name, slots, gigabytes in rows
            if number in places
        }

    def instances(self, gpu: str) -> tuple[Instance, ...]:
        """The GPU instances there are, in the order of their places; needs root."""
        rows = _INSTANCE_ROW.findall(self._found(gpu, "-lgi"))
        found = (Instance(int(number), name, int(start), int(width)) for name, number, start, width in rows)
        return tuple(sorted(found, key=lambda instance: instance.start))

    def create(self, gpu: str, profile: int, start: int) -> None:
        """Make a GPU instance and a compute instance that has all of it. Takes seconds."""
        self._mig(gpu, "-cgi", f"{profile}:{start}", "-C")

    def destroy(self, gpu: str, number: int) -> None:
        """Remove a GPU instance with its compute instances. Refused while a process uses it."""
        self._found(gpu, "-dci", "-gi", str(number))
        self._found(gpu, "-dgi", "-gi", str(number))

    def mig_device(self, gpu: str, number: int) -> str:
        """The UUID (``MIG-...``) of the device that a GPU instance is to CUDA."""
        root = ElementTree.fromstring(self._run("nvidia-smi", "-q", "-x", "-i", gpu))
        for device in root.iter("mig_device"):
            if device.findtext("gpu_instance_id", "").strip() == str(number):
                given = device.findtext("uuid", "").strip()
                return given or self._listed(gpu, int(device.findtext("index", "-1")))
        raise DeviceError(f"GPU instance {number} of {gpu} has no MIG device: it has no compute instance")

    def memory_of(self, pids: Collection[int]) -> Usage:
        """Device memory of these processes, as the host numbers them; None for those that are not listed at all."""
        try:
            rows = [line.split(",") for line in self._processes().splitlines()]
            used = [row[1].strip() for row in rows if len(row) == 2 and int(row[0]) in pids]
            return Usage(memory=sum(map(int, used)) if used else None)
        except (CommandFailed, ValueError):  # "[N/A]" where the driver does not tell
            return Usage()

    def _processes(self) -> str:
        """Every process on every GPU, with its memory."""
        asked, said = self._asked
        if time.monotonic() - asked > _KEPT_SECONDS:
            said = self._run("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
            self._asked = (time.monotonic(), said)
        return said

    def _listed(self, gpu: str, index: int) -> str:
        """The UUID of a MIG device by its index on its GPU; only the plain list has it with some drivers."""
        here = ""
        for line in self._run("nvidia-smi", "-L").splitlines():
            if head := _GPU_LINE.match(line):
                here = head[1]
            elif here == gpu and (row := _DEVICE_LINE.match(line)) and int(row[1]) == index:
                return row[2]
        raise DeviceError(f"nvidia-smi -L does not list MIG device {index} of {gpu}")

    def _mig(self, gpu: str, *arguments: str) -> str:
        return self._run("nvidia-smi", "mig", "-i", gpu, *arguments)

    def _found(self, gpu: str, *arguments: str) -> str:
        """As ``_mig``; "" when it fails because there is nothing of the kind."""
        try:
            return self._mig(gpu, *arguments)
        except CommandFailed as error:
            if any(text in error.output for text in _NONE_THERE):
                return ""
            raise
