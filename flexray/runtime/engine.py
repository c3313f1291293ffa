"""The client's engine: calls wait here for leases, go to slices, and come back with outcomes.

    submit -> backlog -> (lease) -> slice -> reply -> settle

One lock guards targets and calls. It is a condition: whoever waits for calls waits on
it. Callbacks of calls run after the lock was released.
"""

from __future__ import annotations

import itertools
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from flexray.config import PoolConfig
from flexray.errors import BacklogFull, Cancelled, LeaseLost, TaskTimeout
from flexray.model.commands import FailRequest, GrantLease, RecallLease, RevokeLease
from flexray.model.events import LeaseReleased, RequestCancelled, RequestSubmitted
from flexray.model.lease import LeaseId, RequestId, SessionId
from flexray.model.lifecycle import EndReason
from flexray.model.request import Request
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.dispatch import BURST_DEPTH, DEPTH, leases_wanted, mark_idle, pump, send_batch
from flexray.runtime.losses import argument_error, failed_elsewhere, lost_error, request_error, sort_out
from flexray.runtime.packing import PackedFunction
from flexray.runtime.protocol import NAMESPACE, Code, Reply, Token
from flexray.runtime.session import Session
from flexray.runtime.targets import HeldLease, Loan, Target

#: A slice that fails a call is given up when the scheduler says nothing about it for this long.
_LIMBO_SECONDS = 20.0
#: A call that was queued this long on one slice is taken back when another slice is idle.
_STUCK_SECONDS = 0.01


