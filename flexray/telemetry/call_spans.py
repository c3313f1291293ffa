"""The client's part of a trace: ``submit`` from ``.remote()`` to the outcome, with ``wait`` and ``result`` in it.

The other parts are the scheduler's (``request_spans.py``) and the slice's (``run_spans.py``). Whether a call has a
trace is drawn here before anything of OpenTelemetry's is made, since most calls have none.
"""

from __future__ import annotations

import random
import time

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from flexray.telemetry.exporters import close, tracer_provider
from flexray.telemetry.settings import Settings

_MOST_A_SECOND = 50
"""Traces that a client begins by itself, since a call with one costs as much as twenty without: of more the exporter's
queue would drop parts. A caller's own span is followed however many there are."""


class CallTrace:
    """The trace of one call. ``header`` is the W3C ``traceparent`` that its parts elsewhere begin from."""

    __slots__ = ("_sent", "_span", "_tracer", "header", "ran_until")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer, self._span = tracer, span
        self._sent = False
        self.header = header_of(span.get_span_context())
        #: when its run ended, by the slice's clock, in nanoseconds since 1970; 0 as long as nobody has said.
        self.ran_until = 0

    def sent(self, since: int) -> None:
        """It goes to a slice, for the first time or again; ``since``: when it was submitted."""
        if not self._sent:
            self._sent = True
            self._part("wait", since)

    def member(self) -> MemberTrace:
        """The same for the call of a gang's member, which is no call of its own to the user."""
        return MemberTrace(self)

    def done(self, failure: str) -> None:
        """It has its outcome; ``failure``: the class of the error, or ""."""
        if self.ran_until:
            self._part("result", self.ran_until)
        if failure:
            self._span.set_attribute("error.type", failure)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    @property
    def since(self) -> int:
        """When it was submitted, in nanoseconds since 1970."""
        return int(getattr(self._span, "start_time", 0) or 0)

    def _part(self, name: str, since: int) -> None:
        now = time.time_ns()
        part = self._tracer.start_span(name, trace.set_span_in_context(self._span), start_time=min(since, now))
        part.end(now)


class MemberTrace:
    """A gang's trace as its members' calls have it: they begin from the same header, and do not end it."""

    __slots__ = ("_whole", "header", "ran_until")

    def __init__(self, whole: CallTrace) -> None:
        self._whole = whole
        self.header = whole.header
        self.ran_until = 0

    @property
    def since(self) -> int:
        """When the gang was submitted."""
        return self._whole.since

    def member(self) -> MemberTrace:
        """Another member's."""
        return self._whole.member()

    def sent(self, since: int) -> None:
        """The first member's call that goes to a slice ends the gang's wait."""
        self._whole.sent(since)

    def done(self, failure: str) -> None:
        """The last member's end is where the result's way begins."""
        self._whole.ran_until = max(self._whole.ran_until, self.ran_until)


class CallTracing:
    """Begins the traces of a client's calls."""

    def __init__(self, settings: Settings, provider: TracerProvider | None = None) -> None:
        there = trace.get_tracer_provider()
        own = provider is None and not isinstance(there, TracerProvider)
        # Where the program, or the slice, has a provider already, its spans and ours go the same way.
        self._provider = provider or (tracer_provider(settings, "flexray-client", decided=True) if own else there)
        self._own = own
        self._tracer = self._provider.get_tracer("flexray")
        self._ratio, self._follow = settings.ratio, settings.follow
        #: when the present second began, and how many traces were begun in it.
        self._second, self._begun = 0.0, 0

    def begin(self, name: str, queue: str, method: str = "") -> CallTrace | None:
        """The trace of a call that is being submitted; None for one that has none."""
        above = trace.get_current_span().get_span_context() if context.get_current() else None
        if above is not None and above.is_valid and self._follow:
            if not above.trace_flags.sampled:
                return None
        elif (self._ratio < 1.0 and random.random() >= self._ratio) or not self._may_begin():
            return None
        name = f"{name}.{method}" if method else name
        attributes = {"flexray.task": name, "flexray.queue": queue}
        span = self._tracer.start_span(f"submit {name}", kind=SpanKind.PRODUCER, attributes=attributes)
        return CallTrace(self._tracer, span) if span.is_recording() else None

    def _may_begin(self) -> bool:
        """Whether there is time for one more. Two threads at once may count one too few, which does not matter."""
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._begun = now, 0
        self._begun += 1
        return self._begun <= _MOST_A_SECOND

    def close(self) -> None:
        """Export what there is, if the back end takes it."""
        if self._own and isinstance(self._provider, TracerProvider):
            close(self._provider.shutdown)


def header_of(context: SpanContext) -> str:
    """A span as a W3C ``traceparent``."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
