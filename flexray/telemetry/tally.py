"""What was counted and measured, kept until an exporter takes it: cheap to add to, and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from flexray.telemetry.metrics import METRICS

Labels = tuple[str, ...]
"""Values of a metric's labels, in the table's order."""
Key = tuple[str, Labels]
"""Name of a metric, and values of its labels: one series."""

_KEPT = 20_000
"""Durations that are kept between two looks. Of more, the later ones are left out of their histogram."""


class Report(NamedTuple):
    """What an exporter is given.

    Attributes:
        totals: of counters, since the start.
        durations: of histograms, since the last report.
        gauges: what there is now; what is not there any more is missing.
    """

    totals: Mapping[Key, float]
    durations: tuple[tuple[Key, float], ...]
    gauges: Mapping[Key, float]


class Tally:
    """Counters and durations. Used by one thread."""

    def __init__(self) -> None:
        self._totals: dict[Key, float] = {}
        self._durations: list[tuple[Key, float]] = []

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""
        key = (name, labels)
        self._totals[key] = self._totals.get(key, 0.0) + by

    def took(self, name: str, seconds: float, *labels: str) -> None:
        """Note a duration."""
        if len(self._durations) < _KEPT:
            self._durations.append(((name, labels), max(0.0, seconds)))

    def report(self, gauges: Mapping[Key, float]) -> Report:
        """What is there now, with gauges; durations are given once."""
        durations, self._durations = tuple(self._durations), []
        return Report(dict(self._totals), durations, gauges)


def named(key: Key) -> dict[str, str]:
    """The labels of a series by name."""
    return dict(zip(METRICS[key[0]].labels, key[1], strict=True))
