"""Small things let through: requests that cannot delay a reservation run in its room meanwhile (EASY backfill).

A request that has waited for a lease term gets a planned slice (``recall.py``): whatever of its room is free
idles until the rest has come free. Of that free part a request takes what it needs, if its own run time is known
and it is done before the reservation can start; and where that is far off, or nobody knows when it is, also
preemptible work that saves its state, once the reservation has waited for a term itself: it is stopped when the
rest is there.

What was lent like that counts as draining from the moment it holds its share, so that no more is promised than
comes free. Its session is not asked for it at once, or it would send nothing, but one run time before the
reservation can start: what runs then is done in time, and nothing new begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from flexray.core.choosing import covers
from flexray.core.ends import SLICE_START_SECONDS
from flexray.core.fixed_parts import granted
from flexray.core.preempting import loses, may_preempt, moved_enough, preempt
from flexray.core.reclaim import covered, lacking_now, needed_of
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.reserved import Gap, first_start, gaps, reservations_at, share_room
from flexray.core.state import State
from flexray.model.devices import Device, DeviceState
from flexray.model.lease import Placement
from flexray.model.lifecycle import RecallReason, SliceState
from flexray.model.request import Request

#: A reservation that is expected to start in so many seconds is far off: work that is stopped then has been worth it.
_FAR_OFF = 30.0


class _Loan(NamedTuple):
    """Where a request can borrow room: until when, and how long it runs there; None if it will have to be stopped."""

    placement: Placement
    until: float
    seconds: float | None


def lend(state: State, request: RequestRecord, now: float) -> bool:
    """Start a request in room that is reserved and not needed yet, if there is some. False when it has to wait."""
    loan = _loan(state, request, now)
    if loan is None:
        return False
    recall_at = float("inf") if loan.seconds is None else loan.until - loan.seconds
    state.lend(request, loan.placement, loan.until, recall_at, now)
    return True


def may_borrow(state: State, request: RequestRecord, now: float) -> bool:
    """Whether there is reserved room in which a request delays nobody."""
    return _loan(state, request, now) is not None


def _loan(state: State, request: RequestRecord, now: float) -> _Loan | None:
    """The place where the request is done first, of equals the first by the fixed order of devices."""
    if state.gaps is None:
        state.gaps = gaps(state, now)
    if not state.gaps:
        return None
    asked = request.request
    if not asked.devices or asked.gang is not None:
        return None
    seconds = state.pool.chooser.seconds_for(request.task_class, asked)
    shortest = min(seconds.values(), default=float("inf")) + SLICE_START_SECONDS
    stoppable = request.id in state.preemptible and asked.checkpoint_every and not moved_enough(request, now)
    wide = [gap for gap in state.gaps if _is_wide(state, gap, asked)]
    if not any(now + shortest <= gap.until or (stoppable and _far_off(state, gap, now)) for gap in wide):
        return None
    loans = (_at(state, request, there, seconds, bool(stoppable), now) for there in _places(state, request, wide))
    return min(filter(None, loans), key=lambda loan: _order(state, loan), default=None)


def _is_wide(state: State, gap: Gap, asked: Request) -> bool:
    """Whether there is enough of the device's share, places aside."""
    device = state.pool.devices[gap.device]
    if not device.profiles:
        return gap.share >= asked.share
    grant = granted(asked, device.type.memory, device.profiles)
    return grant is not None and gap.share >= grant.share


def _far_off(state: State, gap: Gap, now: float) -> bool:
    """Whether the reservations of a gap have idled for a term, and will for long, or nobody knows for how long."""
    if gap.waits < (term := state.options.lease_term_seconds):
        state.look_again(now + term - gap.waits)
        return False
    return gap.known - now >= _FAR_OFF


