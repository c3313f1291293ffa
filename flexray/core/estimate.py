"""When waiting requests are expected to start: the present state is replayed by the same core, under a virtual clock.

What happens in the replay is what usually happens: slices start in a second, stop at once,
and leases end when their work is expected to end:

    one that runs its first call      when that is done (``outlook.py`` says when)
    one on which a call has ended     its client has a backlog: it is handed back when it has been recalled, for
                                      somebody who has waited for a term, and half a call later

Nothing arrives, and nobody is lost. A replay is bounded in events and in virtual time, so that
asking stays cheap; what it does not reach has no estimate.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from flexray.core.ends import SLICE_START_SECONDS
from flexray.core.outlook import Outlook
from flexray.core.records import SliceRecord
from flexray.core.scheduler import Scheduler
from flexray.core.state import State
from flexray.model.commands import Command, FailRequest, GrantLease, RecallLease, StartSlice, StopSlice
from flexray.model.events import Event, LeaseReleased, SliceEnded, SliceStarted
from flexray.model.explanation import StartEstimate
from flexray.model.lease import LeaseId, Placement, RequestId
from flexray.model.lifecycle import RequestState, SliceState

MOST_EVENTS = 2_000
"""A replay ends after so many events."""
HORIZON_SECONDS = 30 * 86_400.0
"""What would start later than this has no estimate."""
_KINDS = ("declared", "learnt", "guessed")
_WAITING = (RequestState.QUEUED, RequestState.RESERVED)


def estimate_starts(
    core: Scheduler, names: Collection[RequestId], now: float, most_events: int = MOST_EVENTS
) -> dict[RequestId, StartEstimate]:
    """When some waiting requests are expected to start; those that do not wait are left out.

    Args:
        core: is used up by the replay; give a copy (``Scheduler.copy``).
        now: of the scheduler's clock.
    """
    asked = [name for name in names if _waits(core.state, name)]
    return Replay(core, asked, now, Outlook(core.state)).run(most_events)


def _waits(state: State, name: RequestId) -> bool:
    """Whether a request waits; a gang does until its members have leases."""
    gang = state.gangs.get(name)
    if gang is not None:
        return all(member.state in _WAITING for member in gang.live)
    return name in state.requests and state.requests[name].state in _WAITING


@dataclass(slots=True)
class Replay:
    """One replay, until all that are asked about have started. It uses the core up.

    Attributes:
        asked: requests that wait.
        events: how many were replayed.
    """

    core: Scheduler
    asked: list[RequestId]
    begin: float
    outlook: Outlook
    events: int = 0
    found: dict[RequestId, StartEstimate] = field(default_factory=dict)
    #: kinds of the ends of leases so far.
    ends: Counter[str] = field(default_factory=Counter)
    #: leases that are not known to end: what is unknown of them.
    _endless: dict[LeaseId, str] = field(default_factory=dict)
    _agenda: list[tuple[float, int, Event | None, str]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _terms: set[float] = field(default_factory=set)

    def run(self, most_events: int = MOST_EVENTS) -> dict[RequestId, StartEstimate]:
        """When each starts."""
        state, time = self.core.state, self.begin
        for record in list(state.slices.by_id.values()):
            self._foresee(record)
        for request in state.requests.values():
            if request.state is RequestState.QUEUED:
                self._look_at(request.submitted + state.options.lease_term_seconds)
        while True:
            for command in self.core.decide(time):
                self._carry_out(command, time)
            wake = self.core.wake_at
            if wake is not None and wake - self.begin < HORIZON_SECONDS:
                self._look_at(max(wake, time + 0.001))
            if not self._waiting() or not self._agenda or self.events >= most_events:
                break
            time = self._agenda[0][0]
            if time - self.begin > HORIZON_SECONDS:
                break
            while self._agenda and self._agenda[0][0] <= time:
                _, _, event, kind = heapq.heappop(self._agenda)
                self.events += 1
                if event is not None:
                    self._happens(event, kind, time)
        why = self._why_not(self.events >= most_events, time)
        self.found.update((name, StartEstimate(None, "unknown", why=why)) for name in self._waiting())
        return {name: self.found[name] for name in self.asked}

    def _waiting(self) -> list[RequestId]:
        return [name for name in self.asked if name not in self.found]

    def _why_not(self, cut: bool, time: float) -> str:
        if cut:
            return f"it does not start within the {time - self.begin:.0f} s that were replayed"
        unknown = sorted(set(self._endless.values()))
        return unknown[0] if unknown else "nothing that is known to end makes room for it"

    # -- what happens ------------------------------------------------------------------------

    def _put(self, time: float, event: Event | None, kind: str = "") -> None:
        heapq.heappush(self._agenda, (time, next(self._numbers), event, kind))

    def _look_at(self, time: float) -> None:
        """Have a cycle then: only time will have changed something."""
        if time > self.begin and time not in self._terms:
            self._terms.add(time)
            self._put(time, None)

    def _happens(self, event: Event, kind: str, time: float) -> None:
        if isinstance(event, LeaseReleased):
            if self.core.state.holder(event.lease) is None:
                return  # it lost its lease before
            self.ends[kind] += 1
        self.core.apply(event, time)

    def _carry_out(self, command: Command, time: float) -> None:
        match command:
            case StartSlice():
                self._put(time + SLICE_START_SECONDS, SliceStarted(command.slice))
            case StopSlice():
                self._put(time, SliceEnded(command.slice))
            case GrantLease():
                self._granted(command, time)
            case RecallLease() if command.lease in self._endless:
                self._recalled(command.lease, time)
            case FailRequest() if command.request in self.asked:
                self.found[command.request] = StartEstimate(None, "unknown", why=command.message)

    def _granted(self, command: GrantLease, time: float) -> None:
        lease = command.lease
        request = self.core.state.requests[lease.lease.request]
        for name in (request.id, request.gang.id if request.gang is not None else request.id):
            if name in self.asked and name not in self.found:
                self.found[name] = self._estimate(time, lease.placement)
        record = self.core.state.slices.by_id[lease.slice]
        self._foresee(record)
        self._look_at(time + self.core.state.options.lease_term_seconds)

    def _estimate(self, time: float, place: Placement) -> StartEstimate:
        basis = next((kind for kind in reversed(_KINDS) if self.ends[kind]), "room")
        declared, learnt, guessed = (self.ends[kind] for kind in _KINDS)
        return StartEstimate(time - self.begin, basis, declared, learnt, guessed, "", place.node, place.devices)

    # -- when leases end ---------------------------------------------------------------------

    def _foresee(self, record: SliceRecord) -> None:
        """What a slice is going to do by itself, from the present moment on."""
        state = self.core.state
        now = state.now if state.now > self.begin else self.begin
        holder = state.holder_of(record)
        if record.state is SliceState.STARTING:
            self._put(max(now, record.since + SLICE_START_SECONDS), SliceStarted(record.id))
        elif record.state is SliceState.STOPPING:
            self._put(now, SliceEnded(record.id))
        elif record.state is SliceState.HELD and holder is not None and holder.slice == record.id:
            left, kind = self.outlook.left(holder, record, now)
            if record.has_run and not record.draining:
                self._endless[holder.lease] = f"{holder.lease.request} goes on with calls until it is asked to stop"
            elif left is None:
                self._endless[holder.lease] = f"nothing is known of how long {holder.lease.request} runs"
            else:
                self._put(now + left, LeaseReleased(holder.lease), kind)

    def _recalled(self, lease: LeaseId, time: float) -> None:
        """A lease that goes from call to call is handed back when the present one is done: half a call from now."""
        request = self.core.state.holder(lease)
        record = self.core.state.slice_of(request) if request is not None else None
        if request is None or record is None or not record.has_run:
            return
        del self._endless[lease]
        whole, kind = self.outlook.whole(request, record)
        self._put(time + (whole or 0.0) / 2, LeaseReleased(lease), kind)
