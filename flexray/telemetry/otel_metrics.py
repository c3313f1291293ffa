"""The pool's metrics as OpenTelemetry's: counters and gauges are read when an exporter asks, durations recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider

from flexray.telemetry.exporters import close, meter_provider
from flexray.telemetry.metrics import METRICS, Kind
from flexray.telemetry.settings import Settings
from flexray.telemetry.tally import Key, Report, named


class OtelMetrics:
    """Hands reports to OpenTelemetry. Raises UsageError where an exporter cannot be made.

    Args:
        provider: where to; by default one with the exporters of the settings.
    """

    def __init__(self, settings: Settings, provider: MeterProvider | None = None) -> None:
        self._provider = provider or meter_provider(settings)
        self._rows: dict[str, list[tuple[Key, float]]] = {}
        self._histograms: dict[str, Histogram] = {}
        meter = self._provider.get_meter("flexray")
        for name, one in METRICS.items():
            if one.kind is Kind.HISTOGRAM:
                self._histograms[name] = meter.create_histogram(name, one.unit, one.description)
            elif one.kind is Kind.COUNTER:
                meter.create_observable_counter(name, [self._reader(name)], one.unit, one.description)
            else:
                meter.create_observable_gauge(name, [self._reader(name)], one.unit, one.description)

    def take(self, report: Report) -> None:
        """Have this to tell when somebody asks."""
        rows: dict[str, list[tuple[Key, float]]] = {}
        for series in (report.totals, report.gauges):
            for key, value in series.items():
                rows.setdefault(key[0], []).append((key, value))
        self._rows = rows
        for key, seconds in report.durations:
            self._histograms[key[0]].record(seconds, named(key))

    def close(self) -> None:
        """Export what there is, if the back end takes it."""
        close(self._provider.shutdown)

    def _reader(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: Any) -> list[Observation]:
            return [Observation(value, dict(named(key))) for key, value in self._rows.get(name, ())]

        return read
