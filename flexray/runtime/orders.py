"""What the scheduler tells a client, carried out: grants, recalls, losses; and the end of the pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray

from flexray.model.commands import AnswerResize, FailRequest, GrantLease, RecallLease, RevokeLease
from flexray.model.events import LeaseReleased
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.calls import Calls
from flexray.runtime.exchange import Exchange
from flexray.runtime.leases import Leases
from flexray.runtime.losses import request_error
from flexray.runtime.protocol import NAMESPACE, Granted, Token
from flexray.runtime.targets import HeldLease, Target


class Orders:
    """Carries out messages, in the router thread. ``advance`` goes on with a target after a change."""

    def __init__(self, calls: Calls, leases: Leases, exchange: Exchange, advance: Callable[[Target], None]) -> None:
        self._calls, self._leases, self._exchange, self._advance = calls, leases, exchange, advance
        #: why nothing can be submitted any more: the pool is gone, or the client was closed.
        self.dead: BaseException | None = None

    def on_message(self, message: Any) -> None:
        """A message of the scheduler; in the router thread."""
        with self._calls.step():
            if isinstance(message, Granted):
                self._granted(message.order, message.seal)
            elif isinstance(message, RevokeLease):
                lease = self._leases.get(message.lease)
                if lease is not None:
                    self._leases.lose(lease, message)
            elif isinstance(message, RecallLease):
                self._recalled(message)
            elif isinstance(message, AnswerResize):
                self._resized(message)
            elif isinstance(message, FailRequest):
                self._failed(message)

    def _granted(self, granted: GrantLease, seal: bytes) -> None:
        session = self._leases.session
        request = granted.lease.lease.request
        target = self._leases.answered(request)
        if target is None or (target.ended and not target.backlog):
            self._leases.forget(request)
            session.tell(LeaseReleased(granted.lease.lease))
            return
        token = Token(session.epoch, granted.lease.grant, session.id, granted.lease.lease, seal)
        try:
            handle = ray.get_actor(granted.lease.slice, namespace=NAMESPACE)
        except ValueError:  # it died between grant and message; a RevokeLease is on its way
            handle = None
        lease = HeldLease(granted.lease, handle, token, target, broken=handle is None)
        self._leases.hold(lease)
        if target.gang is not None:
            target.gang.takes(lease.id, granted.gang)
        if target.actor and not lease.broken:
            self._construct(target, lease)
        self._advance(target)
        self._leases.plan_sweep()

    def _construct(self, target: Target, lease: HeldLease) -> None:
        assert target.make_constructor is not None
        call = target.make_constructor()
        call.on_done(lambda done: self._constructed(target, done))
        self._exchange.send(lease, [call])

    def _constructed(self, target: Target, call: Call) -> None:
        with self._calls.step():
            error = call.failure()
            if error is None:
                target.constructed = True
                self._advance(target)
                self._calls.changed()
                return
            if target.leases and call.phase is Phase.DONE:
                target.failed, target.ended = error, True
                self._calls.fail_backlog(target, error)
                self._leases.plan_sweep()

    def _recalled(self, message: RecallLease) -> None:
        lease = self._leases.get(message.lease)
        if lease is None:
            return
        if lease.target.actor:  # it keeps its slice as long as there is one; whoever looks can have another one made
            lease.target.leaving = message.reason.value
            return
        lease.recalled = True
        if message.stop and not lease.broken:
            lease.giving_way = True
            lease.handle.give_way.remote(lease.token)
        if lease.free:
            self._leases.release(lease)
        else:
            self._exchange.take_back(lease)
        self._advance(lease.target)

    def _resized(self, message: AnswerResize) -> None:
        lease = self._leases.get(message.lease)
        if lease is not None and message.placement is not None:
            lease.lease = replace(lease.lease, placement=message.placement)

    def _failed(self, message: FailRequest) -> None:
        target = self._leases.answered(message.request)
        self._leases.forget(message.request)
        if target is None:
            return
        error = request_error(message)
        if target.gang is not None:
            self._calls.settle(target.gang.whole, Kind.ERROR, error)
            self._advance(target)
            return
        if target.leases and not target.actor:
            return  # what it has goes on without the one it asked for
        if target.actor:
            target.failed = error
        self._calls.fail_backlog(target, error)
        for request in list(target.asked):
            self._leases.stop_asking(target, request)

    def on_dead(self, error: BaseException) -> None:
        """The pool is gone: everything that waits or runs fails."""
        with self._calls.step():
            self.dead = error
            for target in self._leases.targets():
                target.failed = error
                if target.gang is not None:
                    self._calls.settle(target.gang.whole, Kind.ERROR, error)
                for lease in target.leases.values():
                    for call in lease.in_flight.values():
                        self._calls.settle(call, Kind.ERROR, error)
                self._calls.fail_backlog(target, error)
