"""What becomes of calls when a lease or a request ends badly: who is charged, who goes free."""

from __future__ import annotations

import math
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError

from flexray.errors import (
    Cancelled,
    Deadlock,
    DeviceLost,
    FlexrayError,
    Infeasible,
    InvalidRequest,
    LeaseLost,
    MemoryLimitExceeded,
    StartFailed,
    TaskError,
    TaskTimeout,
    UnknownQueue,
)
from flexray.model.commands import FailRequest, RevokeLease
from flexray.model.lifecycle import EndReason
from flexray.runtime.call import Call
from flexray.runtime.packing import dual_class
from flexray.runtime.targets import HeldLease, Target

#: After this many lost slices a call travels alone, so that it takes no neighbours with it.
_ALONE_AFTER = 2
#: What is suggested to who ran out of memory, of what was used when it was noticed.
_SPARE = 1.25


def request_error(message: FailRequest) -> FlexrayError:
    """The error of a request that can never run."""
    if message.reason is EndReason.INFEASIBLE:
        return Infeasible(message.message, dict(message.removed))
    errors: dict[EndReason, type[FlexrayError]] = {
        EndReason.UNKNOWN_QUEUE: UnknownQueue,
        EndReason.QUEUE_RULES: InvalidRequest,
        EndReason.DEADLOCK: Deadlock,
        EndReason.START_FAILED: StartFailed,
    }
    return errors.get(message.reason, LeaseLost)(message.message)


def lost_error(target: Target, revoke: RevokeLease, attempts: int = 1) -> LeaseLost:
    """What a call gets whose slice is gone for good.

    Args:
        attempts: how many slices were lost under it.
    """
    times = f" {attempts} times" if attempts > 1 else ""
    error = DeviceLost if revoke.reason is EndReason.DEVICE_LOST else LeaseLost
    text = f"{target.name} lost its slice{times} ({revoke.reason.value}: {revoke.message}); retries={target.retries}"
    if revoke.cause == "died" and not target.actor:
        slices = f"{attempts} slices" if attempts > 1 else "a slice"
        text += (
            f". It was what ran on {slices} that died, and no other call was charged. Call {target.name}(...) with the "
            "same arguments in a process of your own to see whether its code does it; if not, raise retries="
        )
    return error(text)


def memory_error(target: Target, revoke: RevokeLease) -> MemoryLimitExceeded:
    """What a call gets that used more memory than its slice holds."""
    assert revoke.overrun is not None
    used, limit = revoke.overrun
    more = f'"{math.ceil(used * _SPARE)}MiB"'
    text = (
        f"{target.name} used {used} MiB of memory and its slice holds {limit} MiB; ask for more, such as memory={more}"
    )
    if revoke.cause != "memory":
        text = (
            f"the slice of {target.name} was ended: {revoke.message}. Book what it needs beside its device, such as "
            f"request=flex.Request(host_memory={more})"
        )
    return MemoryLimitExceeded(text, used * 2**20, limit * 2**20)


def failed_elsewhere(lease: HeldLease, batch: list[Call], error: object) -> bool:
    """Whether a batch failed because of an ObjectRef among its arguments, not because of its slice."""
    if all(isinstance(slot, bytes) for call in batch for slot in call.slots) or not isinstance(error, RayError):
        return False
    actor = getattr(error, "actor_id", None)
    return not isinstance(error, RayActorError) or actor not in (None, lease.handle._actor_id.hex())


def argument_error(target: Target, error: Exception) -> TaskError:
    """What a call gets whose argument is an ObjectRef that holds an error: also of the original's class."""
    cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else None
    kind = dual_class(type(cause)) if isinstance(cause, Exception) else TaskError
    failure: Any = kind(f"an argument of {target.name}, an ObjectRef, holds an error: {error}", str(error))
    failure.__cause__ = cause or error
    failure.lost_argument = error
    made: TaskError = failure
    return made


def sort_out(lease: HeldLease, revoke: RevokeLease) -> tuple[list[Call], list[tuple[Call, Exception]]]:
    """Which calls of a lost lease run again, and which fail with what.

    Only a call that was running is charged an attempt; one that was waiting in the
    slice goes back free. What we ended ourselves (timeout, forced cancel) charges
    nobody else. A slice that died before anything ran may have died of an argument:
    what was sent to it travels alone from then on, and is charged if that happens again.
    """
    again: list[Call] = []
    failed: list[tuple[Call, Exception]] = []
    target = lease.target
    calls, lease.in_flight = list(lease.in_flight.values()), {}
    charged, unexplained = _guilty(calls, revoke), revoke.cause == "died" and not revoke.running
    for call in calls:
        guilty = call.number in charged
        if guilty and revoke.cause == "timeout":
            failed.append((call, TaskTimeout(f"{target.name} ran longer than its timeout of {target.timeout:g} s")))
        elif guilty and revoke.cause == "cancel":
            failed.append((call, Cancelled(f"{target.name} was cancelled by force")))
        elif guilty and revoke.cause in ("memory", "host_memory"):
            failed.append((call, memory_error(target, revoke)))
        elif target.actor or call.streams:
            failed.append((call, lost_error(target, revoke)))
        else:
            call.attempts += guilty
            call.alone = call.alone or unexplained or call.attempts >= _ALONE_AFTER
            if call.attempts > target.retries:
                full = revoke.cause == "node_memory" and guilty
                failed.append(
                    (call, memory_error(target, revoke) if full else lost_error(target, revoke, call.attempts))
                )
            else:
                again.append(call)
    return again, failed


def _guilty(calls: list[Call], revoke: RevokeLease) -> tuple[int, ...]:
    """Numbers of the calls that were running. When the slice's notes are lost with its node, the oldest one."""
    if revoke.reason is EndReason.PREEMPTED:
        return ()
    if revoke.cause == "died" and not revoke.running and len(calls) == 1 and calls[0].alone:
        return (calls[0].number,)
    if revoke.running or revoke.reason is EndReason.SLICE_LOST:
        return revoke.running
    return (calls[0].number,) if calls else ()
