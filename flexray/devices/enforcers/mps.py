"""NVIDIA MPS: processes share a GPU's compute units, each capped in units and memory.

One control daemon per GPU, in a folder of its own: a fatal fault of one process ends all that
share a server, and so no other GPU is drawn in. The daemon starts with the first slice and
ends with the last. While it runs the GPU is in exclusive mode where that is allowed (root):
then a process that steps round MPS gets no context at all instead of an unlimited one.

Limits hold per process. A slice is declared one process; what it starts besides has as much again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from flexray.devices.enforcers.command import Run, run_command
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.mps_daemon import Daemon, MpsState
from flexray.devices.enforcers.nvidia_smi import NvidiaSmi
from flexray.errors import DeviceError, IsolationFailed
from flexray.model.amounts import WHOLE
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength

MAX_SLICES = 40
"""Slices of one GPU. A server takes 48 contexts (60 from CUDA 13.1); slices may have more than one process."""

_LEAST_CAPABILITY = 7.0
"""Volta: the first that limits compute units per client."""
_LEAST_DRIVER = 495
"""The driver of CUDA 11.5, the first that limits memory per client."""

SMS: dict[str, int] = {
    "nvidia/V100-16GB": 80,
    "nvidia/V100-32GB": 80,
    "nvidia/T4": 40,
    "nvidia/A10": 72,
    "nvidia/A30": 56,
    "nvidia/A40": 84,
    "nvidia/A100-40GB": 108,
    "nvidia/A100-80GB": 108,
    "nvidia/L4": 58,
    "nvidia/L40": 142,
    "nvidia/L40S": 142,
    "nvidia/H100-80GB": 132,
    "nvidia/H100-PCIe-80GB": 114,
    "nvidia/H100-NVL-94GB": 132,
    "nvidia/H200-141GB": 132,
    "nvidia/H200-NVL-141GB": 132,
    "nvidia/RTX-3090": 82,
    "nvidia/RTX-4090": 128,
    "nvidia/RTX-A6000": 84,
    "nvidia/RTX-6000-Ada": 142,
}
"""Streaming multiprocessors, as NVIDIA's whitepapers and datasheets give them; only for what people are told."""


