"""Making a slice's prints reach the driver that submitted the task, and its log records say which request they are of.

Ray's log monitor tags a worker's output with the job that created the worker; for a
slice that is the pool's own job, which has no driver. A line ``:job_id:<hex>`` re-tags
everything that follows, ``:actor_name:<name>`` sets the prefix that drivers see. This
is a private format of Ray (ray/_private/log_monitor.py, ray_constants.py): it is used
here and nowhere else, and one test watches it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from flexray.runtime.current import running


def tag_output(job: str, name: str) -> None:
    """Send what this process prints from now on to the drivers of a job, under a name."""
    from ray._private import ray_constants

    for stream in (sys.stdout, sys.stderr):
        print(f"{ray_constants.LOG_PREFIX_JOB_ID}{job}", file=stream)
        print(f"{ray_constants.LOG_PREFIX_ACTOR_NAME}{name}", file=stream, flush=True)


def tag_records(slice_id: str, traced: bool) -> None:
    """Give every log record of this process the ids of what runs, for formats such as ``%(flexray_lease)s``.

    ``flexray_slice``, ``flexray_request``, ``flexray_lease``, and where runs are ``traced`` also ``otelTraceID`` and
    ``otelSpanID``, as OpenTelemetry's own instrumentation of logging names them; "" where there is none.
    """
    make = logging.getLogRecordFactory()
    trace_here = _nothing
    if traced:
        from flexray.telemetry.run_spans import here as trace_here

    def tagged(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        here = running.get()
        lease = here.token.lease if here is not None else None
        record.flexray_slice = slice_id
        record.flexray_request = lease.request if lease is not None else ""
        record.flexray_lease = str(lease) if lease is not None else ""
        record.otelTraceID, record.otelSpanID = trace_here()
        return record

    logging.setLogRecordFactory(tagged)


def _nothing() -> tuple[str, str]:
    return "", ""
