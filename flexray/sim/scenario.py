"""Scenarios: what a YAML file says, run through the production core under the virtual clock."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flexray import catalog
from flexray.config import PoolConfig, load_config
from flexray.core.queues import QueueTree
from flexray.errors import InvalidRequest, UsageError
from flexray.model.amounts import MemoryMiB, MilliCpus, parse_cpus
from flexray.model.devices import Device, Family, Inventory, group_links
from flexray.model.gang import Gang, Layout
from flexray.model.isolation import Isolation
from flexray.model.lease import RequestId
from flexray.model.queue import Queue
from flexray.model.request import Request, request_from_options
from flexray.queue_file import parse_queues
from flexray.sim.clock import Happening as Act
from flexray.sim.clock import Simulation
from flexray.sim.foresight import Foresight
from flexray.sim.happenings import happening_of
from flexray.sim.jobs import Costs, Job, Ticks, ticks
from flexray.sim.reading import did_you_mean, read_yaml, validate
from flexray.sim.result import Comparison, Result, collect
from flexray.sim.schema import Node, QueueEntry, RequestEntry, Scenario

MAX_JOBS = 1_000_000
"""Requests of one scenario, ``count`` included."""


def load_scenario(path: Path) -> Scenario:
    """The scenario in a YAML file. Raises UsageError with every wrong field."""
    return parse_scenario(read_yaml(path), str(path))


def parse_scenario(data: object, source: str = "scenario") -> Scenario:
    """The scenario in plain data. Raises UsageError."""
    return _checked(validate(Scenario, data, source), source)


def with_requests(scenario: Scenario, requests: list[RequestEntry], source: str) -> Scenario:
    """A scenario (its nodes, events, costs, policy) with requests of another source instead of its own."""
    if scenario.requests:
        raise UsageError(f"the scenario has requests of its own; leave them out to take those of {source}")
    return _checked(scenario.model_copy(update={"requests": requests}), source)


def run_scenario(
    scenario: Scenario, policy: str | None = None, *, check: bool = False, all_estimates: bool = False
) -> Result:
    """Run a scenario, with another policy if one is given.

    Args:
        check: examine the core's books at every instant.
        all_estimates: estimate every start; otherwise only as many of the first as take no time to speak of.
    """
    foresight = Foresight(math.inf) if all_estimates else Foresight()
    return collect(simulate(scenario, policy, check=check, foresight=foresight))


def simulate(
    scenario: Scenario,
    policy: str | None = None,
    *,
    check: bool = False,
    foresight: Foresight | None = None,
    record: Callable[[str], None] | None = None,
) -> Simulation:
    """The simulation of a scenario, after its run. ``record`` receives the core's journal."""
    jobs = list(jobs_of(scenario))
    simulation = Simulation(
        config_of(scenario, policy),
        [inventory_of(node) for node in scenario.nodes],
        jobs,
        costs=Costs(**scenario.costs.model_dump()),
        factors=dict(_factors(scenario)),
        happenings=list(_happenings(scenario, jobs)),
        queues=queues_of(scenario.queues, "queues"),
        check=check,
        foresight=foresight,
        record=record,
    )
    simulation.run(None if scenario.until is None else ticks(scenario.until))
    return simulation


def json_schemas() -> dict[str, Any]:
    """JSON Schema of the input and the output of ``flexray simulate --scenario``."""
    return {
        "scenario": Scenario.model_json_schema(by_alias=True),
        "result": Result.model_json_schema(by_alias=True, mode="serialization"),
        "comparison": Comparison.model_json_schema(by_alias=True, mode="serialization"),
    }


