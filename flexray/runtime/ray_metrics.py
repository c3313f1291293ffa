"""The pool's metrics on Ray's own metrics port, where a Prometheus that watches the cluster finds them."""

from __future__ import annotations

from typing import Any

from ray.util import metrics as ray_metrics

from flexray.telemetry.metrics import METRICS, Kind, Metric, base_name
from flexray.telemetry.tally import Key, Report, named


class RayMetrics:
    """Hands reports to Ray, which keeps every series it was ever given: those that are over are set to 0."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._totals: dict[Key, float] = {}
        self._gauges: set[Key] = set()

    def take(self, report: Report) -> None:
        """Bring what Ray has up to date."""
        for key, total in report.totals.items():
            more = total - self._totals.get(key, 0.0)
            if more > 0:
                self._of(key).inc(more, named(key))
        self._totals = dict(report.totals)
        for key, seconds in report.durations:
            self._of(key).observe(seconds, named(key))
        for key, value in report.gauges.items():
            self._of(key).set(value, named(key))
        for key in self._gauges - report.gauges.keys():
            self._of(key).set(0.0, named(key))
        self._gauges = set(report.gauges)

    def _of(self, key: Key) -> Any:
        made = self._made.get(key[0])
        if made is None:
            made = self._made[key[0]] = _make(METRICS[key[0]])
        return made


def _make(metric: Metric) -> Any:
    name, text, labels = base_name(metric), metric.description, metric.labels
    if metric.kind is Kind.HISTOGRAM:
        return ray_metrics.Histogram(name, text, boundaries=list(metric.buckets), tag_keys=labels)
    return (ray_metrics.Counter if metric.kind is Kind.COUNTER else ray_metrics.Gauge)(name, text, labels)
