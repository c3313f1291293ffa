"""Gangs in scenarios: members in step, work that is kept, restarts together."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from test_scenario import life, run

from flexray.config import PoolConfig
from flexray.sim.journal import check_replay, what_if
from flexray.sim.scenario import parse_scenario, simulate

FOUR = [{"name": "n1", "devices": "4xnvidia/T4"}]
SIX = [{"name": name, "devices": "2xnvidia/T4"} for name in ("n1", "n2", "n3")]


def gang(size: int, least: int | None = None, **keys: Any) -> dict[str, Any]:
    return {"id": "g", "gpu": 1, "duration": 40, "gang": {"size": size, **({"min": least} if least else {})}, **keys}


def single(name: str, duration: float, **keys: Any) -> dict[str, Any]:
    return {"id": name, "gpu": 1, "duration": duration, **keys}


@dataclass
class Case:
    """``expect``: of some requests, the state and the attempts; ``lost``: seconds of work, of all together."""

    name: str
    requests: list[dict[str, Any]]
    expect: dict[str, str]
    nodes: list[dict[str, Any]] = field(default_factory=lambda: FOUR)
    keys: dict[str, Any] = field(default_factory=dict)
    lost: float = 0.0


CASES = [
    Case("all at once, for as long as it says", [gang(4)],
         {f"g/0.{n}": "done: 0.6-40.6 done" for n in range(4)}),
    Case("as long again with half of them", [gang(8, 4)],
         {"g/0.0": "done: 0.6-80.6 done", "g/0.3": "done: 0.6-80.6 done", "g/0.4": "cancelled: "}),
    Case("it holds nothing while it waits", [single("a", 10), gang(4, at=1), single("b", 5, at=2)],
         {"a": "done: 0.6-10.6 done", "b": "done: 2.6-7.6 done", "g/0.0": "done: 11.2-51.2 done",
          "g/0.3": "done: 11.2-51.2 done"}, keys={"config": {"lease_term_seconds": 1000}}),
    Case("several of them, one after the other", [gang(4, count=2)],
         {"g/0.0": "done: 0.6-40.6 done", "g/1.0": "done: 41.2-81.2 done", "g/1.3": "done: 41.2-81.2 done"}),
    Case("a lost member brings all back to the last checkpoint",
         [gang(4, checkpoint_every=15), single("x", 30), single("y", 30)],
         {"g/0.0": "done: 0.6-20.6 preempted, 31.2-57.2 done", "g/0.3": "done: 0.6-20.6 node_lost, 31.2-57.2 done"},
         SIX, {"events": [{"at": 20.6, "node_down": "n3"}]}, lost=20.0),
    Case("without a checkpoint to the beginning", [gang(4), single("x", 30), single("y", 30)],
         {"g/0.0": "done: 0.6-20.6 preempted, 31.2-71.2 done"}, SIX,
         {"events": [{"at": 20.6, "node_down": "n3"}]}, lost=80.0),
    Case("an elastic one goes on with those that are left", [gang(4, 2, checkpoint_every=10)],
         {"g/0.0": "done: 0.6-61.6 done", "g/0.2": "cancelled: 0.6-20.6 node_lost"}, SIX[:2],
         {"events": [{"at": 20.6, "node_down": "n2"}], "config": {"rematch_seconds": 0}}),
    Case("it grows when others have ended", [single("a", 10), single("b", 10), gang(4, 2, checkpoint_every=5, at=1)],
         {"g/0.0": "done: 1.6-48.9 done", "g/0.3": "done: 12.2-48.9 done"},
         keys={"config": {"rematch_seconds": 10, "lease_term_seconds": 1000}}),
    Case("a higher priority takes all of it",
         [gang(4, preemptible=True, checkpoint_every=10), single("u", 10, at=20.6, priority=1)],
         {"u": "done: 22.2-32.2 done", "g/0.0": "done: 0.6-21.6 preempted, 32.8-53.8 done"}),
    Case("infeasible", [gang(5)], {"g/0.0": "infeasible: ", "g/0.4": "infeasible: "}),
    Case("cancelled while it waits, and while it runs", [gang(4, count=2)],
         {"g/0.2": "cancelled: 0.6-5 cancelled", "g/1.2": "cancelled: "}, keys={"events": [{"at": 5, "cancel": "g"}]}),
    Case("the slowest member sets the pace", [single("x", 100, gpu=0.5), gang(3, gpu=0.5)],
         {f"g/0.{n}": "done: 0.6-80.6 done" for n in range(3)},
         [{"name": "n1", "devices": "2xnvidia/T4"}], {"slowdown": {"g, x, *": 2}}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_becomes_of_a_gang(case: Case) -> None:
    result = run(nodes=case.nodes, requests=case.requests, **case.keys)
    found = {one.id: f"{one.state.value}: {life(one.attempts)}" for one in result.requests}
    assert {name: found[name] for name in case.expect} == case.expect
    assert result.summary.lost_seconds == case.lost


def test_preemptions_name_the_winner_and_every_member() -> None:
    taken = [gang(4, preemptible=True, checkpoint_every=10), single("u", 10, at=20.6, priority=1)]
    result = run(nodes=FOUR, requests=taken)
    assert [(one.victim, one.winner, one.reason) for one in result.preemptions] == [
        (f"g/0.{n}", "u", "priority") for n in range(4)
    ]
    lost = run(nodes=SIX[:2], requests=[gang(4)], events=[{"at": 5, "node_down": "n2"}], until=20)
    assert lost.preemptions == [], "nobody took anything"


def test_a_journal_with_gangs_is_run_again() -> None:
    lines: list[str] = []
    scenario = {"version": 1, "nodes": FOUR, "policy": "pack", "requests": [gang(4, count=2)]}
    simulate(parse_scenario(scenario), record=lines.append)
    entries, config = [json.loads(line) for line in lines], PoolConfig(policy="pack")
    assert check_replay(entries, config).same
    again = what_if(entries, config)
    assert {name: course.state.value for name, course in again.courses.items()} == {
        f"g/{one}.{n}": "done" for one in range(2) for n in range(4)
    }
