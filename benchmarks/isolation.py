"""Do slices get what they asked for? Each mechanism that works on this machine, on one CPU device of all of its cores.

    python benchmarks/isolation.py [--quick] [--json FILE]

Tenants are processes of their own that confine themselves as slices do and infer with a small torch network without
a pause. Measured is CPU time against wall time x cores, by the kernel, in windows of 5 s: 10, 25, 50 and 75 % alone,
and 25 and 75 % together. Then what comes of taking twice the memory that a slice holds, and what a mechanism costs: the
batches of a tenant that holds the whole device against one that nothing holds, in turn, and the CPU time of
the process that enforces. Medians of the rounds, in which all mechanisms take turns. Ray is not needed; the memory
watchdog, which is the node agent's, does not run here.

The bar: within 3 points of what was asked, for ``cgroup``, alone at 25 % and together at 25 and 75 %.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flexray.devices.enforcers.cgroup import Cgroup
from flexray.devices.enforcers.duty import Duty
from flexray.devices.enforcers.enforcer import Cell, Enforcer, SliceSetup
from flexray.devices.enforcers.framework import Framework
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family

MECHANISMS: dict[str, Callable[[Path], Enforcer | None]] = {
    "none": lambda state: None,
    "framework": lambda state: Framework(state=state),
    "duty": lambda state: Duty(state=state),
    "cgroup": lambda state: Cgroup(state=state, name=f"flexray-cpu-benchmark-{os.getpid()}"),
}
"""Name -> makes its enforcer. To measure another one, add its line."""

Shares = tuple[int, ...]
"""Thousandths that those who run at a time hold."""

BARRED: tuple[Shares, ...] = ((250,), (250, 750))
CASES: tuple[Shares, ...] = ((100,), (250,), (500,), (750,), (250, 750), (1000,))
QUICK_CASES: tuple[Shares, ...] = (*BARRED, (1000,))
WHOLE: Shares = (1000,)
BAR_POINTS = 3.0
OVERRUNS = ("at once", "in steps", "three processes")
MEMORY = MemoryMiB(150)
SETTLE_SECONDS = 0.5
CORES = tuple(sorted(os.sched_getaffinity(0)))
DEVICE = Device("n/cpu0", "n", 0, DeviceType("cpu/host", MemoryMiB(8192)), Family.CPU, "cpu", cores=CORES)
_TENANT = Path(__file__).with_name("isolation_tenant.py")


class Tenant:
    """A process that works when it is told to."""

    def __init__(self) -> None:
        command = [sys.executable, str(_TENANT), "work"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(self) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def tell(self, order: dict[str, Any]) -> None:
        """One order; it answers each with a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Gone, with its group's membership."""
        self._process.kill()
        self._process.wait()


@dataclass
class Side:
    """A mechanism with its two tenants and what was measured: (shares, position) -> values of the rounds."""

    name: str
    enforcer: Enforcer | None
    tenants: list[Tenant]
    held: list[Cell | None] = field(default_factory=lambda: [None, None])
    obtained: dict[tuple[Shares, int], list[float]] = field(default_factory=dict)
    whole: list[float] = field(default_factory=list)
    node: list[float] = field(default_factory=list)
    made: int = 0

    def confine(self, number: int, share: int) -> None:
        """Put a tenant into a new slice and give the one it leaves back."""
        before, cell = self.held[number], self.cell(share)
        setup = SliceSetup(threads=len(CORES)) if self.enforcer is None else self.enforcer.prepare(cell)
        # Tenants go from slice to slice, and a limit of the heap is for good: it is measured by itself.
        self.tenants[number].tell({"setup": dataclasses.asdict(dataclasses.replace(setup, data_limit=0))})
        self.tenants[number].answer()
        self.held[number] = cell
        if before is not None and self.enforcer is not None:
            self.enforcer.release(before)

    def cell(self, share: int) -> Cell:
        """A new slice."""
        self.made += 1
        return Cell(f"s{self.made}", (DEVICE,), Share(share), Share(share), MEMORY)

    def end(self) -> None:
        """Leave nothing behind."""
        for tenant in self.tenants:
            tenant.end()
        for cell in self.held:
            if cell is not None and self.enforcer is not None:
                self.enforcer.release(cell)


def run(side: Side, shares: Shares, seconds: float) -> list[dict[str, float]]:
    """Let tenants with these shares work at the same time; what each did, with the node's CPU share."""
    for number, share in enumerate(shares):
        side.confine(number, share)
    start = time.monotonic() + SETTLE_SECONDS
    used = time.process_time()
    for number in range(len(shares)):
        side.tenants[number].tell({"start": start, "seconds": seconds})
    found = [side.tenants[number].answer() for number in range(len(shares))]
    side.node.append((time.process_time() - used) / (time.monotonic() - start + SETTLE_SECONDS))
    return found


def one_round(sides: list[Side], cases: Sequence[Shares], seconds: float) -> None:
    """All cases, the mechanisms in turn; without one there is only the whole device, which says what was to be had."""
    for shares in cases:
        for side in sides if shares == WHOLE else sides[1:]:
            for number, found in enumerate(run(side, shares, seconds)):
                part = found["cpu"] / found["wall"] / len(CORES)
                side.obtained.setdefault((shares, number), []).append(100 * part)
                if shares == WHOLE:
                    side.whole.append(found["batches"] / found["wall"])


