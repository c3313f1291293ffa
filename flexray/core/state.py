"""The core's state and every step it can take: requests, slices, sessions and what they owe each other.

``scheduler.py`` decides when a step is taken; here is what the step means, with its
commands, so that no path can change a request without its slice or the other way round.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from flexray.core.cordons import Cordons
from flexray.core.ends import SLICE_START_SECONDS, Ends
from flexray.core.options import CoreOptions
from flexray.core.past import Past
from flexray.core.placement import Pool
from flexray.core.records import GangRecord, RequestRecord, Resize, SliceRecord
from flexray.core.reserved import Gap, delays, reservations_at
from flexray.core.sharing import Sharing
from flexray.core.slices import Slices
from flexray.errors import InternalError
from flexray.model.commands import Command, GrantLease, StartSlice, StopSlice
from flexray.model.events import Event, LeaseFound, ResizeAsked
from flexray.model.lease import EnvironmentId, Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.lifecycle import RequestState, RequestStep, SliceState, SliceStep, StopReason, WaitReason

_PASSING = 64
"""So many at most of one line wait for faster devices and let those behind them pass."""


@dataclass(slots=True)
class Blocked:
    """A lease whose task waits for tasks of its inner session."""

    since: float
    session: SessionId
    waits_for: tuple[str, ...]


@dataclass(slots=True)
class Recovering:
    """What was left by an earlier incarnation and is not put together yet.

    Attributes:
        unclaimed: slices that were found, and that no session has said to hold; whether a lease may have been on it.
        claims: leases of sessions, by slice, whose slice its node has not reported, or is stopping.
        later: what was said of leases before their session has said to hold them.
        resizes: what may begin only afterwards.
    """

    unclaimed: dict[SliceId, bool] = field(default_factory=dict)
    claims: dict[SliceId, LeaseFound] = field(default_factory=dict)
    later: dict[LeaseId, list[Event]] = field(default_factory=dict)
    resizes: list[ResizeAsked] = field(default_factory=list)


class State:
    """Everything the core knows. ``out`` collects the commands of the present cycle."""

    def __init__(self, options: CoreOptions) -> None:
        self.options = options
        self.pool = Pool(options.can_come)
        self.slices = Slices(self.pool, options.slice_prefix)
        self.requests: dict[RequestId, RequestRecord] = {}
        self.sessions: dict[SessionId, EnvironmentId] = {}
        #: how many sessions each environment has; a slice of one that has none is stopped.
        self.environments: Counter[EnvironmentId] = Counter()
        self.blocked: dict[LeaseId, Blocked] = {}
        #: QUEUED requests by line, in order of arrival; cancelled ones are skipped when met.
        self.lines: dict[tuple[object, ...], deque[RequestId]] = {}
        self.out: list[Command] = []
        self.sharing = Sharing(self.pool)
        #: the time of the present event or cycle.
        self.now = 0.0
        self.ends = Ends(self.slices.by_id)
        #: slices whose lease is being taken back in the middle, and when that is done by force.
        self.evictions: dict[SliceId, float] = {}
        #: held slices whose size is being changed.
        self.resizes: dict[SliceId, Resize] = {}
        self.cordons = Cordons()
        #: devices that work moves off, and when what is still there has to go.
        self.emptying: dict[str, float] = {}
        #: slices whose room is promised to others, and when their session is asked for it.
        self.promised: dict[SliceId, float] = {}
        #: devices with room that is reserved and free, once somebody has looked in the present cycle.
        self.gaps: list[Gap] | None = None
        #: requests that may be taken back in the middle of their work.
        self.preemptible: dict[RequestId, RequestRecord] = {}
        self.gangs: dict[RequestId, GangRecord] = {}
        #: gangs of which something has happened to a member; what follows is drawn in the next cycle.
        self.unsettled: dict[RequestId, None] = {}
        #: whether any request ever had another priority than 0.
        self.priorities_differ = False
        #: what is over: preemptions, how requests ended.
        self.past = Past()
        #: while it is found out what an earlier incarnation has left; then nothing is given or taken.
        self.recovery: Recovering | None = None
        #: the latest sessions that have ended.
        self.closed: deque[SessionId] = deque(maxlen=1000)
        #: slices of which the books know nothing, on their way out (see ``recovery.py``).
        self.strangers: dict[SliceId, None] = {}
        self._sequence = 0
        #: when only time will have changed what the next cycle decides, or None.
        self.wake_at: float | None = None

    def look_again(self, at: float) -> None:
        """A cycle is wanted then, if nothing happens before."""
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def finish(self, request: RequestRecord, step: RequestStep) -> None:
        self.blocked.pop(request.lease, None)
        request.step(step)
        self.past.ended(request, self.now)
        request.slice = None
        self.sharing.leaves(request)
        self.sharing.gives_back(request, self.now)
        self.drop_next(request)
        self.preemptible.pop(request.id, None)
        self.touch(request)
        del self.requests[request.id]

    def touch(self, request: RequestRecord) -> None:
        """Something has happened to a request that its gang has to know of."""
        if request.gang is not None:
            self.unsettled[request.gang.id] = None

    def order_by_age(self) -> None:
        """Have everybody stand in line as they were submitted, in whatever order they have come."""
        oldest = sorted(self.requests.values(), key=lambda one: (one.submitted, one.sequence))
        renamed: dict[int, int] = {}
        for request in oldest:  # members of a gang have one number
            request.sequence = renamed.setdefault(request.sequence, len(renamed) + 1)
        self._sequence = len(renamed)
        for line in list(self.lines):
            waiting = [self.requests[name] for name in self.lines[line] if name in self.requests]
            waiting = [request for request in waiting if request.stands_in_line]
            self.lines[line] = deque(r.id for r in sorted(waiting, key=lambda one: one.sequence))

    def next_sequence(self) -> int:
        """A number behind all that wait."""
        self._sequence += 1
        return self._sequence

    def drop_next(self, request: RequestRecord) -> None:
        """What was planned for when its lease is over is not needed."""
        planned = self.slices.by_id.get(request.next) if request.next else None
        request.next = None
        if planned is not None:
            planned.request = None
            self.slices.step(planned, SliceStep.END, planned.since)

    def grant(self, request: RequestRecord, record: SliceRecord, now: float, gang: tuple[LeaseId, ...] = ()) -> None:
        """Give a request a slice, and tell its session."""
        self.hold(request, record, now)
        request.attempt += 1
        record.grants += 1
        kind, isolation = self.pool.kind_of(record.placement)
        guarantee = self.pool.guarantee_of(record.placement)
        lease = Lease(request.lease, record.id, record.placement, kind, isolation, record.grants, guarantee)
        self.out.append(GrantLease(request.session, lease, gang))

    def hold(self, request: RequestRecord, record: SliceRecord, now: float) -> None:
        """A request has a lease on a slice from now on."""
        self.slices.adopt(record, request)
        self.slices.step(record, SliceStep.HOLD, now)
        if request.state is RequestState.QUEUED:
            request.step(RequestStep.RESERVE)
            self._takes_place(request, record)
        request.step(RequestStep.GRANT)
        request.slice, request.leased_at = record.id, now
        record.has_run, record.safe_at = False, now
        self._expect_end(request, record, now)

    def requeue(self, request: RequestRecord) -> None:
        """Back to the place in its line that its arrival gave it, or on to the slice that is planned for it."""
        request.step(RequestStep.REQUEUE)
        request.slice = None
        self.touch(request)  # a gang waits as a whole, or goes on without it
        self.sharing.gives_back(request, self.now)
        planned = self.slices.by_id.get(request.next) if request.next else None
        request.next = None
        if planned is not None:
            self.reserve(request, planned, WaitReason.MAKING_ROOM)
            return
        self.sharing.waits(request)
        if request.gang is None:
            self.stand_in_line(request)

    def stand_in_line(self, request: RequestRecord) -> None:
        """Wait in the place that its sequence number gives it."""
        line = self.lines.setdefault(request.line, deque())
        known = {name: self.requests[name].sequence for name in line if name in self.requests}
        known[request.id] = request.sequence
        self.lines[request.line] = deque(sorted(known, key=known.__getitem__))

    def change_queue(self, request: RequestRecord, queue: str) -> None:
        """Its queue is gone: it keeps what it has, and its place in the order of arrival, in another one."""
        waits = request.stands_in_line
        if waits:
            self.lines[request.line].remove(request.id)
        request.join(queue)
        if waits:
            self.stand_in_line(request)

    def stop(self, record: SliceRecord, reason: StopReason, now: float) -> None:
        """Stop a slice's process; a planned one simply ends."""
        if record.state is SliceState.PENDING:
            self.slices.step(record, SliceStep.END, now)
        elif record.state is not SliceState.STOPPING:
            self.slices.step(record, SliceStep.STOP, now)
            self.out.append(StopSlice(record.id, record.placement.node, reason))

    def waiting(self) -> list[RequestRecord]:
        """Requests that stand in line, gangs by their first member, in the order they are looked at."""
        queued = [r for r in self.requests.values() if r.stands_in_line]
        return sorted(queued, key=lambda r: (-r.request.priority, r.sequence))

    def head(self, line: tuple[object, ...]) -> RequestRecord | None:
        """The first request of a line that still waits; forgets lines that are empty."""
        names = self.lines[line]
        while names:
            request = self.requests.get(names[0])
            if request is not None and request.stands_in_line:
                return request
            names.popleft()
        del self.lines[line]
        return None

    def behind(self, request: RequestRecord) -> RequestRecord | None:
        """Who stands in line behind a request that waits, or has just left; None beyond the first ``_PASSING``."""
        for name in islice(self.lines.get(request.line, ()), _PASSING):
            one = self.requests.get(name)
            if one is not None and one.stands_in_line and one.sequence > request.sequence:
                return one
        return None

    def leave_line(self, request: RequestRecord) -> None:
        """It was served, maybe before others that let it pass."""
        names = self.lines.get(request.line, deque())
        if request.id in names and not request.stands_in_line:
            names.remove(request.id)

    def reserve(self, request: RequestRecord, record: SliceRecord, reason: WaitReason) -> None:
        request.step(RequestStep.RESERVE)
        request.slice, request.reserve_reason = record.id, reason
        self.slices.adopt(record, request)
        self._takes_place(request, record)

    def _takes_place(self, request: RequestRecord, record: SliceRecord) -> None:
        self.sharing.leaves(request)
        self.sharing.takes(request, record.placement, self.now)

    def holders(self) -> Iterator[tuple[RequestRecord, Placement | None]]:
        """Every request, with the place it has."""
        for request in self.requests.values():
            record = self.slice_of(request)
            yield request, record.placement if record is not None else None

    def reserve_new_slice(
        self, request: RequestRecord, placement: Placement, victims: list[SliceRecord], now: float
    ) -> None:
        """Start a slice for a request; where something is in its way, plan it, and stop the idle ones there."""
        in_turn = bool(victims or reservations_at(self, placement.node, placement.devices, request.request.host))
        record = None if in_turn else self.slices.begin(request, placement, now)
        if record is not None:
            self.reserve(request, record, WaitReason.SLICE_STARTING)
            self.out.append(StartSlice(record.id, record.placement, record.environment))
        else:
            record = self.slices.plan(request, placement, now)
            self.reserve(request, record, WaitReason.MAKING_ROOM)
            for victim in victims:
                self.stop(victim, StopReason.MAKE_ROOM, now)  # room comes with events, before a cycle begins
            if not victims:
                self._start_if_free(record, now)
        self._expect_end(request, record, now)

    def reserve_planned(
        self, request: RequestRecord, record: SliceRecord, victims: list[SliceRecord], now: float
    ) -> None:
        """The same with a slice that is planned already."""
        self.reserve(request, record, WaitReason.MAKING_ROOM)
        self._expect_end(request, record, now)
        for victim in victims:
            self.stop(victim, StopReason.MAKE_ROOM, now)
        self._start_if_free(record, now)

    def lend(self, request: RequestRecord, placement: Placement, until: float, recall_at: float, now: float) -> None:
        """Start a slice in free room that others have reserved, to be asked back then (see ``backfill.py``)."""
        record = self.slices.begin(request, placement, now)
        if record is None:
            raise InternalError(f"what was to be lent to request {request.id} is not free")
        record.promised, record.lent_until, self.gaps = True, until, None
        self.slices.set_draining(record, True)
        self.promised[record.id] = recall_at
        self.reserve(request, record, WaitReason.SLICE_STARTING)
        self._expect_end(request, record, now)
        self.out.append(StartSlice(record.id, record.placement, record.environment))

    def _expect_end(self, request: RequestRecord, record: SliceRecord, begin: float) -> None:
        """A lease is expected to end after one task; one that goes on says nothing more."""
        seconds = self._runs_for(request, record)
        if seconds is not None:
            self.ends.expect(self.pool.kind_of(record.placement)[0], begin + seconds, record)

    def _runs_for(self, request: RequestRecord, record: SliceRecord) -> float | None:
        """Seconds that one task of a request is expected to take on a slice, where that is known."""
        known = self.pool.chooser.seconds_for(request.task_class, request.request)
        return known.get(self.pool.kind_of(record.placement)[0]) if known else None

    def start_pending(self, now: float) -> None:
        """Start the planned slices whose room has come free, first planned first."""
        for record in list(self.slices.pending.values()):
            self._start_if_free(record, now)

    def _start_if_free(self, record: SliceRecord, now: float) -> None:
        holder = self.holder_of(record)
        follows = holder is not None and holder.next == record.id
        if not follows and self.slices.starts(record) and not self._delays_others(record, holder):
            self.slices.step(record, SliceStep.START, now)
            self.out.append(StartSlice(record.id, record.placement, record.environment))
            if holder is not None:
                holder.reserve_reason = WaitReason.SLICE_STARTING

    def _delays_others(self, record: SliceRecord, holder: RequestRecord | None) -> bool:
        """Whether those that were planned before it for the same room would wait longer if it started now."""
        if len(self.slices.pending) < 2:
            return False
        seconds = self._runs_for(holder, record) if holder is not None else None
        return delays(self, record, self.now, None if seconds is None else self.now + SLICE_START_SECONDS + seconds)

    def holder(self, lease: LeaseId) -> RequestRecord | None:
        """The request that holds a lease now; None for a lease of an earlier attempt."""
        request = self.requests.get(lease.request)
        if request is None or request.attempt != lease.attempt:
            return None
        return request if request.state in (RequestState.LEASED, RequestState.DRAINING) else None

    def slice_of(self, request: RequestRecord) -> SliceRecord | None:
        return self.slices.by_id.get(request.slice) if request.slice else None

    def environment_lives(self, environment: EnvironmentId) -> bool:
        return self.environments[environment] > 0

    def holder_of(self, record: SliceRecord) -> RequestRecord | None:
        """The request a slice is held by or reserved for."""
        return self.requests.get(record.request) if record.request else None
