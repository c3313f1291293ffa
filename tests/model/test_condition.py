"""The life cycle of a device, as a table of looks at it."""

from __future__ import annotations

import pytest

from flexray.model.condition import CONDITION_TABLE, Condition, Fault, Severity, observe, patience, worst
from flexray.model.devices import DeviceState

FAULTS = {
    "passing": Fault("", Severity.PASSING, "no answer"),
    "condemns": Fault("XID 48", Severity.CONDEMNS, "memory"),
    "gone": Fault("XID 79", Severity.GONE, "off the bus"),
    "note": Fault("XID 31", Severity.NOTE, "page fault"),
    "well": None,
}

# looks: (seconds, what is seen, whether slices are on it), and the state after each; a device returns after 10 s.
STORIES = {
    "a fault that passes": [
        (0, "passing", "busy", "suspect"),
        (5, "well", "busy", "suspect"),
        (14, "well", "busy", "suspect"),
        (15, "well", "busy", "ready"),
    ],
    "well is counted anew after each fault": [
        (0, "passing", "busy", "suspect"),
        (5, "well", "busy", "suspect"),
        (9, "passing", "busy", "suspect"),
        (12, "well", "busy", "suspect"),
        (16, "well", "busy", "suspect"),
        (22, "well", "busy", "ready"),
    ],
    "a fault that does not pass condemns": [
        (0, "passing", "busy", "suspect"),
        (9, "passing", "busy", "suspect"),
        (10, "passing", "busy", "sick"),
        (11, "passing", "empty", "drained"),
        (30, "passing", "empty", "drained"),
    ],
    "a fault that condemns: work goes, then it returns": [
        (0, "condemns", "busy", "sick"),
        (1, "well", "busy", "sick"),
        (30, "well", "busy", "sick"),
        (31, "well", "empty", "ready"),
    ],
    "drained it waits": [
        (0, "condemns", "busy", "sick"),
        (2, "well", "empty", "drained"),
        (11, "well", "empty", "drained"),
        (12, "well", "empty", "ready"),
    ],
    "what passes on a device that is condemned changes nothing": [
        (0, "condemns", "busy", "sick"),
        (1, "passing", "busy", "sick"),
        (2, "note", "empty", "drained"),
        (12, "note", "empty", "ready"),
    ],
    "gone": [
        (0, "passing", "busy", "suspect"),
        (1, "gone", "busy", "lost"),
        (2, "gone", "empty", "drained"),
        (99, "gone", "empty", "drained"),
        (100, "well", "empty", "drained"),
        (110, "well", "empty", "ready"),
    ],
    "faults of applications do no harm": [(0, "note", "busy", "ready"), (1, "note", "busy", "ready")],
}


@pytest.mark.parametrize("looks", STORIES.values(), ids=STORIES)
def test_stories(looks: list[tuple[float, str, str, str]]) -> None:
    condition, states = Condition(), []
    for now, seen, there, _ in looks:
        condition = observe(condition, FAULTS[seen], empty=there == "empty", now=now, recovery=10)
        states.append(condition.state.value)
    assert states == [state for *_, state in looks]
    assert (condition.fault is None) == (condition.state is DeviceState.READY), "it says what is wrong until it is well"


def test_a_device_that_flaps_waits_twice_as_long_each_time() -> None:
    condition, waits, now = Condition(), [], 0.0
    for _ in range(9):
        condition = observe(condition, FAULTS["passing"], empty=True, now=now, recovery=10)
        waits.append(patience(condition, 10))
        now += 1
        condition = observe(condition, None, empty=True, now=now, recovery=10)
        now += waits[-1]
        condition = observe(condition, None, empty=True, now=now, recovery=10)
        assert condition.state is DeviceState.READY
    assert waits == [10, 20, 40, 80, 160, 320, 640, 640, 640], "at most 64 times"


def test_long_after_its_return_a_fault_counts_as_the_first() -> None:
    condition = Condition(falls=3, returned=0.0)
    soon = observe(condition, FAULTS["passing"], empty=True, now=400, recovery=10)
    late = observe(condition, FAULTS["passing"], empty=True, now=401, recovery=10)
    assert (soon.falls, late.falls) == (4, 1), "ten times the 40 s it was watched for"


def test_the_reason_is_the_fault_that_brought_it_there() -> None:
    condition = observe(Condition(), FAULTS["condemns"], empty=False, now=0, recovery=10)
    condition = observe(condition, FAULTS["passing"], empty=True, now=1, recovery=10)
    assert condition.fault == FAULTS["condemns"]
    assert FAULTS["condemns"].describe() == "XID 48: memory"
    assert Fault("XID 31", Severity.NOTE, "page fault", 7).describe() == "XID 31: page fault (process 7)"


def test_the_worst_of_several_faults() -> None:
    order = ["note", "passing", "condemns", "gone"]
    assert worst([]) is None
    assert worst([FAULTS[name] for name in order]) == FAULTS["gone"]
    assert worst([FAULTS["condemns"], FAULTS["passing"]]) == FAULTS["condemns"]


def test_every_way_out_of_ready_leads_back() -> None:
    reached, ahead = set(), {DeviceState.READY}
    while ahead:
        reached |= ahead
        ahead = {after for (before, _), after in CONDITION_TABLE.items() if before in reached} - reached
    for state in reached:
        onward = {state}
        for _ in reached:
            onward |= {after for (before, _), after in CONDITION_TABLE.items() if before in onward}
        assert DeviceState.READY in onward, state
