"""When a client hands an idle lease back."""

from __future__ import annotations

from typing import Any

import pytest

from flexray.model.events import LeaseReleased
from parts.test_backlog import engine
from parts.test_dispatch import target


@pytest.mark.parametrize(
    ("state", "goes"),
    [
        ({}, True),
        ({"streams_waiting": 1}, False),
        ({"streams_waiting": 1, "recalled": True}, True),
    ],
    ids=["nobody wants it", "a stream is about to take it", "it is recalled"],
)
def test_an_idle_lease_goes_back_unless_somebody_waits_for_it(state: dict[str, Any], goes: bool) -> None:
    (made, _), one = engine(linger_seconds=0), target(0, 1, None)
    (lease,) = one.leases.values()
    told: list[Any] = []
    made.leases.session.tell = told.append  # type: ignore[method-assign]
    made.leases.hold(lease)
    for name, value in state.items():
        setattr(lease if name == "recalled" else one, name, value)
    made.leases._sweep()
    assert [type(event) for event in told] == [LeaseReleased] * goes
    assert bool(one.leases) is not goes
