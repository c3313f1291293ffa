"""Queues at work: what each uses and waits for, whose turn it is, and who may take back.

The rules are in ``fairness.py``, ``turns.py`` and ``borrowing.py``; here they are kept in step with the pool.
A pool with nothing but the default queue, without rules, keeps no books of queues at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from flexray.core.balance import Balance
from flexray.core.borrowing import Borrowing, Standing, guaranteed_over_quota
from flexray.core.fairness import Entitlement, Wants, shares
from flexray.core.history import History
from flexray.core.loads import Load, capacity_load, capacity_of, covered, load_of, times, total, worth
from flexray.core.placement import Pool
from flexray.core.promises import QueueWarning, fitted
from flexray.core.queue_books import QueueBooks
from flexray.core.queues import QueueTree
from flexray.core.records import RequestRecord
from flexray.core.turns import Turns
from flexray.model.lease import Placement
from flexray.model.queue import ROOT_QUEUE, Queue
from flexray.model.request import DEFAULT_QUEUE

_PLAIN = (Queue(ROOT_QUEUE), Queue(DEFAULT_QUEUE))

Holder = tuple[RequestRecord, Placement | None]
"""A request with the place it has or is about to have; None for one that waits."""


class Sharing:
    """The queues of a pool.

    Attributes:
        configured: as somebody wrote them.
        tree: the same with promises that the present pool can keep.
        warnings: what had to be scaled, or is odd.
        entitled: the fair share of every queue, as of the last cycle that took turns.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.configured = self.tree = QueueTree()
        self._plain = True
        self.warnings: tuple[QueueWarning, ...] = ()
        self.entitled: dict[str, Entitlement] = {}
        self.books = QueueBooks(self.tree, {})
        self.turns = Turns(self.tree)
        self._history = History(self.tree)
        self._stale = True
        #: what each queue is promised of this pool, in worth; and how it stands beside that.
        self._quotas: dict[str, int] = {}
        self._standings: dict[str, Standing] = {}

    @property
    def plain(self) -> bool:
        """Whether there is nothing to share: one queue without rules."""
        return self._plain

    def configure(self, tree: QueueTree, holders: Iterable[Holder], now: float) -> None:
        """Other queues from now on, each with a leaf for every request there is."""
        self.configured = tree
        self._plain = all(queue in _PLAIN for queue in self.configured.queues.values())
        self._history = self._history.moved(self.configured, now)
        self.rebuild(holders, now)

    def history(self, now: float) -> list[tuple[str, float, float]]:
        """What queues have used, to be restored by a later incarnation."""
        return self._history.rows(now)

    def restore_history(self, rows: Iterable[tuple[str, float, float]], now: float) -> None:
        """What ``history`` gave then."""
        self._history.restore(rows, now)

    def pool_changed(self) -> None:
        """Devices have come, gone, or changed: promises are measured against them before the next turn."""
        self._stale = True

    def rebuild(self, holders: Iterable[Holder], now: float) -> None:
        """Count everything afresh: after another configuration, or a change of the pool."""
        self._stale = False
        capacity = capacity_of(self._pool.devices.values())
        self.tree, self.warnings = fitted(self.configured, capacity)
        self._standings = {}
        self.books, self.turns = QueueBooks(self.tree, capacity), Turns(self.tree)
        for request, placement in holders:
            request.charged, request.counted = None, False
            if self.plain:
                continue
            if placement is not None:
                request.charged = self.load_at(placement)
                self.books.take(request.queue, request.charged)
            else:
                self.waits(request)
        pool = capacity_load(capacity)
        self._quotas = {name: worth(covered(pool, own, capacity), capacity) for name, own in self.tree.promises.items()}
        for name in self.tree.queues if not self.plain else ():
            self._note(name, now)

    # -- what happens to requests ------------------------------------------------------------

    def waits(self, request: RequestRecord) -> None:
        """A request begins to wait, or waits again."""
        if not self.plain:
            self.books.wait(request.queue, request.request)
            request.counted = True

    def leaves(self, request: RequestRecord) -> None:
        """A request that waited is served, or no longer wanted."""
        if request.counted:
            self.books.stop_waiting(request.queue, request.request)
            request.counted = False

    def takes(self, request: RequestRecord, placement: Placement, now: float) -> None:
        """A request has a place from now on."""
        if self.plain:
            return
        request.charged = self.load_at(placement)
        self.books.take(request.queue, request.charged)
        self._changed(request.queue, now)

    def gives_back(self, request: RequestRecord, now: float) -> None:
        """It has it no more."""
        if request.charged is not None:
            self.books.give_back(request.queue, request.charged)
            self._changed(request.queue, now)
        request.charged = None

    def recharge(self, request: RequestRecord, placement: Placement, now: float) -> None:
        """The place that a request has takes more or less than before."""
        self.gives_back(request, now)
        self.takes(request, placement, now)

    def growth_limited_by(self, request: RequestRecord, placement: Placement) -> str | None:
        """The queue whose limit would be exceeded if the place that a request has became this one, or None."""
        if self.plain:
            return None
        return self.books.limited_by(request.queue, _less(self.load_at(placement), request.charged or {}))

    def _changed(self, leaf: str, now: float) -> None:
        path = self.tree.path(leaf)
        self.turns.uses(leaf, self.books.worths_on(path))
        for name in path:
            self._note(name, now)

    def _note(self, name: str, now: float) -> None:
        self._standings.pop(name, None)
        self._history.note(name, worth(self.books.used[name], self.books.capacity), now)

    def _standing(self, name: str) -> Standing:
        """How a queue stands beside its quota; found when it is asked for, since that takes as long as a decision."""
        found = self._standings.get(name)
        if found is None:
            load, capacity = self.books.used[name], self.books.capacity
            sure = worth(covered(load, self.tree.promises[name], capacity), capacity)
            found = self._standings[name] = Standing(self._quotas[name], worth(load, capacity), sure)
        return found

    def load_at(self, placement: Placement) -> dict[str, tuple[int, int]]:
        """What a placement takes."""
        if not placement.devices:
            return {}
        kind = self._pool.devices[placement.devices[0]].type
        return load_of(kind.name, kind.memory, placement)

    def refresh(self, holders: Callable[[], Iterable[Holder]], now: float) -> None:
        """Measure promises against the devices there are now."""
        if self._stale:
            self.rebuild(holders(), now)

    # -- whose turn it is ----------------------------------------------------------------------

    def begin(self, holders: Callable[[], Iterable[Holder]], now: float) -> None:
        """Bring entitlements up to date, before turns are taken."""
        self.entitle(holders, now)
        self.turns.settle(self.entitled, self.books.worths())

    def entitle(self, holders: Callable[[], Iterable[Holder]], now: float) -> None:
        """Bring entitlements up to date."""
        self.refresh(holders, now)
        self.entitled = self.fair_shares(now)

    def fair_shares(self, now: float) -> dict[str, Entitlement]:
        """What every queue is entitled to, with what is used and waits now."""
        capacity = self.books.capacity
        whole = worth(capacity_load(capacity), capacity)
        return shares(Wants(self.tree, capacity, self.books.demand()), self._history.past(whole, now))

    def balance(self, apart_from: Iterable[RequestRecord] = ()) -> Balance:
        """Who has less or more than it is entitled to, apart from what some requests have been given."""
        used = self.books.used
        gone: dict[str, list[Load]] = {}
        for request in apart_from:
            for name in self.tree.path(request.queue) if request.charged else ():
                gone.setdefault(name, []).append(request.charged or {})
        rest = {name: _less(used[name], total(loads)) for name, loads in gone.items()}
        worths = {name: worth(rest.get(name, load), self.books.capacity) for name, load in used.items()}
        return Balance(self.tree, worths, self.entitled)

    def size_of(self, request: RequestRecord) -> int:
        """What a request has, or a waiting one is going to take, in worth."""
        return worth(request.charged or self.expected(request), self.books.capacity)

    def expected(self, request: RequestRecord) -> dict[str, tuple[int, int]]:
        """What a waiting request is going to take, as far as can be told; of a gang what it takes to start."""
        return times(self.books.expected(request.queue, request.request), request.pieces)

    def limited_by(self, request: RequestRecord) -> str | None:
        """The queue whose limit keeps a request waiting, or None."""
        if self.plain:
            return None
        if request.gang is None:
            return self.books.limited_by(request.queue, self.expected(request))
        found = None
        for kind in self._types(request):  # it will be on one of them, not a bit on each
            found = self._limit(request, self._loads(request, kind), request.pieces)
            if found is None:
                return None
        return found

    def within_limits(self, request: RequestRecord, kind: str, most: int) -> int:
        """Of so many requests like this one, how many the limits leave room for on a device type."""
        loads = [] if self.plain else self._loads(request, kind)
        if not loads:
            return most
        return next((n for n in range(most, 0, -1) if self._limit(request, loads, n) is None), 0)

    def _types(self, request: RequestRecord) -> list[str]:
        """The types that may hold a request."""
        kinds = self._pool.kinds
        return list(dict.fromkeys(k.type.name for k in kinds.present() if kinds.allows(k, request.request)))

    def _loads(self, request: RequestRecord, kind: str) -> list[Load]:
        """What a request takes of a type: one load for each way in which devices of it are cut."""
        kinds, asked = self._pool.kinds, request.request
        found: list[Load] = []
        for one in [k for k in kinds.present() if k.type.name == kind]:
            grant = kinds.grant(one, asked)
            if grant is not None:
                place = Placement("", ("",) * asked.devices, grant.share, grant.memory)
                found.append(load_of(kind, one.type.memory, place))
        return found

    def _limit(self, request: RequestRecord, loads: list[Load], count: int) -> str | None:
        """The queue whose limit keeps so many requests away, if each takes the most that it may."""
        limits = [self.books.limited_by(request.queue, times(load, count)) for load in loads]
        return next((one for one in limits if one is not None), None)

    def owed(self) -> set[str]:
        """Queues that use less than they were promised, or than their part of what lies idle of others' quotas."""
        found = set()
        for inside in self.tree.children.values():
            siblings = {name: self._standing(name) for name in inside}
            spare = guaranteed_over_quota(siblings)
            found |= {name for name, one in siblings.items() if one.idle or one.borrowed < spare[name]}
        return found

    # -- who may take back ----------------------------------------------------------------------

    def borrowing(self, without: Mapping[str, Iterable[Load]] | None = None) -> Borrowing:
        """Who borrows, once some leases (by queue) are over."""
        used: dict[str, dict[str, tuple[int, int]]] = {name: dict(load) for name, load in self.books.used.items()}
        for leaf, loads in (without or {}).items():
            gone = total(loads)
            for name in self.tree.path(leaf):
                used[name] = _less(used[name], gone)
        return Borrowing(self.tree, used, self.books.capacity)


def _less(load: Load, part: Load) -> dict[str, tuple[int, int]]:
    found = dict(load)
    for name, (share, memory) in part.items():
        there = found.get(name, (0, 0))
        found[name] = (there[0] - share, there[1] - memory)
    return found
