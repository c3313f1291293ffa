"""Which nodes a client names in a request, and which lease gets a call with large arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import flexray.runtime.near as module
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.lease import Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.request import Request
from flexray.runtime.call import Call, Phase
from flexray.runtime.dispatch import DEPTH, pump
from flexray.runtime.near import home_of, near_next
from flexray.runtime.packing import PackedFunction
from flexray.runtime.protocol import Token
from flexray.runtime.targets import HeldLease, Target

ray = pytest.importorskip("ray")
MIB = 2**20
Put = Callable[..., Any]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Put:
    """Makes a reference to an object of some bytes that is on some nodes; ``put.asked`` counts look-ups."""
    objects: dict[Any, dict[str, Any]] = {}

    def locations(references: list[Any]) -> dict[Any, dict[str, Any]]:
        put.asked.append(len(references))  # type: ignore[attr-defined]
        return {reference: objects[reference] for reference in references if reference in objects}

    def put(size: int | None, *nodes: str, known: bool = True) -> Any:
        reference = ray.ObjectRef.from_random()
        if known:
            objects[reference] = {"node_ids": list(nodes), "object_size": size, "did_spill": False}
        return reference

    put.asked = []  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "get_local_object_locations", locations)
    return put


def target(*slots: tuple[Any, ...]) -> Target:
    """A target with one waiting call for each tuple of slots."""
    made = Target("key", "f", Request(), PackedFunction("k", b"", ()), print, 3, None)
    for number, of_call in enumerate(slots):
        call = Call(None, made, number)  # type: ignore[arg-type]
        call.phase, call.slots = Phase.BACKLOG, of_call
        made.backlog.append(call)
    return made


def hold(made: Target, *nodes: str) -> list[HeldLease]:
    for number, node in enumerate(nodes):
        lease = LeaseId(RequestId(f"me.{number}"), 1)
        placement = Placement(node, (f"{node}/gpu0",), Share(250), MemoryMiB(0))
        held = Lease(lease, SliceId(f"s1.{number}"), placement, "cpu/generic", "none")
        made.leases[lease] = HeldLease(held, None, Token(1, 1, SessionId("me"), lease, b""), made)
    return list(made.leases.values())


def test_what_lies_on_a_node_is_added_up_each_object_once(put: Put) -> None:
    shared = put(5 * MIB + 1, "b")
    made = target((shared, b"small"), (shared, put(3 * MIB, "a")), (put(3 * MIB, "a", "c"),))
    assert near_next(made) == (("a", 6), ("b", 5), ("c", 3))


def test_small_and_unknown_objects_count_nothing(put: Put) -> None:
    made = target((put(MIB - 1, "a"), put(None), put(9 * MIB, "b", known=False), put(9 * MIB)), (b"x",), ())
    assert near_next(made) == ()


def test_most_first_then_by_name_and_at_most_four(put: Put) -> None:
    sizes = {"e": 2, "d": 2, "c": 9, "b": 1, "a": 1}
    made = target(*[(put(size * MIB, node),) for node, size in sizes.items()])
    assert near_next(made) == (("c", 9), ("d", 2), ("e", 2), ("a", 1))


def test_nobody_is_asked_where_there_are_no_references(put: Put) -> None:
    assert near_next(target((), (b"bytes",))) == ()
    assert home_of(target(()).backlog[0]) is None
    assert put.asked == []  # type: ignore[attr-defined]


def test_the_look_is_bounded(put: Put) -> None:
    near_next(target(*[(put(MIB, "a"), put(MIB, "a"), put(MIB, "a")) for _ in range(1000)]))
    assert put.asked == [16]  # type: ignore[attr-defined]


def test_each_request_speaks_for_calls_further_back(put: Put) -> None:
    made = target((put(2 * MIB, "a"),), (put(MIB, "b"),), ())
    seen = []
    for number in range(4):
        seen.append(near_next(made))
        made.asked[RequestId(f"me.{number}")] = None
    assert seen == [(("a", 2), ("b", 1)), (("b", 1),), (), ()]


def test_an_actor_goes_by_its_constructor(put: Put) -> None:
    made = target((put(9 * MIB, "a"),))
    made.actor, made.arguments = True, (put(7 * MIB, "b"),)
    assert near_next(made) == (("b", 7),)


def test_a_request_goes_out_when_the_look_fails(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(references: list[Any]) -> dict[Any, Any]:
        raise RuntimeError("Ray hasn't been initialized.")

    made = target((put(9 * MIB, "a"),))
    monkeypatch.setattr(module, "get_local_object_locations", broken)
    assert near_next(made) == ()


def sent(made: Target) -> list[tuple[int, str]]:
    """(call, node) of everything a pump sends."""
    batches: list[tuple[int, str]] = []

    def send(lease: HeldLease, calls: list[Call], seconds: float) -> None:
        lease.open_batches += 1
        for call in calls:
            call.phase = Phase.SENT
            lease.in_flight[call.number] = call
            batches.append((call.number, lease.node))

    pump(made, 0.01, DEPTH, send)
    return batches


def test_a_call_goes_to_a_lease_on_the_node_of_its_arguments(put: Put) -> None:
    made = target((put(MIB, "b"),), (put(MIB, "a"),), (put(MIB, "c"),), (put(MIB, "b"),))
    hold(made, "a", "b")
    assert sent(made) == [(0, "b"), (1, "a"), (2, "a"), (3, "b")]


def test_a_lease_with_less_on_it_goes_first(put: Put) -> None:
    made = target((put(MIB, "b"),))
    _, there = hold(made, "a", "b")
    there.in_flight[99] = made.backlog[0]
    assert sent(made) == [(0, "a")]


def test_a_recalled_lease_on_the_node_is_not_taken(put: Put) -> None:
    made = target((put(MIB, "b"),))
    _, there = hold(made, "a", "b")
    there.recalled = True
    assert sent(made) == [(0, "a")]
