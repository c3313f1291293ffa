"""A pool without Ray under a virtual clock: what production runs on both sides of every message, and a network between.

Real: the core, ``Conversations``, ``Window`` and ``AgentLink`` of the scheduler, ``Service`` of agents, the whole
client (session, leases, orders, exchange, dispatch). Made up: the network, which loses, repeats and reorders calls and
answers until it is healed; the slices, which run one call after the other; the life of processes.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import random
import selectors
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ray

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.views import check_invariants
from flexray.model.commands import GrantLease, ResizeSlice, StartSlice, StopSlice
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.events import (
    NodeLost,
    NodeReported,
    RecoveryBegan,
    RecoveryEnded,
    SliceEnded,
    SliceFound,
    SliceStarted,
)
from flexray.model.lifecycle import SliceState
from flexray.model.request import Request
from flexray.runtime.agent_link import AgentLink
from flexray.runtime.call import Call
from flexray.runtime.conversations import Conversations
from flexray.runtime.engine import Engine
from flexray.runtime.packing import PackedFunction
from flexray.runtime.performing import read_batch
from flexray.runtime.protocol import Code, Environment, Granted, JoinAgain, Reply, Reports, SliceSpec
from flexray.runtime.service import Service
from flexray.runtime.session import Session
from flexray.runtime.targets import Target
from flexray.runtime.window import Window

CONFIG = PoolConfig(
    linger_seconds=0, rejoin_seconds=10, client_timeout_seconds=12, warm_seconds=5, lease_term_seconds=3
)


class Clock(asyncio.SelectorEventLoop):
    """An event loop that never waits: when nothing is left to do now, time jumps to what is due next."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now


class _Jumping(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen again"
        self._clock.now += max(timeout, 0.0)
        return super().select(0)


def unavailable() -> Exception:
    return ray.exceptions.ActorUnavailableError("lost on the way", None)


class Network:
    """``call`` has a function run elsewhere, perhaps twice or late, and returns its answer, or raises."""

    def __init__(self, rng: random.Random, trouble: float) -> None:
        self.rng, self.trouble = rng, trouble
        self.tasks: set[asyncio.Task[Any]] = set()

    async def call(self, function: Callable[[], Any]) -> Any:
        await self._travel()
        if self._fails():
            raise unavailable()
        if self._fails():  # comes a second time, later, and nobody hears of that
            self.spawn(self._again(function))
        answer = function()
        answer = await answer if asyncio.iscoroutine(answer) else answer
        await self._travel()
        if self._fails():
            raise unavailable()
        return answer

    async def _again(self, function: Callable[[], Any]) -> None:
        await asyncio.sleep(self.rng.random() * 6)
        try:
            answer = function()
            if asyncio.iscoroutine(answer):
                await answer
        except Exception:
            pass  # the caller has had its answer

    async def _travel(self) -> None:
        slow = self._fails()
        await asyncio.sleep(self.rng.random() * (3.0 if slow else 0.02))

    def _fails(self) -> bool:
        return self.rng.random() < self.trouble

    def spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]


class Method:
    """A method of an actor that somebody has a handle of."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self.remote = send

    def options(self, **_: Any) -> Method:
        return self


class Ref:
    """An answer that is to come, as Ray's."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], None]] = []
        self.answer: Any = None
        self.there = False

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        callback(self.answer) if self.there else self.callbacks.append(callback)

    def complete(self, answer: Any) -> None:
        if not self.there:
            self.there, self.answer = True, answer
            for callback in self.callbacks:
                asyncio.get_running_loop().call_later(0.001, callback, answer)


# -- slices and agents ---------------------------------------------------------------------------


