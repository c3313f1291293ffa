"""What the rest of a node is worth to the requests that arrive: how much of it they will be able to use.

A rest r of a device is worth V(r), nine tenths of it by foresight, one tenth by what comes next:

    foresight   the dearest set of requests that fits in r, at the dual prices of cutting whole devices into
                what arrives with the least waste (``stock.py``); small requests are dear where they fill gaps
    next        r - w(r), where w(r) is what will be lost of it when, each time, the best fitting of the
                next B requests is put there:

    w(r) = sum over sizes d_i <= r, in the order of w(r - d_i), of
           w(r - d_i) * (Q_{i-1}^B - Q_i^B)  +  Q_last^B * r,     Q_i = 1 - p_1 - ... - p_i

with the popularities p of the sizes, learnt from what arrives. Foresight alone finds many rests
worth the same; the second part tells them apart. The rests of a node are worth nothing to requests
that its host has no cores for, or that need more whole devices than it has left, so the sum is
scaled by the part of the requests for which neither is so. Measured in benchmarks/openb.py and
benchmarks/openb_departures.py beside FGD.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from flexray.core import stock
from flexray.core.fixed_parts import Grant, Profiles, best_in_room, granted, spans_of, whole_row
from flexray.core.inhabitants import Kind
from flexray.core.landscape import NodeClass
from flexray.model.amounts import WHOLE
from flexray.model.request import Request

#: B: of so many requests the best fitting one will come to a rest.
_CHOICE = 16
#: The part of the value that is by what comes next.
_NEXT = 0.1
#: Rests and sizes are rounded to this many thousandths: rests down, sizes up.
_GRAIN = 10
_LEVELS = WHOLE // _GRAIN
#: Sums of values are off by less.
_ROUNDING = 1e-9


class Asked(NamedTuple):
    """What shapes need that the values of rests say nothing of: host cores, kinds of device, how many devices."""

    cores: int
    weight: float
    allowed: tuple[bool, ...]
    devices: int


class Stock(NamedTuple):
    """What a node has of one kind of device: the sum of its rests' values, and how many devices are whole."""

    kind: int
    value: float
    whole: int


class Worth:
    """Values of rests for one epoch of the mix."""

    def __init__(
        self, shapes: Sequence[tuple[Request, float]], kinds: Sequence[Kind], allows: Sequence[Sequence[bool]]
    ) -> None:
        self._memory = [kind.type.memory for kind in kinds]
        wanted = [
            (request, weight, ok) for (request, weight), ok in zip(shapes, allows, strict=True) if request.devices
        ]
        total = sum(weight for _, weight, _ in wanted)
        asked: dict[tuple[int, tuple[bool, ...], int], float] = {}
        for request, weight, ok in wanted:
            key = (request.cpus, tuple(ok), request.devices)
            asked[key] = asked.get(key, 0.0) + weight
        self._usable = _Usable([Asked(key[0], weight, key[1], key[2]) for key, weight in asked.items()], total)
        tables: dict[tuple[tuple[int, float], ...], list[float]] = {}
        self._values: list[list[float]] = []
        self._rows: list[_RowValues | None] = []
        for kind in kinds:
            sizes = _sizes(wanted, kind)
            if sizes not in tables:
                tables[sizes] = _values(sizes)
            self._values.append(tables[sizes])
            self._rows.append(_RowValues(kind, tables[sizes]) if whole_row(kind.profiles) else None)
        self._rises = [_rise(values) for values in self._values]
        #: by class of nodes: its stocks, and what they are worth.
        self._known: dict[int, tuple[list[Stock], float]] = {}

    def of(self, found: NodeClass) -> float:
        """What the rests of a node of a class are worth, in devices."""
        return self._sum(found.state.cores, self._stocks(found))

    def change(self, found: NodeClass, room: int, grant: Grant | None, devices: int, cores: int) -> float:
        """What the worth of a node of a class changes by when something is placed.

        Args:
            room: the room that is used (of several whole devices: one of them); below 0, only the host is.
            grant: what is taken of each device.
            devices: how many devices.
            cores: the level of host cores afterwards.
        """
        known = self._known.get(found.number)
        if known is None:
            stocks = self._stocks(found)
            known = self._known[found.number] = (stocks, self._sum(found.state.cores, stocks))
        stocks, before = known
        if room < 0 or grant is None:
            return self._sum(cores, stocks) - before
        used, share, memory, _, _, places, quiet = found.state.rooms[room]
        row = self._rows[used]
        if row is None:
            values, whole_memory = self._values[used], self._memory[used]
            was = values[_rest(share, memory, whole_memory)]
            left = values[_rest(share - grant[0], memory - grant[1], whole_memory)]
        else:
            was, left = row[places], row.after(grant, places, quiet)
        gone = devices if share == WHOLE else 0
        total, usable = 0.0, self._usable
        for kind, value, whole in stocks:
            if kind == used:
                value, whole = value + devices * (left - was), whole - gone
            total += value * usable[cores, kind, whole]
        return total - before

    def most(self, kind: int, devices: int) -> float:
        """A bound of ``change`` for any request for so many devices of a kind.

        Less of the host never makes what is left worth more, so that it is what a smaller rest may be worth more than
        a larger one.
        """
        return devices * self._rises[kind] + _ROUNDING

    def _stocks(self, found: NodeClass) -> list[Stock]:
        stocks: dict[int, tuple[float, int]] = {}
        for _, (kind, share, memory, _, _, places, _), count in found.rooms:
            value, whole = stocks.get(kind, (0.0, 0))
            row = self._rows[kind]
            worth = self._values[kind][_rest(share, memory, self._memory[kind])] if row is None else row[places]
            stocks[kind] = (value + count * worth, whole + count * (share == WHOLE))
        return [Stock(kind, value, whole) for kind, (value, whole) in stocks.items()]

    def _sum(self, cores: int, stocks: Sequence[Stock]) -> float:
        return sum(value * self._usable[cores, kind, whole] for kind, value, whole in stocks)


