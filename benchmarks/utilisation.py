"""How busy are devices, and how long does the work take: whole devices through plain Ray, slices, slices that lend?

    python benchmarks/utilisation.py [--quick] [--seed N] [--json FILE]

The same work three ways in one run, on two CPU devices of this machine (each has half of its cores): four inference
services, small torch models under bursty arrivals for a fixed time, and four training jobs of a fixed number of steps.

- whole: plain Ray, each job holds a whole device (a custom resource) until it ends, as is usual with GPUs;
- slices: flexray, services 0.25 of a device and training 0.5, each held to its share;
- lending: flexray, services ``(0.4, 1.0)`` and training ``(0.1, 1.0)``: so much is its own, and it may use what others
  leave idle. Services have the larger part for their bursts; training lives on what they leave.

Busy is CPU time of the jobs over devices x makespan, measured by the kernel, not booked. The same work may take more
CPU time when neighbours share caches and hardware threads with it: the column "cpu s". Allocated is what was held.
Latencies are of single requests, from their arrival to their answer; a service serves its own arrivals from its start,
so waiting for a device delays a service, not its requests. The weights that training ends with are compared between the
three ways. Processes and torch are warm in all three before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from rich.console import Console
from rich.table import Table

import flexray as flex

DEVICES = 2
SERVICES = 4
TRAININGS = 4
BURST_EVERY = 1.0
"""Mean seconds between two bursts of requests to a service."""
BURST = (4, 12)
"""Requests of a burst, at least and at most."""


@dataclass(frozen=True)
class Load:
    """How much there is to do: seconds that a service serves, steps that a training takes."""

    serve_seconds: float
    train_steps: int
    seed: int


@dataclass(frozen=True)
class Job:
    """What one job did: when it ran (seconds of the clock), its CPU time, latencies (seconds), a sum of its weights."""

    kind: str
    begun: float
    ended: float
    busy: float
    latencies: list[float]
    weights: float = 0.0


@dataclass(frozen=True)
class Way:
    """One way of running all of the work; shares in per cent, times in seconds."""

    way: str
    makespan: float
    cpu: float
    busy: float
    allocated: float
    requests: int
    p50: float
    p99: float
    train_median: float
    weights: list[float]


def serve(number: int, seconds: float, seed: int) -> dict[str, Any]:
    """Serve bursts of requests with a small convolutional network."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(number)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3), torch.nn.ReLU(), torch.nn.Flatten()
    ).eval()
    image = torch.randn(1, 3, 176, 176)
    begun, cpu = time.time(), time.process_time()
    latencies = []
    with torch.inference_mode():
        model(image)
        for arrival in arrivals(number, seconds, seed):
            time.sleep(max(0.0, begun + arrival - time.time()))
            model(image)
            latencies.append(time.time() - begun - arrival)
    time.sleep(max(0.0, begun + seconds - time.time()))
    return asdict(Job("serve", begun, time.time(), time.process_time() - cpu, latencies))


def arrivals(number: int, seconds: float, seed: int) -> list[float]:
    """Seconds after its start at which a service's requests arrive: bursts, as if users clicked together."""
    draw = random.Random(seed * 1000 + number)
    times, at = [], draw.expovariate(1 / BURST_EVERY)
    while at < seconds:
        times += [at + draw.uniform(0, 0.05) for _ in range(draw.randint(*BURST))]
        at += draw.expovariate(1 / BURST_EVERY)
    return sorted(times)


