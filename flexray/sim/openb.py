"""The openb trace: its files, and the experiment the published results are of.

The trace is Alibaba's GPU-sharing trace of 2023 (Weng et al., USENIX ATC 2023;
hkust-adsl/kubernetes-scheduler-simulator, Apache-2.0). The experiment: tasks arrive in
a random order, then resampled from the trace, until their GPU demand is ``inflate``
times the capacity. Nothing departs, and what does not fit is dropped.

Measured after each arrival, in per cent of the GPUs there are, and averaged over the
arrivals at which the demand so far rounds to the same per cent: the GPUs allocated, and
the idle GPUs that are fragments for the trace's tasks (``fragments.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.views import check_invariants, snapshot
from flexray.errors import InternalError, UsageError
from flexray.model import events
from flexray.model.amounts import WHOLE, MemoryMiB, MilliCpus, Share
from flexray.model.commands import StartSlice
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.lease import EnvironmentId, Placement, RequestId, SessionId
from flexray.model.request import Request
from flexray.sim.columns import Row, read_csv
from flexray.sim.fragments import Fragments, Shape, typical_shapes
from flexray.sim.result import Part

DEVICE_MEMORY = MemoryMiB(1000)
"""The trace says nothing of device memory: each device gets as many MiB as it has thousandths."""

NEVER = 1e12
"""Seconds that never pass: leases are not recalled here."""

_SESSION, _ENVIRONMENT = SessionId("openb"), EnvironmentId("openb")


@dataclass(frozen=True, slots=True)
class Task:
    """One row of a task list. Times in seconds of the trace, None where the list has none."""

    name: str
    request: Request
    created: int | None = None
    deleted: int | None = None

    @property
    def demand(self) -> int:
        """Thousandths of GPUs."""
        return self.request.share * self.request.devices


def read_nodes(path: Path) -> list[Inventory]:
    """The nodes of a node list. A GPU model ``T4`` is the device type ``openb/T4``."""
    return [_node(row) for row in read_csv(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model"))]


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a task list. ``gpu_spec`` names the allowed models; without GPUs a task is a part of a node."""
    needed = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
    tasks = [_task(row) for row in read_csv(path, needed)]
    if not any(task.demand for task in tasks):
        raise UsageError(f"{path}: no task asks for a GPU")
    return tasks


def _node(row: Row) -> Inventory:
    name = row.text("sn")
    kind = DeviceType(f"openb/{row.text('model') or 'none'}", DEVICE_MEMORY)
    devices = tuple(Device(f"{name}/gpu{i}", name, i, kind, Family.GPU, "openb") for i in range(row.number("gpu")))
    return Inventory(
        name, name, devices, cpus=MilliCpus(row.number("cpu_milli")), host_memory=MemoryMiB(row.number("memory_mib"))
    )


def _task(row: Row) -> Task:
    count, milli = row.number("num_gpu"), row.number("gpu_milli")
    cpus, memory = MilliCpus(row.number("cpu_milli")), MemoryMiB(row.number("memory_mib"))
    if not count:
        request = Request(devices=0, cpus=cpus, host_memory=memory)
    else:
        spec = row.text("gpu_spec", "")
        types = tuple(f"openb/{model}" for model in sorted(set(spec.split("|")))) if spec else ()
        share = Share(milli) if count == 1 else WHOLE
        request = Request(share=share, devices=count, types=types, cpus=cpus, host_memory=memory)
    return Task(row.text("name"), request, row.maybe("creation_time"), row.maybe("deletion_time"))


def arrivals(tasks: Sequence[Task], target: float, seed: int) -> Iterator[Task]:
    """The tasks in random order, then drawn at random, until they ask for ``target`` thousandths of GPUs."""
    rng = np.random.default_rng(seed)
    order, demand, position = rng.permutation(len(tasks)), 0, 0
    while demand < target:
        task = tasks[int(order[position] if position < len(tasks) else rng.integers(len(tasks)))]
        position += 1
        demand += task.demand
        yield task


class Curves(Part):
    """By arrived GPU demand: what is allocated and what is fragments, all in per cent of the GPUs there are."""

    allocated: dict[int, float]
    fragmented: dict[int, float]


class SeedResult(Part):
    """One order of arrival. ``arrived`` and ``placed`` count tasks; the rest is as in Curves."""

    seed: int
    arrived: int
    placed: int
    allocated: dict[int, float]
    fragmented: dict[int, float]


class OpenbResult(Part):
    """The experiment under one policy. ``mean`` is over the seeds that have a value there."""

    version: Literal[1] = 1
    policy: str
    inflate: float
    nodes: int
    devices: int
    tasks: int
    seeds: list[SeedResult]
    mean: Curves


