"""Exact fit: what Ray's scheduler leaves waiting, flexray runs. Both sides in one run, on one local cluster.

    python benchmarks/ray_fit.py [--quick] [--json FILE]

Ray keeps one sum of fractions per node, not a value per device (ray#20933, #52133,
#54729), so actors of 0.6 GPU can wait for ever beside idle devices. Devices here are
declared to Ray; no accelerator is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

import flexray as flex


@dataclass(frozen=True)
class Row:
    """One comparison: how many of ``asked`` ran at once, or how long the work took."""

    name: str
    asked: int
    ray: str
    flexray: str


def cluster(nodes: int, **resources: Any) -> Cluster:
    """A head without devices and nodes with some."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    for _ in range(nodes):
        made.add_node(num_cpus=8, **resources)
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    return made


def on_cluster(nodes: int, resources: dict[str, Any], measure: Callable[[], Any], pool: bool) -> Any:
    """Run a measurement on a fresh cluster, with or without a pool, and take the cluster down."""
    made = cluster(nodes, **resources)
    try:
        if pool:
            flex.init()
            wait_for_devices()
        return measure()
    finally:
        flex.shutdown()
        ray.shutdown()
        made.shutdown()


def wait_for_devices() -> None:
    """Until every device is claimed."""
    deadline = time.monotonic() + 60
    while any(d.state != "ready" for d in flex.pool().devices) and time.monotonic() < deadline:
        time.sleep(0.1)


class Holder:
    """Something that holds its part of a device."""

    def where(self) -> str:
        """Answers when it runs."""
        return "here"


def ray_actors(count: int, patience: float, **options: Any) -> Callable[[], int]:
    """How many of ``count`` Ray actors run at once within ``patience`` seconds."""

    def measure() -> int:
        remote = ray.remote(num_cpus=0, **options)(Holder)
        actors = [remote.remote() for _ in range(count)]
        ready, _ = ray.wait([a.where.remote() for a in actors], num_returns=count, timeout=patience)
        return len(ready)

    return measure


def flex_actors(count: int, patience: float, **options: Any) -> Callable[[], int]:
    """The same with flexray actors."""

    def measure() -> int:
        remote = flex.actor(**options)(Holder)
        actors = [remote.remote() for _ in range(count)]
        done, _ = flex.wait([a.where.remote() for a in actors], num_returns=count, timeout=patience)
        return len(done)

    return measure


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sleep_task(seconds: float) -> float:
    """Holds its slice for a while."""
    time.sleep(seconds)
    return seconds


def waves(seconds: float) -> tuple[str, str]:
    """4 tasks of 0.6 that sleep: one wave on 4 devices, warm on both sides."""

    def with_ray() -> float:
        remote = ray.remote(num_cpus=0, num_gpus=0.6, max_calls=0)(sleep_task)

        def burst(each: float) -> int:
            refs = [remote.remote(each) for _ in range(4)]
            return len(ray.wait(refs, num_returns=4, timeout=5 * seconds)[0])

        burst(0.1)
        return timed(lambda: burst(seconds))

    def with_flexray() -> float:
        task = flex.task(gpu=0.6)(sleep_task)
        flex.get([task.remote(0.5) for _ in range(4)])
        return timed(lambda: flex.get([task.remote(seconds) for _ in range(4)]))

    resources = {"num_gpus": 2}
    return (
        f"{on_cluster(2, resources, with_ray, False):.1f} s",
        f"{on_cluster(2, resources, with_flexray, True):.1f} s",
    )


def compare(name: str, nodes: int, resources: dict[str, Any], count: int, share: float, patience: float) -> Row:
    """One row: Ray's actors, then flexray's, each on a fresh cluster."""
    npu = "resources" in resources
    options: dict[str, Any] = {"resources": {"NPU": share}} if npu else {"num_gpus": share}
    mine: dict[str, Any] = {"npu": share} if npu else {"gpu": share}
    theirs = on_cluster(nodes, resources, ray_actors(count, patience, **options), False)
    ours = on_cluster(nodes, resources, flex_actors(count, 20 * patience, **mine), True)
    return Row(name, count, f"{theirs} run", f"{ours} run")


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="the GPU rows of 2 nodes x 2 devices only")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    gpus, npus = {"num_gpus": 2}, {"resources": {"NPU": 2}}
    rows = [compare("4 actors of 0.6 GPU, 2 nodes x 2", 2, gpus, 4, 0.6, 6)]
    if not arguments.quick:
        rows.append(compare("20 actors of 0.18 GPU, 2 nodes x 2", 2, gpus, 20, 0.18, 20))
        rows.append(compare("4 actors of 0.6 NPU, 2 nodes x 2", 2, npus, 4, 0.6, 6))
        rows.append(compare("80 actors of 0.18 GPU, 2 nodes x 8", 2, {"num_gpus": 8}, 80, 0.18, 60))
    seconds = 2.0 if arguments.quick else 5.0
    rows.append(Row(f"4 tasks of 0.6 GPU that sleep {seconds:g} s: all done after", 4, *waves(seconds)))
    table = Table("what", "asked", "Ray", "flexray", title="exact fit, Ray and flexray on the same cluster")
    for row in rows:
        table.add_row(row.name, str(row.asked), row.ray, row.flexray)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