class Slice:
    """Runs calls one after the other; refuses those of an earlier grant."""

    def __init__(self, pool: Pool, spec: SliceSpec) -> None:
        self.pool, self.spec = pool, spec
        self.state = SliceState.STARTING
        self.grant = (0, 0)
        self.open: list[Ref] = []
        self.line: list[tuple[Ref, list[int]]] = []
        self.working = False
        self.running: int | None = None
        silent = Method(lambda *_: self._ref())
        self.run = self.submit = Method(self._run)
        self.collect = self.take_back = self.give_way = self.cancel = silent
        self.next_checkpoint = Method(lambda *_: (self._ref(), Ref()))

    def _ref(self) -> Ref:
        ref = Ref()
        if self.state is SliceState.IDLE:
            self.open.append(ref)
        else:
            asyncio.get_running_loop().call_soon(ref.complete, ray.exceptions.ActorDiedError())
        return ref

    def _run(self, message: bytes, *_: Any) -> Ref:
        batch, ref = read_batch(message), self._ref()
        grant = (batch.token.epoch, batch.token.grant)
        if grant < self.grant:
            ref.complete(pickle.dumps(tuple(Reply((), 0, refused="another holder"))))
            return ref
        self.grant = grant
        self.line.append((ref, [item[0] for item in batch.items]))
        if not self.working:
            self.working = True
            self.pool.network.spawn(self._work())
        return ref

    async def _work(self) -> None:
        while self.line and self.state is SliceState.IDLE:
            ref, numbers = self.line.pop(0)
            done = []
            for number in numbers:
                self.running = number
                self.pool.began[number] += 1
                await asyncio.sleep(self.pool.seconds_of(number))
                if self.state is not SliceState.IDLE:
                    return
                self.running = None
                done.append((number, int(Code.PLAIN), number))
            ref.complete(pickle.dumps(tuple(Reply(tuple(done), 0, len(done), 0.5))))
        self.working = False

    def die(self) -> None:
        self.state = SliceState.STOPPING
        for ref in self.open:
            ref.complete(ray.exceptions.ActorDiedError())


class Agent:
    """One node's: what it says is what is there."""

    def __init__(self, pool: Pool, node: str) -> None:
        self.pool, self.node, self.dead = pool, node, False
        self.service = Service()
        self.slices: dict[str, Slice] = {}
        self.news = asyncio.Event()
        self.open, self.reports, self.do = (
            Method(self._to(self._open)),
            Method(self._to(self._reports)),
            Method(self._to(self._do)),
        )

    def _to(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def send(*args: Any) -> Any:
            return self.pool.network.call(lambda: self._alive(method, *args))

        return send

    def _alive(self, method: Callable[..., Any], *args: Any) -> Any:
        if self.dead:
            raise ray.exceptions.ActorDiedError()
        return method(*args)

    def _open(self, epoch: int, with_cpu: int) -> int:
        return self.service.begin(epoch, self._facts)

    def _facts(self) -> list[Any]:
        device = DeviceType("x/y", 1000, 1.0)
        devices = tuple(Device(f"{self.node}/gpu{n}", self.node, n, device, Family.GPU, "fake") for n in range(2))
        found: list[Any] = [NodeReported(Inventory(self.node, self.node, devices))]
        for one in self.slices.values():
            spec = one.spec
            facts = (spec.placement, spec.environment.id, spec.task_class, spec.reusable, spec.host)
            found.append(SliceFound(spec.slice, *facts, one.state))
        return found

    async def _reports(self, epoch: int, seen: int, timeout: float) -> Reports | None:
        found = self.service.reports(epoch, seen)
        if found is not None and not found[1]:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), timeout)
            except asyncio.TimeoutError:
                pass
            found = self.service.reports(epoch, seen)
        return None if found is None else Reports(*found, None)

    def _do(self, epoch: int, first: int, commands: list[Any]) -> int:
        taken, new = self.service.take(epoch, first, commands)
        for command in new:
            if isinstance(command, SliceSpec):
                one = self.slices[command.slice] = Slice(self.pool, command)
                self.pool.check_devices()
                self.pool.network.spawn(self._start(one))
            elif isinstance(command, StopSlice):
                self.stop(command.slice)
        return taken

    async def _start(self, one: Slice) -> None:
        await asyncio.sleep(0.5)
        if not self.dead and one.state is SliceState.STARTING:
            one.state = SliceState.IDLE
            self.report(SliceStarted(one.spec.slice))

    def stop(self, name: str) -> None:
        one = self.slices.get(name)
        if one is None:
            self.report(SliceEnded(name, "it was not running"))  # type: ignore[arg-type]
        elif one.state is not SliceState.STOPPING:
            one.die()
            self.pool.network.spawn(self._end(one))

    async def _end(self, one: Slice) -> None:
        await asyncio.sleep(0.3)
        if not self.dead:
            del self.slices[one.spec.slice]
            running = () if one.running is None else (one.running,)
            self.report(SliceEnded(one.spec.slice, "stopped", running))

    def report(self, event: Any) -> None:
        self.service.report(event)
        self.news.set()

    def die(self) -> None:
        """Its slices die with it."""
        self.dead = True
        for one in self.slices.values():
            one.die()
        self.slices.clear()


# -- the scheduler -------------------------------------------------------------------------------


