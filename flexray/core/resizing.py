"""A running slice gets another share or memory of its device.

    ask       the session wants it: refused at once, or under way
    go_on     once a cycle: what waited for idle slices to end begins; who has lost its lease is told
    done      the agent has done it
    refused   the agent could not

It does not stand in line. A slice grows into what is free on its device now, or held by idle slices, and promised to
nobody; otherwise it is refused. While a change is under way the larger of both sizes is booked and charged. A slice
that has another size than its class is not given to anybody else, and what runs on it teaches nothing of its class.
"""

from __future__ import annotations

import dataclasses

from flexray.core.books import Amounts
from flexray.core.choosing import covers
from flexray.core.reclaim import missing_for, needed_of
from flexray.core.records import RequestRecord, Resize, SliceRecord
from flexray.core.state import State
from flexray.model.amounts import MemoryMiB, Share, format_memory, share_as_float, share_of
from flexray.model.commands import AnswerResize, ResizeSlice
from flexray.model.devices import Device, DeviceState
from flexray.model.events import ResizeAsked, ResizeRefused, SliceResized
from flexray.model.lease import Placement, SessionId, SliceId
from flexray.model.lifecycle import SliceState, StopReason

_OVER = "the lease is over"


def ask(state: State, event: ResizeAsked, now: float) -> None:
    """Begin, or refuse with what is in the way."""
    request = state.holder(event.lease)
    record = state.slice_of(request) if request is not None else None
    if request is None or record is None:
        state.out.append(AnswerResize(SessionId(""), event.lease, event.number, None, f"{event.lease}: {_OVER}"))
        return
    before = record.placement
    resize = Resize(event.lease, request.session, event.number, before, before, record.resized)
    refusal = _never(state, record)
    if refusal:
        _answer(state, resize, None, refusal)
        return
    resize.after = after = _size(before, state.pool.devices[before.devices[0]], event)
    refusal = _not_now(state, request, record, after)
    if refusal:
        _answer(state, resize, None, refusal)
        return
    if after == before:
        _answer(state, resize, before)
        return
    record.resized = True
    state.resizes[record.id] = resize
    if not _begin(state, request, record, resize, now):
        for idle in _in_the_way(state, record, after):
            state.stop(idle, StopReason.MAKE_ROOM, now)


def go_on(state: State, now: float) -> None:
    """Begin what has its room now, and give up what will not get it."""
    for name, resize in list(state.resizes.items()):
        request, record = state.holder(resize.lease), state.slices.by_id.get(name)
        if request is None or record is None or record.state is not SliceState.HELD:
            del state.resizes[name]
            _answer(state, resize, None, _OVER)
        elif not resize.begun and not _begin(state, request, record, resize, now):
            lacking = _no_room(state, record, resize.after)
            if lacking:
                del state.resizes[name]
                record.resized = resize.was_resized
                _answer(state, resize, None, lacking)


def done(state: State, event: SliceResized, now: float) -> None:
    """The slice has its new size."""
    _settle(state, event.slice, "", now)


def refused(state: State, event: ResizeRefused, now: float) -> None:
    """The slice keeps its size."""
    _settle(state, event.slice, event.message, now)


def _settle(state: State, name: SliceId, refusal: str, now: float) -> None:
    resize = state.resizes.get(name)
    request = state.holder(resize.lease) if resize is not None else None
    record = state.slices.by_id.get(name)
    if resize is None or not resize.begun or request is None or record is None:
        return
    del state.resizes[name]
    _take(state, request, record, resize.before if refusal else resize.after, now)
    if refusal:
        record.resized = resize.was_resized
    _answer(state, resize, None if refusal else record.placement, refusal)


def _begin(state: State, request: RequestRecord, record: SliceRecord, resize: Resize, now: float) -> bool:
    """Tell the agent, if the room is free. False if it is not."""
    growth, row = _growth(record.placement, resize.after), state.pool.books.rows[record.placement.devices[0]]
    if any(growth) and not (covers(row.free, growth) and covers(_spare(state, record), growth)):
        return False
    larger = dataclasses.replace(
        resize.after,
        share=max(resize.before.share, resize.after.share),
        memory=max(resize.before.memory, resize.after.memory),
    )
    _take(state, request, record, larger, now)
    resize.begun = True
    state.out.append(ResizeSlice(record.id, resize.after))
    return True


