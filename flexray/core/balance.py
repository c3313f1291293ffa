"""Who has less, and who has more, than it is entitled to: what recalls and other room go by between queues.

A lease that is handed back when its task is done costs nobody any work, so that entitlement decides here, where
for work that is stopped in the middle only quotas do (``borrowing.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

from flexray.core.fairness import Entitlement
from flexray.core.queues import QueueTree

_NOTHING = Entitlement(0, 0, 0)


class Balance:
    """Queues at one moment.

    Args:
        used: what each queue uses, groups included, in worth.
        entitled: what it is entitled to.
    """

    def __init__(self, tree: QueueTree, used: Mapping[str, int], entitled: Mapping[str, Entitlement]) -> None:
        self._tree = tree
        self._left = {name: entitled.get(name, _NOTHING).amount - used[name] for name in tree.queues}

    def is_below(self, queue: str) -> bool:
        """Whether a queue, and each that it is a part of, has less than it is entitled to."""
        return all(self._left[name] > 0 for name in self._tree.path(queue)[1:])

    def may_recall(self, winner: str, holder: str) -> bool:
        """Whether one queue may wait for a lease of another to be handed back.

        It may for one of its own; and where, from the siblings down in which the two lie, it has less than it is
        entitled to, and the other one more.
        """
        fork = self._tree.fork(winner, holder)
        if fork is None:
            return True
        return all(self._left[name] > 0 for name in self._from(fork[0], winner)) and all(
            self._left[name] < 0 for name in self._from(fork[1], holder)
        )

    def may_be_recalled_for(self, winner: str) -> frozenset[str]:
        """The queues whose leases it may wait for."""
        return frozenset(name for name in self._tree.leaves if self.may_recall(winner, name))

    def take(self, queue: str, size: int) -> bool:
        """Count so much to a queue if it is entitled to that beside what it uses, and say whether it is."""
        path = self._tree.path(queue)[1:]
        if any(self._left[name] < size for name in path):
            return False
        for name in path:
            self._left[name] -= size
        return True

    def _from(self, above: str, name: str) -> tuple[str, ...]:
        path = self._tree.path(name)
        return path[path.index(above) :]
