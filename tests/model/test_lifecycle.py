"""The life-cycle tables, pair by pair."""

from __future__ import annotations

from enum import Enum

import pytest

from flexray.core.records import RequestRecord, SliceRecord
from flexray.errors import InternalError
from flexray.model.lease import Placement
from flexray.model.lifecycle import (
    HOLDING,
    LIVE,
    REQUEST_TABLE,
    SLICE_TABLE,
    RequestState,
    RequestStep,
    SliceState,
    SliceStep,
    follow,
)
from flexray.model.request import Request

TABLES = [
    (REQUEST_TABLE, RequestState, RequestStep, RequestState.QUEUED),
    (SLICE_TABLE, SliceState, SliceStep, SliceState.PENDING),
]
ENDS = {RequestState.DONE, RequestState.FAILED, RequestState.CANCELLED, SliceState.GONE}
PAIRS = [(table, state, step) for table, states, steps, _ in TABLES for state in states for step in steps]


def _name(value: object) -> str:
    return value.value if isinstance(value, Enum) else ""


@pytest.mark.parametrize(("table", "state", "step"), PAIRS, ids=_name)
def test_a_pair_is_in_the_table_or_an_error(table: dict[tuple[Enum, Enum], Enum], state: Enum, step: Enum) -> None:
    before = dict(table)
    if (state, step) in table:
        assert type(follow(table, state, step, "x")) is type(state)
    else:
        with pytest.raises(InternalError, match=f"x: no step '{step.value}' from state '{state.value}'"):
            follow(table, state, step, "x")
    assert table == before


@pytest.mark.parametrize(("table", "states", "steps", "first"), TABLES, ids=["requests", "slices"])
def test_every_state_is_reachable_and_ends_are_final(
    table: dict[tuple[Enum, Enum], Enum], states: type[Enum], steps: type[Enum], first: Enum
) -> None:
    reached, edge = {first}, [first]
    while edge:
        state = edge.pop()
        new = {after for (before, _), after in table.items() if before is state} - reached
        reached |= new
        edge += new
    assert reached == set(states)
    assert {state for state in states if not any(before is state for before, _ in table)} == ENDS & set(states)
    assert {step for _, step in table} == set(steps)


def test_groups_of_states() -> None:
    assert set(RequestState) - ENDS == LIVE
    assert set(SliceState) - {SliceState.PENDING, SliceState.GONE} == HOLDING


def test_an_illegal_step_leaves_the_record_alone() -> None:
    record = SliceRecord("s1", Placement("n", ("n/gpu0",), 1, 1), "E", "c", True, 0, since=3.0)
    with pytest.raises(InternalError, match="slice s1: no step 'hold' from state 'pending'"):
        record.step(SliceStep.HOLD, 9.0)
    assert (record.state, record.since) == (SliceState.PENDING, 3.0)
    request = RequestRecord("r", "S", "E", "c", Request(), True, True, None, 1, 0.0)
    with pytest.raises(InternalError, match="request r: no step 'release' from state 'queued'"):
        request.step(RequestStep.RELEASE)
    assert request.state is RequestState.QUEUED
