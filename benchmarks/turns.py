"""Turns: what shares torch loops get, what a step costs, and what is lost when the holder of a turn dies.

    python benchmarks/turns.py [--quick] [--json FILE]

Slices are bare processes that run steps of a small torch model on the CPU, one thread each, as if on one device; the
enforcer and its server are the real ones, and steps take turns by torch's hooks. *Held* is what the server billed in
the window; *speed* is steps a second beside a process that is alone and takes no turns, so it has the costs of turns in
it. ``lends``: what a slice leaves idle others may use; ``capped``: each has its share and no more.

Everything is measured in rounds, both sides of a comparison in each of them one after the other; shown are medians,
of ratios and differences too. Bar: ``with flex.turn():`` costs less than 1 us a step while the turn is held.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from turns_costs import DEVICE, Costs, Row
from turns_tenant import Tenant, products_for

from flexray.devices.enforcers.enforcer import Cell
from flexray.devices.enforcers.turns import Turns, TurnsHeld
from flexray.model.amounts import MemoryMiB, Share

SHORT_MS, LONG_MS = 2.0, 300.0
SETTLE_S, TAIL_S = 0.3, 0.2
"""Loops run for so long before and after the window, so that nobody is alone at its ends."""


@dataclass(frozen=True)
class Case:
    """Loops that run at once: thousandths of the device each, whether they lend, and how long their steps are."""

    name: str
    shares: tuple[int, ...]
    lends: bool
    first_step_ms: float = SHORT_MS

    @property
    def length(self) -> float:
        """How many windows long it is: of long steps there are few."""
        return 1.0 if self.first_step_ms == SHORT_MS else 2.5


CASES = (
    *(Case("25 / 75", (250, 750), lends) for lends in (True, False)),
    *(Case("10 / 30 / 60", (100, 300, 600), lends) for lends in (True, False)),
    *(Case("25 alone", (250,), lends) for lends in (True, False)),
)
SLOW = Case("25 with steps of 300 ms / 75", (250, 750), True, LONG_MS)


@dataclass(frozen=True)
class Part:
    """What one loop got in one window: parts of the device, and of the speed of a loop alone."""

    held: float
    speed: float


class Shares:
    """What loops get, round by round. Each case has a device of its own, so that one server serves all of them."""

    def __init__(self, tenants: list[Tenant], folder: Path, seconds: float, cases: tuple[Case, ...]) -> None:
        self._tenants, self._seconds = tenants, seconds
        self._products = {step: products_for(step) for step in {SHORT_MS, *(case.first_step_ms for case in cases)}}
        self._turns = Turns(folder)
        self._cells = {case: cells_of(case, f"case{number}") for number, case in enumerate(cases)}
        self._paths = {cell.slice: self._turns.prepare(cell).turns for row in self._cells.values() for cell in row}
        self.parts: dict[Case, list[list[Part]]] = {case: [] for case in cases}

    def end(self) -> None:
        """Nothing is left."""
        for row in self._cells.values():
            for cell in row:
                self._turns.release(cell)

    def one_round(self) -> None:
        """A loop alone, without turns, then all cases."""
        alone = {step: self._window([("", step)], self._seconds)[0] for step in self._products}
        for case, parts in self.parts.items():
            parts.append(self._case(case, alone))

    def _case(self, case: Case, alone: dict[float, float]) -> list[Part]:
        cells = self._cells[case]
        steps = [case.first_step_ms, *(SHORT_MS for _ in cells[1:])]
        loops = [(self._paths[cell.slice], step) for cell, step in zip(cells, steps, strict=True)]
        looks: list[dict[str, TurnsHeld]] = []
        speeds = self._window(loops, self._seconds * case.length, lambda: looks.append(self._turns.held()))
        found = []
        for cell, step, speed in zip(cells, steps, speeds, strict=True):
            before, after = (look[cell.slice] for look in looks)
            over = after.over - before.over
            found.append(Part((after.used - before.used) / over, speed / alone[step]))
        return found

    def _window(
        self, loops: list[tuple[str, float]], seconds: float, look: Callable[[], None] = lambda: None
    ) -> list[float]:
        """Steps a second of loops (socket, length of a step) at once; ``look`` is called at the window's two ends."""
        start = time.monotonic() + 0.05
        begin, end = start + SETTLE_S, start + SETTLE_S + seconds
        used = self._tenants[: len(loops)]
        for tenant, (path, step) in zip(used, loops, strict=True):
            tenant.tell("run", path, self._products[step], start, begin, end, end + TAIL_S)
        for at in (begin, end):
            time.sleep(max(0.0, at - time.monotonic()))
            look()
        return [tenant.answer() for tenant in used]

    def rows(self) -> list[dict[str, Any]]:
        """Of each loop of each case: what it asked for and the medians of what it got, as parts of one."""
        middle = statistics.median
        found = []
        for case, rounds in self.parts.items():
            for number, share in enumerate(case.shares):
                parts = [one[number] for one in rounds]
                held = [part.held for part in parts]
                found.append(
                    {
                        "case": case.name,
                        "sharing": "lends" if case.lends else "capped",
                        "asked": share / 1000,
                        "held": middle(held),
                        "least": min(held),
                        "most": max(held),
                        "speed": middle(part.speed for part in parts),
                    }
                )
        return found


