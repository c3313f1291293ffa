"""Rounds for long work: from time to time, running and waiting jobs are matched to device types again.

Each round is one assignment: as many jobs on each type as it has devices, so that the sum
of weights is the greatest there is. The weight of a job on a type is

    speed on it / speed on its best type  x  urgency  x  (1 + bonus, where it runs already)

Speeds relative to the job's own best give each device to those that lose most without it.
Urgency is the slowdown so far, so that what a job lacks grows on it: without it the
greatest sum starves jobs that are slow everywhere. The bonus makes a move worth its
trouble. It follows Gavel (Narayanan et al., OSDI 2020) in that jobs are many and types
are few; Gavel solves for shares of time and rotates, this solves for places and stays.

The assignment is a transport problem, solved exactly by cancelling cycles of positive
gain (Klein, 1967) on a graph whose only nodes are the types and "waiting". It begins
where the jobs are, so the work grows with the moves made and not with the jobs that stay.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexray.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WAITING = -1
"""The place of a job without a device."""

#: A late job weighs so much more than the most urgent other one: enough for types 100 times slower than its best.
_LATE = 1e3
#: A cycle must gain this part of the greatest weight, or rounding errors are chased in circles.
_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Options:
    """How speed, patience and moves are weighed. Raises UsageError for what makes no sense."""

    power: float = 1.0
    """Urgency is (slowdown so far) ** power. 0 ignores it: the greatest sum of speeds."""
    prior: float = 3600.0
    """Seconds on its best type that every job is assumed to need still, at least: young jobs are not urgent at once."""
    stay: float = 0.02
    """Bonus for staying, as part of the weight."""
    move_cost: float = 0.0
    """Seconds that a move costs (checkpoint and restore); weighed against what the job is assumed to need still."""
    patience: float = 3600.0
    """Seconds without a device after which a job goes before all others. Infinite: never. On Gavel's trace one hour
    instead of four costs at most 0.4 % in mean completion, and a quarter more moves in overload."""
    level: float = 0.0
    """Urgencies are rounded to powers of (1 + level), so that equal jobs are solved as one; 0: exact. For thousands
    of jobs of few classes."""

    def __post_init__(self) -> None:
        for name in ("power", "stay", "move_cost", "level"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name}={getattr(self, name)!r} must not be negative")
        for name in ("prior", "patience"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}={getattr(self, name)!r} seconds must be above 0")


@dataclass(frozen=True, slots=True)
class Job:
    """What a round knows of a job. Times in seconds on the caller's clock."""

    key: Hashable
    rates: tuple[float, ...]
    """Units of work a second on each device type; 0 where it cannot run."""
    place: int = WAITING
    """Index of the type it runs on."""
    born: float = 0.0
    idle_since: float = 0.0
    """When it last lost its device, or came."""
    done: float = 0.0
    """Units of work done."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The jobs of a round as columns. Times in seconds."""

    rates: Floats
    """(jobs, types): units of work a second."""
    place: Ints
    elapsed: Floats
    """Since the job came."""
    idle: Floats
    """Without a device, up to now; 0 while it runs."""
    served: Floats
    """What it has done so far would take this long on its best type."""
    loses: Floats | None = None
    """Seconds of work that a move costs, beside what it costs everybody."""


def match(jobs: Sequence[Job], slots: Sequence[int], now: float, options: Options | None = None) -> dict[Hashable, int]:
    """The index of the device type every job is to have now, or WAITING.

    Args:
        slots: devices of each type.
        now: seconds on the clock of the jobs' times.
    """
    if not jobs:
        return {}
    rates = np.array([job.rates for job in jobs], dtype=np.float64)
    if rates.ndim != 2 or rates.shape[1] != len(slots):
        raise UsageError(f"every job needs {len(slots)} rates, one for each device type")
    place = np.array([job.place for job in jobs], dtype=np.int64)
    if not (place < len(slots)).all():
        raise UsageError(f"a job is on type {place.max()} of {len(slots)}")
    standing = Standing(
        rates=rates,
        place=place,
        elapsed=now - np.array([job.born for job in jobs]),
        idle=np.where(place >= 0, 0.0, now - np.array([job.idle_since for job in jobs])),
        served=np.array([job.done for job in jobs]) / _positive(rates.max(axis=1)),
    )
    found = assign(standing, slots, options or Options())
    return {job.key: int(where) for job, where in zip(jobs, found, strict=True)}


