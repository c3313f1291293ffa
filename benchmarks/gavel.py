"""Gavel's continuous single-GPU experiment: the core's rounds against Gavel's own policy, beside what was published.

    python benchmarks/gavel.py --data DIR [--quick] [--rates 4.0 4.8 5.2 5.6 6.0] [--json FILE]

``DIR/gavel`` holds simulation_throughputs.json of stanford-futuredata/gavel (MIT;
Narayanan et al., OSDI 2020), trace_single_seed0_rate4.0.csv, 6,500 jobs of its generator
(seed 0), and may hold the authors' figures in published_jct_seed0_36x36x36.csv. 36 V100, 36
P100, 36 K80, rounds of 360 s; jobs 4000 to 4999 are measured.

Policies in one run: ``las`` is Gavel's, written again (it needs scipy), ``rounds``
is told the throughputs as ``las`` is, ``rounds-learnt`` measures them with 5 % noise;
``core`` and ``core-learnt`` are the same by the whole core, as in the live pool. The
bars: mean completion not above that of the better of the published Gavel LAS and AlloX,
and below that of ``las`` in the same run; finish-time fairness, mean and worst, and the
99th percentile of completion not above those of ``las``. With --quick one rate; without
DIR a drawn load, whose figures mean nothing beyond that everything works.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flexray.sim.gavel import GavelResult, isolated, run
from flexray.sim.gavel_setting import Setting
from flexray.sim.gavel_trace import Load, draw_load, read_load, read_throughputs

RATES = (4.0, 4.8, 5.2, 5.6, 6.0)
POLICIES = ("las", "rounds", "rounds-learnt", "core", "core-learnt")
SEED = 0
PUBLISHED = {"max_min_fairness_perf": "Gavel LAS", "allox": "AlloX"}


@dataclass(frozen=True)
class Row:
    """One policy at one rate."""

    rate: float
    result: GavelResult
    seconds: float
    published: dict[str, float]
    """Mean completion hours by policy."""


@dataclass(frozen=True)
class Bar:
    """What a policy is held to."""

    rate: float
    policy: str
    measure: str
    value: float
    limit: float
    met: bool


def published(data: Path | None) -> dict[float, dict[str, float]]:
    """The authors' mean completion hours by rate and policy, if the data has them."""
    path = data / "gavel" / "published_jct_seed0_36x36x36.csv" if data else None
    found: dict[float, dict[str, float]] = {}
    if path is None or not path.exists():
        return found
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            wanted = (row["trace"], row["metric"]) == ("continuous-single", "avg_jct_hours")
            if wanted and row["policy"] in PUBLISHED:
                found.setdefault(float(row["input_job_rate_per_hour"]), {})[PUBLISHED[row["policy"]]] = float(
                    row["value"]
                )
    return found


def load_at(data: Path | None, rate: float) -> tuple[Load, Setting]:
    """The trace, or a drawn load on a sixth of the cluster."""
    if data:
        folder = data / "gavel"
        throughputs = read_throughputs(folder / "simulation_throughputs.json")
        return read_load(folder / "trace_single_seed0_rate4.0.csv", throughputs, rate, seed=SEED), Setting(seed=SEED)
    draw = np.random.default_rng(SEED)
    rates = np.exp(draw.normal(1, 2, 20))[:, None] * np.exp(draw.normal((0, -0.7, -1.4), 0.5, (20, 3)))
    return draw_load(rates, rate / 8, 2000, SEED), Setting((6, 6, 6), (250, 500), seed=SEED)


def measure(data: Path | None, rate: float, known: dict[str, float], console: Console) -> Iterator[Row]:
    """Every policy on the same load."""
    load, setting = load_at(data, rate)
    alone = isolated(load, setting)
    for policy in POLICIES:
        start = time.perf_counter()
        result = run(load, policy, setting, alone=alone)
        seconds = time.perf_counter() - start
        console.print(f"[dim]{rate:g} jobs/h, {policy}: {seconds:.1f} s[/dim]", highlight=False)
        yield Row(rate, result, round(seconds, 2), known)


