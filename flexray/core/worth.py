"""What the rest of a node is worth to the requests that arrive: how much of it they will be able to use.

A rest r of a device is worth  V(r) = r - w(r),  where w(r) is what will be lost of it when, each
time, the best fitting of the next B requests is put there:

    w(r) = sum over sizes d_i <= r, in the order of w(r - d_i), of
           w(r - d_i) * (Q_{i-1}^B - Q_i^B)  +  Q_last^B * r,     Q_i = 1 - p_1 - ... - p_i

with the popularities p of the sizes, learnt from what arrives. B says how choosy the pool can
afford to be: 1 would be the next request whatever it is, large values a cutting-stock optimum.
The rests of a node are worth nothing to requests that its host has no cores for, or that
need more whole devices than it has left, so the sum is scaled by the part of the requests
for which neither is so. Measured in benchmarks/openb.py beside FGD.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flexray.core.books import Room
from flexray.core.inhabitants import Kind
from flexray.core.landscape import NodeState
from flexray.model.amounts import WHOLE
from flexray.model.request import Request, memory_needed

#: B: of so many requests the best fitting one will come to a rest.
_CHOICE = 16
#: Rests and sizes are rounded to this many thousandths: rests down, sizes up.
_GRAIN = 10
_LEVELS = WHOLE // _GRAIN


class Asked(NamedTuple):
    """A shape: what it needs of the host, its weight, on which kinds it may go, and of how many devices how much."""

    cores: int
    weight: float
    allowed: tuple[bool, ...]
    devices: int
    share: int


class Worth:
    """Values of rests for one epoch of the mix."""

    def __init__(
        self, shapes: Sequence[tuple[Request, float]], kinds: Sequence[Kind], allows: Sequence[Sequence[bool]]
    ):
        self._kinds = kinds
        wanted = [
            (request, weight, ok) for (request, weight), ok in zip(shapes, allows, strict=True) if request.devices
        ]
        self._total = sum(weight for _, weight, _ in wanted)
        asked: dict[tuple[object, ...], float] = {}
        for request, weight, ok in wanted:
            share = request.share if request.devices > 1 else 0  # one device: the values look at its rest
            key = (request.cpus, tuple(ok), request.devices, share)
            asked[key] = asked.get(key, 0.0) + weight
        self._asked = [Asked(key[0], weight, *key[1:]) for key, weight in asked.items()]  # type: ignore[arg-type]
        tables: dict[tuple[tuple[int, float], ...], list[float]] = {}
        self._values: list[list[float]] = []
        for kind in kinds:
            sizes = _sizes(wanted, kind)
            if sizes not in tables:
                tables[sizes] = _values(sizes)
            self._values.append(tables[sizes])
        self._known: dict[tuple[object, ...], float] = {}

    def of(self, state: NodeState) -> float:
        """What the rests of a node in this state are worth, in devices."""
        rooms = state.rooms
        key = (state.cores, tuple(room[:3] for room in rooms))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._worth(state.cores, rooms)
        return known

    def _worth(self, cores: int, rooms: tuple[Room, ...]) -> float:
        values: dict[int, float] = {}
        for room in rooms:
            memory = self._kinds[room.kind].type.memory
            rest = min(room.share, WHOLE * room.memory // memory if memory else WHOLE)
            values[room.kind] = values.get(room.kind, 0.0) + self._values[room.kind][rest // _GRAIN]
        return sum(value * self._usable(cores, kind, rooms) for kind, value in values.items() if value)

    def _usable(self, cores: int, kind: int, rooms: tuple[Room, ...]) -> float:
        """The part of the requests that host, kind and number of devices do not keep away."""
        fits = 0.0
        for asked in self._asked:
            if asked.cores > cores or not asked.allowed[kind]:
                continue
            if asked.devices > 1:
                there = sum(1 for room in rooms if room.kind == kind and room.share >= asked.share)
                if there < asked.devices:
                    continue
            fits += asked.weight
        return fits / self._total if self._total else 0.0


def _sizes(wanted: Sequence[tuple[Request, float, Sequence[bool]]], kind: Kind) -> tuple[tuple[int, float], ...]:
    """Sizes of requests on a kind of device, in grains, with their weights; memory counts where it is the scarcer."""
    found: dict[int, float] = {}
    for request, weight, _ in wanted:
        memory = kind.type.memory
        part = WHOLE * memory_needed(request, memory) / memory if request.memory is not None and memory else 0
        size = -int(-max(request.share, part) // _GRAIN)
        if size <= _LEVELS:
            found[size] = found.get(size, 0.0) + weight
    return tuple(sorted(found.items()))


def _values(sizes: tuple[tuple[int, float], ...]) -> list[float]:
    """V of each rest, in devices."""
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