def inventory_of(node: Node) -> Inventory:
    """What a node of the scenario reports. Its devices are called ``<node>/<family><index>``."""
    devices: list[Device] = []
    indexes: Counter[Family] = Counter()
    linked_groups = 0
    for group in node.devices:
        kind, size = group.device_type, group.links or 1
        family = catalog.family_of(kind.name)
        for position in range(group.count):
            index = indexes[family] + position
            name = f"{node.name}/{family.value}{index}"
            numa = linked_groups + position // size if group.links else -1
            links = group_links(index, position, size)
            cut = group.profiles is not None
            devices.append(
                Device(
                    name,
                    node.name,
                    index,
                    kind,
                    family,
                    "simulated",
                    isolation=catalog.cut_by(kind.name) if cut else Isolation.NONE,
                    numa=numa,
                    links=links,
                    profiles=catalog.profiles_of(kind.name) if cut else (),
                )
            )
        indexes[family] += group.count
        linked_groups += group.count // size if group.links else 0
    memory = MemoryMiB(node.host_memory or 0)
    return Inventory(node.name, node.name, tuple(devices), cpus=parse_cpus(node.cpus), host_memory=memory)


def config_of(scenario: Scenario, policy: str | None) -> PoolConfig:
    """The pool's configuration of a scenario, with another policy if one is given."""
    fields = dict(scenario.config)
    named = fields.get("policy", scenario.policy)
    if scenario.policy is not None and named != scenario.policy:
        raise UsageError(f"policy is {scenario.policy!r}, but config says {named!r}; name it once")
    chosen = policy or scenario.policy
    if chosen is not None:
        fields["policy"] = chosen
    return load_config(fields)


def _checked(scenario: Scenario, source: str) -> Scenario:
    _check_queues(scenario, source)
    _refuse_doubles(scenario, source)
    return scenario


def queues_of(entries: Sequence[QueueEntry], source: str) -> tuple[Queue, ...]:
    """The queues of a scenario. Raises UsageError for what is no tree, or makes no sense."""
    return parse_queues({"queues": [entry.model_dump(exclude_unset=True) for entry in entries]}, source)


def _latest(entries: Sequence[QueueEntry]) -> list[QueueEntry]:
    """The last description of each queue."""
    return list({entry.name: entry for entry in entries}.values())


def _check_queues(scenario: Scenario, source: str) -> None:
    """Requests name queues that are there, if only later."""
    queues_of(scenario.queues, source)
    later = [event.queue for event in scenario.events if event.queue is not None]
    everything = QueueTree(queues_of(_latest([*scenario.queues, *later]), source))
    for entry in scenario.requests:
        try:
            everything.leaf(entry.queue)
        except UsageError as error:
            raise UsageError(f"{source}: request {entry.id!r}: {error}") from None


def _refuse_doubles(scenario: Scenario, source: str) -> None:
    if sum((entry.count or 1) * (entry.gang.size if entry.gang else 1) for entry in scenario.requests) > MAX_JOBS:
        raise UsageError(f"{source}: more than {MAX_JOBS:,} requests; split the scenario")
    for what, names in (
        ("node", [node.name for node in scenario.nodes]),
        ("queue", [queue.name for queue in scenario.queues]),
        ("request", [name for entry in scenario.requests for name in {entry.id, *_names(entry)}]),
    ):
        double = next((name for name, count in Counter(names).items() if count > 1), None)
        if double is not None:
            raise UsageError(f"{source}: two {what}s are called {double!r}; names must differ")


def _names(entry: RequestEntry) -> list[RequestId]:
    """The requests that an entry stands for; a gang is one."""
    if entry.count is None and entry.gang is None:
        return [RequestId(entry.id)]
    return [RequestId(f"{entry.id}/{i}") for i in range(entry.count or 1)]


# -- requests ----------------------------------------------------------------------------------


def jobs_of(scenario: Scenario) -> Iterator[Job]:
    """The jobs of a scenario, ``count`` and the members of gangs written out."""
    for entry in scenario.requests:
        request = _request(entry)
        _check_durations(scenario, entry, request)
        for name in _names(entry):
            yield from Job(
                name,
                ticks(entry.at),
                entry.class_ or entry.id,
                request,
                tuple(entry.duration.items()),
                entry.checkpoint_every or 0.0,
            ).members()


