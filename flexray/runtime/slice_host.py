"""The slices of one node: started in their part of a device, watched, and ended with everything they started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import ray

from flexray.devices.enforcement import Enforcement
from flexray.devices.enforcers.enforcer import Cell, SliceSetup, Usage
from flexray.model.amounts import Share
from flexray.model.devices import Device
from flexray.model.events import (
    Event,
    ResizeRefused,
    SliceEnded,
    SliceFailed,
    SliceFound,
    SliceResized,
    SliceStarted,
)
from flexray.model.lease import Placement, SliceId
from flexray.model.lifecycle import SliceState
from flexray.runtime.environment import with_variables
from flexray.runtime.last_words import last_words, words_of
from flexray.runtime.leftovers import forget_process, record_process
from flexray.runtime.memory_watch import Overrun, on_host, own_memory
from flexray.runtime.notes import notes_directory, read_notes
from flexray.runtime.processes import Process, end_all, family
from flexray.runtime.protocol import NAMESPACE, SliceIdentity, SliceSpec
from flexray.runtime.resizing import change_size
from flexray.runtime.slice_actor import make_slice_class

END_SECONDS = 10.0
"""Seconds that killed processes have to be gone, before that is tried again."""


@dataclass(slots=True)
class LiveSlice:
    """A slice of this node.

    Attributes:
        placement: what it has; that of ``spec`` until it gets another size.
        process: None until it answered.
        known: its processes when they were last looked for.
        cell: what it holds; None until its part was asked for.
        group: file of a cgroup that lists its processes, or "".
        base: bytes of memory that its bare process had.
    """

    spec: SliceSpec
    placement: Placement
    handle: Any = None
    process: Process | None = None
    known: dict[int, Process] = field(default_factory=dict)
    cell: Cell | None = None
    group: str = ""
    base: int = 0
    stopping: bool = False
    overrun: Overrun | None = None
    #: the size that it is getting, while it is.
    resizing: Placement | None = None

    @property
    def members(self) -> list[int]:
        """Its processes, as far as they are known: all of them where a cgroup holds it."""
        own = [] if self.process is None else [self.process.pid]
        if self.group:
            try:
                return own + [pid for pid in map(int, Path(self.group).read_text().split()) if pid not in own]
            except (OSError, ValueError):
                pass
        return list(dict.fromkeys([*own, *self.known]))

    @property
    def host_memory(self) -> int:
        """MiB of host memory that are booked for it beside its device."""
        return self.spec.host[1]

    @property
    def name(self) -> SliceId:
        """Its id."""
        return self.spec.slice

    def ended_by_kernel(self, enforcement: Enforcement) -> Overrun | None:
        """Whether the kernel ended it for its memory. It used all that it holds then; what more it wanted nobody knows.

        Ask before what was made for it is released.
        """
        if self.cell is None or not on_host(self.cell) or not enforcement.usage(self.name, ()).out_of_memory:
            return None
        limit = self.cell.memory * len(self.cell.devices)
        return Overrun(limit, limit)

    def found(self) -> SliceFound:
        """What a scheduler has to know of it that has not started it."""
        place, spec = self.placement, self.spec
        if self.resizing is not None:  # the larger of both, until it is over
            share, memory = max(place.share, self.resizing.share), max(place.memory, self.resizing.memory)
            place = replace(self.resizing, share=share, memory=memory)
        running = SliceState.STARTING if self.process is None else SliceState.IDLE
        return SliceFound(
            spec.slice,
            place,
            spec.environment.id,
            spec.task_class,
            spec.reusable,
            spec.host,
            SliceState.STOPPING if self.stopping else running,
            resized=place != spec.placement,
        )

    def usage(self, enforcement: Enforcement) -> Usage:
        """What it uses now; memory by what its limit counts."""
        members = self.members
        usage = enforcement.usage(self.name, members)
        if self.cell is not None and on_host(self.cell):
            usage = replace(usage, memory=max(0, sum(map(own_memory, members)) - self.base) >> 20)
        return usage


class Node(Protocol):
    """What a slice host needs of the agent it belongs to."""

    def device(self, name: str) -> Device:
        """The device of that id. Raises KeyError."""

    def actor_options(self, devices: tuple[Device, ...], runtime_env: dict[str, Any]) -> dict[str, Any]:
        """What a slice on these devices asks Ray for."""

    def report(self, event: Event) -> None:
        """Tell the scheduler."""

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run beside everything else."""


