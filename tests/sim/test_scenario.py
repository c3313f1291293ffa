"""Scenarios as a table: what is there, what comes, and when everything starts and ends."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flexray.errors import FlexrayError, UsageError
from flexray.sim.foresight import Foresight
from flexray.sim.reading import read_yaml
from flexray.sim.result import AttemptResult, Result, as_json
from flexray.sim.scenario import inventory_of, json_schemas, load_scenario, parse_scenario, run_scenario, simulate

ONE = [{"name": "n1", "devices": "1xnvidia/A100-80GB", "cpus": 4, "host_memory": "64GiB"}]
TWO = [{"name": "n1", "devices": "2xnvidia/A100-80GB", "cpus": 4}]
NODES = [{"name": name, "devices": "1xnvidia/T4"} for name in ("n1", "n2")]


def request(name: str, duration: Any = 10, **keys: Any) -> dict[str, Any]:
    return {"id": name, "gpu": 1, "duration": duration, **keys}


def run(**keys: Any) -> Result:
    keys = {"version": 1, "policy": "pack", "nodes": ONE, **keys}
    return run_scenario(parse_scenario(keys), check=True)


def life(attempts: list[AttemptResult]) -> str:
    """``0.6-10.6 done, 11.2- running`` and so on."""
    return ", ".join(
        f"{one.start:g}-{'' if one.end is None else f'{one.end:g}'} {one.ended or 'running'}" for one in attempts
    )


@dataclass
class Case:
    """``expect``: per request, its state (with the wait reason) and its attempts."""

    name: str
    requests: list[dict[str, Any]]
    expect: dict[str, str]
    keys: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("a start costs, then the work", [request("a")], {"a": "done: 0.6-10.6 done"}),
    Case("nothing costs", [request("a")], {"a": "done: 0-10 done"}, {"costs": {"start": 0}}),
    Case(
        "the next of its class finds the slice warm",
        [request("a", count=2)],
        {"a/0": "done: 0.6-10.6 done", "a/1": "done: 10.6-20.6 done"},
    ),
    Case(
        "a warm start may cost too",
        [request("a", count=2)],
        {"a/0": "done: 0.6-10.6 done", "a/1": "done: 10.6-21.1 done"},
        {"costs": {"warm_start": 0.5}},
    ),
    Case(
        "another class starts a slice of its own, at the same instant",
        [request("a"), request("b")],
        {"a": "done: 0.6-10.6 done", "b": "done: 11.2-21.2 done"},
    ),
    Case(
        "classes that differ in their request share no slice",
        [request("a", **{"class": "c"}), request("b", memory="1GiB", **{"class": "c"})],
        {"a": "done: 0.6-10.6 done", "b": "done: 11.2-21.2 done"},
    ),
    Case(
        "shares of one device run side by side",
        [request("a", gpu=0.5, count=2)],
        {"a/0": "done: 0.6-10.6 done", "a/1": "done: 0.6-10.6 done"},
    ),
    Case(
        "priority goes first, then the file's order",
        [request("a", priority=0), request("b", priority=1), request("c", priority=1)],
        {"a": "done: 21.8-31.8 done", "b": "done: 0.6-10.6 done", "c": "done: 11.2-21.2 done"},
    ),
    Case(
        "0.1 + 0.2 is 0.3: a completion comes before an arrival of its instant",
        [request("a", 0.2, at=0.1), request("b", 1, at=0.3)],
        {"a": "done: 0.1-0.3 done", "b": "done: 0.3-1.3 done"},
        {"costs": {"start": 0}},
    ),
    Case(
        "time is up: some run, some wait and say why",
        [request("a"), request("b"), request("c", cpus=1, at=2)],
        {"a": "running: 0.6- running", "b": "waiting no_room: ", "c": "waiting no_room: "},
        {"until": 4},
    ),
    Case(
        "free in total, not on one device",
        [request("a", gpu=0.6, count=2), request("b", gpu=0.8)],
        {"a/0": "running: 0.6- running", "a/1": "running: 0.6- running", "b": "waiting fragmented: "},
        {"until": 4, "nodes": TWO},
    ),
    Case(
        "host cores",
        [request("a", gpu=0.1, cpus=3), request("b", gpu=0.1, cpus=2)],
        {"a": "running: 0.6- running", "b": "waiting host_cpus: "},
        {"until": 4},
    ),
    Case(
        "a part of a node, without any device",
        [{"id": "a", "cpus": 4, "duration": 10}, {"id": "b", "host_memory": "60GiB", "cpus": 1, "duration": 5}],
        {"a": "done: 0.6-10.6 done", "b": "done: 11.2-16.2 done"},
    ),
    Case("too many devices", [request("a", gpu=2)], {"a": "infeasible: "}),
    Case("too much memory", [request("a", memory="81GiB")], {"a": "infeasible: "}),
    Case("no such type", [request("a", types=["amd/*"])], {"a": "infeasible: "}),
    Case(
        "a lost node costs the work done there",
        [request("a")],
        {"a": "done: 0.6-5 node_lost, 5.6-15.6 done"},
        {"nodes": NODES, "events": [{"at": 5, "node_down": "WHERE"}]},
    ),
    Case(
        "a checkpoint saves what is before it, and restoring costs",
        [request("a", checkpoint_every=2)],
        {"a": "done: 0.6-5.6 node_lost, 6.2-13.2 done"},
        {"nodes": NODES, "events": [{"at": 5.6, "node_down": "WHERE"}]},
    ),
    Case(
        "a node that comes later",
        [request("a", types=["nvidia/T4"], at=3)],
        {"a": "done: 3.6-13.6 done"},
        {"nodes": NODES, "events": [{"at": 1, "node_down": "n1"}, {"at": 2, "node_up": "n1"}]},
    ),
    Case(
        "a suspect device takes nothing new, and lets what runs go on",
        [request("a", count=2)],
        {"a/0": "done: 0.6-10.6 done", "a/1": "done: 20-30 done"},
        {"events": [{"at": 1, "device_suspect": "n1/gpu0"}, {"at": 20, "device_well": "n1/gpu0"}]},
    ),
    Case(
        "work moves off a sick device: at once where it may be preempted, else when it is done",
        [
            request("a", preemptible=True, checkpoint_every=2, types=["nvidia/A100*"]),
            request("b", types=["nvidia/A100*"]),
        ],
        {"a": "done: 0-4 preempted, 20-26 done", "b": "done: 0-10 done"},
        {
            "nodes": [{"name": "n1", "devices": "2xnvidia/A100-80GB"}],
            "costs": {"start": 0, "restore": 0, "checkpoint": 0},
            "events": [
                {"at": 4, "device_sick": "n1/gpu0"},
                {"at": 4, "drain": "n1/gpu1"},
                {"at": 20, "device_well": "n1/gpu0"},
            ],
        },
    ),
    Case(
        "what runs on a lost device ends",
        [request("a", checkpoint_every=2)],
        {"a": "done: 0-5 device_lost, 20-26 done"},
        {
            "costs": {"start": 0, "restore": 0},
            "events": [{"at": 5, "device_lost": "n1/gpu0"}, {"at": 20, "device_well": "n1/gpu0"}],
        },
    ),
    Case(
        "cordoned and sick: both have to end, and a node that was away keeps them",
        [request("a", at=9)],
        {"a": "done: 20-30 done"},
        {
            "costs": {"start": 0},
            "events": [
                {"at": 1, "cordon": "n1"},
                {"at": 2, "device_sick": "n1/gpu0"},
                {"at": 3, "uncordon": "n1"},
                {"at": 4, "node_down": "n1"},
                {"at": 5, "node_up": "n1"},
                {"at": 20, "device_well": "n1/gpu0"},
            ],
        },
    ),
    Case(
        "a cordoned node",
        [request("a", at=2)],
        {"a": "waiting devices_sick: "},
        {"events": [{"at": 1, "cordon": "n1"}], "until": 9},
    ),
    Case(
        "cancelled before it comes, while it waits, while it runs",
        [request("a", at=8), request("b", at=1), request("c"), request("d", at=4)],
        {"a": "cancelled: ", "b": "cancelled: ", "c": "cancelled: 0.6-5 cancelled", "d": "done: 5.6-15.6 done"},
        {"events": [{"at": 2, "cancel": "a"}, {"at": 3, "cancel": "b"}, {"at": 5, "cancel": "c"}]},
    ),
    Case(
        "neighbours slow each other down as long as they are neighbours",
        [request("a", 10, gpu=0.5), request("b", 4, gpu=0.5)],
        {"a": "done: 0-12 done", "b": "done: 0-4 done"},
        {"slowdown": {"a, b, nvidia/*": 2}, "costs": {"start": 0}},
    ),
    Case(
        "durations by type",
        [request("a", {"nvidia/T4": 5, "*": 7}), request("b", {"nvidia/*": 3}, types="nvidia/A100*")],
        {"a": "done: 0-5 done", "b": "done: 0-3 done"},
        {"nodes": [*ONE, {"name": "n2", "devices": [{"type": "T4"}]}], "costs": {"start": 0}},
    ),
    Case(
        "a type nobody knows",
        [request("a", types="acme/*", memory="32GiB")],
        {"a": "done: 0.6-10.6 done"},
        {"nodes": [{"name": "n1", "devices": [{"type": "acme/X1", "memory": "32GiB", "speed": 0.5}]}]},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_scenarios(case: Case) -> None:
    keys = {"requests": case.requests, **case.keys}
    if "WHERE" in json.dumps(keys):
        first = run(**{**keys, "events": []}).requests[0].attempts[0].node
        keys = json.loads(json.dumps(keys).replace("WHERE", first))
    result = run(**keys)
    found = {
        one.id: f"{one.state.value}{f' {one.wait_reason}' if one.wait_reason else ''}: {life(one.attempts)}"
        for one in result.requests
    }
    assert found == case.expect


def test_linked_devices_of_a_scenario() -> None:
    groups = ["1xnvidia/T4", {"type": "nvidia/A100-80GB", "count": 4, "links": 2}, {"type": "nvidia/L4", "count": 2}]
    (node,) = parse_scenario({"version": 1, "nodes": [{"name": "n", "devices": groups}]}).nodes
    assert [(d.id, d.numa, d.links) for d in inventory_of(node).devices] == [
        ("n/gpu0", -1, ()),
        ("n/gpu1", 0, ((2, 1),)),
        ("n/gpu2", 0, ((1, 1),)),
        ("n/gpu3", 1, ((4, 1),)),
        ("n/gpu4", 1, ((3, 1),)),
        ("n/gpu5", -1, ()),
        ("n/gpu6", -1, ()),
    ]


def test_devices_that_are_cut_into_parts() -> None:
    devices = [{"type": "nvidia/A100-40GB", "count": 1, "profiles": "mig"}, {"type": "910B3", "profiles": "vnpu"}]
    requests = [request("a", gpu=0.3), request("b", gpu=0.5), request("c", gpu=0.1)]
    requests += [{"id": "d", "duration": 5, "npu": 0.3}, {"id": "e", "duration": 5, "npu": 1}]
    result = run(nodes=[{"name": "n1", "devices": devices}], requests=requests)
    found = {one.id: [(a.profile, a.share, a.memory_mib) for a in one.attempts] for one in result.requests}
    assert found == {
        "a": [("3g.20gb", 0.428, 20480)],
        "b": [("4g.20gb", 0.571, 20480)],
        "c": [("1g.5gb", 0.142, 5120)],
        "d": [("vir10_3c_32g", 0.5, 32768)],
        "e": [("", 1.0, 65536)],
    }


def test_an_infeasible_request_says_what_ruled_the_devices_out() -> None:
    (one,) = run(requests=[request("a", memory="81GiB")]).requests
    assert one.removed == {"memory": 1}
    assert "Ask for less" in one.message


def test_lost_seconds_are_counted() -> None:
    result = run(
        nodes=NODES[:1],
        requests=[request("a", checkpoint_every=2), request("b", 1, at=20)],
        events=[{"at": 5.6, "node_down": "n1"}],
        until=30,
    )
    assert [attempt.lost for attempt in result.requests[0].attempts] == [1.0]
    assert result.summary.lost_seconds == 1.0


def test_use_is_counted_by_type_and_queue() -> None:
    nodes = [*TWO, {"name": "n2", "devices": "1xnvidia/T4"}]
    result = run(nodes=nodes, requests=[request("a", 10, gpu=2)], costs={"start": 0}, until=20)
    a100, t4 = result.types
    assert (a100.type, a100.devices, a100.device_seconds, a100.held_seconds, a100.utilisation) == (
        "nvidia/A100-80GB", 2, 40.0, 20.0, 0.5,
    )  # fmt: skip
    assert (t4.held_seconds, t4.use) == (0.0, [])
    (queue,) = result.queues
    assert (queue.name, queue.mean_devices, queue.mean_normalised) == ("default", 1.0, 1.0)
    assert [(use.at, use.devices) for use in queue.use] == [(0.0, 2.0), (10.0, 0.0)]


def test_capacity_follows_the_nodes() -> None:
    result = run(nodes=NODES, events=[{"at": 5, "node_down": "n1"}, {"at": 8, "node_up": "n1"}], until=10)
    assert result.types[0].device_seconds == 17.0


def test_the_scheduler_is_told_what_known_says() -> None:
    keys = {"runtime": 99.0, "duration": {"nvidia/*": 5, "*": 7}}
    told = {}
    for known in ("none", "declared", "true"):
        journal: list[str] = []
        data = {"version": 1, "nodes": ONE, "requests": [{"id": "a", "gpu": 1, "known": known, **keys}]}
        simulate(parse_scenario(data), record=journal.append)
        events = [entry["event"] for entry in map(json.loads, journal) if "event" in entry]
        (asked,) = [e["request"] for e in events if e["kind"] == "RequestSubmitted"]
        told[known] = (asked.get("runtime"), [tuple(pair) for pair in asked.get("throughput", ())])
        (ran,) = [e["seconds"] for e in events if e["kind"] == "TasksRan"]
        assert ran == 5.0
    assert told == {"none": (None, []), "declared": (99.0, []), "true": (7.0, [("nvidia/*", 1.0), ("*", 5 / 7)])}


WRONG = [
    ({"version": 2}, "version: Input should be 1"),
    ({"nodse": []}, "nodse: unknown key. Did you mean 'nodes'?"),
    ({"requests": [request("a", gpuu=1)]}, "requests[0].gpuu (a): unknown key. Did you mean 'gpu'?"),
    ({"requests": [request("a", memory=8)]}, 'write a number with a unit, such as "8GiB"'),
    ({"requests": [request("a", memory="8")]}, 'write a number with a unit, such as "8GiB"'),
    ({"requests": [request("a", gpu=1.5)]}, "gpu=1.5 is neither a fraction of one device"),
    ({"requests": [{"id": "a", "duration": 1}]}, "say how much of a device is needed"),
    ({"requests": [request("a", at=-1)]}, "requests[0].at (a)"),
    ({"requests": [request("a", float("nan"))]}, "finite number"),
    ({"requests": [request("a", {})]}, "duration"),
    ({"requests": [request(True)]}, "YAML reads it as True, so put it in quotes"),  # type: ignore[arg-type]
    ({"requests": [request("a"), request("a")]}, "two requests are called 'a'"),
    ({"requests": [request("a", count=3), request("a/1")]}, "two requests are called 'a/1'"),
    ({"requests": [{"id": "a", "duration": 1, "known": "true"}]}, "say how much of a device is needed"),
    ({"nodes": ONE + ONE}, "two nodes are called 'n1'"),
    ({"requests": [request("a", {"nvidia/T4": 1})]}, "may run on nvidia/A100-80GB and has no duration for it"),
    ({"nodes": [{"name": "n", "devices": "2*T4"}]}, "write <count>x<type>, such as 2xnvidia/A100-80GB"),
    ({"nodes": [{"name": "n", "devices": "2xnvidia/A100-80G"}]}, "Did you mean 'nvidia/A100-80GB'?"),
    (
        {"nodes": [{"name": "n", "devices": [{"type": "T4", "count": 5, "links": 2}]}]},
        "groups of 2 do not divide the 5",
    ),
    (
        {"nodes": [{"name": "n", "devices": [{"type": "T4", "profiles": "mig"}]}]},
        "mig cuts no 'T4'; the catalog has parts for ['nvidia/A30', 'nvidia/A100-40GB'",
    ),
    (
        {"nodes": [{"name": "n", "devices": [{"type": "A30", "memory": "20GiB", "profiles": "mig"}]}]},
        "parts are of 24576 MiB of 'A30'; leave memory: out",
    ),
    ({"events": [{"at": 1, "node_down": "n2"}]}, "node_down: there is no 'n2'. Known: n1"),
    ({"events": [{"at": 1, "device_sick": "n1"}]}, "device_sick: there is no 'n1'"),
    ({"events": [{"at": 1}]}, "an event is exactly one of node_down"),
    ({"events": [{"at": 1, "cancel": "a", "cordon": "n1"}]}, "this one has 2 of them"),
    ({"slowdown": {"a, b": 2}}, "must be [class, class beside it, device type]"),
    ({"slowdown": {"a, b, *": 2}}, "no request is of class 'a'"),
    ({"policy": "pakc"}, "Did you mean 'pack'?"),
    ({"config": {"policy": "spread"}}, "name it once"),
    ({"config": {"warm": 1}}, "warm"),
    ({"requests": [request("a", queue="q")]}, "request 'a': unknown queue 'q'"),
    ({"queues": [{"name": "q", "parent": "p"}]}, "unknown parent 'p'"),
    ({"queues": [{"name": "g"}, {"name": "q", "parent": "g"}], "requests": [request("a", queue="g")]}, "is a group"),
    ({"queues": [{"name": "q", "quota": {"nvidia/T4": -1}}]}, "greater than or equal to 0"),
    ({"requests": [request("a", gang={"size": 2, "min": 3})]}, "request 'a': gang=(3, 2)"),
    ([1], "must be a mapping"),
]


@pytest.mark.parametrize(("keys", "problem"), WRONG, ids=[problem for _, problem in WRONG])
def test_what_is_wrong_is_said(keys: Any, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(**keys) if isinstance(keys, dict) else parse_scenario(keys)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("a: [", "is not YAML"),
        ("{a: !!python/object:os.system x}", "is not YAML"),
        ("? {b: 1}\n: 2", "cannot be a key"),
    ],
)
def test_yaml_is_read_strictly(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        read_yaml(path)
    with pytest.raises(FlexrayError, match="cannot read"):
        read_yaml(tmp_path / "nothing.yaml")


def test_lists_may_be_keys(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("{[a, b, nvidia/T4]: 1.5}")
    assert read_yaml(path) == {"a, b, nvidia/T4": 1.5}


def test_the_same_file_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    nodes = [{"name": f"n{i}", "devices": "2xnvidia/T4, 1xnvidia/L4", "cpus": 8} for i in range(3)]
    shares = [request(f"r{i}", 3 + i, gpu=0.3, at=i / 3, count=4, cpus=1) for i in range(6)]
    events = [{"at": 4.5, "node_down": "n1"}, {"at": 6, "node_up": "n1"}, {"at": 7, "cancel": "r3"}]
    path.write_text(json.dumps({"version": 1, "nodes": nodes, "requests": shares, "events": events}))
    code = "from flexray.cli import main; main()"
    command = [sys.executable, "-c", code, "simulate", "--scenario", str(path), "--json"]
    runs = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0].decode().strip() == as_json(run_scenario(load_scenario(path)))
    Result.model_validate_json(runs[0].replace(b'"class"', b'"class_"'))


def test_the_schemas_are_published() -> None:
    schemas = json_schemas()
    assert list(schemas) == ["scenario", "result", "comparison"]
    assert "class" in schemas["scenario"]["$defs"]["RequestEntry"]["properties"]
    assert "class" in schemas["result"]["$defs"]["RequestResult"]["properties"]
    assert schemas["scenario"]["additionalProperties"] is False
    json.dumps(schemas)


DOCS = Path(__file__).parents[2] / "docs"


def test_the_documented_example_gives_the_documented_output(tmp_path: Path) -> None:
    """If a change is meant, put what ``flexray simulate --scenario FILE --json`` prints into docs/simulator.md."""
    text = (DOCS / "simulator.md").read_text()
    (tmp_path / "example.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    assert (
        as_json(run_scenario(load_scenario(tmp_path / "example.yaml"))) + "\n"
        == (text.split("```json\n")[1].split("```")[0])
    )


def test_the_documented_schemas_are_those_of_this_version() -> None:
    """Made by ``flexray simulate --schema --json``. By their keys: versions of pydantic word the rest differently."""

    def keys(schemas: dict[str, Any]) -> dict[str, Any]:
        named = {name: {name: schema, **schema["$defs"]} for name, schema in schemas.items()}
        return {
            f"{name}.{part}": sorted(schema.get("properties", ()))
            for name, parts in named.items()
            for part, schema in parts.items()
        }

    assert keys(json.loads((DOCS / "simulator.schema.json").read_text())) == keys(json_schemas())


# -- preemptible work ------------------------------------------------------------------------

MIXED = [{"name": "n", "devices": "1xnvidia/A100-80GB, 1xnvidia/T4"}]
LITTLE = {"nvidia/A100-80GB": 3600, "nvidia/T4": 4000}
MUCH = {"nvidia/A100-80GB": 3600, "nvidia/T4": 18000}


@pytest.mark.parametrize("every", [60, None])
def test_a_preemptible_job_makes_way_and_loses_what_it_had_not_saved(every: int | None) -> None:
    shared = {"gpu": 1, "known": "true", "preemptible": True, "checkpoint_every": every}
    result = run(
        policy="balanced",
        nodes=MIXED,
        requests=[{"id": "little", "duration": LITTLE, **shared}, {"id": "much", "duration": MUCH, **shared}],
        config={"grace_seconds": 5, "rematch_seconds": 30},
        costs={"start": 0, "checkpoint": 1, "restore": 2},
    )
    little, much = result.requests
    first, second, *rest = little.attempts
    assert (first.devices, second.devices) == (["n/gpu0"], ["n/gpu1"])
    began, moved = much.attempts  # on what there was, until the next round
    assert (began.devices, moved.devices) == (["n/gpu1"], ["n/gpu0"]) and moved.start >= first.end
    assert first.ended == "preempted" and first.start == 0
    if every:
        assert first.lost == 1  # what it did while it saved its state
        (third,) = rest  # the fast device is free again, and it keeps what it has done
        left = 1 - (first.end - 1) / 3600 - (second.end - 1 - second.start - 2) / 4000
        assert third.end == pytest.approx(third.start + 2 + left * 3600, abs=1e-5)
    else:
        assert first.lost == first.end and second.end == second.start + 4000 and not rest


def test_a_job_without_preemptible_is_left_alone() -> None:
    jobs = [{"id": name, "gpu": 1, "known": "true", "duration": d} for name, d in (("l", LITTLE), ("m", MUCH))]
    result = run(nodes=MIXED, requests=jobs, costs={"start": 0})
    assert [len(one.attempts) for one in result.requests] == [1, 1]


# -- queues ------------------------------------------------------------------------------------


def test_shares_follow_quotas_and_weights() -> None:
    result = run(
        nodes=[{"name": f"n{n}", "devices": "10xnvidia/A100-80GB"} for n in range(10)],
        queues=[{"name": "a", "quota": 10, "weight": 3}, {"name": "b", "quota": 10, "weight": 1}],
        requests=[{"id": name, "gpu": 1, "queue": name, "count": 100, "duration": 100} for name in "ab"],
        costs={"start": 0},
        until=50,
    )
    assert {queue.name: queue.mean_devices for queue in result.queues} == {"a": 70.0, "b": 30.0}


def test_a_team_gets_back_what_it_was_promised_and_the_loss_is_recorded() -> None:
    result = run(
        nodes=TWO,
        queues=[{"name": "a", "quota": 1}, {"name": "b", "quota": 1}],
        requests=[
            {
                "id": "a",
                "gpu": 1,
                "queue": "a",
                "count": 2,
                "duration": 100,
                "preemptible": True,
                "checkpoint_every": 10,
            },
            {"id": "b", "at": 30, "gpu": 1, "queue": "b", "duration": 40},
        ],
        costs={"start": 0, "checkpoint": 1, "restore": 2},
        config={"rematch_seconds": 0},  # with rounds the two of a would take turns
    )
    (taken,) = result.preemptions
    assert (taken.at, taken.reason, taken.winner, taken.lost) == (30, "reclaim", "b", 1)
    b = next(one for one in result.requests if one.id == "b")
    assert [(a.start, a.end) for a in b.attempts] == [(31, 71)]
    victim = next(one for one in result.requests if one.id == taken.victim)
    assert life(victim.attempts) == "0-31 preempted, 71-143 done"  # 30 s are kept: 2 s to restore, and the other 70


def test_a_queue_changes_while_others_go_on() -> None:
    result = run(
        nodes=TWO,
        queues=[{"name": "a", "limit": 1}],
        requests=[{"id": "a", "gpu": 1, "queue": "a", "count": 2, "duration": 30}],
        events=[{"at": 10, "queue": {"name": "a", "limit": 2}}],
        costs={"start": 0},
    )
    assert [one.attempts[0].start for one in result.requests] == [0, 10]


def test_estimated_starts_are_those_that_come_true_where_run_times_do() -> None:
    """A start is reckoned with a second and takes 1 s here; the fourth request comes when the third has begun."""
    requests = [
        request("a", 100, **{"class": "x"}, runtime=100),
        request("b", 50, at=1, runtime=50),
        request("c", 10, at=2, runtime=10, priority=1),
        request("late", 10, at=120, runtime=10),
    ]
    result = run(requests=requests, costs={"start": 1}, config={"lease_term_seconds": 1000})
    starts = {one.id: one.attempts[0].start for one in result.requests}
    said = {one.id: (one.estimated_start.first, one.estimated_start.last) for one in result.requests}
    # ``c`` goes before ``b``, which was not known when ``b`` was first told
    assert said == {"a": (None, None), "b": (102.0, 113.0), "c": (102.0, 102.0), "late": (164.0, 164.0)}
    assert starts == {"a": 1.0, "b": 113.0, "c": 102.0, "late": 164.0}


def test_only_as_many_starts_are_estimated_as_the_budget_allows() -> None:
    requests = [request("r", 5, count=20, runtime=5), *[request(f"s{n}", 5, at=n, runtime=5) for n in (9, 10)]]
    scenario = parse_scenario({"version": 1, "nodes": ONE, "requests": requests})
    said = {}
    for budget in (0.0, 1.0, math.inf):
        foresight = Foresight(budget)
        simulate(scenario, foresight=foresight)
        said[budget] = [foresight.said_of(name)[0] is not None for name in ("r/0", "r/1", "s9", "s10")]
    assert said == {0.0: [False] * 4, 1.0: [False, True, False, False], math.inf: [False, True, True, True]}
    assert run_scenario(scenario, all_estimates=True) == run_scenario(scenario)
