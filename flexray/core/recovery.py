"""What an earlier incarnation of the scheduler has left is put together again from what nodes and sessions know.

    RecoveryBegan ── SliceFound from nodes: booked at once ── LeaseFound from sessions: held again ──> RecoveryEnded

Until it ends nothing is granted, started or taken back. What nobody has said to hold then is stopped, since nobody can
tell what runs there, unless it was still starting: the next of its class takes that. Everybody stands in line by the
time of their first submission. A lease is held again if its slice is there, is of its environment and class, and nobody
else has said to hold it; otherwise its session is told that it is lost, and its request starts again where it may. What
is said of a lease before its session has said to hold it (sessions speak in any order) waits until then.
"""

from __future__ import annotations

import dataclasses

from flexray.core.arriving import arrive
from flexray.core.ending import ALIVE, PostMortem, displace
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import Recovering, State
from flexray.model.commands import AnswerResize, RevokeLease, StopSlice
from flexray.model.events import (
    Event,
    LeaseBlocked,
    LeaseCheckpointed,
    LeaseFound,
    LeaseReleased,
    LeaseUnblocked,
    LeaseYielded,
    RecoveryBegan,
    ResizeAsked,
    SliceEnded,
    SliceFound,
    StepsRan,
    TasksRan,
)
from flexray.model.lease import Placement, SessionId
from flexray.model.lifecycle import EndReason, RequestState, RequestStep, SliceState, StopReason

_OF_LEASES = (
    LeaseReleased, LeaseYielded, LeaseCheckpointed, TasksRan, StepsRan, LeaseBlocked, LeaseUnblocked,
)  # fmt: skip
#: A found slice in one of these states may be held again.
_TAKEN_UP_FROM = (SliceState.STARTING, SliceState.IDLE)


def begin(state: State, event: RecoveryBegan, now: float) -> None:
    """Nothing is given or taken from now on, until ``end``."""
    state.recovery = state.recovery or Recovering()


def postpones(state: State, event: Event) -> bool:
    """Whether an event has to wait; it is kept then."""
    recovery = state.recovery
    if recovery is None:
        return False
    if isinstance(event, ResizeAsked):
        recovery.resizes.append(event)
        return True
    if isinstance(event, _OF_LEASES) and state.holder(event.lease) is None:
        recovery.later.setdefault(event.lease, []).append(event)
        return True
    return False


def slice_found(state: State, event: SliceFound, now: float) -> list[Event]:
    """A node reports a slice. Returns what is to be said again of the lease on it."""
    known = state.slices.by_id.get(event.slice)
    if known is not None:
        _changed(state, known, event.placement, now)
        return []
    plans = [one for one in state.slices.pending.values() if one.placement.node == event.placement.node]
    displace(state, plans, now)  # what is there is there: plans look for another place
    record = state.slices.find(event, now)
    if record is None:
        state.strangers[event.slice] = None
        state.out.append(StopSlice(event.slice, event.placement.node, StopReason.DEVICE_LEFT))
        return []
    recovery = state.recovery
    if recovery is None:  # its node was away for too long: its holder was told that it is lost
        state.stop(record, StopReason.SESSION_ENDED, now)
        return []
    recovery.unclaimed[record.id] = event.state is not SliceState.STARTING
    claim = recovery.claims.get(record.id) if record.state in _TAKEN_UP_FROM else None
    if claim is None:
        return []
    del recovery.claims[record.id]
    return _decide(state, claim, now)


def lease_found(state: State, event: LeaseFound, now: float) -> list[Event]:
    """A session says that it holds a lease. Returns what is to be said again of it."""
    if event.submitted.session not in state.sessions or state.holder(event.lease.lease) is not None:
        return []  # a session that has ended, or a repeated message
    recovery, name = state.recovery, event.lease.slice
    if event.submitted.request.gang is not None:
        arrive(state, event.submitted, now)
    record = state.slices.by_id.get(name)
    may_come = record is None or record.state is SliceState.STOPPING  # then its end says what was running there
    if recovery is not None and may_come and name not in recovery.claims:
        recovery.claims[name] = event
        return []
    return _decide(state, event, now)


def ended(state: State, event: SliceEnded, now: float) -> list[Event]:
    """A slice has ended, perhaps one that is known only from who says to hold it, or not at all."""
    state.strangers.pop(event.slice, None)
    claim = state.recovery.claims.pop(event.slice, None) if state.recovery is not None else None
    if claim is None:
        return []
    return _refuse(state, claim, event.message, now, (event.running, event.cause, event.overrun))


def forget(state: State, session: SessionId) -> None:
    """A session has ended: what it said to hold is nobody's."""
    if state.recovery is not None:
        claims = state.recovery.claims
        for name in [name for name, claim in claims.items() if claim.submitted.session == session]:
            del claims[name]


