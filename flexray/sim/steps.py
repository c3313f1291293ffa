"""Amounts that change in steps over time: what is held, by queue, by type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flexray.sim.jobs import Attempt, Course, Ticks, seconds


@dataclass(frozen=True, slots=True)
class Steps:
    """``points`` are (time, devices, normalised devices), each holding until the next."""

    points: list[tuple[Ticks, float, float]]

    def total(self, end: Ticks) -> tuple[float, float]:
        """Device-seconds up to ``end``, physical and normalised."""
        devices = normalised = 0.0
        for index, (at, held, weighed) in enumerate(self.points):
            until = self.points[index + 1][0] if index + 1 < len(self.points) else end
            span = seconds(max(0, min(until, end) - at))
            devices += held * span
            normalised += weighed * span
        return devices, normalised

    def mean(self, end: Ticks) -> tuple[float, float]:
        """The mean from 0 to ``end``."""
        if not end:
            return 0.0, 0.0
        devices, normalised = self.total(end)
        return devices / seconds(end), normalised / seconds(end)


def held_steps(
    courses: Iterable[Course], speeds: Mapping[str, float], key: Callable[[Course, Attempt], str]
) -> dict[str, Steps]:
    """What running attempts held over time, summed by a key of theirs."""
    changes: dict[str, dict[Ticks, list[int | float]]] = {}
    for course in courses:
        for attempt in course.attempts:
            place = attempt.lease.placement
            held = place.share * len(place.devices)
            weighed = held * speeds.get(attempt.lease.device_type, 1.0)
            of = changes.setdefault(key(course, attempt), {})
            for at, sign in ((attempt.start, 1), (attempt.end, -1)):
                if at is not None:
                    change = of.setdefault(at, [0, 0.0])
                    change[0] += sign * held
                    change[1] += sign * weighed
    return {name: _sum(of) for name, of in changes.items()}


def _sum(changes: Mapping[Ticks, list[int | float]]) -> Steps:
    points: list[tuple[Ticks, float, float]] = []
    held, weighed = 0.0, 0.0
    for at in sorted(changes):
        held += changes[at][0]
        weighed += changes[at][1]
        value = (held / 1000, weighed / 1000 if held else 0.0)
        if not points or points[-1][1:] != value:
            points.append((at, *value))
    return Steps(points)
