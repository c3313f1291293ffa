"""The scheduler's side of one node agent: commands go there, reports come from there, and nothing is lost between.

A call may fail although the agent is well (the network, a busy process); it is repeated for a while. An agent that
stays away is given up: it is killed, and its slices with it, before anything is placed on its node again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import ray

from flexray.model.events import Event
from flexray.runtime.numbered import Inbox, Outbox
from flexray.runtime.protocol import AgentCommand, Reports
from flexray.runtime.usage import UsageReport

_POLL_SECONDS = 20.0
_RETRY_SECONDS = 0.5
_PATIENCE_SECONDS = 20.0

_log = logging.getLogger("flexray")


class AgentLink:
    """Commands to an agent, numbered, and its reports. ``epoch``: of this scheduler."""

    def __init__(self, agent: Any, epoch: int) -> None:
        self._agent, self._epoch = agent, epoch
        self._outbox: Outbox[AgentCommand] = Outbox()
        self._inbox = Inbox()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = self._resending = False

    def send(self, command: AgentCommand) -> None:
        """Have the agent do something."""
        self._outbox.put(command)
        self._flush()

    async def listen(self, with_cpu: int) -> AsyncIterator[list[Event] | UsageReport]:
        """What the agent reports, as it comes. Raises what Ray raises once the agent is dead, or away for too long."""
        epoch = await self._patiently("open", self._epoch, with_cpu)
        if epoch > self._epoch:
            raise Outdated(epoch)
        self._opened = True
        self._flush()
        while True:
            reports: Reports | None = await self._patiently("reports", self._epoch, self._inbox.taken, _POLL_SECONDS)
            if reports is None:
                raise Outdated(self._epoch + 1)
            if reports.usage is not None:
                yield reports.usage
            yield self._inbox.take(reports.first, reports.events)

    def kill(self) -> None:
        """End it, and its slices with it."""
        ray.kill(self._agent)

    async def close(self) -> None:
        """Have it stop its slices and give its devices back, then end it."""
        try:
            await asyncio.wait_for(_result(self._agent.close.remote()), 60)
        except Exception:  # dead or stuck: the kill and the claims' removal end it
            pass
        self.kill()

    def _flush(self) -> None:
        first, commands = self._outbox.unsent() if self._opened else (0, [])
        if commands:
            task = asyncio.create_task(self._do(first, commands))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do(self, first: int, commands: list[AgentCommand]) -> None:
        try:
            taken = await self._agent.do.remote(self._epoch, first, commands)  # unbounded: its death ends it
        except ray.exceptions.ActorUnavailableError:
            taken = 0
        except ray.exceptions.RayError:  # it is dead, which ``listen`` notices too
            return
        self._outbox.acknowledge(taken)
        if taken < first + len(commands) - 1 and not self._resending:
            self._resending = True
            await asyncio.sleep(_RETRY_SECONDS)
            self._resending = False
            self._outbox.rewind()
            self._flush()

    async def _patiently(self, method: str, *args: Any) -> Any:
        """The answer to a call that may be repeated."""
        deadline: float | None = None
        while True:
            try:
                # Nobody but the agent, or its end, may say that its slices are gone.
                return await getattr(self._agent, method).remote(*args)  # unbounded: its death ends it
            except ray.exceptions.ActorUnavailableError:
                now = asyncio.get_running_loop().time()
                deadline = now + _PATIENCE_SECONDS if deadline is None else deadline
                if now > deadline:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)


class Outdated(Exception):
    """An agent listens to a later scheduler: this one must not do anything any more."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"a node agent listens to a scheduler of epoch {epoch}")
        self.epoch = epoch


def step_down(reason: Outdated) -> None:
    """End this scheduler at once. Ray starts another one, of a later epoch, if there is none."""
    _log.error("flexray: %s; this scheduler ends", reason)
    os._exit(1)


async def _result(ref: Any) -> Any:
    return await ref  # unbounded: who calls it sets the limit
