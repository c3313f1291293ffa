"""Work in progress: when running jobs will be done, beside whom, and a second set of books beside the core's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from flexray.errors import InternalError
from flexray.model.amounts import WHOLE
from flexray.model.lease import RequestId
from flexray.sim.agenda import COMPLETION, Agenda, Entry
from flexray.sim.colocation import Factors, Neighbours
from flexray.sim.jobs import Attempt, Course, Ticks


class Running:
    """The jobs that hold leases.

    Args:
        complete: what is called at the time at which a job is done.
    """

    def __init__(self, agenda: Agenda, factors: Factors, complete: Callable[[Course, Attempt], None]) -> None:
        self._agenda, self._complete = agenda, complete
        self._neighbours = Neighbours(factors)
        self._load: dict[str, int] = {}
        #: when each job that is not paused will be done.
        self.ends: dict[RequestId, Entry] = {}

    def begin(self, course: Course, now: Ticks) -> None:
        """A job's last attempt starts."""
        self._take(course.attempts[-1], +1)
        self.replan(self._neighbours.arrive(course) if self._neighbours else [course], now)

    def end(self, course: Course, attempt: Attempt, how: str, now: Ticks) -> None:
        """An attempt is over."""
        attempt.count(now)
        attempt.end, attempt.ended = now, how
        self._forget_end(course)
        self._take(attempt, -1)
        if self._neighbours:
            self.replan(self._neighbours.leave(course), now)

    def pause(self, course: Course, attempt: Attempt, now: Ticks) -> None:
        """A job keeps its lease and does nothing."""
        attempt.count(now)
        attempt.paused = True
        self._forget_end(course)

    def replan(self, courses: Iterable[Course], now: Ticks) -> None:
        """Set the speed of running jobs, and when they will be done, by who runs beside them, and with them."""
        touched = {one.job.id: one for course in courses for one in course.together or (course,)}
        for course in touched.values():
            attempt = course.live
            if attempt is None or attempt.paused:
                continue
            attempt.count(now)
            beside = map(self._neighbours.factor, course.together or (course,)) if self._neighbours else (1.0,)
            attempt.factor = max(beside) * attempt.pace
            self._forget_end(course)
            self.ends[course.job.id] = self._agenda.put(
                now + attempt.left,
                COMPLETION,
                partial(self._complete, course, attempt),
            )

    def _forget_end(self, course: Course) -> None:
        entry = self.ends.pop(course.job.id, None)
        if entry is not None:
            self._agenda.drop(entry)

    def _take(self, attempt: Attempt, sign: int) -> None:
        """Count what leases hold, apart from the core, and refuse to believe more than a whole device."""
        place = attempt.lease.placement
        for device in place.devices:
            held = self._load[device] = self._load.get(device, 0) + sign * place.share
            if not 0 <= held <= WHOLE:
                raise InternalError(f"leases hold {held} thousandths of {device}")
