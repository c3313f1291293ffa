"""Waits inside slices that can never end.

A task that waits for its own children keeps its slice meanwhile. If every device that
could take a child is held by such waiting tasks, nobody ever moves. This is deadlock
detection as in an operating system: assume that everything not blocked finishes and
gives its room back, let blocked tasks finish whose children then fit, repeat; what is
still blocked at the end is deadlocked (Coffman, Elphick, Shoshani 1971, section 4).
"""

from __future__ import annotations

from collections import Counter

from flexray.core.fixed_parts import granted
from flexray.core.gang_fit import fits_ever
from flexray.core.records import RequestRecord
from flexray.core.state import State
from flexray.model.lease import LeaseId, SessionId
from flexray.model.lifecycle import RequestState

_Room = tuple[int, int, int]
"""Share, memory and places of a device."""


def find_deadlock(state: State) -> list[tuple[RequestRecord, str]]:
    """Waiting requests that must fail to break a deadlock, each with the cycle in words. Changes nothing."""
    waiting: dict[tuple[SessionId, str], list[RequestRecord]] = {}
    running: dict[tuple[SessionId, str], list[LeaseId]] = {}
    for request in state.requests.values():
        key = (request.session, request.task_class)
        if request.stands_in_line:
            waiting.setdefault(key, []).append(request)
        elif request.state in (RequestState.LEASED, RequestState.DRAINING, RequestState.RESERVED):
            running.setdefault(key, []).append(request.lease)
    stuck = dict(state.blocked)
    while True:
        room = _room_without(state, list(stuck))
        freed = [
            lease
            for lease, blocked in stuck.items()
            if all(
                any(child not in stuck for child in running.get(key, ()))
                or any(_fits(state, child, room) for child in waiting.get(key, ()))
                or (key not in running and key not in waiting)
                for key in ((blocked.session, name) for name in blocked.waits_for)
            )
        ]
        if not freed:
            break
        for lease in freed:
            del stuck[lease]
    cycle = " -> ".join(_describe(state, lease) for lease in stuck)
    losers = {
        child.id: child
        for blocked in stuck.values()
        for name in blocked.waits_for
        for child in waiting.get((blocked.session, name), ())
    }
    return [(child, _message(state, child, cycle)) for child in losers.values()]


def _room_without(state: State, stuck: list[LeaseId]) -> dict[str, _Room]:
    """Per device, what is there once everything but the stuck leases has ended."""
    room = {n: (*row.total, row.places.all if row.places else 0) for n, row in state.pool.books.rows.items()}
    for lease in stuck:
        record = state.slice_of(state.requests[lease.request])
        if record is None:
            continue
        for device in record.placement.devices:
            share, memory, places = room[device]
            left = (share - record.placement.share, memory - record.placement.memory)
            room[device] = (*left, places & ~record.span)
    return room


def _fits(state: State, child: RequestRecord, room: dict[str, _Room]) -> bool:
    """Whether it finds its place, a gang those of enough members on one type."""
    request = child.request
    if not request.devices:
        return fits_ever(state.pool, request, child.pieces)
    groups: Counter[tuple[str, str]] = Counter()
    for device in state.pool.kinds.feasible_devices(request):
        share, memory, places = room[device.id]
        total = state.pool.books.rows[device.id].total
        grant = granted(request, device.type.memory, device.profiles)
        if request.devices == 1:
            groups[(device.node, device.type.name)] += grant.many(share, memory, places) if grant is not None else 0
        else:
            groups[(device.node, device.type.name)] += (share, memory) == total
    members: Counter[str] = Counter()
    for (_, kind), count in groups.items():
        members[kind] += count // request.devices
    return any(count >= child.pieces for count in members.values())


def _describe(state: State, lease: LeaseId) -> str:
    request = state.requests[lease.request]
    record = state.slice_of(request)
    where = ", ".join(record.placement.devices) if record else "?"
    return f"{request.task_class} (holds {request.request.describe()} on {where})"


def _message(state: State, child: RequestRecord, cycle: str) -> str:
    return (
        f"deadlock: {child.task_class} needs {child.request.describe()}, and every device that could hold it is held "
        f"by tasks that wait for it: {cycle} -> {child.task_class}. Ask for less in one of them, return the child's "
        f"Future instead of waiting for it, or add devices."
    )
