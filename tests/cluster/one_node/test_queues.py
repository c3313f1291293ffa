"""Two teams on real Ray: what one borrows comes back when the other asks, and nothing is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import flexray as flex
from cluster.conftest import until
from flexray.cli import main

pytestmark = pytest.mark.usefixtures("pool")

TEAMS = [{"name": "a", "quota": 2}, {"name": "b", "quota": 2}]
CONFIG = {"fake_devices": "4xA100-80GB", "grace_seconds": 1, "queues": TEAMS}


def work(log: str, name: str, until_there: str, listens: bool) -> str:
    """Runs until a file is there; gives way when asked, if it listens."""
    with Path(log).open("a") as file:
        file.write(f"{name}\n")
    while not Path(until_there).exists():
        if listens and flex.current().should_yield():
            raise flex.errors.Preempted
        time.sleep(0.02)
    return name


def running_and_waiting(*names: str) -> list[tuple[int, int]]:
    queues = {queue.name: queue for queue in flex.pool().queues}
    return [(queues[name].running, queues[name].waiting) for name in names]


@pytest.mark.parametrize("listens", [True, False], ids=["victims yield at once", "victims ignore it"])
def test_a_team_gets_what_it_was_promised(tmp_path: Path, listens: bool) -> None:
    log, end = tmp_path / "log", tmp_path / "end"
    log.touch()
    task = flex.task(gpu=1, queue="a", retries=0, request=flex.Request(checkpoint_every=None))(work)
    borrowing = [task.remote(str(log), f"a{n}", str(end), listens) for n in range(4)]
    until(lambda: len(log.read_text().split()) == 4)
    time.sleep(1.1)  # the minimum run time
    other = flex.task(gpu=1, queue="b")(work)
    promised = [other.remote(str(log), f"b{n}", str(end), True) for n in range(2)]
    until(lambda: {"b0", "b1"} <= set(log.read_text().split()))
    until(lambda: running_and_waiting("a", "b") == [(2, 2), (2, 0)])
    end.touch()
    assert flex.get(borrowing, timeout=60) == ["a0", "a1", "a2", "a3"]  # uncharged: they had no retries
    assert flex.get(promised, timeout=60) == ["b0", "b1"]
    assert len([line for line in log.read_text().split() if line.startswith("a")]) == 6


def test_why_something_waits_and_when_it_starts(tmp_path: Path) -> None:
    log, end = tmp_path / "log", tmp_path / "end"
    log.touch()
    task = flex.task(gpu=1, queue="a", runtime=600)(work)
    running = [task.remote(str(log), f"a{n}", str(end), True) for n in range(4)]
    until(lambda: len(log.read_text().split()) == 4)
    waits = task.options(gpu=0.5).remote(str(log), "late", str(end), True)
    until(lambda: waits.explain().wait_reason == "no_room")
    found = waits.explain()
    assert found.queue_position == 1 and found.standing.quota == 2.0 and found.nearest.lacks_share == 0.5
    assert found.estimated_start.basis == "declared" and 500 < found.estimated_start.seconds < 602

    def flexray(*arguments: str) -> str:
        done = CliRunner().invoke(main, [*arguments, "--address", "auto"])
        assert done.exit_code == 0, done.output
        return done.output

    told = json.loads(flexray("explain", found.request, "--json"))
    assert (told["wait_reason"], told["nearest"]["place"]) == ("no_room", found.nearest.place)
    assert "start: in about 10 min; run times of the" in flexray("explain", found.request)
    answer = json.loads(flexray("plan", "--gpu", "1", "--queue", "b", "--json"))
    assert (answer["starts"], answer["start"]["basis"], answer["start"]["seconds"] < 5) == ("later", "room", True)
    assert flex.plan(gpu=2, types="nvidia/T4").starts == "never"
    end.touch()
    assert flex.get([*running, waits], timeout=60)[4] == "late"
    until(lambda: flexray("explain", found.request).startswith(f"request {found.request}: done"))
    unknown = CliRunner().invoke(main, ["explain", "nobody", "--address", "auto"])
    assert unknown.exit_code == 3 and "no request 'nobody' is known" in unknown.output


def test_queues_are_shown_and_changed_while_the_pool_runs() -> None:
    run = CliRunner()

    def flexray(*arguments: str) -> str:
        done = run.invoke(main, ["queue", *arguments, "--address", "auto"])
        assert done.exit_code == 0, done.output
        return done.output

    assert {queue["name"] for queue in json.loads(flexray("show", "--json"))["queues"]} == {"a", "b"}
    flexray("set", "c", "--quota", "1", "--parent", "b", "--dry-run")
    assert len(json.loads(flexray("show", "--json"))["queues"]) == 2
    assert "above" in flexray("set", "b", "--quota", "40") or "more than" in flexray("set", "b", "--quota", "40")
    flexray("set", "b", "--quota", "2")
    flexray("set", "c", "--weight", "3")
    task = flex.task(gpu=0.5, queue="c")(work)
    assert task.remote("/dev/null", "c", "/", True).result(60) == "c"
    flexray("remove", "c")
    with pytest.raises(flex.errors.UnknownQueue, match="Known: a, b, default"):  # another class: none is held
        task.options(gpu=0.25).remote("/dev/null", "c", "/", True).result(60)
    failed = run.invoke(main, ["queue", "remove", "d", "--address", "auto"])
    assert failed.exit_code == 3 and "unknown queue 'd'" in failed.output
