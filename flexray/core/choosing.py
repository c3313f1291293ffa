"""Where a request goes: the best class of nodes by the policy's score, then the best place of it. Changes nothing."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flexray.core.books import Amounts
from flexray.core.places import Near, Spot, Wishes, devices_of
from flexray.core.policy import Policy, Rating
from flexray.core.ranking import Ranking
from flexray.core.scoring import Scorer
from flexray.errors import InternalError
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.lease import Placement
from flexray.model.request import Request

if TYPE_CHECKING:
    from flexray.core.placement import Pool


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement, and why it was chosen."""

    placement: Placement
    policy: Policy
    spot: Spot

    @property
    def scores(self) -> tuple[tuple[str, float], ...]:
        """The weighted, normalised terms; found when somebody asks, since few do."""
        option = self.spot.scored.option
        terms = self.policy.weighted(option) if option is not None else {}
        terms.update(self.spot.terms)
        return tuple([(name, terms.get(name, 0.0)) for name in self.policy.weights])


class Pace(NamedTuple):
    """By type, a task class's speed relative to the fastest, and the seconds a task takes; as of a version."""

    version: tuple[int, int]
    speeds: dict[str, float]
    likely: dict[str, float]
    seconds: dict[str, float]


class Rated(NamedTuple):
    """The ranking of a shape, and what made its scores."""

    ranking: Ranking
    scorer: Scorer


class Chooser:
    """Places requests, and remembers scores as long as they hold."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rankings: dict[tuple[object, ...], Rated] = {}
        self._ratings: dict[str, Rating] = {}
        #: by task class and shape: what was learnt of the class, and the ranking made with it, as of some version.
        self._paces: dict[tuple[object, ...], Pace] = {}
        self._latest: dict[tuple[object, ...], tuple[tuple[int, int], Rated]] = {}

    def forget(self) -> None:
        """The inventory or the mix has changed: every score is stale."""
        self._rankings.clear()
        self._paces.clear()
        self._latest.clear()

    def speeds_for(self, task_class: str, request: Request) -> dict[str, float]:
        """Speeds of a class of tasks on the types there are, relative to the fastest the request may use.

        In steps of a fiftieth, so that learning does not make every score new.
        """
        return self._pace(task_class, request).speeds

    def likely_speeds(self, task_class: str, request: Request) -> dict[str, float]:
        """The same for work that runs already, exactly: what little is known of a type is no reason to move there."""
        return self._pace(task_class, request).likely

    def seconds_for(self, task_class: str, request: Request) -> dict[str, float]:
        """How long a task of a class is expected to take on the types there are; {} where nothing is known of it."""
        if request.runtime is None and not self._pool.speeds.knows(task_class):
            return {}
        return self._pace(task_class, request).seconds

    def declared_on(self, request: Request, kind: str) -> float | None:
        """How long its user says that a task takes on a type, whatever was measured; None: says nothing."""
        if request.runtime is None:
            return None
        kinds = self._pool.kinds
        nominal = {one.type.name: one.type.speed for one in kinds.present() if kinds.allows(one, request)}
        return self._pool.speeds.seconds("", nominal, request.throughput, request.runtime).get(kind, request.runtime)

    def _pace(self, task_class: str, request: Request) -> Pace:
        key = (task_class, request.shape, request.throughput, request.runtime)
        learnt, kinds = self._pool.speeds, self._pool.kinds
        version = learnt.version(task_class)
        known = self._paces.get(key)
        if known is None or known.version != version:
            nominal = {kind.type.name: kind.type.speed for kind in kinds.present() if kinds.allows(kind, request)}
            exact = learnt.relative(task_class, nominal, request.throughput)
            speeds = {name: round(speed * 50) / 50 for name, speed in exact.items()}
            seconds = learnt.seconds(task_class, nominal, request.throughput, request.runtime)
            likely = learnt.likely(task_class, nominal, request.throughput)
            known = self._paces[key] = Pace(version, speeds, likely, seconds)
        return known

    def place(
        self,
        request: Request,
        policy: Policy,
        task_class: str = "",
        near: Near = (),
        without: Container[str] = (),
    ) -> Choice | None:
        """The best place the request fits now (counting idle slices as room), or None.

        Args:
            near: (node, MiB there) of nodes that hold large arguments.
            without: nodes that will not do.
        """
        pool = self._pool
        pool.landscape.refresh()
        ranking, scorer = self._rated(request, policy, task_class)
        host, need = pool.host.rows, request.host

        def accepts(node: str) -> bool:
            return node not in without and covers(host[node].reachable(), need)

        wishes = Wishes(pool, request, policy, task_class, near)
        if wishes:
            spot = wishes.choose(ranking.ranked(accepts), ranking.scored, scorer.options, accepts)
        else:
            first = next(ranking.ranked(accepts), None)
            spot = first and Spot.of(first[2], first[0], devices_of(pool, request, first[0], first[1], first[2].room))
        return None if spot is None else Choice(_placement(pool, request, spot), policy, spot)

    def place_on(self, request: Request, policy: Policy, node: str, task_class: str = "") -> Choice | None:
        """The best place on one node, or None."""
        pool = self._pool
        pool.landscape.refresh()
        found = pool.landscape.members(node)
        if found is None or not covers(pool.host.rows[node].reachable(), request.host):
            return None
        scored = self._rated(request, policy, task_class).ranking.scored(found)
        if scored is None:
            return None
        spot = Spot.of(scored, node, devices_of(pool, request, node, found, scored.room))
        return Choice(_placement(pool, request, spot), policy, spot)

    def _rated(self, request: Request, policy: Policy, task_class: str) -> Rated:
        """The ranking for a shape; task classes that are equally fast everywhere share it."""
        key = (policy.name, task_class, request.shape, request.throughput)
        version = self._pool.speeds.version(task_class) if policy.uses_speed else (0, 0)
        latest = self._latest.get(key)
        if latest is not None and latest[0] == version:
            return latest[1]
        speeds = self.speeds_for(task_class, request) if policy.uses_speed else {}
        shared = (policy.name, *request.shape, *speeds.items())
        rated = self._rankings.get(shared)
        if rated is None:
            if policy.name not in self._ratings:
                self._ratings[policy.name] = policy.rating()
            scorer = Scorer(self._pool, request, policy, self._ratings[policy.name], speeds)
            rated = Rated(Ranking(self._pool.landscape, scorer, scorer.least_share, policy.band), scorer)
            self._rankings[shared] = rated
        self._latest[key] = (version, rated)
        return rated


def _placement(pool: Pool, request: Request, spot: Spot) -> Placement:
    if not spot.devices:
        return Placement(spot.node, (), request.share, MemoryMiB(0))
    if not spot.devices[0].profiles:
        memory = request.memory_on(spot.devices[0])
        devices = tuple([device.id for device in spot.devices])
        return Placement(spot.node, devices, request.share, memory, request.burst or Share(0))
    place = pool.kinds.place(request, spot.devices)
    if place is None:
        raise InternalError(f"{request.describe()} was to go to {spot.devices[0].id}, and no part of it is free there")
    return place


def covers(amounts: Amounts, need: tuple[int, int]) -> bool:
    """Whether both amounts are enough."""
    return amounts[0] >= need[0] and amounts[1] >= need[1]
