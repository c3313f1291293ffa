"""The places for one shape of request, best first: every class of nodes is scored once, when it first has members."""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


class Ranking:
    """Classes by score.

    Args:
        score: None where the request does not fit; it must depend on the class's state only.
        share: what the request needs of a device; classes without so much are passed over.
        band: classes so little below the best are as good.
    """

    def __init__(
        self, landscape: Landscape, score: Callable[[NodeClass], Scored | None], share: int = 0, band: float = 0.0
    ) -> None:
        self._landscape, self._score, self._share, self._band = landscape, score, share, band
        self._scores: dict[int, Scored | None] = {}
        self._entries: list[tuple[float, int, NodeClass]] = []
        self._listed: set[int] = set()
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
        self._catch_up()
        return self._scores.get(found.number)

    def _groups(self) -> Iterator[list[NodeClass]]:
        """Classes that are as good as each other, the best ones first."""
        group: list[NodeClass] = []
        end = 0.0
        for negative, _, found in self._live():
            if group and negative > end:
                yield group
                group = []
            if not group:
                end = negative + self._band
            group.append(found)
        if group:
            yield group

    @staticmethod
    def _in_order(classes: list[NodeClass]) -> Iterator[tuple[int, str, NodeClass]]:
        """(rank, node, class) of the classes' members, lowest rank first; the first one is cheap."""
        first = min(classes, key=NodeClass.first)
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
            self._entries, self._listed = [], set()
            self._version = landscape.version
        else:
            fresh = landscape.since(self._read)
        self._read = len(landscape.log)
        scores, listed, share = self._scores, self._listed, self._share
        for found in fresh:
            number = found.number
            if found.largest < share or not found.members or number in listed:
                continue
            if number not in scores:
                scores[number] = self._score(found)
            scored = scores[number]
            if scored is not None:
                insort(self._entries, (-scored.total, number, found))
                listed.add(number)

    def _live(self) -> Iterator[tuple[float, int, NodeClass]]:
        """Entries of classes that have members, best first; the others are dropped when met."""
        index = 0
        entries = self._entries
        while index < len(entries):
            entry = entries[index]
            if entry[2].members:
                yield entry
                index += 1
            else:
                self._listed.discard(entry[1])
                del entries[index]
