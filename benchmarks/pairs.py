"""Two jobs on a device: partners that are learnt, against always, never, and knowing everything.

    python benchmarks/pairs.py [--quick] [--data DIR] [--json FILE]

``DIR/gavel/simulation_throughputs.json`` holds what 26 training jobs do beside each other
on V100, P100 and K80, measured (stanford-futuredata/gavel, MIT; Narayanan et al., OSDI
2020). Without it a drawn table is used, whose figures mean nothing beyond that
everything works.

36 devices of one type, and more jobs than that. Each round at most 36 units run, of one
job or two. Jobs stay a while whatever they are given, and one of a random class takes
the place of each that goes: so the mix is the same for every policy. What counts is the
work done, in devices' worth: a job alone on each device is 1.

    never    one job to a device          always   random pairs while jobs wait
    learnt   the core's ``Company``, which sees only the pairs that were formed, with 5 % noise
    oracle   the same choice with the measured table

Pairs that do not fit on the device together (rate 0 in the table) are not formed: the books of the pool know that.

The bar: of what the oracle gains over never, learnt reaches 90 %.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from flexray.core.company import Company
from flexray.sim.gavel_trace import KINDS, read_throughputs
from flexray.sim.pairing import ALONE, Unit, choose

Floats = NDArray[np.float64]

DEVICES = 36
JOBS = (48, 54, 72)
POLICIES = ("never", "always", "learnt", "oracle")
NOISE = 0.05
BAR = 0.9


@dataclass(frozen=True)
class Row:
    """Mean work a round per device, by policy, and the part of the oracle's gain that is reached."""

    kind: str
    jobs: int
    work: dict[str, float]
    always_of_oracle: float
    learnt_of_oracle: float
    learnt_of_oracle_worst_seed: float
    seconds: float
    met: bool


class Pool:
    """Jobs that stay for a while, whatever they are given."""

    def __init__(self, left: Floats, jobs: int, seed: int) -> None:
        self.left = left
        self._draw = np.random.default_rng(seed)
        self.job_class = self._draw.integers(len(left), size=jobs)
        self._stay = 10 ** self._draw.uniform(0.7, 2.2, size=jobs)
        self._waited = np.zeros(jobs)

    def members(self, units: list[Unit]) -> list[tuple[int, int]]:
        """Jobs of the units' classes; who waited longest goes first."""
        order = np.argsort(self._waited, kind="stable")
        rest: dict[int, list[int]] = {}
        for job in order:
            rest.setdefault(int(self.job_class[job]), []).append(int(job))
        return [(rest[a].pop(), rest[b].pop() if b != ALONE else ALONE) for a, b in units]

    def longest_waiting(self) -> list[tuple[int, int]]:
        """One job for each device."""
        return [(int(job), ALONE) for job in np.argsort(-self._waited, kind="stable")[:DEVICES]]

    def play(self, units: list[tuple[int, int]]) -> Floats:
        """One round: what is left of the rate of each job, 0 for those that wait."""
        rate = np.zeros(len(self.job_class))
        for a, b in units:
            one, other = self.job_class[a], self.job_class[b]
            rate[a] = 1.0 if b == ALONE else self.left[one, other]
            if b != ALONE:
                rate[b] = self.left[other, one]
        self._waited = np.where(rate > 0, 0, self._waited + 1)
        return rate

    def go_on(self) -> None:
        """Who has stayed long enough goes, and another comes."""
        self._stay -= 1.0
        gone = np.flatnonzero(self._stay <= 0)
        self.job_class[gone] = self._draw.integers(len(self.left), size=gone.size)
        self._stay[gone] = 10 ** self._draw.uniform(0.7, 2.2, size=gone.size)
        self._waited[gone] = 0


def run(policy: str, left: Floats, jobs: int, rounds: int, seed: int) -> float:
    """Mean work a round per device."""
    pool, learner = Pool(left, jobs, seed), Company()
    fits = (np.minimum(left, left.T) > 0).astype(np.float64)
    draw = np.random.default_rng(seed + 1000)  # apart from the pool's, so that the jobs are the same for every policy
    truth = left + left.T
    total = 0.0
    for _ in range(rounds):
        counts = np.bincount(pool.job_class, minlength=len(left))
        if policy == "never":
            units = pool.longest_waiting()
        elif policy == "always":
            units = random_pairs(draw.permutation(jobs), fits[np.ix_(pool.job_class, pool.job_class)])
        else:
            worth = truth * fits if policy == "oracle" else learnt_worth(learner, fits)
            units = pool.members(choose(worth, counts, DEVICES))
        rate = pool.play(units)
        total += float(rate.sum())
        if policy == "learnt":
            observe(learner, pool, units, rate, draw)
        pool.go_on()
    return total / rounds / DEVICES


