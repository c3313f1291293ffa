"""The clients of gangs: members run in step, and begin anew together whenever somebody joins or leaves.

With fewer members than its size a gang takes size / members as long: its work is the same. When members are asked to
leave, or join, all save their state first (``costs: checkpoint``), if the gang ever does, and go on from there
(``restore``); when one is lost, all go on from the last checkpoint. Those that cannot run without the others wait on
their leases until the scheduler takes them back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from flexray.model import events
from flexray.model.lease import Lease, LeaseId, RequestId
from flexray.model.lifecycle import EndReason
from flexray.sim.agenda import COMPLETION, Agenda, Entry
from flexray.sim.jobs import Attempt, Costs, Course, JobState, Ticks, ticks
from flexray.sim.running import Running


@dataclass(slots=True)
class Band:
    """A gang of jobs.

    Attributes:
        leg: who runs in step since the last time all began anew; empty while nobody does.
        asked: leases that are to be handed back.
        saving: its state is being saved.
        due: whether its members are going to be looked at, once all that happens at this instant is known.
        tick: when the scheduler hears of the next checkpoint, which is made after ``next`` of the work.
    """

    id: RequestId
    courses: tuple[Course, ...]
    leg: list[tuple[Course, Attempt]] = field(default_factory=list)
    asked: dict[LeaseId, None] = field(default_factory=dict)
    saving: bool = False
    due: bool = False
    tick: Entry | None = None
    next: Ticks = 0

    @property
    def enough(self) -> int:
        """With so many members it runs."""
        gang = self.courses[0].job.request.gang
        assert gang is not None
        return gang.enough

    @property
    def every(self) -> Ticks:
        """Work after which its state is saved; 0 for never."""
        return ticks(self.courses[0].job.checkpoint_every)

    @property
    def whole(self) -> Ticks:
        """All its work, with all members, on the type of device that those who run are on."""
        course, attempt = self.leg[0]
        return course.job.work_on(attempt.lease.device_type) or 1

    @property
    def broken(self) -> bool:
        """Whether somebody of those who run is lost."""
        return any(course.live is not attempt for course, attempt in self.leg)


class Bands:
    """All gangs of a simulation.

    Args:
        tell: gives an event to the core.
    """

    def __init__(self, running: Running, agenda: Agenda, costs: Costs, tell: Callable[[events.Event], None]) -> None:
        self._running, self._agenda, self._costs, self._tell = running, agenda, costs, tell
        self.by_id: dict[RequestId, Band] = {}

    def add(self, courses: list[Course]) -> None:
        """Jobs some of which are members of gangs."""
        members: dict[RequestId, list[Course]] = {}
        for course in courses:
            if course.job.gang is not None:
                members.setdefault(course.job.gang, []).append(course)
        self.by_id = {name: Band(name, tuple(there)) for name, there in members.items()}

    def of(self, course: Course) -> Band | None:
        """The gang of a job."""
        return self.by_id[course.job.gang] if course.job.gang is not None else None

    # -- what happens to members -------------------------------------------------------------

    def granted(self, band: Band, course: Course, lease: Lease, work: Ticks, now: Ticks) -> None:
        """A member has a lease; it begins with the others."""
        course.attempts.append(Attempt(lease, now, 0, work, counted_at=now, paused=True))
        course.state = JobState.RUNNING
        self._running.begin(course, now)
        self._look_soon(band, now)

    def asked_to_stop(self, band: Band, lease: LeaseId, now: Ticks) -> None:
        """A member is to give way."""
        band.asked[lease] = None
        self._look_soon(band, now)

    def lost(self, band: Band, now: Ticks) -> None:
        """A member's lease is gone."""
        self._look_soon(band, now)

    def completed(self, band: Band, now: Ticks) -> None:
        """The members that run are done, all at this instant: whoever was to join them is not needed."""
        self._drop_tick(band)
        running = [course.job.id for course, _ in band.leg]
        for course in band.courses:
            attempt = course.live
            if attempt is not None and course.job.id not in running:
                self._running.end(course, attempt, "done", now)
                course.state = JobState.DONE
                self._tell(events.LeaseReleased(attempt.lease.lease))
            elif course.state is JobState.WAITING:
                course.state, course.message = JobState.CANCELLED, "its gang was done without it"

    # -- beginning, saving and stopping ------------------------------------------------------

    def _look_soon(self, band: Band, now: Ticks) -> None:
        if not band.due:
            band.due = True
            self._agenda.put(now, COMPLETION, lambda: self._look(band, now))

    def _look(self, band: Band, now: Ticks) -> None:
        """Have those run in step that are to, after whatever has happened at this instant."""
        band.due = False
        present = [(course, attempt) for course in band.courses if (attempt := course.live) is not None]
        leaving = [(course, attempt) for course, attempt in present if attempt.lease.lease in band.asked]
        staying = [(course, attempt) for course, attempt in present if attempt.lease.lease not in band.asked]
        if band.saving or (not leaving and len(staying) == len(band.leg) and not band.broken):
            return
        if band.leg and not band.broken:
            if band.every:
                self._save(band, now)
                return
            if leaving:
                return  # it saves nothing, and goes on to its bitter end
        self._stop(band, now)
        for course, attempt in leaving:
            self._running.end(course, attempt, EndReason.PREEMPTED.value, now)
            course.state = JobState.WAITING
            del band.asked[attempt.lease.lease]
            self._tell(events.LeaseYielded(attempt.lease.lease))
        if len(staying) >= band.enough:
            self._start(band, staying, now)

    def _start(self, band: Band, staying: list[tuple[Course, Attempt]], now: Ticks) -> None:
        band.leg = staying
        together = tuple([course for course, _ in staying])
        for course, attempt in staying:
            whole = course.job.work_on(attempt.lease.device_type) or 1
            attempt.need = whole - int(course.saved * whole)
            attempt.done, attempt.counted_at, attempt.paused = 0.0, now, False
            attempt.pace = len(band.courses) / len(staying)
            attempt.setup = ticks(self._costs.restore / attempt.pace) if course.saved else 0  # which takes no longer
            course.together = together
        self._running.replan(together, now)
        self._next_tick(band, now)

    def _save(self, band: Band, now: Ticks) -> None:
        band.saving = True
        self._drop_tick(band)
        for course, attempt in band.leg:
            self._running.pause(course, attempt, now)
        later = now + ticks(self._costs.checkpoint)
        self._agenda.put(later, COMPLETION, lambda: self._saved(band, later))

    def _saved(self, band: Band, now: Ticks) -> None:
        band.saving = False
        if band.leg and not band.broken:
            whole, attempt = band.whole, band.leg[0][1]
            self._end_leg(band, (whole - attempt.need + attempt.worked) / whole, now)
        self._look(band, now)

    def _stop(self, band: Band, now: Ticks) -> None:
        """Those who run stop where they are: what they have done since the last checkpoint is lost."""
        if not band.leg:
            return
        whole, attempt = band.whole, band.leg[0][1]
        for one, other in band.leg:
            if one.live is other:
                self._running.pause(one, other, now)
        before = whole - attempt.need
        reached = before + attempt.worked
        kept = max(before, reached // band.every * band.every) if band.every else 0
        for _, other in band.leg:
            other.lost += round((reached - kept) * other.pace)
        self._end_leg(band, kept / whole, now)

    def _end_leg(self, band: Band, saved: float, now: Ticks) -> None:
        self._drop_tick(band)
        band.leg = []
        for course in band.courses:
            course.saved, course.together = saved, ()

    # -- checkpoints, on which growing depends -----------------------------------------------

    def _next_tick(self, band: Band, now: Ticks) -> None:
        """The scheduler hears of checkpoints of gangs that could be larger."""
        self._drop_tick(band)
        if not band.every or not band.leg or len(band.leg) == len(band.courses):
            return
        for _, other in band.leg:
            other.count(now)
        whole, attempt = band.whole, band.leg[0][1]
        before = whole - attempt.need
        band.next = ((before + attempt.worked) // band.every + 1) * band.every
        if band.next < whole:
            wait = attempt.setup + band.next - before - attempt.done
            at = now + max(1, math.ceil(wait * attempt.factor))
            band.tick = self._agenda.put(at, COMPLETION, lambda: self._ticked(band, at))

    def _ticked(self, band: Band, now: Ticks) -> None:
        band.tick = None
        attempt = band.leg[0][1]
        attempt.count(now)
        if band.whole - attempt.need + attempt.worked >= band.next:  # else somebody slows it down since
            self._tell(events.LeaseCheckpointed(attempt.lease.lease))
        self._next_tick(band, now)

    def _drop_tick(self, band: Band) -> None:
        if band.tick is not None:
            self._agenda.drop(band.tick)
            band.tick = None
