"""Waiting inside a slice, without deadlocking a full pool.

A task that waits for its children runs those that fit its own slice itself, in the
waiting thread. For the others it tells the scheduler that its lease is blocked, which
can then tell a deadlock from a queue.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from flexray.core.fixed_parts import granted
from flexray.errors import TaskError
from flexray.model.devices import Family
from flexray.model.events import LeaseBlocked, LeaseUnblocked
from flexray.runtime.arguments import unpack_arguments
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.checkpoints import Attempt, Checkpoints, folder_of
from flexray.runtime.current import Running, Stage, StopFlag, running
from flexray.runtime.engine import Engine
from flexray.runtime.packing import pack_error
from flexray.runtime.protocol import SliceIdentity

_BLOCKED_AFTER = 0.2


class Inside:
    """Waits of tasks on one slice. ``identity`` says what the slice holds."""

    def __init__(self, engine: Engine, identity: SliceIdentity) -> None:
        self._engine = engine
        self._identity = identity

    def wait(self, calls: list[Call], here: Running, deadline: float | None, *, any_of: bool = False) -> None:
        """Return when all calls (or any) are done, running here what can; may return early at ``deadline``."""
        engine, told = self._engine, False
        started = time.monotonic()
        try:
            for call in calls:
                while call.phase is not Phase.DONE:
                    if any_of and any(one.phase is Phase.DONE for one in calls):
                        return
                    if deadline is not None and time.monotonic() >= deadline:
                        return
                    own = self._claim_one(calls)
                    if own is not None:
                        contextvars.copy_context().run(self._run_here, own, here)
                        continue
                    if not told and time.monotonic() - started > _BLOCKED_AFTER:
                        self._tell_blocked(calls, here)
                        told = True
                    with engine.calls.lock:
                        if not call.settled:
                            engine.calls.wait_change(0.05)
        finally:
            if told:
                self._tell_unblocked(here)

    async def wait_async(self, call: Call, here: Running) -> None:
        """As ``wait``, for code that awaits: what can run here does so in a thread beside the event loop."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        if not call.on_done(wake(loop, done)):
            return
        started, told = time.monotonic(), False
        try:
            while call.phase is not Phase.DONE:
                waited = time.monotonic() - started
                own = self._claim_one([call]) if waited > _BLOCKED_AFTER / 2 else None
                if own is not None:
                    context = contextvars.copy_context()
                    await loop.run_in_executor(None, context.run, self._run_here, own, here)
                elif not told and waited > _BLOCKED_AFTER:
                    self._tell_blocked([call], here)
                    told = True
                try:
                    await asyncio.wait_for(done.wait(), 0.05)
                except asyncio.TimeoutError:
                    continue
        finally:
            if told:
                self._tell_unblocked(here)

    def _claim_one(self, calls: Iterable[Call]) -> Call | None:
        """A call that waits in the backlog and fits this slice, taken out of the backlog; or None."""
        with self._engine.calls.step():
            for call in _with_arguments(calls):
                if call.phase is Phase.BACKLOG and self._fits(call):
                    call.phase = Phase.HERE
                    self._engine.calls.waiting -= 1
                    self._engine.advance(call.target)
                    return call
        return None

    def _fits(self, call: Call) -> bool:
        request, place, target = call.target.request, self._identity.placement, call.target
        device = self._identity.devices[0]
        grant = granted(request, device.type.memory, device.profiles)
        family = request.family in (Family.ANY, device.family) or device.family is Family.CPU
        return (
            not target.actor
            and request.gang is None
            and target.timeout is None  # a call that runs here could only be stopped with its parent
            and family
            and request.devices <= len(place.devices)
            and grant is not None
            and grant.share <= place.share
            and grant.memory <= place.memory
            and request.allows_type(device.type.name)
            and device.guarantee.meets(request.least)
        )

    def _run_here(self, call: Call, here: Running) -> None:
        guest = Guest(StopFlag(), checkpoints=self._checkpoints_of(call, here))
        running.set(Running(Stage(self._identity, here.token, _begun), guest))
        kind, outcome = Kind.VALUE, None
        try:
            args, kwargs = unpack_arguments(call.payload, call.slots, call.held, _value_of)
            outcome = call.target.callable(*args, **kwargs)
            if asyncio.iscoroutine(outcome):
                outcome = asyncio.run(outcome)
        except Exception as error:
            kind, outcome = Kind.ERROR, pack_error(error)
        except BaseException as error:  # SystemExit of a child ends the child, not its parent
            failure = TaskError(f"{type(error).__name__}: {error}")
            kind, outcome = Kind.ERROR, failure
        if call.kept is not None and guest.checkpoints is not None:
            guest.checkpoints.clear()
        with self._engine.calls.step():
            self._engine.calls.settle(call, kind, outcome)

    def _checkpoints_of(self, call: Call, here: Running) -> Checkpoints:
        """It finds what an attempt elsewhere has left, and stores nothing: its client ends with this slice."""
        token = here.token._replace(session=self._engine.leases.session.id)
        found = call.kept.references if call.kept is not None else ()
        folder = folder_of(call.target.request.checkpoint_place, token, call.number)
        return Checkpoints(found, folder, None)

    def _tell_blocked(self, calls: list[Call], here: Running) -> None:
        with self._engine.calls.step():
            keys = {c.target.key: None for c in _with_arguments(calls) if c.phase is not Phase.DONE}
            event = LeaseBlocked(here.token.lease, self._engine.leases.session.id, tuple(keys))
            self._engine.leases.blocked[here.token.lease] = event
            self._engine.leases.session.tell(event)

    def _tell_unblocked(self, here: Running) -> None:
        with self._engine.calls.step():
            self._engine.leases.blocked.pop(here.token.lease, None)
            self._engine.leases.session.tell(LeaseUnblocked(here.token.lease))


@dataclass(slots=True)
class Guest:
    """A call that runs in the thread that waits for it: nobody asks it to give way."""

    flag: StopFlag
    giving_way: bool = False
    checkpoints: Checkpoints | None = None


def _begun(guest: Attempt) -> Checkpoints:
    assert guest.checkpoints is not None
    return guest.checkpoints


def wake(loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> Callable[[Any], None]:
    """A callback that sets an event of an event loop, from any thread."""

    def set_done(_: Any) -> None:
        loop.call_soon_threadsafe(done.set)

    return set_done


def _with_arguments(calls: Iterable[Call]) -> Iterator[Call]:
    """The calls and, for those that wait for arguments, the calls these come from, or that make them again."""
    for call in calls:
        if call.phase is Phase.NEW:
            yield from _with_arguments(a for a in call.slots if isinstance(a, Call))
        if call.large is not None and call.large.again is not None:
            yield from _with_arguments([call.large.again])
        yield call


def _value_of(slot: Any) -> Any:
    """What stands for an argument that is not bytes."""
    return slot.value() if isinstance(slot, Call) else ray.get(slot)  # unbounded: it is there, or Ray fails it as lost
