"""Why requests wait, and what would let them start."""

from __future__ import annotations

from flexray.core.gang_fit import fits_now
from flexray.core.records import RequestRecord
from flexray.core.state import State
from flexray.model.devices import DeviceState
from flexray.model.lifecycle import RequestState, WaitReason

_LISTED = 5
_NEEDS = {
    WaitReason.NEXT_CYCLE: "there is room; the next cycle places it",
    WaitReason.NO_DEVICES: "a node has to join and report its devices",
    WaitReason.NO_ROOM: "a slice on a device that could hold it has to end",
    WaitReason.FRAGMENTED: "free parts of several devices have to come together on one: a slice there has to end",
    WaitReason.USED_BY_RAY: "plain Ray work has to release a device",
    WaitReason.SCALING: "a node has to join, or a device that was given back to Ray has to be claimed again",
    WaitReason.HOST_CPUS: "host cores have to come free on a node with room",
    WaitReason.DEVICES_SICK: "a device that could hold it has to become healthy, or to be uncordoned",
    WaitReason.FASTER_SOON: "a faster device has to come free; it takes a slower one when that takes too long",
    WaitReason.QUEUE_LIMIT: "work of its queue (or of one above it) has to end, or the limit to be raised",
    WaitReason.MAKING_ROOM: "its place is chosen; slices there are being stopped",
    WaitReason.SLICE_STARTING: "its slice is being started",
    WaitReason.GANG: "others of its gang have to start, or to come back",
}


def wait_reasons(state: State, requests: list[RequestRecord]) -> list[tuple[RequestRecord, str]]:
    """Each request that waits with its reason; requests of one shape wait for the same."""
    known: dict[tuple[object, ...], str] = {}
    found = []
    for one in requests:
        request = one if one.gang is None or not one.gang.waits else one.gang.leader
        if request.state is RequestState.RESERVED:
            found.append((one, request.reserve_reason.value))
            continue
        if request.limited_by:
            found.append((one, WaitReason.QUEUE_LIMIT.value))
            continue
        if request.passes_over:
            found.append((one, WaitReason.FASTER_SOON.value))
            continue
        if not request.stands_in_line:
            found.append((one, WaitReason.GANG.value))
            continue
        shape = request.shape
        if shape not in known:
            known[shape] = _why_not_now(state, request).value
        behind = known[shape] == WaitReason.NEXT_CYCLE.value and state.sharing.limited_by(request) is not None
        found.append((one, WaitReason.QUEUE_LIMIT.value if behind else known[shape]))
    return found


def _why_not_now(state: State, request: RequestRecord) -> WaitReason:
    reason = state.pool.why_not_now(request.request)[0]
    if request.gang is None:
        return reason
    if _fit(state, request) >= request.pieces:
        return WaitReason.NEXT_CYCLE
    some = reason in (WaitReason.NEXT_CYCLE, WaitReason.FRAGMENTED)  # for fewer members than it needs
    return WaitReason.NO_ROOM if some else reason


def _fit(state: State, request: RequestRecord) -> int:
    """How many members of its gang there is room for on devices of one type."""
    return max(fits_now(state.pool, request.request).values(), default=0) if request.gang is not None else 1


def needs(state: State, request: RequestRecord, reason: WaitReason) -> str:
    gang = request.gang
    if gang is None:
        return _NEEDS[reason]
    if reason is WaitReason.GANG:
        if request.state is RequestState.RESERVED:
            return "its slice is ready; others of its gang are still being started"
        if gang.runs:
            return f"its gang runs with {len(gang.running)} of {len(gang.live)} members; it joins when there is room"
        return "others of its gang have yet to give up their slices; then it waits again as a whole"
    if not gang.waits:
        return _NEEDS[reason]
    fit = min(_fit(state, gang.leader), len(gang.live))
    return f"{fit} of the {gang.needed} members it needs fit now, on devices of one type: {_NEEDS[reason]}"


def unready(state: State, request: RequestRecord) -> str:
    """Which devices that could hold a request take no work, and why; the first few."""
    away = (DeviceState.READY, DeviceState.UNCLAIMED, DeviceState.RELEASED)
    found = [device for device in state.pool.kinds.feasible_devices(request.request) if device.state not in away]
    each = [f"{device.id} ({device.reason or device.state.value})" for device in found[:_LISTED]]
    more = [f"{len(found) - _LISTED} more"] if len(found) > _LISTED else []
    verb = "1 device is" if len(found) == 1 else f"{len(found)} devices are"
    return f"{verb} cordoned: {', '.join([*each, *more])}"
