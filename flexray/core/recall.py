"""Choosing leases to recall, so that nobody waits for ever behind a client with endless work.

A recalled lease loses nothing: its session finishes what runs, hands it back and asks
again, behind those who waited.
"""

from __future__ import annotations

from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.lease import Placement
from flexray.model.lifecycle import RequestState, SliceState


def leases_to_recall(state: State, request: RequestRecord, before: float) -> tuple[Placement, list[SliceRecord]] | None:
    """Where the request would fit if leases granted before ``before`` ended, and which of them it takes.

    Never recalls an actor, a lease whose task is itself waiting, one of higher priority,
    or one of the request's own line. Returns None when that frees no place. Changes nothing.
    """
    eligible = [record for record in state.slices.by_id.values() if _may_recall(state, record, request, before)]
    if not eligible:
        return None
    for record in eligible:
        state.slices.set_draining(record, True)
    choice = state.pool.place(request.request, state.options.policy)
    for record in eligible:
        state.slices.set_draining(record, False)
    if choice is None:
        return None
    return choice.placement, _needed(state, choice.placement, request.request.cpus, eligible)


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
        and holder.request.priority <= request.request.priority
        and holder.line != request.line
    )


def _needed(state: State, placement: Placement, cpus: int, eligible: list[SliceRecord]) -> list[SliceRecord]:
    """The oldest of the eligible slices that, together with what is reachable, make the room."""
    books, host = state.pool.books, state.pool.host
    reach, host_reach = books.reachable(), host.reachable()
    missing = {
        device: [
            placement.share - int(reach[books.rows[device], 0]),
            placement.memory - int(reach[books.rows[device], 1]),
        ]
        for device in placement.devices
    }
    host_missing = cpus - int(host_reach[host.rows[placement.node], 0])
    chosen = []
    for record in sorted(eligible, key=lambda r: (r.since, r.id)):
        here = [d for d in record.placement.devices if d in missing and max(missing[d]) > 0]
        helps_host = host_missing > 0 and record.cpus > 0 and record.placement.node == placement.node
        if not here and not helps_host:
            continue
        chosen.append(record)
        for device in record.placement.devices:
            if device in missing:
                missing[device][0] -= record.placement.share
                missing[device][1] -= record.placement.memory
        if record.placement.node == placement.node:
            host_missing -= record.cpus
    return chosen
