"""Estimated starts against true ones: a trace is replayed at a load at which requests wait.

    python benchmarks/estimates.py [--quick] [--data DIR] [--load 1.2] [--every 24] [--inflate 5] [--sample 5]
                                   [--seed 1] [--json FILE]

``DIR`` holds the openb trace (source: benchmarks/openb.py); without it the excerpt of the tests
is run, whose figures mean nothing. Real lives, clipped at an hour, on every ``every``-th node,
with arrivals compressed as flexray/sim/openb_load.py says. Of the tasks that have to wait, one
in ``sample`` is asked about, right when it begins to: the core replays the present state
(flexray/core/estimate.py), without knowing what comes later. What it says is compared with when
the task started, for what the scheduler is told of run times:

    unknown     nothing: it guesses from the tasks that ended lately
    declared    true x a factor, log-uniform between 1 and 10 and drawn for each task, as users overestimate
    true        the life of the task

Printed: median and 90th percentile of the error, in seconds and as a part of the wait.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexray.config import PoolConfig
from flexray.core.estimate import estimate_starts
from flexray.core.scheduler import Scheduler
from flexray.model.devices import Inventory
from flexray.model.explanation import StartEstimate
from flexray.model.lease import RequestId
from flexray.model.lifecycle import RequestState
from flexray.sim.clock import Simulation
from flexray.sim.foresight import Foresight
from flexray.sim.jobs import Costs, Job, seconds, ticks
from flexray.sim.openb import NEVER, Task, read_nodes, read_tasks
from flexray.sim.openb_load import Load, compress

EXCERPT = Path(__file__).parents[1] / "tests" / "data"
KNOWN = ("unknown", "declared", "true")
LARGEST_FACTOR = 10.0
START_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """Errors of the estimates under one kind of knowledge. Seconds; parts of the wait."""

    known: str
    asked: int
    without_estimate: int
    wait_median: float
    error_median: float
    error_p90: float
    part_median: float
    part_p90: float
    late: float
    """Part of the tasks that started later than was said."""
    seconds_per_estimate: float


class Sampled(Foresight):
    """Asks about one in so many of the tasks that wait, when they begin to."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self._every, self._began = every, set[RequestId]()
        self.said: dict[RequestId, tuple[float, StartEstimate]] = {}
        self.spent = 0.0

    def look(self, core: Scheduler, now: float) -> None:
        """After a cycle: new ones that wait are counted, and those whose number it is are asked about."""
        waiting = [r for r in core.state.requests.values() if r.state is RequestState.QUEUED]
        asked = []
        for request in waiting:
            if request.id not in self._began:
                self._began.add(request.id)
                if len(self._began) % self._every == 0:
                    asked.append(request.id)
        if asked:
            begin = time.perf_counter()
            found = estimate_starts(core.copy(), asked, now)
            self.spent += time.perf_counter() - begin
            self.said.update((name, (now, one)) for name, one in found.items())


def jobs_of(tasks: Sequence[Task], devices: int, asked: Load, known: str, seed: int) -> list[Job]:
    """The arrivals, and what is declared of them."""
    coming, dice = compress(tasks, devices, asked), random.Random(seed)
    jobs = []
    for number, (task, at, lived) in enumerate(zip(coming.tasks, coming.times, coming.lives, strict=True)):
        factor = LARGEST_FACTOR ** dice.random() if known == "declared" else 1.0
        runtime = None if known == "unknown" else lived * factor
        request = dataclasses.replace(task.request, runtime=runtime)
        name = RequestId(f"{task.name}#{number}")
        jobs.append(Job(name, ticks(at), "openb", request, (("*", lived),), reusable=False))
    return jobs


def measure(nodes: Sequence[Inventory], jobs: Sequence[Job], known: str, sample: int) -> Row:
    """Run, ask, and compare."""
    config = PoolConfig(lease_term_seconds=NEVER, warm_seconds=NEVER)
    sampled = Sampled(sample)
    simulation = Simulation(config, nodes, jobs, costs=Costs(start=START_SECONDS), foresight=sampled)
    simulation.run()
    errors, parts, waits, late = [], [], [], 0
    for name, (at, said) in sampled.said.items():
        attempts = simulation.courses[name].attempts
        if attempts and said.seconds is not None:
            waited = seconds(attempts[0].start) - at
            errors.append(abs(said.seconds - waited))
            parts.append(errors[-1] / waited)
            waits.append(waited)
            late += said.seconds < waited - 1e-6
    count = len(sampled.said)
    columns = ((waits, 50), (errors, 50), (errors, 90), (parts, 50), (parts, 90))
    return Row(
        known,
        count,
        count - len(errors),
        *(round(rank(values, percent), 3) for values, percent in columns),
        late=round(late / max(len(errors), 1), 3),
        seconds_per_estimate=round(sampled.spent / max(count, 1), 3),
    )


def rank(values: Sequence[float], percent: int) -> float:
    """A percentile, nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else 0.0


def table(rows: Sequence[Row], title: str) -> Table:
    """The figures for a terminal."""
    made = Table(title=title, box=None, title_justify="left")
    columns = ("run times", "asked", "no estimate", "wait p50", "error p50", "error p90", "of wait p50", "of wait p90")
    for column in (*columns, "started later", "s per estimate"):
        made.add_column(column, no_wrap=True)
    for row in rows:
        made.add_row(
            row.known,
            str(row.asked),
            str(row.without_estimate),
            f"{row.wait_median:,.0f} s",
            f"{row.error_median:,.0f} s",
            f"{row.error_p90:,.0f} s",
            f"{100 * row.part_median:.0f} %",
            f"{100 * row.part_p90:.0f} %",
            f"{100 * row.late:.0f} %",
            f"{row.seconds_per_estimate:.2f}",
        )
    return made


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every 48th node")
    parser.add_argument("--data", type=Path, help="folder of the trace")
    parser.add_argument("--load", type=float, default=1.2)
    parser.add_argument("--every", type=int, default=24, help="of the list's nodes, one in so many is in the pool")
    parser.add_argument("--inflate", type=float, default=5.0, help="GPUs asked for in all, as a multiple of the GPUs")
    parser.add_argument("--sample", type=int, default=5, help="one in so many of those that wait is asked about")
    parser.add_argument("--seed", type=int, default=1, help="of the order of arrival, and of the factors")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.quick:
        options.every, options.sample = 48, 10
    names = ("openb_node_list_gpu_node.csv", "openb_pod_list_default.csv")
    if not options.data:
        names = ("openb_excerpt_nodes.csv", "openb_excerpt_tasks.csv")
    nodes, tasks = (options.data or EXCERPT) / names[0], (options.data or EXCERPT) / names[1]
    pool = read_nodes(nodes)[:: options.every if options.data else 1]
    devices = sum(len(node.devices) for node in pool)
    asked = Load(options.load, 3600.0, options.inflate, options.seed)
    rows = [
        measure(pool, jobs_of(read_tasks(tasks), devices, asked, known, options.seed), known, options.sample)
        for known in KNOWN
    ]
    title = f"estimated starts on openb: {devices} GPUs, {100 * options.load:.0f} % load, one in {options.sample} waits"
    Console(width=max(140, Console().width)).print(table(rows, title))
    if options.json:
        setting = {"devices": devices, "load": options.load, "inflate": options.inflate, "seed": options.seed}
        figures = {"version": 1, **setting, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
