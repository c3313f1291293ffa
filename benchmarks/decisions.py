"""One decision of the core: how long it takes as the pool grows, with the journal and the scores' breakdown on.

    python benchmarks/decisions.py [--quick] [--json FILE]

A pool of 8-device nodes of three types is kept about 90 % full by requests of sixty
shapes that come and go. A decision is everything the core does for one arrival: the
event, the cycle that places it, the journal entries of both. Prints median, 99th
percentile and the longest, garbage collection and changes of the mix included, beside
a plain FGD that scores every node again for each arrival (vectorised), in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.scheduler import Scheduler
from flexray.model.amounts import MemoryMiB, MilliCpus, Share
from flexray.model.commands import StartSlice
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.events import (
    LeaseReleased,
    NodeReported,
    RequestCancelled,
    RequestSubmitted,
    SessionOpened,
    SliceEnded,
    SliceStarted,
)
from flexray.model.lease import EnvironmentId, LeaseId, RequestId, SessionId, SliceId
from flexray.model.request import Request
from flexray.runtime.collector import keep_collections_short

TYPES = (DeviceType("nvidia/A100-80GB", MemoryMiB(81_920), 1.0), DeviceType("nvidia/T4", MemoryMiB(16_384), 0.2),
         DeviceType("nvidia/V100-32GB", MemoryMiB(32_768), 0.4))  # fmt: skip
SESSION, ENVIRONMENT = SessionId("S"), EnvironmentId("E")


@dataclass(frozen=True)
class Row:
    """Milliseconds per decision, and decisions a second."""

    side: str
    devices: int
    median: float
    p99: float
    worst: float
    per_second: float


def shapes(dice: random.Random) -> list[tuple[Request, float]]:
    """Sixty shapes with popularities that fall off: fractions, whole devices, several, some tied to a type."""
    made = []
    for number in range(60):
        devices = dice.choice((1, 1, 1, 1, 1, 1, 2, 4, 8))
        share = 1000 if devices > 1 else dice.choice((100, 200, 250, 330, 500, 600, 750, 1000, 1000, 1000))
        types = (dice.choice(TYPES).name,) if dice.random() < 0.2 else ()
        cores = dice.choice((500, 1000, 2000, 4000, 6000, 8000)) * devices
        request = Request(Share(share), devices, None, Family.GPU, types=types, cpus=MilliCpus(cores))
        made.append((request, 1.0 / (number + 1)))
    return made


def nodes(devices: int) -> list[Inventory]:
    """Nodes of eight equal devices, the types in turn."""
    made = []
    for number in range(devices // 8):
        kind, name = TYPES[number % 3], f"node-{number}"
        held = tuple(Device(f"{name}/gpu{i}", name, i, kind, Family.GPU, "fake") for i in range(8))
        made.append(Inventory(name, name, held, MilliCpus(96_000), MemoryMiB(512 * 1024)))
    return made


class Ours:
    """The production core."""

    def __init__(self, devices: int) -> None:
        self.written = 0
        self.core: Scheduler = build_scheduler(PoolConfig(policy="balanced"), 1, self._write)
        for inventory in nodes(devices):
            self.core.apply(NodeReported(inventory), 0.0)
        self.core.apply(SessionOpened(SESSION, ENVIRONMENT), 0.0)
        self.core.decide(0.0)
        self.running: deque[tuple[RequestId, SliceId, int]] = deque()

    def _write(self, line: str) -> None:
        self.written += len(line)

    def arrive(self, number: int, request: Request) -> tuple[float, bool]:
        """Seconds of the decision, and whether it was placed."""
        name, now = RequestId(f"r{number}"), float(number)
        event = RequestSubmitted(name, SESSION, ENVIRONMENT, f"class-{request.shape}", request, reusable=False)
        start = time.perf_counter()
        self.core.apply(event, now)
        commands = self.core.decide(now)
        taken = time.perf_counter() - start
        started = next((c for c in commands if isinstance(c, StartSlice)), None)
        if started is None:
            self.core.apply(RequestCancelled(name), now)
            return taken, False
        self.core.apply(SliceStarted(started.slice), now)
        self.running.append((name, started.slice, request.share * request.devices))
        return taken, True

    def leave(self, now: float) -> int:
        """The longest running one ends; the thousandths of devices that come free."""
        name, place, amount = self.running.popleft()
        self.core.apply(LeaseReleased(LeaseId(name, 1)), now)
        self.core.apply(SliceEnded(place), now)
        return amount


class Plain:
    """FGD as published, vectorised: every arrival scores every node, with the mix given."""

    def __init__(self, devices: int, mix: list[tuple[Request, float]]) -> None:
        count = devices // 8
        self.room = np.full((count, 8), 1000, np.int64)
        self.cores = np.full(count, 96_000, np.int64)
        self.kind = np.arange(count) % 3
        total = sum(weight for _, weight in mix)
        self.mix = [(request, weight / total) for request, weight in mix]
        self.running: deque[tuple[int, list[int], Request]] = deque()

    def _fragments(self, room: Any, cores: Any, kind: Any) -> Any:
        found = np.zeros(len(room))
        for request, popularity in self.mix:
            fits = room >= request.share
            allowed = np.array([request.allows_type(kind.name) for kind in TYPES])[kind]
            can = allowed & (cores >= request.cpus) & (fits.sum(1) >= request.devices)
            found += popularity * np.where(can, (room * ~fits).sum(1), room.sum(1))
        return found / 1000

    def arrive(self, number: int, request: Request) -> tuple[float, bool]:
        """Seconds of the decision, and whether it was placed."""
        start = time.perf_counter()
        fits = self.room >= request.share
        allowed = np.array([request.allows_type(kind.name) for kind in TYPES])[self.kind]
        rows = np.flatnonzero(allowed & (self.cores >= request.cpus) & (fits.sum(1) >= request.devices))
        if not len(rows):
            return time.perf_counter() - start, False
        room = self.room[rows]
        before = self._fragments(room, self.cores[rows], self.kind[rows])
        best, row, chosen = -1, -1, [0]
        for device in range(8) if request.devices == 1 and request.share < 1000 else (0,):
            if request.devices == 1 and request.share < 1000:
                taken = np.zeros_like(room)
                taken[:, device] = request.share
                able = room[:, device] >= request.share
            else:
                order = np.cumsum(room == 1000, axis=1)
                taken = np.where((room == 1000) & (order <= request.devices), 1000, 0)
                able = np.ones(len(rows), np.bool_)
            after = self._fragments(room - taken, self.cores[rows] - request.cpus, self.kind[rows])
            score = np.where(able, np.floor(100 / (1 + np.exp(after - before))), -1)
            place = int(score.argmax())
            if score[place] > best:
                best, row, chosen = int(score[place]), int(rows[place]), list(np.flatnonzero(taken[place]))
        self.room[row, chosen] -= request.share
        self.cores[row] -= request.cpus
        self.running.append((row, chosen, request))
        return time.perf_counter() - start, True

    def leave(self, now: float) -> int:
        """The longest running one ends."""
        row, chosen, request = self.running.popleft()
        self.room[row, chosen] += request.share
        self.cores[row] += request.cpus
        return request.share * request.devices


def measure(name: str, side: Ours | Plain, devices: int, mix: list[tuple[Request, float]], count: int) -> Row:
    """Fill to 90 %, then one arrival and as much leaving, ``count`` times."""
    dice = random.Random(1)
    requests, weights = [r for r, _ in mix], [w for _, w in mix]
    full, held, taken = 900 * devices, 0, []
    number = misses = 0
    while len(taken) < count:
        number += 1
        request = dice.choices(requests, weights)[0]
        seconds, placed = side.arrive(number, request)
        held += request.share * request.devices if placed else 0
        misses = 0 if placed else misses + 1
        if held >= full or misses > 20 or taken:
            taken.append(seconds)
        while held > full or (misses > 20 and side.running):
            held -= side.leave(float(number))
            misses = 0
    milliseconds = sorted(seconds * 1e3 for seconds in taken)
    median = statistics.median(milliseconds)
    p99, worst = milliseconds[int(0.99 * (len(milliseconds) - 1))], milliseconds[-1]
    return Row(name, devices, median, p99, worst, 1e3 / statistics.mean(milliseconds))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer decisions, up to 10,000 devices")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    keep_collections_short()  # as in the scheduler's process
    mix = shapes(random.Random(7))
    sizes = (1_000, 10_000) if arguments.quick else (1_000, 10_000, 100_000)
    table = Table("side", "devices", "median ms", "p99 ms", "worst ms", "decisions/s", title="one decision, 90 % full")
    rows: list[Row] = []
    for devices in sizes:
        count = 500 if arguments.quick else 4_000
        rows.append(measure("flexray", Ours(devices), devices, mix, count))
        if devices <= (1_000 if arguments.quick else 10_000):
            rows.append(measure("rescoring FGD", Plain(devices, mix), devices, mix, count // 20))
        for row in rows[-2:]:
            if row.devices == devices:
                figures = (f"{row.median:.3f}", f"{row.p99:.2f}", f"{row.worst:.1f}", f"{row.per_second:,.0f}")
                table.add_row(row.side, f"{devices:,}", *figures)
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
