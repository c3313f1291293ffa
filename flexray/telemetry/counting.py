"""Counters and durations, from what goes into the core and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flexray.model.commands import Command, FailRequest, GrantLease, RecallLease, RevokeLease, StartSlice, StopSlice
from flexray.model.events import (
    Event,
    LeaseFound,
    LeaseReleased,
    LeaseYielded,
    NodeReported,
    QueuesConfigured,
    RequestCancelled,
    RequestSubmitted,
    SessionClosed,
    SessionOpened,
    SliceEnded,
    SliceFailed,
    SliceStarted,
    TasksRan,
)
from flexray.model.lease import LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.request import DEFAULT_QUEUE
from flexray.telemetry.tally import Tally

_OTHER = "other"
_HOST = "host"
_MEMORY = {"memory": "device", "host_memory": "host", "node_memory": "node"}
_CAUSES = frozenset({"timeout", "cancel", "died", *_MEMORY})


@dataclass(slots=True)
class _Open:
    """A request that is not over: since when it waits, and how many leases it holds (a gang: of its members)."""

    queue: str
    session: SessionId
    since: float
    gang: bool
    held: int = 0


class Counting:
    """An observer that counts. What it remembers is bounded by what the pool has: requests, slices, devices."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self.sessions: set[SessionId] = set()
        self._queues = frozenset({DEFAULT_QUEUE})
        self._open: dict[RequestId, _Open] = {}
        self._types: dict[str, str] = {}
        #: slices that are starting: type of their device, and since when.
        self._starting: dict[SliceId, tuple[str, float]] = {}
        self._on_event: dict[type, Callable[[Any, float], None]] = {
            SessionOpened: lambda event, now: self.sessions.add(event.session),
            SessionClosed: self._session_closed,
            NodeReported: self._node_reported,
            QueuesConfigured: self._queues_configured,
            RequestSubmitted: self._submitted,
            LeaseFound: self._found,
            RequestCancelled: lambda event, now: self._ends(event.id, "cancelled"),
            LeaseReleased: lambda event, now: self._gave_back(event.lease, "done"),
            LeaseYielded: lambda event, now: self._waits_again(event.lease, now),
            TasksRan: self._ran,
            SliceStarted: self._started,
            SliceFailed: self._failed,
            SliceEnded: self._ended,
        }
        self._on_command: dict[type, Callable[[Any, float], None]] = {
            GrantLease: self._granted,
            FailRequest: lambda command, now: self._ends(command.request, command.reason.value),
            RevokeLease: self._revoked,
            RecallLease: self._recalled,
            StartSlice: self._starts,
            StopSlice: lambda command, now: self._tally.count("flexray.slices.stopped", command.reason.value),
        }

    def saw(self, event: Event, now: float) -> None:
        """The core is about to take an event in."""
        handler = self._on_event.get(type(event))
        if handler is not None:
            handler(event, now)

    def decided(self, commands: Sequence[Command], now: float) -> None:
        """A cycle is over."""
        for command in commands:
            handler = self._on_command.get(type(command))
            if handler is not None:
                handler(command, now)

    # -- requests ------------------------------------------------------------------------------

    def _queue(self, name: str) -> str:
        """Only queues that are configured have a name here: a request may ask for any."""
        return name if name in self._queues else _OTHER

    def _queues_configured(self, event: QueuesConfigured, now: float) -> None:
        self._queues = frozenset({DEFAULT_QUEUE, *(queue.name for queue in event.queues)})

    def _submitted(self, event: RequestSubmitted, now: float) -> None:
        if event.id in self._open or event.session not in self.sessions:
            return
        queue, gang = self._queue(event.request.queue), event.request.gang is not None
        self._open[event.id] = _Open(queue, event.session, now - event.waited, gang)
        if not event.attempt and not event.waited:  # otherwise an earlier scheduler has counted it
            self._tally.count("flexray.requests.submitted", queue)

    def _found(self, event: LeaseFound, now: float) -> None:
        self._submitted(event.submitted, now)
        one = self._open.get(event.submitted.id)
        if one is not None:
            one.held += 1

    def _find(self, request: RequestId) -> tuple[RequestId, _Open | None]:
        """The request of that name, or the gang of which it is a member."""
        one = self._open.get(request)
        if one is not None:
            return request, one
        name = RequestId(request.rpartition(".")[0])
        one = self._open.get(name)
        return name, one if one is not None and one.gang else None

    def _ends(self, request: RequestId, reason: str) -> None:
        one = self._open.pop(request, None)
        if one is not None:
            self._tally.count("flexray.requests.ended", one.queue, reason)

    def _gave_back(self, lease: LeaseId, reason: str) -> None:
        name, one = self._find(lease.request)
        if one is not None:
            one.held = max(0, one.held - 1)
            if not one.held:
                self._ends(name, reason)

    def _waits_again(self, lease: LeaseId, now: float) -> None:
        _, one = self._find(lease.request)
        if one is not None:
            one.held, one.since = max(0, one.held - 1), now

    def _session_closed(self, event: SessionClosed, now: float) -> None:
        self.sessions.discard(event.session)
        for name in [name for name, one in self._open.items() if one.session == event.session]:
            self._ends(name, "session_ended")

    def _ran(self, event: TasksRan, now: float) -> None:
        _, one = self._find(event.lease.request)
        if one is not None:
            self._tally.count("flexray.tasks.run", one.queue, by=event.calls)
            self._tally.count("flexray.tasks.run.time", one.queue, by=event.seconds)

    # -- leases --------------------------------------------------------------------------------

    def _granted(self, command: GrantLease, now: float) -> None:
        _, one = self._find(command.lease.lease.request)
        if one is not None:
            if not one.held:
                self._tally.took("flexray.request.wait.duration", now - one.since, one.queue)
            one.held += 1
            self._tally.count("flexray.leases.granted", one.queue)

    def _revoked(self, command: RevokeLease, now: float) -> None:
        self._tally.count("flexray.leases.lost", command.reason.value)
        _, one = self._find(command.lease.request)
        if command.requeued or (one is not None and one.gang):  # how a gang ends is said of it as a whole
            self._waits_again(command.lease, now)
        else:
            self._ends(command.lease.request, command.reason.value)

    def _recalled(self, command: RecallLease, now: float) -> None:
        name = "flexray.preemptions" if command.stop else "flexray.leases.recalled"
        self._tally.count(name, command.reason.value)

    # -- slices --------------------------------------------------------------------------------

    def _node_reported(self, event: NodeReported, now: float) -> None:
        self._types.update((device.id, device.type.name) for device in event.inventory.devices)

    def type_of(self, placement: Placement) -> str:
        """Name of the type of the devices of a place."""
        return self._types.get(placement.devices[0], _OTHER) if placement.devices else _HOST

    def _starts(self, command: StartSlice, now: float) -> None:
        self._starting[command.slice] = (self.type_of(command.placement), now)

    def _started(self, event: SliceStarted, now: float) -> None:
        kind, since = self._starting.pop(event.slice, ("", now))
        if kind:
            self._tally.count("flexray.slices.started", kind)
            self._tally.took("flexray.slice.start.duration", now - since, kind)

    def _failed(self, event: SliceFailed, now: float) -> None:
        kind, _ = self._starting.pop(event.slice, (_OTHER, now))
        self._tally.count("flexray.slices.failed", kind)

    def _ended(self, event: SliceEnded, now: float) -> None:
        self._starting.pop(event.slice, None)
        if event.cause:
            self._tally.count("flexray.slices.ended", event.cause if event.cause in _CAUSES else _OTHER)
        if event.cause in _MEMORY:
            self._tally.count("flexray.slices.memory_kills", _MEMORY[event.cause])