class Scheduler:
    """One incarnation: the parts of ``SchedulerShell`` that are no Ray, put together as there."""

    def __init__(self, pool: Pool, epoch: int) -> None:
        self.pool, self.epoch, self.dead = pool, epoch, False
        self.core = build_scheduler(CONFIG, epoch)
        clock = pool.clock.time
        self.news: dict[Any, asyncio.Event] = {}
        self.conversations = Conversations(
            epoch, self.apply, self.changed, self.has_news, clock, lambda ticket, lease: True
        )
        self.window = Window(pool.sessions, clock(), CONFIG.rejoin_seconds)
        self.reported: set[str] = set()
        self.environments: dict[str, Environment] = {}
        self.apply(RecoveryBegan())
        self.links = {name: AgentLink(agent, epoch) for name, agent in pool.agents.items()}
        self.tasks = [pool.network.spawn(self.listen(name)) for name in self.links]
        self.tasks.append(pool.network.spawn(self.cycle()))

    def apply(self, event: Any) -> None:
        self.core.apply(event, self.pool.clock.time())
        check_invariants(self.core.state)

    def changed(self, session: Any, opened: bool) -> None:
        self.window.has_spoken(session)
        (self.pool.sessions.update({session: None}) if opened else self.pool.sessions.pop(session, None))

    async def listen(self, node: str) -> None:
        while True:
            link = self.links[node]
            try:
                async for events in link.listen(0):
                    if self.dead:
                        return
                    for event in events:
                        self.apply(event)
                    if any(isinstance(event, NodeReported) for event in events):
                        self.reported.add(node)
            except ray.exceptions.RayError:
                self.pool.agents[node].die()
                self.reported.discard(node)
                self.apply(NodeLost(node))
                await asyncio.sleep(0.5)
                self.pool.agents[node] = Agent(self.pool, node)
                self.links[node] = AgentLink(self.pool.agents[node], self.epoch)

    async def cycle(self) -> None:
        while not self.dead:
            await asyncio.sleep(0.2)
            self.conversations.leave_silent(CONFIG.client_timeout_seconds)
            if self.window.closes(self.reported >= set(self.links), self.pool.clock.time()):
                self.apply(RecoveryEnded())
            for command in self.core.decide(self.pool.clock.time()):
                check_invariants(self.core.state)
                self.carry_out(command)

    def carry_out(self, command: Any) -> None:
        if isinstance(command, StartSlice):
            record = self.core.state.slices.by_id[command.slice]
            environment = self.environments[command.environment]
            spec = SliceSpec(command.slice, command.placement, environment, record.task_class, 9, 1, record.reusable)
            self.links[command.placement.node].send(spec)
        elif isinstance(command, StopSlice):
            self.links[command.node].send(command)
        else:
            assert not isinstance(command, ResizeSlice)
            message = Granted(command, b"") if isinstance(command, GrantLease) else command
            self.conversations.put(command.session, message)

    def join(self, ticket: Any, environment: Environment, first: int, events: list[Any]) -> Any:
        self.environments[environment.id] = environment
        return self.conversations.join(ticket, environment, first, events)

    def tell(self, ticket: Any, first: int, events: list[Any]) -> Any:
        return self.conversations.tell(ticket, first, events)

    async def poll(self, ticket: Any, seen: int) -> Any:
        answer = self.conversations.poll(ticket, seen)
        if isinstance(answer, JoinAgain) or answer[1]:
            return answer
        news = self.news.setdefault(ticket.session, asyncio.Event())
        news.clear()
        try:
            await asyncio.wait_for(news.wait(), 3.0)
        except asyncio.TimeoutError:
            pass
        if self.dead:
            raise unavailable()
        return self.conversations.poll(ticket, seen)

    def has_news(self, session: Any) -> None:
        if session in self.news:
            self.news[session].set()

    def die(self) -> None:
        self.dead = True
        for task in self.tasks:
            task.cancel()
        for link in self.links.values():
            for task in list(link._tasks):
                task.cancel()


# -- clients -------------------------------------------------------------------------------------


