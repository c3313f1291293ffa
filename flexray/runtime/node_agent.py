"""The agent of one node: finds its devices, claims them from Ray, starts and stops slices.

An async actor, detached and without restarts: the scheduler makes a new one when it
dies, and the slices, which the agent owns, die with it. Everything the scheduler must
know comes out of ``reports`` in order; the scheduler polls it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flexray.devices.backend import NodeFacts
from flexray.devices.child import ProbeChild
from flexray.devices.enforcement import Enforcement
from flexray.devices.enforcers.enforcer import Usage
from flexray.devices.visible import masks_of
from flexray.errors import FlexrayError
from flexray.model.amounts import MemoryMiB, MilliCpus
from flexray.model.commands import StopSlice
from flexray.model.devices import BackendReport, Device, DeviceState, Inventory
from flexray.model.events import Event, NodeReported
from flexray.runtime.claims import Claim, in_claim, make_or_adopt_claim, probe_index, remove_claim
from flexray.runtime.device_watch import DeviceWatch
from flexray.runtime.environment import with_variables
from flexray.runtime.leftovers import end_leftovers
from flexray.runtime.memory_watch import MemoryWatch, with_watchdog
from flexray.runtime.node_memory import host_memory
from flexray.runtime.notes import notes_directory
from flexray.runtime.processes import be_spared
from flexray.runtime.protocol import AgentCommand, Reports, SliceSpec
from flexray.runtime.service import Service
from flexray.runtime.slice_host import END_SECONDS, LiveSlice, SliceHost, in_thread
from flexray.runtime.usage import UsageReport, UsageWatch
from flexray.runtime.visible import RESOURCE_OF, variable_of

_PROBE_SECONDS = 60.0
"""For a worker of Ray's to start on a claimed device and say which it is."""


@dataclasses.dataclass(frozen=True)
class AgentOptions:
    """What an agent needs of the pool's configuration; without the library that checks that, agents start faster."""

    poll_seconds: float
    recovery_seconds: float
    isolation: dict[str, str]
    leave_to_ray: dict[str, int]
    fake_devices: str


