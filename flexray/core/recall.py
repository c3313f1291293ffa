"""Choosing leases to recall, so that nobody waits for ever behind a client with endless work.

A recalled lease loses nothing: its session finishes what runs, hands it back and asks
again, behind those who waited.
"""

from __future__ import annotations

from flexray.core.landscape import host_levels
from flexray.core.placement import Pool
from flexray.core.reclaim import missing_for, needed_of
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.devices import DeviceState
from flexray.model.lease import Placement
from flexray.model.lifecycle import RequestState, SliceState
from flexray.model.request import Request, memory_needed


def leases_to_recall(state: State, request: RequestRecord, before: float) -> tuple[Placement, list[SliceRecord]] | None:
    """Where the request would fit if leases granted before ``before`` ended, and which of them it takes.

    Never recalls an actor, a lease whose task is itself waiting, one of higher priority, one of the request's own
    line, or a preemptible one on which nothing has ended yet: it will be handed back when it has, asked or not, and
    rounds know better who is to give way. Returns None when that frees no place. Changes nothing.
    """
    eligible = [record for record in state.slices.by_id.values() if _may_recall(state, record, request, before)]
    if not eligible:
        return None
    for record in eligible:
        state.slices.set_draining(record, True)
    choice = state.pool.chooser.place(request.request, state.options.policy, request.task_class)
    for record in eligible:
        state.slices.set_draining(record, False)
    if choice is None:
        return None
    missing = missing_for(state.pool, choice.placement, request.request.host, count_idle=True)
    oldest = sorted(eligible, key=lambda record: (record.since, record.id))
    return choice.placement, needed_of(oldest, missing, choice.placement.node)


def free_place(state: State, request: RequestRecord) -> Placement | None:
    """Room for part of one device that is free or idle, for a request that waits for recalled leases to end."""
    pool, wanted = state.pool, request.request
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
