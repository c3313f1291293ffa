"""NVIDIA's commands as the enforcers meet them: the doubles of tests/doubles on PATH, over one file of GPUs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from flexray.devices.enforcers.command import CommandFailed, run_command
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import Device, DeviceType, Family

DOUBLES = Path(__file__).parents[1] / "doubles"

_NAMES = ("nvidia-smi", "nvidia-cuda-mps-control")
PROGRAMS = {name: compile((DOUBLES / name).read_text(), name, "exec") for name in _NAMES}


def run_double(*command: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: float = 0.0) -> str:
    """As ``run_command``, with the double in this process: starting it as another costs 100 ms each time."""
    if command[0] not in PROGRAMS:
        return run_command(*command, stdin=stdin, env=env)
    said, status = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", list(command))
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        try:
            exec(PROGRAMS[command[0]], {"__name__": "__main__"})
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            said.write("" if isinstance(end.code, int) else str(end.code))
    if status:
        raise CommandFailed(command, status, said.getvalue())
    return said.getvalue()


class Machine:
    """Two GPUs, named by index, and what their driver is in."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *keys: str) -> None:
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)
        self.folder = folder
        self._config = folder / "gpus.conf"
        self._commands = folder / "commands"
        self.write(*keys)
        patch.setenv("FAKE_NVML_CONFIG", str(self._config))
        patch.setenv("FAKE_SMI_LOG", str(self._commands))
        patch.setenv("FAKE_MPS_LOG", str(folder / "mps.log"))
        patch.setenv("PATH", f"{DOUBLES}{os.pathsep}{os.environ['PATH']}")

    def write(self, *keys: str) -> None:
        """Keys of each GPU, such as ``mig_mode=1``, one text for each."""
        text = "driver=550.54\n" + "".join(f"[{index}]\n{key}\n" for index, key in enumerate(keys))
        self._config.write_text(text)

    def add(self, index: int, line: str) -> None:
        """One more line for a GPU."""
        self._config.write_text(self._config.read_text().replace(f"[{index}]\n", f"[{index}]\n{line}\n"))

    def remove(self, line: str) -> None:
        """A line less."""
        self._config.write_text(self._config.read_text().replace(line + "\n", ""))

    def smi(self, *arguments: str) -> str:
        """What the operator sees."""
        try:
            return run_double("nvidia-smi", *arguments)
        except CommandFailed as error:
            return error.output

    def instances(self, index: int = 0) -> list[tuple[str, int]]:
        """(profile, start) of each GPU instance."""
        rows = [line.split() for line in self.smi("mig", "-i", str(index), "-lgi").splitlines() if " MIG " in line]
        return sorted((row[3], int(row[6].split(":")[0])) for row in rows)

    def commands(self) -> list[str]:
        """Command lines of nvidia-smi so far."""
        return self._commands.read_text().splitlines() if self._commands.exists() else []

    def managed(self) -> list[str]:
        """Commands so far that made or destroyed something."""
        return [
            line for line in self.commands() if "-cgi" in line or "-dgi" in line or " -mig " in line or " -c " in line
        ]

    def mps(self) -> list[str]:
        """Commands to MPS daemons so far, without questions."""
        log = self.folder / "mps.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if " get_" not in line]

    def play_server(self, pipe: str, status: str, clients: list[int]) -> None:
        """The MPS daemon of that folder has a server in that state."""
        path = Path(pipe) / "fake_mps.json"
        daemon = json.loads(path.read_text())
        path.write_text(json.dumps({**daemon, "servers": {"40000": {"status": status, "clients": clients}}}))


def gpu(index: int = 0, kind: str = "nvidia/A100-40GB", memory: int = 40960) -> Device:
    """A GPU as the NVIDIA backend describes it."""
    key = f"GPU-00000000-0000-0000-0000-{index:012d}"
    return Device(f"n/gpu{index}", "n", index, DeviceType(kind, MemoryMiB(memory)), Family.GPU, "nvidia", key=key)


def vgpu_library(folder: Path, visible: bool = True) -> Path:
    """A library with the names that HAMi-core has, compiled as its debug build is, or as its release build."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = DOUBLES / "vgpu.c", folder / "libvgpu.so"
    hidden = [] if visible else ["-fvisibility=hidden"]
    subprocess.run([compiler, "-shared", "-fPIC", "-w", *hidden, "-o", str(library), str(source)], check=True)
    return library