def bars(rows: list[Row]) -> Iterator[Bar]:
    """Of one rate, the policies of the core against the others."""
    las, *ours = rows
    for row in ours:
        mine, base = row.result, las.result
        limits = [("mean completion, h: las", mine.mean_completion_hours, base.mean_completion_hours)]
        if row.published:
            best = min(row.published, key=lambda name: row.published[name])
            limits.append((f"mean completion, h: published {best}", mine.mean_completion_hours, row.published[best]))
        limits += [
            ("p99 completion, h: las", mine.p99_completion_hours, base.p99_completion_hours),
            ("fairness, mean: las", mine.finish_time_fairness_mean, base.finish_time_fairness_mean),
            ("fairness, worst: las", mine.finish_time_fairness_worst, base.finish_time_fairness_worst),
        ]
        for name, value, limit in limits:
            yield Bar(row.rate, mine.policy, name, round(value, 4), round(limit, 4), value <= limit)


def figures(rows: list[Row]) -> Table:
    """The runs for a terminal."""
    title = (
        "completion hours of the measured jobs; fairness: own (Themis) and against the isolated cluster, mean / worst"
    )
    table = Table(title=title, title_justify="left", box=None)
    columns = ("jobs/h", "policy", "mean", "p50", "p99", "max", "own", "isolated", "longest wait", "gap, h", "moves")
    for column in (*columns, *PUBLISHED.values()):
        table.add_column(column)
    for row in rows:
        one = row.result
        table.add_row(
            f"{row.rate:g}" + ("+" if one.extended else ""),
            one.policy,
            f"{one.mean_completion_hours:.2f}",
            f"{one.p50_completion_hours:.2f}",
            f"{one.p99_completion_hours:.1f}",
            f"{one.max_completion_hours:.1f}",
            f"{one.finish_time_fairness_mean:.3f} / {one.finish_time_fairness_worst:.2f}",
            f"{one.isolated_fairness_mean:.3f} / {one.isolated_fairness_worst:.2f}",
            f"{one.longest_wait_hours:.2f}",
            f"{one.longest_gap_hours:.2f}",
            f"{one.moves:,}",
            *(f"{row.published[name]:.2f}" if name in row.published else "-" for name in PUBLISHED.values()),
        )
    if any(row.result.extended for row in rows):
        table.caption = "+ the trace ended before the measured jobs did; drawn jobs followed"
    return table


def bar_table(found: list[Bar]) -> Table:
    """The bars for a terminal."""
    table = Table(
        "jobs/h", "policy", "measure: against", "value", "limit", "", title="bars", title_justify="left", box=None
    )
    for bar in found:
        met = "met" if bar.met else "missed"
        table.add_row(f"{bar.rate:g}", bar.policy, bar.measure, f"{bar.value:.3f}", f"{bar.limit:.3f}", met)
    return table


def main() -> None:
    """Run the rates and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one rate")
    parser.add_argument("--data", type=Path, help="folder with gavel/ in it; needed unless --quick")
    parser.add_argument("--rates", type=float, nargs="+", help="jobs an hour")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not options.data and not options.quick:
        parser.error("--data DIR is needed (or --quick, with a drawn load); the source is at the head of this file")
    if options.data and not (options.data / "gavel").is_dir():
        parser.error(f"{options.data} has no folder gavel")
    console = Console(width=170)
    known = published(options.data)
    rows: list[Row] = []
    found: list[Bar] = []
    for rate in (options.rates or RATES)[: 1 if options.quick else None]:
        here = list(measure(options.data, rate, known.get(rate, {}), console))
        rows += here
        found += bars(here)
    console.print(figures(rows), bar_table(found))
    if options.json:
        out = {"version": 1, "rows": [asdict(row) for row in rows], "bars": [asdict(bar) for bar in found]}
        options.json.write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    main()
