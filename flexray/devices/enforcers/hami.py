"""HAMi-core: a library, preloaded into the slice's processes, that stands between them and CUDA.

The operator builds it (https://github.com/Project-HAMi/HAMi-core) and names it in
``FLEXRAY_VGPU_LIB``. It refuses allocations over the slice's memory, counted over all of its
processes by a shared file, and delays launches until the share is met on average. It holds
programs that load CUDA as usual; one that drops LD_PRELOAD, is linked statically or talks to the
driver by itself passes it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from flexray.devices.enforcers.command import CommandFailed, Run, run_command
from flexray.devices.enforcers.elf import exported
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.nvidia_smi import NvidiaSmi
from flexray.devices.private import private_folder
from flexray.errors import DeviceError, IsolationFailed
from flexray.model.amounts import WHOLE
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength

VARIABLE = "FLEXRAY_VGPU_LIB"
"""Path of the library."""

HOOKS = ("cuMemAlloc_v2", "cuMemGetInfo_v2", "cuLaunchKernel", "dlsym")
"""What it must offer to stand in the way. A release build hides all but dlsym and enforces nothing."""

_LOCKS = "tmp/vgpulock"
"""A folder that the library expects, for its lock."""


class Hami:
    """Preloads the operator's library. Keeps one file per slice, with what its processes hold."""

    isolation = Isolation.HAMI

    def __init__(
        self,
        state: Path,
        run: Run = run_command,
        env: Mapping[str, str] = os.environ,
        root: Path = Path("/"),
    ) -> None:
        """Args: state: the files are under it. run: runs commands. env: the node's variables. root: where /tmp is."""
        self._root = root
        self._run = run
        self._smi = NvidiaSmi(run)
        self._state = state / "hami"
        self._env = env
        self._usable: set[str] = set()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Usable where the library can be preloaded and really intercepts CUDA."""
        reason = self._reason() if devices else ""
        answers = {}
        for device in devices:
            why = reason if device.backend == "nvidia" else f"it stands before CUDA, not before {device.backend}"
            answers[device.id] = Support(False, why) if why else Support(True, memory=Strength.HARD)
        self._usable |= {name for name, support in answers.items() if support.usable}
        return answers

    def _reason(self) -> str:
        given = self._env.get(VARIABLE, "")
        if not given:
            return f"no HAMi-core library is given; set {VARIABLE} to the path of a libvgpu.so"
        try:
            missing = [name for name in HOOKS if name not in exported(Path(given))]
        except (OSError, ValueError) as error:
            return f"{VARIABLE}={given} is no library that can be preloaded: {error}"
        if missing:
            return (
                f"{given} does not export {', '.join(missing)} and would enforce nothing: "
                "build HAMi-core with CMAKE_BUILD_TYPE=Debug (a release build hides them)"
            )
        if not os.path.isabs(given):
            return f"{VARIABLE}={given} must be an absolute path: slices have other working directories"
        return self._refused(given)

    def _refused(self, library: str) -> str:
        """Why Python does not run with it, or ""; the dynamic linker only warns when it goes on without."""
        try:
            said = self._run("sh", "-c", 'LD_PRELOAD="$0" "$1" -c "import ctypes" 2>&1', library, sys.executable)
        except CommandFailed as error:
            return f"Python does not run with {library} preloaded: {error}"
        return f"{library} is not taken: {said.strip()}" if "cannot be preloaded" in said else ""

    def prepare(self, cell: Cell) -> SliceSetup:
        """Name library and limits. The slice's file is removed first: an old one would keep the limits in it."""
        if strangers := [device.id for device in cell.devices if device.id not in self._usable]:
            raise IsolationFailed(f"{cell.slice}: {', '.join(strangers)} was not found on this node")
        if cell.share >= WHOLE:
            return SliceSetup(self.isolation, notes=("whole GPUs: nobody else is there, nothing is preloaded",))
        if len(cell.devices) != 1:
            raise IsolationFailed(f"{cell.slice}: HAMi limits a part of one GPU, not of {len(cell.devices)} GPUs")
        if reason := self._reason():
            raise IsolationFailed(f"{cell.slice}: {reason}")
        file = self._file(cell.slice)
        try:
            file.unlink(missing_ok=True)
            private_folder(file.parent)
            (self._root / _LOCKS).mkdir(parents=True, exist_ok=True)
        except (OSError, DeviceError) as error:
            raise IsolationFailed(f"{cell.slice}: no place for HAMi's files: {error}") from error
        return SliceSetup(
            self.isolation,
            launch=self._variables(cell, file),
            notes=(
                f"HAMi: {-(-cell.share // 10)} % of the compute units on average, {cell.memory} MiB, "
                "for programs that load CUDA as usual",
            ),
        )

    def _variables(self, cell: Cell, file: Path) -> dict[str, str]:
        library = self._env[VARIABLE]
        return {
            "LD_PRELOAD": " ".join(filter(None, (library, self._env.get("LD_PRELOAD", "")))),
            "CUDA_REDIRECT": library,  # else it loads itself again from /usr/local/vgpu
            "CUDA_DEVICE_MEMORY_LIMIT": f"{cell.memory}m",
            "CUDA_DEVICE_SM_LIMIT": str(-(-cell.share // 10)),
            "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(file),
        }

    def resize(self, cell: Cell) -> None:
        """Always NotResizable: processes that run have read the limits, and the file cannot be changed under them."""
        raise NotResizable(
            "HAMi's limits are read when a process first uses the GPU; stop the slice and ask for a new one"
        )

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Memory by the slice's processes; how busy they are the library does not tell."""
        return self._smi.memory_of(pids)

    def release(self, cell: Cell) -> None:
        """Remove the slice's file."""
        try:
            self._file(cell.slice).unlink(missing_ok=True)
        except OSError as error:
            raise IsolationFailed(f"the file of {cell.slice} cannot be removed: {error}") from error

    def sweep(self, keep: Collection[str]) -> None:
        """Remove the files of other slices."""
        kept = {self._file(name) for name in keep}
        for file in sorted(self._state.glob("*.cache")):
            if file not in kept:
                file.unlink(missing_ok=True)

    def _file(self, slice_id: str) -> Path:
        return self._state / f"{slice_id}.cache"
