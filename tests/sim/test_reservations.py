"""Small requests run in room that is reserved for large ones, and delay none of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexray.core.reserved import earliest_start
from flexray.model.lease import RequestId
from flexray.model.lifecycle import RecallReason
from flexray.sim.clock import Simulation
from flexray.sim.jobs import FREE, Costs, JobState, seconds
from flexray.sim.scenario import config_of, inventory_of, jobs_of, parse_scenario

NODES = [{"name": "n1", "devices": "2xnvidia/A100-80GB", "cpus": 4}]

entries = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(0, 40),
            "gpu": st.sampled_from([0.25, 0.25, 0.5, 0.5, 0.75, 1, 1, 2]),
            "duration": st.integers(1, 40),
            "cpus": st.sampled_from([0, 0, 1, 3]),
            "how": st.sampled_from([{}, {}, {"preemptible": True, "checkpoint_every": 1}]),
        }
    ),
    min_size=4,
    max_size=30,
)


class Watched:
    """A simulation with true run times in which every reservation is held to the start it was promised first."""

    def __init__(self, requests: list[dict[str, Any]], costs: Costs = FREE, **config: Any) -> None:
        data = {"version": 1, "policy": "pack", "nodes": NODES, "requests": requests, "config": config}
        scenario = parse_scenario(data)
        nodes = [inventory_of(one) for one in scenario.nodes]
        jobs = list(jobs_of(scenario))
        self.promised: dict[str, float] = {}
        self.lent = 0
        self.late: list[str] = []
        self.simulation = Simulation(config_of(scenario, None), nodes, jobs, costs=costs, check=True, record=self.look)
        self.simulation.run()

    def look(self, line: str) -> None:
        """After each cycle: what is planned first for its room, when it can start, and whether that has passed."""
        entry = json.loads(line)
        if "commands" not in entry:
            return
        state, now = self.simulation.core.state, entry["now"]
        self.lent += sum(1 for record in state.slices.by_id.values() if record.lent_until is not None)
        taken: set[str] = set()
        for planned in state.slices.pending.values():
            rows = {*planned.placement.devices, *([planned.placement.node] if any(planned.host) else [])}
            if not rows & taken:
                start = earliest_start(state, planned, now, unknown=float("inf"))
                promise = self.promised.setdefault(planned.id, start)
                if now > promise + 1e-6:
                    self.late.append(f"{planned.request} was to start at {promise}, now it is {now}")
            taken |= rows


def numbered(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests of one length are of one class, so that what is learnt of it is right."""
    return [
        {"id": f"r{i}", "class": f"d{one['duration']}", "known": "true", **one.pop("how", {}), **one}
        for i, one in enumerate(found)
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(found=entries)
def test_no_reservation_is_delayed_when_run_times_are_right(found: list[dict[str, Any]]) -> None:
    watched = Watched(numbered([dict(one) for one in found]), lease_term_seconds=1)
    assert watched.late == []
    assert {course.state for course in watched.simulation.courses.values()} == {JobState.DONE}


TERM, SHORT, START = 5.0, 1.0, 0.6


@pytest.mark.parametrize("known", ["true", "none"])
@pytest.mark.parametrize("classes", [1, 3, 200])
def test_a_large_request_does_not_starve_behind_a_stream_of_small_ones(known: str, classes: int) -> None:
    """More small ones come than there is room for; each holds a quarter of one of the two devices for a second."""
    small = [
        {"id": f"s{i}", "at": i / 8, "gpu": 0.25, "duration": SHORT, "class": f"c{i % classes}", "known": known}
        for i in range(200)
    ]
    large = {"id": "large", "at": 3, "gpu": 2, "duration": 5}
    watched = Watched([*small, large], Costs(start=START), lease_term_seconds=TERM)
    (attempt,) = watched.simulation.courses[RequestId("large")].attempts
    looked, in_its_way = 0.5, START + SHORT
    assert 3 + TERM < seconds(attempt.start) <= 3 + TERM + looked + in_its_way + START


def test_what_fits_before_a_reservation_runs_and_what_does_not_waits() -> None:
    """EASY backfill: half a device is free until the large one can start at 60."""
    rows = [("long", 0, 0.5, 60), ("large", 1, 2, 10), ("other", 0, 1, 60), ("s", 10, 0.5, 20), ("l", 11, 0.5, 60)]
    rows += [("t", 12, 0.5, 10), ("u", 13, 0.25, 5)]
    watched = Watched([{"id": i, "at": at, "gpu": g, "duration": d, "known": "true"} for i, at, g, d in rows])
    starts = {name: seconds(course.attempts[0].start) for name, course in watched.simulation.courses.items()}
    assert starts == {"long": 0, "other": 0, "large": 60, "s": 10, "t": 30, "u": 40, "l": 70}
    assert watched.lent and not watched.late


def test_work_that_saves_its_state_runs_until_the_rest_is_there() -> None:
    """Nobody knows how long the first takes: work that can be stopped runs beside it, other work does not."""
    saves = {"preemptible": True, "checkpoint_every": 5}
    rows = [("first", 0, 0.5, 60, {}), ("other", 0, 1, 60, {}), ("large", 1, 2, 10, {})]
    rows += [("no", 7, 0.5, 20, {}), ("yes", 8, 0.5, 200, saves)]
    watched = Watched(
        [{"id": i, "at": at, "gpu": g, "duration": d, "known": "none", **how} for i, at, g, d, how in rows],
        Costs(start=0, checkpoint=1, restore=0),
    )
    found = {name: [(seconds(a.start), a.ended) for a in c.attempts] for name, c in watched.simulation.courses.items()}
    assert found["large"] == [(61, "done")] and found["no"] == [(71, "done")]
    assert found["yes"] == [(11, "preempted"), (71, "done")]
    ((_, command),) = watched.simulation.preemptions
    assert (command.reason, command.winner) == (RecallReason.BACKFILL, "large")
