"""When a planned slice can start, at the earliest, and who would delay it. Changes nothing.

A planned slice is a reservation: its amounts are pledged, and it starts when leases that were
asked back have ended. How much of a device (or of a node's host) is there then follows from
their expected ends:

    free + stopping ──end──> + first lease ──end──> + second lease ... until it covers what is reserved

What is taken meanwhile delays nobody if it ends before that moment, or leaves enough over at that moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from flexray.core.books import Amounts, Row
from flexray.core.records import SliceRecord

if TYPE_CHECKING:
    from flexray.core.state import State

#: Amounts, and places as bits (0 where only amounts count).
_Part = tuple[int, int, int]
#: A row of the books with what a slice wants of it, and the slices that hold something there.
_Want = tuple[Row, _Part, list[tuple[SliceRecord, _Part]]]
_NOTHING: _Part = (0, 0, 0)


class Gap(NamedTuple):
    """A device whose free part is reserved.

    Attributes:
        share: what is free of it, in thousandths.
        until: when the first of the reservations there can start, at the earliest.
        known: when that is known to be possible; infinite where a lease in its way ends nobody knows when.
        waits: for how long all of them have waited.
    """

    device: str
    share: int
    until: float
    known: float
    waits: float


def gaps(state: State, now: float) -> list[Gap]:
    """The devices where something is free that reservations wait with, in the order in which these were planned."""
    found: dict[str, Gap | None] = {}
    for planned in state.slices.pending.values():
        for device in planned.placement.devices:
            share = state.pool.books.rows[device].free[0]
            if device not in found and share > 0:
                there = reservations_at(state, planned.placement.node, (device,), (0, 0))
                found[device] = _gap(state, device, share, there, now) if there else None
    return [gap for gap in found.values() if gap is not None]


def _gap(state: State, device: str, share: int, there: list[SliceRecord], now: float) -> Gap:
    known = min(earliest_start(state, one, now, unknown=float("inf")) for one in there)
    return Gap(device, share, first_start(state, there, now), known, now - max(one.since for one in there))


def reservations_at(state: State, node: str, devices: tuple[str, ...], host: Amounts) -> list[SliceRecord]:
    """Slices planned on some devices, or for host amounts of a node of which these are a part."""
    if not state.slices.pending:
        return []
    planned = {one.id: one for device in devices for one in state.slices.pending_on(device)}
    if any(host):
        planned |= {name: p for name, p in state.slices.pending.items() if _shares_host(p, node, host)}
    return [one for one in planned.values() if not _follows_a_lease(state, one)]


def first_start(state: State, planned: Iterable[SliceRecord], now: float) -> float:
    """When the first of some reservations can start, at the earliest."""
    return min((earliest_start(state, one, now) for one in planned), default=float("inf"))


def earliest_start(
    state: State, planned: SliceRecord, now: float, without: SliceRecord | None = None, unknown: float = 0.0
) -> float:
    """When a reservation can start if leases end as expected, on the core's clock; never later than it does.

    Args:
        without: a slice that takes room there until after that.
        unknown: when a lease is taken to end of which that is not known.

    Returns infinity where what was promised does not suffice.
    """
    wants = _wants(state, planned, without)
    return max((_covered_at(state, want, taken, now, unknown) for want, taken in wants), default=now)


def delays(state: State, record: SliceRecord, now: float, ends: float | None) -> bool:
    """Whether a planned slice would keep one that was planned before it waiting if it started now.

    Args:
        ends: when it would be done, if that is known.
    """
    before = list(itertools.takewhile(lambda one: one is not record, state.slices.pending.values()))
    beside = [one for one in before if share_room(one, record) and not _follows_a_lease(state, one)]
    for planned in beside:
        start = earliest_start(state, planned, now)
        if (ends is None or ends > start) and earliest_start(state, planned, now, record) > start:
            return True
    return False


def _frees_at(state: State, record: SliceRecord, now: float, unknown: float) -> float:
    """When a slice whose room is promised gives it back."""
    if record.id in state.evictions:
        return now
    known = not record.has_run and record.expected_end > now
    if record.lent_until is not None:  # it is stopped when the room is needed
        stopped = record.lent_until + (state.options.grace_seconds if unknown else 0.0)
        return max(now, min(stopped, record.expected_end) if known else stopped)
    return record.expected_end if known else max(now, unknown)


def _follows_a_lease(state: State, planned: SliceRecord) -> bool:
    """Whether it was planned for when the lease of its own request, which moves, is over."""
    holder = state.holder_of(planned)
    return holder is not None and holder.next == planned.id


def share_room(one: SliceRecord, other: SliceRecord) -> bool:
    """Whether two slices are on a device, or hold host amounts, of which the other could take the room."""
    mine, there = one.placement, other.placement
    return any(device in there.devices for device in mine.devices) or _shares_host(one, there.node, other.host)


def _shares_host(record: SliceRecord, node: str, host: Amounts) -> bool:
    return record.placement.node == node and any(map(min, record.host, host))


def _wants(state: State, planned: SliceRecord, without: SliceRecord | None) -> Iterator[tuple[_Want, _Part]]:
    """What a planned slice wants of each row, with what another one takes there."""
    place, slices, pool = planned.placement, state.slices, state.pool
    for device in place.devices:
        there = [(one, _on_device(one)) for one in slices.by_device.get(device, {}).values()]
        besides = without is not None and device in without.placement.devices
        taken = _on_device(without) if without is not None and besides else _NOTHING
        yield (pool.books.rows[device], _on_device(planned), there), taken
    row = pool.host.rows[place.node]
    taken = _on_host(without) if without is not None else _NOTHING
    if any(planned.host) and not _covers(_less((*row.free, 0), taken), _on_host(planned)):
        yield (row, _on_host(planned), [(one, _on_host(one)) for one in slices.on_node(place.node)]), taken


def _on_device(record: SliceRecord) -> _Part:
    return (record.placement.share, record.placement.memory, record.span)


def _on_host(record: SliceRecord) -> _Part:
    return (*record.host, 0)


def _covered_at(state: State, want: _Want, taken: _Part, now: float, unknown: float) -> float:
    """When a row covers what is wanted of it, if ``taken`` is not given back before."""
    row, need, there = want
    places = (row.places.free, row.places.stopping) if row.places is not None else (0, 0)
    have = _less(_plus((*row.free, places[0]), (*row.stopping, places[1])), taken)
    if _covers(have, need):
        return now
    leaving = [
        (_frees_at(state, record, now, unknown), record.id, amounts) for record, amounts in there if record.draining
    ]
    for end, _, amounts in sorted(leaving):
        have = _plus(have, amounts)
        if _covers(have, need):
            return end
    return float("inf")


def _plus(part: _Part, other: _Part) -> _Part:
    return (part[0] + other[0], part[1] + other[1], part[2] | other[2])


def _less(part: _Part, other: _Part) -> _Part:
    return (part[0] - other[0], part[1] - other[1], part[2] & ~other[2])


def _covers(part: _Part, need: _Part) -> bool:
    return part[0] >= need[0] and part[1] >= need[1] and not need[2] & ~part[2]
