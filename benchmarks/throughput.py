"""Many small tasks: flexray against Ray's own tasks and actors, both sides in one run, interleaved.

    python benchmarks/throughput.py [--quick] [--only NAME] [--json FILE]

One node with two declared devices: one is flexray's (four slices of 0.25), one is left
to Ray (four slots of 0.25). Prints medians and ratios against the targets, and where
the time of an empty task goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import ray
from cpu_time import SCHEDULER, cpu_by_group
from rich.console import Console
from rich.table import Table

import flexray as flex


@dataclass(frozen=True)
class Row:
    """One measure: medians of both sides, and their ratio against a target."""

    measure: str
    base: str
    base_value: float
    flexray: float
    unit: str
    ratio: float
    target: str
    met: bool


def nothing(value: int = 0) -> int:
    """An empty task."""
    return value


def sleep(seconds: float) -> None:
    """A task of a known length; 0 seconds is an empty one."""
    if seconds:
        time.sleep(seconds)


def megabyte(value: int) -> Any:
    """A result of 1 MB."""
    return np.full(1_000_000, value % 256, dtype=np.uint8)


class Server:
    """What a direct actor call reaches."""

    def nothing(self, value: int = 0) -> int:
        """As ``nothing``."""
        return value

    def megabyte(self, value: int) -> Any:
        """As ``megabyte``."""
        return megabyte(value)


def seconds(work: Callable[[], Any]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(rounds: int, *sides: Callable[[], float]) -> list[list[float]]:
    """Measure every side once per round, after one round that does not count."""
    taken: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        for side, values in zip(sides, taken, strict=True):
            value = side()
            if number:
                values.append(value)
    return taken


def median_ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """Median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def compare(measure: str, base: str, unit: str, target: float, values: list[list[float]], *, more: bool = True) -> Row:
    """A row of ``values`` = [base side, flexray's side]; ``more``: whether a higher ratio is better."""
    ratio = median_ratio(values[1], values[0])
    met = ratio >= target if more else ratio <= target
    text = f"{'>=' if more else '<='} {target:g}"
    return Row(measure, base, statistics.median(values[0]), statistics.median(values[1]), unit, ratio, text, met)


# -- the measures --------------------------------------------------------------------------------


def empty_tasks(rounds: int, quick: bool) -> list[Row]:
    """Empty tasks a second against Ray with warm workers."""
    few, many = (1_000, 20_000) if quick else (4_000, 50_000)
    warm = ray.remote(num_cpus=0, num_gpus=0.25, max_calls=0)(nothing)
    ours = flex.task(gpu=0.25)(nothing)
    values = interleaved(
        rounds,
        lambda: few / seconds(lambda: ray.get([warm.remote() for _ in range(few)])),
        lambda: many / seconds(lambda: flex.get([ours.remote() for _ in range(many)])),
    )
    return [compare("empty tasks", "ray.remote(num_gpus=0.25, max_calls=0)", "tasks/s", 10, values)]


def default_tasks(rounds: int, quick: bool) -> list[Row]:
    """The same against Ray's default for GPU tasks: a new process each."""
    few, many = (4, 20_000) if quick else (8, 50_000)
    default = ray.remote(num_cpus=0, num_gpus=0.25)(nothing)
    ours = flex.task(gpu=0.25)(nothing)
    values = interleaved(
        rounds,
        lambda: few / seconds(lambda: ray.get([default.remote() for _ in range(few)])),
        lambda: many / seconds(lambda: flex.get([ours.remote() for _ in range(many)])),
    )
    return [compare("empty tasks", "ray.remote(num_gpus=0.25)", "tasks/s", 500, values)]


def sleeping(length: float, count: int, target: float, rounds: int, quick: bool) -> list[Row]:
    """Tasks of a known length on four slices against four processes that do nothing but sleep as often."""
    count = count // 2 if quick else count
    ours = flex.task(gpu=0.25)(sleep)
    loop = (
        f"import time; start = time.perf_counter()\n"
        f"for _ in range({count // 4}): time.sleep({length})\n"
        f"print(time.perf_counter() - start)"
    )

    def ideal() -> float:
        four = [subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE, text=True) for _ in range(4)]
        return count / max(float(process.communicate()[0]) for process in four)

    def measured() -> float:
        return count / seconds(lambda: flex.get([ours.remote(length) for _ in range(count)]))

    return [
        compare(
            f"{count} tasks of {length * 1e3:g} ms",
            "four bare processes",
            "tasks/s",
            target,
            interleaved(rounds, ideal, measured),
        )
    ]


def head_of_line(rounds: int, quick: bool) -> list[Row]:
    """A burst of 1,000 empty tasks behind one of 2 s, on two slices, against the burst alone."""
    ours = flex.task(gpu=0.5)(sleep)

    def alone() -> float:
        return seconds(lambda: flex.get([ours.remote(0) for _ in range(1_000)])) * 1e3

    def behind() -> float:
        long = ours.remote(2.0)
        taken = seconds(lambda: flex.get([ours.remote(0) for _ in range(1_000)])) * 1e3
        if long.done():
            raise RuntimeError("the long task was done first: the burst waited for it")
        long.result()
        flex.get([ours.remote(0.05) for _ in range(16)])  # both slices are warm again
        return taken

    values = interleaved(rounds, alone, behind)
    return [compare("1,000 empty tasks behind one of 2 s", "the burst alone", "ms", 1.5, values, more=False)]