class SliceHost:
    """Starts and ends the slices of a node; reports SliceStarted, SliceFailed, SliceEnded."""

    def __init__(self, name: str, node: Node, enforcement: Enforcement) -> None:
        self._name = name
        self._node = node
        self._enforcement = enforcement
        self._class = make_slice_class()
        self.live: dict[SliceId, LiveSlice] = {}

    def start(self, spec: SliceSpec) -> None:
        """Start a slice; SliceStarted or SliceFailed is reported."""
        if spec.slice in self.live:  # repeated
            return
        live = self.live[spec.slice] = LiveSlice(spec, spec.placement)
        self._node.spawn(self._start(live))

    async def stop(self, name: SliceId, why: str = "stopped by the pool") -> None:
        """Stop a slice; SliceEnded is reported once all of its processes are gone."""
        live = self.live.get(name)
        if live is None:
            self._node.report(SliceEnded(name, "it was not running"))
        elif not live.stopping:
            live.stopping = True
            await self._end(live, why)

    def resize(self, name: SliceId, placement: Placement) -> None:
        """Give a slice another size; SliceResized or ResizeRefused is reported."""
        self._node.spawn(self._resize(name, placement))

    async def _resize(self, name: SliceId, placement: Placement) -> None:
        live = self.live.get(name)
        if live is None:
            self._node.report(ResizeRefused(name, "it does not run any more"))
            return
        live.resizing = placement
        try:
            await change_size(live, placement, self._enforcement)
            live.placement = placement
            answer: Event = SliceResized(name)
        except Exception as error:
            answer = ResizeRefused(name, str(error))
        live.resizing = None
        self._node.report(answer)
        if name in self.live:  # for a scheduler that has been started meanwhile, and knows of no change
            self._node.report(live.found())

    async def stop_all(self, why: str) -> None:
        """Stop every slice, and wait until none is left, also of those that were being stopped already."""
        await asyncio.gather(*(self.stop(name, why) for name in list(self.live)))
        while self.live:
            await asyncio.sleep(0.02)

    def running(self) -> list[LiveSlice]:
        """Slices whose process has answered and is not being ended."""
        return [live for live in self.live.values() if live.process is not None and not live.stopping]

    def on_device(self, device: str) -> bool:
        """Whether a slice is on a device, one that starts or is being ended too."""
        return any(device in live.spec.placement.devices for live in list(self.live.values()))

    def pids(self) -> set[int]:
        """The processes of all slices, as far as they are known."""
        return {pid for live in list(self.live.values()) for pid in live.members}

    def ran_over(self, live: LiveSlice, overrun: Overrun) -> None:
        """A slice uses more memory than it holds: end it, and nothing else."""
        if not live.stopping:
            live.stopping, live.overrun = True, overrun
            self._node.spawn(self._end(live, overrun.describe()))

    async def remember_families(self) -> None:
        """Note the slices' descendants while they can be found."""
        for live in list(self.live.values()):
            if live.process is not None:
                members = await in_thread(family, live.process, live.spec.slice)
                live.known = {process.pid: process for process in members}

    async def _start(self, live: LiveSlice) -> None:
        spec = live.spec
        try:
            devices = tuple(map(self._node.device, spec.placement.devices))
            live.cell = cell_of(spec, devices)
            setup = await in_thread(self._enforcement.prepare, live.cell)
            live.group = setup.join[-1] if setup.join else ""
            options = self._node.actor_options(devices, with_variables(spec.environment.runtime_env, setup.launch))
            live.handle = self._launch(spec, devices, setup, options)
            pid, started, _ = await asyncio.wait_for(_result(live.handle.hello.remote()), spec.start_timeout)
        except Exception as error:
            await self._failed(live, error)
            return
        live.base = own_memory(pid)
        live.process = Process(pid, started)
        record_process(self._name, spec.slice, live.process)
        if not live.stopping:
            self._node.report(SliceStarted(spec.slice))
        self._node.spawn(self._mourn(live))

    def _launch(self, spec: SliceSpec, devices: tuple[Device, ...], setup: SliceSetup, options: dict[str, Any]) -> Any:
        place, environment = spec.placement, spec.environment
        identity = SliceIdentity(spec.slice, devices, place, setup.isolation, environment, setup.notes, spec.key)
        named = {**options, "name": spec.slice, "namespace": NAMESPACE}
        return self._class.options(**named).remote(
            identity, setup, spec.task_class.split("/")[0], spec.grace_seconds, spec.telemetry
        )

    async def _failed(self, live: LiveSlice, error: Exception) -> None:
        if live.handle is not None:
            ray.kill(live.handle)
        overrun = await in_thread(live.ended_by_kernel, self._enforcement)
        await in_thread(self._enforcement.release, live.spec.slice)
        self.live.pop(live.spec.slice, None)
        text = f"no answer within {live.spec.start_timeout:g} s" if isinstance(error, asyncio.TimeoutError) else error
        if overrun is not None:
            text = f"{overrun.describe()}, too little to start with"
        self._node.report(SliceFailed(live.spec.slice, f"the slice could not be started: {text}"))

    async def _mourn(self, live: LiveSlice) -> None:
        """Wait for the slice's end, whoever brings it about."""
        try:
            await live.handle.stay.remote()  # unbounded: the life of the slice
        except Exception as error:
            if not live.stopping:
                live.stopping = True
                live.overrun = overrun = await in_thread(live.ended_by_kernel, self._enforcement)
                if overrun is None:
                    await self._end(live, "", error)
                else:
                    await self._end(live, overrun.describe())

    async def _end(self, live: LiveSlice, message: str, died: Exception | None = None) -> None:
        """Make sure that nothing of a slice is left, then report its end with what it noted.

        Args:
            died: what Ray says of its process, which ended without being asked to.
        """
        name = live.spec.slice
        while live.process is None and name in self.live:  # still starting: its start ends first
            await asyncio.sleep(0.02)
        if name not in self.live:
            return
        assert live.process is not None
        members = {p.pid: p for p in await in_thread(family, live.process, name)}
        ray.kill(live.handle)
        while not await in_thread(end_all, [*live.known.values(), *members.values()], END_SECONDS):
            # A process that cannot be ended still uses the device: it must not be given to anybody.
            await asyncio.sleep(1.0)
        await in_thread(self._enforcement.release, name)
        directory = notes_directory(self._name)
        running, cause = read_notes(directory / name)
        words = words_of(directory, name)
        if died is not None and not cause:
            message, cause = last_words(words, died), "died"
        words.unlink(missing_ok=True)
        forget_process(self._name, name)
        del self.live[name]
        over = None
        if live.overrun is not None:
            over, cause = (live.overrun.used, live.overrun.limit), live.overrun.cause
        self._node.report(SliceEnded(name, message or f"it ended itself ({cause})", running, cause, over))


def cell_of(spec: SliceSpec, devices: tuple[Device, ...]) -> Cell:
    """What is to be held to what."""
    place = spec.placement
    profile = next((one for one in devices[0].profiles if one.name == place.profile), None) if devices else None
    burst = Share(max(place.share, place.burst))
    return Cell(spec.slice, devices, place.share, burst, place.memory, profile, place.start)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run what may take a while beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def _result(ref: Any) -> Any:
    return await ref  # unbounded: who calls it sets the limit
