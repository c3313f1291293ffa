"""Runs the makers' commands: each with a time limit, and what it starts cannot hold its caller."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from typing import IO, Protocol

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
    """What the command printed on standard output.

    It prints into files, not pipes: a daemon that it leaves behind may keep them open as long as it likes.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                command,
                input=stdin.encode(),
                stdout=output,
                stderr=errors,
                env={**os.environ, **(env or {})},
                timeout=timeout,
                start_new_session=True,  # an interrupt of the terminal is not for it
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(command, 124, f"no answer within {timeout:g} s") from None
        except OSError as error:
            raise CommandFailed(command, _MISSING, f"cannot be run: {error.strerror}") from None
        said = _read(output)
        if done.returncode:
            raise CommandFailed(command, done.returncode, said + _read(errors))
        return said


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
