"""Processes of a slice: found by descent and by a mark in their environment, ended for sure.

A slice may start children, and children may start sessions of their own, so killing
the slice's process is not enough: a device is free only when all of them are gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

MARK = "FLEXRAY_SLICE"
_PROC = Path("/proc")


def be_spared() -> None:
    """When memory runs out, the kernel takes this process as late as Ray's own: Ray offers all its workers first."""
    own, parents = (_PROC / str(pid) / "oom_score_adj" for pid in (os.getpid(), os.getppid()))
    with contextlib.suppress(OSError, ValueError):  # no Linux, or it may not
        own.write_text(str(min(int(own.read_text()), int(parents.read_text()))))


def be_taken_first() -> None:
    """When memory runs out, the kernel takes this process, or what it starts, before all others."""
    with contextlib.suppress(OSError):
        (_PROC / "self" / "oom_score_adj").write_text("1000")


class Process(NamedTuple):
    """A process: its number and, since numbers are used again, when it started (clock ticks since boot)."""

    pid: int
    started: int


def identify(pid: int) -> Process | None:
    """The process that has this number now; None when there is none (a zombie has ended)."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields and fields[0] != "Z" else None


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def is_alive(process: Process) -> bool:
    """Whether that very process still runs."""
    return identify(process.pid) == process


def family(root: Process, mark: str) -> list[Process]:
    """The process, its descendants, and every process that carries the slice's mark in its environment."""
    children: dict[int, list[int]] = {}
    found: dict[int, Process] = {}
    needle = f"{MARK}={mark}".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        fields = _stat(pid)
        if not fields or fields[0] == "Z":
            continue
        children.setdefault(int(fields[1]), []).append(pid)
        found[pid] = Process(pid, int(fields[19]))
    members = [pid for pid in found if pid != os.getpid() and _is_marked(pid, needle)]
    if found.get(root.pid) == root:
        members.append(root.pid)
    seen: set[int] = set()
    while members:
        pid = members.pop()
        if pid not in seen:
            seen.add(pid)
            members.extend(children.get(pid, ()))
    return [found[pid] for pid in sorted(seen)]


def _is_marked(pid: int, needle: bytes) -> bool:
    try:
        return needle in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def end_all(processes: list[Process], timeout: float) -> bool:
    """Kill processes and wait until they are gone. False when some are still there after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        alive = [process for process in processes if is_alive(process)]
        if not alive:
            return True
        for process in alive:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:  # another user's process cannot be ours any more
                return False
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
