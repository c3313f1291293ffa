"""Nobody is moved round in circles: with a fixed load and nothing that ends, taking back comes to an end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexray.sim.clock import Simulation
from flexray.sim.jobs import FREE, seconds, ticks
from flexray.sim.scenario import config_of, inventory_of, jobs_of, parse_scenario, queues_of

NODES = [
    {"name": "n1", "devices": "2xnvidia/A100-80GB", "cpus": 4},
    {"name": "n2", "devices": "1xnvidia/T4", "cpus": 8},
]
EVERY = 5.0
LAST_ARRIVAL = 10

quotas = st.sampled_from([{}, {"quota": 0.5}, {"quota": 1}, {"quota": {"nvidia/T4": 1}}, {"quota": {"compute": 1}}])
ways = st.sampled_from([{}, {"preemptible": True}, {"preemptible": True, "checkpoint_every": EVERY}])
wanted = st.fixed_dictionaries(
    {
        "at": st.sampled_from([0, 0, 1, LAST_ARRIVAL]),
        "gpu": st.sampled_from([0.25, 0.5, 0.5, 0.75, 1, 1, 2]),
        "queue": st.sampled_from("abc"),
        "priority": st.integers(0, 2),
        "cpus": st.sampled_from([0, 0, 2]),
        "known": st.sampled_from(["none", "true"]),
        "how": ways,
    }
)
loads = st.lists(wanted, min_size=3, max_size=20)
trees = st.tuples(quotas, quotas, quotas)


def play(load: list[dict[str, Any]], tree: tuple[dict[str, Any], ...], until: float, **config: Any) -> Simulation:
    requests = [
        {"id": f"r{i}", "duration": 1e5, **{k: v for k, v in one.items() if k != "how"}, **one["how"]}
        for i, one in enumerate(load)
    ]
    queues = [{"name": name, **rules} for name, rules in zip("abc", tree, strict=True)]
    data = {"version": 1, "policy": "balanced", "nodes": NODES, "queues": queues, "requests": requests}
    scenario = parse_scenario({**data, "config": config})
    nodes = [inventory_of(one) for one in scenario.nodes]
    jobs, rules = list(jobs_of(scenario)), queues_of(scenario.queues, "queues")
    simulation = Simulation(config_of(scenario, None), nodes, jobs, costs=FREE, queues=rules)
    simulation.run(ticks(until))
    return simulation


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(load=loads, tree=trees)
def test_taking_back_for_quotas_and_priorities_comes_to_an_end(load: list[dict[str, Any]], tree: Any) -> None:
    """Each step takes at least the minimum run time, so that a circle would go on for as long as it is watched."""
    preemptions = play(load, tree, 200, rematch_seconds=0).preemptions
    assert len(preemptions) <= 2 * len(load)
    assert all(seconds(time) <= LAST_ARRIVAL + 2 * len(load) for time, _ in preemptions)


@pytest.mark.parametrize("patience", [20, 3600])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(load=loads, tree=trees)
def test_all_moves_of_a_request_stay_within_its_budget(patience: int, load: list[dict[str, Any]], tree: Any) -> None:
    """Rounds and patience go on for ever where two wait for one device, but cost each a bounded part of its life."""
    until = 400.0
    simulation = play(load, tree, until, rematch_seconds=10, patience_seconds=patience)
    reasons = {"rematch", "starving", "backfill", "defragment"}
    moved = [c.lease.request for _, c in simulation.preemptions if c.reason.value in reasons]
    for request in simulation.core.state.requests.values():
        if request.id in moved and not any(
            c.lease.request == request.id and c.reason.value not in reasons for _, c in simulation.preemptions
        ):
            one_move = until if request.request.checkpoint_every is None else EVERY + 1
            assert request.lost <= 60 + 0.05 * until + one_move
