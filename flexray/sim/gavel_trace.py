"""The data of Gavel: its trace of jobs, and its table of measured throughputs.

Gavel (Narayanan et al., OSDI 2020; stanford-futuredata/gavel, MIT) publishes steps per
second of 26 training jobs on three types of GPU, alone and beside each other, and a
generator of traces: Poisson arrivals, the job's type uniform, minutes on a V100
10**U(1.5, 3) for four jobs in five and 10**U(3, 4) for the fifth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexray.errors import UsageError
from flexray.sim.columns import read_csv

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KINDS = ("v100", "p100", "k80")
"""The types of GPU, in the order of ``--cluster``."""

TRACE_RATE = 4.0
"""Jobs an hour of the published trace; other rates stretch its arrivals."""

_EXTRA = 15_000
"""Jobs drawn by the generator's rule after the trace's own, so that the load goes on while jobs are measured."""


@dataclass(frozen=True, slots=True)
class Throughputs:
    """Steps a second of each class of jobs (such as "ResNet-18 (batch size 64)") on each of ``KINDS``."""

    names: tuple[str, ...]
    alone: Floats
    """(classes, kinds)."""
    beside: Floats
    """(kinds, classes, classes): what is left of the first class beside the second, as part of its rate alone;
    0 where they do not fit."""


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs in order of arrival, as columns."""

    arrival: Floats
    """Seconds."""
    job_class: Ints
    steps: Floats
    rates: Floats
    """(classes, kinds): steps a second."""
    given: int
    """So many jobs are of the trace, the others were drawn."""

    def __post_init__(self) -> None:
        if not (np.diff(self.arrival) >= 0).all():
            raise UsageError("jobs must be in order of arrival")


def read_throughputs(path: Path) -> Throughputs:
    """The jobs on one device of ``simulation_throughputs.json``."""
    table = read_table(path)
    for kind in KINDS:
        if not isinstance(table.get(kind), Mapping):
            raise UsageError(f"{path}: has no throughputs for {kind}")
    keys = [key for key in sorted(table[KINDS[0]]) if key.endswith("', 1)")]
    try:
        alone = np.array([[float(table[kind][key]["null"]) for kind in KINDS] for key in keys])
        beside = np.array([[[float(table[kind][a].get(b, (0.0,))[0]) for b in keys] for a in keys] for kind in KINDS])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"{path}: is not a table of Gavel's throughputs: {error!r}") from None
    if not keys or not (alone > 0).all():
        raise UsageError(f"{path}: every job needs a throughput above 0, alone on one device of {', '.join(KINDS)}")
    names = tuple(key[len("('") : -len("', 1)")] for key in keys)
    return Throughputs(names, alone, beside / alone.T[:, :, None])


def read_load(path: Path, throughputs: Throughputs, rate: float, *, go_on: bool = True, seed: int = 0) -> Load:
    """The trace at ``rate`` jobs an hour, and with ``go_on`` drawn jobs after it."""
    rows = read_csv(path, ("arrival_s", "job_type", "total_steps"))
    index = {name: number for number, name in enumerate(throughputs.names)}
    for row in rows:
        if row.text("job_type") not in index:
            raise UsageError(f"{row.where}: {row.text('job_type')!r} has no throughputs")
        if row.text("scale_factor", "1") != "1":
            raise UsageError(
                f"{row.where}: asks for {row.text('scale_factor')} devices; only jobs on one are simulated"
            )
    arrival = np.array([row.real("arrival_s") for row in rows]) * TRACE_RATE / _positive(rate)
    steps = np.array([row.real("total_steps") for row in rows])
    job_class = np.array([index[row.text("job_type")] for row in rows])
    if not (steps > 0).all():
        raise UsageError(f"{path}: total_steps must be above 0")
    present = np.unique(job_class)  # drawn jobs are of the classes of the trace
    job_class = np.searchsorted(present, job_class)
    given = Load(arrival, job_class, steps, throughputs.alone[present], len(rows))
    return _extended(given, rate, seed) if go_on else given


def draw_load(rates: Floats, rate: float, jobs: int, seed: int = 0) -> Load:
    """Jobs by the generator's rule, ``rate`` an hour."""
    draw = np.random.default_rng(seed)
    job_class = draw.integers(len(rates), size=jobs)
    short = draw.random(jobs) < 0.8
    minutes = 10 ** np.where(short, draw.uniform(1.5, 3, jobs), draw.uniform(3, 4, jobs))
    arrival = np.cumsum(draw.exponential(3600.0 / _positive(rate), jobs))
    return Load(arrival, job_class, minutes * 60 * rates[job_class, 0], rates, jobs)


def _extended(load: Load, rate: float, seed: int) -> Load:
    more = draw_load(load.rates, rate, _EXTRA, seed)
    return Load(
        np.concatenate([load.arrival, load.arrival[-1] + more.arrival]),
        np.concatenate([load.job_class, more.job_class]),
        np.concatenate([load.steps, more.steps]),
        load.rates,
        load.given,
    )


def _positive(rate: float) -> float:
    if not 0 < rate < np.inf:
        raise UsageError(f"--rate {rate:g} jobs an hour must be above 0")
    return rate


def read_table(path: Path) -> Mapping[str, Any]:
    """The table of throughputs as it is in the file: type of GPU -> job -> job beside it, or ``null`` -> steps/s."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if not isinstance(table, Mapping):
        raise UsageError(f"{path}: is not a table of Gavel's throughputs")
    return table
