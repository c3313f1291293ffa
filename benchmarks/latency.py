"""Round trip of one task on a warm slice against a direct call of a Ray actor, interleaved in one run.

    python benchmarks/latency.py [--quick] [--json FILE]

Prints the median of each round and the ratio of the medians of all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from rich.console import Console
from rich.table import Table

import flexray as flex


class Echo:
    """What both sides call."""

    def echo(self, value: int) -> int:
        """The value itself."""
        return value


def median_ms(call: Callable[[], Any], count: int) -> float:
    """Median round trip in milliseconds, after a tenth of the calls as warm-up."""
    times = []
    for number in range(count + count // 10):
        start = time.perf_counter()
        call()
        if number >= count // 10:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    calls = 100 if arguments.quick else 500
    flex.init(address="local", config={"cpu_devices": 1})
    direct = ray.remote(num_cpus=0)(Echo).remote()
    task = flex.task(accelerator=0.25)(Echo().echo)
    actor = flex.actor(accelerator=0.25)(Echo).remote()
    sides: dict[str, Callable[[], Any]] = {
        "Ray actor call": lambda: ray.get(direct.echo.remote(1)),
        "flexray task": lambda: task.remote(1).result(),
        "flexray actor call": lambda: actor.echo.remote(1).result(),
    }
    for call in sides.values():
        call()
    rounds = [
        {name: median_ms(call, calls) for name, call in sides.items()} for _ in range(5 if arguments.quick else 9)
    ]
    flex.shutdown()
    medians = {name: statistics.median(each[name] for each in rounds) for name in sides}
    base = medians["Ray actor call"]
    ratios = {name: statistics.median(each[name] / each["Ray actor call"] for each in rounds) for name in sides}
    table = Table("side", "median ms", "ratio to Ray", title=f"round trip, {len(rounds)} interleaved rounds of {calls}")
    for name, value in medians.items():
        table.add_row(name, f"{value:.3f}", f"{ratios[name]:.2f}")
    Console().print(table)
    if arguments.json:
        figures = {"ray_actor_ms": base, "task_ms": medians["flexray task"], "task_ratio": ratios["flexray task"]}
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
