"""Where a request could go: filter, then score. Changes nothing.

``Pool`` joins the books of devices and nodes with what the devices are; ``place``
returns the best Placement with its score, or None.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flexray.core.books import Amounts, Books, Room
from flexray.core.inhabitants import Kinds
from flexray.core.landscape import CORE_LEVELS, MEMORY_LEVELS, Landscape, NodeState, host_levels
from flexray.core.mix import Mix, state_after
from flexray.core.ranking import Ranking, Scored
from flexray.core.speeds import Speeds
from flexray.model.amounts import WHOLE, MemoryMiB
from flexray.model.devices import Device, DeviceState, Inventory, Isolation
from flexray.model.lease import Placement
from flexray.model.lifecycle import FilterReason, WaitReason
from flexray.model.request import Request, memory_needed


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


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement and the weighted, normalised terms that chose it."""

    placement: Placement
    scores: tuple[tuple[str, float], ...]


class Pool:
    """The devices and nodes of the pool, their books, and what is derived from them."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.nodes: dict[str, Inventory] = {}
        self.books = Books()
        self.host = Books()
        self.kinds = Kinds(self)
        self.mix = Mix(self.kinds)
        self.speeds = Speeds()
        self.landscape = Landscape(self.host, self._rooms_of)
        self._rankings: dict[tuple[object, ...], Ranking] = {}
        self._speeds: dict[tuple[object, ...], tuple[tuple[int, int], dict[str, float]]] = {}

    # -- what there is ----------------------------------------------------------------------

    def changed(self, node: str) -> None:
        """Forget what was derived from the inventory. Call after any change of a node or its devices."""
        self.kinds.forget()
        self.mix.inventory_changed()
        self.landscape.touch(node)
        self._rankings.clear()
        self._speeds.clear()

    def add_device(self, device: Device) -> None:
        """A new device, or a new description of a known one."""
        if device.id not in self.devices:
            self.books.add(device.id, (WHOLE, device.type.memory))
        self.books.resize(device.id, (WHOLE, device.type.memory))
        self.devices[device.id] = device
        self.kinds.add(device)
        self.changed(device.node)

    def retire_device(self, name: str) -> None:
        """A device that has left while slices were on it: unusable until they have ended."""
        self.add_device(dataclasses.replace(self.devices[name], state=DeviceState.SICK))

    def remove_device(self, name: str) -> None:
        """Drop a device that nothing holds."""
        self.books.remove(name)
        device = self.devices.pop(name)
        self.kinds.remove(device)
        self.changed(device.node)

    def saw(self, request: Request) -> None:
        """A request has arrived: learn the mix of shapes from it."""
        if self.mix.saw(request):
            self.mix.swap()
            self._rankings.clear()
            self._speeds.clear()

    def kind_of(self, placement: Placement) -> tuple[str, Isolation]:
        """Device type and isolation of a place; of one without devices, ``host`` and none."""
        if not placement.devices:
            return "host", Isolation.NONE
        device = self.devices[placement.devices[0]]
        return device.type.name, device.isolation

    def _rooms_of(self, node: str) -> list[Room]:
        return [row.room(kind) for _, row, kind in self.kinds.ready(node)]

    # -- why not -----------------------------------------------------------------------------

    def removed_by(self, request: Request) -> Counter[FilterReason]:
        """How many devices (of a request without devices: nodes) each reason rules out for good."""
        return self.kinds.filter(request)[1]

    def ever_fits(self, request: Request) -> bool:
        """Whether the present inventory could hold the request if nothing else ran."""
        return self.kinds.filter(request)[0]

    def why_not_now(self, request: Request) -> tuple[WaitReason, Counter[str]]:
        """Why no feasible device takes the request now, and how many devices each reason rules out."""
        if not request.devices:
            return WaitReason.HOST_CPUS, Counter({WaitReason.HOST_CPUS.value: len(self.host)})
        if not self.books.rows:
            return WaitReason.NO_DEVICES, Counter()
        busy: Counter[str] = Counter()
        spare, least = [0, 0], 0
        for device in self.kinds.feasible_devices(request):
            row, need = self.books.rows[device.id], memory_needed(request, device.type.memory)
            if device.state is not DeviceState.READY:
                sick = device.state is DeviceState.SICK
                busy[(WaitReason.DEVICES_SICK if sick else WaitReason.USED_BY_RAY).value] += 1
                continue
            reach = row.reachable()
            spare = [spare[0] + reach[0], spare[1] + reach[1]]
            least = min(least or need, need)
            if not (reach == row.total if request.devices > 1 else _covers(reach, (request.share, need))):
                busy[WaitReason.NO_ROOM.value] += 1
            elif not _covers(self.host.rows[device.node].reachable(), request.host):
                busy[WaitReason.HOST_CPUS.value] += 1
        if not busy:
            return WaitReason.NEXT_CYCLE, Counter()
        order = [WaitReason.USED_BY_RAY, WaitReason.DEVICES_SICK, WaitReason.NO_ROOM, WaitReason.HOST_CPUS]
        reason = max(order, key=lambda one: busy[one.value])
        enough = spare[0] >= request.share * request.devices and spare[1] >= least
        return (WaitReason.FRAGMENTED if reason is WaitReason.NO_ROOM and enough else reason), busy

    # -- where --------------------------------------------------------------------------------

    def speeds_for(self, task_class: str, request: Request) -> dict[str, float]:
        """Speeds of a class of tasks on the types there are, relative to the fastest the request may use.

        In steps of a fiftieth, so that learning does not make every score new.
        """
        key = (task_class, request.shape, request.throughput)
        version = self.speeds.version(task_class)
        known = self._speeds.get(key)
        if known is None or known[0] != version:
            allowed = [kind.type for kind in self.kinds.present() if self.kinds.allows(kind, request)]
            nominal = {kind.name: kind.speed for kind in allowed}
            exact = self.speeds.relative(task_class, nominal, request.throughput)
            known = self._speeds[key] = (version, {name: round(speed * 50) / 50 for name, speed in exact.items()})
        return known[1]

    def place(self, request: Request, policy: Policy, task_class: str = "") -> Choice | None:
        """The best place the request fits now (counting idle slices as room), or None."""
        self.landscape.refresh()
        speeds = self.speeds_for(task_class, request) if policy.uses_speed else {}
        key = (policy.name, *request.shape, *speeds.items())
        ranking = self._rankings.get(key)
        if ranking is None:
            scorer = Scorer(self, request, policy, speeds)
            ranking = self._rankings[key] = Ranking(self.landscape, scorer.score, policy.band)
        found = ranking.best(lambda node: _covers(self.host.rows[node].reachable(), request.host))
        if found is None:
            return None
        node, scored = found
        scores = tuple(zip(policy.weights, scored.terms, strict=True))
        return Choice(self._placement(request, node, scored.room), scores)

    def _placement(self, request: Request, node: str, room: int) -> Placement:
        if room < 0:
            return Placement(node, (), request.share, MemoryMiB(0))
        found = self.landscape.members(node)
        assert found is not None
        wanted = found.state.rooms[room]
        ready = self.kinds.ready(node)
        if request.devices == 1:
            alike = [one for one in ready if one.kind == wanted.kind and one.row.room(one.kind) == wanted]
            device = min(alike, key=lambda one: one.row.rank).device
            return Placement(node, (device.id,), request.share, request.memory_on(device))
        whole = [one for one in ready if one.kind == wanted.kind and one.row.reachable() == one.row.total]
        whole.sort(key=lambda one: (one.row.uncontested() != one.row.total, one.device.index))
        chosen = sorted((one.device for one in whole[: request.devices]), key=lambda d: d.index)
        return Placement(node, tuple(d.id for d in chosen), request.share, request.memory_on(chosen[0]))


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
            return self._rate(Option(0, 0, 0, 0, 0, gained, 0, keeps), -1)
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


def _covers(amounts: Amounts, need: tuple[int, int]) -> bool:
    return amounts[0] >= need[0] and amounts[1] >= need[1]


def _may_cover(levels: tuple[int, ...], level: int, need: int) -> bool:
    """Whether an amount that was rounded down to a level may be as much as needed."""
    if level >= need or level == levels[-1]:
        return True
    return levels[bisect_right(levels, level)] > need
