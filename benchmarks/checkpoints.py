"""What storing and restoring a task's state costs: with the client in Ray's object store, and in a directory.

    python benchmarks/checkpoints.py [--quick] [--json FILE]

One node with one fake device. Each figure is the median of the rounds, as the task sees it; a plain copy in memory
of the same bytes is there to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import ray
from rich.console import Console
from rich.table import Table

import flexray as flex


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Median run time."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def measure(size: int, rounds: int, marker: str) -> tuple[float, float, float]:
    """Seconds to copy, to store and to restore so many bytes. Dies once in the middle, to be restored."""
    here, state = flex.current(), np.ones(size, np.uint8)
    if not os.path.exists(marker):
        here.checkpoint(state)  # the first one of an attempt waits until the client asks for it
        stored = seconds(lambda: here.checkpoint(state), rounds)
        with open(marker, "w") as file:
            file.write(str(stored))
        os._exit(1)
    with open(marker) as file:
        stored = float(file.read())
    return seconds(state.copy, rounds), stored, seconds(lambda: here.restored, rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="10 MB instead of 100, 3 rounds instead of 10")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    flex.init(config={"fake_devices": "1xT4"})
    sizes, rounds = ((1_000, 10_000_000), 3) if arguments.quick else ((1_000, 100_000_000), 10)
    rows = []
    table = Table("kept", "bytes", "copy, ms", "checkpoint(), ms", "restored, ms", title="one task's state")
    with tempfile.TemporaryDirectory() as folder:
        for name, place in (("by the client", None), ("in a directory", folder)):
            for size in sizes:
                task = flex.task(gpu=1, request=flex.Request(checkpoint_place=place))(measure)
                marker = f"{folder}/{place is None}-{size}"
                found = task.remote(size, rounds, marker).result(300)
                rows.append(
                    {"kept": name, "bytes": size, **dict(zip(("copy", "store", "restore"), found, strict=True))}
                )
                table.add_row(name, f"{size:,}", *(f"{1000 * one:.2f}" for one in found))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    flex.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
