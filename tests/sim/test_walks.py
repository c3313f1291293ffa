"""Random scenarios: whatever happens, the books hold, every job ends or says why it waits, and the journal replays."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from flexray.config import PoolConfig
from flexray.sim.journal import check_replay, what_if
from flexray.sim.result import collect
from flexray.sim.scenario import parse_scenario, simulate

_GANGS = [{"size": 2}, {"size": 4, "min": 1}, {"size": 3, "min": 2, "layout": "spread"}]


def scenario(seed: int) -> dict[str, Any]:
    """Some nodes, some requests of every kind, and nodes that come and go meanwhile."""
    rng = random.Random(seed)
    devices = ["2xnvidia/T4", "1xnvidia/A100-80GB, 2xnvidia/T4", "4xascend/910B"]
    nodes = [{"name": f"n{i}", "devices": rng.choice(devices), "cpus": rng.choice([0, 4, 8])} for i in range(3)]
    requests = [entry(rng, f"r{i}") for i in range(rng.randint(3, 15))]
    events = []
    for _ in range(rng.randint(0, 8)):
        what = rng.choice(
            ["node_down", "node_up", "cordon", "drain", "uncordon", "device_sick", "device_well", "cancel"]
        )
        node = rng.choice(nodes)
        target = rng.choice(requests)["id"] if what == "cancel" else node["name"]
        if what.startswith("device"):
            target += "/npu0" if "ascend" in node["devices"] else "/gpu0"
        events.append({"at": 40 * rng.random(), what: target})
    kind = requests[0].get("class", "r0")
    return {
        "version": 1,
        "policy": rng.choice(["pack", "spread"]),
        "nodes": nodes,
        "requests": requests,
        "events": events,
        "slowdown": {f"{kind}, {kind}, nvidia/*": 1.5},
        "costs": {"start": rng.choice([0, 0.6])},
        "config": {"rematch_seconds": 3},
        "until": rng.choice([10, 2000]),
    }


def entry(rng: random.Random, name: str) -> dict[str, Any]:
    """One request, or some."""
    made: dict[str, Any] = {"id": name, "at": rng.choice([0, 1, 30 * rng.random()]), "priority": rng.randint(0, 2)}
    made["duration"] = rng.choice([0.0001, 1, 5, 20])
    if rng.random() < 0.1:
        made["cpus"] = 2
    else:
        made[rng.choice(["gpu", "gpu", "npu", "accelerator"])] = rng.choice([0.25, 0.333, 0.5, 1, 2])
        made |= {"memory": "20GiB"} if rng.random() < 0.2 else {}
    made |= {"class": rng.choice("xy")} if rng.random() < 0.4 else {}
    made |= {"count": rng.randint(1, 9)} if rng.random() < 0.4 else {}
    made |= {"checkpoint_every": 2} if rng.random() < 0.3 else {}
    made |= {"gang": rng.choice(_GANGS)} if rng.random() < 0.25 else {}
    made |= {"preemptible": True} if rng.random() < 0.3 else {}
    return made


@pytest.mark.parametrize("seed", range(25))
def test_a_walk(seed: int) -> None:
    data = scenario(seed)
    journal: list[str] = []
    simulation = simulate(parse_scenario(data), check=True, record=journal.append)
    result = collect(simulation)
    for one in result.requests:
        assert one.state.value != "waiting" or one.wait_reason or one.submitted > result.end
        assert all(before.ended != "done" for before in one.attempts[:-1])
    for course in simulation.courses.values():
        for attempt in course.attempts:
            assert attempt.end is None or attempt.end >= attempt.start
            if attempt.ended == "done":
                assert attempt.end is not None and attempt.end - attempt.start >= attempt.setup + attempt.need
    entries = [json.loads(line) for line in journal]
    config = PoolConfig(policy=data["policy"], **data["config"])
    assert check_replay(entries, config).same
    what_if(entries, config)
