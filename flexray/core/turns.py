"""Whose turn it is: found from the top of the tree down, at each level among the children that have somebody waiting.

Before others goes the child

    1. that stays within what its quota guarantees if the request at its head is served,
    2. then one that stays within what it is entitled to,
    3. then any other;
    of equals the one with the lowest used / entitled, then the first by name.

The first two keep whole requests from crowding out whoever was promised more: a hundred
queues entitled to a third of a device each would otherwise take all devices before one that is
entitled to most of them. Of those entitled to nothing, which come last, the higher priority goes
first, then the lowest used / weight. With equal weights and nothing promised this comes to DRF's
rule, that the smallest dominant share is next (Ghodsi et al., NSDI 2011). Whoever is blocked
leaves the turns, and its turns go to its siblings: no branch is stuck for one of its leaves
(Bhattacharya et al., SoCC 2013).

Each group keeps a heap of its children. A pick looks at one heap per level; a change of a
leaf pushes one entry per level: O(depth + log queues) for a turn, however many wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from flexray.core.fairness import Entitlement
from flexray.core.queues import QueueTree
from flexray.model.queue import ROOT_QUEUE

#: used / entitled is compared to one part in so many; what is closer is a tie, and goes by name.
_GRAIN = 10**12
_NOTHING = Entitlement(0, 0, 0)

_Key = tuple[int, int, int, str]


class Turns:
    """Takes turns between the leaves of a tree that have joined. Amounts are worth, in integers."""

    def __init__(self, tree: QueueTree) -> None:
        self._tree = tree
        self._entitled: Mapping[str, Entitlement] = {}
        self._used: dict[str, int] = {}
        #: what the request takes that a queue would serve next; only of queues that have one.
        self._next: dict[str, int] = {}
        #: entries of a heap that carry another stamp than their queue are out of date.
        self._stamps = dict.fromkeys(tree.queues, 0)
        self._heaps: dict[str, list[tuple[_Key, int]]] = {name: [] for name in tree.queues}

    def settle(self, entitled: Mapping[str, Entitlement], used: Mapping[str, int]) -> None:
        """Start from these amounts, by queue; those left out are 0. Whoever has joined stays."""
        self._entitled, self._used = dict(entitled), dict(used)
        for name in self._tree.up():
            if self._tree.children[name]:
                self._rebuild(name)
                self._follow_head(name)

    def join(self, leaf: str, size: int) -> None:
        """The request at the head of a leaf could be served, and takes so much. Call again for another head."""
        self._next[leaf] = size
        self._climb(leaf)

    def leave(self, leaf: str) -> None:
        """Nobody waits in a leaf, or nobody whom there is room for."""
        if self._next.pop(leaf, None) is not None:
            self._climb(leaf)

    def uses(self, leaf: str, amounts: Mapping[str, int]) -> None:
        """Leases of a leaf began or ended: what it, and the queues above it, use now."""
        self._used.update(amounts)
        self._climb(leaf)

    def next(self) -> str | None:
        """The leaf whose turn it is, or None when nobody takes turns. Changes nothing: tell what came of it."""
        name: str | None = ROOT_QUEUE
        while name is not None and self._tree.children[name]:
            name = self._first(name)
        return name

    def _first(self, group: str) -> str | None:
        """The child whose turn it is."""
        heap = self._heaps[group]
        while heap and heap[0][1] != self._stamps[heap[0][0][-1]]:
            heapq.heappop(heap)
        return heap[0][0][-1] if heap else None

    def _climb(self, leaf: str) -> None:
        """A leaf has changed: bring its place, and those of the queues above it, up to date."""
        path = self._tree.path(leaf)
        for parent, name in zip(path[-2::-1], path[:0:-1], strict=True):
            self._stamps[name] += 1
            if name in self._next:
                heapq.heappush(self._heaps[parent], (self._key(name), self._stamps[name]))
            if len(self._heaps[parent]) > 4 * len(self._tree.children[parent]) + 16:
                self._rebuild(parent)
            self._follow_head(parent)

    def _follow_head(self, group: str) -> None:
        """A group would serve next what the child would whose turn it is."""
        first = self._first(group)
        if first is not None:
            self._next[group] = self._next[first]
        else:
            self._next.pop(group, None)

    def _rebuild(self, group: str) -> None:
        inside = [name for name in self._tree.children[group] if name in self._next]
        self._heaps[group] = [(self._key(name), self._stamps[name]) for name in inside]
        heapq.heapify(self._heaps[group])

    def _key(self, name: str) -> _Key:
        used, own = self._used.get(name, 0), self._entitled.get(name, _NOTHING)
        if own.amount <= 0:
            queue = self._tree.queues[name]
            return 3, -queue.priority, used * _GRAIN // max(queue.weight, 1), name
        after = used + self._next[name]
        band = 0 if after <= own.sure else 1 if after <= own.amount else 2
        return band, 0, used * _GRAIN // own.amount, name
