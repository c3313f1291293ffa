"""Whose turn it is: the leaf with the least of what it is entitled to, found from the top of the tree down.

Among the children of a queue that have somebody who takes turns, the one whose
used / entitled is lowest goes first, then the first by name; among those entitled to
nothing, which come last, the higher priority, then the lowest used / weight. With equal
weights and nothing promised this is DRF's rule: the smallest dominant share is next
(Ghodsi et al., NSDI 2011); with a tree, hierarchical DRF whose shares count only those who
can go on (Bhattacharya et al., SoCC 2013): whoever is blocked leaves the turns, and its
turns go to its siblings.

Each group keeps a heap of its children. A pick looks at one heap per level; a change of what a
queue uses pushes one entry per level: O(depth + log queues) for a turn, whatever waits.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from flexray.core.queues import QueueTree
from flexray.model.queue import ROOT_QUEUE

#: used / entitled is compared to one part in so many; what is closer is a tie, and goes by name.
_GRAIN = 10**12

_Key = tuple[int, int, int, str]


class Turns:
    """Takes turns between the leaves of a tree that have joined. Amounts are worth, in integers."""

    def __init__(self, tree: QueueTree) -> None:
        self._tree = tree
        self._entitled: Mapping[str, int] = {}
        self._used: dict[str, int] = {}
        #: how many leaves at or below a queue take turns.
        self._joined = dict.fromkeys(tree.queues, 0)
        #: entries of a heap that carry another stamp than their queue are out of date.
        self._stamps = dict.fromkeys(tree.queues, 0)
        self._heaps: dict[str, list[tuple[_Key, int]]] = {name: [] for name in tree.queues}

    def settle(self, entitled: Mapping[str, int], used: Mapping[str, int]) -> None:
        """Start from these amounts, by queue; those left out are 0."""
        self._entitled, self._used = dict(entitled), dict(used)
        for name in self._tree.queues:
            self._rebuild(name)

    def join(self, leaf: str) -> None:
        """A leaf has somebody waiting who could be served."""
        if not self._joined[leaf]:
            for name in reversed(self._tree.path(leaf)):
                self._joined[name] += 1
                if self._joined[name] == 1:
                    self._push(name)

    def leave(self, leaf: str) -> None:
        """Nobody waits in a leaf, or nobody whom there is room for."""
        if self._joined[leaf]:
            for name in self._tree.path(leaf):
                self._joined[name] -= 1
                if not self._joined[name]:
                    self._stamps[name] += 1

    def uses(self, name: str, amount: int) -> None:
        """A queue (a leaf or one above it) uses so much now."""
        self._used[name] = amount
        if self._joined[name]:
            self._push(name)

    def next(self) -> str | None:
        """The leaf whose turn it is, or None when nobody takes turns. Changes nothing: tell what came of it."""
        name = ROOT_QUEUE
        while self._tree.children[name]:
            heap = self._heaps[name]
            while heap and heap[0][1] != self._stamps[heap[0][0][-1]]:
                heapq.heappop(heap)
            if not heap:
                return None
            name = heap[0][0][-1]
        return name

    def _push(self, name: str) -> None:
        if name == ROOT_QUEUE:
            return
        parent = self._tree.path(name)[-2]
        self._stamps[name] += 1
        heapq.heappush(self._heaps[parent], (self._key(name), self._stamps[name]))
        if len(self._heaps[parent]) > 4 * len(self._tree.children[parent]) + 16:
            self._rebuild(parent)

    def _rebuild(self, parent: str) -> None:
        inside = [name for name in self._tree.children[parent] if self._joined[name]]
        self._heaps[parent] = [(self._key(name), self._stamps[name]) for name in inside]
        heapq.heapify(self._heaps[parent])

    def _key(self, name: str) -> _Key:
        used, entitled = self._used.get(name, 0), self._entitled.get(name, 0)
        if entitled > 0:
            return 0, 0, used * _GRAIN // entitled, name
        queue = self._tree.queues[name]
        return 1, -queue.priority, used * _GRAIN // max(queue.weight, 1), name
