"""What a class of nodes cannot say of a particular place: who is there already, what lies near, how devices are linked.

    company   - what the request would lose beside the residents of a device, and they beside it (``company.py``),
                as part of the request's own share
    near      + part of the request's large arguments that the node holds; counts fully from a GiB on
    linked    + how well several devices are connected with each other (``links.py``)

Nodes are looked at best class first. A look is worth its time only where something is known, so most
requests take the best class's first node and never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from flexray.core.fixed_parts import granted
from flexray.core.inhabitants import Placed
from flexray.core.landscape import NodeClass
from flexray.core.links import best_linked, linked
from flexray.core.policy import Policy
from flexray.core.ranking import Scored
from flexray.model.amounts import WHOLE
from flexray.model.devices import Device
from flexray.model.request import Request

if TYPE_CHECKING:
    from flexray.core.placement import Pool

#: So many nodes are looked at for one request.
_MOST_NODES = 32
#: Arguments of so many MiB count fully: about a second on a network of 10 Gbit/s.
_FULL_MIB = 1024

Near = tuple[tuple[str, int], ...]
"""(node, MiB of the request's arguments there)."""


class Spot(NamedTuple):
    """A particular place: its total, what the policy saw of its class, devices, and the weighted terms of its own."""

    total: float
    scored: Scored
    node: str
    devices: tuple[Device, ...]
    terms: dict[str, float]

    @classmethod
    def of(cls, scored: Scored, node: str, devices: tuple[Device, ...]) -> Spot:
        """A place of which nothing is known beyond its class."""
        return cls(scored.total, scored, node, devices, {})


class Wishes:
    """What one request looks for in particular places."""

    def __init__(self, pool: Pool, request: Request, policy: Policy, task_class: str, near: Near) -> None:
        self._pool, self._request, self._policy, self._task_class = pool, request, policy, task_class
        weights = policy.weights
        self._near = self._worth_of(near, weights.get("near", 0.0)) if near else {}
        shared = request.devices == 1 and request.share < WHOLE
        self._company = weights.get("company", 0.0) if shared and pool.company.knows(task_class) else 0.0
        several = request.devices > 1 and pool.kinds.linked
        self._linked = weights.get("linked", 0.0) if several else 0.0

    def _worth_of(self, near: Near, weight: float) -> dict[str, float]:
        """By node, what its part of the arguments adds."""
        total = sum(mib for _, mib in near)
        worth = weight * min(1.0, total / _FULL_MIB) / total if total else 0.0
        members = self._pool.landscape.members
        return {node: worth * mib for node, mib in near if worth and members(node) is not None}

    def __bool__(self) -> bool:
        return bool(self._near or self._company or self._linked)

    def choose(
        self,
        ranked: Iterator[tuple[str, NodeClass, Scored]],
        scored_of: Callable[[NodeClass], Scored | None],
        options: Callable[[NodeClass], Sequence[Scored]],
        accepts: Callable[[str], bool],
    ) -> Spot | None:
        """The best place; of those within the policy's band of each other the one that comes first.

        Args:
            ranked: nodes that take the request, best class first.
            scored_of: what a class is worth to the request.
            options: every way in which a node of a class may be used.
            accepts: whether a node takes the request.
        """
        best: Spot | None = None
        most, band = sum(self._near.values()) + self._linked, self._policy.band
        for node in self._near:  # few, and wherever they rank
            found = self._pool.landscape.members(node)
            scored = scored_of(found) if found is not None and accepts(node) else None
            if found is not None and scored is not None:
                best = self._better(best, self._spots(node, found, [scored]), band)
        for looked, (node, found, scored) in enumerate(ranked):
            if looked >= _MOST_NODES or (best is not None and scored.total + most <= best.total + band):
                break
            if node not in self._near:
                ways = options(found) if self._company else [scored]
                best = self._better(best, self._spots(node, found, ways), band)
        return best

    @staticmethod
    def _better(best: Spot | None, spots: Iterable[Spot], band: float) -> Spot | None:
        for spot in spots:
            if best is None or spot.total > best.total + band:
                best = spot
        return best

    def _spots(self, node: str, found: NodeClass, ways: Sequence[Scored]) -> Iterator[Spot]:
        near = self._near.get(node, 0.0)
        for scored in sorted(ways, key=lambda one: -one.total):
            for devices in self._sets(node, found, scored):
                terms = {"company": 0.0, "near": near, "linked": 0.0}
                if self._company:
                    terms["company"] = -self._company * self._lost(devices[0])
                if self._linked:
                    terms["linked"] = self._linked * linked(devices, self._pool.kinds.on_node(node))
                yield Spot(scored.total + sum(terms.values()), scored, node, devices, terms)

    def _sets(self, node: str, found: NodeClass, scored: Scored) -> list[tuple[Device, ...]]:
        if self._company:
            there = alike(self._pool, node, found, scored.room)
            return [(one.device,) for one in sorted(there, key=lambda one: one.row.rank)]
        return [devices_of(self._pool, self._request, node, found, scored.room)]

    def _lost(self, device: Device) -> float:
        grant = granted(self._request, device.type.memory, device.profiles)
        share = self._request.share if grant is None else grant.share
        lost = self._pool.company.loss(self._task_class, share, self._pool.residents(device.id))
        return lost * WHOLE / share


def alike(pool: Pool, node: str, found: NodeClass, room: int) -> list[Placed]:
    """The devices of a node that have just such a room."""
    wanted = found.state.rooms[room]
    return [one for one in pool.kinds.ready(node) if (one.row.seen or one.row.room(one.kind)) == wanted]


def devices_of(pool: Pool, request: Request, node: str, found: NodeClass, room: int) -> tuple[Device, ...]:
    """The devices to use in a room of a node: the one of lowest rank, or the whole ones that disturb least and are
    linked best."""
    if room < 0:
        return ()
    if request.devices == 1:
        return (min(alike(pool, node, found, room), key=lambda one: one.row.rank).device,)
    kind, count = found.state.rooms[room].kind, request.devices
    whole = [one for one in pool.kinds.ready(node) if one.kind == kind and one.row.reachable() == one.row.total]
    calm = [one.device for one in whole if one.row.uncontested() == one.row.total]
    if len(calm) >= count:
        return best_linked(calm, count)
    disturbed = sorted((one.device for one in whole if one.device not in calm), key=lambda device: device.index)
    return tuple(sorted([*calm, *disturbed[: count - len(calm)]], key=lambda device: device.index))
