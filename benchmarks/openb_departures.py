"""openb with departures: real lives, arrivals compressed to a mean load, and what does not fit waits.

    python benchmarks/openb_departures.py [--quick] [--data DIR] [--policy NAME ...] [--load 0.8 ...] [--seeds 1-3]
                                          [--clip 3600] [--inflate 8] [--every 8] [--workers N] [--json FILE]

``DIR`` holds the trace (source: benchmarks/openb.py); without it the excerpt of the tests
is run, whose figures mean nothing. How arrivals are made is told in flexray/sim/openb_load.py:
they ask for ``inflate`` times the GPUs in all, so the trace is used up where it asks for less
(arrivals_exhausted) and tasks are drawn from it again. Every ``every``-th node of the list is
the pool. Printed per load and policy, as means over the orders of arrival: waits from arrival
to start, GPUs held over the busy window, and what is different from ``balanced`` in the same
order of arrival, with the standard error of that difference over the orders.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexray.sim.openb import read_nodes, read_tasks
from flexray.sim.openb_load import Load, LoadResult, replay_load
from flexray.sim.parallel import parse_seeds

EXCERPT = Path(__file__).parents[1] / "tests" / "data"
POLICIES = ("balanced", "fgd", "pack", "spread", "fast")
MEASURES = ("wait_mean_hours", "wait_p99_hours", "allocation")


@dataclass(frozen=True)
class Run:
    """One order of arrival at one load under one policy."""

    files: tuple[Path, ...]
    every: int
    policy: str
    load: Load

    def __call__(self) -> LoadResult:
        return replay_load(read_nodes(self.files[0])[:: self.every], read_tasks(self.files[1]), self.policy, self.load)


@dataclass(frozen=True)
class Row:
    """One load under one policy, mean over the orders of arrival. Allocation in per cent of the GPUs."""

    load: float
    policy: str
    seeds: int
    wait_mean_hours: float
    wait_p99_hours: float
    allocation: float
    waited: float
    arrived: float
    makespan_hours: float
    beyond_balanced: dict[str, tuple[float, float | None]]
    """Per measure: the mean difference from ``balanced`` in the same order, and its standard error."""


def figures(one: LoadResult) -> dict[str, float]:
    """What is compared, of one run."""
    mean, p99 = (one.wait.mean or 0.0) / 3600, (one.wait.p99 or 0.0) / 3600
    return {"wait_mean_hours": mean, "wait_p99_hours": p99, "allocation": one.allocation}


def summarise(results: Sequence[LoadResult], beside: Sequence[LoadResult]) -> Row:
    """One row of the runs of a policy, and of those of ``balanced`` in the same orders."""
    own, other = list(map(figures, results)), list(map(figures, beside))
    beyond = {}
    for name in MEASURES if beside else ():
        differences = [a[name] - b[name] for a, b in zip(own, other, strict=True)]
        many = len(differences) > 1
        error = statistics.stdev(differences) / len(differences) ** 0.5 if many else None
        beyond[name] = (round(statistics.mean(differences), 4), None if error is None else round(error, 4))
    first = results[0]
    return Row(
        first.load,
        first.policy,
        len(results),
        *(round(statistics.mean(one[name] for one in own), 4) for name in MEASURES),
        waited=round(statistics.mean(one.waited for one in results), 1),
        arrived=round(statistics.mean(one.arrived for one in results), 1),
        makespan_hours=round(statistics.mean(one.end for one in results) / 3600, 3),
        beyond_balanced=beyond,
    )


def rows_of(results: Sequence[LoadResult]) -> list[Row]:
    """A row per load and policy, in the order of the runs."""
    groups: dict[tuple[float, str], list[LoadResult]] = {}
    for one in results:
        groups.setdefault((one.load, one.policy), []).append(one)
    return [summarise(some, groups.get((load, "balanced"), [])) for (load, _), some in groups.items()]


def table(rows: Sequence[Row], first: LoadResult) -> Table:
    """The figures for a terminal."""
    title = (
        f"openb with departures: {first.devices} GPUs, arrivals for {first.inflate:g} times them, lives clipped at "
        f"{first.clip:g} s ({100 * first.clipped / first.arrived:.1f} % were longer)"
        f"{'; the trace was used up and drawn from again (arrivals_exhausted)' if first.arrivals_exhausted else ''}"
        "; waits in hours, allocation in % over the busy window, from a fifth of the arrivals on to the last; "
        "brackets: difference from balanced +- its standard error"
    )
    made = Table(title=title, box=None, title_justify="left")
    for column in ("load", "policy", "wait mean", "wait p99", "allocation", "waited", "makespan"):
        made.add_column(column, no_wrap=True)
    for row in rows:
        beyond = {name: _difference(row, name) for name in MEASURES}
        made.add_row(
            f"{100 * row.load:.0f} %",
            row.policy,
            f"{row.wait_mean_hours:.4f}{beyond['wait_mean_hours']}",
            f"{row.wait_p99_hours:.3f}{beyond['wait_p99_hours']}",
            f"{row.allocation:.2f}{beyond['allocation']}",
            f"{row.waited:,.0f} of {row.arrived:,.0f}",
            f"{row.makespan_hours:.2f}",
        )
    return made


def _difference(row: Row, name: str) -> str:
    if row.policy == "balanced" or name not in row.beyond_balanced:
        return ""
    mean, error = row.beyond_balanced[name]
    return f" ({mean:+.4f}" + (")" if error is None else f" +- {error:.4f})")


def run_all(runs: Sequence[Run], workers: int) -> list[LoadResult]:
    """All runs, in their order."""
    if workers == 1:
        return [run() for run in runs]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return pool.map(Run.__call__, runs, chunksize=1)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two orders of few arrivals on every 24th node")
    parser.add_argument("--data", type=Path, help="folder of the trace")
    parser.add_argument("--policy", action="append", help=f"may be repeated; by default {', '.join(POLICIES)}")
    parser.add_argument("--load", action="append", type=float, help="may be repeated; by default 0.8, 1, 1.2")
    parser.add_argument("--seeds", default="1-3", help="orders of arrival, or `trace` for the trace's own")
    parser.add_argument("--clip", type=float, default=3600.0, help="longest life, in seconds")
    parser.add_argument("--inflate", type=float, default=8.0, help="GPUs asked for in all, as a multiple of the GPUs")
    parser.add_argument("--every", type=int, default=8, help="of the list's nodes, one in so many is in the pool")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.quick:
        options.every, options.seeds, options.inflate = 24, "1-2", 5.0
    names = ("openb_node_list_gpu_node.csv", "openb_pod_list_default.csv")
    if not options.data:
        names = ("openb_excerpt_nodes.csv", "openb_excerpt_tasks.csv")
    files = tuple((options.data or EXCERPT) / name for name in names)
    seeds = [None] if options.seeds == "trace" else parse_seeds(options.seeds)
    every = options.every if options.data else 1
    choices = product(options.load or (0.8, 1.0, 1.2), options.policy or POLICIES, seeds)
    runs = [
        Run(files, every, policy, Load(load, options.clip, options.inflate, seed)) for load, policy, seed in choices
    ]
    results = run_all(runs, options.workers)
    rows = rows_of(results)
    Console(width=max(140, Console().width)).print(table(rows, results[0]))
    if options.json:
        plain = [one.model_dump(exclude={"types"}) for one in results]
        figures = {"version": 1, "rows": [asdict(row) for row in rows], "runs": plain}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
