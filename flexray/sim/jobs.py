"""What a simulation runs and what became of it: jobs, their attempts, virtual time.

Virtual time is a whole number of microseconds, so that 0.1 s + 0.2 s and 0.3 s are the
same instant; the core and all outputs get seconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from flexray.model.lease import Lease, RequestId
from flexray.model.request import Request

Ticks = int
"""Virtual time or a span of it, in microseconds."""

TICKS_PER_SECOND = 1_000_000


def ticks(seconds: float) -> Ticks:
    """Seconds as whole microseconds, rounded to the nearest."""
    return round(seconds * TICKS_PER_SECOND)


def seconds(span: Ticks) -> float:
    """Microseconds as seconds."""
    return span / TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Costs:
    """What things cost beside the work itself, in seconds.

    Attributes:
        start: from StartSlice until the slice answers.
        warm_start: before the work of a lease on a slice that has served one before.
        checkpoint: for a victim to save its state when it is asked to go.
        restore: before the work of an attempt that resumes from a checkpoint.
    """

    start: float = 0.6
    warm_start: float = 0.0
    checkpoint: float = 1.0
    restore: float = 1.0


FREE = Costs(0.0, 0.0, 0.0, 0.0)
"""Nothing costs anything: for studies of placement alone."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request of a simulation, with the truth about it that the scheduler is not told.

    Attributes:
        id: also the id of its request.
        at: when it arrives.
        kind: its class as the scenario names it; slices are reused, and slowdowns given, by class.
        durations: (device type pattern, seconds of work there), the first match counts.
        checkpoint_every: seconds of work after which its state is saved; 0 means never.
        reusable: whether its slice may serve the next job of its class.
        steps: what its work is made of, if it says now and then how many it has done.
        gang: the request of the gang it is a member of; it has durations with all members.
    """

    id: RequestId
    at: Ticks
    kind: str
    request: Request
    durations: tuple[tuple[str, float], ...]
    checkpoint_every: float = 0.0
    reusable: bool = True
    steps: float = 0.0
    gang: RequestId | None = None

    def members(self) -> list[Job]:
        """What it stands for: itself, or the members of its gang, which the core calls so too."""
        gang = self.request.gang
        if gang is None:
            return [self]
        names = [RequestId(f"{self.id}.{index}") for index in range(gang.size)]
        return [dataclasses.replace(self, id=name, gang=self.id) for name in names]

    def work_on(self, device_type: str) -> Ticks | None:
        """Its work on a device type alone there, or None where none is given for that type."""
        found = next((time for pattern, time in self.durations if fnmatchcase(device_type, pattern)), None)
        return None if found is None else ticks(found)


class JobState(str, Enum):
    """Where a job is when the simulation ends."""

    WAITING = "waiting"
    """It has arrived and waits; its WaitReason says for what."""
    RUNNING = "running"
    """It holds a lease."""
    DONE = "done"
    """Its work is complete."""
    INFEASIBLE = "infeasible"
    """No device of the pool, as it was, could ever hold it."""
    PREEMPTED = "preempted"
    """It lost its lease to another request and does not start again."""
    FAILED = "failed"
    """It can never run, for another reason than its size."""
    CANCELLED = "cancelled"
    """The scenario withdrew it, or its gang was done without it."""


@dataclass(slots=True)
class Attempt:
    """One lease of a job: when, where, and how it ended.

    Attributes:
        begins: work and restoring so far come to ``done`` at the time ``counted_at``.
        setup: what comes before the work: the warm start, the restoring.
        ended: "" while it runs; else "done", "cancelled", or the EndReason it was revoked for.
        lost: work that was done and has to be done again.
        told: work of which it has said that it is done.
        factor: how much slower than alone it runs at present.
        pace: how much slower than with all of its gang, for want of members.
        paused: it holds its lease and does nothing.
    """

    lease: Lease
    start: Ticks
    setup: Ticks
    need: Ticks
    done: float = 0.0
    counted_at: Ticks = 0
    factor: float = 1.0
    end: Ticks | None = None
    ended: str = ""
    lost: Ticks = 0
    told: Ticks = 0
    pace: float = 1.0
    paused: bool = False

    def count(self, now: Ticks) -> None:
        """Bring ``done`` up to now."""
        if not self.paused:
            self.done += (now - self.counted_at) / self.factor
        self.counted_at = now

    @property
    def left(self) -> Ticks:
        """Time until it is done, at the present factor."""
        remaining = self.setup + self.need - self.done
        exact = remaining * self.factor
        return max(0, int(exact) + (exact > int(exact)))

    @property
    def worked(self) -> Ticks:
        """How much of the work itself is done."""
        return max(0, min(self.need, int(self.done) - self.setup))


@dataclass(slots=True)
class Course:
    """A job and what became of it so far.

    Attributes:
        saved: work that need not be repeated, from its last checkpoint, as a part of the whole.
        message: why it failed or is infeasible, in words.
        removed: how many devices each reason ruled out, for an infeasible one.
        together: those of its gang that run in step with it, itself included.
    """

    job: Job
    state: JobState = JobState.WAITING
    arrived: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    saved: float = 0.0
    message: str = ""
    removed: tuple[tuple[str, int], ...] = ()
    together: tuple[Course, ...] = field(default=(), repr=False, compare=False)

    @property
    def live(self) -> Attempt | None:
        """The attempt that runs, if any."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.end is None else None
