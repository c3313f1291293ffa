"""How many cards hold openb's tasks that ask for less than one GPU: whole cards, slices of a tenth, exact shares.

    python benchmarks/cards.py [--quick] [--data DIR] [--json FILE]

``DIR`` holds openb_pod_list_default.csv (source: benchmarks/openb.py); without it the
excerpt of the tests is run. All cards are equal, hosts are never short, nothing departs,
and a card is added whenever nothing there has room. ``online`` tasks come in the order of
the list, or ``shuffled`` (mean of three orders). As one ``batch`` they are handed over in
order of size, largest first: the core places what waits in order of arrival, so the order
is the benchmark's doing. The bound is the linear program of cutting stock: no way to place
them needs fewer cards.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import linprog

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.views import check_invariants
from flexray.model.amounts import WHOLE, MemoryMiB, Share
from flexray.model.commands import StartSlice
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.events import NodeReported, RequestSubmitted, SessionOpened, SliceStarted
from flexray.model.lease import EnvironmentId, RequestId, SessionId
from flexray.model.request import Request
from flexray.sim.openb import read_tasks

EXCERPT = Path(__file__).parents[1] / "tests" / "data" / "openb_excerpt_tasks.csv"
CARD = DeviceType("openb/card", MemoryMiB(1000))
SESSION, ENVIRONMENT = SessionId("S"), EnvironmentId("E")
NEVER = 1e12
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Row:
    """A way to place the tasks, the cards it needs, and which part of them is in use, in per cent."""

    how: str
    cards: float
    in_use: float


def fractions(path: Path) -> list[int]:
    """Thousandths of a GPU of each task that asks for a part of one, in the order of the list."""
    requests = [task.request for task in read_tasks(path)]
    return [request.share for request in requests if request.devices == 1 and request.share < WHOLE]


def in_tenths(sizes: Sequence[int]) -> list[int]:
    """What each takes where a card has ten equal slices."""
    return [-(-size // 100) * 100 for size in sizes]


def best_fit(sizes: Sequence[int]) -> int:
    """Cards, where each task goes to the fullest card that has room."""
    cards: Counter[int] = Counter()  # by what is left
    for size in sizes:
        left = min((left for left, count in cards.items() if count and left >= size), default=WHOLE)
        if left < WHOLE:
            cards[left] -= 1
        cards[left - size] += 1
    return cards.total()


def by_core(sizes: Sequence[int], policy: str) -> int:
    """Cards that the production core needs; one is added when a task has to wait."""
    core = build_scheduler(PoolConfig(policy=policy, lease_term_seconds=NEVER, warm_seconds=NEVER))
    core.apply(SessionOpened(SESSION, ENVIRONMENT), 0.0)
    cards = 0
    for number, size in enumerate(sizes):
        now, request = float(number), Request(share=Share(size))
        name = RequestId(f"{number}")
        core.apply(RequestSubmitted(name, SESSION, ENVIRONMENT, f"{size}", request, reusable=False), now)
        started = [command for command in core.decide(now) if isinstance(command, StartSlice)]
        if not started:
            core.apply(NodeReported(card(cards)), now)
            cards += 1
            started = [command for command in core.decide(now) if isinstance(command, StartSlice)]
        core.apply(SliceStarted(started[0].slice), now)
    check_invariants(core.state)
    return cards


def card(number: int) -> Inventory:
    """A node with one card."""
    name = f"card-{number}"
    return Inventory(name, name, (Device(f"{name}/gpu0", name, 0, CARD, Family.GPU, "openb"),))


def bound(sizes: Sequence[int]) -> int:
    """Cards without which it cannot be done: cutting stock by column generation (Gilmore and Gomory, 1961)."""
    demand = Counter(sizes)
    kinds = sorted(demand)
    columns = [np.eye(len(kinds), dtype=int)[i] * (WHOLE // size) for i, size in enumerate(kinds)]
    while True:
        solved = linprog(np.ones(len(columns)), A_ub=-np.array(columns).T, b_ub=[-demand[size] for size in kinds])
        pattern, value = _best_pattern(kinds, -solved.ineqlin.marginals)
        if value <= 1 + 1e-7:
            # By Farley's bound, the program's value over the best pattern's holds even where this stops early.
            return int(np.ceil(solved.fun / max(1.0, value) - 1e-6))
        columns.append(pattern)


def _best_pattern(kinds: Sequence[int], prices: np.ndarray) -> tuple[np.ndarray, float]:
    """The filling of one card that is worth most: an unbounded knapsack."""
    worth, last = np.zeros(WHOLE + 1), np.full(WHOLE + 1, -1)
    for room in range(1, WHOLE + 1):
        worth[room] = worth[room - 1]
        for i, size in enumerate(kinds):
            if size <= room and worth[room - size] + prices[i] > worth[room] + 1e-12:
                worth[room], last[room] = worth[room - size] + prices[i], i
    pattern, room = np.zeros(len(kinds), int), WHOLE
    while room > 0:
        if last[room] < 0:
            room -= 1
        else:
            pattern[last[room]] += 1
            room -= kinds[last[room]]
    return pattern, float(worth[WHOLE])


def over_orders(sizes: Sequence[int], count: Callable[[Sequence[int]], int]) -> float:
    """Mean over three random orders."""
    return round(sum(count(random.Random(seed).sample(sizes, len(sizes))) for seed in SEEDS) / len(SEEDS), 1)


def measure(sizes: Sequence[int]) -> list[Row]:
    """All ways, side by side."""
    largest_first = sorted(sizes, reverse=True)
    ways: dict[str, Callable[[], float]] = {
        "whole cards": lambda: len(sizes),
        "slices of a tenth, online": lambda: best_fit(in_tenths(sizes)),
        "slices of a tenth, as one batch": lambda: best_fit(in_tenths(largest_first)),
        "best fit online": lambda: best_fit(sizes),
        "flexray pack online": lambda: by_core(sizes, "pack"),
        "flexray balanced online": lambda: by_core(sizes, "balanced"),
        "best fit online, shuffled": lambda: over_orders(sizes, best_fit),
        "flexray balanced online, shuffled": lambda: over_orders(sizes, lambda some: by_core(some, "balanced")),
        "best fit as one batch": lambda: best_fit(largest_first),
        "flexray pack as one batch": lambda: by_core(largest_first, "pack"),
        "flexray balanced as one batch": lambda: by_core(largest_first, "balanced"),
        "bound": lambda: bound(sizes),
    }
    counted = {how: way() for how, way in ways.items()}
    return [Row(how, cards, round(sum(sizes) / cards / 10, 2)) for how, cards in counted.items()]


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first 600 tasks")
    parser.add_argument("--data", type=Path, help="folder of the trace")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    sizes = fractions(options.data / "openb_pod_list_default.csv" if options.data else EXCERPT)
    sizes = sizes[: 600 if options.quick else None]
    rows = measure(sizes)
    made = Table(title=f"cards for {len(sizes):,} tasks that ask for {sum(sizes) / WHOLE:,.1f} in all", box=None)
    for column in ("how", "cards", "in use"):
        made.add_column(column)
    for row in rows:
        made.add_row(row.how, f"{row.cards:,.6g}", f"{row.in_use:.1f} %")
    Console().print(made)
    if options.json:
        figures = {"version": 1, "tasks": len(sizes), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
