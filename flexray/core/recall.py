"""Recalling leases, so that nobody waits for ever behind a client with endless work.

A recalled lease loses nothing: its session finishes what runs, hands it back and asks
again, behind those who waited. Between queues, one that has less than it is entitled to waits for leases of those
that have more (``balance.py``), and for any where these do not help. One that has what it is entitled to waits for a
single lease of its own at a time: as many as it has requests would leave none to those who have less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from flexray.core.balance import Balance
from flexray.core.ending import displace
from flexray.core.gang_places import place_gang
from flexray.core.preempting import preempt
from flexray.core.recallable import free_place, leases_between, leases_for_gang
from flexray.core.reclaim import idle_slices_to_stop
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.commands import RecallLease
from flexray.model.lease import Placement
from flexray.model.lifecycle import RecallReason, RequestStep
from flexray.model.request import Request

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
            if not self._make_room(request, before, balance, now):
                hopeless.add(kind)
                if len(hopeless) >= _RECALLS_PER_CYCLE:
                    break
                continue
            waiting.add(request.queue)
            balance = state.sharing.balance() if balance is not None else None

    def _balance(self, now: float) -> Balance | None:
        """Who has less or more than it is entitled to now; None where there are no queues."""
        sharing = self._state.sharing
        if sharing.plain:
            return None
        sharing.entitle(self._state.holders, now)
        return sharing.balance()

    def _make_room(self, request: RequestRecord, before: float, balance: Balance | None, now: float) -> bool:
        """Recall what a request needs, and give it its place. False, and nothing, if that is not to be had."""
        state, gang = self._state, request.gang
        if gang is not None:
            leases = leases_for_gang(state, request, gang, before, balance)
            for record in leases:
                self._recall(record, gang.id, now)
            return bool(leases) and place_gang(state, gang, now)
        found = leases_between(state, request, before, balance)
        if found is None:
            return False
        placement, leases = found
        for record in leases:
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
        waiting = self._waiting()
        sharing = self._state.sharing
        if waiting and not sharing.plain:  # room goes to whose turn it is: beyond entitlement no one is before others
            sharing.entitle(self._state.holders, now)
            balance = sharing.balance(apart_from=[request for _, request in waiting])
            waiting = [(r, request) for r, request in waiting if balance.take(request.queue, sharing.size_of(request))]
        for record, request in waiting[:_RECALLS_PER_CYCLE]:
            placement = free_place(self._state, _as_planned(self._state, request, record))
            if placement is not None:
                displace(self._state, [record], now)
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


def _as_planned(state: State, request: RequestRecord, record: SliceRecord) -> Request:
    """What a request wants that has a slice planned: a member of a gang stays on the type that the others are on."""
    if request.gang is None or not record.placement.devices:
        return request.request
    return dataclasses.replace(request.request, types=(state.pool.kind_of(record.placement)[0],))
