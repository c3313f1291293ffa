"""What several tests of this directory need: waiting for a condition, processes, scripts."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flexray.runtime.processes import MARK


def until(condition: Callable[[], object], what: str | Callable[[], str], seconds: float = 15.0) -> None:
    """Poll until the condition holds; fail with ``what`` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def processes() -> Iterator[tuple[int, list[bytes], bytes]]:
    """(pid, environment, command line) of every process that runs and that we may look at."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and alive(int(path.name)):
            try:
                environment, command = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
            except OSError:
                continue
            yield int(path.name), environment.split(b"\0"), command


def processes_marked() -> list[int]:
    """Processes of slices whose temporary directory is this suite's."""
    ours = f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}".encode()
    mark = f"{MARK}=".encode()
    return [pid for pid, env, _ in processes() if ours in env and any(v.startswith(mark) for v in env)]


def end_processes_with(directory: Path) -> None:
    """End every process of the cluster that lives in a temporary directory, and nobody else's."""
    ours = f"RAY_TMPDIR={directory}".encode()

    def left() -> list[int]:
        return [p for p, env, command in processes() if ours in env or str(directory).encode() in command]

    def none_left() -> bool:
        for pid in left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left()

    until(none_left, lambda: f"processes of {directory} are gone: {left()}", 20)


class Marks:
    """One file per mark: ``leave(name)`` adds a line in any process, ``count(name)`` counts them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def leave(self, name: str, text: object = "x") -> None:
        with open(self.directory / name, "a") as file:
            file.write(f"{text}\n")

    def lines(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def count(self, name: str) -> int:
        return len(self.lines(name))

    def wait(self, name: str, count: int = 1, seconds: float = 30) -> list[str]:
        until(lambda: self.count(name) >= count, f"mark {name!r} is there {count} times", seconds)
        return self.lines(name)
