"""The output schema of a simulation, version 1, and how it is made. Times in seconds, memory in MiB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from flexray.core.views import snapshot
from flexray.model.amounts import share_as_float
from flexray.model.commands import RecallLease
from flexray.sim.clock import Simulation
from flexray.sim.foresight import Foresight
from flexray.sim.jobs import Attempt, Course, JobState, Ticks, seconds
from flexray.sim.steps import Steps, held_steps

OUTPUT_VERSION = 1


class Part(BaseModel):
    """What holds for every part of the output."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, populate_by_name=True)


class AttemptResult(Part):
    """One lease of a request. ``ended`` and ``end`` are null while it runs."""

    attempt: int
    start: float
    end: float | None
    node: str
    devices: list[str]
    type: str
    share: float
    """Of each device."""
    memory_mib: int
    """Of each device."""
    profile: str
    """Name of the part it is, on devices that are cut into fixed parts, else ""."""
    ended: str | None
    """"done", "cancelled", or why it was taken: "node_lost", "slice_lost", "device_lost"."""
    lost: float
    """Seconds of its work that have to be done again."""


class EstimatedStart(Part):
    """When the scheduler said that the request would start: when it began to wait, and the last time it was asked.

    Null for one that did not wait, where nothing was known, and after those that were asked about.
    """

    first: float | None = None
    last: float | None = None


class RequestResult(Part):
    """What became of a request."""

    id: str
    queue: str
    class_: str = Field(serialization_alias="class")
    submitted: float
    state: JobState
    wait_reason: str | None
    """WaitReason of one that waits at the end."""
    estimated_start: EstimatedStart
    message: str
    removed: dict[str, int]
    """For an infeasible one: how many devices each reason ruled out."""
    attempts: list[AttemptResult]


class Use(Part):
    """From this time on, so much was held: in devices, and in units of nvidia/A100-80GB by nominal speed."""

    at: float
    devices: float
    normalised: float


class QueueResult(Part):
    """A queue's use over the run."""

    name: str
    mean_devices: float
    mean_normalised: float
    use: list[Use]


class TypeResult(Part):
    """A device type's use over the run. Device-seconds count while the device's node is up."""

    type: str
    devices: int
    """The most there were at a time."""
    device_seconds: float
    held_seconds: float
    utilisation: float
    use: list[Use]


class PreemptionResult(Part):
    """A lease that was taken back in the middle of its work.

    ``winner`` is the request that needed the room, "" where the work went on better elsewhere; ``lost`` the
    seconds of work that are done again.
    """

    at: float
    reason: str
    winner: str
    victim: str
    lost: float


class Distribution(Part):
    """Of a span of time, in seconds, over the requests that have it; null where none has."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


class Summary(Part):
    """The run in a few figures."""

    requests: dict[JobState, int]
    """How many ended in each state."""
    wait: Distribution
    """From arrival to the first start."""
    completion: Distribution
    """From arrival to the end, of those that are done."""
    lost_seconds: float
    """Work done twice."""
    recalls: int
    """Leases asked back for somebody who had waited for a term."""


class Result(Part):
    """What one run of a scenario gives."""

    version: Literal[1] = 1
    policy: str
    end: float
    """The time the run ended: ``until``, or when nothing was left to happen."""
    summary: Summary
    requests: list[RequestResult]
    queues: list[QueueResult]
    types: list[TypeResult]
    preemptions: list[PreemptionResult]
    invariants: Literal["held"] = "held"
    """The core's books were checked; a run in which they break ends with an error."""


class Comparison(Part):
    """Several policies on one scenario, in the order asked for."""

    version: Literal[1] = 1
    runs: list[Result]


def collect(simulation: Simulation) -> Result:
    """The result of a simulation that has run."""
    courses = list(simulation.courses.values())
    picture = snapshot(simulation.core.state, seconds(simulation.now), 1)
    reasons = {view.id: view.wait_reason for view in picture.waiting}
    return Result(
        policy=simulation.config.policy,
        end=seconds(simulation.now),
        summary=_summary(courses, simulation.recalls),
        requests=[_request(course, reasons.get(course.job.id), simulation.foresight) for course in courses],
        queues=_queues(courses, _speeds(simulation), simulation.now),
        types=collect_types(simulation),
        preemptions=[_preemption(at, told, simulation) for at, told in simulation.preemptions],
    )


def collect_types(simulation: Simulation) -> list[TypeResult]:
    """How much of each device type was used."""
    courses = list(simulation.courses.values())
    return _types(courses, _speeds(simulation), simulation.capacity, simulation.now)


def _speeds(simulation: Simulation) -> dict[str, float]:
    devices = (device for node in simulation.nodes_ever.values() for device in node.devices)
    return {device.type.name: device.type.speed for device in devices}


