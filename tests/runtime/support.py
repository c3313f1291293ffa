"""What several tests of this directory need: waiting for a condition, processes, scripts."""
from __future__ import annotations

import os
import time
from collections.abc import Callable
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


def processes_marked() -> list[int]:
    """Processes of slices whose temporary directory is this suite's."""
    tmpdir = f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}".encode()
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and alive(int(path.name)):
            try:
                environment = (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if tmpdir in environment and any(v.startswith(f"{MARK}=".encode()) for v in environment):
                found.append(int(path.name))
    return found


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
