"""Making the bytes of a call's arguments, and waiting until those that are not ready are.

A Future or ObjectRef among the top-level arguments becomes a placeholder that is filled
in where the call runs: a small result travels along as bytes, a large one as the
ObjectRef itself, so that the data goes from slice to slice. References deeper inside
travel as references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from flexray.errors import NotSerializable, UsageError
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.packing import LARGE, Slot, is_simple, pack

_NO_ARGUMENTS = b""


def pack_arguments(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Put packed arguments into a call. Raises NotSerializable when one cannot be pickled."""
    if not args and not kwargs:
        call.payload = _NO_ARGUMENTS
        return
    if not is_simple(args, kwargs):
        slots: list[Any] = []
        args = tuple(_placeholder(a, slots) for a in args)
        kwargs = {k: _placeholder(v, slots) for k, v in kwargs.items()}
        call.slots = tuple(slots)
    try:
        packed = pack((args, kwargs))
    except UsageError:
        raise
    except Exception as error:
        raise NotSerializable(
            f"an argument of {call.target.name} cannot be sent to a slice: {type(error).__name__}: {error}"
        ) from error
    if packed.size > LARGE:
        # Once into the object store, instead of through every message and again at each retry.
        call.payload, call.slots = None, (ray.put((args, kwargs)), *call.slots)
    else:
        call.payload, call.held = packed.data, packed.held


def _placeholder(argument: Any, slots: list[Any]) -> Any:
    if isinstance(argument, (Call, ray.ObjectRef)):
        slots.append(argument)
        return Slot(len(slots) - 1)
    return argument


def when_ready(call: Call, ready: Callable[[Call, BaseException | None], None]) -> bool:
    """Call ``ready(call, failure)`` once every argument is there. True when they all are already."""
    waits = [slot for slot in call.slots if isinstance(slot, (Call, ray.ObjectRef))]
    pending = [slot for slot in waits if not _is_ready(slot)]
    if not pending:
        return True
    call.waits_for = len(pending)

    def one_is() -> None:
        with call.client.lock:
            call.waits_for -= 1
            last = not call.waits_for
        if last and call.phase is Phase.NEW:
            ready(call, failure_of_arguments(call))

    for slot in pending:
        if isinstance(slot, Call):
            if not slot.on_done(lambda _: one_is()):
                one_is()
        else:
            slot._on_ready(lambda *_: one_is())
    return False


def _is_ready(slot: Call | ray.ObjectRef) -> bool:
    if isinstance(slot, Call):
        return slot.phase is Phase.DONE
    return bool(ray.wait([slot], timeout=0, fetch_local=False)[0])


def failure_of_arguments(call: Call) -> BaseException | None:
    """The failure of the first argument that failed: the call fails with it."""
    failures = (slot.failure() for slot in call.slots if isinstance(slot, Call))
    return next((failure for failure in failures if failure is not None), None)


def fill_slots(call: Call) -> None:
    """Replace finished calls among the slots by their results: bytes when small, else an ObjectRef."""
    call.slots = tuple(_filled(slot) if isinstance(slot, Call) else slot for slot in call.slots)


def _filled(source: Call) -> Any:
    kind, outcome = source.outcome
    if kind in (Kind.PACKED, Kind.REFERENCE):
        return outcome
    packed = pack(outcome)
    return ray.put(outcome) if packed.held or packed.size > LARGE else packed.data
