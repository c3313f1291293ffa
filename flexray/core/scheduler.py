"""The scheduler core: ``apply`` keeps the books, ``decide`` runs a cycle.

    event ──apply──> state          decide(now) ──> commands
                                      stop what has been idle too long
                                      have work leave devices that are sick or drained
                                      see what follows for gangs from what happened to their members
                                      go on with what changes its size
                                      start slices whose room is free
                                      give waiting requests a warm slice or a place, queue after queue in turn
                                      take back for quotas and priorities
                                      move work together for those who fit in total
                                      recall old leases for those who waited long
                                      match preemptible work to device types again, now and then
                                      let gangs grow
                                      fail waits that can never end

Both take ``now`` as an argument (seconds, any origin, never falling). Late messages of
an earlier attempt, and messages about things that are gone, are dropped by comparison.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from flexray.core import recovery, resizing
from flexray.core.arriving import arrive
from flexray.core.backfill import stop_overdue
from flexray.core.deadlock import find_deadlock
from flexray.core.defragment import defragment
from flexray.core.ending import cancel, end_lease, end_slice, fail, keep_draining_room, release, withdraw
from flexray.core.gangs import grow, settle, started
from flexray.core.inventory import apply_inventory, drop_node
from flexray.core.moving_off import devices_changed, move_off, set_cordon
from flexray.core.options import CoreOptions
from flexray.core.preempting import evict_overdue, yielded
from flexray.core.queueing import Turnstile, place_in_order
from flexray.core.queues import QueueTree
from flexray.core.recall import Recalls
from flexray.core.rematch import Rounds
from flexray.core.state import Blocked, State
from flexray.core.takeback import take_back
from flexray.model.amounts import WHOLE
from flexray.model.commands import Command, StopSlice
from flexray.model.events import (
    DeviceCordoned,
    DeviceUncordoned,
    Event,
    HistoryRestored,
    LeaseBlocked,
    LeaseCheckpointed,
    LeaseFound,
    LeaseReleased,
    LeaseUnblocked,
    LeaseYielded,
    NodeLost,
    NodeReported,
    QueuesConfigured,
    RecoveryBegan,
    RecoveryEnded,
    RequestCancelled,
    RequestSubmitted,
    ResizeAsked,
    ResizeRefused,
    SessionClosed,
    SessionOpened,
    SliceEnded,
    SliceFailed,
    SliceFound,
    SliceResized,
    SliceStarted,
    SpeedsRestored,
    StepsRan,
    TasksRan,
)
from flexray.model.journal_lines import commands_line, event_line
from flexray.model.lifecycle import EndReason, RequestState, SliceState, SliceStep, StopReason

_WITHOUT_LEASE = (RequestState.QUEUED, RequestState.RESERVED)


class Scheduler:
    """The core. ``record`` receives a line of JSON per event and per cycle."""

    def __init__(self, options: CoreOptions, record: Callable[[str], None] | None = None) -> None:
        self.state = State(options)
        self._recalls = Recalls(self.state)
        self._rounds = Rounds()
        self._record = record
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            NodeReported: self._node_reported,
            NodeLost: self._node_lost,
            DeviceCordoned: self._device_cordoned,
            DeviceUncordoned: self._device_uncordoned,
            SessionOpened: self._session_opened,
            SessionClosed: self._session_closed,
            RequestSubmitted: self._request_submitted,
            RequestCancelled: self._request_cancelled,
            LeaseReleased: self._lease_released,
            LeaseYielded: self._lease_yielded,
            QueuesConfigured: self._queues_configured,
            LeaseCheckpointed: self._lease_checkpointed,
            TasksRan: self._tasks_ran,
            StepsRan: self._steps_ran,
            SpeedsRestored: self._speeds_restored,
            LeaseBlocked: self._lease_blocked,
            LeaseUnblocked: self._lease_unblocked,
            ResizeAsked: partial(resizing.ask, self.state),
            SliceResized: partial(resizing.done, self.state),
            ResizeRefused: partial(resizing.refused, self.state),
            SliceStarted: self._slice_started,
            SliceFailed: self._slice_failed,
            SliceEnded: self._slice_ended,
            HistoryRestored: self._history_restored,
            RecoveryBegan: partial(recovery.begin, self.state),
            RecoveryEnded: self._recovery_ended,
            SliceFound: self._slice_found,
            LeaseFound: self._lease_found,
        }

    def copy(self) -> Scheduler:
        """One in the same state that records nothing: to ask what would happen."""
        record, self._record = self._record, None
        try:
            return copy.deepcopy(self, {id(one): one for one in _unchanging(self.state)})
        finally:
            self._record = record

    def apply(self, event: Event, now: float) -> None:
        """Take notice of something that happened. Places nothing; the next ``decide`` does."""
        if self._record is not None:
            self._record(event_line(now, event))
        self.state.now = now
        if self.state.recovery is not None and recovery.postpones(self.state, event):
            return
        self._handlers[type(event)](event, now)

    def decide(self, now: float) -> list[Command]:
        """Run one cycle over everything that changed and return what is to be done."""
        self.state.wake_at = None
        self.state.now = now
        if self.state.recovery is None:
            self._cycle(now)
        known = (self.state.slices.by_id, self.state.strangers)
        commands = [c for c in self.state.out if not isinstance(c, StopSlice) or any(c.slice in k for k in known)]
        self.state.out = []
        if self._record is not None:
            self._record(commands_line(now, commands))
        return commands

    def _cycle(self, now: float) -> None:
        self._expire_idle(now)
        if self.state.evictions:
            evict_overdue(self.state, now)
        if self.state.emptying:
            move_off(self.state, now)
        settle(self.state, now)
        if self.state.resizes:
            resizing.go_on(self.state, now)
        self.state.start_pending(now)
        if self.state.promised:
            self._recalls.ask_back(now)
            stop_overdue(self.state, now)
        self.state.gaps = None
        if self.state.slices.pending:
            self._recalls.take_idle_room(now)
            self._recalls.take_other_room(now)
        self._recalls.for_large(now)
        self._place_waiting(now)
        if self.state.slices.pending:  # some were planned just now on room of recalled leases
            self._recalls.take_other_room(now)
        take_back(self.state, now)
        defragment(self.state, now)
        self._recalls.for_starving(now)
        self._rounds.run(self.state, now)
        grow(self.state, now)
        self._break_deadlocks(now)
        if self.state.resizes:  # others may have been given the room that it waited for
            resizing.go_on(self.state, now)

    @property
    def wake_at(self) -> float | None:
        """When the next cycle is due even if nothing happens; None: only an event, or a term, changes anything."""
        return self.state.wake_at

    # -- events --------------------------------------------------------------------------

    def _node_reported(self, event: NodeReported, now: float) -> None:
        for record in apply_inventory(self.state.pool, self.state.slices, self.state.cordons, event.inventory):
            if record.state is SliceState.PENDING:
                end_slice(self.state, record, EndReason.DEVICE_LOST, "its device left the pool", now)
                continue
            end_lease(self.state, record, EndReason.DEVICE_LOST, "its device left the pool")
            self.state.stop(record, StopReason.DEVICE_LEFT, now)
        devices_changed(self.state, event.inventory.node, now)
        self.state.sharing.pool_changed()

    def _node_lost(self, event: NodeLost, now: float) -> None:
        if event.node not in self.state.pool.nodes:
            return
        for record in self.state.slices.on_node(event.node):
            end_slice(self.state, record, EndReason.NODE_LOST, f"node {event.node} is gone", now)
        drop_node(self.state.pool, event.node)
        self.state.sharing.pool_changed()

    def _device_cordoned(self, event: DeviceCordoned, now: float) -> None:
        set_cordon(self.state, event.cordon.device, event.cordon, now)

    def _device_uncordoned(self, event: DeviceUncordoned, now: float) -> None:
        set_cordon(self.state, event.device, None, now)

    def _session_opened(self, event: SessionOpened, now: float) -> None:
        if event.session not in self.state.sessions:
            self.state.sessions[event.session] = event.environment
            self.state.environments[event.environment] += 1

    def _session_closed(self, event: SessionClosed, now: float) -> None:
        environment = self.state.sessions.pop(event.session, None)
        if environment is None:
            return
        self.state.environments[environment] -= 1
        self.state.closed.append(event.session)
        recovery.forget(self.state, event.session)
        for request in [r for r in self.state.requests.values() if r.session == event.session]:
            withdraw(self.state, request, now)
        for gang in [gang for gang in self.state.gangs.values() if gang.session == event.session]:
            del self.state.gangs[gang.id]
        if not self.state.environment_lives(environment):
            del self.state.environments[environment]
            for record in list(self.state.slices.by_id.values()):
                if record.environment == environment and record.request is None:
                    self.state.stop(record, StopReason.SESSION_ENDED, now)

    def _queues_configured(self, event: QueuesConfigured, now: float) -> None:
        state = self.state
        tree = QueueTree(event.queues)
        for request in state.requests.values():
            state.sharing.leaves(request)  # all are counted afresh
            if request.queue not in tree.leaves:
                state.change_queue(request, tree.heir)
        state.sharing.configure(tree, state.holders(), now)

    def _request_submitted(self, event: RequestSubmitted, now: float) -> None:
        arrive(self.state, event, now)

    def _request_cancelled(self, event: RequestCancelled, now: float) -> None:
        gang, request = self.state.gangs.get(event.id), self.state.requests.get(event.id)
        if gang is not None:
            gang.closing = True
            self.state.touch(gang.leader)
        elif request is not None and request.gang is None and request.state in _WITHOUT_LEASE:
            cancel(self.state, request, now)

    def _lease_released(self, event: LeaseReleased, now: float) -> None:
        request = self.state.holder(event.lease)
        if request is not None:
            release(self.state, request, now)

    def _lease_yielded(self, event: LeaseYielded, now: float) -> None:
        request = self.state.holder(event.lease)
        if request is not None:
            yielded(self.state, request, now)

    def _lease_checkpointed(self, event: LeaseCheckpointed, now: float) -> None:
        request = self.state.holder(event.lease)
        together = [] if request is None else [request] if request.gang is None else request.gang.running
        for record in map(self.state.slice_of, together):  # what one member of a gang stores, it stores for all
            if record is not None:
                record.safe_at = now

    def _tasks_ran(self, event: TasksRan, now: float) -> None:
        request = self.state.holder(event.lease)
        record = self.state.slice_of(request) if request is not None else None
        if request is not None and record is not None and (request.gang is not None or record.resized):
            record.has_run = True  # how long it took says little of others: it depends on how many, how large they are
        elif request is not None and record is not None:
            pool, task_class = self.state.pool, request.task_class
            kind, _ = pool.kind_of(record.placement)
            partners = self.state.slices.company_of(record, now)
            known = pool.speeds.expected(task_class, kind)
            record.has_run = True
            if event.calls > 0:
                self.state.past.ran(pool, request, kind, event.seconds / event.calls)
            alone = pool.company.ran(task_class, kind, event.calls, event.seconds, partners, known)
            pool.speeds.observe(task_class, kind, event.calls, alone)
            mean = pool.company.alone(task_class, kind)
            if mean is not None:
                pool.speeds.correct(task_class, kind, mean)

    def _steps_ran(self, event: StepsRan, now: float) -> None:
        """Of whole devices only: on a part, steps would have to be told apart from what others there slow down."""
        request = self.state.holder(event.lease)
        record = self.state.slice_of(request) if request is not None else None
        if request is not None and record is not None and record.placement.share == WHOLE and not record.resized:
            kind, _ = self.state.pool.kind_of(record.placement)
            self.state.pool.speeds.observe_steps(request.task_class, kind, event.steps, event.seconds)

    def _speeds_restored(self, event: SpeedsRestored, now: float) -> None:
        self.state.pool.speeds.restore(event.rows)
        self.state.pool.company.restore(event.company)

    def _lease_blocked(self, event: LeaseBlocked, now: float) -> None:
        request = self.state.holder(event.lease)
        if request is not None:
            if request.slice not in self.state.evictions:
                keep_draining_room(self.state, request, now)
            known = self.state.blocked.get(event.lease)
            since = known.since if known else now
            self.state.blocked[event.lease] = Blocked(since, event.session, event.waits_for)

    def _lease_unblocked(self, event: LeaseUnblocked, now: float) -> None:
        self.state.blocked.pop(event.lease, None)

    def _slice_started(self, event: SliceStarted, now: float) -> None:
        record = self.state.slices.by_id.get(event.slice)
        if record is None or record.state is not SliceState.STARTING:
            return
        request = self.state.holder_of(record)
        if request is not None and request.gang is not None:
            started(self.state, request)
        elif request is not None:
            self.state.grant(request, record, now)
        else:
            self.state.slices.step(record, SliceStep.IDLE, now)

    def _slice_failed(self, event: SliceFailed, now: float) -> None:
        record = self.state.slices.by_id.get(event.slice)
        if record is not None and record.state is not SliceState.PENDING:
            end_slice(self.state, record, EndReason.SLICE_LOST, event.message, now)

    def _slice_ended(self, event: SliceEnded, now: float) -> None:
        record = self.state.slices.by_id.get(event.slice)
        if record is not None and record.state is not SliceState.PENDING:
            post_mortem = (event.running, event.cause, event.overrun)
            end_slice(self.state, record, EndReason.SLICE_LOST, event.message, now, post_mortem)
        self._replay(recovery.ended(self.state, event, now), now)

    # -- what an earlier incarnation has left --------------------------------------------

    def _history_restored(self, event: HistoryRestored, now: float) -> None:
        self.state.sharing.restore_history(event.rows, now)

    def _slice_found(self, event: SliceFound, now: float) -> None:
        self._replay(recovery.slice_found(self.state, event, now), now)

    def _lease_found(self, event: LeaseFound, now: float) -> None:
        self._replay(recovery.lease_found(self.state, event, now), now)

    def _recovery_ended(self, event: RecoveryEnded, now: float) -> None:
        self._replay(recovery.end(self.state, now), now)

    def _replay(self, events: list[Event], now: float) -> None:
        """What had to wait until it was known whose lease it is about."""
        for event in events:
            self._handlers[type(event)](event, now)

    # -- the cycle -----------------------------------------------------------------------

    def _expire_idle(self, now: float) -> None:
        idle = self.state.slices.idle
        before = now - self.state.options.warm_seconds if idle else 0.0
        while idle and (record := next(iter(idle.values()))).since <= before:  # longest idle first
            self.state.stop(record, StopReason.EXPIRED, now)

    def _place_waiting(self, now: float) -> None:
        """A line whose head fits nowhere waits, and the others go on."""
        heads = [r for r in map(self.state.head, list(self.state.lines)) if r is not None]
        if self.state.sharing.plain:
            place_in_order(self.state, heads, now)
        else:
            Turnstile(self.state, heads, now).run()

    def _break_deadlocks(self, now: float) -> None:
        patience = self.state.options.deadlock_seconds
        if self.state.blocked and any(now - one.since >= patience for one in self.state.blocked.values()):
            for request, message in find_deadlock(self.state):
                fail(self.state, request, EndReason.DEADLOCK, message, now)


def _unchanging(state: State) -> Iterator[object]:
    """What a copy may share with its original: a good half of all there is."""
    for request in state.requests.values():
        yield from (request.shape, request.line)
    for record in state.slices.by_id.values():
        yield record.placement
    yield from state.pool.devices.values()
    yield from state.pool.nodes.values()
    yield state.options
