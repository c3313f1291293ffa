"""The life of a gang: it waits as a whole, starts together or not at all, and comes back together.

    waits ──> enough members get places ──> all their slices have started ──> granted in one go, runs
      ^                    ^                                                      │
      └── all are back ────┘ <────── the others are taken back <─── too few are left ┘

What happens to a member (a slice starts or is lost, a lease is yielded or released) is noted, and what follows for the
gang is drawn here, once a cycle. One that has lost a member starts again at once if there is room, its own included;
otherwise it stands in line and holds nothing: two gangs that sit on devices would wait for each other for ever.
"""

from __future__ import annotations

from flexray.core.ending import abandon, cancel, fail
from flexray.core.gang_places import commit, plan
from flexray.core.preempting import preempt
from flexray.core.records import GangRecord, RequestRecord
from flexray.core.state import State
from flexray.model.events import RequestSubmitted
from flexray.model.lease import LeaseId, RequestId
from flexray.model.lifecycle import EndReason, RecallReason, RequestState, StopReason, WaitReason
from flexray.model.request import Request


def make_gang(state: State, event: RequestSubmitted, request: Request, now: float) -> GangRecord:
    """A gang with all its members, none of which has a place. Its slices serve nobody else: nothing of it leaks."""
    assert request.gang is not None
    sequence = state.next_sequence()
    members = tuple(
        RequestRecord(
            RequestId(f"{event.id}.{index}"),
            event.session,
            event.environment,
            event.task_class,
            request,
            reusable=False,
            restartable=event.restartable,
            parent=event.parent,
            sequence=sequence,
            submitted=now - event.waited,
            attempt=event.attempt,
        )
        for index in range(request.gang.size)
    )
    movable = event.reusable and event.restartable
    gang = state.gangs[event.id] = GangRecord(event.id, event.session, request, members, movable)
    for member in members:
        member.gang = gang
        state.requests[member.id] = member
    return gang


def started(state: State, request: RequestRecord) -> None:
    """The slice of a member answers; it waits for the others."""
    record = state.slice_of(request)
    assert record is not None
    record.ready, request.reserve_reason = True, WaitReason.GANG
    state.touch(request)


def settle(state: State, now: float) -> None:
    """Draw what follows for gangs from what happened to their members."""
    while state.unsettled:
        name = next(iter(state.unsettled))
        del state.unsettled[name]
        gang = state.gangs.get(name)
        if gang is not None:
            _settle(state, gang, now)


def _settle(state: State, gang: GangRecord, now: float) -> None:
    if gang.closing:
        for member in [*gang.queued, *gang.reserved]:
            cancel(state, member, now)
    live = gang.live
    lost = any(member.state is RequestState.FAILED for member in gang.members)
    if lost and not gang.closing and _going_on(gang) < gang.needed:
        fail(state, gang.leader, EndReason.SLICE_LOST, "a member of the gang is lost, and it does not start again", now)
    elif not live:
        state.past.gang_ended(gang.id, gang.members[0].id)
        del state.gangs[gang.id]
    elif gang.closing:
        return
    elif gang.waits:
        gang.returning = False
        state.stand_in_line(gang.leader)
    elif gang.returning and len(gang.coming) < gang.needed:
        _give_up_places(state, gang, now)
    elif gang.returning and gang.leaving:
        return
    elif _going_on(gang) >= gang.needed:
        gang.returning = False
        _grant_if_ready(state, gang, now)
    else:
        take_gang_back(state, gang, RecallReason.GANG, now)
        _keep_places(state, gang, now)


def _going_on(gang: GangRecord) -> int:
    """How many members are left to run: those that do, or, before any does, those that are to start."""
    begun = len(gang.live) > len(gang.queued) + len(gang.reserved)
    return len(gang.running if begun else gang.reserved)


def _grant_if_ready(state: State, gang: GangRecord, now: float) -> None:
    joining = gang.reserved
    slices = [state.slice_of(member) for member in joining]
    if not joining or not all(record is not None and record.ready for record in slices):
        return
    together = [member for member in gang.members if member in joining or member in gang.running]
    roster = tuple(LeaseId(m.id, m.attempt + (m.state is RequestState.RESERVED)) for m in together)
    gang.since = now
    for member, record in zip(joining, slices, strict=True):
        assert record is not None
        state.grant(member, record, now, roster)


def _keep_places(state: State, gang: GangRecord, now: float) -> None:
    """Plan a new start before others take the room, if it waits for nothing but the gang's own leases to end."""
    slices = state.slices
    others = [one for one in slices.by_id.values() if one.draining and one.id not in state.evictions]
    for record in others:
        slices.set_draining(record, False)
    planned = plan(state, gang, gang.live, gang.needed, now)
    for record in others:
        slices.set_draining(record, True)
    for one in planned:
        if one.member.state is RequestState.QUEUED:
            commit(state, [one], now)
        else:
            one.member.next, one.member.choice = one.slice.id, one.choice
            for victim in one.victims:
                state.stop(victim, StopReason.MAKE_ROOM, now)


def _give_up_places(state: State, gang: GangRecord, now: float) -> None:
    """What was planned is not enough: nothing is held for a part of a gang."""
    for member in gang.leaving:
        state.drop_next(member)
    for member in gang.reserved:
        record = state.slice_of(member)
        state.requeue(member)
        if record is not None:
            abandon(state, record, now)


def take_gang_back(state: State, gang: GangRecord, reason: RecallReason, now: float, winner: str = "") -> None:
    """All members give up what they have: those that run are asked to stop, the others do so at once."""
    gang.returning = True
    _give_up_places(state, gang, now)
    for member in gang.running:
        record = state.slice_of(member)
        if record is not None:
            preempt(state, record, reason, now, winner)


def grow(state: State, now: float) -> None:
    """Gangs that run with fewer members than they may have get more where nobody else can use the room.

    Only those that have stored a checkpoint since the last change, which all members begin anew with, and not more
    often than work is moved.
    """
    every = state.options.rematch_seconds
    for gang in [gang for gang in state.gangs.values() if gang.elastic] if every else []:
        joining = gang.queued
        if gang.closing or gang.returning or gang.reserved or not joining or not gang.runs:
            continue
        slices = [record for record in map(state.slice_of, gang.running) if record is not None]
        if len(slices) < len(gang.live) - len(joining) or not any(one.safe_at > gang.since for one in slices):
            continue  # one is just being taken back, or the work since the last change would be lost
        if now < gang.since + every:
            state.look_again(gang.since + every)
            continue
        kind, _ = state.pool.kind_of(slices[0].placement)
        commit(state, plan(state, gang, joining, 1, now, kind), now)
