"""Journals, tables, the Azure trace, reports, and the options of ``flexray simulate``."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from flexray.cli import main
from flexray.config import PoolConfig
from flexray.errors import UsageError
from flexray.sim.azure import read_azure
from flexray.sim.journal import check_replay, read_journal, what_if
from flexray.sim.report import results_page
from flexray.sim.result import collect
from flexray.sim.scenario import inventory_of, parse_scenario, run_scenario, simulate
from flexray.sim.table import read_table

DATA = Path(__file__).parents[1] / "data"
SCENARIO = {
    "version": 1,
    "policy": "pack",
    "nodes": [{"name": "n1", "devices": "2xnvidia/A100-80GB", "cpus": 8}, {"name": "n2", "devices": "1xnvidia/T4"}],
    "requests": [
        {"id": "a", "gpu": 0.5, "count": 6, "duration": 10, "cpus": 1, "class": "embed"},
        {"id": "b", "gpu": 2, "at": 3, "duration": 5, "types": "nvidia/A100*"},
    ],
    "events": [{"at": 4, "node_down": "n2"}, {"at": 30, "node_up": "n2"}],
}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal as a pool writes it, of the scenario above."""
    lines: list[str] = []
    simulate(parse_scenario(SCENARIO), record=lines.append)
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def simulate_command(*args: object) -> Any:
    return CliRunner().invoke(main, ["simulate", *map(str, args)])


# -- journals -------------------------------------------------------------------------------


def test_a_journal_replays(journal: Path) -> None:
    result = check_replay(read_journal(journal), PoolConfig(policy="pack"))
    assert (result.same, result.different, result.differences) == (True, 0, [])
    assert result.events > 10 and result.cycles > 5


def test_a_changed_journal_does_not(journal: Path) -> None:
    entries = read_journal(journal)
    at = next(i for i, entry in enumerate(entries) if entry.get("commands"))
    entries[at] = {**entries[at], "commands": []}
    result = check_replay(entries, PoolConfig(policy="pack"))
    assert (result.same, result.different) == (False, 1)
    assert result.differences[0].startswith(f"entry {at + 1}: recorded []")


def test_what_if_nothing_changes_nothing_changes(journal: Path) -> None:
    before = run_scenario(parse_scenario(SCENARIO))
    after = collect(what_if(read_journal(journal), PoolConfig(policy="pack")))
    starts = [[(a.start, a.end, a.devices) for a in one.attempts] for one in before.requests]
    # A lease that was lost counts as held as long as its last attempt, so compare those that had one.
    again = {one.id: [(a.start, a.end, a.devices) for a in one.attempts] for one in after.requests}
    single = {one.id: life for one, life in zip(before.requests, starts, strict=True) if len(life) == 1}
    assert single and {name: again[name] for name in single} == single


def test_what_if_on_other_nodes(journal: Path) -> None:
    node = parse_scenario({"version": 1, "nodes": [{"name": "x", "devices": "6xnvidia/A100-80GB", "cpus": 9}]}).nodes[0]
    after = collect(what_if(read_journal(journal), PoolConfig(policy="pack"), [inventory_of(node)]))
    assert {one.state.value for one in after.requests} == {"done"}
    assert {a.node for one in after.requests for a in one.attempts} == {"x"}
    assert after.summary.wait.max == 0.6


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no entries"),
        ("x\n{}\n", "line 1: is not JSON"),
        ("{}\n", 'line 1: an entry has "now"'),
        ('{"now": 1, "event": {"kind": "Strange"}}\n', "another version"),
    ],
)
def test_a_wrong_journal_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        check_replay(read_journal(path), PoolConfig())


def test_a_line_cut_short_at_the_end_is_left_out(journal: Path) -> None:
    whole = read_journal(journal)
    journal.write_text(journal.read_text() + '{"now": 3, "ev')
    assert read_journal(journal) == whole


# -- tables and traces --------------------------------------------------------------------


def test_a_table_of_requests(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "id,at,gpu,memory,types,duration,duration:nvidia/T4,class,count,preemptible\n"
        "a,0,0.5,4GiB,nvidia/T4|nvidia/L4,10,20,embed,2,yes\n"
        ",1.5,1,,,5,,,,\n"
    )
    first, second = read_table(path)
    assert (first.id, first.count, first.class_, first.memory, first.preemptible) == ("a", 2, "embed", 4096, True)
    assert (first.types, first.duration) == (["nvidia/T4", "nvidia/L4"], {"nvidia/T4": 20.0, "*": 10.0})
    assert (second.id, second.at, second.gpu, second.duration, second.types) == ("row1", 1.5, 1.0, {"*": 5.0}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,gpuu,duration\na,1,1\n", "unknown column 'gpuu'. Did you mean 'gpu'?"),
        ("id,gpu\na,1\n", "line 2: duration: is missing"),
        ("id,gpu,duration\na,x,1\n", "line 2: gpu is 'x'; a number is needed"),
        ("id,gpu,duration,preemptible\na,1,1,maybe\n", "true or false is needed"),
    ],
)
def test_a_wrong_table_is_an_error_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_table(path)
    assert problem in str(caught.value)


