"""The agent of one node: finds its devices, claims them from Ray, starts and stops slices.

An async actor, detached and without restarts: the scheduler makes a new one when it
dies, and the slices, which the agent owns, die with it. Everything the scheduler must
know comes out of ``reports`` in order; the scheduler polls it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flexray.config import PoolConfig
from flexray.devices import BACKENDS
from flexray.devices.backend import NodeFacts
from flexray.devices.child import ProbeChild
from flexray.devices.visible import masks_of
from flexray.errors import FlexrayError
from flexray.model.amounts import MemoryMiB, MilliCpus
from flexray.model.devices import BackendReport, Device, DeviceState, Inventory
from flexray.model.events import Event, NodeReported, SliceEnded, SliceFailed, SliceStarted
from flexray.model.lease import SliceId
from flexray.runtime.claims import Claim, in_claim, make_or_adopt_claim, probe_index, remove_claim
from flexray.runtime.leftovers import end_leftovers, forget_process, record_process
from flexray.runtime.notes import notes_directory, read_notes
from flexray.runtime.processes import Process, end_all, family
from flexray.runtime.protocol import NAMESPACE, SliceIdentity, SliceSpec
from flexray.runtime.slice_actor import make_slice_class
from flexray.runtime.visible import RESOURCE_OF, variable_of

_END_SECONDS = 10.0


@dataclass(slots=True)
class LiveSlice:
    """A slice of this node. ``process`` is None until it answered."""

    spec: SliceSpec
    handle: Any = None
    process: Process | None = None
    known: dict[int, Process] = field(default_factory=dict)
    stopping: bool = False


class NodeAgent:
    """Runs on one node, as long as the node is in the pool."""

    def __init__(self, node: str, name: str, resources: dict[str, float], labels: dict[str, str], config: PoolConfig):
        self._node = node
        self._name = name
        self._config = config
        self._facts = _facts(node, resources, labels, config)
        self._probe = ProbeChild()
        self._slice_class = make_slice_class()
        self._slices: dict[SliceId, LiveSlice] = {}
        self._claims: list[Claim] = []
        self._devices: dict[str, Device] = {}
        self._backend_reports: tuple[BackendReport, ...] = ()
        self._reports: list[Event] = []
        self._news = asyncio.Event()
        self._closing = False
        self._opened = False
        self._listener = 0  # counts the schedulers that have opened this agent
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what the scheduler calls ------------------------------------------------------------

    async def open(self, with_cpu: int) -> None:
        """Find devices, wait until leftovers of an earlier agent are gone, claim, and go on watching.

        Called again by a scheduler that was restarted: it knows none of the slices, so they end.
        """
        if self._opened:
            self._listener += 1
            await asyncio.gather(*(self.stop_slice(name) for name in list(self._slices)))
            self._reports.clear()
            self._report_inventory()
            return
        self._opened = True
        await _in_thread(end_leftovers, self._node, _END_SECONDS)
        self._facts = dataclasses.replace(self._facts, cpu_devices=with_cpu)
        await self._discover()
        wanted = {resource: self._claims_wanted(resource) for resource in RESOURCE_OF.values()}
        for resource, count in wanted.items():
            for number in range(count):
                self._claims.append(await _in_thread(make_or_adopt_claim, self._node, resource, number))
        self._report_inventory()
        self._spawn(self._watch_claims())
        self._spawn(self._watch_health())

    async def reports(self, timeout: float) -> list[Event]:
        """What has happened since the last call; waits for something."""
        listener = self._listener
        if not self._reports:
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except asyncio.TimeoutError:
                return []
        if listener != self._listener:  # a poll of a scheduler that has died must not take its successor's news
            return []
        self._news.clear()
        reports, self._reports = self._reports, []
        return reports

    async def start_slice(self, spec: SliceSpec) -> None:
        """Start a slice; SliceStarted or SliceFailed is reported."""
        self._slices[spec.slice] = LiveSlice(spec)
        self._spawn(self._start(self._slices[spec.slice]))

    async def stop_slice(self, name: SliceId) -> None:
        """Stop a slice; SliceEnded is reported once all of its processes are gone."""
        live = self._slices.get(name)
        if live is None:
            self._report(SliceEnded(name, "it was not running"))
        elif not live.stopping:
            live.stopping = True
            await self._end(live, "stopped by the pool")

    async def close(self) -> None:
        """Stop every slice, then give the claimed devices back to Ray."""
        self._closing = True
        for live in list(self._slices.values()):
            live.stopping = True
            await self._end(live, "the pool stops")
        for claim in self._claims:
            await _in_thread(remove_claim, ray.util.placement_group_table(claim.group)["name"])
        self._probe.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)  # the event loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    def _report(self, event: Event) -> None:
        self._reports.append(event)
        self._news.set()

    # -- devices -----------------------------------------------------------------------------

    async def _discover(self) -> None:
        try:
            devices, self._backend_reports = await _in_thread(self._probe.discover, self._facts)
        except FlexrayError as error:
            devices, self._backend_reports = (), (BackendReport("probe", 0, str(error)),)
        lost = [d for d in self._devices.values() if d.id not in {found.id for found in devices} and d.key]
        known = [*devices, *(dataclasses.replace(d, state=DeviceState.SICK) for d in lost)]
        self._devices = {device.id: device for device in known}

    def _claims_wanted(self, resource: str) -> int:
        found = sum(1 for d in self._devices.values() if RESOURCE_OF.get(d.family) == resource and d.backend != "fake")
        return max(0, found - self._config.leave_to_ray.get(resource, 0))

    def _report_inventory(self) -> None:
        offered = tuple(self._pooled())
        inventory = Inventory(
            self._node,
            self._name,
            offered,
            MilliCpus(int(self._facts.resources.get("CPU", 0) * 1000)),
            MemoryMiB(self._facts.host_memory),
            self._backend_reports,
        )
        self._report(NodeReported(inventory))

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
            met = [claim for claim in unmet if await _in_thread(claim.group.wait, 0.05)]
            for claim, index in zip(met, await asyncio.gather(*map(_probe, met)), strict=True):
                claim.index = index
            if met:
                self._report_inventory()
            await asyncio.sleep(min(0.5, self._config.poll_seconds))

    async def _watch_health(self) -> None:
        """Report devices that fall sick or recover, and remember the slices' descendants while they can be found."""
        while not self._closing:
            await asyncio.sleep(self._config.poll_seconds)
            for live in list(self._slices.values()):
                if live.process is not None:
                    members = await _in_thread(family, live.process, live.spec.slice)
                    live.known = {process.pid: process for process in members}
            changed = False
            for device in list(self._devices.values()):
                state = await self._health(device)
                if state is not device.state:
                    self._devices[device.id] = dataclasses.replace(device, state=state)
                    changed = True
            if changed:
                self._report_inventory()

    async def _health(self, device: Device) -> DeviceState:
        if device.backend in ("cpu", "declared"):  # nothing there can tell
            return device.state
        try:
            health = await _in_thread(self._probe.health, device)
        except FlexrayError:  # the driver does not answer at all
            return DeviceState.SICK
        return DeviceState.READY if health.ok else DeviceState.SICK

    # -- slices ------------------------------------------------------------------------------

    async def _start(self, live: LiveSlice) -> None:
        spec = live.spec
        try:
            devices = tuple(self._devices[name] for name in spec.placement.devices)
            backend = BACKENDS[devices[0].backend]()
            setup = backend.isolate(devices, spec.placement.share, spec.placement.memory)
            identity = SliceIdentity(spec.slice, devices, spec.placement, setup.isolation.value, spec.environment)
            live.handle = self._slice_class.options(**self._options(spec, devices)).remote(
                identity, setup, spec.task_class.split("/")[0], spec.grace_seconds
            )
            pid, started, _ = await asyncio.wait_for(_result(live.handle.hello.remote()), spec.start_timeout)
        except Exception as error:
            await self._failed(live, error)
            return
        live.process = Process(pid, started)
        record_process(self._node, spec.slice, live.process)
        if not live.stopping:
            self._report(SliceStarted(spec.slice))
        self._spawn(self._mourn(live))

    async def _failed(self, live: LiveSlice, error: Exception) -> None:
        self._slices.pop(live.spec.slice, None)
        if live.handle is not None:
            ray.kill(live.handle)
        text = f"no answer within {live.spec.start_timeout:g} s" if isinstance(error, asyncio.TimeoutError) else error
        self._report(SliceFailed(live.spec.slice, f"the slice could not be started: {text}"))

    def _options(self, spec: SliceSpec, devices: tuple[Device, ...]) -> dict[str, Any]:
        """What a slice asks Ray for: its claim; for several devices, its node and explicit visible devices."""
        runtime_env = dict(spec.environment.runtime_env)
        resource = RESOURCE_OF.get(devices[0].family)
        claims = [self._claim_of(device) for device in devices]
        if resource is not None and len(devices) == 1 and claims[0] is not None:
            where = in_claim(claims[0])
        else:
            where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(self._node, soft=False)}
            if resource is not None and all(claims):
                visible = ",".join(claim.index or "" for claim in claims if claim is not None)
                runtime_env["env_vars"] = {**runtime_env.get("env_vars", {}), variable_of(devices[0]): visible}
        options = {**where, "name": spec.slice, "namespace": NAMESPACE}
        return {**options, "runtime_env": runtime_env} if runtime_env else options

    def _claim_of(self, device: Device) -> Claim | None:
        resource = RESOURCE_OF.get(device.family)
        names = (str(device.index), device.key)
        return next((c for c in self._claims if c.resource == resource and c.index in names), None)

    async def _mourn(self, live: LiveSlice) -> None:
        """Wait for the slice's end, whoever brings it about."""
        try:
            await live.handle.stay.remote()
        except Exception as error:
            if not live.stopping:
                live.stopping = True
                await self._end(live, f"its process died ({type(error).__name__})")

    async def _end(self, live: LiveSlice, message: str) -> None:
        """Make sure that nothing of a slice is left, then report its end with what it noted."""
        name = live.spec.slice
        while live.process is None and name in self._slices:  # still starting: its start ends first
            await asyncio.sleep(0.02)
        if name not in self._slices:
            return
        assert live.process is not None
        members = {p.pid: p for p in await _in_thread(family, live.process, name)}
        ray.kill(live.handle)
        while not await _in_thread(end_all, [*live.known.values(), *members.values()], _END_SECONDS):
            # A process that cannot be ended still uses the device: it must not be given to anybody.
            await asyncio.sleep(1.0)
        running, cause = read_notes(notes_directory(self._node) / name)
        forget_process(self._node, name)
        del self._slices[name]
        self._report(SliceEnded(name, message, running, cause))


def _facts(node: str, resources: dict[str, float], labels: dict[str, str], config: PoolConfig) -> NodeFacts:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cores = tuple(sorted(affinity(0))) if affinity else tuple(range(os.cpu_count() or 1))
    host_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    # Ray leaves the variables of a worker without devices as the raylet has them: these are the node's own masks.
    visible = masks_of(os.environ)
    return NodeFacts(node, resources, labels, cores, host_memory, 0, config.fake_devices, visible=visible)


async def _probe(claim: Claim) -> str:
    return str(await probe_index(claim))


async def _result(ref: Any) -> Any:
    return await ref


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)