class Mps:
    """Runs the control daemons of a node's GPUs. One thread at a time."""

    isolation = Isolation.MPS

    def __init__(self, state: Path, run: Run = run_command) -> None:
        """Args: state: the daemons' folders are under it. run: runs the commands."""
        self._run = run
        self._smi = NvidiaSmi(run)
        self._state = state / "mps"
        self._lock = threading.Lock()
        self._usable: set[str] = set()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Starts a daemon for each GPU and ends it, unless one of ours runs there."""
        with self._lock:
            answers = {device.id: self._support(device) for device in devices}
            self._usable |= {name for name, support in answers.items() if support.usable}
            return answers

    def _support(self, device: Device) -> Support:
        if not device.key:
            return Support(False, "the GPU has no UUID; MPS needs NVIDIA's driver to find it")
        daemon = self._daemon(device.key)
        try:
            if reason := self._unfit(device.key):
                return Support(False, reason)
            held = daemon.slices()
            if daemon.state() is MpsState.DOWN:
                daemon.start()
            if not held:
                daemon.stop()
        except (DeviceError, OSError) as error:
            with contextlib.suppress(DeviceError, OSError):
                if not daemon.slices():
                    daemon.stop()
            return Support(False, f"the MPS control daemon does not work here: {error}")
        return Support(True, memory=Strength.HARD_PROCESS)

    def _unfit(self, gpu: str) -> str:
        """Why limits would not hold on this GPU, or "". Fields that an old driver does not know are taken as fine."""
        if self._smi.query(gpu, "mig.mode.current") == "Enabled":
            return "the GPU is in MIG mode"
        if _number(self._smi.query(gpu, "compute_cap"), _LEAST_CAPABILITY) < _LEAST_CAPABILITY:
            return "the GPU is older than Volta: MPS does not limit compute there"
        driver = self._smi.query(gpu, "driver_version")
        if _number(driver.partition(".")[0], _LEAST_DRIVER) < _LEAST_DRIVER:
            return f"driver {driver} does not limit the memory of MPS clients; {_LEAST_DRIVER} and later do"
        return ""

    def prepare(self, cell: Cell) -> SliceSetup:
        """Have the GPU's daemon run, in a state in which it takes new processes, and name the slice's limits."""
        if strangers := [device.id for device in cell.devices if device.id not in self._usable]:
            raise IsolationFailed(f"{cell.slice}: {', '.join(strangers)} was not found on this node")
        visible = {
            "CUDA_VISIBLE_DEVICES": ",".join(device.key for device in cell.devices),
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # Ray counts GPUs as the node does, MPS does not
        }
        if cell.share >= WHOLE:
            return SliceSetup(self.isolation, visible, notes=("whole GPUs: nobody else is there, no MPS needed",))
        if len(cell.devices) != 1:
            raise IsolationFailed(f"{cell.slice}: MPS limits a part of one GPU, not of {len(cell.devices)} GPUs")
        (device,) = cell.devices
        with self._lock:
            self._enter(cell.slice, device)
            alone = self._daemon(device.key).alone()
        percent = -(-cell.share // 10)
        return SliceSetup(
            isolation=self.isolation,
            launch={
                **visible,
                "CUDA_MPS_PIPE_DIRECTORY": str(self._daemon(device.key).pipe),
                "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(percent),
                "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={cell.memory}M",
            },
            notes=tuple(_notes(cell, device, percent, alone)),
        )

    def _enter(self, slice_id: str, device: Device) -> None:
        daemon = self._daemon(device.key)
        held = daemon.slices()
        if slice_id not in held and len(held) >= MAX_SLICES:
            raise IsolationFailed(
                f"{slice_id}: {device.id} has {len(held)} slices already, MPS takes at most {MAX_SLICES} of a GPU; "
                "ask for larger shares, or wait until one of them has ended"
            )
        try:
            daemon.enter(slice_id)
            state = daemon.state()
            if state is MpsState.FAULT:
                self._mend(daemon, slice_id, device)
            if state is not MpsState.READY:
                daemon.start()
        except (DeviceError, OSError) as error:
            if slice_id not in held:
                with contextlib.suppress(DeviceError, OSError):
                    self._leave(daemon, slice_id)
            if isinstance(error, IsolationFailed):
                raise
            raise IsolationFailed(f"{slice_id}: MPS does not work on {device.id}: {error}") from error

    def _mend(self, daemon: Daemon, slice_id: str, device: Device) -> None:
        """A server that has seen a fatal fault takes nobody until all of its clients have gone."""
        if clients := daemon.clients():
            raise IsolationFailed(
                f"{slice_id}: a process on {device.id} caused a fatal fault, and its MPS server shares it with all of "
                f"its clients; it takes no new ones until processes {', '.join(clients)} have ended"
            )
        daemon.stop_server()

    def resize(self, cell: Cell) -> None:
        """Always NotResizable: the server's ``set_active_thread_percentage`` holds for contexts made after it only."""
        raise NotResizable(
            "MPS sets the limits of a process when it first uses the GPU; stop the slice and ask for a new one"
        )

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Memory by the slice's processes; how busy they are MPS does not tell."""
        return self._smi.memory_of(pids)

    def release(self, cell: Cell) -> None:
        """Ends the daemon with the GPU's last slice."""
        with self._lock:
            for device in cell.devices:
                daemon = self._daemon(device.key)
                if cell.slice in daemon.slices():
                    try:
                        self._leave(daemon, cell.slice)
                    except (DeviceError, OSError) as error:
                        raise IsolationFailed(f"the MPS daemon of {device.id} cannot be ended: {error}") from error

    def sweep(self, keep: Collection[str]) -> None:
        """Forget other slices; daemons that then have none are ended."""
        with self._lock:
            for folder in sorted(self._state.iterdir()) if self._state.is_dir() else ():
                daemon = self._daemon(folder.name)
                for slice_id in daemon.slices() - set(keep):
                    daemon.leave(slice_id)
                if not daemon.slices():
                    with contextlib.suppress(DeviceError, OSError):  # the next sweep tries again
                        daemon.stop()

    def _leave(self, daemon: Daemon, slice_id: str) -> None:
        daemon.leave(slice_id)
        if not daemon.slices():
            daemon.stop()

    def _daemon(self, gpu: str) -> Daemon:
        return Daemon(gpu, self._state / gpu, self._run)


def _notes(cell: Cell, device: Device, percent: int, alone: bool) -> list[str]:
    said = f"{percent} % of the compute units"
    if total := SMS.get(device.type.name):
        said += f", {-(-percent * total // 100)} of {total}"
    notes = [f"MPS: {said}, {cell.memory} MiB, for each process of the slice"]
    if not alone:
        notes.append("the GPU is not in exclusive mode (it takes root): code that unsets CUDA_MPS_* is not limited")
    if cell.burst > cell.share:
        notes.append("MPS cannot lend: the slice stays at its own share")
    return notes


def _number(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise
