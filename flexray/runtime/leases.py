"""The leases of a client: asked for, held, handed back, taken away.

Everything here is called inside ``Calls.step``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice

from flexray.config import PoolConfig
from flexray.model.commands import RevokeLease
from flexray.model.events import (
    Event,
    LeaseBlocked,
    LeaseFound,
    LeaseReleased,
    LeaseYielded,
    RequestCancelled,
    RequestSubmitted,
    TasksRan,
)
from flexray.model.lease import LeaseId, RequestId
from flexray.runtime.call import Kind
from flexray.runtime.calls import Calls
from flexray.runtime.dispatch import leases_wanted
from flexray.runtime.losses import lost_error, sort_out
from flexray.runtime.near import near_next
from flexray.runtime.session import Session
from flexray.runtime.targets import HeldLease, Target

#: A held lease reports what ran on it this often, and when it is handed back.
_REPORT_SECONDS = 1.0
#: So many calls in line are looked at for one that has a trace.
_FIRST = 8


@dataclass(slots=True)
class _Asked:
    """A request as it was submitted first, when, and how many leases it was given."""

    event: RequestSubmitted
    since: float = field(default_factory=time.monotonic)
    attempt: int = 0

    def again(self) -> RequestSubmitted:
        """The same for a scheduler that does not know it."""
        return replace(self.event, waited=time.monotonic() - self.since, attempt=self.attempt)


class Leases:
    """What a client holds and has asked for.

    ``advance`` goes on with a target after a change; ``look`` is called now and then with each lease that is in use.
    """

    def __init__(
        self,
        calls: Calls,
        config: PoolConfig,
        later: Callable[[float, Callable[[], None]], None],
        advance: Callable[[Target], None],
        look: Callable[[HeldLease], None],
    ) -> None:
        self.session: Session  # set by the client once it has joined
        self._calls, self._config, self._later, self._advance, self._look = calls, config, later, advance, look
        self._numbers = itertools.count(1)
        self._by_request: dict[RequestId, Target] = {}
        self._asked: dict[RequestId, _Asked] = {}
        self._by_lease: dict[LeaseId, HeldLease] = {}
        self._sweeping = False
        #: what tasks of this process wait for, by the lease that they run under.
        self.blocked: dict[LeaseId, LeaseBlocked] = {}

    def facts(self) -> list[Event]:
        """All that a scheduler has to know which knows nothing: what is held, waited for, and blocked."""
        held = [lease for lease in self._by_lease.values() if not lease.borrowed and _name_of(lease) in self._asked]
        found: list[Event] = [self._found(lease) for lease in held]
        found += [self._asked[name].again() for name in self._asked if self._waits(name)]
        return found + list(self.blocked.values())

    def _waits(self, name: RequestId) -> bool:
        """Whether a request has to be submitted again; a gang that has leases is known by these."""
        target = self._by_request[name]
        return bool(target.asked and not target.leases) if target.gang is not None else name in target.asked

    def _found(self, lease: HeldLease) -> LeaseFound:
        asked, gang = self._asked[_name_of(lease)], lease.target.gang
        return LeaseFound(
            asked.again(),
            lease.lease,
            held=time.monotonic() - lease.since,
            ran=lease.has_run,
            recalled=lease.recalled,
            stop=lease.giving_way,
            closing=gang is not None and gang.over,
        )

    def get(self, lease: LeaseId) -> HeldLease | None:
        """A lease that is held."""
        return self._by_lease.get(lease)

    def all(self) -> list[HeldLease]:
        """Every lease that is held."""
        return list(self._by_lease.values())

    def targets(self) -> list[Target]:
        """Every target that has leases or has asked for some."""
        found = [*self._by_request.values(), *(lease.target for lease in self._by_lease.values())]
        return list({id(target): target for target in found}.values())

    def answered(self, request: RequestId) -> Target | None:
        """A request has its answer. Returns the target that asked, unless nobody waits for it any more."""
        target = self._by_request.get(request)
        if target is not None:
            target.asked.pop(request, None)
        return target

    def forget(self, request: RequestId) -> None:
        """A request is over."""
        self._by_request.pop(request, None)
        self._asked.pop(request, None)

    def hold(self, lease: HeldLease) -> None:
        """Take in a lease that was granted, or lent."""
        asked = self._asked.get(_name_of(lease))
        if asked is not None:
            asked.attempt = max(asked.attempt, lease.id.attempt)
        lease.target.leases[lease.id] = self._by_lease[lease.id] = lease

    def void(self, lease: HeldLease) -> None:
        """A lease is worth nothing any more; its request goes on."""
        self._by_lease.pop(lease.id, None)
        lease.target.leases.pop(lease.id, None)

    def expect(self, target: Target, requests: Iterable[RequestId]) -> None:
        """What the scheduler says of these requests is for a target."""
        self._by_request.update(dict.fromkeys(requests, target))

    def ask(self, target: Target) -> RequestId:
        """Ask the scheduler for one lease more, or for those of a gang; returns the name of the request."""
        request = RequestId(f"{self.session.id}.{next(self._numbers)}")
        near = near_next(target)
        target.asked[request] = None
        self._by_request[request] = target
        event = RequestSubmitted(
            request,
            self.session.id,
            self.session.environment.id,
            target.key,
            target.request,
            reusable=not target.actor,
            restartable=not target.actor or target.retries > 0,
            parent=target.parent,
            near=near,
            trace=_trace_of(target),
        )
        self._asked[request] = _Asked(event)
        self.session.tell(event)
        return request

    def ask_less(self, target: Target) -> None:
        """Stop asking for leases that the backlog no longer needs: when it is empty, or now and then."""
        for request in list(reversed(target.asked))[: max(0, -self.missing(target))]:
            self.stop_asking(target, request)

    def missing(self, target: Target) -> int:
        """How many leases to ask for; below 0, how many requests to take back."""
        if target.actor:
            if target.ended and not target.backlog:
                return -len(target.asked)
            return 0 if target.unready or target.leases or target.asked or target.failed else 1
        if target.gang is not None:
            return 0
        # one that gives way comes back as another grant of the same request
        usable = sum(
            1 for lease in target.leases.values() if not lease.broken and (lease.giving_way or not lease.recalled)
        )
        return leases_wanted(target) - usable - len(target.asked)

    def stop_asking(self, target: Target, request: RequestId) -> None:
        """Take a request back that has not been granted."""
        del target.asked[request]
        self.forget(request)
        self.session.tell(RequestCancelled(request))

    def report(self, lease: HeldLease, calls: int, seconds: float) -> None:
        """Calls have run on a lease: the scheduler learns now and then how fast the device runs them."""
        if lease.borrowed or lease.target.actor:  # the methods of an actor are all different
            return
        lease.ran += calls
        lease.ran_seconds += seconds
        if time.monotonic() - lease.told_at >= _REPORT_SECONDS:
            self._tell_ran(lease)

    def _tell_ran(self, lease: HeldLease) -> None:
        if lease.ran:
            lease.has_run = True
            self.session.tell(TasksRan(lease.id, lease.ran, lease.ran_seconds))
            lease.ran, lease.ran_seconds = 0, 0.0
        lease.told_at = time.monotonic()

    def release(self, lease: HeldLease) -> None:
        """Hand a lease back on which nothing runs."""
        self._tell_ran(lease)
        self.void(lease)
        if lease.giving_way and lease.target.backlog and not lease.target.failed:
            lease.target.asked[lease.id.request] = None
            self.session.tell(LeaseYielded(lease.id))
            return
        self.forget(lease.id.request)
        if not lease.borrowed:
            self.session.tell(LeaseReleased(lease.id))

    def _sweep(self) -> None:
        """Hand back leases that have been idle for the linger time."""
        with self._calls.step():
            self._sweeping = False
            before = time.monotonic() - self._config.linger_seconds
            for lease in list(self._by_lease.values()):
                target = lease.target
                if lease.in_flight and not lease.watched:
                    self._look(lease)
                if not lease.free or lease.broken or target.backlog or (target.actor and not target.ended):
                    continue
                if target.streams_waiting and not lease.recalled:  # a thread is about to take it
                    continue
                if target.ended or lease.recalled or (lease.idle_since <= before and not lease.lingers):
                    self.release(lease)
            for target in {id(t): t for t in self._by_request.values()}.values():
                self.ask_less(target)
                self._advance(target)
            self.plan_sweep()

    def plan_sweep(self) -> None:
        """Look again soon, as long as there are leases that may fall idle."""
        if not self._sweeping and any(
            not lease.target.actor or lease.target.ended for lease in self._by_lease.values()
        ):
            self._sweeping = True
            self._later(max(0.02, min(0.1, self._config.linger_seconds / 2)), self._sweep)

    def lose(self, lease: HeldLease, revoke: RevokeLease) -> None:
        """A lease is gone: its calls go back to the backlog, or fail, each by what happened to it."""
        target = lease.target
        self.void(lease)
        if revoke.requeued:
            target.asked[lease.id.request] = None
        else:
            self.forget(lease.id.request)
        again, failed = sort_out(lease, revoke)
        for call, error in failed:
            self._calls.settle(call, Kind.ERROR, error)
        self._calls.put_back(again)
        if target.actor:
            target.constructed, target.leaving = False, ""
            target.losses += 1
            if target.losses > target.retries:
                target.failed = lost_error(target, revoke, target.losses)
                self._calls.fail_backlog(target, target.failed)
                for request in list(target.asked):
                    self.stop_asking(target, request)
        self._advance(target)


def _trace_of(target: Target) -> str:
    """The trace of a call that a lease is asked for: of the first ones in line."""
    return next((call.trace.header for call in islice(target.backlog, _FIRST) if call.trace is not None), "")


def _name_of(lease: HeldLease) -> RequestId:
    """What a lease was asked for with: the gang, for a member's."""
    gang = lease.target.gang
    return gang.request if gang is not None else lease.id.request
