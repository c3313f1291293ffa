"""What telemetry costs: empty tasks a second with OTLP metrics and traces of 1 % of the calls, and without.

    python benchmarks/telemetry.py [--quick] [--json FILE]

One Ray; each round starts a pool without and one with telemetry, one after the other, in turns. The collector is a
process that takes what is sent and forgets it. A third side is a pool without telemetry again: what differs between
two equal sides is noise. Prints medians and the medians of each round's ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from rich.console import Console
from rich.table import Table

import flexray as flex
from flexray.runtime.pool import stop_pool

_COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
SIDES = ("off", "on", "off again")


@dataclass(frozen=True)
class Row:
    """One side: its median, and how it compares with "off"."""

    side: str
    tasks_a_second: float
    ratio: float
    client_cpu_us: float
    cpu_ratio: float


def nothing(value: int = 0) -> int:
    """An empty task."""
    return value


@contextmanager
def collector() -> Iterator[str]:
    """A collector of its own process; yields its address."""
    process = subprocess.Popen([sys.executable, "-c", _COLLECTOR], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def pool(variables: dict[str, str]) -> Iterator[None]:
    """A pool that was started with these variables in its environment."""
    saved = dict(os.environ)
    os.environ.update(variables)
    flex.init()
    try:
        yield
    finally:
        flex.shutdown()
        stop_pool()
        os.environ.clear()
        os.environ.update(saved)


def measure(variables: dict[str, str], count: int, bursts: int) -> tuple[float, float]:
    """(tasks a second, CPU microseconds of the client per task): medians of some bursts, after one to get warm."""
    rates, cpu = [], []
    with pool(variables):
        task = flex.task(gpu=0.25)(nothing)
        for number in range(bursts + 1):
            wall, used = time.perf_counter(), time.process_time()
            flex.get([task.remote() for _ in range(count)])
            if number:
                rates.append(count / (time.perf_counter() - wall))
                cpu.append((time.process_time() - used) / count * 1e6)
    return statistics.median(rates), statistics.median(cpu)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and tasks")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    rounds, count, bursts = (2, 20_000, 2) if arguments.quick else (5, 50_000, 3)
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    values: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    with collector() as url:
        on = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        }
        for number in range(rounds):
            order = SIDES if number % 2 else SIDES[::-1]
            for side in order:
                values[side].append(measure(on if side == "on" else {}, count, bursts))
    ray.shutdown()
    rows = [compared(side, values) for side in SIDES]
    table = Table("side", "empty tasks a second", "of off", "CPU of the client per task", "of off", title="Telemetry")
    for row in rows:
        cpu = (f"{row.client_cpu_us:.2f} us", f"{row.cpu_ratio:.3f}")
        table.add_row(row.side, f"{row.tasks_a_second:,.0f}", f"{row.ratio:.3f}", *cpu)
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))


def compared(side: str, values: dict[str, list[tuple[float, float]]]) -> Row:
    """A side's medians, and the medians of each round's ratio to "off"."""
    pairs = list(zip(values[side], values["off"], strict=True))
    rate, cpu = (statistics.median(one[kind] for one in values[side]) for kind in (0, 1))
    ratio, cpu_ratio = (statistics.median(a[kind] / b[kind] for a, b in pairs) for kind in (0, 1))
    return Row(side, rate, ratio, cpu, cpu_ratio)


if __name__ == "__main__":
    main()
