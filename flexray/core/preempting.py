"""Taking a lease back in the middle of its work: the session is asked, has its grace period, and then it is over.

    preempt ──> RecallLease(stop) ──> LeaseYielded, LeaseReleased, or the end of the grace period ──> evicted

A request that is moved has its next slice planned beforehand, so that nobody else takes
the room; it goes there the moment its lease is over. Choosing whom is done elsewhere.
"""

from __future__ import annotations

from flexray.core.ending import end_lease
from flexray.core.ends import SLICE_START_SECONDS
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.commands import RecallLease
from flexray.model.lease import RequestId
from flexray.model.lifecycle import (
    EndReason,
    RecallReason,
    RequestState,
    RequestStep,
    SliceState,
    SliceStep,
    StopReason,
)

#: A request loses no more than this part of its life by being moved, so that nothing only goes round in circles: for
#: what is taken back for quotas and priorities no bound is needed, since there something else rises (docs/queues.md).
_PART_LOST = 0.05
#: Seconds that it may lose before that counts.
_LOST_AT_FIRST = 60.0


def may_preempt(state: State, record: SliceRecord, now: float) -> RequestRecord | None:
    """The request whose lease on a slice may be taken back in the middle, or None."""
    request = state.holder_of(record)
    held = record.state is SliceState.HELD and record.id not in state.evictions
    if request is None or request.id not in state.preemptible or not held or request.lease in state.blocked:
        return None
    return None if moved_enough(request, now) else request


def moved_enough(request: RequestRecord, now: float) -> bool:
    """Whether being taken back has cost a request so much of its life that it is left alone for a while."""
    return request.lost > _LOST_AT_FIRST + _PART_LOST * (now - request.submitted)


def loses(request: RequestRecord, record: SliceRecord, now: float) -> float:
    """Seconds that being taken back now costs a request that runs, at most: its start, and work done again."""
    since_safe = now - max(request.leased_at, record.safe_at)
    return SLICE_START_SECONDS + min(since_safe, request.request.checkpoint_every or float("inf"))


def preempt(state: State, record: SliceRecord, reason: RecallReason, now: float, winner: str = "") -> None:
    """Ask the session to stop what runs on a slice. Its room counts as coming free from now on."""
    request = state.holder_of(record)
    assert request is not None
    if request.state is RequestState.LEASED:  # it may have been asked already to hand it back when it is done
        request.step(RequestStep.RECALL)
    lost = loses(request, record, now)
    request.lost += lost
    gang = state.gangs.get(RequestId(winner))
    taker = gang.leader if gang is not None else state.requests.get(RequestId(winner))
    state.past.preempted(request, record, taker, (reason, lost), now)
    state.slices.set_draining(record, True)
    state.evictions[record.id] = due = now + state.options.grace_seconds
    state.look_again(due)
    state.out.append(RecallLease(request.session, request.lease, stop=True, reason=reason, winner=winner))


def evict_overdue(state: State, now: float) -> None:
    """End the leases whose grace period is over."""
    for name, due in list(state.evictions.items()):
        record = state.slices.by_id.get(name)
        if record is None or not record.draining:
            del state.evictions[name]  # handed back, or lost, in time
        elif due <= now:
            evict(state, record, now)
            state.stop(record, StopReason.PREEMPTED, now)
        else:
            state.look_again(due)


def evict(state: State, record: SliceRecord, now: float) -> None:
    """A preempted lease is over: its request goes to the slice planned for it, or back to its place in line."""
    request = state.holder_of(record)
    del state.evictions[record.id]
    if request is not None:
        kind, _ = state.pool.kind_of(record.placement)
        speed = state.pool.chooser.likely_speeds(request.task_class, request.request).get(kind, 1.0)
        request.served += (now - request.leased_at) * speed
        request.idle_since = now
    end_lease(state, record, EndReason.PREEMPTED, "another request needs its place, or it goes on elsewhere")


def yielded(state: State, request: RequestRecord, now: float) -> None:
    """The session has stopped what ran: nothing has to be stopped by force, so the slice stays warm if nobody waits."""
    record = state.slice_of(request)
    if record is None or record.id not in state.evictions:
        return
    wanted = state.slices.room_awaited(record)
    evict(state, record, now)
    if not record.stays:
        state.stop(record, StopReason.RESIZED if record.reusable else StopReason.NOT_REUSABLE, now)
    elif wanted or not state.environment_lives(record.environment):
        state.stop(record, StopReason.MAKE_ROOM, now)
    else:
        state.slices.disown(record)
        state.slices.step(record, SliceStep.IDLE, now)
