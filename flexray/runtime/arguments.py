"""Packing a call's arguments, waiting until those that are not ready are, and unpacking them where the call runs.

A Future or ObjectRef among the top-level arguments becomes a placeholder that is filled
in where the call runs: a small result travels along as bytes, a large one as the
ObjectRef itself, so that the data goes from slice to slice. References deeper inside
travel as references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from flexray.errors import NotSerializable, UsageError
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.packing import LARGE, Slot, is_plain, pack, unpack
from flexray.runtime.protocol import Payload
from flexray.runtime.results import check_owners, outcome_of, read


def pack_arguments(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Put arguments into a call, packed unless they are plain. Raises NotSerializable when one cannot be pickled."""
    if all(map(is_plain, args)) and (not kwargs or all(map(is_plain, kwargs.values()))):
        call.payload = (args, kwargs)
        return
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
    """Replace finished calls among the slots by their results: bytes when small, else an ObjectRef.

    One whose result is an ObjectRef stays, since that may be lost and made again before the call begins. Raises
    ResultLost where it is lost already.
    """
    call.slots = tuple(_filled(slot) if isinstance(slot, Call) else slot for slot in call.slots)


def _filled(source: Call) -> Any:
    kind, outcome = outcome_of(source)
    if kind is Kind.PACKED:
        return outcome
    if kind is Kind.REFERENCE:
        check_owners(source, outcome)
        return source
    value = read(source, kind, outcome)
    packed = pack(value)
    return ray.put(value) if packed.held or packed.size > LARGE else packed.data


def sent_as(slot: Any) -> Any:
    """What goes to a slice for a filled slot: bytes or an ObjectRef."""
    if not isinstance(slot, Call):
        return slot
    kind, outcome = slot.outcome
    if kind is Kind.REFERENCE:
        return outcome
    if kind is Kind.ERROR:  # it was lost and could not be made again: the slice says so, as of any lost argument
        assert slot.large is not None
        return slot.large.lost[-1]
    return _filled(slot)


def unpack_arguments(
    payload: Payload, slots: Sequence[Any], held: Sequence[Any], value_of: Callable[[Any], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) where a call runs; ``value_of`` gives what stands behind a slot that is not bytes."""
    if type(payload) is tuple:
        return payload
    if payload is None:
        args, kwargs = value_of(slots[0])
        slots = slots[1:]
    else:
        args, kwargs = unpack(payload, held)  # type: ignore[arg-type]
    if not slots:
        return args, kwargs
    filled = [unpack(slot) if isinstance(slot, bytes) else value_of(slot) for slot in slots]
    return (
        tuple(filled[a.number] if type(a) is Slot else a for a in args),
        {k: filled[v.number] if type(v) is Slot else v for k, v in kwargs.items()},
    )
