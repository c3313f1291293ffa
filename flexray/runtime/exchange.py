"""Between a client and its slices: batches go out, answers come back, calls are settled.

    send -> slice -> answer to the batch, or a collect, or a fetch -> settle

Everything here is called inside ``Calls.step`` or opens a step of its own.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

from flexray.config import PoolConfig
from flexray.errors import Cancelled, TaskTimeout
from flexray.model.commands import RevokeLease
from flexray.model.lifecycle import EndReason
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.calls import Calls
from flexray.runtime.dispatch import mark_idle, send_batch
from flexray.runtime.leases import Leases
from flexray.runtime.losses import argument_error, failed_elsewhere
from flexray.runtime.protocol import Code, Reply
from flexray.runtime.repeats import Repeats
from flexray.runtime.targets import HeldLease, Target

#: A slice that fails a call is given up when the scheduler says nothing about it for this long.
_LIMBO_SECONDS = 20.0
#: A call that was queued this long on one slice is taken back when another slice is idle.
_STUCK_SECONDS = 0.01


class Exchange:
    """Moves calls to slices and outcomes back. ``advance`` goes on with a target after a change."""

    def __init__(
        self,
        calls: Calls,
        leases: Leases,
        repeats: Repeats,
        config: PoolConfig,
        post: Callable[..., None],
        later: Callable[[float, Callable[[], None]], None],
        advance: Callable[[Target], None],
    ) -> None:
        self._calls, self._leases, self._repeats, self._config = calls, leases, repeats, config
        self._post, self._later, self._advance = post, later, advance

    def send(self, lease: HeldLease, calls: list[Call], seconds: float = 0.0) -> None:
        self._calls.waiting -= sum(1 for call in calls if call.phase is Phase.BACKLOG)
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
        if lone and self._calls.lock.acquire(blocking=False):
            try:
                self._answered(lease, refs, batch, answer)
            finally:
                self._calls.lock.release()
        else:
            self._post(self._answered, lease, refs, batch, answer)

    def _answered(self, lease: HeldLease, refs: list[Any], batch: list[Call] | None, answer: Any) -> None:
        """A slice answered a batch, or (batch is None) a collect."""
        with self._calls.step():
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
            self._leases.report(lease, reply.ran, reply.seconds)
            if reply.ends:
                _note_ends(lease, reply.ends)
            for number, code, payload in reply.done:
                call = lease.in_flight.get(number)
                if call is not None:
                    self._finish(lease, call, code, payload, refs)
            mark_idle(lease)
            if lease.wants_collect:
                self._collect(lease)
            self._go_on(lease)

    def _go_on(self, lease: HeldLease) -> None:
        """Less is on a slice than before."""
        self._advance(lease.target)
        if lease.recalled and lease.free and self._leases.get(lease.id) is not None:
            self._leases.release(lease)
            self._advance(lease.target)
        self._leases.plan_sweep()

    def _finish(self, lease: HeldLease, call: Call, code: int, payload: Any, refs: list[Any]) -> None:
        if code == Code.KEPT:
            lease.target.large_results = True
            header, result = lease.handle.fetch.options(num_returns=2).remote(lease.token, call.number)
            # The lease is kept until the slice has handed the result over.
            header._on_completed(lambda answer: self._post(self._fetched, lease, call, result, payload, answer))
            return
        del lease.in_flight[call.number]
        if code != Code.YIELDED:
            self._call_is_over(lease, call)
        if code == Code.PLAIN:
            self._calls.settle(call, Kind.VALUE, payload)
        elif code == Code.VALUE:
            self._calls.settle(call, Kind.PACKED, payload)
        elif code == Code.SLOT:
            index, owns = payload
            self._store(lease, call, refs[1 + index], owns)
        elif code == Code.ERROR:
            self._calls.settle(call, Kind.ERROR, payload)
        elif code == Code.YIELDED:
            self._calls.put_back([call])
        elif code == Code.CANCELLED:
            self._calls.settle(call, Kind.ERROR, Cancelled(f"{call.target.name} was cancelled while it ran"))
        else:
            self._calls.settle(
                call, Kind.ERROR, TaskTimeout(f"{call.target.name} ran for {payload:.3g} s; {_limit(call)}")
            )

    def _call_is_over(self, lease: HeldLease, call: Call) -> None:
        if call.kept is not None and call.kept.filed and lease.target.gang is None:
            self.forget_checkpoints(lease, call)

    def forget_checkpoints(self, lease: HeldLease, call: Call) -> None:
        """What a call stored in a place is the slice's to delete; the lease is kept until it has."""
        lease.open_batches += 1
        ref = lease.handle.forget_checkpoints.remote(lease.token, lease.target.request.checkpoint_place, call.number)
        ref._on_completed(lambda _: self._post(self._forgotten, lease))

    def _forgotten(self, lease: HeldLease) -> None:
        with self._calls.step():
            lease.open_batches -= 1
            mark_idle(lease)
            self._go_on(lease)

    def _store(self, lease: HeldLease, call: Call, result: Any, owns: bool) -> None:
        """A call's result is an object; ``owns`` says whether it refers to others that end with its slice."""
        self._calls.settle(call, Kind.REFERENCE, result)
        if owns and call.large is not None:
            call.large.slices = (lease.lease.slice,)
            lease.owing.add(call)

    def _fetched(self, lease: HeldLease, call: Call, result: Any, owns: bool, answer: Any) -> None:
        with self._calls.step():
            if not isinstance(answer, bytes):  # the slice died with it: the call runs again, as if it had not finished
                self._broken(lease, answer)
                return
            if lease.in_flight.pop(call.number, None) is not None:
                self._call_is_over(lease, call)
                self._store(lease, call, result, owns)
            mark_idle(lease)
            self._advance(lease.target)
            self._leases.plan_sweep()

    def _not_taken(self, lease: HeldLease, batch: list[Call], reply: Reply) -> None:
        """The slice forgot the function (send it again), or has another holder (the lease is void)."""
        calls = [call for call in batch if lease.in_flight.pop(call.number, None) is not None]
        lease.functions.discard(reply.missing)
        if reply.refused:
            self._leases.void(lease)
        self._calls.put_back(calls)
        self._advance(lease.target)

    def _argument_failed(self, lease: HeldLease, batch: list[Call], error: Exception) -> None:
        """An ObjectRef among a batch's arguments holds an error: nothing of it ran, and the slice is well."""
        calls = [call for call in batch if lease.in_flight.pop(call.number, None) is not None]
        lease.functions.discard(lease.target.function.key)
        if len(calls) == 1:
            if not self._repeats.mend(calls[0], error):
                self._calls.settle(calls[0], Kind.ERROR, argument_error(lease.target, error))
        else:  # one by one: that shows whose argument it is
            for call in calls:
                call.alone = True
            self._calls.put_back(calls)
        mark_idle(lease)
        self._advance(lease.target)
        self._leases.plan_sweep()

    def _broken(self, lease: HeldLease, error: Any) -> None:
        """The slice does not answer. The scheduler will say what became of it, and which call was running."""
        if lease.broken or self._leases.get(lease.id) is None:
            return
        lease.broken = True
        text = f"{type(error).__name__}: {error}"
        revoke = RevokeLease(self._leases.session.id, lease.id, EndReason.NODE_LOST, text, False)
        if lease.borrowed:
            self._leases.lose(lease, revoke)
        else:
            self._later(_LIMBO_SECONDS, lambda: self._limbo_ended(lease, revoke))

    def _limbo_ended(self, lease: HeldLease, revoke: RevokeLease) -> None:
        with self._calls.step():
            if self._leases.get(lease.id) is not None:
                self._leases.lose(lease, revoke)

    def rebalance(self, target: Target) -> None:
        """Take back what waits on a busy slice while another is idle and the backlog is empty."""
        if target.backlog or target.actor or len(target.leases) < 2:
            return
        if not any(not lease.in_flight and not lease.recalled for lease in target.leases.values()):
            return
        for lease in target.leases.values():
            stuck = time.monotonic() - lease.last_heard > _STUCK_SECONDS
            if len(lease.in_flight) < 2 or lease.taking_back or lease.broken or not stuck:
                continue
            self.take_back(lease)

    def take_back(self, lease: HeldLease) -> None:
        """Ask a slice for the calls that it has not begun."""
        if len(lease.in_flight) > 1 and not lease.taking_back:
            lease.taking_back = True
            ref = lease.handle.take_back.remote(lease.token, list(lease.in_flight)[1:])
            ref._on_completed(lambda answer: self._post(self._took_back, lease, answer))

    def _took_back(self, lease: HeldLease, answer: Any) -> None:
        with self._calls.step():
            lease.taking_back = False
            if isinstance(answer, list):
                calls = [lease.in_flight.pop(number) for number in answer if number in lease.in_flight]
                self._calls.put_back(calls)
                self._advance(lease.target)


def _note_ends(lease: HeldLease, ends: dict[int, int]) -> None:
    """When runs have ended, for those calls that have a trace."""
    for number, ended in ends.items():
        call = lease.in_flight.get(number)
        if call is not None and call.trace is not None:
            call.trace.ran_until = ended


def _limit(call: Call) -> str:
    return f"its timeout is {call.target.timeout:g} s" if call.target.timeout is not None else "it was stopped"
