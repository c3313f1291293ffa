"""Whether calls are traced in this process, and by what: asked once, so that nothing is imported where they are not."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from flexray.errors import FlexrayError
from flexray.telemetry.settings import read_settings

if TYPE_CHECKING:
    from flexray.telemetry.call_spans import CallTracing
    from flexray.telemetry.run_spans import RunTracing

_log = logging.getLogger("flexray")


def trace_calls() -> CallTracing | None:
    """What traces the calls of a client; None where traces are off."""
    settings = read_settings(os.environ)
    if not settings.traces:
        return None
    try:
        from flexray.telemetry.call_spans import CallTracing

        return CallTracing(settings)
    except (FlexrayError, ImportError, ValueError) as error:
        _log.warning("flexray: calls are not traced: %s", error)
        return None


def trace_runs(slice_id: str) -> RunTracing | None:
    """What traces the calls that run on a slice; None where traces are off."""
    settings = read_settings(os.environ)
    if not settings.traces:
        return None
    try:
        from flexray.telemetry.run_spans import RunTracing

        return RunTracing(settings, slice_id)
    except (FlexrayError, ImportError, ValueError) as error:
        _log.warning("flexray: what runs on slice %s is not traced: %s", slice_id, error)
        return None