def _request(entry: RequestEntry) -> Request:
    """The request as a client would make it, with the same validation."""
    options: dict[str, Any] = {
        name: getattr(entry, name) for name in ("gpu", "npu", "accelerator") if getattr(entry, name) is not None
    }
    options |= {"types": entry.types, "cpus": entry.cpus, "priority": entry.priority, "queue": entry.queue}
    told = {"none": None, "declared": entry.runtime, "true": max(entry.duration.values())}[entry.known]
    options["runtime"] = told
    gang = entry.gang
    rest: dict[str, Any] = {
        "memory": entry.memory,
        "host_memory": entry.host_memory or 0,
        "preemptible": entry.preemptible,
        "checkpoint_every": entry.checkpoint_every if entry.preemptible else None,
    }
    on_device = any(name in options for name in ("gpu", "npu", "accelerator"))
    if entry.known == "true" and on_device:
        fastest = min(entry.duration.values())
        options["request"] = Request(throughput=tuple((kind, fastest / t) for kind, t in entry.duration.items()))
    try:
        if not on_device and (entry.cpus or entry.host_memory):
            options["request"] = Request(devices=0, cpus=MilliCpus(1))  # a part of a node, and no device
        if gang is not None:
            rest["gang"] = Gang(gang.size, gang.min, Layout(gang.layout))
        return dataclasses.replace(request_from_options(options), **rest)
    except InvalidRequest as error:
        raise UsageError(f"request {entry.id!r}: {error}") from None


def _check_durations(scenario: Scenario, entry: RequestEntry, request: Request) -> None:
    """Every type it may run on needs a duration: better said before the run than in the middle of it."""
    probe = Job(RequestId(entry.id), 0, "", request, tuple(entry.duration.items()))
    for node in scenario.nodes:
        for device in inventory_of(node).devices:
            name = device.type.name
            if request.allows_type(name) and _same_family(request, device) and probe.work_on(name) is None:
                raise UsageError(
                    f"request {entry.id!r} may run on {name} and has no duration for it; add one, "
                    f'a pattern such as "*", or leave the type out with types:'
                )


def _same_family(request: Request, device: Device) -> bool:
    return request.family in (Family.ANY, device.family) or device.family is Family.CPU


def _factors(scenario: Scenario) -> Iterator[tuple[tuple[str, str, str], float]]:
    kinds = {entry.class_ or entry.id for entry in scenario.requests}
    for key, factor in scenario.slowdown.items():
        parts = tuple(part.strip() for part in key.strip("[]").split(","))
        if len(parts) != 3 or not all(parts):
            raise UsageError(f"slowdown: the key {key!r} must be [class, class beside it, device type]")
        unknown = next((part for part in parts[:2] if part not in kinds), None)
        if unknown is not None:
            raise UsageError(f"slowdown: no request is of class {unknown!r}.{did_you_mean(unknown, sorted(kinds))}")
        yield (parts[0], parts[1], parts[2]), factor


def _happenings(scenario: Scenario, jobs: list[Job]) -> Iterator[tuple[Ticks, Act]]:
    nodes = {node.name: inventory_of(node) for node in scenario.nodes}
    entries: list[QueueEntry] = list(scenario.queues)
    members: dict[str, list[RequestId]] = {}
    for job in jobs:
        members[job.gang or job.id] = [job.gang or job.id]
    for entry in scenario.requests:
        if entry.count is not None or entry.gang is not None:
            members[entry.id] = _names(entry)
    for event in sorted(scenario.events, key=lambda event: event.at):
        ((what, target),) = event.what
        if what == "queue":
            entries = _latest([*entries, target])
            queues = queues_of(entries, f"event at {event.at:g}")
            yield ticks(event.at), partial(Simulation.configure, queues=queues)
            continue
        yield ticks(event.at), happening_of(what, target, nodes, members)
