"""The scheduler actor: the shell around the pure core.

It turns messages of clients and reports of node agents into events, runs ``decide``,
and carries the commands out. One asyncio loop, so the core is never entered twice.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.views import check_invariants, snapshot
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.commands import AnswerResize, Command, ResizeSlice, StartSlice, StopSlice
from flexray.model.events import (
    DeviceUncordoned,
    Event,
    NodeLost,
    QueuesConfigured,
    SessionClosed,
    SessionOpened,
    SpeedsRestored,
)
from flexray.model.explanation import Explanation
from flexray.model.lease import LeaseId, Placement, RequestId, SessionId
from flexray.model.plan import PlanAnswer
from flexray.model.queue import Queue
from flexray.model.request import Request
from flexray.model.snapshot import Snapshot
from flexray.queue_file import parse_queues, plain_queue
from flexray.runtime import cordoning, resizing
from flexray.runtime.collector import keep_collections_short
from flexray.runtime.kept import COMPANY, CORDONS, QUEUES, SPEEDS, forget, keep, kept
from flexray.runtime.nodes import Nodes
from flexray.runtime.processes import be_spared
from flexray.runtime.protocol import Environment, SliceSpec, Versions, Welcome
from flexray.runtime.questions import Questions
from flexray.runtime.queue_admin import changed, would_do
from flexray.runtime.usage import with_usage

_POLL_SECONDS = 20.0
_SAVE_SECONDS = 5.0


class Mailbox:
    """Messages for one client that it has not acknowledged yet."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.messages: list[tuple[int, Any]] = []
        self.sent = 0
        self.news = asyncio.Event()
        self.life: Any = None

    def put(self, message: Any) -> None:
        """Add a message and wake the client's poll."""
        self.sent += 1
        self.messages.append((self.sent, message))
        self.news.set()


