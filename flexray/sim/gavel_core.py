"""Gavel's experiment played by the whole core, as in the live pool, under the virtual clock of ``clock.py``.

Every job is a preemptible request of one whole device. Between rounds a job that comes, or
a device that falls free, is served at once; the policies of ``gavel.py`` do so in rounds
only. Policies: ``core`` is told the throughputs (``throughput=``), ``core-learnt`` learns
them from the steps that jobs report each round. Neither is told how long a job runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from flexray import catalog
from flexray.config import PoolConfig
from flexray.model.devices import Device, Inventory
from flexray.model.lease import RequestId
from flexray.model.request import Request
from flexray.sim.clock import Simulation
from flexray.sim.gavel_setting import ROUND, Played, Setting, refuse_endless
from flexray.sim.gavel_trace import KINDS, Floats, Ints, Load
from flexray.sim.jobs import FREE, Course, Job, JobState, Ticks, seconds, ticks

_PER_NODE = 4
"""Devices of a node."""

_LOOK = 20
"""Rounds between two looks whether the measured jobs are done."""

_CHECKPOINT = 1.0
"""Seconds of work that a move may cost, as the core is told, where it costs nothing; a job saves all it has done."""

_TYPES = tuple(catalog.find(kind).name for kind in KINDS)


def play(load: Load, setting: Setting, learn: bool, progress: Callable[[int], None]) -> Played:
    """Run until the measured jobs are done.

    Args:
        learn: whether the core is not told the throughputs.
        progress: told how many measured jobs are done, now and then.
    """
    noise = setting.noise if learn else 0.0
    draw = np.random.default_rng(setting.seed)

    def report(world: Simulation) -> None:
        world.report_steps(lambda exact: exact / max(1 + noise * draw.standard_normal(), 0.05))
        world.at(world.now + ticks(ROUND), report)

    world = Simulation(
        PoolConfig(rematch_seconds=ROUND, warm_seconds=0),
        _nodes(setting.slots),
        [_job(load, number, learn, max(_CHECKPOINT, setting.move_cost)) for number in range(load.arrival.size)],
        costs=dataclasses.replace(FREE, restore=setting.move_cost),
        happenings=[(0, report)],
    )
    courses = list(world.courses.values())
    measured = courses[slice(*setting.measure)]
    done = 0
    while done < len(measured):
        refuse_endless(load, int(np.searchsorted(load.arrival, seconds(world.now), side="right")))
        world.run(until=world.now + ticks(_LOOK * ROUND))
        done = sum(course.state is JobState.DONE for course in measured)
        progress(done)
    return _played(courses, world.now)


def _job(load: Load, number: int, learn: bool, checkpoint: float) -> Job:
    kind, steps = int(load.job_class[number]), float(load.steps[number])
    rates = dict(zip(_TYPES, load.rates[kind].tolist(), strict=True))
    best = max(rates.values())
    told = () if learn else tuple((name, rate / best) for name, rate in rates.items())
    return Job(
        RequestId(str(number)),
        ticks(float(load.arrival[number])),
        str(kind),
        Request(throughput=told, preemptible=True, checkpoint_every=checkpoint),
        tuple((name, steps / rate) for name, rate in rates.items()),
        checkpoint,
        steps=steps,
    )


def _nodes(slots: tuple[int, ...]) -> Iterator[Inventory]:
    for short, count in zip(KINDS, slots, strict=True):
        kind = catalog.find(short)
        for first in range(0, count, _PER_NODE):
            node = f"{short}-{first // _PER_NODE}"
            here = range(min(_PER_NODE, count - first))
            family = catalog.family_of(kind.name)
            devices = tuple(Device(f"{node}/gpu{i}", node, i, kind, family, "simulated") for i in here)
            yield Inventory(node, node, devices)


def _played(courses: list[Course], now: Ticks) -> Played:
    finish, first, gap = (np.full(len(courses), np.nan) for _ in range(3))
    moves = 0
    for number, course in enumerate(courses):
        attempts = course.attempts
        waits, free = [], course.job.at
        for attempt in attempts:
            waits.append(attempt.start - free)
            free = now if attempt.end is None else attempt.end
        if attempts:
            first[number], gap[number] = seconds(attempts[0].start), seconds(max(waits))
            moves += len(attempts) - 1
        if course.state is JobState.DONE:
            finish[number] = seconds(free)
    return Played(finish, first, gap, moves, _there(courses, finish, now))


def _there(courses: list[Course], finish: Floats, now: Ticks) -> Ints:
    """How many jobs were there at the beginning of each round."""
    begins = np.arange(0.0, seconds(now), ROUND)
    came = np.sort([seconds(course.job.at) for course in courses])
    gone = np.sort(finish[~np.isnan(finish)])
    there: Ints = np.searchsorted(came, begins, side="right") - np.searchsorted(gone, begins, side="right")
    return there
