"""The scheduler's part of a trace: ``request``, from a request to its lease, and ``start``, of a slice for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from opentelemetry.sdk.trace import TracerProvider

from flexray.model.commands import Command, FailRequest, GrantLease, StartSlice
from flexray.model.events import Event, RequestCancelled, RequestSubmitted, SliceStarted
from flexray.model.lease import RequestId, SliceId
from flexray.telemetry.exporters import close, tracer_provider
from flexray.telemetry.run_spans import context_of
from flexray.telemetry.settings import Settings

_KEPT = 10_000


class RequestTracing:
    """An observer that makes the spans of requests that have a trace. It remembers the latest, of each kind so many."""

    def __init__(self, settings: Settings, provider: TracerProvider | None = None) -> None:
        self._provider = provider or tracer_provider(settings, "flexray-scheduler", decided=True)
        self._tracer = self._provider.get_tracer("flexray")
        #: requests that wait: their trace, their queue, since when.
        self._waiting: OrderedDict[RequestId, tuple[str, str, float]] = OrderedDict()
        #: slices that nobody has had yet: since when they start, and when they had started.
        self._new: OrderedDict[SliceId, tuple[float, float]] = OrderedDict()

    def saw(self, event: Event, now: float) -> None:
        """The core is about to take an event in."""
        if isinstance(event, RequestSubmitted):
            if event.trace and event.id not in self._waiting:
                self._waiting[event.id] = (event.trace, event.request.queue, now - event.waited)
                _bound(self._waiting)
        elif isinstance(event, RequestCancelled):
            self._waiting.pop(event.id, None)
        elif isinstance(event, SliceStarted) and event.slice in self._new:
            self._new[event.slice] = (self._new[event.slice][0], now)

    def decided(self, commands: Sequence[Command], now: float) -> None:
        """A cycle is over."""
        for command in commands:
            if isinstance(command, StartSlice):
                self._new[command.slice] = (now, 0.0)
                _bound(self._new)
            elif isinstance(command, GrantLease):
                self._granted(command, now)
            elif isinstance(command, FailRequest):
                self._waiting.pop(command.request, None)

    def close(self) -> None:
        """Export what there is, if the back end takes it."""
        close(self._provider.shutdown)

    def _granted(self, command: GrantLease, now: float) -> None:
        lease = command.lease
        request = lease.lease.request
        started = self._new.pop(lease.slice, None)
        found = self._waiting.pop(request, None)
        if found is None and command.gang:  # a member; the first one stands for its gang
            found = self._waiting.pop(RequestId(request.rpartition(".")[0]), None)
        if found is None:
            return
        header, queue, since = found
        attributes = {"flexray.queue": queue, "flexray.request": request, "flexray.lease": str(lease.lease)}
        above = context_of(header)
        span = self._tracer.start_span("request", above, attributes=attributes, start_time=_nanoseconds(since))
        span.end(_nanoseconds(now))
        if started is not None and started[1]:
            attributes = {"flexray.slice": lease.slice, "flexray.device.type": lease.device_type}
            begin = self._tracer.start_span("start", above, attributes=attributes, start_time=_nanoseconds(started[0]))
            begin.end(_nanoseconds(started[1]))


def _bound(known: OrderedDict[RequestId, tuple[str, str, float]] | OrderedDict[SliceId, tuple[float, float]]) -> None:
    while len(known) > _KEPT:
        known.popitem(last=False)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
