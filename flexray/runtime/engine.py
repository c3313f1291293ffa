"""The client's engine: calls wait here for leases, go to slices, and come back with outcomes.

    submit -> backlog -> (lease) -> slice -> reply -> settle

``Calls`` has the lock and settles, ``Leases`` what is held and asked for, ``Exchange``
the way to the slices and back, ``Orders`` what the scheduler says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from flexray.config import PoolConfig
from flexray.errors import BacklogFull, LeaseLost
from flexray.model.lease import SessionId
from flexray.model.request import Request
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.calls import Calls
from flexray.runtime.dispatch import BURST_DEPTH, DEPTH, pump
from flexray.runtime.exchange import Exchange
from flexray.runtime.gangs import Gangs
from flexray.runtime.keeping import Keeping
from flexray.runtime.leases import Leases
from flexray.runtime.orders import Orders
from flexray.runtime.packing import PackedFunction
from flexray.runtime.protocol import NAMESPACE
from flexray.runtime.repeats import Repeats
from flexray.runtime.targets import HeldLease, Loan, Target


class Engine:
    """Moves calls. ``post`` and ``later`` run things in the router thread."""

    def __init__(
        self, config: PoolConfig, post: Callable[..., None], later: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self.calls = Calls(lambda: self.leases.session.flush())
        self.leases = Leases(self.calls, config, later, self.advance, lambda lease: self._keeping.look(lease))
        self._keeping = Keeping(self.calls, self.leases, post)
        self.repeats = Repeats(self.calls, self._restart, post)
        self._exchange = Exchange(self.calls, self.leases, self.repeats, config, post, later, self.advance)
        grace = config.grace_seconds
        self._gangs = Gangs(self.calls, self.leases, self._exchange, self.repeats, grace, post, later)
        self.orders = Orders(self.calls, self.leases, self._exchange, self.advance)
        self._config = config

    def submit(self, call: Call) -> None:
        """Put a call whose arguments are ready into the backlog. Raises BacklogFull, or blocks, as configured."""
        if call.target.request.gang is not None:
            self._gangs.take_in(call)
        target = call.target
        with self.calls.mutex:
            count = len(target.backlog)
            burst = target.crowded and target.failed is None and self.calls.waiting < self._config.max_backlog
            if burst and count & (count - 1):  # the short way: nothing can be sent and enough has been asked for
                call.phase = Phase.BACKLOG
                self.calls.waiting += 1
                target.backlog.append(call)
                return
        with self.calls.step():
            while self.calls.waiting >= self._config.max_backlog:
                if self._config.backlog_full == "raise":
                    raise BacklogFull(
                        f"{self.calls.waiting} tasks wait in this client, as many as max_backlog allows; use f.map(), "
                        f'wait for some results first, raise max_backlog, or set backlog_full="block"'
                    )
                self.calls.wait_change(0.1)
            failed = target.failed or self.orders.dead
            if failed is not None:
                self.calls.settle(call, Kind.ERROR, failed)
                return
            call.phase = Phase.BACKLOG
            self.calls.waiting += 1
            target.backlog.append(call)
            # In a burst this thread keeps the interpreter to itself, and slices would idle until it has ended.
            self.advance(target, BURST_DEPTH if burst else DEPTH)

    def _restart(self, call: Call) -> None:
        """Put a call at the head of its line, whatever waits there: one that makes a lost result again, or needs it."""
        target = call.target
        failed = target.failed or self.orders.dead
        if failed is not None:
            self.calls.settle(call, Kind.ERROR, failed)
            return
        if target.actor and not target.constructed:  # its constructor, which waits for nothing in the backlog
            lease = self.leases.get(call.lease) if call.lease is not None else None
            if lease is not None and lease.usable:  # otherwise the next lease gets another one
                self._exchange.send(lease, [call])
            return
        if target.request.gang is not None and (target.gang is None or target.gang.whole is not call):
            self._gangs.take_in(call)
        self.calls.put_back([call])
        self.advance(call.target)

    def advance(self, target: Target, depth: int = DEPTH) -> None:
        """Send what can be sent, then ask for the leases that are missing, or stop asking."""
        if target.gang is not None:
            self._gangs.advance(target.gang)
            return
        pump(target, 2 * self._config.batch_seconds, depth, self._exchange.send)
        for _ in range(self.leases.missing(target)):
            self.leases.ask(target)
        if target.asked and not target.backlog and all(lease.idle for lease in target.leases.values()):
            self.leases.ask_less(target)
        self._exchange.rebalance(target)

    def drop(self, target: Target, error: BaseException) -> None:
        """Give up a target at once: its calls fail, its leases are handed back, its slices are stopped."""
        target.failed = error
        self.calls.fail_backlog(target, error)
        for lease in list(target.leases.values()):
            calls, lease.in_flight = list(lease.in_flight.values()), {}
            for call in calls:
                self.calls.settle(call, Kind.ERROR, error)
            self.leases.release(lease)
        for request in list(target.asked):
            self.leases.stop_asking(target, request)

    def wait_constructed(self, target: Target) -> HeldLease:
        """The lease of an actor, once its constructor has run. Raises what the constructor raised."""
        with self.calls.lock:
            while not target.constructed:
                if target.failed is not None:
                    raise target.failed
                if target.ended and not target.backlog and not target.leases:
                    raise LeaseLost(f"{target.name} was stopped before it had a slice")
                self.calls.wait_change(0.1)
            return next(iter(target.leases.values()))

    def start_stream(self, call: Call) -> tuple[HeldLease, Any]:
        """Run a call that streams on a lease (of a task: one with nothing else on it); returns lease and items."""
        target = call.target
        if target.actor:
            self.wait_constructed(target)
        with self.calls.step():
            target.streams_waiting += 1
            self.advance(target)
        try:
            while True:
                with self.calls.step():
                    if target.failed is not None:
                        raise target.failed
                    if target.ended and not target.leases:
                        raise LeaseLost(f"{target.name} was stopped")
                    lease = next((x for x in target.leases.values() if _can_stream(x)), None)
                    if lease is not None:
                        call.streams = True
                        items = lease.handle.stream.options(num_returns="streaming").remote(lease.token, call.number)
                        self._exchange.send(lease, [call])
                        return lease, items
                    self.advance(target)  # what was granted may have been recalled, or lost, before this thread saw it
                with self.calls.lock:
                    self.calls.wait_change(0.05)
        finally:
            with self.calls.step():
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
        with self.calls.step():
            self.leases.hold(lease)
        return target


def _can_stream(lease: HeldLease) -> bool:
    return not lease.recalled and not lease.broken and (lease.target.actor or lease.idle)


def _not_here(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("a borrowed actor's class runs on its slice only")
