"""The first thing a slice's process does: confine itself, then take on its client's environment."""

from __future__ import annotations

import os
import sys

from flexray.devices.enforcers.enforcer import SliceSetup
from flexray.runtime.processes import MARK
from flexray.runtime.protocol import Environment
from flexray.runtime.turns import enter_turns


def confine(setup: SliceSetup, slice_id: str) -> None:
    """Set limits before anything imports numpy or torch, which read them once at import."""
    os.environ.update(setup.env)
    os.environ[MARK] = slice_id  # children inherit it; that is how they are found
    if setup.cores and hasattr(os, "sched_setaffinity"):
        usable = os.sched_getaffinity(0) & set(setup.cores)
        if usable:
            # All threads of the process, not only this one: Ray has started some already.
            for thread in os.listdir("/proc/self/task"):
                try:
                    os.sched_setaffinity(int(thread), usable)
                except ProcessLookupError:
                    continue
    if setup.threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(setup.threads)
    enter_turns(setup.turns)


def take_on(environment: Environment) -> None:
    """Make the client's modules importable, as Ray does for its own workers."""
    for path in reversed(environment.sys_path):
        if path not in sys.path:
            sys.path.insert(0, path)