def learnt_worth(learner: Company, fits: Floats) -> Floats:
    """(classes, classes), symmetric: what a pair is expected to get done, by what was seen so far."""
    names = range(len(fits))
    left = np.array([[math.exp(-learner.slowdown(f"{a}", {f"{b}": 1.0})) for b in names] for a in names])
    worth: Floats = (left + left.T) * fits
    return worth


def random_pairs(order: NDArray[np.int64], fits: Floats) -> list[tuple[int, int]]:
    """As many pairs as leave no device idle, of jobs that fit together."""
    most = max(min(len(order) - DEVICES, len(order) // 2, DEVICES), 0)
    rest, pairs = [int(one) for one in order], []
    while rest and len(pairs) < most:
        one = rest.pop(0)
        other = next((job for job in rest if fits[one, job]), None)
        if other is not None:
            rest.remove(other)
        pairs.append((one, ALONE if other is None else other))
    return [*pairs, *((one, ALONE) for one in rest)][:DEVICES]


def observe(
    learner: Company, pool: Pool, units: list[tuple[int, int]], rate: Floats, draw: np.random.Generator
) -> None:
    """Both members of each pair, with noise."""
    for one, other in [pair for unit in units if ALONE not in unit for pair in (unit, unit[::-1])]:
        seen = max(rate[one] * (1 + NOISE * draw.standard_normal()), 1e-3)
        learner.observe(f"{pool.job_class[one]}", {f"{pool.job_class[other]}": 1.0}, -math.log(seen), 1)


def measure(kind: str, left: Floats, jobs: int, rounds: int, seeds: int) -> Row:
    """Every policy on the same jobs."""
    start = time.perf_counter()
    work = {policy: np.array([run(policy, left, jobs, rounds, seed) for seed in range(seeds)]) for policy in POLICIES}
    gain = {policy: work[policy] - work["never"] for policy in POLICIES}
    reached = float(gain["learnt"].mean() / gain["oracle"].mean())
    return Row(
        kind,
        jobs,
        {policy: round(float(values.mean()), 4) for policy, values in work.items()},
        round(float(gain["always"].mean() / gain["oracle"].mean()), 4),
        round(reached, 4),
        round(float((gain["learnt"] / gain["oracle"]).min()), 4),
        round(time.perf_counter() - start, 2),
        reached >= BAR,
    )


def tables(data: Path | None) -> dict[str, Floats]:
    """By device type: what is left of each class beside each other."""
    if data:
        found = read_throughputs(data / "gavel" / "simulation_throughputs.json")
        return dict(zip(KINDS, found.beside, strict=True))
    draw = np.random.default_rng(0)
    suffers, disturbs = draw.uniform(0, 0.35, (26, 1)), draw.uniform(0, 0.35, (1, 26))
    drawn: Floats = np.clip(1 - suffers - disturbs - draw.normal(0, 0.1, (26, 26)), 0.0, 1.0)
    return {"drawn": drawn}


def table(rows: list[Row]) -> Table:
    """The figures for a terminal."""
    made = Table(title=f"work a round on each of {DEVICES} devices", title_justify="left", box=None)
    for column in ("type", "jobs", *POLICIES, "always / oracle", "learnt / oracle", "worst seed", "bar", "s"):
        made.add_column(column)
    for row in rows:
        made.add_row(
            row.kind,
            str(row.jobs),
            *(f"{row.work[policy]:.3f}" for policy in POLICIES),
            f"{row.always_of_oracle:.2f}",
            f"{row.learnt_of_oracle:.3f}",
            f"{row.learnt_of_oracle_worst_seed:.3f}",
            f">= {BAR:g} {'met' if row.met else 'missed'}",
            f"{row.seconds:.0f}",
        )
    made.caption = "the ratios are of gains over never"
    return made


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one type of device, 54 jobs, one seed")
    parser.add_argument("--data", type=Path, help="folder with gavel/ in it")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rounds, seeds, jobs = (400, 1, JOBS[1:2]) if options.quick else (400, 4, JOBS)
    found = list(tables(options.data).items())[: 1 if options.quick else None]
    rows = [measure(kind, left, number, rounds, seeds) for kind, left in found for number in jobs]
    Console(width=150).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"version": 1, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
