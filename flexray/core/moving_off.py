"""Work moves off devices that are sick, or that an operator drains; on one that is lost, it ends.

At once: slices that nobody holds are stopped, and what may be preempted is (a gang as a whole): it has its grace
period, and starts again elsewhere. Everything else is asked to hand its lease back when what runs is done; an actor's
holder is told, so that it can have another one made elsewhere first. What is still there when the time for draining is
over is preempted too, where it can start again; what cannot (an actor) ends: its lease is lost.
"""

from __future__ import annotations

from flexray.core.ending import displace, end_lease
from flexray.core.gangs import take_gang_back
from flexray.core.preempting import preempt
from flexray.core.records import GangRecord, RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.commands import RecallLease
from flexray.model.devices import MOVES_OFF, Cordon, DeviceState
from flexray.model.lifecycle import EndReason, RecallReason, RequestState, RequestStep, SliceState, StopReason


def devices_changed(state: State, node: str, now: float) -> None:
    """States of a node's devices have changed: note which of them are to be empty, and until when.

    What was planned on one that takes nothing looks for another place.
    """
    for device in state.pool.kinds.on_node(node):
        if device.state in MOVES_OFF:
            state.emptying.setdefault(device.id, now + state.options.drain_seconds)
    displace(state, state.slices.pending_on_unready(node), now)


def set_cordon(state: State, name: str, cordon: Cordon | None, now: float) -> None:
    """An operator cordons a device, or no longer; one that is not there is seen to when it is reported."""
    state.cordons.by_device.pop(name, None)
    if cordon is not None:
        state.cordons.by_device[name] = cordon
    known = state.pool.devices.get(name)
    for device in state.pool.nodes[known.node].devices if known is not None else ():
        if device.id == name:
            state.pool.add_device(state.cordons.applied(device))
            devices_changed(state, device.node, now)
            state.sharing.pool_changed()


def move_off(state: State, now: float) -> None:
    """Have what is on devices that are to be empty go."""
    for name, due in list(state.emptying.items()):
        device = state.pool.devices.get(name)
        if device is None or device.state not in MOVES_OFF:
            del state.emptying[name]
            for record in state.slices.by_device.get(name, {}).values():
                record.warned = False
            continue
        there = [r for r in state.slices.by_device.get(name, {}).values() if r.state is not SliceState.STOPPING]
        for record in there:
            if device.state is DeviceState.LOST:
                _lose(state, record, StopReason.DEVICE_LEFT, f"device {name} is lost: {device.reason}", now)
            else:
                why = RecallReason.DRAIN if device.state is DeviceState.DRAINING else RecallReason.DEVICE_SICK
                message = f"device {name} is drained ({device.reason})"
                _move(state, record, why, now, message if now >= due else None)
        if any(record.state is SliceState.HELD for record in there) and now < due:
            state.look_again(due)


def _move(state: State, record: SliceRecord, why: RecallReason, now: float, overdue: str | None) -> None:
    """Have one slice go. ``overdue`` says what its holder is told once the time for that is over; None before."""
    request = state.holder_of(record)
    if record.state is not SliceState.HELD or request is None:
        _lose(state, record, StopReason.DEVICE_DRAINS, "", now)
    elif record.id in state.evictions:
        return
    elif request.gang is not None:
        _move_gang(state, request.gang, record, why, now, overdue)
    elif _may_be_stopped(state, record, request, late=overdue is not None):
        preempt(state, record, why, now)
    elif overdue is not None:
        _lose(state, record, StopReason.DEVICE_DRAINS, overdue, now)
    elif record.reusable and request.state is RequestState.LEASED:
        _ask_back(state, record, request, why)
    elif not record.reusable and not record.warned:
        record.warned = True  # it may stay: nobody counts on its room before it is lost
        state.out.append(RecallLease(request.session, request.lease, reason=why))


def _may_be_stopped(state: State, record: SliceRecord, request: RequestRecord, *, late: bool) -> bool:
    """Whether it starts again elsewhere, and may be stopped now; what waits for its own work only once it is late."""
    if late:
        return record.reusable and request.restartable
    return request.id in state.preemptible and request.lease not in state.blocked


def _move_gang(
    state: State, gang: GangRecord, record: SliceRecord, why: RecallReason, now: float, overdue: str | None
) -> None:
    """A gang goes as a whole: what it has done is worth nothing without the member that has to leave."""
    if gang.returning:
        return
    blocked = any(member.lease in state.blocked for member in gang.live)
    if gang.movable and not gang.closing and (overdue or (gang.preemptible and not blocked)):
        take_gang_back(state, gang, why, now)
    elif overdue:
        _lose(state, record, StopReason.DEVICE_DRAINS, overdue, now)


def _ask_back(state: State, record: SliceRecord, request: RequestRecord, why: RecallReason) -> None:
    """Ask for a lease whose work runs to its end; no call is sent there any more."""
    request.step(RequestStep.RECALL)
    record.promised, record.lent_until = False, None
    state.slices.set_draining(record, True)
    state.out.append(RecallLease(request.session, request.lease, reason=why))


def _lose(state: State, record: SliceRecord, why: StopReason, message: str, now: float) -> None:
    """A slice goes with what it was for, which starts again elsewhere if it can."""
    if record.state is SliceState.PENDING:
        displace(state, [record], now)
        return
    end_lease(state, record, EndReason.DEVICE_LOST, message)
    state.stop(record, why, now)
