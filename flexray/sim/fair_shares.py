"""How fair a run was: what each queue held over time against what it was entitled to at each moment.

What a queue is entitled to is the formula of docs/queues.md (``core/fairness.py``) on what it holds and waits for at
that moment, with the past that the run itself made where queues have a half-life. The formula divides devices
as if they were a liquid; jobs are whole, so that no scheduler comes to 0 here.

    deviation   mean over time of | held - entitled |
    short       the part of it in which less was held
    owed        mean over time of what was promised, wanted and not held: max(0, sure - held)
    Jain        of x = held / entitled of the n queues that are entitled to something:
                (sum of x)^2 / (n x sum of x^2), in the mean over the time in which more is wanted than there is

Jain's index (Jain, Chiu, Hawe, DEC TR-301, 1984) is 1 where all have the same part of what they are entitled to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flexray.core.fairness import Entitlement, entitled
from flexray.core.history import History
from flexray.core.loads import Capacity, capacity_load, worth
from flexray.core.promises import fitted
from flexray.core.queues import QueueTree
from flexray.model.amounts import WHOLE
from flexray.model.queue import ROOT_QUEUE


@dataclass(frozen=True, slots=True)
class Stay:
    """A job of a queue from when it came until it was done: times in seconds.

    Attributes:
        spans: when it held its devices, begin and end of each attempt.
        lost: seconds of its work that were done twice.
    """

    queue: str
    devices: int
    came: float
    gone: float
    spans: tuple[tuple[float, float], ...]
    lost: float = 0.0

    @property
    def wait(self) -> float:
        """Seconds until it first ran."""
        return self.spans[0][0] - self.came if self.spans else self.gone - self.came


@dataclass(frozen=True, slots=True)
class QueueFairness:
    """One queue over the time looked at, in the mean, in per cent of the pool."""

    queue: str
    wanted: float
    entitled: float
    held: float
    deviation: float
    short: float
    owed: float


@dataclass(frozen=True, slots=True)
class Fairness:
    """A run: its queues; Jain's index, None where there was always enough; part of the time that there was not."""

    queues: tuple[QueueFairness, ...]
    jain: float | None
    contended: float


@dataclass(slots=True)
class _Sums:
    wanted: float = 0.0
    entitled: float = 0.0
    held: float = 0.0
    deviation: float = 0.0
    short: float = 0.0
    owed: float = 0.0

    def add(self, wanted: int, own: Entitlement, held: int, span: float) -> None:
        self.wanted += span * wanted
        self.entitled += span * own.amount
        self.held += span * held
        self.deviation += span * abs(held - own.amount)
        self.short += span * max(0, own.amount - held)
        self.owed += span * max(0, own.sure - held)


def measure(stays: Iterable[Stay], tree: QueueTree, capacity: Capacity, until: float) -> Fairness:
    """How fair a run was from 0 to ``until``. ``capacity`` is of one device type, whose devices jobs hold whole."""
    (kind, room), *_ = capacity.items()
    tree, _ = fitted(tree, capacity)
    whole, unit = worth(capacity_load(capacity), capacity), WHOLE * room.speed
    leaves, history = tree.leaves, History(tree)
    sums = {name: _Sums() for name in leaves}
    wanted, held = dict.fromkeys(leaves, 0), dict.fromkeys(leaves, 0)
    contended, index = 0.0, 0.0
    changes = _changes(stays, until)
    for (now, moved), (then, _) in zip(changes, [*changes[1:], (until, {})], strict=True):
        for name, (more_wanted, more_held) in moved.items():
            wanted[name] += more_wanted
            held[name] += more_held
        _note(history, tree, {name: unit * n for name, n in held.items()}, now)
        demand = {name: {kind: (WHOLE * n, WHOLE * n)} for name, n in wanted.items()}
        now_entitled = entitled(tree, demand, capacity, history.past(whole, now))
        for name in leaves:
            sums[name].add(unit * wanted[name], now_entitled[name], unit * held[name], then - now)
        if unit * sum(wanted.values()) > whole:
            contended += then - now
            parts = [unit * held[n] / now_entitled[n].amount for n in leaves if now_entitled[n].amount]
            index += (then - now) * jain(parts)
    found = tuple(_part(name, one, 100 / (whole * until)) for name, one in sums.items() if one.wanted)
    return Fairness(found, round(index / contended, 4) if contended else None, round(contended / until, 4))


def jain(parts: Sequence[float]) -> float:
    """1 where all are equal, 1 / their number where one has everything; 0 where nobody has anything."""
    squares = sum(part * part for part in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares else 0.0


def _part(name: str, sums: _Sums, scale: float) -> QueueFairness:
    amounts = (sums.wanted, sums.entitled, sums.held, sums.deviation, sums.short, sums.owed)
    return QueueFairness(name, *(round(scale * amount, 4) for amount in amounts))


def _note(history: History, tree: QueueTree, held: Mapping[str, int], now: float) -> None:
    """Groups have used what their queues have."""
    for name in tree.queues:
        inside = [leaf for leaf in held if name == ROOT_QUEUE or name in tree.path(leaf)]
        history.note(name, sum(held[leaf] for leaf in inside), now)


def _changes(stays: Iterable[Stay], until: float) -> list[tuple[float, dict[str, tuple[int, int]]]]:
    """(time, by queue: devices wanted more or less, devices held more or less), in order, from 0."""
    found: dict[float, dict[str, tuple[int, int]]] = {0.0: {}}

    def note(at: float, queue: str, wanted: int, held: int) -> None:
        if at < until:
            of = found.setdefault(at, {})
            before = of.get(queue, (0, 0))
            of[queue] = (before[0] + wanted, before[1] + held)

    for stay in stays:
        note(stay.came, stay.queue, stay.devices, 0)
        note(stay.gone, stay.queue, -stay.devices, 0)
        for begin, end in stay.spans:
            note(begin, stay.queue, 0, stay.devices)
            note(end, stay.queue, 0, -stay.devices)
    return sorted(found.items())
