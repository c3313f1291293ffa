"""Recalling leases, so that nobody waits for ever behind a client with endless work.

A recalled lease loses nothing: its session finishes what runs, hands it back and asks
again, behind those who waited. Between queues, one that has less than it is entitled to waits for leases of those
that have more (``balance.py``), and for any where these do not help. One that has what it is entitled to waits for a
single lease of its own at a time: as many as it has requests would leave none to those who have less.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from flexray.core.balance import Balance
from flexray.core.landscape import host_levels
from flexray.core.placement import Pool
from flexray.core.reclaim import idle_slices_to_stop, missing_for, needed_of
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.commands import RecallLease
from flexray.model.devices import DeviceState
from flexray.model.lease import Placement
from flexray.model.lifecycle import RequestState, RequestStep, SliceState
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
        if not heads:
            return
        balance = self._balance(now)
        waiting = {holder.queue for _, holder in self._waiting()} if balance is not None else set()
        hopeless: set[tuple[object, ...]] = set()
        for request in self._in_turn(heads):
            kind = (request.queue, request.request.priority, request.shape)
            if kind in hopeless or state.sharing.limited_by(request) is not None:
                continue
            if balance is not None and request.queue in waiting and not balance.is_below(request.queue):
                continue
            found = leases_between(state, request, before, balance)
            if found is None:
                hopeless.add(kind)
                if len(hopeless) >= _RECALLS_PER_CYCLE:
                    break
                continue
            self._recall(request, *found, now)
            waiting.add(request.queue)
            balance = state.sharing.balance() if balance is not None else None

    def _balance(self, now: float) -> Balance | None:
        """Who has less or more than it is entitled to now; None where there are no queues."""
        sharing = self._state.sharing
        if sharing.plain:
            return None
        sharing.entitle(self._state.holders, now)
        return sharing.balance()

    def _recall(self, request: RequestRecord, placement: Placement, records: list[SliceRecord], now: float) -> None:
        for record in records:
            holder = self._state.holder_of(record)
            if holder is not None:
                holder.step(RequestStep.RECALL)
                self._state.slices.set_draining(record, True)
                self._state.out.append(RecallLease(holder.session, holder.lease, winner=request.id))
        self._reserve(request, placement, now)

    def _reserve(self, request: RequestRecord, placement: Placement, now: float) -> None:
        idle = idle_slices_to_stop(self._state.slices, self._state.pool, placement, request.request.host)
        self._state.reserve_new_slice(request, placement, idle, now)

    def take_other_room(self, now: float) -> None:
        """A request that waits for a recalled lease to end takes other room that has come free meanwhile."""
        waiting = self._waiting()
        sharing = self._state.sharing
        if waiting and not sharing.plain:  # room goes to whose turn it is: beyond entitlement no one is before others
            sharing.entitle(self._state.holders, now)
            balance = sharing.balance(apart_from=[request for _, request in waiting])
            waiting = [(r, request) for r, request in waiting if balance.take(request.queue, sharing.size_of(request))]
        for record, request in waiting[:_RECALLS_PER_CYCLE]:
            placement = free_place(self._state, request)
            if placement is not None:
                self._state.displace([record], now)
                self._reserve(request, placement, now)

    def _waiting(self) -> list[tuple[SliceRecord, RequestRecord]]:
        """Requests that wait for a recalled lease to end, with the slices planned for them."""
        pending = self._state.slices.pending.values()
        found = [(record, self._state.holder_of(record)) for record in pending if self._waits_for_recall(record)]
        return [(record, request) for record, request in found if request is not None]

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
    eligible = [
        record
        for record in state.slices.by_id.values()
        if _may_recall(state, record, request, before) and _is_of(state, record, queues)
    ]
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


def _is_of(state: State, record: SliceRecord, queues: Container[str] | None) -> bool:
    holder = state.holder_of(record)
    return queues is None or (holder is not None and holder.queue in queues)


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
