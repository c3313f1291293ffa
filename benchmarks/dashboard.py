"""A large pool in the dashboard: how soon the server answers, and how soon a browser has something to show.

A made-up pool behind the real server, in a process of its own, and a headless Chromium with an empty profile. What
slices use changes at every look, and some requests end and start.

    status     GET /api/snapshot, which has the fields of `flexray status --json`
    whole      the first live event: everything, compact
    paint      the browser's first contentful paint, from navigation
    drawn      devices, queues and figures of the pool are drawn
    scroll     frames a second while the list of devices is scrolled from one end to the other

python benchmarks/dashboard.py [--quick] [--json FILE] [--devices N] [--requests N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from chromium import Browser, chromium, installed
from dashboard_pool import MadeUp

_WATCHED_SECONDS = 5.0
_SCROLL = """new Promise((done) => { const list = document.querySelector('#devices'); const begun = performance.now();
    let frames = 0; const step = () => { const part = (performance.now() - begun) / 2000; frames++;
      list.scrollTop = part * (list.scrollHeight - list.clientHeight);
      part < 1 ? requestAnimationFrame(step) : done(frames / 2) }; requestAnimationFrame(step) })"""


@dataclass(frozen=True)
class Result:
    """Medians of the visits; milliseconds, megabytes, frames a second. None where there is no browser."""

    devices: int
    requests: int
    visits: int
    status_ms: float
    status_worst_ms: float
    whole_ms: float
    whole_mb: float
    change_kb: float
    paint_ms: float | None
    drawn_ms: float | None
    scroll_fps: float | None


def serve_made_up(devices: int, requests: int, told: Connection) -> None:
    """The server's process, until it is terminated."""
    from flexray.dashboard.access import Access
    from flexray.dashboard.server import Dashboard

    async def work() -> None:
        from aiohttp.test_utils import TestServer

        server = TestServer(Dashboard(MadeUp(devices, requests).source(), Access("127.0.0.1", 8266)).app())
        await server.start_server()
        told.send(str(server.make_url("/")).rstrip("/"))
        await asyncio.Event().wait()

    asyncio.run(work())


async def status_times(at: str, count: int) -> list[float]:
    """Milliseconds of each answer."""
    found = []
    async with aiohttp.ClientSession() as http:
        for _ in range(count):
            begun = time.perf_counter()
            async with http.get(f"{at}/api/snapshot") as answer:
                await answer.read()
            found.append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(0.5)
    return found


async def live(at: str) -> tuple[float, float, float]:
    """(milliseconds until everything is there, its megabytes, kilobytes of a change)."""
    begun, changes, whole = time.perf_counter(), [], (0.0, 0.0)
    async with aiohttp.ClientSession(read_bufsize=2**26) as http, http.get(f"{at}/api/events") as answer:
        while time.perf_counter() - begun < _WATCHED_SECONDS:
            line = await asyncio.wait_for(answer.content.readline(), 60)
            if line.startswith(b'data: {"version"') and not whole[1]:
                whole = (1000 * (time.perf_counter() - begun), len(line) / 1e6)
            elif line.startswith(b'data: {"version"'):
                changes.append(len(line) / 1e3)
    return (*whole, statistics.median(changes) if changes else 0.0)


async def visit(browser: Browser, at: str) -> tuple[float, float, float]:
    """(first paint, drawn, frames a second) of a visit."""
    page = await browser.open(at)
    await page.until("document.body.dataset.drawn")
    paint = await page.js("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    drawn = await page.js("performance.getEntriesByName('flexray-drawn')[0].startTime")
    fps = await page.js(_SCROLL)
    assert page.errors == [], page.errors
    await page.call("Page.close")
    return paint, drawn, fps


async def measure(at: str, devices: int, requests: int, visits: int) -> Result:
    """All of it."""
    times = await status_times(at, 2 * visits)
    whole_ms, whole_mb, change_kb = await live(at)
    seen: list[tuple[float, float, float]] = []
    if installed() is not None:
        async with chromium() as browser:
            await visit(browser, at)  # the first one starts the browser's own processes
            seen = [await visit(browser, at) for _ in range(visits)]
    paint, drawn, fps = (round(statistics.median(each)) for each in zip(*seen, strict=True)) if seen else (None,) * 3
    status, worst = round(statistics.median(times)), round(max(times))
    figures = (status, worst, round(whole_ms), round(whole_mb, 1), round(change_kb))
    return Result(devices, requests, visits, *figures, paint, drawn, fps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="two visits instead of seven")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve_made_up, args=(asked.devices, asked.requests, theirs), daemon=True)
    server.start()
    try:
        found = asyncio.run(measure(ours.recv(), asked.devices, asked.requests, 2 if asked.quick else 7))
    finally:
        server.terminate()
        server.join(10)
    for name, value in asdict(found).items():
        print(f"{name:<16} {'no browser' if value is None else value}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(found), indent=2))


if __name__ == "__main__":
    main()