def assign(standing: Standing, slots: Sequence[int], options: Options) -> Ints:
    """The new place of every job."""
    worth = weights(standing, options)
    if options.level > 0:
        return place_groups(worth, standing.place, slots)
    return place_each(worth, standing.place, slots)


def urgency(elapsed: Floats, served: Floats, options: Options) -> Floats:
    """The slowdown so far, as if a job needed as much again as it had (and at least ``prior``); 1 or more."""
    # that much again is the median of what is left of work whose length is spread over all scales alike
    rest = np.maximum(served, options.prior)
    slowdown: Floats = np.maximum((elapsed + rest) / (served + rest), 1.0) ** options.power
    return slowdown


def weights(standing: Standing, options: Options) -> Floats:
    """(jobs, types): what each job is worth on each type."""
    speed = standing.rates / _positive(standing.rates.max(axis=1))[:, None]
    urgent = urgency(standing.elapsed, standing.served, options)
    if options.level > 0:
        step = np.log1p(options.level)
        urgent = np.exp(np.round(np.log(urgent) / step) * step)
    late = standing.idle > options.patience
    if late.any():
        # among the late the longest wait counts, not the slowdown: then none of them is overtaken for ever
        urgent = np.where(late, _LATE * urgent.max() * standing.idle / options.patience, urgent)
    worth: Floats = speed * urgent[:, None]
    runs = np.flatnonzero(standing.place >= 0)
    rest = np.maximum(standing.served[runs], options.prior)
    cost = options.move_cost + (standing.loses[runs] if standing.loses is not None else 0.0)
    worth[runs, standing.place[runs]] *= 1.0 + options.stay + cost / rest
    return worth


def place_each(worth: Floats, place: Ints, slots: Sequence[int]) -> Ints:
    """The new place of every job."""
    count = np.ones(len(place), dtype=np.int64)
    flow = Transport(worth, count, place, slots).solve()
    return _seats(flow.argmax(axis=1), len(slots))


def place_groups(worth: Floats, place: Ints, slots: Sequence[int]) -> Ints:
    """As ``place_each``, but jobs with equal weights and place are solved as one: for many jobs of few kinds."""
    rows, inverse, count = np.unique(np.column_stack([worth, place]), axis=0, return_inverse=True, return_counts=True)
    flow = Transport(rows[:, :-1], count, rows[:, -1].astype(np.int64), slots).solve()
    found = np.empty(len(place), dtype=np.int64)
    # jobs of a group are alike: they take its places in their order, which is the same in every process
    order = np.argsort(inverse.reshape(-1), kind="stable")
    found[order] = np.repeat(np.tile(np.arange(len(slots) + 1), len(rows)), flow.reshape(-1))
    return _seats(found, len(slots))


