"""Recalling leases, so that nobody waits for ever behind a client with endless work.

A recalled lease loses nothing: its session finishes what runs, hands it back and asks
again, behind those who waited.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from flexray.core.choosing import Choice
from flexray.core.ending import displace
from flexray.core.gang_places import place_gang
from flexray.core.landscape import host_levels
from flexray.core.placement import Pool
from flexray.core.preempting import preempt
from flexray.core.reclaim import idle_slices_to_stop, missing_for, needed_of
from flexray.core.records import GangRecord, RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.core.victims import Victim, fewest_for_gang, first_that_do, spare_members
from flexray.model.commands import RecallLease
from flexray.model.devices import DeviceState
from flexray.model.lease import Placement
from flexray.model.lifecycle import RecallReason, RequestState, RequestStep, SliceState
from flexray.model.request import Request, memory_needed

#: A cycle stops looking for recalls after this many shapes in vain: each look costs a filter over the pool.
_RECALLS_PER_CYCLE = 8


class Recalls:
    """Recalls leases for those who have waited long, and lets these take other room that comes free first."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._turn = 0

    def for_starving(self, now: float) -> None:
        """A lease that has been held for a term makes room for a request that has waited for one."""
        state = self._state
        before = now - state.options.lease_term_seconds
        first = [r for r in map(state.head, list(state.lines)) if r is not None]
        heads = [r for r in first if r.submitted <= before and not r.passes_over]
        heads.sort(key=lambda r: (-r.request.priority, r.sequence))
        hopeless: set[tuple[object, ...]] = set()
        for request in self._in_turn(heads):
            shape = (request.request.priority, request.shape)
            if shape in hopeless or state.sharing.limited_by(request) is not None:
                continue
            found = self._make_room(request, before, now)
            if not found:
                hopeless.add(shape)
                if len(hopeless) >= _RECALLS_PER_CYCLE:
                    break

    def _make_room(self, request: RequestRecord, before: float, now: float) -> bool:
        """Recall what a request needs, and give it its place. False, and nothing, if that is not to be had."""
        state, gang = self._state, request.gang
        if gang is not None:
            records = leases_for_gang(state, request, gang, before, now)
            for record in records:
                self._recall(record, gang.id, now)
            return bool(records) and place_gang(state, gang, now)
        found = leases_to_recall(state, request, before)
        if found is None:
            return False
        placement, records = found
        for record in records:
            self._recall(record, request.id, now)
        self._reserve(request, placement, now)
        return True

    def _recall(self, record: SliceRecord, winner: str, now: float) -> None:
        """A gang does not hand back a member's lease before all are done: it is asked to go on without it."""
        holder = self._state.holder_of(record)
        if holder is not None and holder.gang is not None:
            preempt(self._state, record, RecallReason.STARVING, now, winner)
        elif holder is not None:
            holder.step(RequestStep.RECALL)
            self._state.slices.set_draining(record, True)
            self._state.out.append(RecallLease(holder.session, holder.lease, winner=winner))

    def _reserve(self, request: RequestRecord, placement: Placement, now: float) -> None:
        idle = idle_slices_to_stop(self._state.slices, self._state.pool, placement, request.request.host)
        self._state.reserve_new_slice(request, placement, idle, now)

    def take_other_room(self, now: float) -> None:
        """A request that waits for a recalled lease to end takes other room that has come free meanwhile."""
        waiting = [r for r in self._state.slices.pending.values() if self._waits_for_recall(r)]
        for record in waiting[:_RECALLS_PER_CYCLE]:
            request = self._state.holder_of(record)
            wanted = _as_planned(self._state, request, record) if request is not None else None
            placement = free_place(self._state, wanted) if wanted is not None else None
            if request is not None and placement is not None:
                displace(self._state, [record], now)
                self._reserve(request, placement, now)

    def _waits_for_recall(self, record: SliceRecord) -> bool:
        holder = self._state.holder_of(record)
        if holder is not None and holder.next == record.id:
            return False
        on_it = (s for d in record.placement.devices for s in self._state.slices.by_device.get(d, {}).values())
        return any(s.draining for s in on_it)

    def _in_turn(self, heads: list[RequestRecord]) -> Iterator[RequestRecord]:
        """All of them, starting where the last cycle stopped, so that hopeless ones do not hide the others."""
        start = self._turn if self._turn < len(heads) else 0
        for offset in range(len(heads)):
            self._turn = (start + offset + 1) % len(heads)
            yield heads[(start + offset) % len(heads)]


