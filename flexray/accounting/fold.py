"""Events and commands of a scheduler, and measurements, become holdings and hourly sums.

A lease is held from GrantLease until it is released, its session closes, or it is revoked. What happened while there
was no scheduler is filled in from what sessions say afterwards (LeaseFound): a lease that goes on is counted without
a gap, and once; one that nobody speaks of any more is counted until a scheduler saw it last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flexray.accounting.asking import Asked, Asking
from flexray.accounting.ledger import Holder, Ledger
from flexray.accounting.promises import Promises
from flexray.model.amounts import share_as_float
from flexray.model.commands import AnswerResize, Command, FailRequest, GrantLease, RevokeLease
from flexray.model.events import (
    Event,
    LeaseFound,
    LeaseReleased,
    NodeReported,
    QueuesConfigured,
    RecoveryBegan,
    RecoveryEnded,
    RequestCancelled,
    RequestSubmitted,
    SessionClosed,
    SessionOpened,
)
from flexray.model.holding import RELEASED, SESSION_CLOSED, UNSEEN, Holding
from flexray.model.lease import Lease, LeaseId, SliceId


@dataclass(slots=True)
class Held:
    """A lease that is held. ``counted``: until when it is booked, in microseconds."""

    lease: Lease
    asked: Asked
    holder: Holder
    share: int
    start: float
    counted: int

    @property
    def weight(self) -> int:
        """Thousandths of a device."""
        return self.share * len(self.lease.placement.devices)


@dataclass(slots=True)
class _Meter:
    """What was held of a slice since it was last measured: by holder, (microseconds x devices, units)."""

    since: dict[Holder, tuple[int, int]] = field(default_factory=dict)
    begun: bool = False


class Fold:
    """The fold. ``over`` is told of each lease that has ended.

    Args:
        counted_until: what was held before that time (seconds since 1970) is in the ledger already.
    """

    def __init__(self, ledger: Ledger, over: Callable[[Holding], None], counted_until: float = 0.0) -> None:
        self.ledger = ledger
        self.held: dict[LeaseId, Held] = {}
        self.on_slice: dict[SliceId, Held] = {}
        self.asking = Asking()
        self._over = over
        self._counted_until = _ticks(counted_until)
        #: when a cycle was over last: events may be the first of another scheduler.
        self._last = self._counted_until
        self._nodes: dict[str, str] = {}
        self._promises = Promises(ledger)
        self._meters: dict[str, dict[SliceId, _Meter]] = {}
        #: while it is found out what there is: leases that sessions say to hold, those of before that nobody has
        #: spoken of yet, and those that were handed back before their session has said to hold them.
        self._recovering = False
        self._claims: dict[LeaseId, Held] = {}
        self._before: dict[LeaseId, Held] = {}
        self._released: dict[LeaseId, float] = {}
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            NodeReported: self._node_reported,
            SessionOpened: self._session_opened,
            SessionClosed: self._session_closed,
            QueuesConfigured: self._queues_configured,
            RequestSubmitted: self._submitted,
            RequestCancelled: self._cancelled,
            LeaseReleased: self._lease_released,
            RecoveryBegan: self._recovery_began,
            RecoveryEnded: self._recovery_ended,
            LeaseFound: self._lease_found,
            GrantLease: self._granted,
            RevokeLease: self._revoked,
            FailRequest: self._failed,
            AnswerResize: self._resized,
        }

    def saw(self, event: Event, now: float) -> None:
        """An event happened."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, now)

    def decided(self, commands: Sequence[Command], now: float) -> None:
        """A cycle is over."""
        for command in commands:
            handler = self._handlers.get(type(command))
            if handler is not None:
                handler(command, now)
        if self._claims and not self._recovering:  # nobody has objected
            for held in self._claims.values():
                self._hold(held)
            self._claims = {}
        self.asking.cycle_over()
        self._last = max(self._last, _ticks(now))

    def settle(self, now: float) -> None:
        """Book what is held, and promised, until now."""
        self._promises.until(_ticks(now))
        for held in self.held.values():
            self._book(held, _ticks(now))

    def measured(self, node: str, busy: Mapping[SliceId, float | None], now: float) -> None:
        """A node has measured its slices: which fraction of each device was busy since it did last.

        Slices of the node that are not in it are gone.
        """
        before = self._meters.pop(node, {})
        if not busy:
            return
        meters = self._meters[node] = {name: before.get(name) or _Meter() for name in busy}
        for name, part in busy.items():
            meter, held = meters[name], self.on_slice.get(name)
            if held is not None:
                self._book(held, _ticks(now))
            if part is not None and meter.begun:
                for holder, (ticks, units) in meter.since.items():
                    used, row = round(part * 1000 * ticks), self.ledger.at(_ticks(now), holder)
                    row.measured += units
                    row.busy += used
                    row.lent += max(0, used - units)
            meter.since, meter.begun = {}, True

    # -- requests ------------------------------------------------------------------------------

    def _submitted(self, event: RequestSubmitted, now: float) -> None:
        self.asking.submitted(event)

    def _cancelled(self, event: RequestCancelled, now: float) -> None:
        self.asking.cancelled(event.id)

    def _failed(self, command: FailRequest, now: float) -> None:
        asked = self.asking.requests.get(command.request)
        if asked is not None:
            self.asking.ends(asked)

    # -- leases --------------------------------------------------------------------------------

    def _granted(self, command: GrantLease, now: float) -> None:
        held = self._new(command.lease, now)
        if held is not None:
            self._hold(held)
            self.ledger.at(held.counted, held.holder).leases += 1

    def _new(self, lease: Lease, start: float) -> Held | None:
        """None for a lease of a request that is over: the session closed after it was granted."""
        asked = self.asking.of(lease.lease)
        if asked is None or lease.lease in self.held:
            return None
        place = lease.placement
        task = asked.task_class.partition("/")[0]
        node = self._nodes.get(place.node, place.node)
        holder = Holder(asked.queue, asked.user, asked.job, task, lease.device_type, node)
        return Held(lease, asked, holder, place.share, start, _ticks(start))

    def _hold(self, held: Held) -> None:
        self.held[held.lease.lease] = self.on_slice[held.lease.slice] = held
        held.asked.held += 1

    def _lease_released(self, event: LeaseReleased, now: float) -> None:
        if event.lease in self.held or event.lease in self._claims:
            self.asking.handed_back(event.lease, self._close(event.lease, now, RELEASED))
        elif self._recovering:
            self._released[event.lease] = now

    def _revoked(self, command: RevokeLease, now: float) -> None:
        if command.requeued:
            self.asking.goes_on(command.lease)
        if command.lease in self.held:
            asked = self._close(command.lease, now, command.reason.value)
            if (not command.requeued and not asked.gang) or asked.ending:
                self.asking.ends(asked)
            return
        claim = self._claims.pop(command.lease, None)
        if claim is not None:  # the pool did not hold it any more when it came back
            self._tell_over(claim, min(now, max(claim.start, self._counted_until / 1e6)), command.reason.value)

    def _close(self, lease: LeaseId, now: float, why: str) -> Asked:
        if lease in self._claims:
            self._hold(self._claims.pop(lease))
        held = self.held.pop(lease)
        if self.on_slice.get(held.lease.slice) is held:
            del self.on_slice[held.lease.slice]
        self._book(held, _ticks(now))
        held.asked.held -= 1
        self._tell_over(held, now, why)
        return held.asked

    def _resized(self, command: AnswerResize, now: float) -> None:
        held = self.held.get(command.lease) or self._claims.get(command.lease)
        if held is not None and command.placement is not None:
            if command.lease in self.held:
                self._book(held, _ticks(now))
            held.share = command.placement.share

    def _book(self, held: Held, until: int) -> None:
        if until <= held.counted:
            return
        self.ledger.hold(held.holder, held.counted, until, held.weight)
        meter = self._meters.get(held.lease.placement.node, {}).get(held.lease.slice)
        if meter is not None:
            passed = until - held.counted
            ticks, units = meter.since.get(held.holder, (0, 0))
            devices = len(held.lease.placement.devices)
            meter.since[held.holder] = (ticks + passed * devices, units + passed * held.weight)
        held.counted = until

    def _tell_over(self, held: Held, end: float, why: str) -> None:
        place, asked, holder = held.lease.placement, held.asked, held.holder
        self._over(
            Holding(
                held.lease.lease, asked.session, holder.user, holder.job, holder.queue, asked.task_class,
                held.lease.slice, place.node, place.devices, held.lease.device_type, share_as_float(held.share),
                held.start, end, why,
            )
        )  # fmt: skip

    # -- sessions, nodes, queues ---------------------------------------------------------------

    def _session_opened(self, event: SessionOpened, now: float) -> None:
        self.asking.opened(event)

    def _session_closed(self, event: SessionClosed, now: float) -> None:
        for leases in (self.held, self._claims):
            for name in [name for name, held in leases.items() if held.asked.session == event.session]:
                self._close(name, now, SESSION_CLOSED)
        self.asking.closed(event.session)

    def _node_reported(self, event: NodeReported, now: float) -> None:
        self._nodes[event.inventory.node] = event.inventory.name
        for device in event.inventory.devices:
            self.ledger.speeds[device.type.name] = device.type.speed

    def _queues_configured(self, event: QueuesConfigured, now: float) -> None:
        self._promises.set(event.queues, _ticks(now))
        moved = {id(asked) for asked in self.asking.configured(event)}
        for held in self.held.values():
            if id(held.asked) in moved:
                self._book(held, _ticks(now))
                held.holder = held.holder._replace(queue=held.asked.queue)

    # -- what an earlier incarnation has left --------------------------------------------------

    def _recovery_began(self, event: RecoveryBegan, now: float) -> None:
        """Another scheduler, which knows nothing of requests and sessions: it is told again."""
        for held in self.held.values():
            self._book(held, self._last)
        self._counted_until = self._last
        self._before = {**self._before, **self._claims, **self.held}
        self.held, self.on_slice, self._claims, self._released = {}, {}, {}, {}
        self.asking.forget()
        self._recovering = True

    def _lease_found(self, event: LeaseFound, now: float) -> None:
        if (
            not self._recovering
            or not self.asking.is_open(event.submitted.session)
            or event.lease.lease in self._claims
        ):
            return
        self._submitted(event.submitted, now)
        known = self._before.pop(event.lease.lease, None)
        held = self._new(event.lease, known.start if known is not None else now - event.held)
        if held is None:
            return
        held.counted = max(held.counted, self._counted_until, known.counted if known is not None else 0)
        self._claims[event.lease.lease] = held
        released = self._released.pop(event.lease.lease, None)
        if released is not None:
            self.asking.handed_back(event.lease.lease, self._close(event.lease.lease, released, RELEASED))

    def _recovery_ended(self, event: RecoveryEnded, now: float) -> None:
        for held in self._before.values():
            self._tell_over(held, max(held.start, self._counted_until / 1e6), UNSEEN)
        self._before, self._released, self._recovering = {}, {}, False


def _ticks(seconds: float) -> int:
    return round(seconds * 1e6)
