"""Log records of a task say whose they are."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry import trace

from flexray.model.lease import LeaseId, RequestId
from flexray.runtime.current import running
from flexray.runtime.log_tags import tag_records

FORMAT = "[%(flexray_slice)s %(flexray_request)s %(flexray_lease)s %(otelTraceID)s] %(message)s"


@pytest.fixture
def written() -> Iterator[Any]:
    """What a logger writes with the ids in its format; the process's own factory comes back afterwards."""
    before, text = logging.getLogRecordFactory(), io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.Logger("a task's")
    logger.addHandler(handler)

    def write(message: str) -> str:
        text.truncate(text.seek(0))
        logger.warning(message)
        return text.getvalue().strip()

    yield write
    logging.setLogRecordFactory(before)


def test_records_carry_request_and_lease_while_something_runs(written: Any) -> None:
    tag_records("s1.2", traced=False)
    assert written("idle") == "[s1.2   ] idle"
    here = SimpleNamespace(token=SimpleNamespace(lease=LeaseId(RequestId("me.7"), 2)))
    before = running.set(cast(Any, here))
    try:
        assert written("at work") == "[s1.2 me.7 me.7#2 ] at work"
    finally:
        running.reset(before)


def test_records_of_a_traced_run_carry_its_trace(written: Any) -> None:
    tag_records("s1.2", traced=True)
    span = trace.NonRecordingSpan(trace.SpanContext(7, 9, False, trace.TraceFlags(1)))
    with trace.use_span(span):
        assert written("at work") == f"[s1.2   {7:032x}] at work"
