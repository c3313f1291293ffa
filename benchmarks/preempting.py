"""A server is asked for while batch work has every device: how long until it answers, and does the batch end right?

    python benchmarks/preempting.py [--quick] [--rounds N] [--json FILE]

Two CPU devices of this machine. Batch tasks hold both whole devices; each adds up numbers, saves its state every half
second (``flex.current().checkpoint``), which is also where it gives way. Then an actor of higher priority is asked for,
on half a device. Measured from asking for it to its first answer, three ways, in turn within each round:

- free: no batch work is there;
- preempting: the batch may be taken back (``preemptible=True``): one task stops, and goes on later where it was;
- waiting: it may not, so that the server waits for the end of a task.

After each round every batch result is compared with the sum it must be, and the steps that were done twice, since they
came after the last checkpoint, are counted (each task writes a line for every step).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from rich.console import Console
from rich.table import Table

import flexray as flex

DEVICES = 2
STEP_SECONDS = 0.05
SAVE_EVERY = 0.5
WAYS = ("free", "preempting", "waiting")
BOUND = 300.0
SETTLED_SECONDS = 1.5
"""A lease that is younger than a second is not taken back."""


@dataclass(frozen=True)
class Round:
    """One server asked for: seconds until it answered. Of the batch: preemptions, steps done twice, sums all right."""

    way: str
    served: float
    preemptions: int
    steps_twice: int
    right: bool


def add_up(steps: int, log: str) -> int:
    """The sum of the numbers below ``steps``, slowly."""
    here = flex.current()
    begin, total = here.restored or (0, 0)
    with Path(log).open("a", buffering=1) as file:
        for number in range(begin, steps):
            total += number
            time.sleep(STEP_SECONDS)
            file.write(f"{number}\n")
            here.checkpoint((number + 1, total), every=SAVE_EVERY)
    return int(total)


class Server:
    """Something that answers."""

    def answer(self) -> str:
        """One answer."""
        return flex.current().device.id


def serve_once(way: str, steps: int, folder: Path) -> Round:
    """Fill the devices, ask for a server, wait for its answer and for the end of the batch."""
    batch = flex.task(accelerator=1, request=flex.Request(preemptible=way == "preempting"))(add_up)
    logs = [folder / f"{way}{time.monotonic_ns()}.{number}" for number in range(DEVICES if way != "free" else 0)]
    futures = [batch.remote(steps, str(log)) for log in logs]
    while not all(log.exists() and log.read_text() for log in logs):
        time.sleep(0.05)
    time.sleep(SETTLED_SECONDS if logs else 0.0)
    before, begin = len(flex.pool().preemptions), time.monotonic()
    server = flex.actor(accelerator=0.5, priority=10)(Server).remote()
    server.answer.remote().result(BOUND)
    served, taken = time.monotonic() - begin, len(flex.pool().preemptions) - before
    server.stop()
    right = flex.get(futures, timeout=BOUND) == [steps * (steps - 1) // 2] * len(futures)
    done = sum(len(log.read_text().split()) for log in logs)
    return Round(way, round(served, 3), taken, done - steps * len(futures), right)


def show(rounds: list[Round]) -> None:
    """Print the figures."""
    made = Table(title=f"one server, {DEVICES} devices", title_justify="left", box=None)
    for column in ("way", "served after, s", "least, most", "preemptions", "steps twice", "sums right"):
        made.add_column(column)
    for way in WAYS:
        mine = [one for one in rounds if one.way == way]
        times = [one.served for one in mine]
        counts = (sum(one.preemptions for one in mine), sum(one.steps_twice for one in mine))
        right = f"{sum(one.right for one in mine)} of {len(mine)}"
        spread = f"{min(times):.2f}, {max(times):.2f}"
        made.add_row(way, f"{statistics.median(times):.2f}", spread, *map(str, counts), right)
    Console(width=120).print(made)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of short batch tasks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rounds, steps = (1, 100) if options.quick else (options.rounds, 200)
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    flex.init(config={"cpu_devices": DEVICES, "linger_seconds": 0.05, "warm_seconds": 0})
    with tempfile.TemporaryDirectory() as folder:
        found = [serve_once(way, steps, Path(folder)) for _ in range(rounds) for way in WAYS]
    flex.shutdown()
    ray.shutdown()
    show(found)
    if options.json:
        options.json.write_text(json.dumps({"version": 1, "rounds": [asdict(one) for one in found]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
