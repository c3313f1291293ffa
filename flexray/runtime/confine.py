"""The first thing a slice's process does: confine itself, then take on its client's environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path

from flexray.devices.enforcers.enforcer import SliceSetup
from flexray.errors import IsolationFailed
from flexray.runtime.memory_fraction import limit_memory
from flexray.runtime.processes import MARK, be_taken_first
from flexray.runtime.protocol import Environment
from flexray.runtime.turns import enter_turns

_TASKS = Path("/proc/self/task")
_STATUS = Path("/proc/self/status")
_ROOM = 64
"""MiB beyond the limit, for stacks of threads and Ray's own needs: a single allocation that is too large fails, and
one that grows step by step meets the watchdog before a thread of Ray's meets the limit."""


def confine(setup: SliceSetup, slice_id: str) -> None:
    """Set limits before anything forks, and before numpy or torch are imported, which read them once.

    Raises IsolationFailed when one of them cannot be set; the process must not go on then.
    """
    os.environ.update(setup.env)
    be_taken_first()
    os.environ[MARK] = slice_id  # children inherit it; that is how they are found
    for file in setup.join:
        _join(file)
    if setup.cores and hasattr(os, "sched_setaffinity"):
        _bind(setup.cores)
    if setup.threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(setup.threads)
    if setup.memory_fraction:
        limit_memory(setup.memory_fraction)
    enter_turns(setup.turns)


def _join(file: str) -> None:
    """Move this process into a group, with all its threads: Ray has started some. Children follow from now on.

    In one call of the kernel: a buffered file would tell of a refusal when nobody listens any more.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY)
        try:
            os.write(descriptor, str(os.getpid()).encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise IsolationFailed(f"{file}: the slice cannot join its group: {error.strerror}") from None


def _bind(cores: Collection[int]) -> None:
    """All threads of the process, not only this one. Cores that the process may not use are left out."""
    usable = os.sched_getaffinity(0) & set(cores)
    if not usable:
        return
    for thread in os.listdir(_TASKS):
        try:
            os.sched_setaffinity(int(thread), usable)
        except ProcessLookupError:
            continue


def limit_heap(memory: int) -> None:
    """Let the heap grow by so many MiB from now on: over it allocations fail and the process lives.

    Not the first thing of all: Ray starts its threads when the actor is made, and the kernel counts their stacks in
    full (8 MiB each), touched or not. There is some room for those that come later. 0: no limit.
    Raises IsolationFailed.
    """
    if not memory:
        return
    import resource

    try:
        rows = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        most = (int(rows["VmData"].split()[0]) << 10) + ((memory + _ROOM) << 20)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))  # the hard one could never be raised when it grows
    except (OSError, KeyError, ValueError) as error:
        raise IsolationFailed(f"RLIMIT_DATA: the heap cannot be limited to {memory} MiB more: {error}") from None


def take_on(environment: Environment) -> None:
    """Make the client's modules importable, as Ray does for its own workers."""
    for path in reversed(environment.sys_path):
        if path not in sys.path:
            sys.path.insert(0, path)
