"""The tree of queues: who is a part of whom, and what is wrong with their promises.

A tree never changes; another configuration is another tree. Requests wait in leaves. What
does not fit its parent, or the pool, is no error, because nodes come and go: ``fitted``
scales the promises down pro rata and says where, so that whoever shows the queues can show
what was configured, what it is worth now, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from flexray.errors import UnknownQueue, UsageError
from flexray.model.queue import ROOT_QUEUE, Queue, QueueAmount, nearest, tree_problem
from flexray.model.request import DEFAULT_QUEUE


class QueueTree:
    """Queues by name, with their parents and children; ``root`` and ``default`` are always there.

    Raises UsageError for a name that is there twice, an unknown parent (with the nearest name), a circle of parents.
    """

    def __init__(self, queues: Iterable[Queue] = ()) -> None:
        given = list(queues)
        problem = tree_problem(given)
        if problem is not None:
            raise UsageError(problem[-1])
        always = {name: Queue(name) for name in (ROOT_QUEUE, DEFAULT_QUEUE)}
        #: by name, in the order of names.
        self.queues: dict[str, Queue] = dict(sorted({**always, **{queue.name: queue for queue in given}}.items()))
        #: whether any queue allows some device types only.
        self.names_types = any(queue.types for queue in self.queues.values())
        self._paths = {name: self._climb(name) for name in self.queues}
        below: dict[str, list[str]] = {name: [] for name in self.queues}
        for name, path in self._paths.items():
            if name != ROOT_QUEUE:
                below[path[-2]].append(name)
        #: children of each queue, in the order of names.
        self.children: dict[str, tuple[str, ...]] = {name: tuple(names) for name, names in below.items()}
        #: what each queue is promised: its own quota, or of a group without one all those of its queues, those of
        #: types first.
        self.promises: dict[str, tuple[QueueAmount, ...]] = {}
        for name in self.up():
            quota = self.queues[name].quota
            inside = [one for child in self.children[name] for one in self.promises[child]]
            self.promises[name] = (quota,) if quota is not None else tuple(sorted(inside, key=_is_general))

    def _climb(self, name: str) -> tuple[str, ...]:
        path = [name]
        while path[-1] != ROOT_QUEUE:
            path.append(self.queues[path[-1]].parent)
        return tuple(reversed(path))

    def path(self, name: str) -> tuple[str, ...]:
        """From ``root`` down to a queue. Raises UnknownQueue with the nearest name."""
        try:
            return self._paths[name]
        except KeyError:
            raise UnknownQueue(f"unknown queue {name!r}.{nearest(name, self.leaves)}") from None

    def leaf(self, name: str) -> Queue:
        """The queue of that name, in which requests can wait. Raises UnknownQueue, also for one that has children."""
        self.path(name)
        if self.children[name]:
            inside = ", ".join(self.children[name])
            raise UnknownQueue(f"queue {name!r} is a group; requests wait in one of its queues: {inside}")
        return self.queues[name]

    @property
    def leaves(self) -> tuple[str, ...]:
        """The queues in which requests wait, in the order of names."""
        return tuple(name for name, inside in self.children.items() if not inside)

    @property
    def heir(self) -> str:
        """Where requests go whose queue is gone."""
        return self.leaves[0] if self.children[DEFAULT_QUEUE] else DEFAULT_QUEUE

    def down(self) -> Iterator[str]:
        """Every queue, parents before their children, in a fixed order."""
        waiting = [ROOT_QUEUE]
        while waiting:
            name = waiting.pop()
            yield name
            waiting += reversed(self.children[name])

    def up(self) -> list[str]:
        """Every queue, children before their parents."""
        return list(self.down())[::-1]

    def fork(self, one: str, other: str) -> tuple[str, str] | None:
        """Where the ways to two queues part: the two siblings that they are, or are parts of. None for the same way."""
        for left, right in zip(self.path(one), self.path(other), strict=False):
            if left != right:
                return left, right
        return None

    def half_life(self, name: str) -> float | None:
        """Its own, or that of the nearest ancestor that has one."""
        own = (self.queues[step].half_life for step in reversed(self.path(name)))
        return next((seconds for seconds in own if seconds is not None), None)

    def allows_type(self, name: str, kind: str) -> bool:
        """Whether requests of a queue may use a device type: its own list and those of its ancestors must have it."""
        return all(self.queues[step].allows_type(kind) for step in self.path(name))

    def type_patterns(self) -> Iterator[tuple[str, str]]:
        """(queue, device type or pattern) wherever one is named, in a fixed order."""
        for name, queue in self.queues.items():
            amounts = [amount for amount in (queue.quota, queue.limit) if amount is not None]
            for pattern in dict.fromkeys([*(p for amount in amounts for p, _ in amount.types), *queue.types]):
                yield name, pattern


def _is_general(quota: QueueAmount) -> bool:
    return quota.devices is not None or quota.compute is not None


def matches(pattern: str, kinds: Iterable[str]) -> list[str]:
    """The device types that a pattern names."""
    return [kind for kind in kinds if fnmatchcase(kind, pattern)]
