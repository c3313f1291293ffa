"""The line that requests stand in, as it is shown: its first, and how many there are of each kind.

A long line is read as the many short ones that it is kept as (``State.lines``): what stands in one is alike.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice

from flexray.core.records import RequestRecord
from flexray.core.state import State
from flexray.core.waits import wait_reasons
from flexray.model.lease import RequestId
from flexray.model.lifecycle import RequestState
from flexray.model.snapshot import ClassView

_CLASSES = 100
"""So many kinds are shown, those with the most requests: actors are each a kind of their own."""


def placed(state: State) -> list[RequestRecord]:
    """The requests that have a slice, or one that is being started, first submitted first."""
    found = [(state.holder_of(record), record.id) for record in state.slices.by_id.values()]
    # One that is about to move has two: the slice that it holds is its.
    own = [one for one, name in found if one is not None and one.slice == name]
    return sorted(own, key=lambda one: (one.sequence, one.id))


def first_in_line(state: State, most: int | None) -> list[tuple[RequestRecord, int]]:
    """(request, position) of who stands in line, gangs with all their members, the first ``most``; None: all of them.

    Last come members that their gang runs without: they have no position, which is 0.
    """
    rows = [_standing(state, names) for names in state.lines.values()]
    merged = heapq.merge(*rows, key=lambda one: (-one.request.priority, one.sequence))
    each = ((r, place) for place, one in enumerate(merged, start=1) for r in _members(one))
    late = ((r, 0) for gang in state.gangs.values() if not gang.waits for r in gang.queued)
    return list(islice((pair for part in (each, late) for pair in part), most))


def classes_waiting(state: State) -> tuple[ClassView, ...]:
    """The kinds of requests with most in line."""
    counts: dict[tuple[object, ...], tuple[int, RequestRecord]] = {}
    for names in state.lines.values():
        first = next(_standing(state, names), None)
        if first is not None:
            key = (first.line[0], first.queue, _task(first), first.shape)
            before, oldest = counts.get(key, (0, first))
            counts[key] = (before + _count(state, first, names), min(oldest, first, key=lambda one: one.sequence))
    most = heapq.nsmallest(_CLASSES, counts.values(), key=lambda one: (-one[0], one[1].sequence))
    reasons = [reason for _, reason in wait_reasons(state, [first for _, first in most])]
    return tuple(_view(first, count, reason) for (count, first), reason in zip(most, reasons, strict=True))


def _standing(state: State, names: Iterable[RequestId]) -> Iterator[RequestRecord]:
    """Who really stands in a line, where those who have left it are still named."""
    for name in names:
        request = state.requests.get(name)
        if request is not None and request.stands_in_line:
            yield request


def _count(state: State, first: RequestRecord, names: Iterable[RequestId]) -> int:
    """Requests of a line; all of it are gangs, or none."""
    if first.gang is not None:
        return sum(len(list(_members(one))) for one in _standing(state, names))
    requests, queued = state.requests, RequestState.QUEUED
    return sum(1 for name in names if (one := requests.get(name)) is not None and one.state is queued)


def _members(one: RequestRecord) -> Iterable[RequestRecord]:
    """Those that wait with the one that stands in line for them."""
    return (one,) if one.gang is None else one.gang.queued


def _task(request: RequestRecord) -> str:
    return request.task_class.split("/")[0]


def _view(first: RequestRecord, count: int, reason: str) -> ClassView:
    asked, priority = first.request.describe(), first.request.priority
    return ClassView(_task(first), first.queue, priority, asked, count, reason, first.submitted)
