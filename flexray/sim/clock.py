"""Virtual time around the core: the shell that plays nodes, slices and clients.

At one instant completions come first, then events, then arrivals in their order, then
one ``decide``; it is repeated while its commands cause something at the same instant.

The core is asked again when only time can have changed its mind: when an idle slice has
been warm for long enough, and when a lease and a waiting request are a term old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.views import check_invariants
from flexray.errors import InternalError, UsageError
from flexray.model import events
from flexray.model.amounts import WHOLE
from flexray.model.commands import Command, FailRequest, GrantLease, RecallLease, RevokeLease, StartSlice, StopSlice
from flexray.model.devices import Inventory
from flexray.model.lease import EnvironmentId, RequestId, SessionId
from flexray.model.lifecycle import EndReason
from flexray.model.queue import Queue
from flexray.sim.agenda import ARRIVAL, COMPLETION, HAPPENING, WAKE, Agenda, Entry
from flexray.sim.colocation import Factors, Neighbours
from flexray.sim.jobs import Attempt, Costs, Course, Job, JobState, Ticks, seconds, ticks

_SESSION, _ENVIRONMENT = SessionId("sim"), EnvironmentId("sim")

Happening = Callable[["Simulation"], None]
"""Something that a scenario makes happen: it is called at its time."""


class Simulation:
    """One run of the core under a virtual clock.

    Attributes:
        courses: what became of each job, in the order they were given.
        inventories: the nodes that are up now, by id; happenings change them with ``report`` and ``lose``.
        nodes_ever: the last inventory of each node there was.
        capacity: (time, devices by type) at each change of the inventory.
        recalls: how many leases the core asked back.
        preemptions: the commands that took leases back in the middle of their work, with their times.
        marks: by device, why it takes nothing new (happenings keep them).
    """

    def __init__(
        self,
        config: PoolConfig,
        nodes: Iterable[Inventory],
        jobs: Sequence[Job],
        *,
        costs: Costs | None = None,
        factors: Factors | None = None,
        happenings: Iterable[tuple[Ticks, Happening]] = (),
        queues: Sequence[Queue] = (),
        check: bool = False,
        record: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self.core = build_scheduler(config, 1, record)
        self.courses: dict[RequestId, Course] = {job.id: Course(job) for job in jobs}
        self.inventories: dict[str, Inventory] = {}
        self.nodes_ever: dict[str, Inventory] = {}
        self.capacity: list[tuple[Ticks, Mapping[str, int]]] = []
        self.now: Ticks = 0
        self.recalls = 0
        self.preemptions: list[tuple[Ticks, RecallLease]] = []
        self.marks: dict[str, set[str]] = {}
        self._costs = costs or Costs()
        self._neighbours = Neighbours(factors or {})
        self._check = check
        self._agenda = Agenda()
        self._ends: dict[RequestId, Entry] = {}
        self._wakes: set[Ticks] = set()
        self._load: dict[str, int] = {}
        self.core.apply(events.SessionOpened(_SESSION, _ENVIRONMENT), 0.0)
        for node in nodes:
            self.report(node)
        if queues:
            self.configure(queues)
        for time, happening in happenings:
            self.at(time, happening)
        for job in jobs:
            self._agenda.put(job.at, ARRIVAL, lambda course=self.courses[job.id]: self._arrive(course))  # type: ignore[misc]

    def run(self, until: Ticks | None = None) -> None:
        """Let things happen until nothing is left to happen, or time is up. Checks the core's invariants at the end."""
        while True:
            time = self._agenda.next_time()
            if time is None or (until is not None and time > until):
                break
            self.now = time
            while entry := self._agenda.take(time):
                entry.act()
            for command in self.core.decide(seconds(time)):
                self._carry_out(command)
            self._wake_at(self.core.wake_at)
            if self._check:
                check_invariants(self.core.state)
        if until is not None:
            self.now = max(self.now, until)
        check_invariants(self.core.state)

    # -- what a scenario makes happen ------------------------------------------------------

    def configure(self, queues: Sequence[Queue]) -> None:
        """These are the queues from now on."""
        self._tell(events.QueuesConfigured(tuple(queues)))

    def at(self, time: Ticks, happening: Happening) -> None:
        """Let something happen, now or later."""
        self._agenda.put(time, HAPPENING, lambda: happening(self))

    def report(self, inventory: Inventory) -> None:
        """A node joins, or what it offers has changed."""
        self.inventories[inventory.node] = self.nodes_ever[inventory.node] = inventory
        self._tell(events.NodeReported(inventory))
        self._note_capacity()

    def lose(self, node: str) -> None:
        """A node dies with everything on it."""
        if self.inventories.pop(node, None) is not None:
            self._tell(events.NodeLost(node))
            self._note_capacity()

    def report_steps(self, measured: Callable[[float], float] = float) -> None:
        """Running jobs that count their steps say how many they have done since they last said so.

        Args:
            measured: what is told of the true seconds.
        """
        for course in map(self.courses.__getitem__, self._ends):
            attempt, whole = course.live, 0
            if attempt is not None and course.job.steps:
                attempt.count(self.now)
                whole = course.job.work_on(attempt.lease.device_type) or 0
            if attempt is not None and attempt.worked > attempt.told < whole:
                work = attempt.worked - attempt.told
                attempt.told = attempt.worked
                took = measured(seconds(work) * attempt.factor)
                self._tell(events.StepsRan(attempt.lease.lease, course.job.steps * work / whole, took))

    def cancel(self, job: RequestId) -> None:
        """The client of a job no longer wants it. One that runs is stopped and hands its lease back."""
        course = self.courses[job]
        if course.state not in (JobState.WAITING, JobState.RUNNING):
            return
        attempt = course.live
        course.state = JobState.CANCELLED
        if attempt is not None:
            self._end(course, attempt, "cancelled")
            self._tell(events.LeaseReleased(attempt.lease.lease))
        elif course.arrived:
            self._tell(events.RequestCancelled(job))

    # -- completions and arrivals ------------------------------------------------------------

    def _arrive(self, course: Course) -> None:
        if course.state is not JobState.WAITING:
            return  # cancelled before it came
        job = course.job
        course.arrived = True
        # As in the live pool, a class is a function and a request: a slice fits whoever is of its class.
        task_class = f"{job.kind}/{job.request.describe()}"
        self._tell(events.RequestSubmitted(job.id, _SESSION, _ENVIRONMENT, task_class, job.request, job.reusable))
        self._wake_after(self.config.lease_term_seconds)

    def _complete(self, course: Course, attempt: Attempt) -> None:
        course.state = JobState.DONE
        self._end(course, attempt, "done")
        ran = seconds(self.now - attempt.start - attempt.setup)
        if (
            course.job.reusable and ran > 0 and not course.saved
        ):  # as a client reports whole calls that ran on its lease
            self._tell(events.TasksRan(attempt.lease.lease, 1, ran))
        self._tell(events.LeaseReleased(attempt.lease.lease))
        if course.job.reusable:
            self._wake_after(self.config.warm_seconds)

    # -- commands ------------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        match command:
            case StartSlice():
                started = events.SliceStarted(command.slice)
                self._agenda.put(self.now + ticks(self._costs.start), COMPLETION, lambda: self._tell(started))
            case StopSlice():
                self._agenda.put(self.now, COMPLETION, lambda: self._tell(events.SliceEnded(command.slice)))
            case GrantLease():
                self._granted(command)
            case RecallLease():
                self.recalls += (
                    1  # without ``stop`` the job goes on to its end and hands the lease back, as it does anyway
                )
                if command.stop:
                    self.preemptions.append((self.now, command))
                    self._asked_to_stop(command)
            case RevokeLease():
                self._revoked(command)
            case FailRequest():
                self._failed(command)

    def _granted(self, command: GrantLease) -> None:
        lease, course = command.lease, self.courses[command.lease.lease.request]
        if course.state is JobState.CANCELLED:
            self._tell(events.LeaseReleased(lease.lease))
            self._agenda.put(self.now, COMPLETION, lambda: None)
            return
        work = course.job.work_on(lease.device_type)
        if work is None:
            raise UsageError(f"request {course.job.id} was placed on {lease.device_type}, for which it has no duration")
        setup = ticks(self._costs.warm_start) if lease.grant > 1 else 0
        if course.saved:
            setup += ticks(self._costs.restore)
        attempt = Attempt(lease, self.now, setup, work - int(course.saved * work), counted_at=self.now)
        course.attempts.append(attempt)
        course.state = JobState.RUNNING
        self._take(attempt, +1)
        touched = self._neighbours.arrive(course) if self._neighbours else [course]
        self._replan(touched)
        if course.job.reusable:
            self._wake_after(self.config.lease_term_seconds)

    def _asked_to_stop(self, command: RecallLease) -> None:
        """A job that saves its state does so now, which takes a while, and stops; another goes on to its bitter end."""
        course = self.courses[command.lease.request]
        attempt = course.live
        if attempt is None or attempt.lease.lease != command.lease or not course.job.checkpoint_every:
            return
        attempt.count(self.now)
        reached = attempt.worked
        self._agenda.put(
            self.now + ticks(self._costs.checkpoint), COMPLETION, lambda: self._yielded(course, attempt, reached)
        )

    def _yielded(self, course: Course, attempt: Attempt, reached: Ticks) -> None:
        if course.live is not attempt:
            return  # it was done before its state was saved, or was stopped
        self._end(course, attempt, EndReason.PREEMPTED.value)
        whole = course.job.work_on(attempt.lease.device_type) or 1
        attempt.lost = attempt.worked - reached
        course.saved = (whole - attempt.need + reached) / whole
        course.state = JobState.WAITING
        self._tell(events.LeaseYielded(attempt.lease.lease))

    def _revoked(self, command: RevokeLease) -> None:
        course = self.courses[command.lease.request]
        attempt = course.live
        if attempt is None or attempt.lease.lease != command.lease:
            return
        self._end(course, attempt, command.reason.value)
        self._save(course, attempt)
        course.state = JobState.WAITING if command.requeued else JobState.FAILED
        course.message = "" if command.requeued else command.message

    def _failed(self, command: FailRequest) -> None:
        course = self.courses[command.request]
        infeasible = command.reason is EndReason.INFEASIBLE
        course.state = JobState.INFEASIBLE if infeasible else JobState.FAILED
        course.message, course.removed = command.message, command.removed

    # -- running work --------------------------------------------------------------------------

    def _end(self, course: Course, attempt: Attempt, how: str) -> None:
        attempt.count(self.now)
        attempt.end, attempt.ended = self.now, how
        entry = self._ends.pop(course.job.id, None)
        if entry is not None:
            self._agenda.drop(entry)
        self._take(attempt, -1)
        if self._neighbours:
            self._replan(self._neighbours.leave(course))

    def _save(self, course: Course, attempt: Attempt) -> None:
        """What of a lost attempt's work its last checkpoint kept, and what it lost."""
        whole = course.job.work_on(attempt.lease.device_type) or 1
        before = whole - attempt.need
        reached = before + attempt.worked
        every = ticks(course.job.checkpoint_every)
        kept = max(before, reached // every * every) if every else 0
        attempt.lost = reached - kept
        course.saved = kept / whole

    def _replan(self, courses: Iterable[Course]) -> None:
        """Set the speed of running jobs, and when they will be done, by who runs beside them."""
        for course in courses:
            attempt = course.live
            if attempt is None:
                continue
            attempt.count(self.now)
            attempt.factor = self._neighbours.factor(course) if self._neighbours else 1.0
            old = self._ends.pop(course.job.id, None)
            if old is not None:
                self._agenda.drop(old)
            self._ends[course.job.id] = self._agenda.put(
                self.now + attempt.left,
                COMPLETION,
                lambda c=course, a=attempt: self._complete(c, a),  # type: ignore[misc]
            )

    def _take(self, attempt: Attempt, sign: int) -> None:
        """Keep own books of what leases hold, beside the core's, and refuse to believe more than a whole device."""
        place = attempt.lease.placement
        for device in place.devices:
            held = self._load[device] = self._load.get(device, 0) + sign * place.share
            if not 0 <= held <= WHOLE:
                raise InternalError(f"leases hold {held} thousandths of {device}")

    # -- the core ----------------------------------------------------------------------------

    def _tell(self, event: events.Event) -> None:
        self.core.apply(event, seconds(self.now))

    def _wake_at(self, at: float | None) -> None:
        """Run a cycle when the core asks for one; the instant itself, or the tick after it."""
        if at is not None and at < 1e9:
            time = max(self.now + 1, ticks(at))
            if time not in self._wakes:
                self._wakes.add(time)
                self._agenda.put(time, WAKE, lambda: self._wakes.discard(time))

    def _wake_after(self, span: float) -> None:
        """Run a cycle once the core sees that ``span`` seconds have passed; rounding must not make it a tick early."""
        if span > 1e9:
            return
        time = self.now + ticks(span)
        while seconds(time) - span < seconds(self.now):
            time += 1
        self._agenda.put(time, WAKE, lambda: None)

    def _note_capacity(self) -> None:
        counts: dict[str, int] = {}
        for inventory in self.inventories.values():
            for device in inventory.devices:
                counts[device.type.name] = counts.get(device.type.name, 0) + 1
        self.capacity.append((self.now, counts))
