"""What each queue uses and what waits in it. One change costs one step per level of the tree."""

from __future__ import annotations

from collections.abc import Hashable

from flexray.core.loads import Capacity, Load, TypeRoom, expected_load, minus, over, total, worth
from flexray.core.queues import QueueTree
from flexray.errors import InternalError
from flexray.model.request import Request

_Loads = dict[str, tuple[int, int]]


class QueueBooks:
    """Loads by queue. ``used`` has every queue, groups too; what waits is kept for leaves.

    What a waiting request will take is only expected (``expected_load``), by its shape, and changes with the pool: for
    another pool, or other queues, there are other books (``Sharing.rebuild``).
    """

    def __init__(self, tree: QueueTree, capacity: Capacity) -> None:
        self.tree = tree
        self.capacity = capacity
        self.used: dict[str, _Loads] = {name: {} for name in tree.queues}
        self._waiting: dict[str, _Loads] = {name: {} for name in tree.leaves}
        #: by leaf: shape -> (a request of it, what it is expected to take, how many wait).
        self._shapes: dict[str, dict[Hashable, tuple[Request, _Loads, int]]] = {name: {} for name in tree.leaves}
        self._may_use = self._allowed()

    def take(self, leaf: str, load: Load) -> None:
        """A lease of the queue begins."""
        for name in self.tree.path(leaf):
            self.used[name] = total((self.used[name], load))

    def give_back(self, leaf: str, load: Load) -> None:
        """A lease of the queue ends. Raises InternalError for more than it had."""
        for name in self.tree.path(leaf):
            rest = minus(self.used[name], load)
            if any(min(pair) < 0 for pair in rest.values()):
                raise InternalError(f"queue {name!r} gives back {dict(load)} of {self.used[name]}")
            self.used[name] = rest

    def wait(self, leaf: str, request: Request) -> None:
        """A request begins to wait."""
        known = self._shapes[leaf].get(request.shape)
        load = known[1] if known else self._expected(leaf, request)
        self._shapes[leaf][request.shape] = (request, load, known[2] + 1 if known else 1)
        self._waiting[leaf] = total((self._waiting[leaf], load))

    def stop_waiting(self, leaf: str, request: Request) -> None:
        """A request waits no longer. Raises InternalError for one that did not wait."""
        known = self._shapes[leaf].pop(request.shape, None)
        if known is None:
            raise InternalError(f"no such request waits in queue {leaf!r}: {request.describe()}")
        if known[2] > 1:
            self._shapes[leaf][request.shape] = (known[0], known[1], known[2] - 1)
        self._waiting[leaf] = minus(self._waiting[leaf], known[1])

    def demand_of(self, leaf: str) -> _Loads:
        """What a leaf uses and waits for."""
        return total((self.used[leaf], self._waiting[leaf]))

    def demand(self) -> dict[str, _Loads]:
        """What each leaf uses and waits for."""
        return {leaf: self.demand_of(leaf) for leaf in self._waiting}

    def worths(self) -> dict[str, int]:
        """What every queue uses, in worth."""
        return self.worths_on(tuple(self.used))

    def worths_on(self, names: tuple[str, ...]) -> dict[str, int]:
        """What some queues use, such as those on the path to a leaf, in worth."""
        return {name: worth(self.used[name], self.capacity) for name in names}

    def limited_by(self, leaf: str, load: Load) -> str | None:
        """The queue whose limit a further load would exceed, the outermost one; None if it may be taken."""
        for name in self.tree.path(leaf):
            limit = self.tree.queues[name].limit
            if limit is not None and over(total((self.used[name], load)), limit, self.capacity):
                return name
        return None

    def _allowed(self) -> dict[str, dict[str, TypeRoom]]:
        """By leaf: what the pool has of the types it may use."""
        return {
            leaf: {kind: room for kind, room in self.capacity.items() if self.tree.allows_type(leaf, kind)}
            for leaf in self.tree.leaves
        }

    def expected(self, leaf: str, request: Request) -> _Loads:
        """What a request of a queue is going to take, as far as can be told."""
        known = self._shapes[leaf].get(request.shape)
        return known[1] if known else self._expected(leaf, request)

    def _expected(self, leaf: str, request: Request) -> _Loads:
        return expected_load(request, self._may_use[leaf], self.tree.queues[leaf].quota)