def distribution(spans: Iterable[float]) -> Distribution:
    """Mean and percentiles (nearest rank: always a value that occurred)."""
    values = sorted(spans)
    if not values:
        return Distribution(count=0, mean=None, p50=None, p90=None, p99=None, max=None)

    def rank(percent: int) -> float:
        return _tidy(values[max(0, -(-percent * len(values) // 100) - 1)])

    mean = _tidy(sum(values) / len(values))
    return Distribution(count=len(values), mean=mean, p50=rank(50), p90=rank(90), p99=rank(99), max=_tidy(values[-1]))


def _tidy(value: float) -> float:
    """To the microsecond, or the millionth: what lies beyond is noise of the arithmetic."""
    return round(value, 6) + 0.0


def _summary(courses: list[Course], recalls: int) -> Summary:
    counts = {state: sum(c.state is state for c in courses) for state in JobState}
    waits = [seconds(c.attempts[0].start - c.job.at) for c in courses if c.attempts]
    ends = [(c.attempts[-1].end, c.job.at) for c in courses if c.state is JobState.DONE]
    lost = sum(attempt.lost for course in courses for attempt in course.attempts)
    return Summary(
        requests={state: count for state, count in counts.items() if count},
        wait=distribution(waits),
        completion=distribution(seconds(end - at) for end, at in ends if end is not None),
        lost_seconds=seconds(lost),
        recalls=recalls,
    )


def _request(course: Course, reason: str | None, foresight: Foresight | None) -> RequestResult:
    first, last = foresight.said_of(course.job.id) if foresight is not None else (None, None)
    return RequestResult(
        id=course.job.id,
        queue=course.job.request.queue,
        class_=course.job.kind,
        submitted=seconds(course.job.at),
        state=course.state,
        wait_reason=reason if course.state is JobState.WAITING else None,
        estimated_start=EstimatedStart(first=first, last=last),
        message=course.message,
        removed=dict(course.removed),
        attempts=[_attempt(attempt) for attempt in course.attempts],
    )


def _preemption(at: Ticks, told: RecallLease, simulation: Simulation) -> PreemptionResult:
    course = simulation.courses[told.lease.request]
    attempts = [one for one in course.attempts if one.lease.lease == told.lease]
    return PreemptionResult(
        at=seconds(at),
        reason=told.reason.value,
        winner=told.winner,
        victim=course.job.id,
        lost=seconds(sum(one.lost for one in attempts)),
    )


def _attempt(attempt: Attempt) -> AttemptResult:
    place = attempt.lease.placement
    return AttemptResult(
        attempt=attempt.lease.lease.attempt,
        start=seconds(attempt.start),
        end=None if attempt.end is None else seconds(attempt.end),
        node=place.node,
        devices=list(place.devices),
        type=attempt.lease.device_type,
        share=share_as_float(place.share),
        memory_mib=place.memory,
        profile=place.profile,
        ended=attempt.ended or None,
        lost=seconds(attempt.lost),
    )


def _use(steps: Steps) -> list[Use]:
    return [Use(at=seconds(at), devices=_tidy(held), normalised=_tidy(norm)) for at, held, norm in steps.points]


def _queues(courses: list[Course], speeds: Mapping[str, float], end: Ticks) -> list[QueueResult]:
    held = held_steps(courses, speeds, lambda course, attempt: course.job.request.queue)
    return [
        QueueResult(
            name=name,
            mean_devices=_tidy(steps.mean(end)[0]),
            mean_normalised=_tidy(steps.mean(end)[1]),
            use=_use(steps),
        )
        for name, steps in sorted(held.items())
    ]


def _types(
    courses: list[Course],
    speeds: Mapping[str, float],
    capacity: list[tuple[Ticks, Mapping[str, int]]],
    end: Ticks,
) -> list[TypeResult]:
    held = held_steps(courses, speeds, lambda course, attempt: attempt.lease.device_type)
    found = []
    for name in sorted({name for _, counts in capacity for name in counts}):
        there = Steps([(at, float(counts.get(name, 0)), 0.0) for at, counts in capacity])
        offered = there.total(end)[0]
        steps = held.get(name, Steps([]))
        used = steps.total(end)[0]
        found.append(
            TypeResult(
                type=name,
                devices=max(counts.get(name, 0) for _, counts in capacity),
                device_seconds=_tidy(offered),
                held_seconds=_tidy(used),
                utilisation=_tidy(used / offered) if offered else 0.0,
                use=_use(steps),
            )
        )
    return found


def as_json(model: BaseModel) -> str:
    """The stable text of a result: the same result always gives the same bytes."""
    return model.model_dump_json(by_alias=True, indent=2)
