"""The same work for many seeds, in several processes."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Sequence

from flexray.errors import UsageError
from flexray.sim.openb import Experiment, OpenbResult, SeedResult

Progress = Callable[[float, float], None]
"""Told how much is done, of how much."""


def run_seeds(
    experiment: Experiment, seeds: Sequence[int], progress: Progress, workers: int | None = None
) -> OpenbResult:
    """The experiment for every seed, one process per core (or ``workers``); the result depends on neither."""
    count = min(len(seeds), workers or os.cpu_count() or 1)
    results: list[SeedResult] = []
    if count == 1:
        for number, seed in enumerate(seeds):
            results.append(experiment.run(seed, lambda part, before=number: progress(before + part, len(seeds))))  # type: ignore[misc]
    else:
        with multiprocessing.get_context("spawn").Pool(count) as pool:
            for result in pool.imap_unordered(experiment.run, seeds):
                results.append(result)
                progress(len(results), len(seeds))
    progress(len(seeds), len(seeds))
    return experiment.summarise(results)


def parse_seeds(text: str) -> list[int]:
    """``42-51``, ``1,2,7`` or both, each seed once."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last - first >= 10_000:
            raise UsageError(f"--seeds {text!r}: write numbers and ranges such as 42-51 or 1,2,7")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))