class Placer(Protocol):
    """Who is asked for a place for each task that arrives."""

    def place(self, task: Task) -> Placement | None:
        """Where it puts a task; None where it has no place for it now."""

    def check(self, allocated: int) -> None:
        """Raise where its books are not sound, or do not hold this many thousandths of devices."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is the same for every seed."""

    nodes: Sequence[Inventory]
    tasks: Sequence[Task]
    policy: str
    inflate: float = 1.3

    @property
    def capacity(self) -> int:
        """Thousandths of GPUs."""
        return WHOLE * sum(len(node.devices) for node in self.nodes)

    def run(
        self, seed: int, progress: Callable[[float], None] = lambda part: None, placer: Placer | None = None
    ) -> SeedResult:
        """One order of arrival. ``progress`` is told now and then which part of it is done, from 0 to 1.

        ``placer`` places the tasks; the production core with the experiment's policy unless given.
        """
        core, capacity = placer or _Core(self), self.capacity
        shapes = typical_shapes((shape_of(task), 1) for task in self.tasks)
        fragments = Fragments(self.nodes, shapes)
        points: dict[int, list[tuple[int, float]]] = {}
        arrived = allocated = placed = count = 0
        for count, task in enumerate(arrivals(self.tasks, self.inflate * capacity, seed), start=1):
            arrived += task.demand
            place = core.place(task)
            if place is not None:
                allocated, placed = allocated + task.demand, placed + 1
                fragments.take(place.node, place.devices, place.share, task.request.cpus)
            points.setdefault(round(100 * arrived / capacity), []).append((allocated, fragments.total))
            if count % 100 == 0:
                progress(arrived / (self.inflate * capacity))
        core.check(allocated)
        return SeedResult(
            seed=seed,
            arrived=count,
            placed=placed,
            allocated={at: self._percent([p[0] for p in some]) for at, some in sorted(points.items())},
            fragmented={at: self._percent([p[1] for p in some]) for at, some in sorted(points.items())},
        )

    def _percent(self, amounts: Sequence[float]) -> float:
        return round(100 * sum(amounts) / len(amounts) / self.capacity, 4)

    def summarise(self, results: Sequence[SeedResult]) -> OpenbResult:
        """The result of all seeds, in the order of the seeds."""
        ordered = sorted(results, key=lambda one: one.seed)
        return OpenbResult(
            policy=self.policy,
            inflate=self.inflate,
            nodes=len(self.nodes),
            devices=self.capacity // WHOLE,
            tasks=len(self.tasks),
            seeds=ordered,
            mean=Curves(
                allocated=_mean([one.allocated for one in ordered]),
                fragmented=_mean([one.fragmented for one in ordered]),
            ),
        )


def _mean(curves: Sequence[dict[int, float]]) -> dict[int, float]:
    places = sorted({at for curve in curves for at in curve})
    there = {at: [curve[at] for curve in curves if at in curve] for at in places}
    return {at: round(sum(values) / len(values), 4) for at, values in there.items()}


def shape_of(task: Task) -> Shape:
    """What of a task counts for fragmentation."""
    request = task.request
    return Shape(request.cpus, request.share if request.devices else 0, request.devices, request.types)


class _Core:
    """The production core, asked for one task after the other."""

    def __init__(self, experiment: Experiment) -> None:
        config = PoolConfig(policy=experiment.policy, lease_term_seconds=NEVER, warm_seconds=NEVER)
        self._core = build_scheduler(config)
        self._core.apply(events.SessionOpened(_SESSION, _ENVIRONMENT), 0.0)
        for node in experiment.nodes:
            self._core.apply(events.NodeReported(node), 0.0)
        self._count = 0

    def place(self, task: Task) -> Placement | None:
        """Where the core puts a task; None, and the task is withdrawn, where it has no place for it now."""
        self._count += 1
        now, name = float(self._count), RequestId(f"{self._count}")
        submitted = events.RequestSubmitted(
            name, _SESSION, _ENVIRONMENT, task.request.describe(), task.request, reusable=False
        )
        self._core.apply(submitted, now)
        started = [command for command in self._core.decide(now) if isinstance(command, StartSlice)]
        if not started:
            self._core.apply(events.RequestCancelled(name), now)
            return None
        self._core.apply(events.SliceStarted(started[0].slice), now)
        return started[0].placement

    def check(self, allocated: int) -> None:
        """The core's books are sound and say what was counted here."""
        check_invariants(self._core.state)
        there = snapshot(self._core.state, float(self._count), 1).devices
        held = round(WHOLE * sum(device.share_held for device in there))
        if held != allocated:
            raise InternalError(f"the core holds {held} thousandths where {allocated} were placed")