class NodeAgent:
    """Runs on one node, as long as the node is in the pool."""

    def __init__(
        self, node: str, name: str, resources: dict[str, float], labels: dict[str, str], options: AgentOptions
    ):
        be_spared()
        self._node = node
        self._name = name
        self._options = options
        self._facts = _facts(node, resources, labels, options.fake_devices)
        self._probe = ProbeChild()
        self._enforcement = Enforcement(node, notes_directory(node), options.isolation)
        self._host = SliceHost(node, self, self._enforcement)
        self._watch = DeviceWatch(self._probe, self._host, options.recovery_seconds, time.time)
        self._claims: list[Claim] = []
        self._devices: dict[str, Device] = {}
        self._backend_reports: tuple[BackendReport, ...] = ()
        self._service = Service()
        self._usage: UsageReport | None = None
        self._news = asyncio.Event()
        self._closing = False
        self._begun = False
        self._ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what the scheduler calls ------------------------------------------------------------

    async def open(self, epoch: int, with_cpu: int) -> int:
        """Find devices, wait until leftovers of an earlier agent are gone, claim, and go on watching.

        Returns the epoch of the scheduler that this agent listens to. A scheduler that was started after it knows
        nothing: it is told what there is, devices and slices.
        """
        if not self._begun:
            self._begun = True
            await self._begin(with_cpu)
            self._ready.set()
        await self._ready.wait()  # unbounded: as long as the first call takes, each step of which has a limit
        found = self._host.live.values()
        return self._service.begin(epoch, lambda: [NodeReported(self._inventory()), *(live.found() for live in found)])

    async def _begin(self, with_cpu: int) -> None:
        await in_thread(end_leftovers, self._node, END_SECONDS)
        await in_thread(self._enforcement.recover)
        self._facts = dataclasses.replace(self._facts, cpu_devices=with_cpu)
        await self._discover()
        wanted = {resource: self._claims_wanted(resource) for resource in RESOURCE_OF.values()}
        for resource, count in wanted.items():
            for number in range(count):
                self._claims.append(await in_thread(make_or_adopt_claim, self._node, resource, number))
        memory = MemoryWatch(self._host.running, self._host.ran_over, self._probe.sample, self._options.poll_seconds)
        usage = UsageWatch(self._host.running, self._usage_of, self._note_usage)
        for watch in (memory.watch_host, memory.watch_node, memory.watch_devices, usage.watch):
            self.spawn(watch())
        self.spawn(self._watch_claims())
        self.spawn(self._watch_health())

    async def reports(self, epoch: int, seen: int, timeout: float) -> Reports | None:
        """What has happened after report number ``seen``; waits for something. None for an earlier scheduler."""
        reports = self._service.reports(epoch, seen)
        if reports is not None and not reports[1] and self._usage is None:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except asyncio.TimeoutError:
                pass
            reports = self._service.reports(epoch, seen)
        if reports is None:  # it must not take its successor's news
            return None
        usage, self._usage = self._usage, None
        return Reports(*reports, usage)

    async def do(self, epoch: int, first: int, commands: list[AgentCommand]) -> int:
        """Carry out commands, numbered from ``first``; returns the number of the last one that was taken.

        Whatever comes of them is reported. Those of an earlier scheduler are refused.
        """
        taken, new = self._service.take(epoch, first, commands)
        for command in new:
            if isinstance(command, SliceSpec):
                self._host.start(command)
            elif isinstance(command, StopSlice):
                self.spawn(self._host.stop(command.slice))
            else:
                self._host.resize(command.slice, command.placement)
        return taken

    async def close(self) -> None:
        """Stop every slice, then give the claimed devices back to Ray."""
        self._closing = True
        await self._host.stop_all("the pool stops")
        await in_thread(self._enforcement.close)
        for claim in self._claims:
            await in_thread(remove_claim, ray.util.placement_group_table(claim.group)["name"])
        self._probe.close()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run beside everything else."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)  # the event loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    def report(self, event: Event) -> None:
        """Tell the scheduler."""
        self._service.report(event)
        self._news.set()

    def _note_usage(self, usage: UsageReport) -> None:
        """Only the latest is of use."""
        self._usage = usage
        self._news.set()

    def _usage_of(self, live: LiveSlice) -> Usage:
        return live.usage(self._enforcement)

    # -- devices -----------------------------------------------------------------------------

    async def _discover(self) -> None:
        try:
            devices, self._backend_reports = await in_thread(self._probe.discover, self._facts)
        except FlexrayError as error:
            devices, self._backend_reports = (), (BackendReport("probe", 0, str(error)),)
        lost = [d for d in self._devices.values() if d.id not in {found.id for found in devices} and d.key]
        known = [*devices, *(dataclasses.replace(d, state=DeviceState.LOST) for d in lost)]
        equipped = await in_thread(self._enforcement.equip, known)
        self._devices = {device.id: with_watchdog(device) for device in equipped}
        self._backend_reports += self._enforcement.reports()

    def _claims_wanted(self, resource: str) -> int:
        found = sum(1 for d in self._devices.values() if RESOURCE_OF.get(d.family) == resource and d.backend != "fake")
        return max(0, found - self._options.leave_to_ray.get(resource, 0))

    def _report_inventory(self) -> None:
        self.report(NodeReported(self._inventory()))

    def _inventory(self) -> Inventory:
        offered = tuple(self._pooled())
        return Inventory(
            self._node,
            self._name,
            offered,
            MilliCpus(int(self._facts.resources.get("CPU", 0) * 1000)),
            MemoryMiB(self._facts.host_memory),
            self._backend_reports,
            self._watch.foreign,
            self._watch.notes,
        )

    def _pooled(self) -> list[Device]:
        """Devices the pool offers: claimed ones as they are, and as many unclaimed as claims are pending."""
        pooled = [d for d in self._devices.values() if d.family not in RESOURCE_OF or d.backend == "fake"]
        for resource in RESOURCE_OF.values():
            claims = [claim for claim in self._claims if claim.resource == resource]
            claimed = {claim.index for claim in claims}
            pending = sum(1 for claim in claims if claim.index is None)
            for device in self._devices.values():
                if RESOURCE_OF.get(device.family) != resource or device.backend == "fake":
                    continue
                if {str(device.index), device.key} & claimed:
                    pooled.append(device)
                elif pending:
                    pending -= 1
                    pooled.append(dataclasses.replace(device, state=DeviceState.UNCLAIMED))
        return sorted(pooled, key=lambda d: (d.family.value, d.index))

    async def _watch_claims(self) -> None:
        """Learn which device each claim is, as the claims are met."""
        while any(claim.index is None for claim in self._claims):
            unmet = [claim for claim in self._claims if claim.index is None]
            met = [claim for claim in unmet if await in_thread(claim.group.wait, 0.05)]
            for claim, index in zip(met, await asyncio.gather(*map(_probe, met)), strict=True):
                claim.index = index
            if any(claim.index is not None for claim in met):
                self._report_inventory()
            await asyncio.sleep(min(0.5, self._options.poll_seconds))

    async def _watch_health(self) -> None:
        """Report what changes on the devices, and remember the slices' descendants while they can be found."""
        while not self._closing:
            await asyncio.sleep(self._options.poll_seconds)
            await self._host.remember_families()
            changed, news = await in_thread(self._watch.look, dict(self._devices))
            for name, (state, reason) in changed.items():
                self._devices[name] = dataclasses.replace(self._devices[name], state=state, reason=reason)
            if news:
                self._report_inventory()

    # -- what its slices need of it -----------------------------------------------------------

    def device(self, name: str) -> Device:
        """The device of that id. Raises KeyError."""
        return self._devices[name]

    def actor_options(self, devices: tuple[Device, ...], runtime_env: dict[str, Any]) -> dict[str, Any]:
        """What a slice asks Ray for: its claim; for several devices, its node and explicit visible devices."""
        resource = RESOURCE_OF.get(devices[0].family)
        claims = [self._claim_of(device) for device in devices]
        if resource is not None and len(devices) == 1 and claims[0] is not None:
            where = in_claim(claims[0])
        else:
            where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(self._node, soft=False)}
            if resource is not None and all(claims):
                visible = ",".join(claim.index or "" for claim in claims if claim is not None)
                runtime_env = with_variables(runtime_env, {variable_of(devices[0]): visible})
        return {**where, "runtime_env": runtime_env} if runtime_env else where

    def _claim_of(self, device: Device) -> Claim | None:
        resource = RESOURCE_OF.get(device.family)
        names = (str(device.index), device.key)
        return next((c for c in self._claims if c.resource == resource and c.index in names), None)


def _facts(node: str, resources: dict[str, float], labels: dict[str, str], fake_devices: str) -> NodeFacts:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cores = tuple(sorted(affinity(0))) if affinity else tuple(range(os.cpu_count() or 1))
    # Ray leaves the variables of a worker without devices as the raylet has them: these are the node's own masks.
    visible = masks_of(os.environ)
    return NodeFacts(node, resources, labels, cores, host_memory(), 0, fake_devices, visible=visible)


async def _probe(claim: Claim) -> str | None:
    """The device of a claim; None where that cannot be told now: the claim is asked again."""
    try:
        return str(await asyncio.wait_for(_result(probe_index(claim)), _PROBE_SECONDS))
    except (asyncio.TimeoutError, ray.exceptions.RayError):
        return None


async def _result(ref: Any) -> Any:
    return await ref  # unbounded: who calls it sets the limit
