"""What telemetry costs: empty tasks a second with OTLP metrics and traces of 1 % of the calls, and without.

    python benchmarks/telemetry.py [--quick] [--json FILE]

Three clients, each with a Ray and a pool of its own, submit a burst each in turns of a third of a second: so what else
the machine does meets all of them alike. The collector is a process that takes what is sent and forgets it. The third
side is without telemetry again: what differs between two equal sides is noise. Medians, also of each round's ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
WARM = 2_000
"""Tasks before each burst, so that leases are held when it begins."""
_SAYS = "flexray-benchmark:"


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


class Side:
    """A client with a Ray and a pool of its own, in a process that waits until it is told to go."""

    def __init__(self, variables: dict[str, str], folder: str) -> None:
        environment = {**os.environ, **variables, "RAY_TMPDIR": folder}
        command = [sys.executable, __file__, "--client"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._said()

    def go(self, count: int) -> tuple[float, float]:
        """(tasks a second, CPU microseconds of the client per task) of one burst."""
        self._tell(str(count))
        rate, cpu = map(float, self._said().split())
        return rate, cpu

    def end(self) -> None:
        """It stops its pool and its Ray."""
        self._tell("")
        self._process.wait(60)

    def _tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def _said(self) -> str:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith(_SAYS):
            if not line:
                raise RuntimeError("a client has ended")
        return line.removeprefix(_SAYS)


def client() -> None:
    """What a side's process does: bursts of empty tasks, as it is told."""
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    flex.init()
    task = flex.task(gpu=0.25)(nothing)
    flex.get([task.remote() for _ in range(WARM)])
    print(_SAYS, "there", flush=True)
    while (line := sys.stdin.readline().strip()) != "":
        count = int(line)
        flex.get([task.remote() for _ in range(WARM)])
        wall, used = time.perf_counter(), time.process_time()
        flex.get([task.remote() for _ in range(count)])
        cpu = time.process_time() - used
        print(_SAYS, count / (time.perf_counter() - wall), cpu / count * 1e6, flush=True)
    flex.shutdown()
    stop_pool()
    ray.shutdown()


def measure(rounds: int, count: int) -> dict[str, list[tuple[float, float]]]:
    """All sides one after the other, in another order each time."""
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    with collector() as url, ExitStack() as stack:
        on = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        }
        sides = {}
        for name in SIDES:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="fxt", dir="/tmp", ignore_cleanup_errors=True)
            )
            sides[name] = Side(on if name == "on" else {}, folder)
            stack.callback(sides[name].end)
        for number in range(rounds):
            for name in SIDES[number % 3 :] + SIDES[: number % 3]:
                values[name].append(sides[name].go(count))
    return values


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and tasks")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        client()
        return
    values = measure(6 if arguments.quick else 60, 20_000)
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
