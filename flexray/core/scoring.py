"""What a place is worth to a request: the options a node in some state offers, rated by a policy.

``Policy`` is what ``policies/`` fills in, ``Option`` what it sees, ``Scorer`` what makes
options of a node's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from flexray.core.landscape import CORE_LEVELS, NodeClass, host_levels
from flexray.core.mix import state_after
from flexray.core.ranking import Scored
from flexray.model.amounts import WHOLE
from flexray.model.request import Request, memory_needed

if TYPE_CHECKING:
    from flexray.core.placement import Pool


class Option(NamedTuple):
    """A place as a policy sees it; everything within [0, 1].

    Attributes:
        share_left: part of the device's share (or of the node's devices) left after placing.
        memory_left: the same for device memory.
        memory_size: device memory relative to the largest device of the pool.
        speed: nominal speed relative to the fastest device of the pool; where the policy uses it, that of the
            task's class relative to the fastest type it may use.
        disturbs: 1 where a warm idle slice would have to stop.
        defragments: devices' worth of fragments (see ``mix.py``) that the node loses; below 0, that it gains.
        keeps: change of what the node's rests are worth to what arrives (see ``worth.py``), in devices.
        scarcity: demand for such devices by those who have no choice, times the devices' worth taken.
    """

    share_left: float
    memory_left: float
    memory_size: float
    speed: float
    disturbs: float
    defragments: float = 0.0
    scarcity: float = 0.0
    keeps: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """A named way to score: weights of terms, and the pure function that computes them from an Option.

    The total is the weighted mean of the terms, rounded down to a multiple of ``step``. Places whose total is at most
    ``band`` below the best are ties, decided by the keyed hash of the node's id.

    Attributes:
        additive: take the sum of the terms, which is in devices' worth, instead of their mean.
        squash: then take the logistic function of it.
        uses_mix: whether ``defragments``, ``scarcity`` or ``keeps`` is needed.
        uses_speed: whether ``speed`` is that of the task's class, as measured, instead of the catalog's.
    """

    name: str
    weights: Mapping[str, float]
    terms: Callable[[Option], Mapping[str, float]]
    step: float = 1e-9
    band: float = 0.0
    additive: bool = False
    squash: bool = False
    uses_mix: bool = False
    uses_speed: bool = False


class Scorer:
    """Scores classes of nodes for one shape of request, by one policy, within one epoch of the mix."""

    def __init__(self, pool: Pool, request: Request, policy: Policy, speeds: Mapping[str, float]) -> None:
        self._request, self._policy = request, policy
        self._kinds, self._mix = pool.kinds.all, pool.mix
        self._needs = [
            memory_needed(request, kind.type.memory) if pool.kinds.allows(kind, request) else None
            for kind in self._kinds
        ]
        #: a host amount was rounded down to a level: it may be enough from the level of what is needed on.
        self._least = host_levels(request.host)
        #: the level of host cores after placing, by the level before.
        self._cores_after: dict[int, int] = {}
        present = pool.kinds.present()
        largest = max((kind.type.memory for kind in present), default=1)
        fastest = max((kind.type.speed for kind in present), default=1e-9)
        self._sizes = [kind.type.memory / largest for kind in self._kinds]
        self._speeds = [
            speeds.get(kind.type.name, 0.0) if policy.uses_speed else kind.type.speed / fastest for kind in self._kinds
        ]
        taken = request.share * request.devices / WHOLE
        self._scarcity = [pool.mix.scarcity(n) * taken if policy.uses_mix else 0.0 for n in range(len(self._kinds))]
        weight = 1.0 if policy.additive else sum(policy.weights.values())
        self._weights = [(name, one / weight) for name, one in policy.weights.items()]
        self._worth = pool.mix.worth() if "keeps" in policy.weights else None
        self._counts_fragments = "defragments" in policy.weights

    def score(self, found: NodeClass) -> Scored | None:
        """The best way to use a node of this class; None where the request cannot fit."""
        state = found.state
        if state.cores < self._least[0] or state.memory < self._least[1]:
            return None
        devices = self._request.devices
        if not devices:
            return self._score_host(found)
        best: Scored | None = None
        for option, room in self._several(found) if devices > 1 else self._single(found):
            scored = self._rate(option, room)
            if best is None or scored.total > best.total:
                best = scored
        return best

    def _rate(self, option: Option, room: int) -> Scored:
        terms, policy = self._policy.terms(option), self._policy
        weighted = [weight * terms[name] for name, weight in self._weights]
        total = sum(weighted)
        if policy.squash:
            total = 1 / (1 + math.exp(-total))
        return Scored(math.floor(total / policy.step + 1e-6) * policy.step, tuple(weighted), room)

    def _score_host(self, found: NodeClass) -> Scored:
        """For host cores and memory only: where it fragments least; else nodes without devices, then the fullest."""
        if self._policy.uses_mix:
            gained, keeps = self._outlook(found, -1, 0)
            return self._rate(Option(0, 0, 0, 0, 0, defragments=gained, keeps=keeps), -1)
        spare = found.state.cores / CORE_LEVELS[-1]
        return Scored((0.0 if found.rooms else 1.0) - spare, (0.0,) * len(self._weights), -1)

    def _outlook(self, found: NodeClass, room: int, memory: int) -> tuple[float, float]:
        """(fragments lost, worth gained) by placing the request into a room of a node."""
        lost = self._fragments_lost(found, room, memory) if self._counts_fragments else 0.0
        if self._worth is None:
            return lost, 0.0
        request, before = self._request, found.state.cores
        cores = self._cores_after.get(before)
        if cores is None:
            cores = self._cores_after[before] = host_levels((before - request.cpus, 0))[0]
        return lost, self._worth.change(found, room, (request.share, memory), request.devices, cores)

    def _fragments_lost(self, found: NodeClass, room: int, memory: int) -> float:
        request, state = self._request, found.state
        after = state_after(state, room, request.share, memory, request.host)
        for _ in range(request.devices - 1):  # whole ones of the same kind: the next is where this one was
            kind = state.rooms[room].kind
            whole = (kind, WHOLE, self._kinds[kind].type.memory)
            again = next(i for i, r in enumerate(after.rooms) if r[:3] == whole)
            after = state_after(after, again, WHOLE, memory, (0, 0))
        return self._mix.fragments(state) - self._mix.fragments(after)

    def _host_quiet(self, found: NodeClass) -> bool:
        state = found.state
        untouched = (state.quiet_cores, state.quiet_memory) == (state.cores, state.memory)
        return untouched or (
            state.quiet_cores >= self._request.cpus and state.quiet_memory >= self._request.host_memory
        )

    def _single(self, found: NodeClass) -> Iterator[tuple[Option, int]]:
        share, needs, host_quiet = self._request.share, self._needs, self._host_quiet(found)
        for index, room, _ in found.rooms:
            number, there, memory, quiet_share, quiet_memory = room
            need = needs[number]
            if there < share or need is None or memory < need:
                continue
            quiet = host_quiet and quiet_share >= share and quiet_memory >= need
            size = max(1, self._kinds[number].type.memory)
            yield self._option(found, index, need, (there - share) / WHOLE, (memory - need) / size, quiet=quiet), index

    def _several(self, found: NodeClass) -> Iterator[tuple[Option, int]]:
        """Whole devices of one kind: how many of that kind are left whole matters."""
        wanted, host_quiet = self._request.devices, self._host_quiet(found)
        for number, rooms in groupby(found.rooms, key=lambda entry: entry[1].kind):
            need, whole_memory = self._needs[number], self._kinds[number].type.memory
            if need is None:
                continue
            total = whole = calm = 0
            first = -1
            for index, room, count in rooms:
                total += count
                if room.share == WHOLE and room.memory == whole_memory:
                    first = index if first < 0 else first
                    whole += count
                    calm += count * ((room.quiet_share, room.quiet_memory) == (room.share, room.memory))
            if whole >= wanted:
                left, quiet = (whole - wanted) / total, host_quiet and calm >= wanted
                yield self._option(found, first, need, left, left, quiet=quiet), first

    def _option(
        self, found: NodeClass, room: int, need: int, share_left: float, memory_left: float, *, quiet: bool
    ) -> Option:
        number = found.state.rooms[room].kind
        size, speed, disturbs = self._sizes[number], self._speeds[number], 0.0 if quiet else 1.0
        if not self._policy.uses_mix:
            return Option(share_left, memory_left, size, speed, disturbs)
        lost, keeps = self._outlook(found, room, need)
        return Option(share_left, memory_left, size, speed, disturbs, lost, self._scarcity[number], keeps)
