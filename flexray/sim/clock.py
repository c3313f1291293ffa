"""Virtual time around the core: the shell that plays nodes, slices and clients.

At one instant completions come first, then events, then arrivals in their order, then
one ``decide``; it is repeated while its commands cause something at the same instant.

The core is asked again when only time can have changed its mind: when an idle slice has
been warm for long enough, and when a lease and a waiting request are a term old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.views import check_invariants
from flexray.errors import UsageError
from flexray.model import events
from flexray.model.commands import Command, FailRequest, GrantLease, RecallLease, RevokeLease, StartSlice, StopSlice
from flexray.model.devices import Cordon, DeviceState, Inventory
from flexray.model.lease import EnvironmentId, RequestId, SessionId
from flexray.model.lifecycle import EndReason, RecallReason
from flexray.model.queue import Queue
from flexray.sim.agenda import ARRIVAL, COMPLETION, HAPPENING, WAKE, Agenda
from flexray.sim.bands import Bands
from flexray.sim.colocation import Factors
from flexray.sim.foresight import Foresight
from flexray.sim.jobs import Attempt, Costs, Course, Job, JobState, Ticks, seconds, ticks
from flexray.sim.running import Running

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
        foresight: asks, if given, when those who wait are expected to start.
        faults: by device, the state that a fault has brought it into (happenings keep them).
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
        foresight: Foresight | None = None,
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
        self.faults: dict[str, DeviceState] = {}
        self._costs = costs or Costs()
        self.foresight = foresight
        self._check = check
        self._agenda = Agenda()
        self._running = Running(self._agenda, factors or {}, self._complete)
        self._bands = Bands(self._running, self._agenda, self._costs, self._tell)
        self._bands.add(list(self.courses.values()))
        self._wakes: set[Ticks] = set()
        self.core.apply(events.SessionOpened(_SESSION, _ENVIRONMENT), 0.0)
        for node in nodes:
            self.report(node)
        if queues:
            self.configure(queues)
        for time, happening in happenings:
            self.at(time, happening)
        for job in jobs:
            self._agenda.put(job.at, ARRIVAL, partial(self._arrive, self.courses[job.id]))

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
            if self.foresight is not None:
                self.foresight.look(self.core, seconds(time))
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

    def cordon(self, cordon: Cordon) -> None:
        """An operator wants a device to take nothing new, or to be empty."""
        self._tell(events.DeviceCordoned(cordon))

    def uncordon(self, device: str) -> None:
        """And no more."""
        self._tell(events.DeviceUncordoned(device))

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
        for course in map(self.courses.__getitem__, self._running.ends):
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
        band = self._bands.by_id.get(job)
        if band is not None and band.courses[0].arrived:
            self._tell(events.RequestCancelled(job))
        for course in [self.courses[job]] if band is None else band.courses:
            self._cancel(course)

    def _cancel(self, course: Course) -> None:
        if course.state not in (JobState.WAITING, JobState.RUNNING):
            return
        attempt = course.live
        course.state = JobState.CANCELLED
        if attempt is not None:
            self._running.end(course, attempt, "cancelled", self.now)
            self._tell(events.LeaseReleased(attempt.lease.lease))
        elif course.arrived and course.job.gang is None:
            self._tell(events.RequestCancelled(course.job.id))

    # -- completions and arrivals ------------------------------------------------------------

    def _arrive(self, course: Course) -> None:
        if course.state is not JobState.WAITING:
            return  # cancelled before it came
        job, band = course.job, self._bands.of(course)
        if course.arrived:
            return  # with another member of its gang
        for one in [course] if band is None else band.courses:
            one.arrived = True
        name = job.id if band is None else band.id
        # As in the live pool, a class is a function and a request: a slice fits whoever is of its class.
        task_class = f"{job.kind}/{job.request.describe()}"
        self._tell(events.RequestSubmitted(name, _SESSION, _ENVIRONMENT, task_class, job.request, job.reusable))
        self._wake_after(self.config.lease_term_seconds)

    def _complete(self, course: Course, attempt: Attempt) -> None:
        course.state = JobState.DONE
        self._running.end(course, attempt, "done", self.now)
        band = self._bands.of(course)
        if band is not None:
            self._bands.completed(band, self.now)
        ran = seconds(self.now - attempt.start - attempt.setup)
        if (
            course.job.reusable and ran > 0 and not course.saved and band is None
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
                self.recalls += 1
                if command.stop:  # otherwise the job goes on to its end and hands the lease back, as it does anyway
                    if command.reason is not RecallReason.GANG:
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
        band = self._bands.of(course)
        if band is not None:
            self._bands.granted(band, course, lease, work, self.now)
            return
        setup = ticks(self._costs.warm_start) if lease.grant > 1 else 0
        if course.saved:
            setup += ticks(self._costs.restore)
        attempt = Attempt(lease, self.now, setup, work - int(course.saved * work), counted_at=self.now)
        course.attempts.append(attempt)
        course.state = JobState.RUNNING
        self._running.begin(course, self.now)
        if course.job.reusable:
            self._wake_after(self.config.lease_term_seconds)

    def _asked_to_stop(self, command: RecallLease) -> None:
        """A job that saves its state does so now, which takes a while, and stops; another goes on to its bitter end."""
        course = self.courses[command.lease.request]
        attempt, band = course.live, self._bands.of(course)
        if attempt is None or attempt.lease.lease != command.lease:
            return
        if band is not None:
            self._bands.asked_to_stop(band, command.lease, self.now)
        if band is not None or not course.job.checkpoint_every:
            return
        attempt.count(self.now)
        reached = attempt.worked
        self._agenda.put(
            self.now + ticks(self._costs.checkpoint), COMPLETION, lambda: self._yielded(course, attempt, reached)
        )

    def _yielded(self, course: Course, attempt: Attempt, reached: Ticks) -> None:
        if course.live is not attempt:
            return  # it was done before its state was saved, or was stopped
        self._running.end(course, attempt, EndReason.PREEMPTED.value, self.now)
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
        self._running.end(course, attempt, command.reason.value, self.now)
        band = self._bands.of(course)
        if band is not None:
            self._bands.lost(band, self.now)
        else:
            self._save(course, attempt)
        course.state = JobState.WAITING if command.requeued else JobState.FAILED
        course.message = "" if command.requeued else command.message

    def _failed(self, command: FailRequest) -> None:
        band = self._bands.by_id.get(command.request)
        infeasible = command.reason is EndReason.INFEASIBLE
        for course in [self.courses[command.request]] if band is None else band.courses:
            course.state = JobState.INFEASIBLE if infeasible else JobState.FAILED
            course.message, course.removed = command.message, command.removed

    # -- running work --------------------------------------------------------------------------

    def _save(self, course: Course, attempt: Attempt) -> None:
        """What of a lost attempt's work its last checkpoint kept, and what it lost."""
        whole = course.job.work_on(attempt.lease.device_type) or 1
        before = whole - attempt.need
        reached = before + attempt.worked
        every = ticks(course.job.checkpoint_every)
        kept = max(before, reached // every * every) if every else 0
        attempt.lost = reached - kept
        course.saved = kept / whole

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
