"""Placement on the openb trace: GPUs allocated, and how fast decisions are made, per policy; beside what was published.

Policies are flexray's, and published-bestfit and published-fgd: those two as published, by a
reference of their own (openb_published.py), whose figures have to agree with the published ones.

    python benchmarks/openb.py [--quick] [--data DIR] [--policy NAME ...] [--seeds 42-51] [--json FILE]

``DIR`` holds the trace: openb_node_list_gpu_node.csv and openb_pod_list_*.csv of
hkust-adsl/kubernetes-scheduler-simulator (Apache-2.0; Weng et al., USENIX ATC 2023), and
may hold the authors' results in published/summary_mean_of_10_seeds.csv. Without it the
excerpt of the tests is run, whose figures mean nothing beyond that everything works.
One process, so that decisions per second can be read; ``flexray simulate`` uses all cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from openb_published import POLICIES, Published
from rich.console import Console
from rich.table import Table

from flexray.sim.openb import Experiment, read_nodes, read_tasks
from flexray.sim.parallel import parse_seeds

EXCERPT = Path(__file__).parents[1] / "tests" / "data"
WORKLOADS = (
    "default", "cpu050", "cpu100", "gpushare20", "gpushare40",
    "gpuspec10", "gpuspec20", "multigpu20", "multigpu30",
)  # fmt: skip
INFLATE = 1.3
#: our name -> the name in the authors' results
AS_PUBLISHED = {"published-bestfit": "BestFit", "published-fgd": "FGD"}
DEFAULT = (*AS_PUBLISHED, "pack", "balanced")
Known = dict[tuple[str, str], dict[str, str]]
"""Published figures by workload and policy."""


@dataclass(frozen=True)
class Row:
    """One workload under one policy, mean over the seeds; None where demand stepped over the place."""

    workload: str
    policy: str
    seeds: int
    allocated_at_100: float | None
    allocated_at_130: float | None
    fragmented_at_100: float | None
    decisions_per_second: float
    published_fgd_at_100: float | None
    published_fgd_at_130: float | None
    published_same_at_100: float | None
    published_same_at_130: float | None
    """What was published of this very policy; None for flexray's."""


def published(data: Path | None) -> Known:
    """The authors' results by workload and policy, if the data has them."""
    path = data / "published" / "summary_mean_of_10_seeds.csv" if data else None
    if path is None or not path.exists():
        return {}
    with path.open() as file:
        return {(row["workload"], row["policy"]): row for row in csv.DictReader(file)}


def measure(workload: str, files: tuple[Path, Path], policy: str, seeds: list[int], known: Known) -> Row:
    """Run every seed in this process."""
    experiment = Experiment(read_nodes(files[0]), read_tasks(files[1]), policy, INFLATE)
    start = time.perf_counter()
    results = [experiment.run(seed, placer=placer_of(experiment, seed)) for seed in seeds]
    wall = time.perf_counter() - start
    mean = experiment.summarise(results).mean

    def figure(of: str, at: int) -> float | None:
        text = known.get((workload, of), {}).get(f"published_at{at}_mean")
        return float(text) if text else None

    return Row(
        workload,
        policy,
        len(seeds),
        mean.allocated.get(100),
        mean.allocated.get(130),
        mean.fragmented.get(100),
        round(sum(result.arrived for result in results) / wall, 1),
        *(figure("FGD", at) for at in (100, 130)),
        *(figure(AS_PUBLISHED.get(policy, ""), at) for at in (100, 130)),
    )


def placer_of(experiment: Experiment, seed: int) -> Published | None:
    """The reference for a published policy; None for flexray's, which the core places."""
    if experiment.policy not in POLICIES:
        return None
    return Published(experiment.nodes, experiment.tasks, experiment.policy, seed)


def table(rows: list[Row]) -> Table:
    """The figures for a terminal; what was published is of the same policy, or FGD's beside one of flexray's."""
    title = f"openb, {INFLATE:g} x the GPUs arrives, nothing departs; % of the GPUs, fragments at 100 %"
    made = Table(title=title, box=None, title_justify="left")
    for column in ("workload", "policy", "seeds", "at 100 %", "at 130 %", "fragments", "decisions/s", "published"):
        made.add_column(column, no_wrap=True)
    for row in rows:
        figures = (row.allocated_at_100, row.allocated_at_130, row.fragmented_at_100)
        same = (row.published_same_at_100, row.published_same_at_130)
        beside = same if row.policy in POLICIES else (row.published_fgd_at_100, row.published_fgd_at_130)
        made.add_row(
            row.workload,
            row.policy,
            str(row.seeds),
            *("-" if one is None else f"{one:.2f}" for one in figures),
            f"{row.decisions_per_second:.0f}",
            " / ".join("-" if one is None else f"{one:.2f}" for one in beside),
        )
    return made


def main() -> None:
    """Run the workloads that are there and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed of the workload `default`")
    parser.add_argument("--data", type=Path, help="folder of the trace")
    parser.add_argument("--policy", action="append", help=f"may be repeated; by default {', '.join(DEFAULT)}")
    parser.add_argument("--seeds", default="42-51")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.data:
        names = WORKLOADS[:1] if options.quick else WORKLOADS
        nodes = options.data / "openb_node_list_gpu_node.csv"
        files = {name: (nodes, options.data / f"openb_pod_list_{name}.csv") for name in names}
        files = {name: pair for name, pair in files.items() if pair[1].exists()}
    else:
        files = {"excerpt": (EXCERPT / "openb_excerpt_nodes.csv", EXCERPT / "openb_excerpt_tasks.csv")}
    if not files:
        raise SystemExit(f"{options.data} has no openb_pod_list_*.csv; see the head of this file for the source")
    seeds = parse_seeds(options.seeds)[: 1 if options.quick else None]
    known = published(options.data)
    rows = [
        measure(name, pair, policy, seeds, known)
        for name, pair in files.items()
        for policy in options.policy or DEFAULT
    ]
    Console(width=max(100, Console().width)).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"version": 1, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