def leases_to_recall(state: State, request: RequestRecord, before: float) -> tuple[Placement, list[SliceRecord]] | None:
    """Where the request would fit if leases granted before ``before`` ended, and which of them it takes.

    Never recalls an actor, a lease whose task is itself waiting, one of higher priority, one of the request's own
    line, or a preemptible one on which nothing has ended yet: it will be handed back when it has, asked or not, and
    rounds know better who is to give way. Returns None when that frees no place. Changes nothing.
    """
    eligible, spare = _eligible(state, request, before)
    choice = _place_without(state, request, eligible) if eligible else None
    if choice is None and spare and _place_without(state, request, [*eligible, *spare]) is not None:
        many = first_that_do(lambda some: _place_without(state, request, [*eligible, *some]) is not None, spare)
        eligible = [*eligible, *spare[:many]]
        choice = _place_without(state, request, eligible)
    if choice is None:
        return None
    missing = missing_for(state.pool, choice.placement, request.request.host, count_idle=True)
    return choice.placement, needed_of(eligible, missing, choice.placement.node)


def leases_for_gang(
    state: State, request: RequestRecord, gang: GangRecord, before: float, now: float
) -> list[SliceRecord]:
    """The same for a gang that waits: what it takes for enough members; [] where that does not make room for them."""
    single, spare = _eligible(state, request, before)
    eligible = [Victim(0.0, (record,), request, False) for record in [*single, *spare]]
    chosen = fewest_for_gang(state, gang, eligible, now) if eligible else None
    return [victim.records[0] for victim in chosen or ()]


def _place_without(state: State, request: RequestRecord, leases: Sequence[SliceRecord]) -> Choice | None:
    """Where a request would go if some leases were over. Changes nothing."""
    for record in leases:
        state.slices.set_draining(record, True)
    choice = state.pool.chooser.place(request.request, state.options.policy, request.task_class)
    for record in leases:
        state.slices.set_draining(record, False)
    return choice


def _eligible(state: State, request: RequestRecord, before: float) -> tuple[list[SliceRecord], list[SliceRecord]]:
    """Leases that may be asked back, oldest first; and members that gangs can do without, the last ones first."""
    single = [record for record in state.slices.by_id.values() if _may_recall(state, record, request, before)]
    gangs = [g for g in state.gangs.values() if g.since <= before and g.request.priority <= request.request.priority]
    spare = [record for gang in gangs for _, record in spare_members(state, gang)[::-1]]
    return sorted(single, key=lambda record: (record.since, record.id)), spare


def _as_planned(state: State, request: RequestRecord, record: SliceRecord) -> Request:
    """What a request wants that has a slice planned: a member of a gang stays on the type that the others are on."""
    if request.gang is None or not record.placement.devices:
        return request.request
    return dataclasses.replace(request.request, types=(state.pool.kind_of(record.placement)[0],))


def free_place(state: State, wanted: Request) -> Placement | None:
    """Room for part of one device that is free or idle, for a request that waits for recalled leases to end."""
    pool = state.pool
    if wanted.devices != 1 or not _any_room(pool, wanted):
        return None
    for device in pool.kinds.feasible_devices(wanted):
        row, host = pool.books.rows[device.id], pool.host.rows[device.node]
        need = (wanted.share, wanted.memory_on(device))
        if device.state is DeviceState.READY and row.spare(need) and host.spare(wanted.host):
            return Placement(device.node, (device.id,), wanted.share, wanted.memory_on(device))
    return None


def _any_room(pool: Pool, wanted: Request) -> bool:
    """Whether some class of nodes may have such room: they are few, so that devices are looked through only then."""
    pool.landscape.refresh()
    cores, host_memory = host_levels(wanted.host)
    needs = [memory_needed(wanted, kind.type.memory) for kind in pool.kinds.all]
    return any(
        found.largest >= wanted.share
        and found.state.cores >= cores
        and found.state.memory >= host_memory
        and any(room.share >= wanted.share and room.memory >= needs[room.kind] for room in found.state.rooms)
        for found in pool.landscape.inhabited()
    )


def _may_recall(state: State, record: SliceRecord, request: RequestRecord, before: float) -> bool:
    holder = state.holder_of(record)
    return (
        record.state is SliceState.HELD
        and record.reusable
        and not record.draining
        and holder is not None
        and holder.state is RequestState.LEASED
        and holder.leased_at <= before
        and holder.lease not in state.blocked
        and (record.has_run or not holder.request.preemptible)
        and holder.request.priority <= request.request.priority
        and holder.line != request.line
    )
