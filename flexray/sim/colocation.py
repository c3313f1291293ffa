"""Who runs beside whom, and how much that slows each of them down."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from flexray.model.lease import RequestId
from flexray.sim.jobs import Course

Factors = Mapping[tuple[str, str, str], float]
"""(class, class beside it, device type pattern) -> how many times longer the first takes."""


class Neighbours:
    """The jobs on each device. Factors of several neighbours multiply; over several devices the worst counts."""

    def __init__(self, factors: Factors) -> None:
        self._factors = dict(factors)
        self._on: dict[str, dict[RequestId, Course]] = {}

    def __bool__(self) -> bool:
        return bool(self._factors)

    def arrive(self, course: Course) -> list[Course]:
        """A job's attempt starts. Returns the running jobs whose speed may have changed, itself included."""
        for device in _devices(course):
            self._on.setdefault(device, {})[course.job.id] = course
        return self._beside(course)

    def leave(self, course: Course) -> list[Course]:
        """A job's attempt ends. Returns the jobs it ran beside."""
        beside = [other for other in self._beside(course) if other is not course]
        for device in _devices(course):
            del self._on[device][course.job.id]
        return beside

    def factor(self, course: Course) -> float:
        """How many times longer a running job takes than alone, now."""
        worst = 1.0
        for device in _devices(course):
            product = 1.0
            for other in self._on[device].values():
                if other is not course:
                    product *= self._between(course, other)
            worst = max(worst, product)
        return worst

    def _between(self, course: Course, other: Course) -> float:
        kind = course.attempts[-1].lease.device_type
        for (one, beside, pattern), factor in self._factors.items():
            if (one, beside) == (course.job.kind, other.job.kind) and fnmatchcase(kind, pattern):
                return factor
        return 1.0

    def _beside(self, course: Course) -> list[Course]:
        found = {c.job.id: c for device in _devices(course) for c in self._on[device].values()}
        return list(found.values())


def _devices(course: Course) -> tuple[str, ...]:
    return course.attempts[-1].lease.placement.devices