class Link:
    """A client's way to whichever scheduler is there when its message arrives."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def call(self, method: str, args: tuple[Any, ...], done: Callable[[Any], None]) -> None:
        self.pool.network.spawn(self._call(method, args, done))

    async def _call(self, method: str, args: tuple[Any, ...], done: Callable[[Any], None]) -> None:
        try:
            answer = await self.pool.network.call(lambda: self._there(method, args))
        except ray.exceptions.RayError as error:
            answer = error
        done(answer)

    def _there(self, method: str, args: tuple[Any, ...]) -> Any:
        if self.pool.scheduler is None:
            raise unavailable()
        return getattr(self.pool.scheduler, method)(*pickle.loads(pickle.dumps(args)))

    def ask(self, method: str, args: tuple[Any, ...]) -> Any:
        return self._there(method, args)

    def look(self) -> None:
        pass

    def live(self, ticket: Any) -> None:
        pass

    def leave(self, ticket: Any) -> None:
        pass

    def is_over(self) -> bool:
        return False


class Client:
    """A client's engine and session, with calls of one class that take some time each."""

    numbers = itertools.count(1)

    def __init__(self, pool: Pool, name: str) -> None:
        post = lambda function, *args: function(*args)  # noqa: E731
        later = lambda seconds, do: pool.clock.call_later(seconds, do)  # noqa: E731
        self.engine = Engine(CONFIG, post, later)
        environment = Environment(f"E-{name}", "job")  # type: ignore[arg-type]
        self.dead: list[BaseException] = []
        self.session = self.engine.leases.session = Session(
            environment,
            Link(pool),
            post,
            later,
            self.engine.calls.mutex,
            self.engine.leases.facts,
            self.engine.orders.on_message,
            self.dead.append,
            name=name,
            clock=pool.clock.time,
        )
        self.session.open()
        self.outcomes: dict[int, list[Any]] = {}
        self.targets: dict[int, Target] = {}

    def submit(self, share: int) -> None:
        """A call on so many thousandths of a device."""
        target = self.targets.get(share)
        if target is None:
            function = PackedFunction("f", b"", ())
            request = Request(share=share)  # type: ignore[arg-type]
            target = self.targets[share] = Target(f"f/{share}", "f", request, function, print, 1000, None)
        owner: Any = SimpleNamespace(forked=False, lock=self.engine.calls.lock)
        call = Call(owner, target, next(self.numbers))
        call.payload = ((), {})
        self.outcomes[call.number] = []
        call.on_done(lambda done: self.outcomes[done.number].append(done.outcome))
        self.engine.submit(call)

    @property
    def done(self) -> bool:
        return all(self.outcomes.values())


# -- all of it -----------------------------------------------------------------------------------


class Pool:
    """Two nodes of two devices each, some clients, one scheduler at a time."""

    def __init__(self, clock: Clock, seed: int, trouble: float, monkeypatch: Any) -> None:
        self.clock = clock
        self.rng = random.Random(seed)
        self.network = Network(self.rng, trouble)
        self.sessions: dict[Any, None] = {}
        self.began: Counter[int] = Counter()
        monkeypatch.setattr(time, "monotonic", clock.time)
        monkeypatch.setattr(ray, "get_actor", lambda name, namespace: self.find(name))
        self.agents = {name: Agent(self, name) for name in ("n1", "n2")}
        self.epoch = 1
        self.scheduler: Scheduler | None = Scheduler(self, 1)
        self.clients = [Client(self, f"c{number}") for number in range(3)]

    def find(self, name: str) -> Slice:
        for agent in self.agents.values():
            if name in agent.slices and agent.slices[name].state is SliceState.IDLE:
                return agent.slices[name]
        raise ValueError(name)

    def seconds_of(self, number: int) -> float:
        return 0.2 + (number % 7) * 0.5

    async def restart(self) -> None:
        if self.scheduler is not None:
            self.scheduler.die()
            self.scheduler = None
            await asyncio.sleep(self.rng.random() * 3)
            self.epoch += 1
            self.scheduler = Scheduler(self, self.epoch)

    def check_devices(self) -> None:
        """No device ever holds more than it has, whatever the books say."""
        held: Counter[str] = Counter()
        for agent in self.agents.values():
            for one in agent.slices.values():
                for device in one.spec.placement.devices:
                    held[device] += one.spec.placement.share
        assert all(share <= 1000 for share in held.values()), held

    def check_equal(self) -> None:
        """What the scheduler's books say is what nodes have and clients hold."""
        assert self.scheduler is not None
        state = self.scheduler.core.state
        check_invariants(state)
        there = {name: one.spec.placement for agent in self.agents.values() for name, one in agent.slices.items()}
        assert {name: record.placement for name, record in state.slices.by_id.items()} == there
        held = {lease.id: lease.lease.slice for client in self.clients for lease in client.engine.leases.all()}
        assert {r.lease: r.slice for r in state.requests.values() if r.slice and r.attempt} == held
        assert set(self.scheduler.conversations.open) == {client.session.id for client in self.clients}

    def close(self) -> None:
        if self.scheduler is not None:
            self.scheduler.die()
        for task in list(self.network.tasks):
            task.cancel()
