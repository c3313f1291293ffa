"""A script as a driver of a pool that is there or is started for it: what ``flexray run`` does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray

from flexray.config import PoolConfig
from flexray.errors import ClusterUnreachable
from flexray.runtime.asking import find_scheduler
from flexray.runtime.pool import ensure_pool, greet, stop_pool, wait_ready
from flexray.runtime.reach import connect_ray
from flexray.runtime.reading import read_snapshot

_OTHERS_SECONDS = 5.0
"""For what the script held to end with it; what is held after that is somebody else's."""
_LOOK_SECONDS = 0.2
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


def run_script(command: Sequence[str], address: str | None, config: PoolConfig | None) -> int:
    """Run a script (its path and arguments) and return its exit code, 128 + n where signal n ended it.

    The cluster is chosen as ``flex.init`` does. Ray, and the pool, are stopped afterwards if they were
    started here; a pool that others use by then stays.
    """
    connect_ray(address)
    try:
        started = not _pool_runs()
        scheduler = ensure_pool(config or PoolConfig())
        try:
            greet(scheduler, config)
            wait_ready(scheduler)
            return _wait_for_script(command, ray.get_runtime_context().gcs_address)
        finally:
            if started and not (_joined() and _used_by_others()):
                stop_pool()
    finally:
        ray.shutdown()


def _pool_runs() -> bool:
    try:
        find_scheduler()
    except ClusterUnreachable:
        return False
    return True


def _joined() -> bool:
    """Whether this process is connected to a Ray that was there before."""
    from ray._private.worker import _global_node

    return _global_node is None or not _global_node.is_head()


def _used_by_others() -> bool:
    deadline = time.monotonic() + _OTHERS_SECONDS
    while time.monotonic() < deadline:
        snapshot = read_snapshot(find_scheduler())
        if not snapshot.running and not snapshot.waiting:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _wait_for_script(command: Sequence[str], address: str) -> int:
    script = subprocess.Popen([sys.executable, *command], env={**os.environ, "RAY_ADDRESS": address})
    with script, _signals_go_to(script):
        code = script.wait()  # unbounded: user code
    return code if code >= 0 else 128 - code


@contextmanager
def _signals_go_to(script: subprocess.Popen[Any]) -> Iterator[None]:
    """Whoever ends this process means the script. Ctrl-C reaches it from the terminal by itself."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        script.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
