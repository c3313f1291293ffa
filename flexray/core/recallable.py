"""Members that gangs can do without, for those who have waited, and other room that comes free. Changes nothing."""

from __future__ import annotations

from collections.abc import Container, Sequence

from flexray.core.balance import Balance
from flexray.core.books import Room
from flexray.core.choosing import Choice
from flexray.core.counted import Found
from flexray.core.fixed_parts import Grant, granted
from flexray.core.landscape import host_levels
from flexray.core.placement import Pool
from flexray.core.reclaim import missing_for, needed_of
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.core.victims import first_that_do, spare_members
from flexray.model.devices import DeviceState
from flexray.model.lease import Placement
from flexray.model.request import Request


def whose(request: RequestRecord, balance: Balance | None) -> list[frozenset[str] | None]:
    """The queues whose leases a request may wait for, as entitlements stand; then any, if it has less than its own."""
    if balance is None:
        return [None]
    mine = balance.may_be_recalled_for(request.queue)
    return [mine, None] if balance.is_below(request.queue) else [mine]


def spare_for(state: State, request: RequestRecord, before: float, queues: Container[str] | None) -> list[SliceRecord]:
    """Members that gangs of some queues can do without, the last ones first, if these have not changed since then."""
    gangs = [g for g in state.gangs.values() if g.since <= before and g.request.priority <= request.request.priority]
    spare = [record for gang in gangs for _, record in spare_members(state, gang)[::-1]]
    return [one for one in spare if _is_of(state, one, queues)]


def with_spare_members(
    state: State, request: RequestRecord, leases: Sequence[SliceRecord], spare: Sequence[SliceRecord]
) -> Found | None:
    """Where a request would fit if leases ended, and as few of the first spare members, and which of all it takes."""
    if _place_without(state, request, [*leases, *spare]) is None:
        return None
    many = first_that_do(lambda some: _place_without(state, request, [*leases, *some]) is not None, spare)
    eligible = [*leases, *spare[:many]]
    choice = _place_without(state, request, eligible)
    if choice is None:
        return None
    missing = missing_for(state.pool, choice.placement, request.request.host, count_idle=True)
    return choice.placement, needed_of(eligible, missing, choice.placement.node)


def _place_without(state: State, request: RequestRecord, leases: Sequence[SliceRecord]) -> Choice | None:
    """Where a request would go if some leases were over. Changes nothing."""
    for record in leases:
        state.slices.set_draining(record, True)
    choice = state.pool.chooser.place(request.request, state.options.policy, request.task_class)
    for record in leases:
        state.slices.set_draining(record, False)
    return choice


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
        if device.state is not DeviceState.READY:
            continue
        place = pool.kinds.place(wanted, (device,), row.places.spare() if row.places is not None else 0)
        if place is not None and row.spare((place.share, place.memory)) and host.spare(wanted.host):
            return place
    return None


def _any_room(pool: Pool, wanted: Request) -> bool:
    """Whether some class of nodes may have such room: they are few, so that devices are looked through only then."""
    pool.landscape.refresh()
    cores, host_memory = host_levels(wanted.host)
    grants = [granted(wanted, kind.type.memory, kind.profiles) for kind in pool.kinds.all]
    least = min((grant.share for grant in grants if grant is not None), default=wanted.share)
    return any(
        found.largest >= least
        and found.state.cores >= cores
        and found.state.memory >= host_memory
        and any(_takes(room, grants[room.kind]) for room in found.state.rooms)
        for found in pool.landscape.inhabited()
    )


def _takes(room: Room, grant: Grant | None) -> bool:
    if grant is None or room.share < grant.share or room.memory < grant.memory:
        return False
    return grant.fits(room.places)
