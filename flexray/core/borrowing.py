"""Who borrows, and who may take back: from quotas alone, whatever the weights say.

A queue borrows what it uses and its quota does not guarantee. While quotas lie idle, every
queue may keep, or take back, a part of them in proportion to its own (nos, key concepts):

    idle                  = sum over siblings of max(0, quota - used)
    guaranteed over-quota = quota / sum of quotas x idle

It is no cap: what nobody else wants can all be borrowed. It says whom reclaim may touch.

Siblings are compared where the ways to the two queues part: what happens inside one of them is
its own affair. A group without a quota has those of its queues. Whether a request may take something
back is asked of the state in which it is served, when its own quota is idle no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flexray.core.loads import Capacity, Load, capacity_load, covered, minus, total, worth
from flexray.core.queues import QueueTree
from flexray.model.queue import ROOT_QUEUE


@dataclass(frozen=True, slots=True)
class Standing:
    """A queue beside its quota, in worth.

    Attributes:
        quota: what it is promised of this pool.
        used: what it uses.
        covered: the part of that which its quota guarantees.
        spare: its guaranteed over-quota: so much it may borrow before reclaim touches it.
    """

    quota: int
    used: int
    covered: int
    spare: int = 0

    @property
    def borrowed(self) -> int:
        """What it uses and is not guaranteed."""
        return max(self.used - self.covered, 0)

    @property
    def idle(self) -> int:
        """What of its quota it does not use."""
        return max(self.quota - self.covered, 0)


class Borrowing:
    """The standing of every queue at one moment, and who may take back from whom.

    Args:
        tree: with quotas that fit (``promises.fitted``).
        used: what each queue uses, groups included (``QueueBooks.used``).
    """

    def __init__(self, tree: QueueTree, used: Mapping[str, Load], capacity: Capacity) -> None:
        self._tree, self._used, self._capacity = tree, used, capacity
        pool = capacity_load(capacity)
        self._quotas = {name: worth(covered(pool, own, capacity), capacity) for name, own in tree.promises.items()}
        bare = {name: self._standing(name, used.get(name, {})) for name in tree.queues}
        self.standings: dict[str, Standing] = {ROOT_QUEUE: bare[ROOT_QUEUE]}
        #: by group: the sum of its children's quotas, and how much of that lies idle.
        self._lent: dict[str, tuple[int, int]] = {}
        for name, inside in tree.children.items():
            siblings = {child: bare[child] for child in inside}
            self._lent[name] = (sum(one.quota for one in siblings.values()), sum(one.idle for one in siblings.values()))
            spare = guaranteed_over_quota(siblings)
            self.standings.update((child, replace(one, spare=spare[child])) for child, one in siblings.items())

    def may_reclaim(self, winner: str, wanted: Load, victim: str, held: Load, firmly: bool = False) -> bool:
        """Whether a request of one queue may take back a lease of another.

        It may where, of the siblings in which the two lie, the winner's quota covers all of the request, or the
        winner's has no more than its quota and its guaranteed over-quota once it is served; the victim's has more than
        that, and the lease is borrowed there and in each queue below. So nobody within quota loses anything to somebody
        outside.

        Args:
            wanted: what the request takes.
            held: what the lease takes.
            firmly: the victim's guaranteed over-quota does not keep it from a request that the winner's quota covers.
                That lies idle of quotas for some types and is no promise of others.
        """
        fork = self._tree.fork(winner, victim)
        if fork is None:
            return False
        taking, losing = fork
        after = self._standing(taking, total((self._used.get(taking, {}), wanted)))
        quotas, idle = self._lent[self._tree.path(taking)[-2]]
        idle += after.idle - self.standings[taking].idle  # its own quota is no longer idle once it uses it
        within_quota = after.borrowed <= self.standings[taking].borrowed  # whatever it has borrowed of other types
        if not within_quota and after.borrowed > _spare(after, quotas, idle):
            return False
        spared = self.standings[losing].borrowed <= _spare(self.standings[losing], quotas, idle)
        if spared and not (firmly and within_quota):
            return False
        path = self._tree.path(victim)
        return all(self._borrows(name, held) for name in path[path.index(losing) :])

    def _borrows(self, name: str, held: Load) -> bool:
        """Whether at least a part of a lease is more than the queue is guaranteed."""
        without = self._standing(name, minus(self._used.get(name, {}), held))
        return without.borrowed < self.standings[name].borrowed

    def _standing(self, name: str, used: Load) -> Standing:
        sure = covered(used, self._tree.promises[name], self._capacity)
        return Standing(self._quotas[name], worth(used, self._capacity), worth(sure, self._capacity))


def guaranteed_over_quota(siblings: Mapping[str, Standing]) -> dict[str, int]:
    """What each of some siblings may borrow before reclaim touches it: their parts of what is idle, rounded down."""
    quotas, idle = sum(one.quota for one in siblings.values()), sum(one.idle for one in siblings.values())
    return {name: _spare(one, quotas, idle) for name, one in siblings.items()}


def _spare(one: Standing, quotas: int, idle: int) -> int:
    return one.quota * idle // quotas if quotas else 0