class Engine:
    """Moves calls. ``post`` and ``later`` run things in the router thread."""

    def __init__(self, config: PoolConfig, post: Callable[..., None], later: Callable[..., None]) -> None:
        self._mutex = threading.RLock()
        self.lock = threading.Condition(self._mutex)
        self.session: Session  # set by the client once it has joined
        self._config = config
        self._post, self._later = post, later
        self._numbers = itertools.count(1)
        self._by_request: dict[RequestId, Target] = {}
        self._by_lease: dict[LeaseId, HeldLease] = {}
        self._callbacks: list[tuple[Callable[[Any], None], Call]] = []
        self._settled = False
        #: how many threads want to know of every change, not of a call they wait for.
        self._watching = 0
        self._depth = 0
        self._sweeping = False
        #: why nothing can be submitted any more: the pool is gone, or the client was closed.
        self._dead: BaseException | None = None
        self.waiting = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold the lock; on the way out wake waiters, send messages, and run callbacks without the lock."""
        callbacks: list[tuple[Callable[[Any], None], Call]] = []
        with self._mutex:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    if self._settled:
                        self._settled = False
                        self.lock.notify_all()
                    callbacks, self._callbacks = self._callbacks, []
                    self.session.flush()
        for callback, call in callbacks:
            callback(call)

    def wait_for(self, call: Call, timeout: float | None) -> None:
        """Sleep until the call is done or time has run out; may return early. Called with the lock held, once."""
        call.awaited = True
        self.lock.wait(timeout)

    def wait_change(self, timeout: float | None) -> None:
        """Sleep until some call is done or time has run out. Called with the lock held, once."""
        self._watching += 1
        try:
            self.lock.wait(timeout)
        finally:
            self._watching -= 1

    # -- calls ---------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Put a call whose arguments are ready into the backlog. Raises BacklogFull, or blocks, as configured."""
        target = call.target
        with self._mutex:
            count = len(target.backlog)
            burst = target.crowded and target.failed is None and self.waiting < self._config.max_backlog
            if burst and count & (count - 1):  # the short way: nothing can be sent and enough has been asked for
                call.phase = Phase.BACKLOG
                self.waiting += 1
                target.backlog.append(call)
                return
        with self.step():
            while self.waiting >= self._config.max_backlog:
                if self._config.backlog_full == "raise":
                    raise BacklogFull(
                        f"{self.waiting} tasks wait in this client, as many as max_backlog allows; use f.map(), wait "
                        f'for some results first, raise max_backlog, or set backlog_full="block"'
                    )
                self.wait_change(0.1)
            failed = target.failed or self._dead
            if failed is not None:
                self.settle(call, Kind.ERROR, failed)
                return
            call.phase = Phase.BACKLOG
            self.waiting += 1
            target.backlog.append(call)
            # In a burst this thread keeps the interpreter to itself, and slices would idle until it has ended.
            self.advance(target, BURST_DEPTH if burst else DEPTH)

    def settle(self, call: Call, kind: Kind, outcome: Any) -> None:
        """Give a call its outcome. Called inside ``step``."""
        if call.phase is Phase.BACKLOG:
            self.waiting -= 1
        for callback in call.settle(kind, outcome):
            self._callbacks.append((callback, call))
        if call.awaited or self._watching:
            self._settled = True

    def put_back(self, calls: list[Call]) -> None:
        """Calls that were sent and did not run go back to the front of the backlog, in order."""
        for call in reversed(calls):
            call.phase, call.lease = Phase.BACKLOG, None
            call.target.backlog.appendleft(call)
            self.waiting += 1

    def fail_backlog(self, target: Target, error: BaseException) -> None:
        """Every waiting call of a target fails."""
        while target.backlog:
            call = target.backlog.popleft()
            if call.phase is Phase.BACKLOG:
                self.settle(call, Kind.ERROR, error)

    # -- leases --------------------------------------------------------------------------------

    def advance(self, target: Target, depth: int = DEPTH) -> None:
        """Send what can be sent, then ask for the leases that are missing, or stop asking."""
        pump(target, 2 * self._config.batch_seconds, depth, self._send)
        for _ in range(self._missing(target)):
            self._ask(target)
        if target.asked and not target.backlog and all(lease.idle for lease in target.leases.values()):
            self._ask_less(target)
        self._rebalance(target)

    def _ask_less(self, target: Target) -> None:
        """Stop asking for leases that the backlog no longer needs: when it is empty, or now and then."""
        for request in list(reversed(target.asked))[: max(0, -self._missing(target))]:
            self._stop_asking(target, request)

    def _missing(self, target: Target) -> int:
        if target.actor:
            if target.ended and not target.backlog:
                return -len(target.asked)
            return 0 if target.unready or target.leases or target.asked or target.failed else 1
        usable = sum(1 for lease in target.leases.values() if not lease.recalled and not lease.broken)
        return leases_wanted(target) - usable - len(target.asked)

    def _ask(self, target: Target) -> None:
        request = RequestId(f"{self.session.id}.{next(self._numbers)}")
        target.asked[request] = None
        self._by_request[request] = target
        self.session.tell(
            RequestSubmitted(
                request,
                self.session.id,
                self.session.environment.id,  # type: ignore[arg-type]
                target.key,
                target.request,
                reusable=not target.actor,
                restartable=not target.actor or target.retries > 0,
                parent=target.parent,
            )
        )

    def release(self, lease: HeldLease) -> None:
        """Hand a lease back on which nothing runs."""
        lease.target.leases.pop(lease.id, None)
        self._by_lease.pop(lease.id, None)
        self._by_request.pop(lease.id.request, None)
        if not lease.borrowed:
            self.session.tell(LeaseReleased(lease.id))

    def drop(self, target: Target, error: BaseException) -> None:
        """Give up a target at once: its calls fail, its leases are handed back, its slices are stopped."""
        target.failed = error
        self.fail_backlog(target, error)
        for lease in list(target.leases.values()):
            calls, lease.in_flight = list(lease.in_flight.values()), {}
            for call in calls:
                self.settle(call, Kind.ERROR, error)
            self.release(lease)
        for request in list(target.asked):
            self._stop_asking(target, request)

    def _stop_asking(self, target: Target, request: RequestId) -> None:
        del target.asked[request]
        del self._by_request[request]
        self.session.tell(RequestCancelled(request))

    def _sweep(self) -> None:
        """Hand back leases that have been idle for the linger time."""
        with self.step():
            self._sweeping = False
            before = time.monotonic() - self._config.linger_seconds
            for lease in list(self._by_lease.values()):
                target = lease.target
                if not lease.idle or lease.broken or target.backlog or (target.actor and not target.ended):
                    continue
                if target.ended or lease.recalled or lease.idle_since <= before:
                    self.release(lease)
            for target in {id(t): t for t in self._by_request.values()}.values():
                self._ask_less(target)
                self.advance(target)
            self.plan_sweep()

    def plan_sweep(self) -> None:
        if not self._sweeping and any(
            not lease.target.actor or lease.target.ended for lease in self._by_lease.values()
        ):
            self._sweeping = True
            self._later(max(0.02, min(0.1, self._config.linger_seconds / 2)), self._sweep)

    def _rebalance(self, target: Target) -> None:
        """Take back what waits on a busy slice while another is idle and the backlog is empty."""
        if target.backlog or target.actor or len(target.leases) < 2:
            return
        if not any(not lease.in_flight and not lease.recalled for lease in target.leases.values()):
            return
        for lease in target.leases.values():
            stuck = time.monotonic() - lease.last_heard > _STUCK_SECONDS
            if len(lease.in_flight) < 2 or lease.taking_back or lease.broken or not stuck:
                continue
            lease.taking_back = True
            ids = list(lease.in_flight)[1:]
            ref = lease.handle.take_back.remote(lease.token, ids)
            ref._on_completed(lambda answer, lease=lease: self._post(self._took_back, lease, answer))

    def _took_back(self, lease: HeldLease, answer: Any) -> None:
        with self.step():
            lease.taking_back = False
            if isinstance(answer, list):
                calls = [lease.in_flight.pop(number) for number in answer if number in lease.in_flight]
                self.put_back(calls)
                self.advance(lease.target)

    def wait_constructed(self, target: Target) -> HeldLease:
        """The lease of an actor, once its constructor has run. Raises what the constructor raised."""
        with self.lock:
            while not target.constructed:
                if target.failed is not None:
                    raise target.failed
                self.wait_change(0.1)
            return next(iter(target.leases.values()))

    def start_stream(self, call: Call) -> tuple[HeldLease, Any]:
        """Run a call that streams on a lease (of a task: one with nothing else on it); returns lease and items."""
        target = call.target
        if target.actor:
            self.wait_constructed(target)
        with self.step():
            target.streams_waiting += 1
            self.advance(target)
        try:
            while True:
                with self.step():
                    if target.failed is not None:
                        raise target.failed
                    lease = next((x for x in target.leases.values() if _can_stream(x)), None)
                    if lease is not None:
                        call.streams = True
                        items = lease.handle.stream.options(num_returns="streaming").remote(lease.token, call.number)
                        self._send(lease, [call])
                        return lease, items
                with self.lock:
                    self.wait_change(0.05)
        finally:
            with self.step():
                target.streams_waiting -= 1

    def borrow(self, loan: Loan, session: SessionId) -> Target:
        """A target for an actor whose lease another session holds."""
        function = PackedFunction(loan.function, b"", ())
        target = Target("", loan.name, Request(), function, _not_here, 0, loan.timeout, actor=True, constructed=True)
        target.asynchronous = loan.asynchronous
        try:
            handle = ray.get_actor(loan.lease.slice, namespace=NAMESPACE)
        except ValueError:
            raise LeaseLost(f"actor {loan.name} has ended") from None
        token = loan.token._replace(session=session)
        lease = HeldLease(loan.lease, handle, token, target, functions={loan.function}, borrowed=True)
        with self.step():
            target.leases[lease.id] = self._by_lease[lease.id] = lease
        return target

    # -- slices --------------------------------------------------------------------------------

    def _send(self, lease: HeldLease, calls: list[Call], seconds: float = 0.0) -> None:
        self.waiting -= sum(1 for call in calls if call.phase is Phase.BACKLOG)
        try:
            refs = send_batch(lease, calls, max(self._config.batch_seconds, seconds / 2))
        except Exception as error:  # Ray refuses an argument, or knows already that the slice is dead
            lease.open_batches -= 1
            self._broken(lease, error)
            return
        refs[0]._on_completed(lambda answer: self._on_answer(lease, refs, calls, answer))
        if lease.wants_collect:
            self._collect(lease)

    def _collect(self, lease: HeldLease) -> None:
        slots = 1 if lease.target.large_results else 0
        lease.collecting = True
        refs = lease.handle.collect.options(num_returns=1 + slots).remote(lease.token, slots)
        refs = refs if slots else [refs]
        refs[0]._on_completed(lambda answer: self._post(self._answered, lease, refs, None, answer))

    def _on_answer(self, lease: HeldLease, refs: list[Any], batch: list[Call], answer: Any) -> None:
        """In Ray's own thread, which must not block: answers a lone call here if the lock is free, else posts.

        It saves the way through the router's thread, a tenth of a round trip.
        """
        lone = len(batch) == 1 and not batch[0].watched and not lease.target.backlog
        if lone and self.lock.acquire(blocking=False):
            try:
                self._answered(lease, refs, batch, answer)
            finally:
                self.lock.release()
        else:
            self._post(self._answered, lease, refs, batch, answer)

    def _answered(self, lease: HeldLease, refs: list[Any], batch: list[Call] | None, answer: Any) -> None:
        """A slice answered a batch, or (batch is None) a collect."""
        with self.step():
            if batch is None:
                lease.collecting = False
            else:
                lease.open_batches -= 1
            if not isinstance(answer, bytes):
                if batch is not None and failed_elsewhere(lease, batch, answer):
                    self._argument_failed(lease, batch, answer)
                else:
                    self._broken(lease, answer)
                return
            reply = Reply(*pickle.loads(answer))
            lease.last_heard = time.monotonic()
            if reply.missing or reply.refused:
                self._not_taken(lease, batch or [], reply)
                return
            lease.target.learn(reply.ran, reply.seconds)
            for number, code, payload in reply.done:
                call = lease.in_flight.get(number)
                if call is not None:
                    self._finish(lease, call, code, payload, refs)
            mark_idle(lease)
            if lease.wants_collect:
                self._collect(lease)
            self.advance(lease.target)
            if lease.recalled and lease.idle and lease.id in self._by_lease:
                self.release(lease)
                self.advance(lease.target)
            self.plan_sweep()

    def _finish(self, lease: HeldLease, call: Call, code: int, payload: Any, refs: list[Any]) -> None:
        if code == Code.KEPT:
            lease.target.large_results = True
            ref = lease.handle.fetch.remote(lease.token, call.number)
            # The lease is kept until the slice has handed the result over.
            ref._on_ready(lambda *_: self._post(self._fetched, lease, call, ref))
            return
        del lease.in_flight[call.number]
        if code == Code.PLAIN:
            self.settle(call, Kind.VALUE, payload)
        elif code == Code.VALUE:
            self.settle(call, Kind.PACKED, payload)
        elif code == Code.SLOT:
            self.settle(call, Kind.REFERENCE, refs[1 + payload])
        elif code == Code.ERROR:
            self.settle(call, Kind.ERROR, payload)
        elif code == Code.CANCELLED:
            self.settle(call, Kind.ERROR, Cancelled(f"{call.target.name} was cancelled while it ran"))
        else:
            self.settle(call, Kind.ERROR, TaskTimeout(f"{call.target.name} ran for {payload:.3g} s; {_limit(call)}"))

    def _fetched(self, lease: HeldLease, call: Call, ref: Any) -> None:
        with self.step():
            if lease.in_flight.pop(call.number, None) is not None:
                self.settle(call, Kind.REFERENCE, ref)
            mark_idle(lease)
            self.advance(lease.target)
            self.plan_sweep()

    def _not_taken(self, lease: HeldLease, batch: list[Call], reply: Reply) -> None:
        """The slice forgot the function (send it again), or has another holder (the lease is void)."""
        calls = [call for call in batch if lease.in_flight.pop(call.number, None) is not None]
        lease.functions.discard(reply.missing)
        if reply.refused:
            self._by_lease.pop(lease.id, None)
            lease.target.leases.pop(lease.id, None)
        self.put_back(calls)
        self.advance(lease.target)

    def _argument_failed(self, lease: HeldLease, batch: list[Call], error: Exception) -> None:
        """An ObjectRef among a batch's arguments holds an error: nothing of it ran, and the slice is well."""
        calls = [call for call in batch if lease.in_flight.pop(call.number, None) is not None]
        lease.functions.discard(lease.target.function.key)
        if len(calls) == 1:
            self.settle(calls[0], Kind.ERROR, argument_error(lease.target, error))
        else:  # one by one: that shows whose argument it is
            for call in calls:
                call.alone = True
            self.put_back(calls)
        mark_idle(lease)
        self.advance(lease.target)
        self.plan_sweep()

    def _broken(self, lease: HeldLease, error: Any) -> None:
        """The slice does not answer. The scheduler will say what became of it, and which call was running."""
        if lease.broken or lease.id not in self._by_lease:
            return
        lease.broken = True
        text = f"{type(error).__name__}: {error}"
        revoke = RevokeLease(self.session.id, lease.id, EndReason.NODE_LOST, text, False)
        if lease.borrowed:
            self.lose(lease, revoke)
        else:
            self._later(_LIMBO_SECONDS, lambda: self._limbo_ended(lease, revoke))

    def _limbo_ended(self, lease: HeldLease, revoke: RevokeLease) -> None:
        with self.step():
            if lease.id in self._by_lease:
                self.lose(lease, revoke)

    def lose(self, lease: HeldLease, revoke: RevokeLease) -> None:
        """A lease is gone: its calls go back to the backlog, or fail, each by what happened to it."""
        target = lease.target
        self._by_lease.pop(lease.id, None)
        target.leases.pop(lease.id, None)
        if revoke.requeued:
            target.asked[lease.id.request] = None
        else:
            self._by_request.pop(lease.id.request, None)
        again, failed = sort_out(lease, revoke)
        for call, error in failed:
            self.settle(call, Kind.ERROR, error)
        self.put_back(again)
        if target.actor:
            target.constructed = False
            target.losses += 1
            if target.losses > target.retries:
                target.failed = lost_error(target, revoke, target.losses)
                self.fail_backlog(target, target.failed)
                for request in list(target.asked):
                    self._stop_asking(target, request)
        self.advance(target)

    # -- messages of the scheduler -----------------------------------------------------------------

    def on_message(self, message: Any) -> None:
        """A message of the scheduler; in the router thread."""
        with self.step():
            if isinstance(message, GrantLease):
                self._granted(message)
            elif isinstance(message, RevokeLease):
                lease = self._by_lease.get(message.lease)
                if lease is not None:
                    self.lose(lease, message)
            elif isinstance(message, RecallLease):
                self._recalled(message)
            elif isinstance(message, FailRequest):
                self._failed(message)

    def _granted(self, granted: GrantLease) -> None:
        request = granted.lease.lease.request
        target = self._by_request.get(request)
        if target is not None:
            target.asked.pop(request, None)
        if target is None or (target.ended and not target.backlog):
            self._by_request.pop(request, None)
            self.session.tell(LeaseReleased(granted.lease.lease))
            return
        token = Token(self.session.epoch, granted.lease.grant, self.session.id, granted.lease.lease)
        try:
            handle = ray.get_actor(granted.lease.slice, namespace=NAMESPACE)
        except ValueError:  # it died between grant and message; a RevokeLease is on its way
            handle = None
        lease = HeldLease(granted.lease, handle, token, target, broken=handle is None)
        target.leases[lease.id] = self._by_lease[lease.id] = lease
        if target.actor and not lease.broken:
            self._construct(target, lease)
        self.advance(target)
        self.plan_sweep()

    def _construct(self, target: Target, lease: HeldLease) -> None:
        assert target.make_constructor is not None
        call = target.make_constructor()
        call.on_done(lambda done: self._constructed(target, done))
        self._send(lease, [call])

    def _constructed(self, target: Target, call: Call) -> None:
        with self.step():
            error = call.failure()
            if error is None:
                target.constructed = True
                self.advance(target)
                self._settled = True
                return
            if target.leases and call.phase is Phase.DONE:
                target.failed, target.ended = error, True
                self.fail_backlog(target, error)
                self.plan_sweep()

    def _recalled(self, message: RecallLease) -> None:
        lease = self._by_lease.get(message.lease)
        if lease is None:
            return
        lease.recalled = True
        if lease.idle:
            self.release(lease)
        elif len(lease.in_flight) > 1 and not lease.taking_back:
            lease.taking_back = True
            ref = lease.handle.take_back.remote(lease.token, list(lease.in_flight)[1:])
            ref._on_completed(lambda answer: self._post(self._took_back, lease, answer))
        self.advance(lease.target)

    def _failed(self, message: FailRequest) -> None:
        target = self._by_request.pop(message.request, None)
        if target is None:
            return
        target.asked.pop(message.request, None)
        if target.leases and not target.actor:
            return  # what it has goes on without the one it asked for
        error = request_error(message)
        if target.actor:
            target.failed = error
        self.fail_backlog(target, error)
        for request in list(target.asked):
            self._stop_asking(target, request)

    def on_lost(self) -> None:
        """Another incarnation of the scheduler: no lease of the old one is worth anything."""
        with self.step():
            targets = {id(t): t for t in [*self._by_request.values(), *(x.target for x in self._by_lease.values())]}
            for target in targets.values():
                target.asked.clear()
            self._by_request.clear()
            for lease in list(self._by_lease.values()):
                self.lose(lease, _restarted(self.session.id, lease.id))
            for target in targets.values():
                self.advance(target)

    def on_dead(self, error: BaseException) -> None:
        """The pool is gone: everything that waits or runs fails."""
        with self.step():
            self._dead = error
            targets = {id(t): t for t in [*self._by_request.values(), *(x.target for x in self._by_lease.values())]}
            for target in targets.values():
                target.failed = error
                for lease in target.leases.values():
                    for call in lease.in_flight.values():
                        self.settle(call, Kind.ERROR, error)
                self.fail_backlog(target, error)


def _restarted(session: SessionId, lease: LeaseId) -> RevokeLease:
    return RevokeLease(session, lease, EndReason.SLICE_LOST, "the scheduler restarted", False)


def _limit(call: Call) -> str:
    return f"its timeout is {call.target.timeout:g} s" if call.target.timeout is not None else "it was stopped"


def _can_stream(lease: HeldLease) -> bool:
    return not lease.recalled and not lease.broken and (lease.target.actor or lease.idle)


def _not_here(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("a borrowed actor's class runs on its slice only")
