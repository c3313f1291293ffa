"""Two actors that infer with PyTorch at 25 and 75 % of one CPU device, through the whole runtime: for ``isolation.py``.

Both are asked without a pause, at the same time; counted are the requests that each has answered. Each request runs in
one thread, several beside each other: one that torch spreads over two threads takes a third more CPU time here, since
they wait for each other, and the larger actor alone would have that.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from rich.table import Table

import flexray as flex

WIDTH, BATCH, LAYERS = 512, 384, 8
IN_FLIGHT = 4
SETTLE_SECONDS = 0.5
WANTED, TOLERANCE = 3.0, 0.1


class Model:
    """A small network that answers requests."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        layers = [layer for _ in range(LAYERS) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
        self._network, self._batch = torch.nn.Sequential(*layers).eval(), torch.randn(BATCH, WIDTH)

    def held(self) -> tuple[str, ...]:
        """The mechanism that holds this actor, and what there is to know of it."""
        here = flex.current()
        return here.isolation, here.guarantee, *here.notes

    async def infer(self) -> float:
        """One request."""
        return await asyncio.to_thread(self._infer)

    def _infer(self) -> float:
        import torch

        with torch.inference_mode():
            return float(self._network(self._batch).sum())


@dataclass(frozen=True)
class Actors:
    """What the two obtained.

    Attributes:
        held: what each was held by.
        per_second: requests a second that each answered, in the median.
        ratios: of the rounds, the larger one's to the smaller one's.
        ratio: their median.
        met: whether that is within 10 % of 3.
    """

    held: tuple[str, ...]
    per_second: tuple[float, float]
    ratios: tuple[float, ...]
    ratio: float
    met: bool


def two_actors(rounds: int, seconds: float) -> Actors:
    """Start Ray and a pool with one CPU device, measure, end them."""
    with a_pool():
        models = [flex.actor(accelerator=share)(Model).remote() for share in (0.25, 0.75)]
        held = [model.held.remote().result(120) for model in models]
        found = [one_round(models, seconds) for _ in range(rounds)]
    ratios = tuple(round(large / small, 3) for small, large in found)
    ratio = statistics.median(ratios)
    per_second = tuple(round(statistics.median(column), 2) for column in zip(*found, strict=True))
    met = abs(ratio / WANTED - 1) <= TOLERANCE
    return Actors(tuple(held[0]), (per_second[0], per_second[1]), ratios, ratio, met)


@contextmanager
def a_pool() -> Iterator[None]:
    """One node, one CPU device of all of its cores."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    flex.init(config={"cpu_devices": 1})
    try:
        yield
    finally:
        flex.shutdown()
        ray.shutdown()


def one_round(models: list[Any], seconds: float) -> tuple[float, float]:
    """Requests a second that each answers while both are asked."""
    begin = time.monotonic() + SETTLE_SECONDS
    counts = [0, 0]

    def ask(number: int) -> None:
        infer, waiting = models[number].infer, deque[Any]()
        while time.monotonic() < begin + seconds + SETTLE_SECONDS:
            while len(waiting) < IN_FLIGHT:
                waiting.append(infer.remote())
            waiting.popleft().result(60)
            counts[number] += begin <= time.monotonic() < begin + seconds
        for future in waiting:
            future.result(60)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts[0] / seconds, counts[1] / seconds


def table_of(actors: Actors) -> Table:
    """The two actors for a terminal."""
    title = f"two actors through the runtime, held by {', '.join(actors.held)}"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("requests/s at 25 %", "at 75 %", "ratio", "rounds", "bar"):
        table.add_column(name)
    bar = f"3 within {TOLERANCE:.0%} {'met' if actors.met else 'missed'}"
    spread = f"{min(actors.ratios):.2f} to {max(actors.ratios):.2f}"
    small, large = actors.per_second
    table.add_row(f"{small:.1f}", f"{large:.1f}", f"{actors.ratio:.2f}", spread, bar)
    return table
