"""Do slices get what they asked for? Each mechanism that works on this machine, on one CPU device of all of its cores.

    python benchmarks/isolation.py [--quick] [--json FILE]

Tenants are processes of their own that confine themselves as slices do and infer with a small torch network without
a pause. Measured is CPU time against wall time x cores, by the kernel, in windows of 5 s: 10, 25, 50 and 75 % alone,
and 25 and 75 % together. Then what comes of taking twice the memory that a slice holds, and what a mechanism costs: the
batches of a tenant that holds the whole device against one that nothing holds, in turn, and the CPU time of
the process that enforces. Medians of the rounds, in which all mechanisms take turns. Ray is not needed for these, and
the memory watchdog, which is the node agent's, does not run. A window in which processes of others were busy is
measured again, up to four times, and the quietest counts: "others" says what they used in it.

The bar: within 3 points of what was asked, for ``cgroup``, alone at 25 % and together at 25 and 75 %.

At last two actors at 25 and 75 % infer through the whole runtime (``isolation_actors.py``), held by what holds slices
here by default. The bar: the requests that they answer are 1 to 3, within 10 %.
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

from isolation_actors import table_of, two_actors
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
    "cgroup": lambda state: Cgroup(state=state, name="flexray-cpu-benchmark"),
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
QUIET_PERCENT = 1.0
"""A window in which others used no more of the device is not measured again."""
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
    """A mechanism with its two tenants and what was measured: shares -> the windows of the rounds."""

    name: str
    enforcer: Enforcer | None
    tenants: list[Tenant]
    held: list[Cell | None] = field(default_factory=lambda: [None, None])
    windows: dict[Shares, list[Window]] = field(default_factory=dict)
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


@dataclass(frozen=True)
class Window:
    """What was measured: of each tenant, of the enforcing process, and of everything else on the device's cores.

    Attributes:
        parts: per cent of the device that each tenant used.
        batches: each tenant's batches a second.
        node: per cent of a core that this process used.
        others: per cent of the device that processes of others used.
    """

    parts: list[float]
    batches: list[float]
    node: float
    others: float


def quietest(side: Side, shares: Shares, seconds: float, tries: int) -> Window:
    """The window that others disturbed least; what they take a slice cannot have, whoever holds it."""
    windows: list[Window] = []
    while len(windows) < tries and not any(window.others <= QUIET_PERCENT for window in windows):
        windows.append(run(side, shares, seconds))
    return min(windows, key=lambda window: window.others)


def run(side: Side, shares: Shares, seconds: float) -> Window:
    """Let tenants with these shares work at the same time."""
    for number, share in enumerate(shares):
        side.confine(number, share)
    tenants = side.tenants[: len(shares)]
    start = time.monotonic() + SETTLE_SECONDS
    for tenant in tenants:
        tenant.tell({"start": start, "seconds": seconds})
    time.sleep(max(0.0, start - time.monotonic()))
    before, own, begun = busy_seconds(), time.process_time(), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    own, busy = time.process_time() - own, busy_seconds() - before
    found = [tenant.answer() for tenant in tenants]
    used = [one["cpu"] / one["wall"] for one in found]
    others = max(0.0, (busy - own) / passed - sum(used))
    return Window(
        [100 * cores / len(CORES) for cores in used],
        [one["batches"] / one["wall"] for one in found],
        100 * own / passed,
        100 * others / len(CORES),
    )


def busy_seconds() -> float:
    """CPU seconds that the device's cores have worked for anybody, or were taken by the host's host."""
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    rows = [line for line in lines if line[0] in {f"cpu{core}" for core in CORES}]
    user_to_steal = (1, 2, 3, 6, 7, 8)
    return sum(int(row[column]) for row in rows for column in user_to_steal) / os.sysconf("SC_CLK_TCK")


def one_round(sides: list[Side], cases: Sequence[Shares], seconds: float, tries: int) -> None:
    """All cases, the mechanisms in turn; without one there is only the whole device, which says what was to be had."""
    for shares in cases:
        for side in sides if shares == WHOLE else sides[1:]:
            side.windows.setdefault(shares, []).append(quietest(side, shares, seconds, tries))


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
            if enforcer is not None:
                enforcer.sweep(())  # a run that was killed may have left something
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
    return [
        row_of(side.name, shares, number, windows)
        for side in sides
        for shares, windows in side.windows.items()
        for number in range(len(shares))
    ]


def row_of(mechanism: str, shares: Shares, number: int, windows: list[Window]) -> dict[str, Any]:
    """One tenant of one case."""
    values, asked = [window.parts[number] for window in windows], shares[number] / 10
    obtained = statistics.median(values)
    barred = mechanism == "cgroup" and shares in BARRED
    return {
        "mechanism": mechanism,
        "beside": [share / 10 for share in shares[:number] + shares[number + 1 :]],
        "asked": asked,
        "obtained": round(obtained, 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
        "others": round(statistics.median(window.others for window in windows), 2),
        "met": abs(obtained - asked) <= BAR_POINTS if barred else None,
    }


def costs_of(sides: list[Side]) -> list[dict[str, Any]]:
    """Batches a second of a tenant with the whole device, beside one that nothing holds; CPU of the node."""
    whole = {side.name: [window.batches[0] for window in side.windows[WHOLE]] for side in sides}
    free = whole[sides[0].name]
    return [
        {
            "mechanism": side.name,
            "batches_per_second": round(statistics.median(whole[side.name]), 1),
            "of_unheld": round(statistics.median(a / b for a, b in zip(whole[side.name], free, strict=True)), 4),
            "node_cpu_percent": round(statistics.median(w.node for row in side.windows.values() for w in row), 3),
        }
        for side in sides
    ]


def tables(rows: list[dict[str, Any]], costs: list[dict[str, Any]], memory: dict[str, dict[str, str]]) -> list[Table]:
    """The figures for a terminal."""
    shares = Table(title=f"share of a device of {len(CORES)} cores, %", title_justify="left", box=None)
    for name in ("mechanism", "beside", "asked", "obtained", "rounds", "others", "bar"):
        shares.add_column(name)
    for row in rows:
        bar = "" if row["met"] is None else f"within {BAR_POINTS:g} {'met' if row['met'] else 'missed'}"
        beside = ", ".join(f"{other:g}" for other in row["beside"]) or "alone"
        spread = f"{row['least']:.1f} to {row['most']:.1f}"
        shares.add_row(
            row["mechanism"], beside, f"{row['asked']:g}", f"{row['obtained']:.1f}", spread, f"{row['others']:.1f}", bar
        )
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
    rounds, seconds, cases, tries = (1, 1.0, QUICK_CASES, 1) if options.quick else (3, 5.0, CASES, 4)
    with all_sides() as (sides, reasons):
        for _ in range(rounds):
            one_round(sides, cases, seconds, tries)
        memory = {side.name: {how: overrun(side, how) for how in OVERRUNS} for side in sides}
        rows, costs = rows_of(sides), costs_of(sides)
    actors = two_actors(3, 2.0) if options.quick else two_actors(5, seconds)
    console = Console(width=120)
    for table in (*tables(rows, costs, memory), table_of(actors)):
        console.print(table)
        console.print()
    for name, reason in reasons.items():
        console.print(f"{name} does not work here: {reason}")
    if options.json:
        figures = {"version": 1, "cores": len(CORES), "seconds": seconds, "rounds": rounds}
        found = {**figures, "shares": rows, "memory": memory, "costs": costs, "unusable": reasons}
        found["actors"] = dataclasses.asdict(actors)
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