def round_trips(rounds: int, quick: bool) -> list[Row]:
    """One call at a time."""
    count = 200 if quick else 500
    direct = ray.remote(num_cpus=0)(Server).remote()
    task = flex.task(gpu=0.25)(nothing)
    actor = flex.actor(gpu=0.25)(Server).remote()

    def median_ms(call: Callable[[], Any]) -> float:
        return statistics.median(seconds(call) for _ in range(count)) * 1e3

    values = interleaved(
        rounds,
        lambda: median_ms(lambda: ray.get(direct.nothing.remote(1))),
        lambda: median_ms(lambda: task.remote(1).result()),
        lambda: median_ms(lambda: actor.nothing.remote(1).result()),
    )
    ray.kill(direct)
    actor.stop()
    base, tasks, calls = values
    return [
        compare("round trip of a task", "a Ray actor call", "ms", 1.3, [base, tasks], more=False),
        compare("round trip of an actor call", "a Ray actor call", "ms", 1.3, [base, calls], more=False),
    ]


def large_results(rounds: int, quick: bool) -> list[Row]:
    """1,000 results of 1 MB; each is dropped once it was looked at."""
    count = 200 if quick else 1_000
    servers = [ray.remote(num_cpus=0)(Server).remote() for _ in range(4)]
    ours = flex.task(gpu=0.25)(megabyte)

    def ray_side() -> float:
        def work() -> None:
            refs = [servers[n % 4].megabyte.remote(n) for n in range(count)]
            refs.reverse()
            for number in range(count):
                check(ray.get(refs.pop()), number)

        return seconds(work)

    def flexray_side() -> float:
        def work() -> None:
            futures = [ours.remote(n) for n in range(count)]
            futures.reverse()
            for number in range(count):
                check(futures.pop().result(), number)

        return seconds(work)

    def check(result: Any, number: int) -> None:
        if result[-1] != number % 256:
            raise RuntimeError("a wrong result came back")

    values = interleaved(rounds, ray_side, flexray_side)
    for server in servers:
        ray.kill(server)
    return [compare(f"{count} results of 1 MB", "Ray actors called directly", "s", 1.0, values, more=False)]


def client_memory(rounds: int, quick: bool) -> list[Row]:
    """Resident memory of the client for each queued empty task."""
    count = 100_000 if quick else 1_000_000
    ours = flex.task(gpu=0.25)(nothing)
    blocker = flex.actor(gpu=1)(Server).remote()  # the whole device: nothing else gets a lease
    blocker.nothing.remote().result()
    before = resident()
    futures = [ours.remote() for _ in range(count)]
    grown = (resident() - before) / count
    if any(future.done() for future in futures):
        raise RuntimeError("a task ran while all should have been queued")
    blocker.stop()
    flex.get(futures)
    return [
        Row(f"client memory, {count:,} queued", "-", 1000, grown, "bytes/task", grown / 1000, "<= 1", grown <= 1000)
    ]


def scheduler_load(rounds: int, quick: bool) -> list[Row]:
    """CPU of the scheduler while 10,000 tasks a second run on leases that are held."""
    ours = flex.task(gpu=0.25)(nothing)
    per_second, length = 10_000, (3 if quick else 10)
    shares, rates = [], []
    for _ in range(1 if quick else rounds):
        flex.get([ours.remote() for _ in range(20_000)])
        before, start = cpu_by_group(), time.perf_counter()
        futures: list[Any] = []
        while (now := time.perf_counter() - start) < length:
            futures += [ours.remote() for _ in range(int(now * per_second) - len(futures))]
            time.sleep(0.002)
        flex.get(futures)
        elapsed = time.perf_counter() - start
        rates.append(len(futures) / elapsed)
        shares.append((cpu_by_group()[SCHEDULER] - before[SCHEDULER]) / elapsed)
    share = statistics.median(shares)
    base = f"at {statistics.median(rates):,.0f} tasks/s"
    return [Row("scheduler CPU", base, 0.05, share, "cores", share / 0.05, "<= 1", share <= 0.05)]


MEASURES: dict[str, Callable[[int, bool], list[Row]]] = {
    "empty": empty_tasks,
    "default": default_tasks,
    "sleep1": partial(sleeping, 0.001, 8_000, 0.85),
    "sleep100": partial(sleeping, 0.1, 128, 0.98),
    "behind": head_of_line,
    "latency": round_trips,
    "large": large_results,
    "memory": client_memory,
    "scheduler": scheduler_load,
}


def resident() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def where_time_goes(quick: bool) -> Table:
    """CPU microseconds per empty task, by who used them."""
    count = 20_000 if quick else 100_000
    ours = flex.task(gpu=0.25)(nothing)
    flex.get([ours.remote() for _ in range(count // 10)])
    before = cpu_by_group()
    wall = seconds(lambda: flex.get([ours.remote() for _ in range(count)]))
    after = cpu_by_group()
    table = Table(
        "who", "CPU us per task", title=f"an empty task, {count:,} of them, wall {wall / count * 1e6:.1f} us each"
    )
    for who, used in after.items():
        table.add_row(who, f"{(used - before[who]) / count * 1e6:.1f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and tasks")
    parser.add_argument("--only", choices=MEASURES, help="one measure")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    flex.init(config={"leave_to_ray": {"GPU": 1}})
    rounds = 2 if arguments.quick else 5
    rows: list[Row] = []
    console = Console(width=150)
    for name, measure in MEASURES.items():
        if arguments.only in (None, name):
            rows += measure(rounds, arguments.quick)
            console.print(f"[dim]{name} measured[/dim]", highlight=False)
    table = Table("measure", "against", "", "flexray", "unit", "ratio", "target", "", title="many small tasks")
    for row in rows:
        figures = (f"{row.base_value:,.4g}", f"{row.flexray:,.4g}", row.unit, f"{row.ratio:.3g}", row.target)
        table.add_row(row.measure, row.base, *figures, "met" if row.met else "missed")
    console.print(table)
    if arguments.only in (None, "empty"):
        console.print(where_time_goes(arguments.quick))
    flex.shutdown()
    ray.shutdown()
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
