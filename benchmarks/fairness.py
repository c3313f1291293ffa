"""A day of six teams on one pool: what each gets against what it is entitled to, with queues and without.

    python benchmarks/fairness.py --data DIR [--quick] [--nodes 12] [--clip 14400] [--json FILE]

``DIR/gavel`` holds simulation_throughputs.json and, in msr, traces/msr of stanford-futuredata/gavel (MIT;
Narayanan et al., OSDI 2020): the jobs of six virtual clusters of Microsoft's Philly trace (Jeon et al., USENIX
ATC 2019). Of each the day with most arrivals is taken, and all are put on one day (flexray/sim/philly.py). Jobs
end after ``clip`` seconds at the latest; one of more than 8 devices is several of 8, as no gangs are run here. The
pool is of nodes with 8 V100. Each team is promised 8 devices; weights are 3, 3, 2, 2, 1, 1. The trace does not say
which jobs may be stopped: in turn, three of five save their state every ten minutes, one starts anew when it is
stopped, and one, as an actor would, cannot be stopped at all.

    queues             this scheduler with those queues
    half-life          the same where past use counts half after 4 h
    all may be stopped the same as queues, where every job saves its state
    all is promised    the same as that, where each team is promised a sixth of the pool
    no queues          this scheduler without any
    fifo               strictly first come, first served (flexray/sim/fifo.py)

All but the last are the scheduler of the pool under a virtual clock. The measures are told in
flexray/sim/fair_shares.py, over the 24 h in which jobs come; waits, preemptions and lost work are of all jobs
until the last is done. ``--quick`` takes every second job and half the nodes, and leaves out the variants.
Without DIR a drawn load, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexray import catalog
from flexray.config import PoolConfig
from flexray.core.loads import capacity_of
from flexray.core.queues import QueueTree
from flexray.model.devices import Device, Inventory
from flexray.model.lease import RequestId
from flexray.model.queue import Queue, QueueAmount
from flexray.model.request import DEFAULT_QUEUE, Request
from flexray.sim.clock import Simulation
from flexray.sim.fair_shares import Fairness, Stay, measure
from flexray.sim.fifo import first_come_first_served
from flexray.sim.jobs import Costs, Course, Job, seconds, ticks
from flexray.sim.philly import DAY, TeamJob, read_busiest_days
from flexray.sim.result import Distribution, distribution

PER_NODE = 8
QUOTA = 8
WEIGHTS = (3, 3, 2, 2, 1, 1)
HALF_LIFE = 4 * 3600.0
SAVES_EVERY = 600.0
MIXED = ("saves", "saves", "saves", "restarts", "never")
"""What happens to a job that is stopped, in turn."""


@dataclass(frozen=True)
class Variant:
    """How the day is run. Devices promised to each team are ``quota``, or the same part of the pool for each."""

    name: str
    queues: bool = True
    quota: int | None = QUOTA
    half_life: float | None = None
    stoppable: tuple[str, ...] = MIXED


QUEUES, NO_QUEUES, FIFO = Variant("queues"), Variant("no queues", queues=False), "fifo"
VARIANTS = (
    Variant("half-life", half_life=HALF_LIFE),
    Variant("all may be stopped", stoppable=("saves",)),
    Variant("all is promised", stoppable=("saves",), quota=None),
)


@dataclass(frozen=True)
class Row:
    """One scheduler on the day.

    Attributes:
        utilisation: in per cent of the pool.
        lost: in per cent of all work.
        wait, waits: seconds from arrival to the first start, of all jobs and by queue.
        seconds: that the simulation took.
    """

    scheduler: str
    fairness: Fairness
    utilisation: float
    preemptions: dict[str, int]
    lost_device_seconds: float
    lost: float
    wait: Distribution
    waits: dict[str, Distribution]
    end_hours: float
    seconds: float


def team_queues(day: Sequence[TeamJob], nodes: int, variant: Variant) -> list[Queue]:
    """A queue for each team."""
    teams = sorted({job.team for job in day})
    whole = PER_NODE * nodes * 1000
    quota = QueueAmount(devices=1000 * variant.quota if variant.quota is not None else whole // len(teams))
    return [
        Queue(team, quota=quota, weight=1000 * weight, half_life=variant.half_life)
        for team, weight in zip(teams, WEIGHTS, strict=True)
    ]


def drawn_day(most_devices: int, clip: float) -> list[TeamJob]:
    """A load for want of data: six teams, one of which sends most of its jobs in two hours."""
    draw = random.Random(0)
    found = []
    for number in range(300):
        team = draw.randrange(6)
        came = draw.uniform(8, 10) * 3600 if team == 0 else draw.uniform(0, DAY)
        devices = min(draw.choice((1, 1, 1, 2, 4, 8)), most_devices)
        found.append(TeamJob(f"team{team}", f"kind{number % 7}", came, devices, min(clip, draw.expovariate(1 / 9000))))
    return sorted(found, key=lambda job: job.came)


def pool_of(nodes: int) -> list[Inventory]:
    """So many nodes with V100."""
    kind = catalog.find("v100")
    family = catalog.family_of(kind.name)
    return [
        Inventory(f"n{n}", f"n{n}", tuple(
            Device(f"n{n}/gpu{i}", f"n{n}", i, kind, family, "simulated") for i in range(PER_NODE)
        ))
        for n in range(nodes)
    ]  # fmt: skip


def as_jobs(day: Sequence[TeamJob], variant: Variant) -> Iterator[Job]:
    """The jobs as requests, in queues of their teams or all in one."""
    turns: Counter[str] = Counter()
    for number, job in enumerate(day):
        how = variant.stoppable[turns[job.team] % len(variant.stoppable)]
        turns[job.team] += 1
        saves = SAVES_EVERY if how == "saves" else None
        queue = job.team if variant.queues else DEFAULT_QUEUE
        yield Job(
            RequestId(f"{number}"),
            ticks(job.came),
            f"{job.team}/{job.kind}",
            Request(devices=job.devices, queue=queue, preemptible=how == "saves", checkpoint_every=saves),
            (("*", job.seconds),),
            saves or 0.0,
            reusable=how != "never",
        )


def simulate(day: Sequence[TeamJob], nodes: int, variant: Variant) -> tuple[list[Stay], dict[str, int]]:
    """The day under the scheduler of the pool: what became of the jobs, and preemptions by reason."""
    queues = team_queues(day, nodes, variant) if variant.queues else ()
    world = Simulation(PoolConfig(), pool_of(nodes), list(as_jobs(day, variant)), queues=queues)
    world.run()
    reasons = Counter(told.reason.value for _, told in world.preemptions)
    stays = [_stay(job, course) for job, course in zip(day, world.courses.values(), strict=True)]
    return stays, dict(sorted(reasons.items()))


def _stay(job: TeamJob, course: Course) -> Stay:
    spans = tuple(
        (seconds(one.start), seconds(one.end) if one.end is not None else float("inf")) for one in course.attempts
    )
    lost = seconds(sum(one.lost for one in course.attempts))
    return Stay(job.team, job.devices, job.came, spans[-1][1], spans, lost)


def row(day: Sequence[TeamJob], nodes: int, variant: Variant | str) -> Row:
    """Run one scheduler and measure it. Without queues of its own it is measured against those of ``queues``."""
    begin = time.perf_counter()
    if isinstance(variant, str):
        stays, preemptions = first_come_first_served(day, nodes, PER_NODE, Costs().start), {}
        name, ideal = variant, QUEUES
    else:
        stays, preemptions = simulate(day, nodes, variant)
        name, ideal = variant.name, variant
    took = time.perf_counter() - begin
    capacity = capacity_of(device for node in pool_of(nodes) for device in node.devices)
    fairness = measure(stays, QueueTree(team_queues(day, nodes, ideal)), capacity, DAY)
    lost = sum(stay.devices * stay.lost for stay in stays)
    return Row(
        name,
        fairness,
        sum(queue.held for queue in fairness.queues),
        preemptions,
        round(lost, 3),
        round(100 * lost / work_of(day), 4),
        distribution(stay.wait for stay in stays),
        {team: distribution(s.wait for s in stays if s.queue == team) for team in sorted({job.team for job in day})},
        round(max(stay.gone for stay in stays) / 3600, 4),
        round(took, 1),
    )


def work_of(day: Sequence[TeamJob]) -> float:
    """Device-seconds of all jobs."""
    return sum(job.devices * job.seconds for job in day)


def summary(rows: Sequence[Row]) -> Table:
    """One line for each scheduler."""
    made = Table(title="the day; shares in % of the pool, waits in hours", title_justify="left", box=None)
    columns = (
        "",
        "Jain",
        "deviation",
        "short",
        "owed",
        "utilisation",
        "preemptions",
        "lost work, %",
        "wait mean",
        "p99",
    )
    for column in (*columns, "last done, h"):
        made.add_column(column, no_wrap=True)
    for one in rows:
        queues = one.fairness.queues
        made.add_row(
            one.scheduler,
            "-" if one.fairness.jain is None else f"{one.fairness.jain:.3f}",
            *(f"{sum(getattr(q, name) for q in queues):.2f}" for name in ("deviation", "short", "owed")),
            f"{one.utilisation:.1f}",
            f"{100 * one.fairness.contended:.0f} %",
            ", ".join(f"{count} {reason}" for reason, count in one.preemptions.items()) or "0",
            f"{one.lost:.3f}",
            f"{(one.wait.mean or 0) / 3600:.2f}",
            f"{(one.wait.p99 or 0) / 3600:.2f}",
            f"{one.end_hours:.1f}",
        )
    return made


def by_queue(rows: Sequence[Row]) -> Table:
    """One line for each queue under each scheduler."""
    made = Table(title="by queue", title_justify="left", box=None)
    for column in ("", "queue", "wanted", "entitled", "held", "deviation", "short", "owed", "wait mean, h", "p99, h"):
        made.add_column(column, no_wrap=True)
    for one in rows:
        for queue in one.fairness.queues:
            wait = one.waits[queue.queue]
            shares = dataclasses.astuple(queue)[1:]
            waited = (f"{(span or 0) / 3600:.2f}" for span in (wait.mean, wait.p99))
            made.add_row(one.scheduler, queue.queue, *(f"{share:.2f}" for share in shares), *waited)
    return made


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with gavel/ in it")
    parser.add_argument("--quick", action="store_true", help="half of the jobs and of the pool, no variants")
    parser.add_argument("--nodes", type=int, default=12, help=f"of {PER_NODE} devices each")
    parser.add_argument("--clip", type=float, default=4 * 3600.0, help="longest job, in seconds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.data:
        day = read_busiest_days(options.data / "gavel", PER_NODE, options.clip)
    else:
        day = drawn_day(PER_NODE, options.clip)
    if options.quick:
        day, options.nodes = day[::2], (options.nodes + 1) // 2
    console = Console(width=max(160, Console().width))
    devices = PER_NODE * options.nodes
    load = work_of(day) / (DAY * devices)
    console.print(f"{len(day)} jobs that ask for {100 * load:.1f} % of {devices} devices over 24 h")
    chosen = [QUEUES, *(() if options.quick else VARIANTS), NO_QUEUES, FIFO]
    rows = [row(day, options.nodes, variant) for variant in chosen]
    console.print(summary(rows), by_queue(rows))
    if options.json:
        figures = {"version": 1, "jobs": len(day), "load": round(load, 4), "rows": [_plain(one) for one in rows]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _plain(one: Row) -> dict[str, object]:
    waits = {queue: wait.model_dump() for queue, wait in one.waits.items()}
    return {**vars(one), "fairness": asdict(one.fairness), "wait": one.wait.model_dump(), "waits": waits}


if __name__ == "__main__":
    main()
