"""What the scheduler actor does: the shell around the pure core.

It turns messages of clients and reports of node agents into events, runs ``decide``,
and carries the commands out. One asyncio loop, so the core is never entered twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import time
from collections import Counter
from typing import Any, TextIO

import ray

from flexray.accounting.advice import Advice
from flexray.accounting.report import UsageTable
from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.scaling import Bundle
from flexray.core.views import check_invariants, snapshot
from flexray.devices.private import only_mine
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.commands import AnswerResize, Command, GrantLease, ResizeSlice, StartSlice, StopSlice
from flexray.model.events import DeviceUncordoned, Event, NodeLost, RecoveryBegan, RecoveryEnded
from flexray.model.explanation import Explanation, StartEstimate
from flexray.model.happening import Happenings
from flexray.model.holding import Holding
from flexray.model.lease import LeaseId, Placement, RequestId, SessionId
from flexray.model.plan import PlanAnswer
from flexray.model.request import Request
from flexray.model.snapshot import Snapshot
from flexray.queue_file import plain_queue
from flexray.runtime import cordoning, resizing
from flexray.runtime.accounts import Accounts
from flexray.runtime.agent_link import Outdated, step_down
from flexray.runtime.clients import Clients
from flexray.runtime.collector import keep_collections_short
from flexray.runtime.demand import Demand
from flexray.runtime.kept import Kept, RayKeyValues
from flexray.runtime.metering import Metering
from flexray.runtime.nodes import Nodes
from flexray.runtime.processes import be_spared
from flexray.runtime.protocol import (
    NAMESPACE,
    Environment,
    Granted,
    JoinAgain,
    SliceSpec,
    Ticket,
    Token,
    Versions,
    Welcome,
    agent_name,
)
from flexray.runtime.questions import Questions
from flexray.runtime.queue_admin import changed, would_do
from flexray.runtime.recent import Recent
from flexray.runtime.saved import Saved
from flexray.runtime.scaling import Scaler
from flexray.runtime.seals import Seals
from flexray.runtime.usage import UsageReport, with_usage
from flexray.runtime.window import Window
from flexray.telemetry.observer import Observer

_LISTED = 1000
"""Requests in line that a snapshot lists; the others are counted (docs/operations.md)."""

_log = logging.getLogger("flexray")


class SchedulerShell:
    """Made once by each incarnation of the scheduler actor (``scheduler_actor.py``), in its event loop."""

    def __init__(self, config: PoolConfig, address: str, telemetry: dict[str, str] | None = None) -> None:
        be_spared()
        self._telemetry = telemetry or {}
        os.environ.update(self._telemetry)
        self._config = config
        self._address = address
        self._kept = Kept(RayKeyValues())
        traces = _traces()
        self._epoch = self._kept.next_epoch(traces)
        self._journal = _open_journal(config.journal) if config.journal else None
        self._core = build_scheduler(config, self._epoch, self._write_journal if self._journal else None)
        self._accounts = Accounts(self._kept, config, self._now())
        self._recent = Recent(self._epoch)
        self._observers: list[Observer] = [self._accounts, self._recent]
        self._metering = Metering(self._observers, lambda: self._shot(0))
        self._questions = Questions(self._core, self._now)
        self._resizes = resizing.Questions(self._apply)
        self._seals = Seals(self._kept.secret())
        self._clients = Clients(
            self._epoch, self._apply, self._session_changed, self._runs_under, config.client_timeout_seconds
        )
        self._nodes = Nodes(config, self._epoch, self._apply, self._node_gone, self._outdated, self._measured)
        scaling = config.scaling
        self._scaler = Scaler(scaling, self._core.state, self._nodes, self._apply) if scaling is not None else None
        self._wake = asyncio.Event()
        self._closing = False
        self._saved = Saved(self._kept, self._core, self._apply, config)
        sessions = [SessionId(name) for name in self._kept.sessions()]
        self._window = Window(sessions, time.monotonic(), config.rejoin_seconds)
        self._window.open = bool(sessions or traces)
        if self._window.open:
            self._apply(RecoveryBegan())
        self._tasks: list[asyncio.Task[None]] = []
        keep_collections_short()

    async def open(self) -> int:
        """Start watching nodes and running cycles; returns the epoch. Safe to call again."""
        if not self._tasks:
            loops = [self._nodes.watch(), self._cycle(), self._metering.run()]
            if self._scaler is not None:
                loops.append(self._scale(self._scaler))
            self._tasks = [asyncio.create_task(loop) for loop in loops]
        return self._epoch

    async def ready(self, timeout: float) -> str:
        """Wait until every node that is there now has reported its devices: "", or what is in the way."""
        await self.open()
        return await self._nodes.wait_reported(timeout)

    async def welcome(self) -> Welcome:
        """What a client compares itself with before it joins."""
        await self.open()
        return Welcome(self._epoch, Versions.here(ray.__version__), self._config.model_dump(), self._address)

    # -- clients -------------------------------------------------------------------------------

    async def join(self, ticket: Ticket, environment: Environment, first: int, events: list[Event]) -> int | JoinAgain:
        """Begin a conversation (see ``Conversations.join``)."""
        await self.open()  # a client that was there before this incarnation joins without a welcome
        return self._clients.join(ticket, environment, first, events)

    async def tell(self, ticket: Ticket, first: int, events: list[Event]) -> int | JoinAgain:
        """Events of a client (see ``Conversations.tell``)."""
        await self.open()
        return await self._clients.tell(ticket, first, events)

    async def poll(self, ticket: Ticket, seen: int) -> tuple[int, list[Any]] | JoinAgain:
        """Messages for a client after number ``seen``; waits for some."""
        await self.open()
        return await self._clients.poll(ticket, seen)

    async def hold(self, ticket: Ticket) -> None:
        """Never returns while the session lives (see ``Clients.hold``)."""
        await self._clients.hold(ticket)

    async def watch(self, ticket: Ticket, life: list[Any]) -> None:
        """Notice the client's death by a reference it owns, in a list so that Ray does not wait for it."""
        self._clients.watch(ticket, life[0])

    async def leave(self, ticket: Ticket) -> None:
        """Close a session: its requests end, its slices are stopped."""
        self._clients.leave(ticket)

    def _session_changed(self, session: SessionId, opened: bool) -> None:
        self._window.has_spoken(session)
        if opened:
            self._kept.session_opened(session)
        else:
            self._kept.session_closed(session)

    def _runs_under(self, ticket: Ticket, lease: LeaseId) -> bool:
        inside, request = ticket.inside, self._core.state.holder(lease)
        there = inside is not None and request is not None and request.slice == inside.slice
        return inside is not None and there and self._seals.is_inside(ticket.session, inside)

    async def resize(self, token: Token, share: Share | None, memory: MemoryMiB | None) -> tuple[Placement | None, str]:
        """Give the slice under a lease another size: what it has then, or why not."""
        request = self._core.state.holder(token.lease)
        if request is not None and not (request.slice and self._seals.fits(request.slice, token)):
            return None, f"{token.lease} is not this session's lease"
        return await self._resizes.ask(token.lease, share, memory)

    # -- people --------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """The pool now."""
        waits = [self._window.describe(time.monotonic())] if self._window.open else []
        scaling = self._scaler.notes if self._scaler is not None else []
        notes = (*waits, *self._kept.notes, *self._accounts.notes, *self._metering.notes, *scaling)
        return dataclasses.replace(self._accounts.with_owners(self._shot(_LISTED)), notes=notes)

    def _shot(self, listed: int) -> Snapshot:
        return with_usage(snapshot(self._core.state, self._now(), self._epoch, listed), self._nodes.usage)

    async def explain(self, request: RequestId) -> Explanation | None:
        """Where a request is and why, or how it ended; None for one that is not known (any more)."""
        return await self._questions.explain(request)

    async def starts(self, requests: list[RequestId]) -> dict[RequestId, StartEstimate]:
        """When waiting requests are expected to start (see ``Questions.starts``)."""
        return await self._questions.starts(requests)

    async def plan(self, request: Request) -> PlanAnswer:
        """When and where a request would start."""
        return await self._questions.plan(request)

    async def history(self, since: float) -> tuple[Holding, ...]:
        """The latest leases that are over (see ``Accounts.history``)."""
        return self._accounts.history(since)

    async def happenings(self, epoch: int, after: int) -> Happenings:
        """What has happened lately (see ``Recent.after``)."""
        return self._recent.after(epoch, after)

    async def usage(self, by: list[str], since: float) -> UsageTable:
        """What was held and used (see ``Accounts.usage``)."""
        older = await asyncio.to_thread(self._accounts.read_older, since, self._now())
        return self._accounts.usage(by, since, self._now(), older)

    async def advice(self) -> tuple[Advice, ...]:
        """What task classes should ask for."""
        return self._accounts.advice(self._core.state.pool.speeds.rows())

    async def queues(self) -> list[dict[str, Any]]:
        """The queues as they were configured."""
        return [plain_queue(queue) for queue in self._saved.queues]

    async def change_queues(self, change: dict[str, Any], dry_run: bool) -> list[str]:
        """Change queues (see ``queue_admin.changed``). Returns warnings, or what a dry run would do."""
        queues = changed(self._saved.queues, change)
        if dry_run:
            return would_do(self._core, queues, self._now())
        self._saved.set_queues(queues)
        return [f"warning: {warning}" for warning in self._core.state.sharing.warnings]

    async def change_cordons(self, change: dict[str, Any]) -> list[str]:
        """Cordon or uncordon devices (see ``cordoning.asked``). Returns their ids."""
        events = cordoning.asked(change, self._core.state.pool.nodes, self._core.state.cordons.by_device)
        for event in events:
            self._apply(event)
        self._saved.save_cordons()
        return [event.device if isinstance(event, DeviceUncordoned) else event.cordon.device for event in events]

    async def check(self) -> None:
        """Raise InternalError unless the books equal the sum of the slices."""
        check_invariants(self._core.state)

    async def close(self) -> None:
        """Stop every slice, give every device back to Ray, forget the nodes, and the queues and cordons that were set.

        What was learnt of run times stays for the next pool of this cluster.
        """
        self._closing = True
        self._clients.leave_all()
        self._accounts.save(self._now())
        await self._nodes.close()
        await self._metering.close()
        self._saved.forget()
        for name in self._kept.sessions():
            self._kept.session_closed(name)

    # -- nodes ---------------------------------------------------------------------------------

    def _measured(self, node: str, report: UsageReport) -> None:
        self._accounts.measured(node, report, self._now())

    def _node_gone(self, node: str) -> None:
        self._accounts.measured(node, UsageReport(()), self._now())
        self._apply(NodeLost(node))

    async def _scale(self, scaler: Scaler) -> None:
        """Keep the demand for nodes as it is, and give back those that are idle, until closed."""
        demand, loop = Demand(), asyncio.get_running_loop()
        while True:
            wanted = Counter[Bundle]() if self._closing else scaler.look()
            try:
                for bundle, node in await loop.run_in_executor(None, demand.publish, wanted, self._nodes.reported):
                    scaler.came(bundle, node)
            except (ray.exceptions.RayError, ValueError) as error:  # the GCS is away, or it takes no such labels
                _log.warning("flexray: the demand for nodes could not be published: %s", error)
            if self._closing:
                return
            await asyncio.sleep(self._config.poll_seconds)

    def _outdated(self, reason: Outdated) -> None:
        self._kept.raise_epoch(max(reason.epoch, self._epoch))
        step_down(reason)

    # -- the core ------------------------------------------------------------------------------

    @staticmethod
    def _now() -> float:
        return time.time()

    def _apply(self, event: Event) -> None:
        now = self._now()
        for observer in self._observers:
            observer.saw(event, now)
        self._core.apply(event, now)
        self._metering.woken()
        self._wake.set()

    async def _cycle(self) -> None:
        """Decide whenever something happened, and once a second for what only time changes."""
        while not self._closing:
            try:
                await asyncio.wait_for(self._wake.wait(), 1.0)
            except asyncio.TimeoutError:
                pass
            self._wake.clear()
            self._look_who_is_there()
            now = self._now()
            began = self._metering.cycle_began()
            commands = self._core.decide(now)
            self._metering.cycle_ended(began)
            for observer in self._observers:
                observer.decided(commands, now)
            for command in commands:
                self._carry_out(command)
            if not self._closing:
                self._saved.save_now_and_then(self._now())
                self._accounts.save_now_and_then(self._now())

    def _look_who_is_there(self) -> None:
        """End the time for those who were there before, and sessions of clients that have fallen silent."""
        self._clients.leave_silent()
        if self._window.closes(self._nodes.all_reported, time.monotonic()):
            for session in self._window.missing:
                self._kept.session_closed(session)
            self._apply(RecoveryEnded())

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, StartSlice):
            self._start_slice(command)
        elif isinstance(command, StopSlice):
            self._nodes.stop_slice(command)
        elif isinstance(command, ResizeSlice):
            self._nodes.resize_slice(command)
        elif isinstance(command, GrantLease):
            lease = command.lease
            seal = self._seals.of(lease.slice, self._epoch, lease.grant, lease.lease)
            self._clients.put(command.session, Granted(command, seal))
        else:
            self._clients.put(command.session, command)
            if isinstance(command, AnswerResize):
                self._resizes.answered(command)

    def _start_slice(self, command: StartSlice) -> None:
        record = self._core.state.slices.by_id[command.slice]
        spec = SliceSpec(
            command.slice,
            command.placement,
            self._clients.environments[command.environment],
            record.task_class,
            self._config.start_timeout_seconds,
            self._config.grace_seconds,
            record.reusable,
            record.host,
            self._seals.key_of(command.slice),
            self._telemetry,
        )
        self._nodes.start_slice(command.placement.node, spec)

    def _write_journal(self, line: str) -> None:
        assert self._journal is not None
        self._journal.write(line + "\n")


def _open_journal(path: str) -> TextIO:
    """It names requests and sessions, which are not everybody's to read."""
    return open(path, "a", buffering=1, opener=only_mine)


def _traces() -> list[int]:
    """Epochs of earlier schedulers of which something is there: 0 for a node's agent, and those in names of slices."""
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE]
    slices = [int(found[1]) for name in names if (found := re.fullmatch(r"s(\d+)\.\d+", name))]
    return slices + [0] * any(name.startswith(agent_name("")) for name in names)