def overrun(side: Side, how: str) -> str:
    """What comes of taking twice the memory that a slice holds."""
    cell = side.cell(500)
    setup = SliceSetup() if side.enforcer is None else side.enforcer.prepare(cell)
    command = [sys.executable, str(_TENANT), "take", json.dumps(dataclasses.asdict(setup)), how, str(2 * MEMORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if side.enforcer is not None:
        side.enforcer.release(cell)
    if done.returncode == -9:
        return "killed"
    return str(json.loads(done.stdout)["outcome"]) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@contextlib.contextmanager
def all_sides() -> Iterator[tuple[list[Side], dict[str, str]]]:
    """The mechanisms that work here, each with two warm tenants; and why the others do not."""
    with tempfile.TemporaryDirectory() as folder:
        sides, reasons = [], {}
        for name, make in MECHANISMS.items():
            enforcer = make(Path(folder))
            support = None if enforcer is None else enforcer.probe([DEVICE])[DEVICE.id]
            if support is None or support.usable:
                sides.append(Side(name, enforcer, []))
            else:
                reasons[name] = support.reason
        try:
            for side in sides:
                side.tenants.extend((Tenant(), Tenant()))
            for side in sides:
                for tenant in side.tenants:
                    tenant.answer()  # it is warm
            yield sides, reasons
        finally:
            for side in sides:
                side.end()


def rows_of(sides: list[Side]) -> list[dict[str, Any]]:
    """Asked and obtained, per cent of the device."""
    rows = []
    for side in sides:
        for (shares, number), values in side.obtained.items():
            asked, got = shares[number] / 10, statistics.median(values)
            barred = side.name == "cgroup" and shares in BARRED
            rows.append(
                {
                    "mechanism": side.name,
                    "beside": [share / 10 for share in shares[:number] + shares[number + 1 :]],
                    "asked": asked,
                    "obtained": round(got, 2),
                    "least": round(min(values), 2),
                    "most": round(max(values), 2),
                    "met": abs(got - asked) <= BAR_POINTS if barred else None,
                }
            )
    return rows


def costs_of(sides: list[Side]) -> list[dict[str, Any]]:
    """Batches a second of a tenant with the whole device, beside one that nothing holds; CPU of the node."""
    free = sides[0].whole
    return [
        {
            "mechanism": side.name,
            "batches_per_second": round(statistics.median(side.whole), 1),
            "of_unheld": round(statistics.median(a / b for a, b in zip(side.whole, free, strict=True)), 4),
            "node_cpu_percent": round(100 * statistics.median(side.node), 3),
        }
        for side in sides
    ]


def tables(rows: list[dict[str, Any]], costs: list[dict[str, Any]], memory: dict[str, dict[str, str]]) -> list[Table]:
    """The figures for a terminal."""
    shares = Table(title=f"share of a device of {len(CORES)} cores, %", title_justify="left", box=None)
    for name in ("mechanism", "beside", "asked", "obtained", "rounds", "bar"):
        shares.add_column(name)
    for row in rows:
        bar = "" if row["met"] is None else f"within {BAR_POINTS:g} {'met' if row['met'] else 'missed'}"
        beside = ", ".join(f"{other:g}" for other in row["beside"]) or "alone"
        spread = f"{row['least']:.1f} to {row['most']:.1f}"
        shares.add_row(row["mechanism"], beside, f"{row['asked']:g}", f"{row['obtained']:.1f}", spread, bar)
    taken = Table(title="twice the memory of a slice is taken", title_justify="left", box=None)
    for name in ("mechanism", *OVERRUNS):
        taken.add_column(name)
    for mechanism, outcomes in memory.items():
        taken.add_row(mechanism, *(outcomes[how] for how in OVERRUNS))
    cost = Table(title="cost", title_justify="left", box=None)
    for name in ("mechanism", "whole device, batches/s", "of unheld", "node, % of a core"):
        cost.add_column(name)
    for row in costs:
        figures = f"{row['batches_per_second']:.0f}", f"{row['of_unheld']:.3f}", f"{row['node_cpu_percent']:.2f}"
        cost.add_row(row["mechanism"], *figures)
    return [shares, taken, cost]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round with windows of 1 s, the cases with a bar")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rounds, seconds, cases = (1, 1.0, QUICK_CASES) if options.quick else (3, 5.0, CASES)
    with all_sides() as (sides, reasons):
        for _ in range(rounds):
            one_round(sides, cases, seconds)
        memory = {side.name: {how: overrun(side, how) for how in OVERRUNS} for side in sides}
        rows, costs = rows_of(sides), costs_of(sides)
    console = Console(width=120)
    for table in tables(rows, costs, memory):
        console.print(table)
        console.print()
    for name, reason in reasons.items():
        console.print(f"{name} does not work here: {reason}")
    if options.json:
        figures = {"version": 1, "cores": len(CORES), "seconds": seconds, "rounds": rounds}
        found = {**figures, "shares": rows, "memory": memory, "costs": costs, "unusable": reasons}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