class Transport:
    """Units of groups on types, so that the sum of weights is the greatest.

    ``flow[g, k]`` units of group g are on type k; the last column waits. Whenever one unit
    can go from type a to type b, another from b to c, and so on back to a, for a positive
    sum of gains, they do. When no such cycle is left the sum is the greatest there is.
    """

    def __init__(self, worth: Floats, count: Ints, place: Ints, slots: Sequence[int]) -> None:
        """Weights (groups, types), 0 where a group cannot be; units and present place of each group."""
        groups, self._kinds = worth.shape
        self._slots = np.asarray(slots, dtype=np.int64)
        self._value = np.zeros((groups, self._kinds + 1))
        self._value[:, :-1] = np.where(worth > 0, worth, -np.inf)
        self._flow = _begin(worth, count, place, self._slots)
        self._free = self._slots - self._flow[:, :-1].sum(axis=0)
        self._tolerance = _TOLERANCE * max(1.0, float(worth.max(initial=0.0)))
        nodes = self._kinds + 1
        #: best gain of a step from one node to another, and the group that makes it (-1: an idle device).
        self._gain = np.full((nodes, nodes), -np.inf)
        self._who = np.full((nodes, nodes), -1, dtype=np.int64)
        for node in range(nodes):
            self._refresh(node)

    def solve(self) -> Ints:
        """The flow with the greatest sum."""
        # every cycle gains, so this ends; the limit is for weights so far apart that rounding decides
        for _ in range(50 * (len(self._gain) ** 2 + int(self._flow.sum()))):
            cycle = _gaining_cycle(self._gain, self._tolerance)
            if not cycle:
                break
            self._shift(cycle)
        return self._flow

    def _refresh(self, node: int) -> None:
        """Find the best steps away from a node again."""
        here = np.flatnonzero(self._flow[:, node])
        self._gain[node] = -np.inf
        if here.size:
            gain = self._value[here] - self._value[here, node][:, None]
            best = gain.argmax(axis=0)
            self._who[node] = here[best]
            self._gain[node] = gain[best, np.arange(len(best))]
        if node < self._kinds and self._free[node] > 0:
            # an idle device can stand for a unit that leaves: it costs nothing and makes room
            idle = self._gain[node] < 0.0
            self._gain[node, idle] = 0.0
            self._who[node, idle] = -1
        self._gain[node, node] = -np.inf

    def _shift(self, cycle: list[tuple[int, int]]) -> None:
        """Move as many units around a cycle as can go."""
        movers = [(int(self._who[a, b]), a, b) for a, b in cycle]
        amount = min(int(self._flow[group, a] if group >= 0 else self._free[a]) for group, a, _ in movers)
        for group, a, b in movers:
            if group >= 0:
                self._flow[group, a] -= amount
                self._flow[group, b] += amount
        self._free = self._slots - self._flow[:, :-1].sum(axis=0)
        for _, a, _ in movers:
            self._refresh(a)


def _begin(worth: Floats, count: Ints, place: Ints, slots: Ints) -> Ints:
    """The flow as it is, less what is where it cannot be any more: a type forbidden, or with fewer devices."""
    groups, kinds = worth.shape
    flow = np.zeros((groups, kinds + 1), dtype=np.int64)
    for kind in range(kinds):
        here = np.flatnonzero((place == kind) & (worth[:, kind] > 0))
        here = here[np.argsort(-worth[here, kind], kind="stable")]
        before = np.cumsum(count[here]) - count[here]
        flow[here, kind] = np.clip(slots[kind] - before, 0, count[here])
    flow[:, kinds] = count - flow[:, :kinds].sum(axis=1)
    return flow


def _gaining_cycle(gain: Floats, tolerance: float) -> list[tuple[int, int]]:
    """Steps (from, to) of a cycle with a positive sum of gains, or none: Bellman and Ford, from every node at once."""
    nodes = len(gain)
    columns = np.arange(nodes)
    reached = np.zeros(nodes)
    previous = np.full(nodes, -1)
    for _ in range(nodes + 1):
        through = reached[:, None] + gain
        source = through.argmax(axis=0)
        better = through[source, columns] > reached + tolerance
        if not better.any():
            return []
        reached = np.where(better, through[source, columns], reached)
        previous = np.where(better, source, previous)
        # a cycle among the predecessors is one that gains
        at = int(np.flatnonzero(better)[0])
        for _ in range(nodes):
            at = int(previous[at]) if at >= 0 else -1
        if at >= 0:
            return _steps_back(previous, at)
    return []


def _steps_back(previous: Ints, start: int) -> list[tuple[int, int]]:
    steps = [(int(previous[start]), start)]
    while steps[-1][0] != start:
        steps.append((int(previous[steps[-1][0]]), steps[-1][0]))
    return steps


def _seats(found: Ints, kinds: int) -> Ints:
    return np.where(found == kinds, WAITING, found)


def _positive(values: Floats) -> Floats:
    """Never 0, for what divides: a job that can run nowhere has speed 0 everywhere."""
    return np.maximum(values, 1e-300)
