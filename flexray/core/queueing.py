"""Requests come to a queue, and are placed in the order of turns between queues.

Within a queue the higher priority goes first, then who came first; a line whose head fits nowhere, or is
held back by a limit, waits, and the others go on.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable
from fnmatch import fnmatchcase

from flexray.core.backfill import may_borrow
from flexray.core.granting import may_fit, serve
from flexray.core.queues import QueueTree
from flexray.core.records import RequestRecord
from flexray.core.sharing import Sharing
from flexray.core.state import State
from flexray.errors import UnknownQueue
from flexray.model.lifecycle import EndReason
from flexray.model.request import Request

#: What cannot be on any device type: no type has this name.
_NOWHERE = "none of the queue's types"


def refused_by_queue(tree: QueueTree, request: Request) -> tuple[EndReason, str] | None:
    """Why a queue does not take a request at all, or None."""
    try:
        queue = tree.leaf(request.queue)
    except UnknownQueue as error:
        return EndReason.UNKNOWN_QUEUE, str(error)
    if not queue.allows_priority(request.priority):
        lowest, highest = queue.priorities
        span = f"{'any' if lowest is None else lowest} to {'any' if highest is None else highest}"
        return EndReason.QUEUE_RULES, f"queue {queue.name!r} takes priorities from {span}, not {request.priority}"
    return None


def within_queue(tree: QueueTree, request: Request) -> Request:
    """The request with the device types that its queue, and those above it, leave it."""
    if not tree.names_types:
        return request
    types = request.types
    for step in tree.path(request.queue):
        types = _narrowed(types, tree.queues[step].types)
    return request if types == request.types else dataclasses.replace(request, types=types)


def _narrowed(types: tuple[str, ...], by: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns for what both lists allow; an empty list allows everything."""
    if not by or not types:
        return types or by
    both = [one if fnmatchcase(one, other) else other for one in types for other in by if _overlap(one, other)]
    return tuple(dict.fromkeys(both)) or (_NOWHERE,)


def _overlap(one: str, other: str) -> bool:
    """Whether one pattern names a part of the other; patterns that merely cross are taken for apart."""
    return fnmatchcase(one, other) or fnmatchcase(other, one)


def place_in_order(state: State, heads: Iterable[RequestRecord], now: float) -> None:
    """Without rules of sharing: the highest priority first, then who came first."""
    lines = [(r.line[0], r.sequence, r) for r in heads]
    heapq.heapify(lines)  # (-priority, sequence) is unique, so records are never compared
    full: set[tuple[object, ...]] = set()
    while lines:
        _, _, request = heapq.heappop(lines)
        successor = _serve_and_next(state, request, full, now)
        if successor is not None:
            heapq.heappush(lines, (successor.line[0], successor.sequence, successor))


def _serve_and_next(
    state: State, request: RequestRecord, full: set[tuple[object, ...]], now: float
) -> RequestRecord | None:
    """Serve a request if that can be; who of its line is next in this cycle.

    One that could run now and waits for a faster device lets the next one pass, for which those come free later.
    """
    served = serve(state, request, full, now)
    if not served and not request.passes_over:
        return None
    if served:
        state.leave_line(request)
    return state.behind(request)


class Turnstile:
    """One cycle of taking turns between queues.

    Lines that cannot be served take no turns: in a full pool with a long backlog that is nearly all of them, and they
    are told apart by the few shapes they have.
    """

    def __init__(self, state: State, heads: Iterable[RequestRecord], now: float) -> None:
        self._state, self._now = state, now
        self._full: set[tuple[object, ...]] = set()
        self._fits: set[tuple[object, ...]] = set()
        self._lines: dict[str, list[tuple[object, int, RequestRecord]]] = {}
        for request in heads:
            request.limited_by = ""
            if self._may_be_served(request):
                self._lines.setdefault(request.queue, []).append((request.line[0], request.sequence, request))
        for lines in self._lines.values():
            heapq.heapify(lines)

    def run(self) -> None:
        """Serve whoever's turn it is until nobody can be served."""
        if not self._lines:
            return
        sharing = self._state.sharing
        sharing.begin(self._state.holders, self._now)
        for name in sorted(self._lines):
            self._join(sharing, name)
        while (leaf := sharing.turns.next()) is not None:
            self._serve_head(leaf)
            self._join(sharing, leaf)

    def _may_be_served(self, request: RequestRecord) -> bool:
        """Whether a warm slice is there for it, or some room for its shape, or reserved room that it may borrow."""
        shape = request.shape
        if shape not in self._full and shape not in self._fits:
            there = may_fit(self._state, request)
            (self._fits if there else self._full).add(shape)
        if shape not in self._full or (request.reusable and self._state.slices.has_warm(request)):
            return True
        return may_borrow(self._state, request, self._now)

    def _join(self, sharing: Sharing, leaf: str) -> None:
        """A queue takes turns with the first of its lines that can be served."""
        lines = self._lines[leaf]
        while lines:
            request = lines[0][2]
            if self._may_be_served(request):
                request.limited_by = sharing.limited_by(request) or ""
                if not request.limited_by:
                    sharing.turns.join(leaf, sharing.size_of(request))
                    return
            heapq.heappop(lines)  # set aside for this cycle
        sharing.turns.leave(leaf)

    def _serve_head(self, leaf: str) -> None:
        _, _, request = heapq.heappop(self._lines[leaf])
        successor = _serve_and_next(self._state, request, self._full, self._now)
        if successor is not None:
            heapq.heappush(self._lines[leaf], (successor.line[0], successor.sequence, successor))
