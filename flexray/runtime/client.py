"""The client: one per process, thread-safe. What tasks, actors and Futures are made with."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import ray

from flexray.config import PoolConfig, load_config
from flexray.errors import InvalidRequest, LeaseLost, NotConnected, UsageError, WaitTimeout
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.explanation import Explanation
from flexray.model.plan import PlanAnswer
from flexray.model.request import Request
from flexray.model.snapshot import Snapshot
from flexray.runtime.actors import Standing, end_actor, standing_of, start_actor
from flexray.runtime.arguments import failure_of_arguments, pack_arguments, when_ready
from flexray.runtime.asking import RESTART_SECONDS, ask_scheduler
from flexray.runtime.blocking import refuse_on_event_loop
from flexray.runtime.call import Call, Kind, Phase, describe_call
from flexray.runtime.cancelling import cancel_call
from flexray.runtime.current import running
from flexray.runtime.engine import Engine
from flexray.runtime.environment import capture_environment
from flexray.runtime.folder import check_place
from flexray.runtime.inside import Inside, wake
from flexray.runtime.packing import pack_function
from flexray.runtime.pool import ensure_pool, greet, wait_ready
from flexray.runtime.protocol import SliceIdentity
from flexray.runtime.reach import connect_ray
from flexray.runtime.reading import read_plan
from flexray.runtime.repeats import Repeats
from flexray.runtime.resizing import ask_size
from flexray.runtime.router import Router
from flexray.runtime.session import RayLink, Session
from flexray.runtime.streams import StreamSource
from flexray.runtime.targets import Loan, Target
from flexray.runtime.tracing import trace_calls

C = TypeVar("C", bound=Call)
#: An estimate of a start is a replay, and others may have asked before.
_REPLAY_SECONDS = 60.0


class Client:
    """This process's way to the pool. Made by ``connect``; everything else may be called from any thread."""

    def __init__(self, config: PoolConfig, identity: SliceIdentity | None, address: str, opened_ray: bool) -> None:
        self.closed = False
        #: whether this is the copy of a client in a forked child, which cannot be used.
        self.forked = False
        self.config = config
        self._address = address
        self._opened_ray = opened_ray
        self._numbers = itertools.count(1)
        self._targets: weakref.WeakValueDictionary[str, Target] = weakref.WeakValueDictionary()
        self._router = Router()
        self._engine = Engine(config, self._router.post, self._router.later)
        self._inside = Inside(self._engine, identity) if identity is not None else None
        self._tracing = trace_calls()
        self._link = RayLink()
        environment = identity.environment if identity is not None else capture_environment(config.share_environments)
        self._session = self._engine.leases.session = Session(
            environment,
            self._link,
            self._router.post,
            self._router.later,
            self._engine.calls.mutex,
            self._engine.leases.facts,
            self._engine.orders.on_message,
            self._engine.orders.on_dead,
            identity=identity,
        )
        self._session.open()
        atexit.register(self.close)

    @staticmethod
    def connect(address: str | None, config: Any, identity: SliceIdentity | None) -> Client:
        """Connect to the pool of a cluster, starting what is missing."""
        wanted = load_config(config) if config is not None else None
        opened = connect_ray(address)
        try:
            scheduler = ensure_pool(wanted or PoolConfig())
            welcome = greet(scheduler, wanted)
            wait_ready(scheduler)
            return Client(PoolConfig.model_validate(welcome.config), identity, welcome.address, opened)
        except BaseException:
            if opened:
                ray.shutdown()
            raise

    def check_same(self, address: str | None, config: Any) -> None:
        """A second ``init``: raises ConfigMismatch or UsageError when it asks for something else."""
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", "local", here):
            raise UsageError(
                f"this process is connected to the pool at {here}, not {address}; call flex.shutdown() first"
            )
        if config is not None:
            greet(self._link.scheduler, load_config(config))

    @property
    def lock(self) -> Any:
        """The condition that guards calls; notified when some are done."""
        return self._engine.calls.lock

    def close(self) -> None:
        """Leave the pool. Calls that are not done fail."""
        if self.closed or self.forked:
            return
        self.closed = True
        atexit.unregister(self.close)
        if ray.is_initialized():
            self._session.close()
        self._engine.orders.on_dead(NotConnected("flexray was shut down in this process"))
        self._router.stop()
        if self._tracing is not None:
            self._tracing.close()
        if self._opened_ray:
            ray.shutdown()

    # -- targets -------------------------------------------------------------------------------

    def target(self, function: Callable[..., Any], request: Request, retries: int, timeout: float | None) -> Target:
        """The line of calls of a function with a request; equal functions and requests share one."""
        packed = pack_function(function)
        name = getattr(function, "__qualname__", type(function).__name__)
        request_key = format(zlib.crc32(repr((request, timeout, retries)).encode()), "x")
        key = f"{name}/{packed.key}/{request_key}"
        with self._engine.calls.lock:
            found = self._targets.get(key)
            if found is None:
                if request.checkpoint_place is not None:
                    check_place(request.checkpoint_place)
                found = Target(key, name, request, packed, function, retries, timeout, parent=_parent())
                self._targets[key] = found
        return found

    def make_actor(
        self,
        cls: type,
        request: Request,
        retries: int,
        timeout: float | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Target:
        """An actor: asks for its slice once the constructor's arguments are ready; the constructor runs there."""
        if request.checkpoint_place is not None:
            raise InvalidRequest("checkpoint_place= is for tasks: an actor is made afresh when its slice is lost")
        packed = pack_function(cls)
        number = next(self._numbers)
        key = f"{cls.__qualname__}/{packed.key}/{self._session.id}.{number}"
        target = Target(key, cls.__qualname__, request, packed, cls, retries, timeout, actor=True, parent=_parent())
        start_actor(self._engine, target, lambda: Call(self, target, next(self._numbers), "__init__"), args, kwargs)
        return target

    def end_actor(self, target: Target, *, now: bool) -> None:
        """Give an actor's slice back: at once, failing what is unfinished, or once its calls are done."""
        end_actor(self._engine, target, now=now)

    def standing(self, target: Target) -> Standing:
        """Where an actor is in its life."""
        return standing_of(self._engine, target)

    def resize_actor(self, target: Target, share: Share | None, memory: MemoryMiB | None) -> None:
        """Give an actor's slice another size, once the actor is there."""
        if target.ended:
            raise LeaseLost(f"{target.name} was stopped")
        ask_size(self._engine.wait_constructed(target).token, share, memory)

    # -- calls ---------------------------------------------------------------------------------

    def submit(
        self,
        make: Callable[[Client, Target, int, str], C],
        target: Target,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> C:
        """Make a call and send it on its way; returns at once."""
        call = make(self, target, next(self._numbers), method)
        if self._tracing is not None:
            call.trace = self._tracing.begin(target.name, target.request.queue, method)
        if args or kwargs:
            pack_arguments(call, args, kwargs)
            if call.slots and not when_ready(call, self._arguments_ready):
                return call
            if call.slots:
                self._arguments_ready(call, failure_of_arguments(call))
                return call
        self._engine.submit(call)
        return call

    def _arguments_ready(self, call: Call, failure: BaseException | None) -> None:
        if failure is not None:
            self._go(call, failure)
        else:
            self.repeats.ready(call, self._go)

    def _go(self, call: Call, failure: BaseException | None) -> None:
        if failure is None:
            self._engine.submit(call)
            return
        with self._engine.calls.step():
            self._engine.calls.settle(call, Kind.ERROR, failure)

    def next_number(self) -> int:
        """A number for one more call."""
        return next(self._numbers)

    @property
    def repeats(self) -> Repeats:
        """Reads large results."""
        return self._engine.repeats

    def wait(self, calls: Iterable[Call], timeout: float | None) -> None:
        """Return when all calls are done. Raises WaitTimeout, cancelling nothing, when time runs out."""
        calls = list(calls)
        if all(call.phase is Phase.DONE for call in calls):
            return
        refuse_on_event_loop()
        deadline = None if timeout is None else time.monotonic() + timeout
        here = running.get()
        if self._inside is not None and here is not None:
            self._inside.wait(calls, here, deadline)
        else:
            self._wait_outside(calls, deadline)
        left = sum(1 for call in calls if call.phase is not Phase.DONE)
        if left:
            raise WaitTimeout(f"{left} of {len(calls)} tasks not done after {timeout:g} s; they go on")

    def _wait_outside(self, calls: list[Call], deadline: float | None) -> None:
        with self._engine.calls.lock:
            for call in reversed(calls):  # the last one is likely to be done last: one sleep for all
                while call.phase is not Phase.DONE:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return
                    self._engine.calls.wait_for(call, left)

    def wait_any(self, calls: Sequence[Call], timeout: float | None) -> None:
        """Return when one of the calls is done, or time has run out."""
        refuse_on_event_loop()
        deadline = None if timeout is None else time.monotonic() + timeout
        here = running.get()
        if self._inside is not None and here is not None:
            self._inside.wait(list(calls), here, deadline, any_of=True)
            return
        with self._engine.calls.lock:
            while not any(call.phase is Phase.DONE for call in calls):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return
                self._engine.calls.wait_change(left)

    async def wait_async(self, call: Call) -> None:
        """Return when the call is done, without blocking the event loop."""
        here = running.get()
        if self._inside is not None and here is not None:
            await self._inside.wait_async(call, here)
            return
        done = asyncio.Event()
        if call.on_done(wake(asyncio.get_running_loop(), done)):
            await done.wait()  # unbounded: the user waits, and may cancel that

    def cancel(self, call: Call, force: bool) -> bool:
        """True when the call will not run to its end; see ``Future.cancel``."""
        return cancel_call(self._engine, call, force)

    def object_ref(self, call: Call) -> Any:
        """An ObjectRef of a finished call's result."""
        kind, outcome = call.outcome
        return outcome if kind is Kind.REFERENCE else ray.put(call.value())

    # -- streams and loans ---------------------------------------------------------------------

    def stream(self, target: Target, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StreamSource:
        """Run a generator on a slice."""
        call = Call(self, target, next(self._numbers), method)
        if self._tracing is not None:
            call.trace = self._tracing.begin(target.name, target.request.queue, method)
        pack_arguments(call, args, kwargs)
        return StreamSource(self._engine, self, call)

    def lend(self, target: Target) -> Loan:
        """What another process needs to call an actor of this one; waits until the actor is there."""
        lease = self._engine.wait_constructed(target)
        target.lent = True
        return Loan(lease.lease, lease.token, target.name, target.function.key, target.timeout, target.asynchronous)

    def borrow(self, loan: Loan) -> Target:
        """An actor of another process."""
        return self._engine.borrow(loan, self._session.id)

    # -- the pool ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The pool now."""
        snapshot: Snapshot = self._ask("snapshot")
        return snapshot

    def explain(self, call: Call) -> Explanation:
        """Where a call is and why."""
        with self._engine.calls.lock:
            requests = [*call.target.asked] or [lease.request for lease in call.target.leases]
            request = call.lease.request if call.lease is not None else (requests[0] if requests else None)
            phase = call.phase
            lease = call.target.leases.get(call.lease) if call.lease is not None else None
            line = call.target.backlog if lease is None else lease.in_flight.values()
            ahead = sum(1 for c in line if c.phase is phase and c.number < call.number)
        found: Explanation | None = None
        if request is not None and phase < Phase.DONE:
            found = self._ask("explain", request, within=_REPLAY_SECONDS)
        return describe_call(phase, ahead, found, request)

    def plan(self, request: Request) -> PlanAnswer:
        """When and where a request would start."""
        return read_plan(self._link.scheduler, request)

    def _ask(self, method: str, *args: Any, within: float = RESTART_SECONDS) -> Any:
        return ask_scheduler(self._link.scheduler, method, *args, within=within)


def _parent() -> Any:
    here = running.get()
    return here.token.lease if here is not None else None
