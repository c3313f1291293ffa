"""The parts of a trace, each made by who makes it; and back ends that do not answer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flexray.model.commands import GrantLease, StartSlice
from flexray.model.events import RequestSubmitted, SliceStarted
from flexray.model.isolation import Isolation
from flexray.model.lease import EnvironmentId, Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.request import Request
from flexray.telemetry.call_spans import CallTracing
from flexray.telemetry.request_spans import RequestTracing
from flexray.telemetry.run_spans import RunTracing
from flexray.telemetry.settings import Settings
from metering.collector import collecting


class Kept:
    """A provider and what it was given, by name."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._memory.get_finished_spans()}


@pytest.fixture
def kept() -> Iterator[Kept]:
    there = Kept()
    yield there
    there.provider.shutdown()


def begun(kept: Kept, **settings: Any) -> Any:
    return CallTracing(Settings(("otlp",), **settings), kept.provider).begin("f", "default")


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def test_a_call_waits_runs_and_comes_back(kept: Kept) -> None:
    call = begun(kept)
    call.sent(call.since)
    call.sent(call.since)  # again, after its slice was lost
    call.ran_until = time.time_ns()
    call.done("")
    root = kept.spans["submit f"]
    assert set(kept.spans) == {"submit f", "wait", "result"}
    assert {parent_of(kept.spans[name]) for name in ("wait", "result")} == {root.context.span_id}
    assert call.header == f"00-{root.context.trace_id:032x}-{root.context.span_id:016x}-{root.context.trace_flags:02x}"
    assert kept.spans["wait"].start_time == root.start_time


def test_a_failed_call_says_the_class_of_its_error_only(kept: Kept) -> None:
    begun(kept).done("LeaseLost")
    root = kept.spans["submit f"]
    assert not root.status.is_ok
    assert root.attributes == {"flexray.task": "f", "flexray.queue": "default", "error.type": "LeaseLost"}


def test_the_members_of_a_gang_are_parts_of_one_call(kept: Kept) -> None:
    whole = begun(kept)
    members = [whole.member() for _ in range(2)]
    for end, member in enumerate(members, start=whole.since + 1):
        member.sent(member.since)
        member.ran_until = end
        member.done("")
    assert "submit f" not in kept.spans
    whole.done("")
    assert kept.spans["result"].start_time == whole.since + 2
    assert {member.header for member in members} == {whole.header}


def test_who_is_sampled(kept: Kept) -> None:
    assert begun(kept, ratio=0.0) is None
    tracer = kept.provider.get_tracer("user")
    with tracer.start_as_current_span("user's"):
        assert begun(kept, ratio=0.0) is not None
        assert begun(kept, ratio=0.0, follow=False) is None
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(0)))
    with trace.use_span(unsampled):
        assert begun(kept) is None


