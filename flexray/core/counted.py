"""Leases that may be recalled: where a request would fit if they ended, found for many requests in one go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flexray.core.balance import Balance
from flexray.core.preempting import may_preempt
from flexray.core.reclaim import missing_for, needed_of
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.lease import Placement, SliceId
from flexray.model.lifecycle import RequestState, SliceState

Found = tuple[Placement, list[SliceRecord]]
"""Where a request would fit, and the leases that have to end for that."""


class _Rule(NamedTuple):
    """What is counted: leases up to a priority, of some queues (None: any).

    Attributes:
        stopped: the queue of which preemptible work counts too, because it will be stopped; or None.
    """

    priority: int
    queues: frozenset[str] | None
    stopped: str | None


class CountedOn:
    """Leases that may be recalled, in the books as if they had been, while places are found for request after request.

    Never an actor, a lease whose task is itself waiting, one of higher priority than the request, or of its own
    line, or a preemptible one on which nothing has ended yet: it will be handed back when it has, asked or not, and
    rounds know better who is to give way. Only for who has waited for as long as patience lasts it is preempted.

    Args:
        before: those granted until then.
    """

    def __init__(self, state: State, before: float, now: float) -> None:
        self._state, self._now = state, now
        self._records = {r.id: (r, h) for r, h in _recallable(state, before)}
        self._on_node: dict[str, list[SliceId]] = {}
        self._of_line: dict[tuple[object, ...], list[SliceId]] = {}
        for record, holder in self._records.values():
            self._on_node.setdefault(record.placement.node, []).append(record.id)
            self._of_line.setdefault(holder.line, []).append(record.id)
        self._rule: _Rule | None = None
        self._apart: list[SliceId] = []

    def __bool__(self) -> bool:
        return bool(self._records)

    def between(self, request: RequestRecord, balance: Balance | None) -> Found | None:
        """As ``find``, among leases that the request may wait for as entitlements stand.

        One that has less than it is entitled to waits for any where these do not help.
        """
        if balance is None:
            return self.find(request, None)
        found = self.find(request, balance.may_be_recalled_for(request.queue))
        if found is not None or not balance.is_below(request.queue):
            return found
        self.resume()
        return self.find(request, None)

    def find(self, request: RequestRecord, queues: frozenset[str] | None) -> Found | None:
        """Where the request would fit if leases of some queues ended, and which of them it takes, oldest first.

        Returns None when that frees no place. The leases of that node are counted again by ``resume``.
        """
        state, own = self._state, self._of_line.get(request.line, [])
        self._count(_Rule(request.request.priority, queues, self._stopped_for(request)))
        self._mark(own, False)
        choice = state.pool.chooser.place(request.request, state.options.policy, request.task_class)
        self._apart = own
        if choice is None:
            return None
        there = [name for name in self._on_node.get(choice.placement.node, []) if name in self._records]
        self._mark(there, False)
        self._apart = [*own, *there]
        missing = missing_for(state.pool, choice.placement, request.request.host, count_idle=True)
        usable = [self._records[name][0] for name in there if self._counts(name) and name not in own]
        oldest = sorted(usable, key=lambda record: (record.since, record.id))
        return choice.placement, needed_of(oldest, missing, choice.placement.node)

    def candidates(self, request: RequestRecord, queues: frozenset[str] | None) -> list[SliceRecord]:
        """The leases that ``find`` looks at, oldest first; none of them is counted from now on."""
        self.resume()
        self._count(_Rule(request.request.priority, queues, self._stopped_for(request)))
        own = self._of_line.get(request.line, [])
        usable = [record for record, _ in self._records.values() if self._counts(record.id) and record.id not in own]
        self._count(None)
        return sorted(usable, key=lambda record: (record.since, record.id))

    def drop(self, records: Iterable[SliceRecord]) -> None:
        """These have been recalled."""
        for record in records:
            self._records.pop(record.id, None)

    def _stopped_for(self, request: RequestRecord) -> str | None:
        patient = request.idle_since <= self._now - self._state.options.patience_seconds
        return request.queue if patient else None

    def resume(self) -> None:
        """Count everything again, but what was recalled meanwhile."""
        for name in self._apart:
            if name in self._records and self._records[name][0].draining:
                del self._records[name]
        self._mark(self._apart, True)
        self._apart = []

    def end(self) -> None:
        """Nothing is counted any more."""
        self._count(None)

    def _count(self, rule: _Rule | None) -> None:
        if rule != self._rule:
            self._mark(self._records, False)
            self._rule = rule
            self._mark(self._records, True)

    def _counts(self, name: SliceId) -> bool:
        if self._rule is None:
            return False
        record, holder = self._records[name]
        stoppable = (
            holder.queue == self._rule.stopped
            and self._now - holder.leased_at >= self._state.options.min_run_seconds
            and may_preempt(self._state, record, self._now) is not None
        )
        settled = record.has_run or not holder.request.preemptible or stoppable
        of_these = self._rule.queues is None or holder.queue in self._rule.queues
        return settled and of_these and holder.request.priority <= self._rule.priority

    def _mark(self, names: Iterable[SliceId], counted: bool) -> None:
        for name in names:
            if name in self._records and (not counted or self._counts(name)):
                self._state.slices.set_draining(self._records[name][0], counted)


def _recallable(state: State, before: float) -> Iterator[tuple[SliceRecord, RequestRecord]]:
    for record in state.slices.by_id.values():
        holder = state.holder_of(record)
        if holder is None or record.draining or not record.reusable or holder.slice != record.id:
            continue
        if record.state is SliceState.HELD:
            held = holder.state is RequestState.LEASED and holder.leased_at <= before
            if held and holder.lease not in state.blocked:
                yield record, holder
        elif record.state is SliceState.STARTING and before >= state.now:
            yield record, holder
