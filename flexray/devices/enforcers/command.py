"""Runs the commands of enforcers (see ``devices/commands.py``), with errors that hold all that a command said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Protocol

from flexray.devices.commands import run_to_end
from flexray.errors import DeviceError

SECONDS = 30.0
"""Time limit of a command. Creating a MIG instance takes seconds; a driver that hangs takes for ever."""

_MISSING = 127
"""Exit status of a command that is not there, as the shell gives it."""


class CommandFailed(DeviceError):
    """A maker's command is missing, ran out of time or ended with an error.

    Attributes:
        status: its exit status; 127: it is not there; 124: it ran out of time.
        output: what it printed, on both streams.
    """

    def __init__(self, command: tuple[str, ...], status: int, output: str) -> None:
        said = " ".join(output.split()) or f"exit status {status}"
        super().__init__(f"{' '.join(command)}: {said}")
        self.status = status
        self.output = output


class Run(Protocol):
    """Runs a command and returns what it printed. Tests give another."""

    def __call__(
        self, *command: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: float = SECONDS
    ) -> str:
        """Raises CommandFailed. ``env`` comes on top of this process's; ``timeout`` in seconds."""


def run_command(*command: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: float = SECONDS) -> str:
    """What the command printed on standard output."""
    try:
        done = run_to_end(command, timeout, {**os.environ, **(env or {})}, stdin)
    except subprocess.TimeoutExpired:
        raise CommandFailed(command, 124, f"no answer within {timeout:g} s") from None
    except OSError as error:
        raise CommandFailed(command, _MISSING, f"cannot be run: {error.strerror}") from None
    if done.status:
        raise CommandFailed(command, done.status, done.output + done.errors)
    return done.output
