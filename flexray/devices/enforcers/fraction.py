"""Torch's own memory limit, for devices that nothing stronger holds: GPUs and NPUs of any maker.

Torch's allocator in each process of the slice refuses to grow over the slice's part of the
device. Compute is not limited at all, nor is memory that is not torch's (other libraries, the
context itself); code can lift the limit with one call. So the mechanism is NONE, with memory
cooperative: FRAMEWORK would promise an advice on compute that nobody gives.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flexray.devices.enforcers.command import Run, run_command
from flexray.devices.enforcers.enforcer import Cell, SliceSetup, Support, Usage
from flexray.devices.enforcers.nvidia_smi import NvidiaSmi
from flexray.errors import IsolationFailed
from flexray.model.amounts import WHOLE
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength

_MAKERS = ("nvidia", "amd", "intel", "ascend")
"""Backends whose devices torch gives memory of: torch.cuda, torch.xpu, torch.npu."""


class Fraction:
    """Tells slices their part; torch in the slice keeps to it. Nothing is made on the node."""

    isolation = Isolation.NONE

    def __init__(self, run: Run = run_command) -> None:
        """Args: run: runs nvidia-smi, for what a slice uses."""
        self._smi = NvidiaSmi(run)
        self._usable: set[str] = set()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Usable wherever torch has an allocator and the size of the device's memory is known."""
        answers = {device.id: self._support(device) for device in devices}
        self._usable |= {name for name, support in answers.items() if support.usable}
        return answers

    def _support(self, device: Device) -> Support:
        if device.backend not in _MAKERS:
            return Support(False, f"torch has no allocator with a limit for devices of {device.backend}")
        if device.type.memory <= 0:
            return Support(False, "the size of its memory is not known")
        return Support(True, memory=Strength.COOPERATIVE)

    def prepare(self, cell: Cell) -> SliceSetup:
        """The slice's part of its smallest device's memory."""
        if strangers := [device.id for device in cell.devices if device.id not in self._usable]:
            raise IsolationFailed(f"{cell.slice}: {', '.join(strangers)} was not found on this node")
        smallest = min(device.type.memory for device in cell.devices)
        if cell.share >= WHOLE:
            return SliceSetup(self.isolation)
        fraction = min(1.0, cell.memory / smallest)
        note = f"{cell.memory} MiB for torch in each process, other memory and compute are not limited"
        return SliceSetup(self.isolation, memory_fraction=fraction, notes=(note,))

    def resize(self, cell: Cell) -> None:
        """Nothing on the node: the slice's process gives torch its new part; what is over it stays until freed."""

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Memory by the slice's processes on NVIDIA GPUs."""
        return self._smi.memory_of(pids)

    def release(self, cell: Cell) -> None:
        """Nothing was made."""

    def sweep(self, keep: Collection[str]) -> None:
        """Nothing was made."""
