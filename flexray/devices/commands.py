"""Running a maker's command: with a time limit, and with what it said when it failed.

The commands of makers hang when a driver does, print words where numbers are expected and end with 0 after a
failure. Callers get text or a ``CommandFailed`` that says which of these it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from flexray.devices.backend import ProbeStatus
from flexray.devices.visible import MASKS
from flexray.errors import BackendUnavailable

Run = Callable[[Sequence[str], float], str]
"""(command and arguments, seconds) -> what it printed. Raises CommandFailed."""

PROBE_COMMAND_S = 8.0
"""Seconds for one question of a probe: three makers' commands that all hang leave the probe's parent some patience."""

_REAP_S = 1.0
"""Seconds a killed command has to be gone; the kernel may hold it in a call of a broken driver."""

_NO_DRIVER = (
    "driver not initialized",  # amd-smi: amdgpu is not among the modules
    "driver not loaded",
    "level zero initialization error",  # xpu-smi
    "dcmi module initialize failed",  # npu-smi
    "dcmi model initialized failed",  # npu-smi of some releases
)
"""How makers' commands say that their kernel driver is missing, in lower case."""


class CommandFailed(BackendUnavailable):
    """A maker's command gave no usable answer; ``status`` says which part is missing."""

    def __init__(self, status: ProbeStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def run_command(argv: Sequence[str], seconds: float) -> str:
    """What a command printed on standard output, within ``seconds``; it and its children are killed after that.

    It sees all devices, whatever masks this process was started with. Raises CommandFailed when it is not there,
    ends with an error or does not end.
    """
    name = os.path.basename(argv[0])
    environment = {key: value for key, value in os.environ.items() if key not in MASKS} | {"LC_ALL": "C"}
    try:
        done = run_to_end(argv, seconds, environment)
    except FileNotFoundError as error:
        raise CommandFailed(ProbeStatus.LIBRARY_MISSING, f"{name} is not found") from error
    except OSError as error:
        raise CommandFailed(ProbeStatus.BROKEN, f"{name} cannot be started: {error}") from error
    except subprocess.TimeoutExpired:
        raise CommandFailed(ProbeStatus.BROKEN, f"{name} gave no answer within {seconds:g} s") from None
    if done.status:
        raise failure(name, done.output, done.errors, done.status)
    return done.output


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended: its exit status, and what it printed."""

    status: int
    output: str
    errors: str


def run_to_end(argv: Sequence[str], seconds: float, env: Mapping[str, str], stdin: str = "") -> Finished:
    """Run a command, whatever comes of it; after so many seconds it and what it started is killed.

    It prints into files, not pipes: a daemon that it leaves behind may keep them open as long as it likes. Raises
    subprocess.TimeoutExpired, or OSError when it cannot be started.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin.encode())
        given.seek(0)
        # A session of its own: an interrupt of the terminal is not for it, and it can be killed with its children.
        process = subprocess.Popen(argv, stdin=given, stdout=output, stderr=errors, env=env, start_new_session=True)
        try:
            status = process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            _kill(process)
            raise
        return Finished(status, _read(output), _read(errors))


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def failure(name: str, text: str, said: str = "", code: int = 0) -> CommandFailed:
    """The error for what a command said instead of an answer."""
    words = " ".join((said.strip() or text.strip()).split())[:_LONGEST] or f"nothing (exit code {code})"
    low = f"{text} {said}".lower()
    status = ProbeStatus.DRIVER_MISSING if any(phrase in low for phrase in _NO_DRIVER) else ProbeStatus.BROKEN
    return CommandFailed(status, f"{name} said: {words}")


def seconds_left(end: float) -> float:
    """Seconds for the next question of a probe that has to be done at ``end``, on the monotonic clock."""
    return min(PROBE_COMMAND_S, end - time.monotonic())


def find_command(name: str, *folders: str) -> str:
    """The path of a command: on PATH, or in a folder where its maker puts it; its bare name where it is nowhere."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])
    return shutil.which(name, path=path) or name


def parse_json(name: str, text: str) -> Any:
    """The JSON a command printed, after any warnings before it. Raises CommandFailed for anything else."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    try:
        return json.loads(text[min(starts) :]) if starts else json.loads(text)
    except ValueError:
        raise failure(name, text or "nothing") from None


def number(value: object) -> float | None:
    """A number as makers write it: 5, ``"5"``, ``"5 MB"``, ``{"value": 5, "unit": "MB"}``; None for ``"N/A"``."""
    if isinstance(value, dict):
        value = value.get("value")
    if isinstance(value, str):
        value = value.strip().split(" ")[0]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if abs(found) < _INFINITE else None


_LONGEST = 300
"""Characters of a command's words that are passed on."""
_INFINITE = 2.0**63
"""Some drivers give the greatest number there is for what they do not know."""


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # its own group: what it started goes too
    except OSError:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_S)