def end(state: State, now: float) -> list[Event]:
    """Whoever has not spoken will not be waited for. Returns what was said too early, or has waited for this."""
    recovery = state.recovery
    if recovery is None:
        return []
    events: list[Event] = []
    for claim in list(recovery.claims.values()):
        events += _refuse(state, claim, "its node has not reported it since the scheduler was restarted", now)
    events += [event for said in recovery.later.values() for event in said]
    for name, may_run in recovery.unclaimed.items():
        record = state.slices.by_id.get(name)
        if record is not None and record.request is None and (may_run or not record.reusable):
            state.stop(record, StopReason.SESSION_ENDED, now)
    state.recovery = None
    state.order_by_age()
    return [*events, *recovery.resizes]


# -- one lease -----------------------------------------------------------------------------------


def _decide(state: State, claim: LeaseFound, now: float) -> list[Event]:
    """Hold a lease again, or say why not."""
    refusal = _refusal(state, claim)
    if refusal:
        return _refuse(state, claim, refusal, now)
    request = _request_of(state, claim, now)
    if request is None or request.state is not RequestState.QUEUED:
        return _refuse(state, claim, "its request has ended", now, over=True)
    recovery = state.recovery
    assert recovery is not None
    record = state.slices.by_id[claim.lease.slice]
    del recovery.unclaimed[record.id]
    _take_up(state, request, record, claim, now)
    return recovery.later.pop(claim.lease.lease, [])


def _refusal(state: State, claim: LeaseFound) -> str:
    """Why a lease cannot be held again, or ""."""
    recovery, name = state.recovery, claim.lease.slice
    session, submitted = claim.submitted.session, claim.submitted
    if recovery is None:
        closed = session in state.closed
        why = "session had not been heard of and was taken for dead" if closed else "session has come back too late"
        return f"its {why}, so that slice {name} was stopped"
    record = state.slices.by_id.get(name)
    if record is None or record.state is SliceState.STOPPING:
        return f"slice {name} has ended"
    if name not in recovery.unclaimed:
        return f"slice {name} is held by somebody else"
    if (record.environment, record.task_class) != (submitted.environment, submitted.task_class):
        return f"slice {name} is of another environment or class"
    return ""


def _request_of(state: State, claim: LeaseFound, now: float) -> RequestRecord | None:
    """The request of a lease, or the member of a gang, made again if need be; None where it cannot be."""
    name = claim.lease.lease.request
    if name not in state.requests and claim.submitted.request.gang is None:
        arrive(state, claim.submitted, now)
    return state.requests.get(name)


def _take_up(state: State, request: RequestRecord, record: SliceRecord, claim: LeaseFound, now: float) -> None:
    lease = claim.lease
    state.hold(request, record, now)
    request.leased_at = now - claim.held
    request.attempt, record.grants = lease.lease.attempt, lease.grant
    record.has_run = claim.ran
    if request.gang is not None:
        request.gang.since = max(request.gang.since, request.leased_at)
        request.gang.closing |= claim.closing
        state.touch(request)
    if claim.recalled:
        request.step(RequestStep.RECALL)
        state.slices.set_draining(record, True)
    if claim.stop:
        state.evictions[record.id] = now + state.options.grace_seconds
    if lease.placement != record.placement:  # it was given another size, and not told any more
        state.out.append(AnswerResize(request.session, lease.lease, 0, record.placement))


def _refuse(
    state: State, claim: LeaseFound, message: str, now: float, post_mortem: PostMortem = ALIVE, *, over: bool = False
) -> list[Event]:
    """Its session is told that a lease is lost; the request starts again where it may, and is not over."""
    submitted, lease = claim.submitted, claim.lease.lease
    again = submitted.restartable and not claim.closing and not over
    reason = EndReason.SLICE_LOST
    state.out.append(RevokeLease(submitted.session, lease, reason, message, again, *post_mortem))
    if submitted.request.gang is not None:
        _member_is_back(state, claim, again=again)
    elif again:
        arrive(state, dataclasses.replace(submitted, attempt=lease.attempt), now)
    return state.recovery.later.pop(lease, []) if state.recovery is not None else []


def _member_is_back(state: State, claim: LeaseFound, *, again: bool) -> None:
    """What follows for the gang is drawn in the next cycle."""
    member = state.requests.get(claim.lease.lease.request)
    if member is None or member.state is not RequestState.QUEUED:
        return
    if member.gang is not None:
        member.gang.closing |= claim.closing
    member.attempt = max(member.attempt, claim.lease.lease.attempt)
    state.touch(member)
    if not again:
        state.finish(member, RequestStep.FAIL)


def _changed(state: State, record: SliceRecord, placement: Placement, now: float) -> None:
    """A change of size that was under way is over: it has no more than was booked for it."""
    before = record.placement
    smaller = placement.share <= before.share and placement.memory <= before.memory
    if placement == before or not smaller or record.id in state.resizes:
        return
    state.slices.change_size(record, placement)
    request = state.holder_of(record)
    if request is not None:
        state.sharing.recharge(request, placement, now)
        state.out.append(AnswerResize(request.session, request.lease, 0, placement))