def test_so_many_traces_a_second_and_no_more(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr("flexray.telemetry.call_spans.time.monotonic", lambda: now[0])
    tracing = CallTracing(Settings(("otlp",)), kept.provider)
    assert sum(tracing.begin("f", "q") is not None for _ in range(500)) == 20
    with kept.provider.get_tracer("user").start_as_current_span("user's"):
        assert all(tracing.begin("f", "q") is not None for _ in range(60))
    now[0] += 1.0
    assert tracing.begin("f", "q") is not None


def test_the_part_that_was_asked_for_is_traced(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexray.telemetry.call_spans._MOST_A_SECOND", 10_000)
    tracing = CallTracing(Settings(("otlp",), ratio=0.1), kept.provider)
    drawn = sum(tracing.begin("f", "q") is not None for _ in range(5_000))
    assert 300 < drawn < 800  # 500 expected; so far off is one run in 10**20


def run_of(kept: Kept, call: Callable[[], Any]) -> tuple[RunTracing, Callable[[], Any]]:
    tracing = RunTracing(Settings(("otlp",)), "s1.1", kept.provider)
    return tracing, tracing.traced(f"00-{7:032x}-{9:016x}-01", "f", "r#1", "key", call)


def test_spans_of_a_task_are_children_of_its_run(kept: Kept) -> None:
    def task() -> int:
        with kept.provider.get_tracer("user").start_as_current_span("mine"):
            return 5

    tracing, run = run_of(kept, task)
    assert run() == 5
    spans = kept.spans
    assert parent_of(spans["mine"]) == spans["run f"].context.span_id
    assert parent_of(spans["run f"]) == 9
    assert spans["run f"].context.trace_id == 7
    assert tracing.end_of("key") == spans["run f"].end_time
    assert tracing.end_of("key") == 0
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_coroutine_runs_under_its_span_to_its_end(kept: Kept) -> None:
    async def task() -> int:
        await asyncio.sleep(0.01)
        with kept.provider.get_tracer("user").start_as_current_span("mine"):
            return 5

    _, run = run_of(kept, lambda: task())
    assert asyncio.run(run()) == 5
    spans = kept.spans
    assert parent_of(spans["mine"]) == spans["run f"].context.span_id
    assert spans["run f"].end_time >= spans["mine"].end_time


def test_a_task_that_raises_ends_its_span(kept: Kept) -> None:
    def task() -> None:
        raise KeyError("a user's secret")

    _, run = run_of(kept, task)
    with pytest.raises(KeyError):
        run()
    span = kept.spans["run f"]
    assert span.attributes is not None and span.attributes["error.type"] == "KeyError"
    assert "secret" not in span.to_json()


def test_the_scheduler_says_how_long_request_and_start_took(kept: Kept) -> None:
    tracing = RequestTracing(Settings(("otlp",)), kept.provider)
    me, place = SessionId("me"), Placement("n", ("d",), Request().share, 1)  # type: ignore[arg-type]
    asked = RequestSubmitted(
        RequestId("me.1"), me, EnvironmentId("e"), "f", Request(), trace=f"00-{7:032x}-{9:016x}-01"
    )
    lease = Lease(LeaseId(asked.id, 1), SliceId("s1.1"), place, "nvidia/T4", Isolation.NONE)
    tracing.saw(asked, 10.0)
    tracing.decided([StartSlice(lease.slice, place, EnvironmentId("e"))], 11.0)
    tracing.saw(SliceStarted(lease.slice), 12.0)
    tracing.decided([GrantLease(me, lease)], 12.5)
    tracing.decided([GrantLease(me, lease)], 13.0)  # again: nobody waits for it any more
    spans = kept.spans
    assert {name: (one.start_time, one.end_time) for name, one in spans.items()} == {
        "request": (10 * 10**9, 12_500_000_000),
        "start": (11 * 10**9, 12 * 10**9),
    }
    assert {parent_of(one) for one in spans.values()} == {9}


_STUCK = """
import os
import flexray.telemetry.call_spans as call_spans
from flexray.telemetry.call_spans import CallTracing
from flexray.telemetry.settings import read_settings
call_spans._MOST_A_SECOND = 10_000
tracing = CallTracing(read_settings(os.environ))
for _ in range(5_000):
    call = tracing.begin("f", "q")
    call.sent(call.since)
    call.done("")
tracing.close()
print("ended", len(tracing._provider._active_span_processor._span_processors))
"""


@pytest.mark.parametrize("away", ["stuck", "gone"])
def test_a_back_end_that_does_not_answer_neither_slows_nor_keeps_a_process(away: str) -> None:
    """More spans than the queue holds, and an end: with a back end that waited for, this would take for ever."""
    with collecting(stuck=True) as there:
        url = there.url if away == "stuck" else "http://127.0.0.1:9"
        env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "PYTHONPATH": str(Path(__file__).parents[2])}
        env.update(OTEL_EXPORTER_OTLP_TIMEOUT="100", OTEL_BSP_SCHEDULE_DELAY="10")
        done = subprocess.run(
            [sys.executable, "-c", _STUCK], capture_output=True, text=True, timeout=90, env=env, check=False
        )
        assert done.stdout.strip() == "ended 1", done.stderr
        assert there.asked.is_set() == (away == "stuck")
