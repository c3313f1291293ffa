"""The slice's part of a trace: ``run``, under which a task's own spans come to be."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flexray.telemetry.exporters import tracer_provider
from flexray.telemetry.settings import Settings

_KEPT = 10_000


def context_of(header: str) -> Context:
    """What a W3C ``traceparent`` stands for."""
    return TraceContextTextMapPropagator().extract({"traceparent": header})


class RunTracing:
    """Makes the spans of calls that have a trace. Its provider is the process's own, for spans that tasks make."""

    def __init__(self, settings: Settings, slice_id: str, provider: TracerProvider | None = None) -> None:
        self._slice = slice_id
        if provider is None:
            provider = tracer_provider(settings, "flexray-slice", decided=False)
            trace.set_tracer_provider(provider)
        self._tracer = provider.get_tracer("flexray")
        #: when runs ended, in nanoseconds since 1970, until their client is told: bounded, as it may never ask.
        self._ends: OrderedDict[object, int] = OrderedDict()

    def traced(self, header: str, name: str, lease: str, key: object, call: Callable[[], Any]) -> Callable[[], Any]:
        """A call that runs under a span of its own; ``key`` names it to ``end_of``. Made once, run once."""

        def run() -> Any:
            span = self._begin(header, name, lease)
            token = context.attach(trace.set_span_in_context(span))
            try:
                result = call()
            except BaseException as error:
                self._end(span, key, error)
                raise
            finally:
                context.detach(token)
            if isinstance(result, CoroutineType):
                return self._awaited(span, key, result)
            self._end(span, key, None)
            return result

        return run

    async def _awaited(self, span: Span, key: object, coroutine: Any) -> Any:
        token = context.attach(trace.set_span_in_context(span))
        try:
            result = await coroutine  # unbounded: user code; its timeout is the watchdog's
        except BaseException as error:
            self._end(span, key, error)
            raise
        finally:
            context.detach(token)
        self._end(span, key, None)
        return result

    @property
    def has_ends(self) -> bool:
        """Whether some run has ended whose client is not told yet: most answers tell of none."""
        return bool(self._ends)

    def end_of(self, key: object) -> int:
        """When the run of that key ended; 0 where it had no trace. Told once."""
        return self._ends.pop(key, 0)

    def _begin(self, header: str, name: str, lease: str) -> Span:
        attributes = {"flexray.task": name, "flexray.slice": self._slice, "flexray.lease": lease}
        return self._tracer.start_span(f"run {name}", context_of(header), SpanKind.CONSUMER, attributes)

    def _end(self, span: Span, key: object, error: BaseException | None) -> None:
        """Of an error only its class is told: its text is the user's."""
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        now = self._ends[key] = time.time_ns()
        if len(self._ends) > _KEPT:
            self._ends.popitem(last=False)
        span.end(now)


def here() -> tuple[str, str]:
    """(trace, span) that is current, in hexadecimal; two empty strings where there is none."""
    found = trace.get_current_span().get_span_context()
    return (f"{found.trace_id:032x}", f"{found.span_id:016x}") if found.is_valid else ("", "")
