"""How requests, leases and slices end: by their session's wish, lost, or because they can never run.

What the loss of a member means for its gang is drawn once a cycle (``gangs.py``); a failure is one of the whole gang.
"""

from __future__ import annotations

from flexray.core.gang_fit import most_ever
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.errors import InternalError
from flexray.model.commands import FailRequest, RevokeLease
from flexray.model.lifecycle import (
    LIVE,
    EndReason,
    RequestState,
    RequestStep,
    SliceState,
    SliceStep,
    StopReason,
)

PostMortem = tuple[tuple[int, ...], str, tuple[int, int] | None]
"""Calls that were running when a slice ended, the cause, and MiB used and held where that was memory."""

ALIVE: PostMortem = ((), "", None)
_HOLDERS = (RequestState.LEASED, RequestState.DRAINING)


# -- requests ------------------------------------------------------------------------------------


def cancel(state: State, request: RequestRecord, now: float) -> None:
    """Its session no longer wants it."""
    record = state.slice_of(request)
    if request.state in LIVE:
        state.finish(request, RequestStep.CANCEL)
    if record is not None:
        abandon(state, record, now)


def abandon(state: State, record: SliceRecord, now: float) -> None:
    """What a slice was made for is gone, or goes on elsewhere, before it got a lease."""
    state.slices.disown(record)
    if record.state is SliceState.PENDING:
        state.slices.step(record, SliceStep.END, now)
    elif not record.reusable or record.promised or not state.environment_lives(record.environment):
        state.stop(record, StopReason.CANCELLED, now)


def fail(
    state: State,
    request: RequestRecord,
    reason: EndReason,
    message: str,
    now: float,
    removed: tuple[tuple[str, int], ...] = (),
) -> None:
    """It can never run, nor its gang: tell its session, once, and give up what was reserved for it."""
    gang = request.gang
    members = [request] if gang is None else gang.live
    slices = [state.slice_of(member) for member in members]
    for member in members:
        if member.state in _HOLDERS:
            state.out.append(RevokeLease(member.session, member.lease, reason, message, requeued=False))
        state.finish(member, RequestStep.FAIL)
        state.past.failed(member, reason, message)
    if gang is not None:
        state.past.gang_ended(gang.id, request.id)
        del state.gangs[gang.id]
    name = request.id if gang is None else gang.id
    state.out.append(FailRequest(request.session, name, reason, message, removed))
    for record in slices:
        if record is not None:
            abandon(state, record, now)


def fail_infeasible(state: State, request: RequestRecord, now: float) -> None:
    """No device of the present inventory could ever hold it: say so, with what each reason removed."""
    removed = state.pool.removed_by(request.request)
    rows = tuple(sorted((reason.value, count) for reason, count in removed.items()))
    listing = ", ".join(f"{count} by {name}" for name, count in rows) or "none"
    types = sorted({kind.type.name for kind in state.pool.kinds.present()})
    if request.gang is None:
        problem = f"fits none of the pool's {len(state.pool.books.rows)} devices"
    else:
        most = max(most_ever(state.pool, request.request).values(), default=0)
        problem = f"needs {request.gang.needed} members on devices of one type, and at most {most} would ever fit"
    message = (
        f"{request.request.describe()} {problem} (removed: {listing}). Types here: {', '.join(types)}. "
        f"Ask for less, allow other types, or add nodes."
    )
    fail(state, request, EndReason.INFEASIBLE, message, now, rows)


def withdraw(state: State, request: RequestRecord, now: float) -> None:
    """Its session is gone: end the request, and stop what runs for it rather than trust that it stopped."""
    record = state.slice_of(request)
    if request.state in _HOLDERS and record is not None:
        state.finish(request, RequestStep.CANCEL)
        record.request = None
        state.stop(record, StopReason.SESSION_ENDED, now)
    else:
        cancel(state, request, now)


def release(state: State, request: RequestRecord, now: float) -> None:
    """Its session handed the lease back: the slice stays warm if it can serve somebody again."""
    record = state.slice_of(request)
    if request.gang is not None and not request.gang.returning:
        request.gang.closing = True
    if record is not None and not record.has_run and request.gang is None:
        state.past.ran(state.pool, request, state.pool.kind_of(record.placement)[0], now - request.leased_at)
    state.finish(request, RequestStep.RELEASE)
    if record is None:
        raise InternalError(f"request {request.id} held a lease without a slice")
    wanted = state.slices.room_awaited(record)
    state.slices.disown(record)
    if record.draining and wanted:
        state.stop(record, StopReason.MAKE_ROOM, now)
    elif not record.reusable:
        state.stop(record, StopReason.NOT_REUSABLE, now)
    elif not state.environment_lives(record.environment):
        state.stop(record, StopReason.SESSION_ENDED, now)
    else:
        state.slices.step(record, SliceStep.IDLE, now)


# -- leases and slices ---------------------------------------------------------------------------


def end_lease(
    state: State, record: SliceRecord, reason: EndReason, message: str, post_mortem: PostMortem = ALIVE
) -> None:
    """What a slice was for has to go on without it: the request starts again, or fails."""
    request = state.holder_of(record)
    record.request = None
    if request is None:
        return
    if request.next == record.id:  # it still has the lease that this was to follow
        request.next = None
        state.touch(request)
        return
    held = request.state in _HOLDERS
    again = request.restartable and not (request.gang is not None and request.gang.closing)
    state.blocked.pop(request.lease, None)
    if held:
        state.out.append(RevokeLease(request.session, request.lease, reason, message, again, *post_mortem))
    if held and not again:
        state.finish(request, RequestStep.FAIL)
    else:
        state.requeue(request)


def end_slice(
    state: State, record: SliceRecord, reason: EndReason, message: str, now: float, post_mortem: PostMortem = ALIVE
) -> None:
    """A slice is gone: what it was for goes on elsewhere, unless no slice can be started for it."""
    request = state.holder_of(record)
    starting = record.state is SliceState.STARTING and not record.ready
    end_lease(state, record, reason, message, post_mortem)
    state.slices.step(record, SliceStep.END, now)
    if request is not None and starting and reason is EndReason.SLICE_LOST:
        _failed_to_start(state, request, message, now)
    for device in record.placement.devices:
        if device not in _offered(state, record.placement.node) and device not in state.slices.by_device:
            state.pool.remove_device(device)


def _failed_to_start(state: State, request: RequestRecord, message: str, now: float) -> None:
    """After several times a request fails; a gang that runs goes on without the member that was to join."""
    request.start_failures += 1
    if request.start_failures < state.options.start_attempts:
        return
    if request.gang is not None and request.gang.runs:
        cancel(state, request, now)
    else:
        fail(state, request, EndReason.START_FAILED, message, now)


def _offered(state: State, node: str) -> set[str]:
    return {device.id for device in state.pool.nodes[node].devices}


def displace(state: State, records: list[SliceRecord], now: float) -> None:
    """Give up PENDING slices; their requests look for another place."""
    for record in records:
        end_lease(state, record, EndReason.DEVICE_LOST, "its place is no longer to be had")
        state.slices.step(record, SliceStep.END, now)


def keep_draining_room(state: State, request: RequestRecord, now: float) -> None:
    """A recalled lease waits for something itself: its room does not come, so nobody may count on it."""
    record = state.slice_of(request)
    if record is not None and record.draining:
        planned = [s for device in record.placement.devices for s in state.slices.pending_on(device)]
        displace(state, list({s.id: s for s in planned}.values()), now)
        record.promised, record.lent_until = False, None
        state.slices.set_draining(record, False)
