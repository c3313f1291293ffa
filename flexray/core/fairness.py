"""Fair share: what each queue is entitled to now.

Down the tree, the children of a queue divide what it is entitled to, the root having the pool:

    entitled = sure + min( want - sure,  level x weight' )     level: as high as what is left allows,
                                                               for the highest priority first
    want     = min( demand, limit )                            of a group: what its queues want, within its limit
    sure     = min( quota, want )                              a group without a quota has those of its queues
    weight'  = max( 0, w + (w - u) )                           w: its part of the weights, u: its past use, as a part
                                                               of what is divided

All amounts are worth, the dominant one of normalised compute and memory, in integers (see
``loads.py``). Entitlement says whose turn it is (``turns.py``); it caps nothing, and who has to
give back follows from the quotas alone (``borrowing.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flexray.core.division import Claim, divide
from flexray.core.loads import Capacity, Load, capacity_load, clipped, covered, total, worth
from flexray.core.queues import QueueTree
from flexray.model.queue import ROOT_QUEUE


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a queue is entitled to, in millionths of an ``nvidia/A100-80GB``.

    Attributes:
        want: what it can use: its demand within its limits.
        sure: the part of that which its quota guarantees.
        amount: its fair share; in a pool that keeps its promises at least ``sure``, and never above ``want``.
    """

    want: int
    sure: int
    amount: int


class Wants:
    """What each queue wants and has sure. A change of one leaf costs one step per level.

    Args:
        tree: with quotas that fit (see ``promises.fitted``); others are cut pro rata where they meet.
        demand: what each leaf uses and waits for, together; nothing by default.
    """

    def __init__(self, tree: QueueTree, capacity: Capacity, demand: Mapping[str, Load] | None = None) -> None:
        self.tree, self.capacity = tree, capacity
        self.want: dict[str, int] = {}
        self.sure: dict[str, int] = {}
        self._loads: dict[str, dict[str, tuple[int, int]]] = {}
        for name in tree.up():
            self._count(name, (demand or {}).get(name, {}))

    def change(self, leaf: str, demand: Load) -> None:
        """A leaf uses and waits for so much now."""
        for name in reversed(self.tree.path(leaf)):
            self._count(name, demand)

    def _count(self, name: str, demand: Load) -> None:
        quota, limit, inside = self.tree.queues[name].quota, self.tree.queues[name].limit, self.tree.children[name]
        asked = total(self._loads[child] for child in inside) if inside else demand
        load = self._loads[name] = clipped(asked, limit, self.capacity)
        want = worth(load, self.capacity)
        if inside and limit is None:  # one's compute and another's memory add up: each is entitled as if alone in its
            want = sum(self.want[child] for child in inside)  # measure; under a limit they count together
        elif inside:
            want = min(want, sum(self.want[child] for child in inside))
        sure = worth(covered(load, self.tree.promises[name], self.capacity), self.capacity)
        if quota is None:
            sure = max(sure, sum(self.sure[child] for child in inside))
        self.want[name], self.sure[name] = want, min(sure, want)


def entitled(
    tree: QueueTree, demand: Mapping[str, Load], capacity: Capacity, usage: Mapping[str, int] | None = None
) -> dict[str, Entitlement]:
    """The fair share of every queue, by name; ``shares`` of what is wanted."""
    return shares(Wants(tree, capacity, demand), usage)


def shares(wants: Wants, usage: Mapping[str, int] | None = None) -> dict[str, Entitlement]:
    """The fair share of every queue, by name.

    The amounts of a queue's children add up to its own, and that of the root to min(capacity, all that is wanted).

    Args:
        usage: decayed past use of queues, in millionths of the pool (see ``history.py``); none by default. It counts
            as a part of what is divided: in a group that is entitled to little, little use is much.
    """
    tree, want, sure, past = wants.tree, wants.want, wants.sure, usage or {}
    whole = worth(capacity_load(wants.capacity), wants.capacity)
    amounts = {ROOT_QUEUE: min(whole, want[ROOT_QUEUE])}
    for name in tree.down():
        inside, share = [tree.queues[child] for child in tree.children[name]], amounts[name]
        used = {q.name: past[q.name] * whole // share for q in inside if share and q.name in past}
        claims = [Claim(q.name, want[q.name], sure[q.name], q.weight, q.priority, used.get(q.name, 0)) for q in inside]
        if claims:
            amounts.update(divide(share, claims))
    return {name: Entitlement(want[name], sure[name], amounts[name]) for name in tree.queues}
