"""The openb trace in its own time: tasks come when they were created and hold their place as long as they lived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from flexray.config import PoolConfig
from flexray.errors import UsageError
from flexray.model.devices import Inventory
from flexray.model.lease import RequestId
from flexray.sim.clock import Simulation
from flexray.sim.jobs import FREE, Job, JobState, seconds, ticks
from flexray.sim.openb import NEVER, Task
from flexray.sim.result import Distribution, Part, TypeResult, collect_types, distribution


class TimedResult(Part):
    """A replay of creation and deletion times. A task that does not fit waits, and then runs as long as it lived."""

    version: Literal[1] = 1
    policy: str
    nodes: int
    devices: int
    tasks: int
    end: float
    """Seconds from the first creation until the last task was done."""
    waited: int
    """Tasks that did not start when they were created."""
    wait: Distribution
    """Seconds from creation to start, of all that started."""
    infeasible: int
    """Tasks that fit no node even when it is empty."""
    types: list[TypeResult]


def replay_times(nodes: Sequence[Inventory], tasks: Sequence[Task], policy: str) -> TimedResult:
    """Replay creation and deletion times through the core under the virtual clock."""
    simulation = simulate_times(nodes, tasks, policy)
    courses = list(simulation.courses.values())
    waits = [seconds(course.attempts[0].start - course.job.at) for course in courses if course.attempts]
    return TimedResult(
        policy=policy,
        nodes=len(nodes),
        devices=sum(len(node.devices) for node in nodes),
        tasks=len(tasks),
        end=seconds(simulation.now),
        waited=sum(wait > 0 for wait in waits),
        wait=distribution(waits),
        infeasible=sum(course.state is JobState.INFEASIBLE for course in courses),
        types=collect_types(simulation),
    )


def simulate_times(nodes: Sequence[Inventory], tasks: Sequence[Task], policy: str) -> Simulation:
    """The simulation behind ``replay_times``, after its run."""
    return simulate_jobs(nodes, _jobs(tasks), policy)


def simulate_jobs(nodes: Sequence[Inventory], jobs: Sequence[Job], policy: str) -> Simulation:
    """Run jobs on their own: nothing is reused and nothing recalled, a task of the trace is a container of its own."""
    config = PoolConfig(policy=policy, lease_term_seconds=NEVER, warm_seconds=NEVER)
    simulation = Simulation(config, nodes, jobs, costs=FREE)
    simulation.run()
    return simulation


def life(task: Task, last: int) -> float:
    """Seconds from its creation to its deletion, or to the ``last`` moment of the trace if it never ended.

    The shortest life is a second, the trace's unit.
    """
    return float(max(1, (last if task.deleted is None else task.deleted) - (task.created or 0)))


def last_moment(tasks: Sequence[Task]) -> int:
    """When the trace ends."""
    return max(max(task.deleted or 0, task.created or 0) for task in tasks)


def _jobs(tasks: Sequence[Task]) -> list[Job]:
    known = [(task, task.created) for task in tasks if task.created is not None]
    if not known:
        raise UsageError(
            "--timed needs a task list with the columns creation_time and deletion_time; this one has none"
        )
    first, last = min(created for _, created in known), last_moment(tasks)
    jobs = []
    for number, (task, created) in enumerate(known):
        name = RequestId(f"{task.name}#{number}")
        durations = (("*", life(task, last)),)
        jobs.append(Job(name, ticks(created - first), "openb", task.request, durations, reusable=False))
    return jobs
