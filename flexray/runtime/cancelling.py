"""Cancelling a call: dropped where it waits, asked to stop where it runs, or stopped with its slice."""

from __future__ import annotations

import ray

from flexray.errors import Cancelled
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.engine import Engine
from flexray.runtime.targets import HeldLease

_CONTROL_SECONDS = 10.0


def cancel_call(engine: Engine, call: Call, force: bool) -> bool:
    """True when the call will not run to its end; see ``Future.cancel``."""
    with engine.calls.step():
        if call.phase is Phase.DONE or call.phase is Phase.HERE:
            return False
        if call.phase in (Phase.NEW, Phase.BACKLOG):
            _drop(engine, call)
            return True
        leases = _leases_of(call)
        asked = [(lease, lease.handle.cancel.remote(lease.token, call.number, force)) for lease in leases]
    answers = [_answer(engine, call, lease, ref, force) for lease, ref in asked]
    return any(answers)


def _leases_of(call: Call) -> list[HeldLease]:
    """The leases on whose slices it is: more than one for a gang."""
    target = call.target
    if target.gang is not None:
        target.gang.cancelled = True
        return target.gang.unfinished()
    lease = target.leases.get(call.lease) if call.lease is not None else None
    return [] if lease is None else [lease]


def _answer(engine: Engine, call: Call, lease: HeldLease, ref: ray.ObjectRef, force: bool) -> bool:
    """Whether the call, or this part of it, will not run to its end."""
    try:
        answer = ray.get(ref, timeout=_CONTROL_SECONDS)
    except ray.exceptions.RayError:  # with force, the slice is gone before it can answer
        return force
    if answer == "taken":
        with engine.calls.step():
            found = lease.in_flight.pop(call.number, None)
            if found is call:
                _drop(engine, call)
            elif found is not None:  # a member of a gang
                engine.calls.put_back([found])
                engine.advance(call.target)
    return answer in ("taken", "cancelling")


def _drop(engine: Engine, call: Call) -> None:
    engine.calls.settle(call, Kind.ERROR, Cancelled(f"{call.target.name} was cancelled before it started"))
    engine.advance(call.target)
