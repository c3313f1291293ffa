"""The openb trace under a chosen load: real lives, arrivals compressed in time, and what does not fit waits.

Arrivals are the trace's tasks (in its order, or in a random one by seed) and then tasks
drawn from it at random, until they ask for ``inflate`` times the GPUs. They come with the
trace's gaps between creations, from the first per cent of the tasks on (those were created
over months before the rest, and come at the start here), again from the start once these
are used up, all multiplied by one factor. A task lives from its creation to its deletion,
``clip`` at most, and starts when there is room. The factor makes the mean load as asked for:

    load = sum of (GPUs x life) / (GPUs there are x time from the first to the last arrival)

The busy window, over which the allocation is the mean, begins when a fifth of the tasks
has arrived and ends with the last arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from flexray.errors import UsageError
from flexray.model.amounts import WHOLE
from flexray.model.devices import Inventory
from flexray.model.lease import RequestId
from flexray.sim.clock import Simulation
from flexray.sim.jobs import Job, JobState, seconds, ticks
from flexray.sim.openb import Task, arrivals
from flexray.sim.openb_timed import last_moment, life, simulate_jobs
from flexray.sim.result import Distribution, Part, TypeResult, collect_types, distribution
from flexray.sim.steps import Steps, held_steps

LEAD_IN = 0.01
"""This part of the tasks, those created first, comes at the start: the trace has long gaps between them."""

WARM_UP = 0.2
"""This part of the tasks arrives before the busy window."""


class LoadResult(Part):
    """One order of arrival at one load under one policy. Times in seconds."""

    version: Literal[1] = 1
    policy: str
    load: float
    """GPU-seconds asked per second of arrivals, as a part of the GPUs there are."""
    clip: float
    """The longest life."""
    clipped: int
    """Arrivals that would have lived longer."""
    inflate: float
    """GPUs asked for by all arrivals, as a multiple of those there are."""
    seed: int | None
    """Of the order of arrival; null: the order of the trace."""
    factor: float
    """Gaps between arrivals are the trace's times this."""
    arrived: int
    arrivals_exhausted: bool
    """Whether there are more arrivals than the trace has tasks, so that the rest was drawn from it."""
    nodes: int
    devices: int
    window: tuple[float, float]
    """The busy window."""
    allocation: float
    """Mean part of the GPUs that is held over the busy window, in per cent."""
    waited: int
    """Tasks that did not start when they came."""
    wait: Distribution
    """From arrival to start, of all that started."""
    infeasible: int
    """Tasks that fit no node even when it is empty."""
    end: float
    """From the first arrival until the last task was done: the makespan."""
    types: list[TypeResult]


@dataclass(frozen=True, slots=True)
class Load:
    """What to run: see the head of this module."""

    load: float
    clip: float
    inflate: float
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Compressed:
    """The arrivals: tasks; when each comes and how long it lives, in seconds; lives that were clipped; the factor."""

    tasks: list[Task]
    times: list[float]
    lives: list[float]
    clipped: int
    factor: float


def compress(tasks: Sequence[Task], devices: int, asked: Load) -> Compressed:
    """The arrivals whose mean load is the one asked for."""
    if not (asked.load > 0 and asked.clip >= 1 and asked.inflate > 0):
        raise UsageError(
            f"load {asked.load:g} and inflate {asked.inflate:g} must be above 0, and clip {asked.clip:g} at least 1 s"
        )
    coming = _in_order(tasks, asked.inflate * devices * WHOLE, asked.seed)
    moments = _moments(tasks, len(coming))
    last = last_moment(tasks)
    whole = [life(task, last) for task in coming]
    lives = [min(asked.clip, lived) for lived in whole]
    work = sum(task.demand * lived for task, lived in zip(coming, lives, strict=True)) / WHOLE
    span = moments[-1]
    if not span or not work:
        raise UsageError("a load needs tasks that ask for GPUs and were created at different times")
    factor = work / (asked.load * devices * span)
    clipped = sum(lived > asked.clip for lived in whole)
    return Compressed(coming, [factor * moment for moment in moments], lives, clipped, factor)


def _in_order(tasks: Sequence[Task], target: float, seed: int | None) -> list[Task]:
    """As many tasks as ask for ``target`` thousandths of GPUs."""
    if seed is not None:
        return list(arrivals(tasks, target, seed))
    dice = np.random.default_rng(0)
    ordered = sorted(tasks, key=lambda task: task.created or 0)
    coming, demand = [], 0
    for task in chain(ordered, (tasks[int(dice.integers(len(tasks)))] for _ in iter(int, 1))):
        if demand >= target:
            break
        coming.append(task)
        demand += task.demand
    return coming


def _moments(tasks: Sequence[Task], count: int) -> list[float]:
    """When each of so many arrivals would come with the trace's own gaps, the first at 0."""
    created = sorted(task.created for task in tasks if task.created is not None)
    if len(created) < len(tasks):
        raise UsageError("a load needs a task list with the columns creation_time and deletion_time")
    first = created[int(LEAD_IN * len(created))]
    once = [max(0, moment - first) for moment in created]
    again = once[-1] + once[-1] / len(once)
    return [once[k % len(once)] + again * (k // len(once)) for k in range(count)]


def replay_load(nodes: Sequence[Inventory], tasks: Sequence[Task], policy: str, asked: Load) -> LoadResult:
    """Run the arrivals through the core under the virtual clock."""
    devices = sum(len(node.devices) for node in nodes)
    coming = compress(tasks, devices, asked)
    simulation = simulate_jobs(nodes, _jobs(coming), policy)
    courses = list(simulation.courses.values())
    waits = [seconds(course.attempts[0].start - course.job.at) for course in courses if course.attempts]
    window = (coming.times[int(WARM_UP * len(coming.times))], coming.times[-1])
    return LoadResult(
        policy=policy,
        load=asked.load,
        clip=asked.clip,
        clipped=coming.clipped,
        inflate=asked.inflate,
        seed=asked.seed,
        factor=coming.factor,
        arrived=len(coming.tasks),
        arrivals_exhausted=len(coming.tasks) > len(tasks),
        nodes=len(nodes),
        devices=devices,
        window=window,
        allocation=round(100 * _held(simulation, window) / devices, 4),
        waited=sum(wait > 0 for wait in waits),
        wait=distribution(waits),
        infeasible=sum(course.state is JobState.INFEASIBLE for course in courses),
        end=seconds(simulation.now),
        types=collect_types(simulation),
    )


def _jobs(coming: Compressed) -> list[Job]:
    return [
        Job(RequestId(f"{task.name}#{n}"), ticks(at), "openb", task.request, (("*", lived),), reusable=False)
        for n, (task, at, lived) in enumerate(zip(coming.tasks, coming.times, coming.lives, strict=True))
    ]


def _held(simulation: Simulation, window: tuple[float, float]) -> float:
    """Devices held over a span of time, in the mean."""
    held = held_steps(simulation.courses.values(), {}, lambda course, attempt: "all").get("all", Steps([]))
    begin, end = (held.total(ticks(at))[0] for at in window)
    return (end - begin) / (window[1] - window[0])
