"""The scheduler's telemetry: what watches its core, and the loop that hands reports to whoever exports them.

Nothing here may slow the scheduler or fail it: counting is a few dictionary steps an event, everything else happens in
a thread of its own, and what goes wrong there is a note of ``flexray status``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from flexray.errors import FlexrayError
from flexray.model.snapshot import Snapshot
from flexray.runtime.ray_metrics import RayMetrics
from flexray.telemetry.counting import Counting
from flexray.telemetry.gauges import gauges
from flexray.telemetry.observer import Observer
from flexray.telemetry.settings import Settings, read_settings
from flexray.telemetry.tally import Report, Tally

if TYPE_CHECKING:
    from flexray.telemetry.request_spans import RequestTracing

_SECONDS = 10.0
"""Between two reports; Ray's own metrics come as often."""
_MOST = 0.01
"""Looking at the pool takes this part of the scheduler's time, at most: large pools are reported more seldom."""

_log = logging.getLogger("flexray")


class Sink(Protocol):
    """Whoever exports metrics."""

    def take(self, report: Report) -> None:
        """Bring what it has up to date; may block, and raise."""


class Metering:
    """Watches the core of one scheduler.

    Args:
        observers: the scheduler's, to which it adds its own.
        picture: a snapshot that lists no requests in line.
        seconds: between two reports, at least.
    """

    def __init__(self, observers: list[Observer], picture: Callable[[], Snapshot], seconds: float = _SECONDS) -> None:
        self._observers, self._picture, self._seconds = observers, picture, seconds
        self._settings: Settings = read_settings(os.environ)
        self._tally = Tally()
        self._counting = Counting(self._tally)
        observers.append(self._counting)
        self._sinks: list[Sink] = [RayMetrics()]
        self._closing: list[Callable[[], None]] = []
        self._woken: float | None = None
        #: what an operator should know.
        self.notes: tuple[str, ...] = ()

    def woken(self) -> None:
        """Something has happened that the next cycle will look at."""
        if self._woken is None:
            self._woken = time.perf_counter()

    def cycle_began(self) -> float:
        """A cycle begins; returns its time, for ``cycle_ended``."""
        now = time.perf_counter()
        if self._woken is not None:
            self._tally.took("flexray.scheduler.cycle.lag", now - self._woken)
            self._woken = None
        return now

    def cycle_ended(self, began: float) -> None:
        """The core has decided."""
        self._tally.took("flexray.scheduler.decide.duration", time.perf_counter() - began)

    async def run(self) -> None:
        """Open what was asked for, then report for ever."""
        loop = asyncio.get_running_loop()
        tracing = await loop.run_in_executor(None, self._open)
        if tracing is not None:
            self._observers.append(tracing)
        while True:
            began = time.perf_counter()
            try:
                report = self._report()
            except Exception as error:  # a fault of ours: the scheduler goes on without being measured
                self._note(f"metrics are not reported any more: {type(error).__name__}: {error}")
                return
            took = time.perf_counter() - began
            await loop.run_in_executor(None, self._hand_over, report)
            await asyncio.sleep(max(min(self._seconds, self._settings.seconds or self._seconds), took / _MOST))

    async def close(self) -> None:
        """Export what there is."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._hand_over, self._report())
        except Exception as error:  # the pool's end must not hang on its last report
            self._note(f"the last metrics are not reported: {type(error).__name__}: {error}")
        for close in self._closing:
            await loop.run_in_executor(None, close)

    def _report(self) -> Report:
        return self._tally.report(gauges(self._picture(), len(self._counting.sessions)))

    def _open(self) -> RequestTracing | None:
        """Import what exports, which takes a while."""
        tracing: RequestTracing | None = None
        try:
            if self._settings.metrics:
                from flexray.telemetry.otel_metrics import OtelMetrics

                metrics = OtelMetrics(self._settings)
                self._sinks.append(metrics)
                self._closing.append(metrics.close)
            if self._settings.traces:
                from flexray.telemetry.request_spans import RequestTracing

                tracing = RequestTracing(self._settings)
                self._closing.append(tracing.close)
        except (FlexrayError, ImportError, ValueError) as error:
            self._note(f"telemetry is not exported as asked: {error}")
        return tracing

    def _hand_over(self, report: Report) -> None:
        for sink in list(self._sinks):
            try:
                sink.take(report)
            except Exception as error:  # whatever a library raises must not end the reports
                self._sinks.remove(sink)
                self._note(f"metrics: {type(sink).__name__} has failed and is left out: {error}")

    def _note(self, text: str) -> None:
        self.notes = (*self.notes, text)
        _log.warning("flexray: %s", text)
