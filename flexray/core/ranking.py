"""The places for one shape of request, best first: every class of nodes is scored once, when it is its turn."""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from flexray.core.landscape import Landscape, NodeClass
from flexray.core.policy import Option


class Scored(NamedTuple):
    """What a class of nodes is worth to a request: the total (higher is better), and the room it would use.

    ``option`` is what the policy saw of it, None where it was not asked. ``room`` is the place of the room (of the
    first of several) among the state's rooms; -1 without devices.
    """

    total: float
    option: Option | None
    room: int


class Scores(Protocol):
    """What scores classes; it must depend on their states only."""

    def score(self, found: NodeClass) -> Scored | None:
        """What a class is worth; None where the request does not fit."""

    def most(self, found: NodeClass) -> float:
        """At most so much; -infinity where the request cannot fit for sure."""


class Ranking:
    """Classes by score.

    A class is listed by its bound first and scored when it is its turn, so that classes on devices that the policy
    wants less are not scored while there are better ones.

    Args:
        share: what the request needs of a device; classes without so much are passed over.
        band: classes so little below the best are as good.
    """

    def __init__(self, landscape: Landscape, scores: Scores, share: int = 0, band: float = 0.0) -> None:
        self._landscape, self._share, self._band = landscape, share, band
        self._score, self._most = scores.score, scores.most
        self._scores: dict[int, Scored | None] = {}
        self._entries: list[tuple[float, int, NodeClass]] = []
        self._listed: set[int] = set()
        #: those of them that are listed by their bound.
        self._bounded: set[int] = set()
        self._version = -1
        self._read = 0

    def ranked(self, accepts: Callable[[str], bool]) -> Iterator[tuple[str, NodeClass, Scored]]:
        """The nodes that ``accepts`` takes, best first; those within the band of each other by rank."""
        self._catch_up()
        for members in self._groups():
            for _, node, found in self._in_order(members):
                if accepts(node):
                    scored = self._scores[found.number]
                    assert scored is not None
                    yield node, found, scored

    def scored(self, found: NodeClass) -> Scored | None:
        """What a class is worth; None where the request does not fit."""
        if found.largest < self._share:
            return None
        if found.number not in self._scores:
            self._scores[found.number] = self._score(found)
        return self._scores[found.number]

    def _groups(self) -> Iterator[list[NodeClass]]:
        """Classes that are as good as each other, the best ones first; entries without members are dropped when met."""
        group: list[NodeClass] = []
        end, index, entries = 0.0, 0, self._entries
        while index < len(entries):
            negative, number, found = entries[index]
            if not found.members:
                self._drop(index)
                continue
            if group and negative > end:  # a bound that is behind the band will do
                yield group
                group = []
            if number in self._bounded:  # its turn may have come: it moves back to where its score belongs
                self._drop(index)
                self._list(found)
                continue
            if not group:
                end = negative + self._band
            group.append(found)
            index += 1
        if group:
            yield group

    @staticmethod
    def _in_order(classes: list[NodeClass]) -> Iterator[tuple[int, str, NodeClass]]:
        """(rank, node, class) of the classes' members, lowest rank first; the first one is cheap."""
        first = min(classes, key=NodeClass.first) if len(classes) > 1 else classes[0]
        yield (*first.first(), first)
        # names differ, so classes are never compared
        merged = heapq.merge(*([(r, n, c) for r, n in c.in_order()] for c in classes))
        next(merged)
        yield from merged

    def _catch_up(self) -> None:
        landscape = self._landscape
        if self._version != landscape.version:
            fresh = landscape.inhabited()
            known, self._scores = self._scores, {}
            self._scores = {c.number: known[c.number] for c in fresh if c.number in known}
            self._entries, self._listed, self._bounded = [], set(), set()
            self._version = landscape.version
        else:
            fresh = landscape.since(self._read)
        self._read = len(landscape.log)
        listed, share = self._listed, self._share
        # a class may be in the log twice
        new = {c.number: c for c in fresh if c.members and c.largest >= share and c.number not in listed}
        for number, found in new.items():
            if number in self._scores:
                self._list(found)
            else:
                self._list_by_bound(found)

    def _list_by_bound(self, found: NodeClass) -> None:
        most, number = self._most(found), found.number
        if most == -math.inf:
            self._scores[number] = None
        else:
            insort(self._entries, (-most, number, found))
            self._listed.add(number)
            self._bounded.add(number)

    def _list(self, found: NodeClass) -> None:
        """Enter a class by its score."""
        scored = self.scored(found)
        if scored is not None:
            insort(self._entries, (-scored.total, found.number, found))
            self._listed.add(found.number)

    def _drop(self, index: int) -> None:
        number = self._entries.pop(index)[1]
        self._listed.discard(number)
        self._bounded.discard(number)
