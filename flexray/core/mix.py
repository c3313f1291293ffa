"""The mix of requests that has arrived lately, and how much of a node it could not use: its fragments.

Fragmentation as in FGD (Weng et al., "Beware of Fragmentation", USENIX ATC'23, section 3),
extended to device memory, host memory and nodes with several kinds of device: the part
of a node's free devices that a request drawn from the mix could not use, on average.
The mix is learnt from what arrives and swapped in epochs, so that scores stay comparable in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from flexray.core.fixed_parts import Grant, best_in_room
from flexray.core.inhabitants import Kind, Kinds
from flexray.core.landscape import NodeState, host_levels
from flexray.core.worth import Worth
from flexray.model.amounts import WHOLE, Share
from flexray.model.request import Request

#: Shapes are counted until they cover this part of the arrivals, most frequent first (FGD).
_COVERAGE = 0.95
_MOST_SHAPES = 100
#: A new epoch begins after so many arrivals, and after this part of all that are remembered.
_SHORTEST_EPOCH, _EPOCH_PART, _LONGEST_EPOCH = 16, 0.125, 5_000
#: Older arrivals count half once so many were seen.
_MEMORY = 20_000
#: What is expected before anything has arrived, with the weight of so many arrivals each.
_PRIOR = {Request(): 0.5, Request(share=Share(500)): 0.25, Request(share=Share(250)): 0.25}


_Rest = tuple[int, int, int, int]
"""What is left of a device: its kind, share, memory and places."""


class DevicePart(NamedTuple):
    """What shapes of the mix take of devices: per kind what is granted, or None where it may not go."""

    need: tuple[Grant | None, ...]
    devices: int


class HostPart(NamedTuple):
    """What a shape asks of the host, how popular it is, and which DevicePart it has."""

    cores: int
    memory: int
    popularity: float
    part: int


class Mix:
    """Counts shapes; between two swaps ``fragments`` and ``scarcity`` answer from the same counts."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._counts: Counter[tuple[object, ...]] = Counter()
        self._example: dict[tuple[object, ...], Request] = {}
        self._seen = 0.0
        self._since = 0
        self._known = -1
        self._fragments: dict[tuple[object, ...], float] = {}
        self._parts: list[DevicePart] = []
        self._hosts: list[HostPart] = []
        self._weights: dict[Request, float] = {}
        self._prices: list[float] = []
        self._worth: Worth | None = None

    def saw(self, request: Request) -> bool:
        """Count an arrival. True when it is time for another epoch."""
        shape = request.shape
        self._example.setdefault(shape, request)
        self._counts[shape] += 1
        self._seen += 1
        self._since += 1
        return self._since >= min(_LONGEST_EPOCH, max(_SHORTEST_EPOCH, _EPOCH_PART * self._seen))

    def swap(self) -> None:
        """Begin an epoch: everything that was scored by the old mix is stale."""
        if self._seen > _MEMORY:
            self._counts = Counter({shape: count // 2 for shape, count in self._counts.items() if count > 1})
            self._example = {shape: self._example[shape] for shape in self._counts}
            self._seen = float(sum(self._counts.values()))
        self._since = 0
        self._known = -1

    def inventory_changed(self) -> None:
        """Devices have come or gone; what follows from them is derived anew when it is asked for."""
        self._known = -1

    def _derive(self) -> None:
        self._fragments.clear()
        self._worth = None
        self._known = len(self._kinds.all)
        weights = dict(_PRIOR)
        for shape, count in self._counts.items():
            request = self._example[shape]
            weights[request] = weights.get(request, 0.0) + count
        ordered = sorted(weights.items(), key=lambda item: (-item[1], repr(item[0].shape)))
        total, covered = sum(weights.values()), 0.0
        kept: list[tuple[Request, float]] = []
        for request, weight in ordered[:_MOST_SHAPES]:
            if covered >= _COVERAGE * total:
                break
            kept.append((request, weight))
            covered += weight
        numbers: dict[DevicePart, int] = {}
        self._hosts = []
        for request, weight in kept:
            part = numbers.setdefault(self._part(request), len(numbers))
            self._hosts.append(HostPart(request.cpus, request.host_memory, weight / covered, part))
        self._parts = list(numbers)
        self._prices = self._price(weights)
        self._weights = weights

    def worth(self) -> Worth:
        """What rests are worth to what arrives."""
        if len(self._kinds.all) != self._known:
            self._derive()
        if self._worth is None:
            kinds, shapes = self._kinds.all, list(self._weights.items())
            allows = [[self._kinds.allows(kind, request) for kind in kinds] for request, _ in shapes]
            self._worth = Worth(shapes, kinds, allows)
        return self._worth

    def _part(self, request: Request) -> DevicePart:
        grants = [self._kinds.grant(kind, request) if request.devices else None for kind in self._kinds.all]
        return DevicePart(tuple(grants), request.devices)

    # -- fragments --------------------------------------------------------------------------

    def fragments(self, state: NodeState) -> float:
        """The expected part of a node's free devices that the mix could not use, in devices."""
        if len(self._kinds.all) != self._known:
            self._derive()
        rooms = tuple((room.kind, room.share, room.memory, room.places) for room in state.rooms if room.share)
        key = (state.cores, state.memory, rooms)
        known = self._fragments.get(key)
        if known is None:
            known = self._fragments[key] = self._count(state.cores, state.memory, rooms)
        return known

    def _count(self, cores: int, memory: int, rooms: tuple[_Rest, ...]) -> float:
        free = sum(rest[1] for rest in rooms)
        lost = [self._lost(part, rooms, free) for part in self._parts]
        total = 0.0
        for host in self._hosts:
            fits = cores >= host.cores and memory >= host.memory
            total += host.popularity * (lost[host.part] if fits else free)
        return total / WHOLE

    @staticmethod
    def _lost(part: DevicePart, rooms: tuple[_Rest, ...], free: int) -> int:
        usable = count = 0
        for kind, share, memory, places in rooms:
            need = part.need[kind]
            if need is not None and share >= need[0] and memory >= need[1] and need.fits(places):
                usable += share
                count += 1
        return free - usable if count and count >= part.devices else free

    # -- scarcity ---------------------------------------------------------------------------

    def scarcity(self, kind: int) -> float:
        """Demand of requests that are tied to some types, per device of this kind (field notes: type scarcity price).

        Each such request is spread over the kinds it allows in proportion to their number;
        total demand is scaled to the capacity.
        """
        if len(self._kinds.all) != self._known:
            self._derive()
        return self._prices[kind]

    def _price(self, weights: dict[Request, float]) -> list[float]:
        capacity = self._kinds.counts()
        prices = [0.0] * len(capacity)
        demand = 0.0
        for request, weight in weights.items():
            asked = weight * request.share * request.devices / WHOLE
            demand += asked
            if not request.types or not request.devices:
                continue
            allowed = [n for n, kind in enumerate(self._kinds.all) if self._kinds.allows(kind, request)]
            there = sum(capacity[n] for n in allowed)
            for number in allowed:
                prices[number] += asked * capacity[number] / there if there else 0.0
        scale = sum(capacity) / demand if demand else 0.0
        return [price * scale / count if count else 0.0 for price, count in zip(prices, capacity, strict=True)]


def state_after(
    state: NodeState, room: int, grant: Grant | None, kinds: Sequence[Kind], host: tuple[int, int]
) -> NodeState:
    """The state of a node after something was placed into one of its rooms (room < 0: on the host only)."""
    rooms = state.rooms
    if room >= 0 and grant is not None:
        one = rooms[room]
        left = one._replace(share=one.share - grant.share, memory=one.memory - grant.memory)
        if grant.spans:
            span = best_in_room(kinds[one.kind].profiles, grant.spans, one.places, one.quiet_places)
            left = left._replace(places=one.places & ~span)
        rooms = tuple(sorted((*rooms[:room], left, *rooms[room + 1 :])))
    cores, host_memory = host_levels((state.cores - host[0], state.memory - host[1])) if any(host) else state[:2]
    return NodeState(cores, host_memory, state.quiet_cores, state.quiet_memory, rooms)