def _places(state: State, request: RequestRecord, wide: list[Gap]) -> Iterator[list[tuple[Gap, Device]]]:
    """The devices, alone or as many of a kind and node as are asked for, whose free part takes the request."""
    pool, asked = state.pool, request.request
    alike: dict[tuple[str, int], list[tuple[Gap, Device]]] = {}
    for gap in wide:
        device, row = pool.devices[gap.device], pool.books.rows[gap.device]
        if device.state is not DeviceState.READY or not pool.ever_fits(asked):
            continue
        if asked.devices > 1 and row.free != row.total:
            continue
        place = pool.kinds.place(asked, (device,), row.places.free if row.places is not None else 0)
        if place is None or not covers(row.free, (place.share, place.memory)):
            continue
        number = pool.kinds.number(device)
        if not pool.kinds.allows(pool.kinds.all[number], asked) or not covers(
            pool.host.rows[device.node].free, asked.host
        ):
            continue
        there = alike.setdefault((device.node, number), [])
        there.append((gap, device))
        if len(there) == asked.devices:
            yield alike.pop((device.node, number))


def _at(
    state: State,
    request: RequestRecord,
    there: list[tuple[Gap, Device]],
    seconds: dict[str, float],
    stoppable: bool,
    now: float,
) -> _Loan | None:
    """What a request can borrow on some devices, by what is reserved there at this moment of the cycle."""
    asked, first = request.request, there[0][1]
    places = state.pool.books.rows[first.id].places
    placement = state.pool.kinds.place(
        asked, tuple(device for _, device in there), places.free if places is not None else 0
    )
    if placement is None:
        return None
    uncontested = covers(state.pool.host.rows[first.node].uncontested(), asked.host)
    reserved = reservations_at(state, first.node, placement.devices, (0, 0) if uncontested else asked.host)
    until, takes = first_start(state, reserved, now), seconds.get(first.type.name)
    if takes is not None and now + SLICE_START_SECONDS + takes <= until:
        return _Loan(placement, until, takes)
    if stoppable and all(_far_off(state, gap, now) for gap, _ in there):
        return _Loan(placement, max(now, until - state.options.grace_seconds), None)
    return None


def _order(state: State, loan: _Loan) -> tuple[float, int]:
    rows = state.pool.books.rows
    return loan.seconds or float("inf"), min(rows[device].rank for device in loan.placement.devices)


# -- when the rest of the room is there -------------------------------------------------------------


def stop_overdue(state: State, now: float) -> None:
    """Preempt what was lent room and is in the way of a reservation that could start without it."""
    promised = map(state.slices.by_id.get, state.promised)
    overdue = [record for record in promised if record is not None and _overdue(state, record, now)]
    for planned in state.slices.pending.values() if overdue else ():
        there = [record for record in overdue if share_room(record, planned)]
        going = [record for record in there if record.id in state.evictions]
        going += _done_within(state, planned, state.options.grace_seconds, now)
        lacking = lacking_now(state.pool, planned, going)
        stoppable = [r for r in there if r not in going and may_preempt(state, r, now) is not None]
        chosen = needed_of(sorted(stoppable, key=lambda r: _cost(state, r, now)), lacking, planned.placement.node)
        if chosen and covered(lacking):
            for record in chosen:
                preempt(state, record, RecallReason.BACKFILL, now, planned.request or "")


def _overdue(state: State, record: SliceRecord, now: float) -> bool:
    if record.state is not SliceState.HELD or record.lent_until is None:
        return False
    if record.lent_until > now:
        state.look_again(record.lent_until)
    return record.lent_until <= now


def _done_within(state: State, planned: SliceRecord, grace: float, now: float) -> list[SliceRecord]:
    """Slices that a planned one waits for and that are expected to end by the time preempted work has stopped."""
    promised = (record for record in state.slices.on_node(planned.placement.node) if record.draining)
    own = (record for record in promised if record.lent_until is None or record.lent_until > now)
    return [r for r in own if r.id not in state.evictions and not r.has_run and now < r.expected_end <= now + grace]


def _cost(state: State, record: SliceRecord, now: float) -> tuple[float, str]:
    request = state.holder_of(record)
    return (loses(request, record, now) * record.placement.share if request is not None else 0.0, record.id)
