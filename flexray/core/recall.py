"""Recalling leases, so that nobody waits for ever behind a client with endless work.

A recalled lease loses nothing: its session finishes what runs, hands it back and asks
again, behind those who waited. Between queues, one that has less than it is entitled to waits for leases of those
that have more (``balance.py``), and for any where these do not help. One that has what it is entitled to waits for a
single lease of its own at a time: as many as it has requests would leave none to those who have less.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator

from flexray.core.balance import Balance
from flexray.core.counted import CountedOn
from flexray.core.ending import displace
from flexray.core.gang_places import place_gang
from flexray.core.granting import may_fit
from flexray.core.preempting import preempt
from flexray.core.recallable import free_place, spare_for, whose, with_spare_members
from flexray.core.reclaim import covered, idle_slices_to_stop, lacking_now, needed_of
from flexray.core.records import GangRecord, RequestRecord, SliceRecord
from flexray.core.reserved import share_room
from flexray.core.state import State
from flexray.core.victims import Victim, fewest_for_gang
from flexray.model.commands import RecallLease
from flexray.model.lease import Placement
from flexray.model.lifecycle import RecallReason, RequestState, RequestStep, SliceState, StopReason
from flexray.model.request import Request

#: A cycle stops looking for recalls after this many shapes in vain: each look costs a filter over the pool.
_RECALLS_PER_CYCLE = 8
#: Young leases are looked through this often at most for a size, in seconds: in most pools in vain.
_SELDOM = 0.5
#: A lease that was just granted has so many seconds to send its first task before it is asked back.
_TO_BEGIN = 0.5


class Recalls:
    """Recalls leases for those who have waited long, and lets these take other room that comes free first."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._turn = 0
        #: for what sizes young leases were looked through in vain, and when they may be again.
        self._in_vain: dict[tuple[object, ...], float] = {}

    def for_starving(self, now: float) -> None:
        """Leases that have been held for a term make room for a request that has waited for one; then young ones too.

        Young leases serve out their term, but nobody else gets their room. Without that a request for much, which fits
        only when several leases are over at once, would wait for ever behind a stream of short ones for little.
        """
        heads = self._starving(now)
        if not heads:
            return
        left = self._recall_for(list(self._in_turn(heads)), now - self._state.options.lease_term_seconds, now)
        self._recall_young([r for r in left if _kind(r) not in self._in_vain], now)

    def for_large(self, now: float) -> None:
        """The same before others are placed, for sizes that found too little: now and then there is all they need."""
        due = {kind for kind, at in self._in_vain.items() if at <= now}
        if due:
            self._in_vain = {kind: at for kind, at in self._in_vain.items() if kind not in due}
            # nobody is woken for this: until something happens it would be in vain again
            heads = [r for r in self._starving(now) if _kind(r) in due and not may_fit(self._state, r)]
            self._recall_young(heads, now)

    def _starving(self, now: float) -> list[RequestRecord]:
        """Heads of lines that have waited for a term, in order."""
        state, before = self._state, now - self._state.options.lease_term_seconds
        oldest = next(iter(state.requests.values()), None)  # the requests are in the order in which they came
        if not state.lines or oldest is None or oldest.submitted > before:
            return []
        first = [r for r in map(state.head, list(state.lines)) if r is not None]
        heads = [r for r in first if r.submitted <= before and not r.passes_over]
        return sorted(heads, key=lambda r: (-r.request.priority, r.sequence))

    def _recall_young(self, heads: list[RequestRecord], now: float) -> None:
        heads.sort(key=lambda r: (-r.request.priority, r.sequence))
        for request in self._recall_for(heads, now, now) if heads else ():
            self._in_vain[_kind(request)] = now + _SELDOM

    def _recall_for(self, heads: list[RequestRecord], before: float, now: float) -> list[RequestRecord]:
        """Recall leases granted until then. Returns the heads for which that makes no room."""
        state, left = self._state, list[RequestRecord]()
        counted = CountedOn(state, before, now)
        if not counted and not state.gangs:
            return heads
        balance = self._balance(now)
        waiting = {holder.queue for _, holder in self._waiting()} if balance is not None else set()
        hopeless: set[tuple[object, ...]] = set()
        for request in heads:
            kind = _kind(request)
            if kind in hopeless or state.sharing.limited_by(request) is not None:
                continue
            if balance is not None and request.queue in waiting and not balance.is_below(request.queue):
                continue
            if self._make_room(request, counted, balance, before, now):
                waiting.add(request.queue)
                balance = state.sharing.balance() if balance is not None else None
            else:
                left.append(request)
                hopeless.add(kind)
            counted.resume()
            if len(hopeless) >= _RECALLS_PER_CYCLE:
                break
        counted.end()
        return left

    def _balance(self, now: float) -> Balance | None:
        """Who has less or more than it is entitled to now; None where there are no queues."""
        sharing = self._state.sharing
        if sharing.plain:
            return None
        sharing.entitle(self._state.holders, now)
        return sharing.balance()

    def _make_room(
        self, request: RequestRecord, counted: CountedOn, balance: Balance | None, before: float, now: float
    ) -> bool:
        """Recall what a request needs, and give it its place. False, and nothing, if that is not to be had."""
        if request.gang is not None:
            return self._make_room_for_gang(request, request.gang, counted, balance, now)
        found = counted.between(request, balance)
        if found is not None and before == now and not self._takes_several(*found, request):
            return False
        if found is None and (spare := self._spare(request, balance, now)):
            found = with_spare_members(
                self._state, request, counted.candidates(request, whose(request, balance)[0]), spare
            )
        if found is None:
            return False
        placement, leases = found
        for record in leases:
            self._recall(record, request.id, now)
        counted.drop(leases)
        self._reserve(request, placement, now)
        return True

    def _make_room_for_gang(
        self, request: RequestRecord, gang: GangRecord, counted: CountedOn, balance: Balance | None, now: float
    ) -> bool:
        """The same for a gang that waits, and as many members as it needs."""
        for queues in whose(request, balance):
            leases = [*counted.candidates(request, queues), *self._spare(request, balance, now)]
            victims = [Victim(0.0, (record,), request, False) for record in leases]
            chosen = fewest_for_gang(self._state, gang, victims, now) if victims else None
            if chosen:
                for victim in chosen:
                    self._recall(victim.records[0], gang.id, now)
                counted.drop([victim.records[0] for victim in chosen])
                return place_gang(self._state, gang, now)
        return False

    def _spare(self, request: RequestRecord, balance: Balance | None, now: float) -> list[SliceRecord]:
        """Members that gangs can do without, whose gangs have not changed for a term."""
        queues = None if balance is None else balance.may_be_recalled_for(request.queue)
        return spare_for(self._state, request, now - self._state.options.lease_term_seconds, queues)

    def _recall(self, record: SliceRecord, winner: str, now: float) -> None:
        """A gang does not hand back a member's lease before all are done: it is asked to go on without it."""
        holder = self._state.holder_of(record)
        if holder is None:
            return
        if holder.gang is not None:
            preempt(self._state, record, RecallReason.STARVING, now, winner)
        elif holder.request.preemptible and not record.has_run:
            preempt(self._state, record, RecallReason.STARVING, now, winner)
            holder.sequence = self._state.next_sequence()  # behind the one it makes room for
        else:
            self._promise(record, holder, winner, now)

    def _promise(self, record: SliceRecord, holder: RequestRecord, winner: str, now: float) -> None:
        """Others count on the room from now on; the session is asked for it when it has had the lease for a term."""
        began = now if record.state is SliceState.STARTING else holder.leased_at
        due = began + self._state.options.lease_term_seconds
        self._state.slices.set_draining(record, True)
        if due <= now:
            self._ask(record, holder, winner)
        else:
            record.promised = True
            self._state.promised[record.id] = due
            self._state.look_again(due)

    def ask_back(self, now: float) -> None:
        """Ask for the leases that are counted on to end, when it is time; those nobody waits for any more go on."""
        state = self._state
        for name, due in list(state.promised.items()):
            record = state.slices.by_id.get(name)
            holder = state.holder_of(record) if record is not None else None
            if record is None or not record.draining:
                del state.promised[name]
            elif record.state is not SliceState.HELD or holder is None or holder.state is not RequestState.LEASED:
                continue  # it is about to start, or was asked
            elif not state.slices.room_awaited(record):
                record.promised, record.lent_until = False, None
                state.slices.set_draining(record, False)
                del state.promised[name]
            elif (at := due if record.lent_until is None else max(due, holder.leased_at + _TO_BEGIN)) <= now:
                waiting = next(p for p in state.slices.pending.values() if share_room(p, record))
                self._ask(record, holder, waiting.request or "")
            else:
                state.look_again(at)

    def _ask(self, record: SliceRecord, holder: RequestRecord, winner: str) -> None:
        reason = RecallReason.STARVING if record.lent_until is None else RecallReason.BACKFILL
        holder.step(RequestStep.RECALL)
        self._state.out.append(RecallLease(holder.session, holder.lease, reason=reason, winner=winner))

    def _takes_several(self, placement: Placement, records: list[SliceRecord], request: RequestRecord) -> bool:
        """Whether more has to come together than one lease; the end of one that is enough makes room in its turn."""
        if len(records) != 1:
            return True
        (one,) = records
        share, memory = one.placement.share, one.placement.memory
        enough = share >= placement.share and memory >= placement.memory and one.placement.devices == placement.devices
        enough = enough and not self._state.pool.span_of(placement) & ~one.span
        return not (enough and all(map(operator.ge, one.host, request.request.host)))

    def _reserve(self, request: RequestRecord, placement: Placement, now: float) -> None:
        idle = idle_slices_to_stop(self._state.slices, self._state.pool, placement, request.request.host)
        self._state.reserve_new_slice(request, placement, idle, now)

    def take_idle_room(self, now: float) -> None:
        """Slices that have fallen idle make room where that lets a planned one start before what it waits for ends."""
        state = self._state
        for record in state.slices.pending.values() if state.slices.idle else ():
            idle = state.slices.idle_on(record.placement.node)
            lacking = lacking_now(state.pool, record, ()) if idle else {}
            chosen = needed_of(idle, lacking, record.placement.node)
            for one in chosen if covered(lacking) and not self._follows(record) else ():
                state.stop(one, StopReason.MAKE_ROOM, now)

    def _follows(self, record: SliceRecord) -> bool:
        """Whether it is planned for when the lease of its own request is over."""
        holder = self._state.holder_of(record)
        return holder is not None and holder.next == record.id

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
        if self._follows(record):
            return False
        on_it = (s for d in record.placement.devices for s in self._state.slices.by_device.get(d, {}).values())
        return any(s.draining for s in on_it)

    def _in_turn(self, heads: list[RequestRecord]) -> Iterator[RequestRecord]:
        """All of them, starting where the last cycle stopped, so that hopeless ones do not hide the others."""
        start = self._turn if self._turn < len(heads) else 0
        for offset in range(len(heads)):
            self._turn = (start + offset + 1) % len(heads)
            yield heads[(start + offset) % len(heads)]


def _kind(request: RequestRecord) -> tuple[object, ...]:
    """Requests that are alike here fit, or do not fit, the same places."""
    return (request.queue, request.request.priority, request.shape)


def _as_planned(state: State, request: RequestRecord, record: SliceRecord) -> Request:
    """What a request wants that has a slice planned: a member of a gang stays on the type that the others are on."""
    if request.gang is None or not record.placement.devices:
        return request.request
    return dataclasses.replace(request.request, types=(state.pool.kind_of(record.placement)[0],))