class _RowValues(dict[int, float]):
    """By the free places of a device that is cut into fixed parts: the dearest parts that fit side by side."""

    def __init__(self, kind: Kind, values: list[float]) -> None:
        super().__init__()
        self._profiles: Profiles = kind.profiles
        worths = [(spans_of(part), values[_part_size(part.share, part.memory, kind)]) for part in kind.profiles]
        self._pieces = [(span, worth) for spans, worth in worths for span in spans]

    def __missing__(self, places: int) -> float:
        fitting = [(span, worth) for span, worth in self._pieces if span & places == span]
        self[places] = max((worth + self[places & ~span] for span, worth in fitting), default=0.0)
        return self[places]

    def after(self, grant: Grant, places: int, quiet: int) -> float:
        """Once something was put there."""
        return self[places & ~best_in_room(self._profiles, grant.spans, places, quiet)]


class _Usable(dict[tuple[int, int, int], float]):
    """By host cores, kind and number of whole devices: the part of the requests that these do not keep away."""

    def __init__(self, asked: Sequence[Asked], total: float) -> None:
        super().__init__()
        self._asked, self._total = asked, total
        #: host cores at which one request more is served.
        self._steps = sorted({one.cores for one in asked})
        self._counted: dict[tuple[int, int, int], float] = {}

    def __missing__(self, key: tuple[int, int, int]) -> float:
        cores, kind, whole = key
        alike = (bisect_right(self._steps, cores), kind, whole)
        if alike not in self._counted:
            self._counted[alike] = self._count(cores, kind, whole)
        part = self[key] = self._counted[alike]
        return part

    def _count(self, cores: int, kind: int, whole: int) -> float:
        fits = sum(
            asked.weight
            for asked in self._asked
            if asked.cores <= cores and asked.allowed[kind] and (asked.devices == 1 or asked.devices <= whole)
        )
        return fits / self._total if self._total else 0.0


def _rest(share: int, memory: int, whole: int) -> int:
    """How much of a device with that much memory is left, in grains: of compute or of memory, whichever is less."""
    of_memory = WHOLE * memory // whole if whole else WHOLE
    return (share if share < of_memory else of_memory) // _GRAIN


def _sizes(wanted: Sequence[tuple[Request, float, Sequence[bool]]], kind: Kind) -> tuple[tuple[int, float], ...]:
    """Sizes of requests on a kind of device, in grains, with their weights; memory counts where it is the scarcer."""
    found: dict[int, float] = {}
    for request, weight, _ in wanted:
        grant = granted(request, kind.type.memory, kind.profiles)
        if grant is None:
            continue
        if kind.profiles:
            size = _part_size(grant.share, grant.memory, kind)
        else:
            memory = kind.type.memory
            part = WHOLE * grant.memory / memory if request.memory is not None and memory else 0
            size = -int(-max(request.share, part) // _GRAIN)
        if 0 < size <= _LEVELS:
            found[size] = found.get(size, 0.0) + weight
    return tuple(sorted(found.items()))


def _part_size(share: int, memory: int, kind: Kind) -> int:
    """Of a fixed part, in grains: rounded down, so that as many as fit on a device fit in their sum."""
    of_memory = WHOLE * memory // kind.type.memory if kind.type.memory else 0
    return max(share, of_memory) // _GRAIN


def _rise(values: list[float]) -> float:
    """What a smaller rest is worth more than a larger one, at most."""
    highest = rise = 0.0
    for value in values:
        highest = max(highest, value)
        rise = max(rise, highest - value)
    return rise


def _values(sizes: tuple[tuple[int, float], ...]) -> list[float]:
    """V of each rest, in devices."""
    if not sizes:
        return [0.0] * (_LEVELS + 1)
    pairs = zip(stock.values(sizes, _LEVELS), _next_values(sizes), strict=True)
    return [(1 - _NEXT) * foresight + _NEXT * soon for foresight, soon in pairs]


def _next_values(sizes: tuple[tuple[int, float], ...]) -> list[float]:
    """r - w(r) of each rest, in devices."""
    total = sum(weight for _, weight in sizes)
    lost: list[float] = []
    for rest in range(_LEVELS + 1):
        fitting = sorted((lost[rest - size], weight) for size, weight in sizes if size <= rest)
        without, expected, before = 1.0, 0.0, 1.0
        for waste, weight in fitting:
            without = max(0.0, without - weight / total)
            after = without**_CHOICE
            expected += waste * (before - after)
            before = after
        lost.append(expected + before * rest)
    return [(rest - waste) / _LEVELS for rest, waste in enumerate(lost)]