def train(number: int, steps: int) -> dict[str, Any]:
    """Train a small network on data of its own."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(number)
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data, wanted = torch.randn(256, 256), torch.randint(0, 10, (256,))
    begun, cpu = time.time(), time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data), wanted).backward()
        optimizer.step()
    weights = sum(float(parameter.detach().double().abs().sum()) for parameter in model.parameters())
    return asdict(Job("train", begun, time.time(), time.process_time() - cpu, [], weights))


def jobs_of(load: Load) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """All of the work, in the order in which it is asked for."""
    services = [(serve, (number, load.serve_seconds, load.seed)) for number in range(SERVICES)]
    return [*services, *((train, (number, load.train_steps)) for number in range(TRAININGS))]


@contextmanager
def whole() -> Iterator[Callable[[list[Any]], list[Any]]]:
    """Plain Ray: one job a device."""
    ray.init(num_cpus=8, resources={"device": DEVICES}, include_dashboard=False, log_to_driver=False)
    on_device = {f: ray.remote(num_cpus=0, resources={"device": 1})(f) for f in (serve, train)}

    def run(jobs: list[Any]) -> list[Any]:
        return list(ray.get([on_device[function].remote(*arguments) for function, arguments in jobs]))

    try:
        run([(serve, (0, 0.0, 0)), (train, (0, 1))])
        yield run
    finally:
        ray.shutdown()


@contextmanager
def slices(shares: dict[Callable[..., Any], Any]) -> Iterator[Callable[[list[Any]], list[Any]]]:
    """flexray: each job on a slice of that much."""
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    flex.init(config={"cpu_devices": DEVICES, "warm_seconds": 600})
    tasks = {function: flex.task(accelerator=share, memory="300MiB")(function) for function, share in shares.items()}

    def run(jobs: list[Any]) -> list[Any]:
        return flex.get([tasks[function].remote(*arguments) for function, arguments in jobs], timeout=900)

    try:
        run([(serve, (n, 3.0, 0)) for n in range(SERVICES)] + [(train, (n, 200)) for n in range(TRAININGS)])
        print("   held by:", ", ".join(sorted({f"{d.isolation} ({d.guarantee})" for d in flex.pool().devices})))
        yield run
    finally:
        flex.shutdown()
        from flexray.runtime.pool import stop_pool

        stop_pool()
        ray.shutdown()


SHARES: dict[str, dict[Callable[..., Any], Any]] = {
    "slices": {serve: 0.25, train: 0.5},
    "lending": {serve: (0.4, 1.0), train: (0.1, 1.0)},
}


def measure(way: str, load: Load) -> Way:
    """All of the work, one way."""
    with whole() if way == "whole" else slices(SHARES[way]) as run:
        begun = time.time()
        done = [Job(**job) for job in run(jobs_of(load))]
        makespan = time.time() - begun
    held = {"serve": 1.0, "train": 1.0} if way == "whole" else {f.__name__: own(s) for f, s in SHARES[way].items()}
    room, cpu = DEVICES * makespan, sum(job.busy for job in done)
    latencies = sorted(latency for job in done for latency in job.latencies)
    # a device has as many seconds of CPU time in a second as it has cores; torch runs one thread a job here
    return Way(
        way,
        makespan,
        cpu,
        100 * cpu / room / cores_of_a_device(),
        100 * sum(held[job.kind] * (job.ended - job.begun) for job in done) / room,
        len(latencies),
        statistics.median(latencies),
        latencies[int(0.99 * len(latencies))],
        statistics.median(job.ended - job.begun for job in done if job.kind == "train"),
        [job.weights for job in done if job.kind == "train"],
    )


def own(share: Any) -> float:
    """What of a share is guaranteed."""
    return float(share[0] if isinstance(share, tuple) else share)


def cores_of_a_device() -> float:
    """Cores of this machine that each device has."""
    return len(os.sched_getaffinity(0)) / DEVICES


def show(ways: list[Way]) -> None:
    """The table, and what it comes to."""
    columns = ("way", "makespan s", "cpu s", "busy %", "allocated %", "requests", "p50 ms", "p99 ms", "training s")
    table = Table(*columns, box=None)
    for way in ways:
        table.add_row(
            way.way,
            f"{way.makespan:.1f}",
            f"{way.cpu:.1f}",
            f"{way.busy:.1f}",
            f"{way.allocated:.1f}",
            str(way.requests),
            f"{1000 * way.p50:.0f}",
            f"{1000 * way.p99:.0f}",
            f"{way.train_median:.1f}",
        )
    console = Console()
    console.print(table)
    base = ways[0]
    for way in ways[1:]:
        console.print(
            f"{way.way}: makespan {way.makespan / base.makespan:.2f} of whole devices, "
            f"busy {way.busy - base.busy:+.1f} points; trained weights equal: {way.weights == base.weights}"
        )


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less work, under a minute")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    load = Load(4.0, 600, arguments.seed) if arguments.quick else Load(30.0, 6000, arguments.seed)
    ways = []
    for way in ("whole", *SHARES):
        print(f"{way} ...", flush=True)
        ways.append(measure(way, load))
    show(ways)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"load": asdict(load), "ways": [asdict(way) for way in ways]}, indent=2))


if __name__ == "__main__":
    main()
