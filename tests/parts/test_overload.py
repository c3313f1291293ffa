"""The scheduler's shell, without Ray, while many sessions ask for much more than there is."""

from __future__ import annotations

import ast
import asyncio
import inspect
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flexray.config import PoolConfig
from flexray.errors import UsageError
from flexray.model.amounts import MemoryMiB, MilliCpus, Share
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.events import (
    LeaseReleased,
    NodeReported,
    RequestCancelled,
    RequestSubmitted,
    SliceEnded,
    SliceStarted,
)
from flexray.model.lease import EnvironmentId, RequestId, SessionId
from flexray.model.request import Request
from flexray.runtime import questions, scheduler_shell
from flexray.runtime.numbered import Inbox, Outbox
from flexray.runtime.protocol import Environment, Granted, Ticket
from flexray.runtime.scheduler_actor import SchedulerActor
from flexray.runtime.scheduler_shell import SchedulerShell
from parts.test_kept import Store

T4 = DeviceType("nvidia/T4", MemoryMiB(16_000))
HOME = Environment(EnvironmentId("E"), "job")


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Callable[[], SchedulerShell]:
    """Makes one, in an event loop: its node has one device, and starts and ends slices at once."""
    monkeypatch.setattr(scheduler_shell, "RayKeyValues", Store)
    monkeypatch.setattr(scheduler_shell, "_traces", list)

    def make() -> SchedulerShell:
        made = SchedulerShell(PoolConfig(), "here")
        made._tasks = [asyncio.create_task(made._cycle())]
        monkeypatch.setattr(made._nodes, "start_slice", lambda node, spec: made._apply(SliceStarted(spec.slice)))
        monkeypatch.setattr(made._nodes, "stop_slice", lambda command: made._apply(SliceEnded(command.slice)))
        device = Device("n/gpu0", "n", 0, T4, Family.GPU, "fake")
        made._apply(NodeReported(Inventory("n", "n", (device,), MilliCpus(8000), MemoryMiB(64_000))))
        return made

    return make


def run(make: Callable[[], SchedulerShell], body: Callable[[SchedulerShell], Awaitable[None]]) -> None:
    async def whole() -> None:
        made = make()
        try:
            await asyncio.wait_for(body(made), 120)
        finally:
            made._closing = True

    asyncio.run(whole())


def ask(session: str, number: int, kind: int = 0) -> RequestSubmitted:
    name = RequestId(f"{session}.{number}")
    return RequestSubmitted(name, SessionId(session), HOME.id, f"f{kind}/x", Request(share=Share(1000)))


async def join(scheduler: SchedulerShell, name: str) -> Ticket:
    ticket = Ticket(SessionId(name), await scheduler.open(), 0, f"secret of {name}")
    assert await scheduler.join(ticket, HOME, 1, []) == 0
    return ticket


class Talker:
    """A session whose messages are late, and sometimes heard twice; its polls sometimes acknowledge nothing."""

    def __init__(self, scheduler: SchedulerShell, name: str, count: int, dice: random.Random) -> None:
        self._scheduler, self.name, self._count, self._dice = scheduler, name, count, dice
        self._outbox: Outbox[Any] = Outbox()
        self.granted: list[RequestId] = []

    async def talk(self) -> None:
        ticket, inbox = await join(self._scheduler, self.name), Inbox()
        for first in range(0, self._count, 50):
            for number in range(first, min(first + 50, self._count)):
                self._outbox.put(ask(self.name, number, number // 16))
            await self._tell(ticket)
        while len(self.granted) < self._count:
            known = inbox.taken if self._dice.random() < 0.7 else 0
            answer = await self._scheduler.poll(ticket, known)
            assert isinstance(answer, tuple)
            for message in inbox.take(*answer):
                if isinstance(message, Granted):
                    self.granted.append(message.order.lease.lease.request)
                    self._outbox.put(LeaseReleased(message.order.lease.lease))
            await self._tell(ticket)

    async def _tell(self, ticket: Ticket) -> None:
        if not self._outbox.has_unsent:
            return
        first, events = self._outbox.unsent()
        for _ in range(1 if self._dice.random() < 0.7 else 2):
            await asyncio.sleep(self._dice.random() / 1000)
            assert await self._scheduler.tell(ticket, first, events) == first + len(events) - 1


def test_nothing_is_forgotten_and_nothing_granted_twice(
    scheduler: Callable[[], SchedulerShell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_shell, "_LISTED", 100)

    async def body(made: SchedulerShell) -> None:
        dice = random.Random(1)
        talkers = [Talker(made, f"S{number}", 60, dice) for number in range(20)]
        talks = [asyncio.create_task(one.talk()) for one in talkers]
        most = 0
        while not all(talk.done() for talk in talks):
            seen = await made.snapshot()
            (queue,) = seen.queues
            listed = [view for view in seen.waiting if view.state == "queued"]
            assert len(listed) <= 100 and sum(kind.waiting for kind in seen.classes) >= len(listed)
            most = max(most, queue.waiting)
            await asyncio.sleep(0.01)
        await asyncio.gather(*talks)
        for one in talkers:
            assert sorted(one.granted) == sorted(RequestId(f"{one.name}.{number}") for number in range(60))
        assert most > 100, "more waited than was listed"
        await made.check()

    run(scheduler, body)


def test_a_long_message_lets_others_in_but_not_its_own_successor(scheduler: Callable[[], SchedulerShell]) -> None:
    async def body(made: SchedulerShell) -> None:
        me = await join(made, "S")
        asked = [ask("S", number) for number in range(1000)]
        cancelled = [RequestCancelled(event.id) for event in asked]
        first = asyncio.create_task(made.tell(me, 1, list(asked)))
        second = asyncio.create_task(made.tell(me, 1001, list(cancelled)))
        seen = await asyncio.create_task(made.snapshot())
        assert 0 < seen.queues[0].waiting < 1000 and not first.done()
        assert (await first, await second) == (1000, 2000)
        after = (await made.snapshot()).queues[0]
        assert after.waiting == 0

    run(scheduler, body)


def test_what_would_hold_it_up_is_not_replayed(
    scheduler: Callable[[], SchedulerShell], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(made: SchedulerShell) -> None:
        me = await join(made, "S")
        await made.tell(me, 1, [ask("S", number) for number in range(20)])
        short = await made.explain(RequestId("S.19"))
        assert short is not None and short.estimated_start is not None
        monkeypatch.setattr(questions, "_MOST_REPLAYED", 10)
        long = await made.explain(RequestId("S.19"))
        assert long is not None and long.estimated_start is None and long.wait_reason == short.wait_reason
        with pytest.raises(UsageError, match="at most 10"):
            await made.plan(Request(share=Share(1000)))

    run(scheduler, body)


def test_the_actor_has_every_method_of_its_shell_and_is_imported_without_it() -> None:
    looked = "import sys, flexray.runtime.scheduler_actor; print([m for m in sys.modules if m.startswith('flexray.')])"
    done = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True)
    assert not {
        m for m in ast.literal_eval(done.stdout) if "core" in m or "scheduler_shell" in m or m == "flexray.config"
    }
    there = {name for name, one in vars(SchedulerShell).items() if inspect.iscoroutinefunction(one) and name[0] != "_"}
    assert {name: getattr(SchedulerActor, name).__name__ for name in vars(SchedulerActor) if name[0] != "_"} == {
        name: name for name in there
    }