def cells_of(case: Case, device: str) -> list[Cell]:
    """Its slices, on a device of their own."""
    here = replace(DEVICE, id=device)
    bursts = [1000 if case.lends else share for share in case.shares]
    pairs = enumerate(zip(case.shares, bursts, strict=True))
    return [Cell(f"{device}-{n}", (here,), Share(share), Share(burst), MemoryMiB(1)) for n, (share, burst) in pairs]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds of short windows, without long steps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args()
    rounds, seconds, cases = (2, 1.2, CASES) if options.quick else (5, 3.0, (*CASES, SLOW))
    with tempfile.TemporaryDirectory() as folder:
        tenants, costs = [Tenant() for _ in range(3)], Costs()
        for tenant in tenants:
            tenant.answer()
        shares = Shares(tenants, Path(folder), seconds, cases)
        for _ in range(rounds):
            shares.one_round()
            costs.one_round(seconds / 4)
        shares.end()
        costs.end()
        for tenant in tenants:
            tenant.end()
    show(shares.rows(), costs.rows(), rounds)
    if options.json:
        found = {"version": 1, "rounds": rounds, "seconds": seconds, "shares": shares.rows()}
        options.json.write_text(json.dumps({**found, "costs": [asdict(one) for one in costs.rows()]}, indent=2) + "\n")


def show(shares: list[dict[str, Any]], costs: list[Row], rounds: int) -> None:
    """Two tables."""
    title = f"per cent of the device, medians of {rounds} rounds"
    table = Table("loops", "sharing", "asked", "held", "rounds", "speed", title=title, box=None)
    for one in shares:
        spread = f"{100 * one['least']:.1f} to {100 * one['most']:.1f}"
        figures = f"{100 * one['asked']:.0f}", f"{100 * one['held']:.1f}", spread
        table.add_row(one["case"], one["sharing"], *figures, f"{100 * one['speed']:.1f}")
    cost = Table("what", "value", "beside", "value", "difference", "ratio", "bar", title="costs", box=None)
    for each in costs:
        values = [f"{value:,.{0 if abs(value) >= 100 else 2}f} {each.unit}" for value in (each.value, each.base_value)]
        bar = "" if each.met is None else f"{each.bar}: {'met' if each.met else 'missed'}"
        cost.add_row(
            each.measure, values[0], each.base, values[1], f"{each.difference:,.1f}", f"{each.ratio:,.3g}", bar
        )
    Console(width=170).print(table, cost)


if __name__ == "__main__":
    main()
