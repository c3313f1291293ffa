"""Work moves together where a waiting request fits in total but on no device.

    device A: x x x .      device B: . . x .       a request for half a device waits
    device A: x x x x      device B: . . . .       one lease of B goes on on A

The slice of the request, and the next one of each lease that moves, are planned beforehand (as in rounds), so that
nobody takes their room; nobody loses more than a stop and a start. So work of any queue and priority may be moved,
if it is preemptible and saves its state, and if that loses less than it gains:

    loses    seconds since the last checkpoint, and a start, x share, of all that move
    gains    seconds until a lease is expected to end that makes room, else those waited so far, x share
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from flexray.core.fixed_parts import granted, put
from flexray.core.preempting import loses, may_preempt, preempt
from flexray.core.reclaim import covered, idle_slices_to_stop, missing_for, needed_of
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.devices import Device, DeviceState
from flexray.model.lease import Placement
from flexray.model.lifecycle import RecallReason, SliceStep, StopReason, WaitReason

#: A cycle looks at so many shapes that wait, and for each at so many devices.
_SHAPES, _DEVICES = 4, 32
#: A request has to wait for so many seconds before work is moved for it.
_WAITS = 1.0


class Mover(NamedTuple):
    """A lease that may move, with what that loses in device-seconds."""

    record: SliceRecord
    request: RequestRecord
    lost: float


class Step(NamedTuple):
    """A slice that is planned for a request, and the idle ones in its way."""

    request: RequestRecord
    slice: SliceRecord
    idle: list[SliceRecord]


def defragment(state: State, now: float) -> None:
    """Move work together for those first in line that fit in total, on one device each, and nowhere now."""
    movers = _movers(state, now) if state.preemptible and state.lines else []
    if not movers:
        return
    heads = [r for r in map(state.head, list(state.lines)) if r is not None]
    heads.sort(key=lambda r: (-r.request.priority, r.sequence))
    seen: set[tuple[object, ...]] = set()
    for request in heads:
        if len(seen) >= _SHAPES:
            break
        if request.shape in seen or not _waits_for_parts(state, request, now):
            continue
        seen.add(request.shape)
        if _move_for(state, request, movers, now):
            movers = [mover for mover in movers if not mover.record.draining]


def _movers(state: State, now: float) -> list[Mover]:
    """Leases on a part of a device that may move, those that lose least first."""
    found = []
    for request in state.preemptible.values():
        record = state.slice_of(request)
        if record is None or record.draining or len(record.placement.devices) != 1 or request.next is not None:
            continue
        saves = request.request.checkpoint_every is not None or record.safe_at > request.leased_at
        settled = now - request.leased_at >= state.options.min_run_seconds
        if saves and settled and may_preempt(state, record, now) is request:
            found.append(Mover(record, request, loses(request, record, now) * record.placement.share))
    return sorted(found, key=lambda mover: (mover.lost, mover.record.id))


def _waits_for_parts(state: State, request: RequestRecord, now: float) -> bool:
    if request.request.devices != 1 or request.passes_over or request.request.gang is not None:
        return False
    if now - request.idle_since < _WAITS:
        state.look_again(request.idle_since + _WAITS)
        return False
    fragmented = state.pool.why_not_now(request.request)[0] is WaitReason.FRAGMENTED
    return fragmented and state.sharing.limited_by(request) is None


def _move_for(state: State, request: RequestRecord, movers: list[Mover], now: float) -> bool:
    """Move the work of one device for a request: where that loses least, and less than is gained."""
    options = _options(state, request, movers)
    for _, place, chosen, lost in sorted(options, key=lambda one: (one[3], one[0].id, one[1].start)):
        if lost >= _gain(state, request, place, now):
            state.look_again(max(now + _WAITS, request.idle_since + lost / place.share))
            return False
        steps = _plan(state, request, place, chosen, now)
        if steps is not None:
            _commit(state, steps, chosen, now)
            return True
    return False


def _options(
    state: State, request: RequestRecord, movers: list[Mover]
) -> list[tuple[Device, Placement, list[Mover], float]]:
    """Devices that take the request once some leases have left them; which ones, and what moving these loses."""
    pool, found = state.pool, []
    there: dict[str, list[Mover]] = {}
    for mover in movers:
        there.setdefault(mover.record.placement.devices[0], []).append(mover)
    feasible = (d for d in pool.kinds.feasible_devices(request.request) if d.id in there)
    for device in [d for d in feasible if d.state is DeviceState.READY][:_DEVICES]:
        for place in _ways(request, device):
            missing = missing_for(pool, place, request.request.host, count_idle=True)
            chosen = needed_of([mover.record for mover in there[device.id]], missing, device.node)
            if chosen and covered(missing):
                names = {record.id for record in chosen}
                leaving = [mover for mover in there[device.id] if mover.record.id in names]
                found.append((device, place, leaving, sum(mover.lost for mover in leaving)))
    return found


def _ways(request: RequestRecord, device: Device) -> list[Placement]:
    """Where a request could be on a device; several places only where that is cut into fixed parts."""
    grant = granted(request.request, device.type.memory, device.profiles)
    if grant is None:
        return []
    return [put(device.node, (device.id,), grant, span) for span in grant.spans or (0,)]


def _gain(state: State, request: RequestRecord, place: Placement, now: float) -> float:
    """Device-seconds of waiting that a place saves, so far as anything is known."""
    kind, _ = state.pool.kind_of(place)
    ends = (end for end, record in state.ends.coming(kind, now) if record.placement.share >= place.share)
    return (next(ends, 2 * now - request.idle_since) - now) * place.share


def _plan(state: State, request: RequestRecord, place: Placement, chosen: list[Mover], now: float) -> list[Step] | None:
    """Plan the slice of the request, and one elsewhere for each lease that moves; None if one finds no place."""
    for mover in chosen:
        state.slices.set_draining(mover.record, True)
    steps = [_step(state, request, place, now)]
    for mover in chosen:
        there = dataclasses.replace(mover.request.request, types=(state.pool.kind_of(mover.record.placement)[0],))
        choice = state.pool.chooser.place(there, state.options.policy, mover.request.task_class, mover.request.near)
        if choice is None or not _is_there(state, choice.placement, there.host, mover):
            _undo(state, steps, chosen, now)
            return None
        steps.append(_step(state, mover.request, choice.placement, now))
    return steps


def _is_there(state: State, place: Placement, host: tuple[int, int], mover: Mover) -> bool:
    """Whether it is another device, where the work goes on at once: the end of no other lease has to be waited for."""
    row, span = state.pool.books.rows[place.devices[0]], state.pool.span_of(place)
    moves = place.devices != mover.record.placement.devices
    same_node = place.node == mover.record.placement.node  # then it takes its host cores along
    return (
        moves
        and row.spare((place.share, place.memory))
        and not span & ~(row.places.spare() if row.places is not None else 0)
        and (same_node or state.pool.host.rows[place.node].spare(host))
    )


def _step(state: State, request: RequestRecord, place: Placement, now: float) -> Step:
    idle = idle_slices_to_stop(state.slices, state.pool, place, request.request.host)
    return Step(request, state.slices.plan(request, place, now), idle)


def _undo(state: State, steps: list[Step], chosen: list[Mover], now: float) -> None:
    for step in steps:
        step.slice.request = None
        state.slices.step(step.slice, SliceStep.END, now)
    for mover in chosen:
        state.slices.set_draining(mover.record, False)


def _commit(state: State, steps: list[Step], chosen: list[Mover], now: float) -> None:
    first, *others = steps
    for step in steps:
        for idle in step.idle:
            state.stop(idle, StopReason.MAKE_ROOM, now)
    for step in others:
        step.request.next = step.slice.id
    for mover in chosen:
        preempt(state, mover.record, RecallReason.DEFRAGMENT, now, first.request.id)
    state.reserve(first.request, first.slice, WaitReason.MAKING_ROOM)