def _take(state: State, request: RequestRecord, record: SliceRecord, placement: Placement, now: float) -> None:
    state.slices.change_size(record, placement)
    state.sharing.recharge(request, placement, now)


def _answer(state: State, resize: Resize, placement: Placement | None, refusal: str = "") -> None:
    state.out.append(AnswerResize(resize.session, resize.lease, resize.number, placement, refusal))


def _size(place: Placement, device: Device, event: ResizeAsked) -> Placement:
    """What is asked; memory that was the share's part of the device stays so, other memory stays as it is."""
    share = place.share if event.share is None else event.share
    memory = event.memory
    if memory is None:
        follows = place.memory == share_of(device.type.memory, place.share)
        memory = MemoryMiB(share_of(device.type.memory, share)) if follows else place.memory
    burst = place.burst if place.burst > share else Share(0)
    return dataclasses.replace(place, share=share, memory=memory, burst=burst)


def _growth(before: Placement, after: Placement) -> Amounts:
    return max(0, after.share - before.share), max(0, after.memory - before.memory)


# -- why not -------------------------------------------------------------------------------------


def _never(state: State, record: SliceRecord) -> str:
    """Why this slice cannot change its size, or ""."""
    if len(record.placement.devices) != 1:
        what = "several whole devices" if record.placement.devices else "no device"
        return f"a slice of {what} has no size that could change; ask for a new slice"
    device = state.pool.devices[record.placement.devices[0]]
    if device.profiles:
        part = record.placement.profile or "fixed"
        return f"a {part} part of {device.id} cannot change its size while it runs; ask for a new slice"
    if record.id in state.resizes:
        return "another change of its size is under way; wait for it"
    return ""


def _not_now(state: State, request: RequestRecord, record: SliceRecord, after: Placement) -> str:
    """Why it cannot have this size now, or ""."""
    if not any(_growth(record.placement, after)):
        return ""
    device = state.pool.devices[after.devices[0]]
    if device.state is not DeviceState.READY:
        return f"{device.id} is {device.state.value}: nothing grows there"
    if record.draining:
        return "the pool asks for this slice back: it cannot grow"
    limited = state.sharing.growth_limited_by(request, after)
    if limited is not None:
        return f"queue {limited!r} would exceed its limit; ask for less, or have the limit raised"
    return _no_room(state, record, after)


def _no_room(state: State, record: SliceRecord, after: Placement) -> str:
    growth, spare = _growth(record.placement, after), _spare(state, record)
    if covers(spare, growth):
        return ""
    share, memory = (max(0, amount) for amount in spare)
    more = f"{share_as_float(growth[0]):g} of its compute and {format_memory(growth[1])}"
    return (
        f"it needs {more} more of {after.devices[0]}, where {share_as_float(share):g} and {format_memory(memory)} "
        f"are free; ask for at most that much more, or for a new slice, which may go elsewhere"
    )


def _spare(state: State, record: SliceRecord) -> Amounts:
    """What is free on its device, or comes free at once, and promised to nobody."""
    row = state.pool.books.rows[record.placement.devices[0]]
    share, memory = (row.free[k] + row.idle[k] + row.stopping[k] - row.pledged[k] for k in (0, 1))
    return share, memory


def _in_the_way(state: State, record: SliceRecord, after: Placement) -> list[SliceRecord]:
    """Idle slices that have to end first, as few as will do."""
    place, growth = record.placement, _growth(record.placement, after)
    row = state.pool.books.rows[place.devices[0]]
    more = dataclasses.replace(place, share=Share(growth[0]), memory=MemoryMiB(growth[1]))
    missing = missing_for(state.pool, more, (0, 0), count_idle=False)
    # Leases that were asked back may go on for long: unlike a new slice, this does not count on them.
    missing[place.devices[0]][:2] = [growth[k] - row.free[k] - row.stopping[k] + row.pledged[k] for k in (0, 1)]
    return needed_of(state.slices.idle_on(place.node), missing, place.node)
