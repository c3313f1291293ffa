"""A large real pool: how soon people are answered while 10,000 requests wait for 5,000 devices.

Five nodes of Ray on this machine, each with a fifth of the devices (fake ones, all cordoned, so that everything waits),
and sessions that ask as clients ask. Milliseconds, medians and the worst.

    answer     the scheduler's answer to a client that is connected: all that ``flexray status`` shows
    status     ``flexray status``, from its start to its end
    json       ``flexray status --json``: every device
    bare       the other side: a Python process that connects to Ray, asks nothing, and ends
    paint      the dashboard's first contentful paint in a headless Chromium, from navigation
    drawn      devices, queues and figures of the pool are drawn

python benchmarks/large_pool.py [--quick] [--json FILE] [--devices N] [--requests N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chromium import chromium, installed
from dashboard import visit

NODES = 5
SESSIONS = 10
BARE = "import ray; ray.init(address='auto', logging_level='error'); ray.shutdown()"
FLEXRAY = [sys.executable, "-c", "from flexray.cli import main; main()"]


def times(work: Callable[[], object], count: int) -> list[float]:
    """Milliseconds, each."""
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - begun))
    return found


def command(*words: str) -> Callable[[], object]:
    """A process, which has to succeed."""
    return lambda: subprocess.run(words, check=True, capture_output=True)


def fill(requests: int) -> Any:
    """Cordon every device, then have sessions ask; returns those who hold the sessions."""
    import ray
    from overload import Sessions

    import flexray as flex
    from flexray.runtime.asking import find_scheduler
    from flexray.runtime.reading import change_cordons

    for node in flex.pool().nodes:
        change_cordons(find_scheduler(), {"cordon": node.id, "reason": "a benchmark"})
    names = [f"session{number}" for number in range(SESSIONS)]
    sessions = ray.remote(num_cpus=0)(Sessions).remote(names, requests // SESSIONS)
    ray.get(sessions.join.remote(), timeout=60)
    ray.get(sessions.ask.remote(), timeout=600)
    return sessions


async def visits(count: int) -> list[tuple[float, float, float]]:
    """(paint, drawn, frames a second) of visits to the pool's dashboard; none without a browser."""
    from aiohttp.test_utils import TestServer

    from flexray.cli.dashboard import pool_source
    from flexray.dashboard.access import Access
    from flexray.dashboard.server import Dashboard

    if installed() is None:
        return []
    server = TestServer(Dashboard(pool_source(), Access("127.0.0.1", 8266)).app())
    await server.start_server()
    try:
        async with chromium() as browser:
            at = str(server.make_url("/")).rstrip("/")
            await visit(browser, at)  # the first one starts the browser's own processes
            return [await visit(browser, at) for _ in range(count)]
    finally:
        await server.close()


def run(devices: int, requests: int, count: int) -> dict[str, Any]:
    """The figures, of a pool in a cluster of its own."""
    import ray
    from ray.cluster_utils import Cluster

    import flexray as flex
    from flexray.runtime.asking import find_scheduler
    from flexray.runtime.pool import stop_pool
    from flexray.runtime.reading import read_snapshot

    labels = {"flexray.fake": f"{devices // NODES}xA100-80GB"}
    head = {"num_cpus": 4, "include_dashboard": False, "labels": labels}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=4, labels=labels)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        os.environ["RAY_ADDRESS"] = cluster.address
        # five agents with a thousand devices each share this machine: they do not look at them all every second
        flex.init(config={"poll_seconds": 60})
        sessions = fill(requests)
        snapshot = flex.pool()
        found: dict[str, Any] = {
            "devices": len(snapshot.devices),
            "waiting": sum(queue.waiting for queue in snapshot.queues),
            "answer": times(lambda: read_snapshot(find_scheduler()), 2 * count),
            "status": times(command(*FLEXRAY, "status"), count),
            "bare": times(command(sys.executable, "-c", BARE), count),
            "json": times(command(*FLEXRAY, "status", "--json"), count),
        }
        seen = asyncio.run(visits(count))
        found |= {"paint": [one[0] for one in seen], "drawn": [one[1] for one in seen]}
        ray.kill(sessions)
        flex.shutdown()
        stop_pool()
    finally:
        ray.shutdown()
        cluster.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="3 of each instead of 9")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fxb", dir="/tmp", ignore_cleanup_errors=True) as folder:
        here = Path(__file__).resolve().parent
        os.environ.update(RAY_AUTH_MODE="disabled", RAY_TMPDIR=folder)
        os.environ["PYTHONPATH"] = os.pathsep.join((str(here.parent), str(here)))
        found = run(asked.devices, asked.requests, 3 if asked.quick else 9)
    for name, value in found.items():
        if isinstance(value, list):
            print(f"{name:<9}" + (f"{statistics.median(value):>8.0f}{max(value):>8.0f}" if value else " no browser"))
        else:
            print(f"{name:<9}{value:>8}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
