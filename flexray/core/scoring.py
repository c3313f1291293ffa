"""What a place is worth to a request: the options a node in some state offers, rated by a policy.

``Policy`` (``policy.py``) is what ``policies/`` fills in, ``Option`` what it sees, ``Scorer``
what makes options of a node's state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from flexray.core.fixed_parts import Grant
from flexray.core.landscape import CORE_LEVELS, NodeClass, host_levels
from flexray.core.mix import state_after
from flexray.core.policy import Option, Policy, Rating
from flexray.core.ranking import Scored
from flexray.model.amounts import WHOLE
from flexray.model.request import Request

if TYPE_CHECKING:
    from flexray.core.placement import Pool


class Scorer:
    """Scores classes of nodes for one shape of request, by one policy, within one epoch of the mix."""

    def __init__(
        self,
        pool: Pool,
        request: Request,
        policy: Policy,
        rating: Rating,
        speeds: Mapping[str, float],
    ) -> None:
        self._request, self._policy, self._rate = request, policy, rating.total
        self._kinds, self._mix = pool.kinds.all, pool.mix
        #: by kind: what is granted there.
        self._grants = [pool.kinds.grant(kind, request) if request.devices else None for kind in self._kinds]
        self._needs = [None if one is None else one.memory for one in self._grants]
        self._shares = [WHOLE if one is None else one.share for one in self._grants]
        self._cut = [bool(one is not None and one.spans) for one in self._grants]
        #: what needs more is refused at a glance.
        self.least_share = min((one.share for one in self._grants if one is not None), default=0)
        #: a host amount was rounded down to a level: it may be enough from the level of what is needed on.
        self._least = host_levels(request.host)
        #: the level of host cores after placing, by the level before.
        self._cores_after: dict[int, int] = {}
        present = pool.kinds.present()
        largest = max((kind.type.memory for kind in present), default=1)
        fastest = max((kind.type.speed for kind in present), default=1e-9)
        self._per_mib = [1 / max(1, kind.type.memory) for kind in self._kinds]
        self._sizes = [kind.type.memory / largest for kind in self._kinds]
        self._speeds = [
            speeds.get(kind.type.name, 0.0) if policy.uses_speed else kind.type.speed / fastest for kind in self._kinds
        ]
        taken = [share * request.devices / WHOLE for share in self._shares]
        self._scarcity = [pool.mix.scarcity(n) * one if policy.uses_mix else 0.0 for n, one in enumerate(taken)]
        self._worth = pool.mix.worth() if policy.uses_mix and "keeps" in policy.weights else None
        self._counts_fragments = policy.uses_mix and "defragments" in policy.weights
        #: by kind: no place on such a device is worth more.
        self._most = [self._most_of(number, rating) for number in range(len(self._kinds))]

    def most(self, found: NodeClass) -> float:
        """A bound of the score of a class, at little cost; -infinity where the request cannot fit for sure."""
        if not self._request.devices:
            return math.inf
        state, rooms = found.state, found.state.rooms
        if not rooms or state.cores < self._least[0] or state.memory < self._least[1]:
            return -math.inf
        first, last, devices = rooms[0].kind, rooms[-1].kind, self._request.devices  # rooms are sorted
        if first != last:
            return max(self._most[first : last + 1])
        if devices > 1 and (len(rooms) < devices or rooms[-devices].share < WHOLE):
            return -math.inf
        return self._most[first]

    def _most_of(self, number: int, rating: Rating) -> float:
        if self._needs[number] is None:
            return -math.inf
        keeps = self._worth.most(number, self._request.devices) if self._worth is not None else 0.0
        fixed = (self._sizes[number], self._speeds[number])
        return rating.most(Option(0.0, 0.0, *fixed, 0.0, scarcity=self._scarcity[number], keeps=keeps))

    def score(self, found: NodeClass) -> Scored | None:
        """The best way to use a node of this class; None where the request cannot fit."""
        options = self.options(found)
        if len(options) < 2:
            return options[0] if options else None
        return max(options, key=lambda one: one.total)

    def options(self, found: NodeClass) -> list[Scored]:
        """Every way to use a node of this class."""
        state, devices = found.state, self._request.devices
        if state.cores < self._least[0] or state.memory < self._least[1]:
            return []
        if not devices:
            return [self._score_host(found)]
        return self._several(found) if devices > 1 else self._single(found)

    def _score_host(self, found: NodeClass) -> Scored:
        """For host cores and memory only: where it fragments least; else nodes without devices, then the fullest."""
        if self._policy.uses_mix:
            lost = self._fragments_lost(found, -1, None) if self._counts_fragments else 0.0
            option = Option(0, 0, 0, 0, 0, defragments=lost, keeps=self._keeps(found, -1, None))
            return Scored(self._rate(option), option, -1)
        spare = found.state.cores / CORE_LEVELS[-1]
        return Scored((0.0 if found.rooms else 1.0) - spare, None, -1)

    def _keeps(self, found: NodeClass, room: int, grant: Grant | None) -> float:
        """Worth gained by placing the request into a room of a node."""
        if self._worth is None:
            return 0.0
        request, before = self._request, found.state.cores
        cores = self._cores_after.get(before)
        if cores is None:
            cores = self._cores_after[before] = host_levels((before - request.cpus, 0))[0]
        return self._worth.change(found, room, grant, request.devices, cores)

    def _fragments_lost(self, found: NodeClass, room: int, grant: Grant | None) -> float:
        request, state = self._request, found.state
        after = state_after(state, room, grant, self._kinds, request.host)
        for _ in range(request.devices - 1):  # whole ones of the same kind: the next is where this one was
            kind = state.rooms[room].kind
            whole = (kind, WHOLE, self._kinds[kind].type.memory)
            again = next(i for i, r in enumerate(after.rooms) if r[:3] == whole)
            after = state_after(after, again, grant, self._kinds, (0, 0))
        return self._mix.fragments(state) - self._mix.fragments(after)

    def _host_quiet(self, found: NodeClass) -> bool:
        request, state = self._request, found.state
        return state.quiet_cores >= request.cpus and state.quiet_memory >= request.host_memory

    def _single(self, found: NodeClass) -> list[Scored]:
        shares, needs, cut = self._shares, self._needs, self._cut
        host_quiet = found.calm or self._host_quiet(found)
        options = []
        for index, room, _ in found.rooms:
            number, there, memory, quiet_share, quiet_memory, _, _ = room
            share, need = shares[number], needs[number]
            if there < share or need is None or memory < need:
                continue
            quiet = host_quiet and quiet_share >= share and quiet_memory >= need
            if cut[number]:
                grant = self._grants[number]
                if grant is None or not grant.fits(room.places):
                    continue
                quiet = quiet and grant.fits(room.quiet_places)
            left = ((there - share) / WHOLE, (memory - need) * self._per_mib[number])
            options.append(self._scored(found, index, number, left, 0.0 if quiet else 1.0))
        return options

    def _several(self, found: NodeClass) -> list[Scored]:
        """Whole devices of one kind: how many of that kind are left whole matters."""
        wanted, host_quiet = self._request.devices, found.calm or self._host_quiet(found)
        options = []
        for number, rooms in groupby(found.rooms, key=lambda entry: entry[1].kind):
            need, whole_memory = self._needs[number], self._kinds[number].type.memory
            if need is None:
                continue
            whole = calm = 0
            first = -1
            for index, room, count in rooms:
                if room.share == WHOLE and room.memory == whole_memory:
                    first = index if first < 0 else first
                    whole += count
                    calm += count * ((room.quiet_share, room.quiet_memory) == (room.share, room.memory))
            if whole >= wanted:
                left = (whole - wanted) / whole
                disturbs = 0.0 if host_quiet and calm >= wanted else 1.0
                options.append(self._scored(found, first, number, (left, left), disturbs))
        return options

    def _scored(self, found: NodeClass, room: int, number: int, left: tuple[float, float], disturbs: float) -> Scored:
        grant = self._grants[number]
        lost = self._fragments_lost(found, room, grant) if self._counts_fragments else 0.0
        fixed = (self._sizes[number], self._speeds[number])
        option = Option(*left, *fixed, disturbs, lost, self._scarcity[number], self._keeps(found, room, grant))
        return Scored(self._rate(option), option, room)
