"""Large results that are lost after they were made: their calls run again, as long as somebody holds the Future.

A large result stays in the object store of the node that made it, and objects that a task made itself end with its
slice. Ray makes neither again, since slices do not restart. So the client keeps what a finished call was called with
(``lineage.py``), and makes the same call again when its result turns out to be lost: that costs one of its ``retries``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.exceptions import ObjectLostError, RayTaskError

from flexray.errors import FlexrayError, LeaseLost
from flexray.runtime.arguments import failure_of_arguments, fill_slots
from flexray.runtime.call import Call, Kind, Phase, references_of
from flexray.runtime.calls import Calls
from flexray.runtime.lineage import MOST_KEPT
from flexray.runtime.results import ResultLost, outcome_of, read

Ready = Callable[[Call, BaseException | None], None]
"""Told of a call that its arguments are there, or why they will never be."""


class Repeats:
    """Reads large results, and has lost ones made again.

    Args:
        start: puts a call at the head of its line; inside ``Calls.step``.
        post: runs something in the router thread.
    """

    def __init__(self, calls: Calls, start: Callable[[Call], None], post: Callable[..., None]) -> None:
        self._calls, self._start, self._post = calls, start, post

    # -- reading -------------------------------------------------------------------------------

    def fetch(self, call: Call, deadline: float | None) -> Any:
        """The value of a finished call, made again first if it is lost; for that alone ``deadline`` counts."""
        while True:
            kind, outcome = outcome_of(call)
            try:
                return read(call, kind, outcome)
            except ResultLost as lost:
                again = self._again(lost)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            call.client.wait([again], left)
            self._adopt(call)

    async def fetch_async(self, call: Call) -> Any:
        """The same, without blocking the event loop."""
        while True:
            kind, outcome = outcome_of(call)
            here = _Arrived()
            for reference in references_of(kind, outcome):
                await here.bring(reference)
            try:
                return read(call, kind, outcome, here.get)
            except ResultLost as lost:
                again = self._again(lost)
            await call.client.wait_async(again)
            self._adopt(call)

    # -- making again --------------------------------------------------------------------------

    def ready(self, call: Call, go: Ready) -> None:
        """The calls among a call's arguments are done: ``go`` once their results are there. Not with the lock held."""
        while True:
            pending = next((s for s in call.slots if isinstance(s, Call) and s.large and s.large.again), None)
            if pending is not None:
                again = pending.large.again if pending.large is not None else None
                if again is not None and again.on_done(lambda _: self._post(self.ready, call, go)):
                    return
                self._adopt(pending)
                continue
            failure: BaseException | None = failure_of_arguments(call)
            try:
                if failure is None:
                    fill_slots(call)
            except ResultLost as lost:
                try:
                    self._again(lost)
                    continue
                except LeaseLost as error:
                    failure = error
            except FlexrayError as error:
                failure = error
            go(call, failure)
            return

    def mend(self, call: Call, error: object) -> bool:
        """A call could not begin, or a gang could not: if an argument is a lost result, it will, with that made again.

        Called inside ``Calls.step``. False where the error is another one: it is the outcome.
        """
        cause = error.cause if isinstance(error, RayTaskError) else error
        if not isinstance(cause, ObjectLostError) or call.streams:
            return False
        for source in (slot for slot in call.slots if isinstance(slot, Call) and slot.large is not None):
            kind, outcome = source.outcome
            if cause.object_ref_hex in [one.hex() for one in references_of(kind, outcome)]:
                self._make_again_for(source, outcome)
                break
            if source.large is not None and cause.object_ref_hex in [one.hex() for one in source.large.lost]:
                break  # the call was sent before that was noticed
        else:
            return False
        call.phase = Phase.NEW
        self._post(self.ready, call, self._go)
        return True

    def _make_again_for(self, source: Call, outcome: Any) -> None:
        """Make an argument again. Where that may not be, its loss is what its call and those that need it fail with."""
        try:
            self._again(ResultLost(source, outcome, "the node that held it died or left"))
        except LeaseLost as error:
            self._replace(source, Kind.ERROR, error)

    def _go(self, call: Call, failure: BaseException | None) -> None:
        with self._calls.step():
            if call.phase is not Phase.NEW:  # cancelled meanwhile
                return
            if failure is not None:
                self._calls.settle(call, Kind.ERROR, failure)
            else:
                self._start(call)

    def _again(self, lost: ResultLost) -> Call:
        """The call that makes a lost result again. Raises LeaseLost where that may not be."""
        call = lost.call
        with self._calls.step():
            if call.client.closed:
                raise LeaseLost(f"the result of {call.target.name} is lost: flexray was shut down in this process")
            if call.outcome[1] is not lost.outcome or call.large is None:  # it has been made again by now
                return call
            if call.large.again is None:
                if not call.repeatable:
                    raise LeaseLost(_why_not(call, lost)) from lost.__cause__
                again = call.large.again = call.repeat()
                again.on_done(lambda _: self._adopt(call))
                self._post(self.ready, again, self._go)
            return call.large.again

    def _adopt(self, call: Call) -> None:
        """Take over the outcome of the call that makes a result again, once it is there."""
        with self._calls.step():
            again = call.large.again if call.large is not None else None
            if again is None or call.large is None or not again.settled:
                return
            call.large.again, call.large.slices = None, again.large.slices if again.large is not None else ()
            call.attempts = again.attempts
            self._replace(call, *again.outcome)

    @staticmethod
    def _replace(call: Call, kind: Kind, outcome: Any) -> None:
        assert call.large is not None
        call.large.lost.extend(references_of(*call.outcome))
        call.take(kind, outcome)


class _Arrived:
    """Objects that were waited for, or why they cannot be had."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}
        self._errors: dict[Any, Exception] = {}

    async def bring(self, reference: Any) -> None:
        try:
            self._values[reference] = await reference  # unbounded: it arrives, or Ray fails it
        except Exception as error:
            self._errors[reference] = error

    def get(self, reference: Any) -> Any:
        if reference in self._errors:
            raise self._errors[reference]
        return self._values[reference]


def _why_not(call: Call, lost: ResultLost) -> str:
    """What a call fails with whose result is lost for good."""
    target, times = call.target, call.attempts
    text = f"the result of {target.name} is lost: {lost.why}. "
    if target.actor:
        return text + "The calls of an actor are not repeated; fetch results while its slice lives"
    if call.large is not None and call.large.slices and target.request.gang is not None:
        return text + "The slices of a gang end with it"
    if times >= target.retries:
        used_up = f"{times} retries are used up, and " if times else ""
        return text + f"It is not made again: {used_up}retries={target.retries}; ask for more, or fetch results earlier"
    return text + (
        "It is not made again, since its arguments are kept no longer (a client keeps the latest, up to "
        f"{MOST_KEPT // 2**30} GiB); fetch results earlier, or drop Futures that are not needed"
    )
