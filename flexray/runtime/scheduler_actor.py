"""The scheduler actor: the shell around the pure core.

It turns messages of clients and reports of node agents into events, runs ``decide``,
and carries the commands out. One asyncio loop, so the core is never entered twice.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, TextIO

import ray

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.views import check_invariants, snapshot
from flexray.devices.private import only_mine
from flexray.errors import UsageError
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.commands import AnswerResize, Command, GrantLease, ResizeSlice, StartSlice, StopSlice
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
from flexray.model.lease import LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.plan import PlanAnswer
from flexray.model.queue import Queue
from flexray.model.request import Request
from flexray.model.snapshot import Snapshot
from flexray.queue_file import parse_queues, plain_queue
from flexray.runtime import cordoning, resizing
from flexray.runtime.collector import keep_collections_short
from flexray.runtime.kept import COMPANY, CORDONS, QUEUES, SPEEDS, forget, keep, kept
from flexray.runtime.mailboxes import Mailboxes
from flexray.runtime.nodes import Nodes
from flexray.runtime.protocol import Caller, Environment, Granted, Inside, SliceSpec, Token, Versions, Welcome
from flexray.runtime.questions import Questions
from flexray.runtime.queue_admin import changed, would_do
from flexray.runtime.rights import allowed
from flexray.runtime.seals import Seals
from flexray.runtime.usage import with_usage

_POLL_SECONDS = 20.0
_SAVE_SECONDS = 5.0
_AT_ONCE = 200
"""Events of one message that are taken in before somebody else is heard."""
_LISTED = 1000
"""Requests in line that a snapshot lists; the others are counted (docs/operations.md)."""


class SchedulerActor:
    """Detached and named; Ray restarts it when it dies."""

    def __init__(self, config: PoolConfig, address: str) -> None:
        self._config = config
        self._address = address
        self._epoch = int(time.time())
        self._journal = _open_journal(config.journal) if config.journal else None
        self._core = build_scheduler(config, self._epoch, self._write_journal if self._journal else None)
        self._questions = Questions(self._core, self._now)
        self._resizes = resizing.Questions(self._apply)
        self._mailboxes = Mailboxes()
        self._seals = Seals()
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

    async def ready(self, timeout: float) -> str:
        """Wait until every node that is there now has reported its devices: "", or what is in the way."""
        return await self._nodes.wait_reported(timeout)

    async def welcome(self) -> Welcome:
        """What a client compares itself with before it joins."""
        await self.open()
        return Welcome(self._epoch, Versions.here(ray.__version__), self._config.model_dump(), self._address)

    # -- clients -------------------------------------------------------------------------------

    async def join(self, caller: Caller, environment: Environment, inside: Inside | None) -> int:
        """Open a session. Returns the epoch its messages must carry.

        A client that joins again has forgotten what it had, so that is taken back first.
        """
        await self.open()  # a client that was there before this incarnation joins without a welcome
        if caller.session in self._mailboxes.by_session and self._mailboxes.of(caller) is None:
            raise UsageError(f"session {caller.session} is another client's")
        self._end_session(caller.session)
        known = inside is not None and self._seals.is_inside(caller.session, inside)
        self._mailboxes.open(caller, environment, inside.slice if inside is not None and known else None)
        self._apply(SessionOpened(caller.session, environment.id))
        return self._epoch

    async def hold(self, caller: Caller) -> None:
        """Never returns while the session lives. The client owns the returned reference and hands it to ``watch``."""
        mailbox = self._mailboxes.of(caller)
        while mailbox is not None and self._mailboxes.of(caller) is mailbox:
            await asyncio.sleep(3600)

    async def watch(self, caller: Caller, life: list[Any]) -> None:
        """Notice the client's death: a reference it owns and that is never ready fails when its owner dies."""
        mailbox = self._mailboxes.of(caller)
        if mailbox is not None and mailbox.life is None:
            mailbox.life = asyncio.create_task(self._mourn(caller.session, life[0]))

    async def _mourn(self, session: SessionId, life: Any) -> None:
        try:
            await life  # unbounded: the life of the client
        except Exception:  # OwnerDied, or whatever else Ray says of a reference whose owner is gone
            self._end_session(session)

    async def leave(self, caller: Caller) -> None:
        """Close a session: its requests end, its slices are stopped."""
        if self._mailboxes.of(caller) is not None:
            self._end_session(caller.session)

    def _end_session(self, session: SessionId) -> None:
        if self._mailboxes.close(session):
            self._apply(SessionClosed(session))

    async def tell(self, caller: Caller, epoch: int, events: list[Event]) -> bool:
        """Events of a client. False tells it that this scheduler does not know the session: it has to join again."""
        mailbox = self._mailboxes.of(caller)
        if epoch != self._epoch or mailbox is None:
            return False
        under = partial(self._runs_under, mailbox.inside)
        async with mailbox.order:  # a long message lets others in between, but not the session's next one
            for number, event in enumerate(events, start=1):
                told = allowed(event, caller.session, mailbox.environment.id, under)
                if told is not None:
                    self._apply(told)
                if not number % _AT_ONCE:
                    await asyncio.sleep(0)
                    if self._mailboxes.of(caller) is not mailbox:
                        return False
        return True

    def _runs_under(self, inside: SliceId | None, lease: LeaseId) -> bool:
        """Whether a lease is that of the slice."""
        request = self._core.state.holder(lease)
        return inside is not None and request is not None and request.slice == inside

    async def poll(self, caller: Caller, epoch: int, seen: int) -> list[tuple[int, Any]] | None:
        """Messages for a client after number ``seen``; waits for some. None: join again."""
        mailbox = self._mailboxes.of(caller)
        if epoch != self._epoch or mailbox is None:
            return None
        messages = await mailbox.after(seen, _POLL_SECONDS)
        return messages if not messages or self._mailboxes.of(caller) is mailbox else None

    async def resize(self, token: Token, share: Share | None, memory: MemoryMiB | None) -> tuple[Placement | None, str]:
        """Give the slice under a lease another size: what it has then, or why not."""
        if token.epoch != self._epoch:
            return None, f"{token.lease} was granted before the scheduler was restarted"
        request = self._core.state.holder(token.lease)
        if request is not None and not (request.slice and self._seals.fits(request.slice, token)):
            return None, f"{token.lease} is not this session's lease"
        return await self._resizes.ask(token.lease, share, memory)

    # -- people --------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """The pool now."""
        return with_usage(snapshot(self._core.state, self._now(), self._epoch, _LISTED), self._nodes.usage)

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
        for session in list(self._mailboxes.by_session):
            self._end_session(session)
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
        elif isinstance(command, GrantLease):
            lease = command.lease
            seal = self._seals.of(lease.slice, self._epoch, lease.grant, lease.lease)
            self._mailboxes.send(command.session, Granted(command, seal))
        else:
            self._mailboxes.send(command.session, command)
            if isinstance(command, AnswerResize):
                self._resizes.answered(command)

    def _start_slice(self, command: StartSlice) -> None:
        record = self._core.state.slices.by_id[command.slice]
        spec = SliceSpec(
            command.slice,
            command.placement,
            self._mailboxes.environments[command.environment],
            record.task_class,
            self._config.start_timeout_seconds,
            self._config.grace_seconds,
            self._seals.key_of(command.slice),
        )
        self._nodes.start_slice(command.placement.node, spec)

    def _write_journal(self, line: str) -> None:
        assert self._journal is not None
        self._journal.write(line + "\n")


def _open_journal(path: str) -> TextIO:
    """It names requests and sessions, which are not everybody's to read."""
    return open(path, "a", buffering=1, opener=only_mine)
