"""Engines on one device start one after the other.

An engine measures the free memory of its device when it starts, takes some of it, and measures again to see what is
left for its cache. Two that do so at once each see the other's memory come and go: one takes it for its own use and has
too small a cache, or fails because less is free than it was told to take. So each holds its device's turn from before
its process starts until it serves.

A turn is a lock on a file, since engines on one device may belong to different jobs, which know nothing of each other;
the kernel gives it back when its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from flexray.devices.private import only_mine, own_folder
from flexray.errors import WaitTimeout

_AGAIN_SECONDS = 0.1


@contextlib.contextmanager
def start_turn(devices: Iterable[str], seconds: float, folder: Path | None = None) -> Iterator[None]:
    """Hold the turns of these devices of this node, taken in the same order by all: nobody waits in a ring.

    Args:
        devices: their ids.
        seconds: how long to wait for all of them.
        folder: where the locks are; this user's on this machine.

    Raises:
        WaitTimeout: others on the device are still starting.
    """
    place = folder or own_folder("starts")
    until = time.monotonic() + seconds
    with contextlib.ExitStack() as held:
        for device in sorted(devices):
            held.enter_context(_locked(place / device.replace("/", "-"), device, until))
        yield


@contextlib.contextmanager
def _locked(path: Path, device: str, until: float) -> Iterator[None]:
    with open(path, "a", opener=only_mine) as file:  # children do not inherit it: Python closes it in them
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise WaitTimeout(
                        f"another engine on {device} is still starting (process {_holder(path)}); "
                        "engines on one device start one after the other"
                    ) from None
                time.sleep(_AGAIN_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _holder(path: Path) -> str:
    return path.read_text() or "unknown"
