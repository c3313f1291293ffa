"""Fair share: what each queue is entitled to now.

Down the tree, the children of a queue divide what it is entitled to, the root having the pool:

    entitled = sure + min( want - sure,  level x weight' )     level: as high as what is left allows,
                                                               for the highest priority first
    want     = min( demand, limit )                            of a group: what its queues want, within its limit
    sure     = min( quota, want )                              a group without a quota has those of its queues
    weight'  = max( 0, w + (w - u) )                           w: part of the weights, u: part of the past use

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


def entitled(
    tree: QueueTree, demand: Mapping[str, Load], capacity: Capacity, usage: Mapping[str, int] | None = None
) -> dict[str, Entitlement]:
    """The fair share of every queue, by name.

    The amounts of a queue's children add up to its own, and that of the root to min(capacity, all that is wanted).

    Args:
        tree: with quotas that fit (see ``promises.fitted``); others are cut pro rata where they meet.
        demand: what each leaf uses and waits for, together.
        usage: decayed past use of queues, in millionths of the pool (see ``history.py``); none by default.
    """
    want, sure = _wants(tree, demand, capacity)
    amounts = {ROOT_QUEUE: min(worth(capacity_load(capacity), capacity), want[ROOT_QUEUE])}
    for name in tree.down():
        claims = [
            Claim(child, want[child], sure[child], queue.weight, queue.priority, (usage or {}).get(child, 0))
            for child, queue in ((child, tree.queues[child]) for child in tree.children[name])
        ]
        amounts.update(divide(amounts[name], claims))
    return {name: Entitlement(want[name], sure[name], amounts[name]) for name in tree.queues}


def _wants(tree: QueueTree, demand: Mapping[str, Load], capacity: Capacity) -> tuple[dict[str, int], dict[str, int]]:
    """What each queue wants and has sure, children before their parents."""
    loads: dict[str, dict[str, tuple[int, int]]] = {}
    want: dict[str, int] = {}
    sure: dict[str, int] = {}
    for name in tree.up():
        queue, inside = tree.queues[name], tree.children[name]
        asked = total(loads[child] for child in inside) if inside else demand.get(name, {})
        loads[name] = clipped(asked, queue.limit, capacity)
        want[name] = worth(loads[name], capacity)
        if inside:  # one's compute and another's memory add up here: each is entitled as if alone in its measure
            together = sum(want[child] for child in inside)
            want[name] = together if loads[name] == asked else min(want[name], together)
        promised = worth(covered(loads[name], tree.promises[name], capacity), capacity)
        sure[name] = min(want[name], max(promised, sum(sure[child] for child in inside if queue.quota is None)))
    return want, sure
