"""Rounds in the live pool: preemptible work, and what waits, is matched to device types again now and then.

``rounds.py`` says who is to be where; here that becomes leases taken back and slices planned.
Requests of one size, queue and priority are matched with each other: only they can, and may, take each other's room.
A round is carried out for a size as a whole or not at all, and leaves a request where it is
for at least the time between two rounds.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import NamedTuple

import numpy as np

from flexray.core.fixed_parts import granted
from flexray.core.placement import Pool
from flexray.core.preempting import loses, may_preempt, preempt
from flexray.core.reclaim import idle_slices_to_stop
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.rounds import WAITING, Options, Standing, assign
from flexray.core.state import State
from flexray.model.amounts import WHOLE
from flexray.model.lifecycle import RecallReason, SliceStep, StopReason, WaitReason
from flexray.model.request import Request

#: So many waiting requests of a size take part, those whose turn is next.
_MOST_WAITING = 256
#: What a request is taken to need still where no run time is known.
_UNKNOWN_SECONDS = 600.0


class Member(NamedTuple):
    """A request that takes part in a round; ``record`` is its slice, None while it waits."""

    request: RequestRecord
    record: SliceRecord | None


class Change(NamedTuple):
    """A member that is to be elsewhere: on a device type, or (None) waiting."""

    member: Member
    kind: str | None


class Planned(NamedTuple):
    """A change with the slice planned for it, and the idle slices that have to make room."""

    change: Change
    slice: SliceRecord | None
    victims: list[SliceRecord]


class Rounds:
    """Keeps the time between rounds."""

    def __init__(self) -> None:
        self._due: float | None = None

    def run(self, state: State, now: float) -> None:
        """Hold a round if one is due, and something may be moved."""
        every = state.options.rematch_seconds
        if not every or not state.preemptible:
            return
        if self._due is None or now >= self._due:
            self._due = now + every
            _hasten(state, now)
            groups = _groups(state, now)
            if groups:
                _rounds(state, list(groups.values()), now)
        state.look_again(self._due)


def _hasten(state: State, now: float) -> None:
    """Leases that are awaited were asked back when what runs is done; for who has waited long they are stopped."""
    before = now - state.options.patience_seconds
    for pending in list(state.slices.pending.values()):
        waiter = state.holder_of(pending)
        if waiter is None or waiter.next == pending.id or waiter.idle_since > before:
            continue
        there = (one for device in pending.placement.devices for one in state.slices.by_device[device].values())
        for record in [one for one in there if one.draining]:
            request = may_preempt(state, record, now)
            if request is not None and request.queue == waiter.queue:  # a recall looks at priorities itself
                preempt(state, record, RecallReason.REMATCH, now, waiter.id)
                request.sequence = state.next_sequence()  # behind the one it makes room for


def _groups(state: State, now: float) -> dict[tuple[object, ...], list[Member]]:
    """The members of each size of which something may be moved."""
    groups: dict[tuple[object, ...], list[Member]] = {}
    for request in state.preemptible.values():
        record = state.slice_of(request)
        settled = now - request.leased_at >= state.options.rematch_seconds
        if record is None or not record.placement.devices:
            continue  # it waits, or has nothing to do with devices
        if settled and not record.draining and may_preempt(state, record, now) is request:
            groups.setdefault(_size(request), []).append(Member(request, record))
    if groups:
        for request in state.waiting()[:_MOST_WAITING]:
            members = groups.get(_size(request)) if request.gang is None else None
            if members is not None and state.sharing.limited_by(request) is None:
                members.append(Member(request, None))
    return groups


def _rounds(state: State, groups: list[list[Member]], now: float) -> None:
    """One size after the other. A lease that was asked back when it is done frees no room that can be counted on."""
    slices = state.slices
    someday = [one for one in slices.by_id.values() if one.draining and one.id not in state.evictions]
    for record in someday:
        slices.set_draining(record, False)
    for members in groups:
        _round(state, members, now)
    for record in someday:
        slices.set_draining(record, True)


def _size(request: RequestRecord) -> tuple[object, ...]:
    """Who can take whose room, and may: between queues and priorities it is taken back by other rules."""
    asked = request.request
    amounts = (asked.devices, asked.share, asked.memory, *asked.host, asked.isolation)
    return (request.queue, asked.priority, *amounts)


def _round(state: State, members: list[Member], now: float) -> None:
    names = sorted({kind.type.name for kind in state.pool.kinds.present()})
    standing = _standing(state, members, names, now)
    held = np.bincount(standing.place[standing.place >= 0], minlength=len(names))
    free = _free(state.pool, members[0].request.request, names, len(members))
    found = assign(standing, [int(h) + f for h, f in zip(held, free, strict=True)], _options(state, members))
    changes = [
        Change(member, None if to == WAITING else names[to])
        for member, at, to in zip(members, standing.place, found, strict=True)
        if at != to
    ]
    _carry_out(state, changes, now)


def _standing(state: State, members: list[Member], names: list[str], now: float) -> Standing:
    chooser = state.pool.chooser
    speeds = [_wanted(m.request, chooser.likely_speeds(m.request.task_class, m.request.request)) for m in members]
    place = [WAITING if m.record is None else names.index(state.pool.kind_of(m.record.placement)[0]) for m in members]
    running = [0.0 if m.record is None else now - m.request.leased_at for m in members]
    pace = [0.0 if at == WAITING else one.get(names[at], 0.0) for at, one in zip(place, speeds, strict=True)]
    return Standing(
        rates=np.array([[one.get(name, 0.0) for name in names] for one in speeds]),
        place=np.array(place, dtype=np.int64),
        elapsed=np.array([now - m.request.submitted for m in members]),
        idle=np.array([now - m.request.idle_since if m.record is None else 0.0 for m in members]),
        served=np.array([m.request.served for m in members]) + np.array(running) * np.array(pace),
        loses=np.array([0.0 if m.record is None else loses(m.request, m.record, now) for m in members]),
    )


def _wanted(request: RequestRecord, speeds: dict[str, float]) -> dict[str, float]:
    """Speeds on the types a request may be given; one that passes over a slow device does not want it now either."""
    if not request.passes_over:
        return speeds
    fastest = max(speeds.values(), default=0.0)
    return {name: speed for name, speed in speeds.items() if speed == fastest}


def _options(state: State, members: list[Member]) -> Options:
    chooser = state.pool.chooser
    known = [chooser.seconds_for(m.request.task_class, m.request.request) for m in members]
    best = [min(seconds.values()) for seconds in known if seconds]
    # lengths vary: a short one must not pass for timely until it has waited as long as a typical one runs
    prior = min(statistics.median(best), state.options.patience_seconds) if best else _UNKNOWN_SECONDS
    return Options(prior=prior, patience=state.options.patience_seconds)


def _free(pool: Pool, request: Request, names: list[str], most: int) -> list[int]:
    """How many requests of a size free and idle room takes on each type, up to ``most``."""
    pool.landscape.refresh()
    found = dict.fromkeys(names, 0)
    for nodes in pool.landscape.inhabited():
        cores = nodes.state.cores // request.cpus if request.cpus else most
        memory = nodes.state.memory // request.host_memory if request.host_memory else most
        fits = dict.fromkeys(names, 0)
        for _, room, count in nodes.rooms:
            kind = pool.kinds.all[room.kind]
            grant = granted(request, kind.type.memory, kind.profiles)
            if grant is None or not request.devices:
                continue
            if request.devices > 1:
                fits[kind.type.name] += count * (room.share == WHOLE and room.memory >= grant.memory)
            else:
                fits[kind.type.name] += count * grant.many(room.share, room.memory, room.places)
        for name, number in fits.items():
            here = min(number // max(1, request.devices), cores, memory)
            found[name] = min(most, found[name] + here * len(nodes.members))
    return [found[name] for name in names]


# -- carrying it out -----------------------------------------------------------------------------


def _carry_out(state: State, changes: list[Change], now: float) -> None:
    """Plan everything, and do it only if all of it finds a place."""
    leaving = [change.member.record for change in changes if change.member.record is not None]
    for record in leaving:
        state.slices.set_draining(record, True)
    planned: list[Planned] = []
    for change in changes:
        plan = _plan(state, change, now)
        if plan is None:
            for one in planned:
                _undo(state, one, now)
            for record in leaving:
                state.slices.set_draining(record, False)
            return
        planned.append(plan)
    for one in planned:
        _commit(state, one, now)


def _undo(state: State, planned: Planned, now: float) -> None:
    if planned.slice is not None:
        planned.change.member.request.next = None
        planned.slice.request = None
        state.slices.step(planned.slice, SliceStep.END, now)


def _plan(state: State, change: Change, now: float) -> Planned | None:
    request = change.member.request
    if change.kind is None:
        return Planned(change, None, [])
    there = dataclasses.replace(request.request, types=(change.kind,))
    choice = state.pool.chooser.place(there, state.options.policy, request.task_class, request.near)
    if choice is None:
        return None
    victims = idle_slices_to_stop(state.slices, state.pool, choice.placement, request.request.host)
    record = state.slices.plan(request, choice.placement, now)
    if change.member.record is not None:
        request.next = record.id
    return Planned(change, record, victims)


def _commit(state: State, planned: Planned, now: float) -> None:
    request, record = planned.change.member
    for victim in planned.victims:
        state.stop(victim, StopReason.MAKE_ROOM, now)
    if record is None:
        assert planned.slice is not None
        state.reserve(request, planned.slice, WaitReason.MAKING_ROOM)
        return
    preempt(state, record, RecallReason.REMATCH, now)
    if planned.slice is None:
        request.sequence = state.next_sequence()  # behind the one it makes room for
