"""Who has to give way so that a queue gets what it was promised, or a request what its priority says.

    reclaim    a request within its queue's quota takes from queues that borrow (``borrowing.py``)
    priority   inside a queue a higher priority takes from a strictly lower, preemptible one

Victims are those that lose the least work: seconds since their last checkpoint x share. As many as are needed, and
those that turn out not to be needed are spared. Nobody who has run for less than the minimum run time is
taken back. Nothing goes round in circles (docs/queues.md): what is taken back for a quota stays within it, and
priorities only rise.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from operator import attrgetter

from flexray.core.gang_places import place_gang
from flexray.core.reclaim import idle_slices_to_stop, missing_for, needed_of
from flexray.core.records import GangRecord, RequestRecord
from flexray.core.state import State
from flexray.core.victims import Victim, count_as_free, fewest_for_gang, find_victims, first_that_do, give_way
from flexray.model.lease import Placement
from flexray.model.lifecycle import RecallReason

#: So many victims one request takes at most.
_MOST_VICTIMS = 64
_order = attrgetter("order")


def take_back(state: State, now: float) -> None:
    """Look for victims for the requests whose turn is next and for whom there was no room."""
    if (state.sharing.plain and not state.priorities_differ) or not state.lines:
        return
    in_vain: set[tuple[object, ...]] = set()
    state.sharing.refresh(state.holders, now)
    heads = _entitled(state)
    if not heads:
        return
    hunt = _Hunt(state, now)
    lines = [(r.line[0], r.sequence, r) for r in heads if hunt.may_win(r)]
    heapq.heapify(lines)
    while lines:
        _, _, request = heapq.heappop(lines)
        key = (request.queue, request.request.priority, request.shape)
        if key in in_vain:
            continue
        if not _make_way(state, request, hunt, now):
            in_vain.add(key)
            continue
        hunt = _Hunt(state, now)
        successor = state.head(request.line) if request.line in state.lines else None
        if successor is not None and hunt.may_win(successor):
            heapq.heappush(lines, (successor.line[0], successor.sequence, successor))


def _entitled(state: State) -> list[RequestRecord]:
    """Heads of lines that may be entitled to more than is free: a quick look, since in most cycles nobody is."""
    owed = set() if state.sharing.plain else state.sharing.owed()
    rising = state.priorities_differ and bool(state.preemptible or any(g.preemptible for g in state.gangs.values()))
    if not owed and not rising:
        return []
    heads = [r for r in map(state.head, list(state.lines)) if r is not None]
    tree = state.sharing.tree
    return [r for r in heads if rising or any(name in owed for name in tree.path(r.queue))]


class _Hunt:
    """What may be taken back at this moment: found once, since most requests find nothing."""

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self.movable = find_victims(state, now)
        self._lowest: dict[str, int] = {}
        for one in self.movable:
            if one.preemptible:
                priority, queue = one.request.request.priority, one.request.queue
                self._lowest[queue] = min(priority, self._lowest.get(queue, priority))
        self.borrowing = None if state.sharing.plain else state.sharing.borrowing()
        standings = self.borrowing.standings if self.borrowing is not None else {}
        self._lent = any(one.borrowed > 0 for one in standings.values())
        self._owed = {name for name, one in standings.items() if one.idle > 0 or one.borrowed < one.spare}

    def may_win(self, request: RequestRecord) -> bool:
        """Whether somebody may have to give way for a request, as far as queues and priorities go."""
        if request.passes_over or not self.movable:
            return False
        if self._lowest.get(request.queue, request.request.priority) < request.request.priority:
            return True  # whatever the limit: the room stays within the queue
        sharing = self._state.sharing
        owed = self._lent and any(name in self._owed for name in sharing.tree.path(request.queue))
        return owed and sharing.limited_by(request) is None


def _make_way(state: State, request: RequestRecord, hunt: _Hunt, now: float) -> bool:
    """Have victims give way for a request, if there are some; it has its place from now on.

    Who borrows no more than is guaranteed beyond its quota does so only where the others do not suffice for a quota.
    """
    return any(_make_way_with(state, request, hunt, firmly, now) for firmly in (False, True))


def _make_way_with(state: State, request: RequestRecord, hunt: _Hunt, firmly: bool, now: float) -> bool:
    reason, victims = _victims(state, request, hunt, firmly)
    if request.gang is not None:
        chosen = list(_may_all_go(state, request, victims, firmly))
        return _make_way_for_gang(state, request.gang, reason, chosen, now)
    found = _enough(state, request, list(_may_all_go(state, request, victims, firmly))) if victims else None
    if found is None:
        return False
    placement, chosen = found
    for victim in chosen:
        give_way(state, victim, reason, now, request.id)
    idle = idle_slices_to_stop(state.slices, state.pool, placement, request.request.host)
    state.reserve_new_slice(request, placement, idle, now)
    return True


def _make_way_for_gang(state: State, gang: GangRecord, reason: RecallReason, victims: list[Victim], now: float) -> bool:
    chosen = fewest_for_gang(state, gang, victims, now) if victims else None
    for victim in chosen or ():
        give_way(state, victim, reason, now, gang.id)
    return chosen is not None and place_gang(state, gang, now)


def _victims(state: State, request: RequestRecord, hunt: _Hunt, firmly: bool) -> tuple[RecallReason, list[Victim]]:
    """Leases that the request may take back, those that lose least first."""
    inside = [
        v
        for v in hunt.movable
        if v.request.queue == request.queue and v.request.request.priority < request.request.priority and v.preemptible
    ]
    if inside:
        return RecallReason.PRIORITY, sorted(inside, key=_order)
    borrowing = hunt.borrowing
    if borrowing is None:
        return RecallReason.PRIORITY, []
    wanted = state.sharing.expected(request)
    borrowed = [
        v
        for v in hunt.movable
        if v.charged and borrowing.may_reclaim(request.queue, wanted, v.request.queue, v.charged, firmly)
    ]
    return RecallReason.RECLAIM, sorted(borrowed, key=_order)


def _enough(state: State, request: RequestRecord, chosen: list[Victim]) -> tuple[Placement, list[Victim]] | None:
    """The fewest of the first victims whose end makes room, and where; None if all of them do not."""
    if _place_without(state, request, chosen) is None:
        return None
    most = first_that_do(lambda some: _place_without(state, request, some) is not None, chosen)
    placement = _place_without(state, request, chosen[:most])
    if placement is None:
        return None
    missing = missing_for(state.pool, placement, request.request.host, count_idle=True)
    slices = [record for victim in chosen[:most] for record in victim.records]
    needed = {record.id for record in needed_of(slices, missing, placement.node)}
    return placement, [victim for victim in chosen if any(record.id in needed for record in victim.records)]


def _place_without(state: State, request: RequestRecord, victims: Sequence[Victim]) -> Placement | None:
    """Where the request would go if some leases were over. Changes nothing."""
    count_as_free(state, victims, free=True)
    choice = state.pool.chooser.place(request.request, state.options.policy, request.task_class, request.near)
    count_as_free(state, victims, free=False)
    return choice.placement if choice is not None else None


def _may_all_go(state: State, request: RequestRecord, victims: list[Victim], firmly: bool) -> Iterator[Victim]:
    """Victims one after the other, as long as each may be taken although those before it are gone."""
    sharing, gone = state.sharing, dict[str, list[dict[str, tuple[int, int]]]]()
    for victim in victims[:_MOST_VICTIMS]:
        own = victim.charged
        if victim.request.queue != request.queue and own and gone:
            borrowing = sharing.borrowing(gone)
            wanted = sharing.expected(request)
            if not borrowing.may_reclaim(request.queue, wanted, victim.request.queue, own, firmly):
                continue
        if own:
            gone.setdefault(victim.request.queue, []).append(own)
        yield victim
