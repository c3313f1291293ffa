"""Which leases may be recalled for whom, and other room that comes free meanwhile. Changes nothing."""

from __future__ import annotations

from collections.abc import Container, Sequence

from flexray.core.balance import Balance
from flexray.core.choosing import Choice
from flexray.core.landscape import host_levels
from flexray.core.placement import Pool
from flexray.core.reclaim import missing_for, needed_of
from flexray.core.records import GangRecord, RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.core.victims import Victim, fewest_for_gang, first_that_do, spare_members
from flexray.model.devices import DeviceState
from flexray.model.lease import Placement
from flexray.model.lifecycle import RequestState, SliceState
from flexray.model.request import Request, memory_needed

Found = tuple[Placement, list[SliceRecord]]
"""Where a request would fit, and the leases that have to end for that."""


def leases_between(state: State, request: RequestRecord, before: float, balance: Balance | None) -> Found | None:
    """Leases that the request may wait for as entitlements stand; any where these do not help one that has less."""
    if balance is None:
        return leases_to_recall(state, request, before)
    found = leases_to_recall(state, request, before, balance.may_be_recalled_for(request.queue))
    if found is not None or not balance.is_below(request.queue):
        return found
    return leases_to_recall(state, request, before)


def leases_to_recall(
    state: State, request: RequestRecord, before: float, queues: Container[str] | None = None
) -> Found | None:
    """Where the request would fit if leases granted before ``before`` ended, and which of them it takes.

    Never recalls an actor, a lease whose task is itself waiting, one of higher priority, one of the request's own
    line, or a preemptible one on which nothing has ended yet: it will be handed back when it has, asked or not, and
    rounds know better who is to give way. Returns None when that frees no place. Changes nothing.

    Args:
        queues: only leases of these; None is any.
    """
    eligible, spare = _eligible(state, request, before, queues)
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
    state: State, request: RequestRecord, gang: GangRecord, before: float, balance: Balance | None
) -> list[SliceRecord]:
    """The same for a gang that waits: what it takes for enough members; [] where that does not make room for them."""
    mine = None if balance is None else balance.may_be_recalled_for(request.queue)
    every = balance is not None and balance.is_below(request.queue)
    for queues in (mine, None) if every else (mine,):
        single, spare = _eligible(state, request, before, queues)
        eligible = [Victim(0.0, (record,), request, False) for record in [*single, *spare]]
        chosen = fewest_for_gang(state, gang, eligible, state.now) if eligible else None
        if chosen:
            return [victim.records[0] for victim in chosen]
    return []


def _place_without(state: State, request: RequestRecord, leases: Sequence[SliceRecord]) -> Choice | None:
    """Where a request would go if some leases were over. Changes nothing."""
    for record in leases:
        state.slices.set_draining(record, True)
    choice = state.pool.chooser.place(request.request, state.options.policy, request.task_class)
    for record in leases:
        state.slices.set_draining(record, False)
    return choice


def _eligible(
    state: State, request: RequestRecord, before: float, queues: Container[str] | None
) -> tuple[list[SliceRecord], list[SliceRecord]]:
    """Leases that may be asked back, oldest first; and members that gangs can do without, the last ones first."""
    single = [record for record in state.slices.by_id.values() if _may_recall(state, record, request, before)]
    gangs = [g for g in state.gangs.values() if g.since <= before and g.request.priority <= request.request.priority]
    spare = [record for gang in gangs for _, record in spare_members(state, gang)[::-1]]
    oldest = sorted(single, key=lambda record: (record.since, record.id))
    return [one for one in oldest if _is_of(state, one, queues)], [one for one in spare if _is_of(state, one, queues)]


def _is_of(state: State, record: SliceRecord, queues: Container[str] | None) -> bool:
    holder = state.holder_of(record)
    return queues is None or (holder is not None and holder.queue in queues)


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
