"""How a client packs calls, and how many leases it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from flexray.config import PoolConfig
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.lease import Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.request import Request
from flexray.runtime.call import Call, Phase
from flexray.runtime.dispatch import BURST_DEPTH, DEPTH, batch_seconds, leases_wanted, pump
from flexray.runtime.packing import PackedFunction
from flexray.runtime.protocol import Token
from flexray.runtime.targets import HeldLease, Target

SHORTEST = 2 * PoolConfig().batch_seconds


def target(calls: int, leases: int, mean: float | None) -> Target:
    """A target with calls waiting and leases held."""
    made = Target("key", "f", Request(), PackedFunction("k", b"", ()), print, 3, None)
    made.mean_seconds = mean
    for number in range(calls):
        add(made, number)
    for number in range(leases):
        request = RequestId(f"me.{number}")
        lease = LeaseId(request, 1)
        placement = Placement("node", ("device",), Share(250), MemoryMiB(0))
        held = Lease(lease, SliceId(f"s1.{number}"), placement, "cpu/generic", "none")
        made.leases[lease] = HeldLease(held, None, Token(1, 1, SessionId("me"), lease, b""), made)
    return made


def add(made: Target, number: int) -> Call:
    call = Call(None, made, number)  # type: ignore[arg-type]
    call.phase = Phase.BACKLOG
    made.backlog.append(call)
    return call


def sent(made: Target, depth: int = DEPTH) -> list[int]:
    """The sizes of the batches that a pump sends."""
    sizes: list[int] = []

    def send(lease: HeldLease, calls: list[Call], seconds: float) -> None:
        sizes.append(len(calls))
        lease.open_batches += 1
        for call in calls:
            call.phase = Phase.SENT
            lease.in_flight[call.number] = call

    pump(made, SHORTEST, depth, send)
    return sizes


def test_calls_of_unknown_length_travel_alone() -> None:
    assert sent(target(100, 2, None)) == [1] * 2 * DEPTH


def test_small_calls_share_a_batch_that_runs_for_about_its_time() -> None:
    assert sent(target(400, 2, 0.001)) == [10, 10, 10, 10]


def test_long_calls_travel_alone() -> None:
    assert sent(target(40, 2, 1.0)) == [1] * 2 * DEPTH


def test_a_small_backlog_is_shared_out() -> None:
    sizes = sent(target(8, 4, 1e-6))
    assert sum(sizes) == 8 and max(sizes) == 2


def test_a_deep_backlog_makes_longer_batches_up_to_a_bound() -> None:
    assert batch_seconds(target(10, 4, 0.001), SHORTEST) == SHORTEST
    middle = batch_seconds(target(4_000, 4, 0.001), SHORTEST)
    assert SHORTEST < middle < batch_seconds(target(100_000, 4, 0.001), SHORTEST) == 0.1


def test_a_burst_fills_more_batches_but_not_more_work() -> None:
    made = target(2, 1, 0.001)
    assert sent(made) == [2]
    for number in range(100, 104):
        add(made, number)
        sent(made)
    assert next(iter(made.leases.values())).open_batches == DEPTH
    assert sent(made, BURST_DEPTH) == [3]


def test_a_call_that_has_to_be_alone_is() -> None:
    made = target(3, 1, 0.0001)
    made.backlog[0].alone = True
    assert sent(made) == [1]
    assert next(iter(made.leases.values())).exclusive


def test_what_was_cancelled_in_the_backlog_is_dropped() -> None:
    made = target(4, 1, 0.001)
    for call in list(made.backlog)[:3]:
        call.phase = Phase.DONE
    assert sent(made) == [1]


def test_large_results_come_in_small_batches() -> None:
    made = target(400, 1, 1e-5)
    made.large_results = True
    assert max(sent(made)) <= 8


@pytest.mark.parametrize("change", [{"recalled": True}, {"broken": True}, {"exclusive": True}])
def test_a_lease_that_is_on_its_way_out_gets_nothing(change: dict[str, Any]) -> None:
    made = target(5, 1, 0.001)
    for name, value in change.items():
        setattr(next(iter(made.leases.values())), name, value)
    assert sent(made) == []


def test_no_more_leases_are_asked_for_than_the_work_needs() -> None:
    assert leases_wanted(target(0, 0, None)) == 0
    assert leases_wanted(target(1, 0, None)) == 1
    assert leases_wanted(target(100_000, 0, None)) == 16
    assert leases_wanted(target(1_000, 0, 1e-5)) == 1
    assert leases_wanted(target(40, 0, 0.1)) == 16


def test_asking_grows_by_doubling_however_much_waits() -> None:
    made = target(100_000, 40, 0.1)
    for number, lease in enumerate(made.leases.values()):
        lease.in_flight[10**6 + number] = add(made, 10**6 + number)
    assert leases_wanted(made) == 80
