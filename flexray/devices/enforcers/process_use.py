"""What processes use, by the kernel's accounts in /proc. None where it does not tell, never 0."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES, _STARTED = 1, slice(11, 15), 19
"""Columns of /proc/PID/stat after the name: parent; times of user and system, own and of ended children; start."""


class Known(NamedTuple):
    """A process: its number and, since numbers are used again, when it started (clock ticks since boot)."""

    pid: int
    started: int


def cpu_seconds(proc: Path, pids: Collection[int]) -> float | None:
    """CPU seconds of these processes since they started, with those of children that they waited for."""
    rows = [row for row in (_stat(proc, pid) for pid in pids) if row]
    return sum(int(ticks) for row in rows for ticks in row[_TIMES]) / _TICKS if rows else None


def private_memory(proc: Path, pids: Collection[int]) -> int | None:
    """MiB of memory of their own, in memory or swapped out: without files, and without Ray's shared objects.

    Pages that a fork still shares with its parent count for both.
    """
    found = [kib for kib in (_private_kib(proc, pid) for pid in pids) if kib is not None]
    return sum(found) >> 10 if found else None


def _private_kib(proc: Path, pid: int) -> int | None:
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
        rows = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(rows["RssAnon"].split()[0]) + int(rows["VmSwap"].split()[0])
    except (OSError, KeyError, ValueError):  # it ended, or is a zombie, which has no memory
        return None


def descendants(proc: Path, roots: Iterable[Known]) -> list[Known]:
    """Those of the roots that still live, and what descends from them."""
    children: dict[int, list[int]] = {}
    found: dict[int, Known] = {}
    for entry in os.listdir(proc):
        row = _stat(proc, int(entry)) if entry.isdigit() else None
        if row and row[0] != "Z":
            pid = int(entry)
            children.setdefault(int(row[_PARENT]), []).append(pid)
            found[pid] = Known(pid, int(row[_STARTED]))
    todo = [root.pid for root in roots if found.get(root.pid) == root]
    seen: dict[int, Known] = {}
    while todo:
        pid = todo.pop()
        if pid not in seen:
            seen[pid] = found[pid]
            todo.extend(children.get(pid, ()))
    return [seen[pid] for pid in sorted(seen)]


def known(proc: Path, pid: int) -> Known | None:
    """The process that has this number now; None when there is none."""
    row = _stat(proc, pid)
    return Known(pid, int(row[_STARTED])) if row and row[0] != "Z" else None


def state_of(proc: Path, pid: int) -> str:
    """The kernel's letter for what it does (``R``, ``S``, ``T``, ...), or ""."""
    row = _stat(proc, pid)
    return row[0] if row else ""


def cpu_nanoseconds(pid: int) -> int | None:
    """CPU time of all threads of a living process, exactly: its CPU clock (clock_getcpuclockid(3)) in one call.

    /proc/PID/stat counts in hundredths of a second and /proc/PID/schedstat knows the main thread only.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return None


def _stat(proc: Path, pid: int) -> list[str] | None:
    try:
        text = (proc / str(pid) / "stat").read_text()
        return text[text.rindex(")") + 2 :].split()
    except (OSError, ValueError):
        return None
