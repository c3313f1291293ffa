"""The MPS control daemon of one GPU, in a folder of its own::

    <folder>/pipe            link to CUDA_MPS_PIPE_DIRECTORY: a folder with a short name, it has sockets in it
    <folder>/log/            its logs
    <folder>/slices/<id>     one empty file for each slice that uses it
    <folder>/compute_mode    the GPU's compute mode before the daemon, to be restored

What is in the folder outlives the node agent: the next one goes on with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from enum import Enum
from pathlib import Path

from flexray.devices.enforcers.command import CommandFailed, Run
from flexray.devices.enforcers.nvidia_smi import NvidiaSmi
from flexray.devices.private import private_folder

_CONTROL = "nvidia-cuda-mps-control"
_QUIT_SECONDS = 10
"""Seconds that servers get to end by themselves; their clients have gone."""
_EXCLUSIVE = "EXCLUSIVE_PROCESS"
_MODES = {"Exclusive_Process": _EXCLUSIVE, "Prohibited": "PROHIBITED"}
"""What ``--query-gpu=compute_mode`` says -> what ``-c`` takes; everything else is DEFAULT."""
_LONGEST_SOCKET = "control_privileged"
_SOCKET_PATH = 107
"""Bytes in the path of a Unix socket."""


class MpsState(str, Enum):
    """How a daemon does."""

    DOWN = "down"
    """It does not answer."""
    READY = "ready"
    """It takes clients."""
    FAULT = "fault"
    """A client caused a fatal fault: it takes no others until all have ended."""


class Daemon:
    """Starts, asks and ends it. Everything raises CommandFailed or OSError."""

    def __init__(self, gpu: str, folder: Path, run: Run) -> None:
        self._gpu = gpu
        self._folder = folder
        self._link = folder / "pipe"
        self._slices = folder / "slices"
        self._mode = folder / "compute_mode"
        self._run = run
        self._smi = NvidiaSmi(run)

    @property
    def pipe(self) -> Path:
        """What its clients are told; it is there while the daemon runs."""
        return Path(os.readlink(self._link)) if self._link.is_symlink() else self._link

    def slices(self) -> set[str]:
        """Slices that use it."""
        return {file.name for file in self._slices.iterdir()} if self._slices.is_dir() else set()

    def enter(self, slice_id: str) -> None:
        """Note that a slice uses it."""
        private_folder(self._slices)
        (self._slices / slice_id).touch()

    def leave(self, slice_id: str) -> None:
        """Note that it does not any more."""
        (self._slices / slice_id).unlink(missing_ok=True)

    def state(self) -> MpsState:
        """How it does, by the question that NVIDIA's own device plugin asks, and by the state of its servers."""
        if not self.pipe.is_dir():
            return MpsState.DOWN
        try:
            self._ask("get_default_active_thread_percentage")
        except CommandFailed:
            return MpsState.DOWN
        states = [self._ask(f"get_server_status {server}") for server in self._servers()]
        return MpsState.FAULT if any("FAULT" in state.upper() for state in states) else MpsState.READY

    def clients(self) -> list[str]:
        """Process numbers of the clients of its servers."""
        return [pid for server in self._servers() for pid in self._ask(f"get_client_list {server}").split()]

    def alone(self) -> bool:
        """Whether the GPU is in exclusive mode: nobody but MPS may use it."""
        try:
            return self._smi.query(self._gpu, "compute_mode") in _MODES
        except CommandFailed:
            return False

    def stop_server(self) -> None:
        """End it, whoever uses it, and keep its folder."""
        with contextlib.suppress(CommandFailed):  # nobody answers: nothing runs
            self._ask(f"quit -t {_QUIT_SECONDS}")
        self._drop_pipe()

    def stop(self) -> None:
        """End it, restore the GPU's compute mode and remove the folder."""
        self.stop_server()
        if self._mode.exists():
            self._smi.set_compute_mode(self._gpu, self._mode.read_text(encoding="ascii"))
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it and see that it answers; none is running."""
        self._drop_pipe()  # of one that was killed
        private_folder(self._folder / "log")
        pipe = tempfile.mkdtemp(prefix="flexray-mps-")
        self._link.symlink_to(pipe)
        if len(longest := f"{pipe}/{_LONGEST_SOCKET}") > _SOCKET_PATH:
            raise OSError(f"{longest} is too long for a socket; set TMPDIR to a shorter path")
        self._seclude()
        self._run(_CONTROL, "-d", env=self._environment())
        self._ask("get_default_active_thread_percentage")

    def _drop_pipe(self) -> None:
        if self._link.is_symlink():
            shutil.rmtree(self.pipe, ignore_errors=True)
            self._link.unlink()

    def _seclude(self) -> None:
        """Only MPS may use the GPU from now on, where we are allowed to say so. A slice then cannot go round it."""
        with contextlib.suppress(CommandFailed):
            before = _MODES.get(self._smi.query(self._gpu, "compute_mode"), "DEFAULT")
            if before == _EXCLUSIVE:
                return
            self._mode.write_text(before, encoding="ascii")  # first: a crash between must not leave it unknown
            try:
                self._smi.set_compute_mode(self._gpu, _EXCLUSIVE)
            except CommandFailed:
                self._mode.unlink()

    def _servers(self) -> list[str]:
        return self._ask("get_server_list").split()

    def _ask(self, command: str) -> str:
        return self._run(_CONTROL, stdin=command + "\n", env=self._environment())

    def _environment(self) -> dict[str, str]:
        return {
            "CUDA_VISIBLE_DEVICES": self._gpu,
            "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe),
            "CUDA_MPS_LOG_DIRECTORY": str(self._folder / "log"),
        }
