"""What a place is worth to a request: the options a node in some state offers, rated by a policy.

``Policy`` is what ``policies/`` fills in, ``Option`` what it sees, ``Scorer`` what makes
options of a node's state.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flexray.core.books import Room
from flexray.core.landscape import CORE_LEVELS, MEMORY_LEVELS, NodeState, host_levels
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
    """Scores the state of a node for one shape of request, by one policy."""

    def __init__(self, pool: Pool, request: Request, policy: Policy, speeds: Mapping[str, float]) -> None:
        self._request, self._policy, self._speeds = request, policy, speeds
        self._kinds, self._mix = pool.kinds.all, pool.mix
        self._allowed = [pool.kinds.allows(kind, request) for kind in self._kinds]
        self._needs = [
            memory_needed(request, kind.type.memory) if allowed else None
            for kind, allowed in zip(self._kinds, self._allowed, strict=True)
        ]
        present = pool.kinds.present()
        self._largest = max((kind.type.memory for kind in present), default=1)
        self._fastest = max((kind.type.speed for kind in present), default=1e-9)
        self._weight = 1.0 if policy.additive else sum(policy.weights.values())

    def score(self, state: NodeState) -> Scored | None:
        """The best way to use a node in this state; None where the request cannot fit."""
        request = self._request
        if not (_may_cover(CORE_LEVELS, state.cores, request.cpus)) or not (
            _may_cover(MEMORY_LEVELS, state.memory, request.host_memory)
        ):
            return None
        if not request.devices:
            return self._score_host(state)
        options = self._several(state) if request.devices > 1 else self._single(state)
        scored = [self._rate(option, room) for option, room in options]
        return max(scored, key=lambda one: one.total, default=None)

    def _rate(self, option: Option, room: int) -> Scored:
        terms = self._policy.terms(option)
        weighted = tuple(weight / self._weight * terms[name] for name, weight in self._policy.weights.items())
        total = 1 / (1 + math.exp(-sum(weighted))) if self._policy.squash else sum(weighted)
        return Scored(math.floor(total / self._policy.step + 1e-6) * self._policy.step, weighted, room)

    def _score_host(self, state: NodeState) -> Scored:
        """For host cores and memory only: where it fragments least; else nodes without devices, then the fullest."""
        if self._policy.uses_mix:
            gained, keeps = self._outlook(state, -1, 0)
            return self._rate(Option(0, 0, 0, 0, 0, defragments=gained, keeps=keeps), -1)
        spare = state.cores / CORE_LEVELS[-1]
        return Scored((0.0 if state.rooms else 1.0) - spare, (0.0,) * len(self._policy.weights), -1)

    def _outlook(self, state: NodeState, room: int, memory: int) -> tuple[float, float]:
        """(fragments lost, worth gained) by placing the request into a room of a node."""
        lost = kept = 0.0
        if "defragments" in self._policy.weights:
            lost = self._fragments_lost(state, room, memory)
        if "keeps" in self._policy.weights:
            request = self._request
            cores = state.cores
            if request.cpus:
                cores, _ = host_levels((cores - request.cpus, 0))
            kept = self._mix.worth().change(state, room, (request.share, memory), request.devices, cores)
        return lost, kept

    def _fragments_lost(self, state: NodeState, room: int, memory: int) -> float:
        request = self._request
        after = state_after(state, room, request.share, memory, request.host)
        for _ in range(request.devices - 1):  # whole ones of the same kind: the next is where this one was
            kind = state.rooms[room].kind
            whole = (kind, WHOLE, self._kinds[kind].type.memory)
            again = next(i for i, r in enumerate(after.rooms) if r[:3] == whole)
            after = state_after(after, again, WHOLE, memory, (0, 0))
        return self._mix.fragments(state) - self._mix.fragments(after)

    def _host_quiet(self, state: NodeState) -> bool:
        untouched = (state.quiet_cores, state.quiet_memory) == (state.cores, state.memory)
        return untouched or (
            state.quiet_cores >= self._request.cpus and state.quiet_memory >= self._request.host_memory
        )

    def _single(self, state: NodeState) -> list[tuple[Option, int]]:
        request, options = self._request, []
        host_quiet = self._host_quiet(state)
        before: Room | None = None
        share, needs = request.share, self._needs
        for index, room in enumerate(state.rooms):
            if room[1] < share:  # most rooms of a full pool; by position, which is faster
                continue
            need = needs[room.kind]
            if need is None or room.memory < need or room == before:
                continue
            before, kind = room, self._kinds[room.kind]
            quiet = host_quiet and room.quiet_share >= request.share and room.quiet_memory >= need
            left = ((room.share - request.share) / WHOLE, (room.memory - need) / max(1, kind.type.memory))
            options.append((self._option(state, index, need, *left, quiet=quiet), index))
        return options

    def _several(self, state: NodeState) -> list[tuple[Option, int]]:
        """Whole devices of one kind: how many of that kind are left whole matters."""
        options = []
        host_quiet = self._host_quiet(state)
        for number in {room.kind for room in state.rooms}:
            if not self._allowed[number]:
                continue
            kind = self._kinds[number]
            all_of_kind = [(index, room) for index, room in enumerate(state.rooms) if room.kind == number]
            whole = [(i, r) for i, r in all_of_kind if (r.share, r.memory) == (WHOLE, kind.type.memory)]
            if len(whole) < self._request.devices:
                continue
            left = (len(whole) - self._request.devices) / len(all_of_kind)
            calm = sum((r.quiet_share, r.quiet_memory) == (r.share, r.memory) for _, r in whole)
            quiet = host_quiet and calm >= self._request.devices
            first = whole[0][0]
            need = memory_needed(self._request, kind.type.memory)
            options.append((self._option(state, first, need, left, left, quiet=quiet), first))
        return options

    def _option(
        self, state: NodeState, room: int, need: int, share_left: float, memory_left: float, *, quiet: bool
    ) -> Option:
        number = state.rooms[room].kind
        kind = self._kinds[number].type
        size = kind.memory / self._largest
        speed = self._speeds[kind.name] if self._policy.uses_speed else kind.speed / self._fastest
        if not self._policy.uses_mix:
            return Option(share_left, memory_left, size, speed, float(not quiet))
        taken = self._request.share * self._request.devices / WHOLE
        scarcity = self._mix.scarcity(number) * taken
        gained, keeps = self._outlook(state, room, need)
        return Option(share_left, memory_left, size, speed, float(not quiet), gained, scarcity, keeps)


def _may_cover(levels: tuple[int, ...], level: int, need: int) -> bool:
    """Whether an amount that was rounded down to a level may be as much as needed."""
    if level >= need or level == levels[-1]:
        return True
    return levels[bisect_right(levels, level)] > need
