"""What finished calls keep of what they were called with, and for how long their slices are kept."""

from __future__ import annotations

from typing import Any

import pytest

from flexray.model.request import Request
from flexray.runtime import lineage
from flexray.runtime.call import Call, Kind
from flexray.runtime.lineage import Lineage
from flexray.runtime.packing import PackedFunction
from flexray.runtime.targets import OWNING_SECONDS, HeldLease, Target

MIB = 2**20


class Stored:
    """Stands for an ObjectRef."""

    def __init__(self, mib: int = 1) -> None:
        self.size = mib * MIB


def finished(retries: int = 3, actor: bool = False, attempts: int = 0, argument: Any = None) -> Call:
    """A call whose result is an object."""
    target = Target("key", "f", Request(), PackedFunction("k", b"", ()), print, retries, None, actor=actor)
    call = Call(None, target, 1)  # type: ignore[arg-type]
    call.payload, call.slots, call.attempts = b"packed", (argument,), attempts
    call.settle(Kind.REFERENCE, Stored())
    return call


def test_only_a_call_that_could_run_again_keeps_its_arguments() -> None:
    assert finished().payload == b"packed" and finished().repeatable
    for call in (finished(retries=0), finished(actor=True), finished(retries=2, attempts=2)):
        assert (call.payload, call.slots) == (None, ()) and not call.repeatable
    small = finished()
    small.take(Kind.PACKED, b"small this time")
    assert small.payload is None


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "references_in", lambda slots: [s for s in slots if isinstance(s, Stored)])
    monkeypatch.setattr(lineage, "_size", lambda stored: stored.size)


@pytest.mark.usefixtures("sizes")
def test_what_is_kept_is_bounded_and_the_oldest_go_first() -> None:
    kept, calls = Lineage(100 * MIB), [finished(argument=Stored(30)) for _ in range(4)]
    for call in calls[:3]:
        kept.add(call)
    assert all(call.repeatable for call in calls)
    kept.add(calls[3])
    assert [call.repeatable for call in calls] == [False, False, False, True]
    assert calls[0].slots == ()


@pytest.mark.usefixtures("sizes")
def test_calls_that_nobody_holds_take_no_room() -> None:
    kept, held = Lineage(100 * MIB), finished(argument=Stored(30))
    kept.add(held)
    for _ in range(50):
        kept.add(finished(argument=Stored(60)))
    assert held.repeatable


def test_a_lease_is_kept_for_objects_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    call = finished()
    lease = HeldLease(None, None, None, call.target)  # type: ignore[arg-type]
    assert not lease.lingers
    lease.owing.add(call)
    assert lease.lingers
    since = lease.idle_since
    lease.idle_since -= OWNING_SECONDS + 1
    assert not lease.lingers
    lease.idle_since = since
    del call
    assert not lease.lingers, "nobody asks for them any more"
