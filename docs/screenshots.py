"""Pictures of the dashboard for the documents: real pools of eight and of 5,000 fake devices, and a made-up full one.

python docs/screenshots.py      # needs a browser; writes docs/pictures/
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import ray  # noqa: E402
from aiohttp.test_utils import TestServer  # noqa: E402
from chromium import Browser, Page, chromium  # noqa: E402
from dashboard_pool import MadeUp  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

import flexray as flex  # noqa: E402
from flexray.cli.dashboard import pool_source  # noqa: E402
from flexray.dashboard.access import Access  # noqa: E402
from flexray.dashboard.server import Dashboard  # noqa: E402
from flexray.dashboard.source import Source  # noqa: E402

PICTURES = HERE / "pictures"
QUEUES = [
    {"name": "prod", "quota": 3, "weight": 2},
    {"name": "research", "quota": 2},
    {"name": "batch", "quota": 1},
]
WORK = [
    ("prod", "generate", 0.5, 6),
    ("research", "finetune", 1, 3),
    ("batch", "embed", 0.25, 12),
    ("prod", "rank", 0.25, 4),
]
_SETTLE_SECONDS = 12.0


def busy(seconds: float) -> None:
    time.sleep(seconds)


def submit() -> list[flex.Future]:
    """More work than there is room for."""
    futures = []
    for queue, name, share, count in WORK:
        work = type(busy)(busy.__code__, globals(), name)
        work.__qualname__ = name
        task = flex.task(gpu=share, queue=queue, runtime=120)(work)
        futures += [task.remote(60.0 + 7 * number) for number in range(count)]
    return futures


async def shoot(page: Page, name: str) -> None:
    for scheme in ("light", "dark"):
        await page.prefer(scheme)
        await asyncio.sleep(1.5)
        await page.picture(PICTURES / f"{name}-{scheme}.png")


async def visit(browser: Browser, source: Source, name: str, views: dict[str, str]) -> None:
    """Pictures of some views (key to press -> end of the name)."""
    server = TestServer(Dashboard(source, Access("127.0.0.1", 8266)).app())
    await server.start_server()
    page = await browser.open(str(server.make_url("/")), width=1280, height=760)
    await page.until("document.body.dataset.drawn")
    await asyncio.sleep(_SETTLE_SECONDS)
    for key, view in views.items():
        await page.key(key)
        await shoot(page, f"{name}{view}")
    await server.close()


@contextmanager
def large_pool() -> Iterator[None]:
    """5,000 fake devices on five nodes of this machine; queues that may hold a dozen, since each slice is a process."""
    labels = {"flexray.fake": "500xA100-80GB.500xH100-80GB"}
    queues = [{**queue, "limit": 4} for queue in QUEUES]
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 8, "include_dashboard": False, "labels": labels}
    )
    for _ in range(4):
        cluster.add_node(num_cpus=8, labels=labels)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    try:
        flex.init(config={"queues": queues, "poll_seconds": 60})
        yield
    finally:
        flex.shutdown()
        ray.shutdown()
        cluster.shutdown()


async def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    flex.init("local", config={"fake_devices": "4xA100-80GB.4xH100-80GB", "queues": QUEUES})
    futures = submit()
    async with chromium() as browser:
        await visit(browser, pool_source(), "dashboard-8", {"1": "", "2": "-requests", "4": "-timeline"})
        for future in futures:
            future.cancel()
        await asyncio.to_thread(flex.shutdown)
        with large_pool():
            futures = submit()
            await visit(browser, pool_source(), "dashboard-5000", {"1": ""})
            for future in futures:
                future.cancel()
        await visit(browser, MadeUp(5_000, 10_000).source(), "dashboard-full", {"1": ""})


if __name__ == "__main__":
    asyncio.run(main())