def test_parquet_is_a_table_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"id": "a", "gpu": 0.5, "duration": 3, "preemptible": True, "types": None}]
    stand_in = SimpleNamespace(read_table=lambda path: SimpleNamespace(to_pylist=lambda: records))
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(parquet=stand_in))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", stand_in)
    (entry,) = read_table(tmp_path / "t.parquet")
    assert (entry.id, entry.gpu, entry.duration, entry.preemptible, entry.types) == ("a", 0.5, {"*": 3.0}, True, [])


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is there")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pip install pyarrow"):
        read_table(tmp_path / "t.parquet")


def test_the_azure_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,1000,10\n"
        "2023-11-16 18:17:05.4799600,2000,0\n"
    )
    first, second = read_azure(path)
    assert (first.at, first.duration, first.class_) == (0.0, {"*": pytest.approx(0.5)}, "llm")
    assert (second.at, second.duration) == (1.5, {"*": pytest.approx(0.4)})
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,1\n")
    with pytest.raises(UsageError, match="TIMESTAMP is 'noon'"):
        read_azure(path)


# -- reports and the command ----------------------------------------------------------------


def test_a_page_is_self_contained() -> None:
    scenario = parse_scenario({**SCENARIO, "requests": [{"id": "<a&b>", "gpu": 1, "duration": 5}]})
    text = results_page([run_scenario(scenario, policy) for policy in ("pack", "spread")])
    assert "<script" not in text and "&lt;a&amp;b&gt;" in text and "<a&b>" not in text
    assert text.replace("http://www.w3.org/2000/svg", "").count("http") == 0
    body = text.removeprefix("<!doctype html>").replace('<meta charset="utf-8">', "")
    assert len(list(ElementTree.fromstring(body).iter("{http://www.w3.org/2000/svg}svg"))) == 6


def test_the_command_for_scenarios(tmp_path: Path) -> None:
    path, html = tmp_path / "s.yaml", tmp_path / "s.html"
    path.write_text(json.dumps(SCENARIO))
    one = simulate_command("--scenario", path, "--json", "--html", html)
    assert one.exit_code == 0, one.output
    assert json.loads(one.output)["summary"]["requests"] == {"done": 7}
    assert html.read_text().startswith("<!doctype html>")
    both = simulate_command("--scenario", path, "--policy", "pack", "--policy", "spread", "--json")
    assert [run["policy"] for run in json.loads(both.output)["runs"]] == ["pack", "spread"]
    assert "utilisation" in simulate_command("--scenario", path).output


def test_the_command_for_openb() -> None:
    files = ("--openb-nodes", DATA / "openb_excerpt_nodes.csv", "--openb-tasks", DATA / "openb_excerpt_tasks.csv")
    done = simulate_command(*files, "--seeds", "1", "--inflate", "0.2", "--policy", "pack", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.output)
    assert (result["policy"], result["devices"], [one["seed"] for one in result["seeds"]]) == ("pack", 140, [1])
    assert result["mean"]["allocated"]["20"] == pytest.approx(20, abs=1)
    assert "waited" in simulate_command(*files, "--timed").output


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ((), "say what to simulate"),
        (("--table", "t.csv"), "give the nodes with --scenario"),
        (("--openb-nodes", "n.csv"), "belong together"),
        (("--openb-nodes", "n.csv", "--scenario", "s.yaml"), "openb brings its own"),
        (("--scenario", "s.yaml", "--seeds", "1"), "--seeds means nothing"),
        (("--scenario", "nothing.yaml"), "cannot read nothing.yaml"),
        (("--scenario", "s.yaml", "--config", "c.json"), "--config is the configuration of the pool"),
    ],
)
def test_the_command_refuses_what_means_nothing(args: tuple[str, ...], problem: str) -> None:
    done = simulate_command(*args)
    assert (done.exit_code, problem in done.output) == (1, True), done.output


def test_the_command_prints_schemas() -> None:
    assert set(json.loads(simulate_command("--schema", "--json").output)) == {"scenario", "result", "comparison"}
