"""The pool as a choice of place sees it: nodes in the same state are one class.

    books change -> touch(node) -> refresh() -> the node moves to the class of its new state

A pool of a hundred thousand devices has few different states, so places are scored by
class, and a class that was scored once stays scored. Host cores and memory are rounded
down to levels in a class's state; whoever takes a node of a class checks them exactly.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flexray.core.books import Amounts, Books, Room

#: Thousandths of cores, and MiB of memory, at which host amounts count as different.
CORE_LEVELS = (*range(0, 64_000, 250), *range(64_000, 257_000, 1_000))
MEMORY_LEVELS = (0, *(1024 * n for n in (1, 2, 4, 6, 8, *range(12, 64, 4), *range(64, 256, 16), *range(256, 2049, 64))))
#: The log starts afresh, and classes nobody is in are forgotten, when it is this many times as long as needed.
_EMPTY_FACTOR = 8
_FEW = 1_000


class NodeState(NamedTuple):
    """The state of a node: levels of host cores and memory (reachable, undisturbed), and what its devices have left."""

    cores: int
    memory: int
    quiet_cores: int
    quiet_memory: int
    rooms: tuple[Room, ...]


class NodeClass:
    """The nodes that are in one state now, by tie rank.

    Attributes:
        largest: share of the emptiest room; what needs more is refused at a glance.
        calm: whether nothing of the host is held by idle slices.
    """

    __slots__ = ("_heap", "_rooms", "calm", "largest", "members", "number", "state")

    def __init__(self, number: int, state: NodeState) -> None:
        self.number = number
        self.state = state
        self.largest = max([room[1] for room in state.rooms], default=0)  # by position, which is faster
        self.calm = (state.quiet_cores, state.quiet_memory) == (state.cores, state.memory)
        self._rooms: list[tuple[int, Room, int]] | None = None
        self.members: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    @property
    def rooms(self) -> list[tuple[int, Room, int]]:
        """The state's rooms, each different one once: its first place among them, the room, how many there are."""
        if self._rooms is None:
            self._rooms = []
            for index, room in enumerate(self.state.rooms):  # sorted, so that equal ones are neighbours
                if self._rooms and self._rooms[-1][1] == room:
                    first, _, count = self._rooms.pop()
                    self._rooms.append((first, room, count + 1))
                else:
                    self._rooms.append((index, room, 1))
        return self._rooms

    def add(self, node: str, rank: int) -> None:
        self.members[node] = rank
        heapq.heappush(self._heap, (rank, node))

    def first(self) -> tuple[int, str]:
        """(rank, name) of the member with the lowest rank."""
        while True:
            rank, node = self._heap[0]
            if self.members.get(node) == rank:
                return rank, node
            heapq.heappop(self._heap)

    def in_order(self) -> Iterator[tuple[int, str]]:
        """(rank, name) of all members, lowest rank first."""
        yield self.first()
        yield from sorted((rank, node) for node, rank in self.members.items())[1:]


class Landscape:
    """Classes of nodes, kept in step with the books.

    Args:
        host: the books of the nodes.
        rooms_of: the rooms of a node's ready devices that have any share left.
    """

    def __init__(self, host: Books, rooms_of: Callable[[str], list[Room]]) -> None:
        self._host, self._rooms_of = host, rooms_of
        self._class_of: dict[str, NodeClass] = {}
        self._classes: dict[NodeState, NodeClass] = {}
        self._inhabited: dict[int, NodeClass] = {}
        self._touched: dict[str, None] = {}
        self._numbers = 0
        #: classes in the order in which they came to have members; readers remember how far they have read.
        self.log: list[NodeClass] = []
        #: raised when the log starts afresh; readers then start with ``inhabited``.
        self.version = 0

    def touch(self, node: str) -> None:
        """Something of the node has changed, or it is new, or gone."""
        self._touched[node] = None

    def inhabited(self) -> list[NodeClass]:
        """The classes that have members now."""
        return list(self._inhabited.values())

    def since(self, read: int) -> list[NodeClass]:
        """The classes that came to have members since so much of the log was read, and perhaps others that have."""
        return self.log[read:] if len(self.log) - read <= len(self._inhabited) else self.inhabited()

    def _trim(self) -> None:
        self._classes = {found.state: found for found in self.inhabited()}
        self.log = []
        self.version += 1

    def refresh(self) -> None:
        """Move every touched node to the class of its present state."""
        touched, self._touched = self._touched, {}
        for node in touched:
            before = self._class_of.get(node)
            state = self._state_of(node)
            if before is not None:
                if before.state == state:
                    continue
                del before.members[node]
                if not before.members:
                    del self._inhabited[before.number]
                del self._class_of[node]
            if state is not None:
                self._enter(node, state)
        if len(self.log) > max(_FEW, _EMPTY_FACTOR * len(self._class_of)):
            self._trim()

    def members(self, node: str) -> NodeClass | None:
        """The class a node is in."""
        return self._class_of.get(node)

    def _enter(self, node: str, state: NodeState) -> None:
        found = self._classes.get(state)
        if found is None:
            found = self._classes[state] = NodeClass(self._numbers, state)
            self._numbers += 1
        if not found.members:
            self.log.append(found)
            self._inhabited[found.number] = found
        found.add(node, self._host.rows[node].rank)
        self._class_of[node] = found

    def _state_of(self, node: str) -> NodeState | None:
        row = self._host.rows.get(node)
        if row is None:
            return None
        quiet = row.uncontested()
        levels = quiet_levels = host_levels(quiet)
        if any(row.idle):
            levels = host_levels(row.reachable())
        return NodeState(*levels, *quiet_levels, tuple(sorted(self._rooms_of(node))))


def host_levels(amounts: Amounts) -> tuple[int, int]:
    """Cores and memory of a node, rounded down to levels; the lowest is for everything below it too."""
    return (
        CORE_LEVELS[bisect_right(CORE_LEVELS, amounts[0], 1) - 1],
        MEMORY_LEVELS[bisect_right(MEMORY_LEVELS, amounts[1], 1) - 1],
    )