class SchedulerActor:
    """Detached and named; Ray restarts it when it dies."""

    def __init__(self, config: PoolConfig, address: str) -> None:
        be_spared()
        self._config = config
        self._address = address
        self._epoch = int(time.time())
        self._journal = open(config.journal, "a", buffering=1) if config.journal else None  # noqa: SIM115
        self._core = build_scheduler(config, self._epoch, self._write_journal if self._journal else None)
        self._questions = Questions(self._core, self._now)
        self._resizes = resizing.Questions(self._apply)
        self._mailboxes: dict[SessionId, Mailbox] = {}
        self._environments: dict[str, Environment] = {}
        self._nodes = Nodes(config, self._apply, self._node_gone)
        self._wake = asyncio.Event()
        self._saved, self._saved_at = 0, time.monotonic()
        self._closing = False
        self._restore_speeds()
        self._queues = self._restore_queues()
        self._kept_cordons = self._restore_cordons()
        self._tasks: list[asyncio.Task[None]] = []
        keep_collections_short()

    async def open(self) -> int:
        """Start watching nodes and running cycles; returns the epoch. Safe to call again."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._nodes.watch()), asyncio.create_task(self._cycle())]
        return self._epoch

    async def ready(self, timeout: float) -> bool:
        """Wait until every node that is there now has reported its devices."""
        return await self._nodes.wait_reported(timeout)

    async def welcome(self) -> Welcome:
        """What a client compares itself with before it joins."""
        await self.open()
        return Welcome(self._epoch, Versions.here(ray.__version__), self._config.model_dump(), self._address)

    # -- clients -------------------------------------------------------------------------------

    async def join(self, session: SessionId, environment: Environment) -> int:
        """Open a session. Returns the epoch its messages must carry.

        A client that joins again has forgotten what it had, so that is taken back first.
        """
        await self.open()  # a client that was there before this incarnation joins without a welcome
        await self.leave(session)
        self._environments[environment.id] = environment
        self._mailboxes[session] = Mailbox(environment)
        self._apply(SessionOpened(session, environment.id))
        return self._epoch

    async def hold(self, session: SessionId) -> None:
        """Never returns while the session lives. The client owns the returned reference and hands it to ``watch``."""
        mailbox = self._mailboxes.get(session)
        while mailbox is not None and self._mailboxes.get(session) is mailbox:
            await asyncio.sleep(3600)

    async def watch(self, session: SessionId, life: list[Any]) -> None:
        """Notice the client's death: a reference it owns and that is never ready fails when its owner dies."""
        mailbox = self._mailboxes.get(session)
        if mailbox is not None and mailbox.life is None:
            mailbox.life = asyncio.create_task(self._mourn(session, life[0]))

    async def _mourn(self, session: SessionId, life: Any) -> None:
        try:
            await life
        except Exception:  # OwnerDied, or whatever else Ray says of a reference whose owner is gone
            await self.leave(session)

    async def leave(self, session: SessionId) -> None:
        """Close a session: its requests end, its slices are stopped."""
        mailbox = self._mailboxes.pop(session, None)
        if mailbox is None:
            return
        mailbox.news.set()
        self._apply(SessionClosed(session))
        if not any(m.environment.id == mailbox.environment.id for m in self._mailboxes.values()):
            self._environments.pop(mailbox.environment.id, None)

    async def tell(self, session: SessionId, epoch: int, events: list[Event]) -> bool:
        """Events of a client. False tells it that this scheduler does not know the session: it has to join again."""
        if epoch != self._epoch or session not in self._mailboxes:
            return False
        for event in events:
            if _concerns(event, session):
                self._apply(event)
        return True

    async def poll(self, session: SessionId, epoch: int, seen: int) -> list[tuple[int, Any]] | None:
        """Messages for a client after number ``seen``; waits for some. None: join again."""
        mailbox = self._mailboxes.get(session)
        if epoch != self._epoch or mailbox is None:
            return None
        mailbox.messages = [(number, message) for number, message in mailbox.messages if number > seen]
        if not mailbox.messages:
            mailbox.news.clear()
            try:
                await asyncio.wait_for(mailbox.news.wait(), _POLL_SECONDS)
            except asyncio.TimeoutError:
                return []
        return None if session not in self._mailboxes else list(mailbox.messages)

    async def resize(
        self, epoch: int, lease: LeaseId, share: Share | None, memory: MemoryMiB | None
    ) -> tuple[Placement | None, str]:
        """Give the slice under a lease another size: what it has then, or why not."""
        if epoch != self._epoch:
            return None, f"{lease} was granted before the scheduler was restarted"
        return await self._resizes.ask(lease, share, memory)

    # -- people --------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """The pool now."""
        return with_usage(snapshot(self._core.state, self._now(), self._epoch), self._nodes.usage)

    async def explain(self, request: RequestId) -> Explanation | None:
        """Where a request is and why, or how it ended; None for one that is not known (any more)."""
        return await self._questions.explain(request)

    async def plan(self, request: Request) -> PlanAnswer:
        """When and where a request would start."""
        return await self._questions.plan(request)

    async def check(self) -> None:
        """Raise InternalError unless the books equal the sum of the slices."""
        check_invariants(self._core.state)

    async def close(self) -> None:
        """Stop every slice, give every device back to Ray, forget the nodes, and the queues and cordons that were set.

        What was learnt of run times stays for the next pool of this cluster.
        """
        self._closing = True
        for session in list(self._mailboxes):
            await self.leave(session)
        await self._nodes.close()
        forget(QUEUES)
        forget(CORDONS)

    # -- nodes ---------------------------------------------------------------------------------

    def _node_gone(self, node: str) -> None:
        self._apply(NodeLost(node))

    # -- the core ------------------------------------------------------------------------------

    @staticmethod
    def _now() -> float:
        return time.time()

    def _apply(self, event: Event) -> None:
        self._core.apply(event, self._now())
        self._wake.set()

    async def _cycle(self) -> None:
        """Decide whenever something happened, and once a second for what only time changes."""
        while not self._closing:
            try:
                await asyncio.wait_for(self._wake.wait(), 1.0)
            except asyncio.TimeoutError:
                pass
            self._wake.clear()
            for command in self._core.decide(self._now()):
                self._carry_out(command)
            self._save_speeds()
            self._save_cordons()

    async def queues(self) -> list[dict[str, Any]]:
        """The queues as they were configured."""
        return [plain_queue(queue) for queue in self._queues]

    async def change_queues(self, change: dict[str, Any], dry_run: bool) -> list[str]:
        """Change queues (see ``queue_admin.changed``). Returns warnings, or what a dry run would do."""
        queues = changed(self._queues, change)
        if dry_run:
            return would_do(self._core, queues, self._now())
        self._queues = queues
        keep(QUEUES, [(plain_queue(queue),) for queue in queues])
        self._apply(QueuesConfigured(queues))
        return [f"warning: {warning}" for warning in self._core.state.sharing.warnings]

    def _restore_queues(self) -> tuple[Queue, ...]:
        """Those that were set while an earlier incarnation ran, else those of the configuration."""
        own = [row[0] for row in kept(QUEUES)]
        queues = parse_queues({"queues": own or self._config.queues})
        if queues:
            self._apply(QueuesConfigured(queues))
        return queues

    async def change_cordons(self, change: dict[str, Any]) -> list[str]:
        """Cordon or uncordon devices (see ``cordoning.asked``). Returns their ids."""
        events = cordoning.asked(change, self._core.state.pool.nodes, self._core.state.cordons.by_device)
        for event in events:
            self._apply(event)
        self._save_cordons()
        return [event.device if isinstance(event, DeviceUncordoned) else event.cordon.device for event in events]

    def _restore_cordons(self) -> list[tuple[Any, ...]]:
        for event in cordoning.from_rows(kept(CORDONS)):
            self._apply(event)
        return cordoning.rows(self._core.state.cordons.by_device)

    def _save_cordons(self) -> None:
        """Also when one has followed its device to another id."""
        rows = cordoning.rows(self._core.state.cordons.by_device)
        if rows != self._kept_cordons and not self._closing:
            keep(CORDONS, rows)
            self._kept_cordons = rows

    def _restore_speeds(self) -> None:
        """What an earlier incarnation learnt of run times is kept in Ray's own key-value store."""
        speeds = tuple((c, t, w, m) for c, t, w, m in kept(SPEEDS))
        company = tuple((c, t, b, x, y, z) for c, t, b, x, y, z in kept(COMPANY))
        if speeds:
            self._apply(SpeedsRestored(speeds, company))

    def _save_speeds(self) -> None:
        pool = self._core.state.pool
        if pool.speeds.observations != self._saved and time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            keep(SPEEDS, pool.speeds.rows())
            keep(COMPANY, pool.company.rows())
            self._saved, self._saved_at = pool.speeds.observations, time.monotonic()

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, StartSlice):
            self._start_slice(command)
        elif isinstance(command, StopSlice):
            self._nodes.stop_slice(command.node, command.slice)
        elif isinstance(command, ResizeSlice):
            self._nodes.resize_slice(command.placement.node, command.slice, command.placement)
        else:
            self._send(command.session, command)
            if isinstance(command, AnswerResize):
                self._resizes.answered(command)

    def _start_slice(self, command: StartSlice) -> None:
        record = self._core.state.slices.by_id[command.slice]
        spec = SliceSpec(
            command.slice,
            command.placement,
            self._environments[command.environment],
            record.task_class,
            self._config.start_timeout_seconds,
            self._config.grace_seconds,
            record.host[1],
        )
        self._nodes.start_slice(command.placement.node, spec)

    def _send(self, session: SessionId, message: Any) -> None:
        mailbox = self._mailboxes.get(session)
        if mailbox is not None:
            mailbox.put(message)

    def _write_journal(self, line: str) -> None:
        assert self._journal is not None
        self._journal.write(line + "\n")


def _concerns(event: Event, session: SessionId) -> bool:
    """A session speaks of its own requests and leases only; their ids begin with its name."""
    name = getattr(event, "id", None) or getattr(event, "lease", ("",))[0]
    own = str(name).startswith(f"{session}.")
    # A blocked wait is reported by the session inside the slice, about the lease it runs under.
    return own or getattr(event, "session", None) == session or type(event).__name__ == "LeaseUnblocked"
