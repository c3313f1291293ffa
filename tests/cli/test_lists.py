"""``flexray devices``, ``slices``, ``queues``, ``requests`` and ``events``, over a pool that was made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from cli.conftest import NODE, SNAPSHOT, Scheduler
from flexray.cli import main, names
from flexray.errors import ClusterUnreachable
from flexray.model import commands, events
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.happening import Happening, Happenings
from flexray.model.lease import LeaseId, Placement
from flexray.model.lifecycle import StopReason
from flexray.model.wire import decode, to_plain
from flexray.tables.words import describe

Run = Callable[..., Result]


def test_devices(flexray: Run) -> None:
    lines = flexray("devices").stdout.splitlines()
    assert lines[1].split() == [
        *("394abc/gpu0", "nvidia/A100-80GB", "ready", "########..", "0.75", "0.25"),
        *("60.0", "GiB", "of", "80.0", "GiB", "none"),
    ]
    assert "sick" in lines[3] and "Xid" not in lines[3] and len(lines) == 4
    assert "Xid 79" in flexray("devices", "-v").stdout and f"{NODE}/gpu2 on host-a" in flexray("devices", "-v").stdout
    assert json.loads(flexray("devices", "--json").stdout) == json.loads(json.dumps(to_plain(SNAPSHOT.devices)))


@pytest.mark.parametrize("target", ["394abc/gpu1", f"{NODE}/gpu1"])
def test_one_device(flexray: Run, target: str) -> None:
    assert [one["id"] for one in json.loads(flexray("devices", target, "--json").stdout)] == [f"{NODE}/gpu1"]
    assert [one["id"] for one in json.loads(flexray("slices", target, "--json").stdout)] == ["s1.3"]


def test_a_node_is_all_its_devices(flexray: Run) -> None:
    for target in ("host-a", NODE, "394"):
        assert len(json.loads(flexray("devices", target, "--json").stdout)) == 3


def test_slices(flexray: Run) -> None:
    lines = flexray("slices").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["slice", "s1.1", "s1.2", "s1.3"]
    assert "held, idle 4 min" in lines[3] and "r-s1.3" in lines[3]
    assert "train/1/2" in flexray("slices", "-v").stdout
    assert [one["id"] for one in json.loads(flexray("slices", "--idle", "--json").stdout)] == ["s1.3"]


def test_queues(flexray: Run) -> None:
    assert [row["name"] for row in json.loads(flexray("queues", "--json").stdout)] == ["default", "prod"]
    assert "prod" in flexray("queues").stdout


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], ["r9", "r10", "r-s1.1"]),
        (["--waiting"], ["r9", "r10"]),
        (["--running"], ["r-s1.1"]),
        (["--queue", "prod"], ["r10"]),
    ],
)
def test_requests(flexray: Run, options: list[str], ids: list[str]) -> None:
    assert [one["id"] for one in json.loads(flexray("requests", *options, "--json").stdout)] == ids
    lines = flexray("requests", *options).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ids


def test_what_is_not_there_has_an_exit_code_of_its_own(flexray: Run, scheduler: Scheduler) -> None:
    scheduler.answers["explain"] = lambda request: None
    for arguments, said in (
        (("devices", "394abc/gpu9"), "there is no device or node '394abc/gpu9'. Did you mean '394abc/gpu"),
        (("requests", "--queue", "prd"), "unknown queue 'prd'. Did you mean 'prod'?"),
        (("explain", "nobody"), "no request 'nobody' is known"),
    ):
        done = flexray(*arguments, code=3)
        assert done.stderr.startswith(f"flexray: {said}") and len(done.stderr.splitlines()) == 1 and not done.stdout


def test_other_errors(flexray: Run, scheduler: Scheduler) -> None:
    def away() -> None:
        raise ClusterUnreachable("no pool")

    scheduler.answers["snapshot"] = away
    assert flexray("devices", code=1).stderr == "flexray: no pool\n"
    assert "No such option" in flexray("devices", "--colour", code=2).stderr


def test_no_colour_and_nothing_cut_where_there_is_no_terminal(flexray: Run) -> None:
    for command in ("devices", "slices", "queues", "requests", "status", "top"):
        assert "\x1b" not in flexray(command).stdout
    assert "…" not in flexray("slices", "-v").stdout


# -- events ------------------------------------------------------------------------------------------

PLACE = Placement("n", (f"{NODE}/gpu0",), Share(250), MemoryMiB(4096))
HAPPENED = (
    Happening(1, 10.0, events.SessionOpened("S", "E", "eve", "j1")),
    Happening(2, 11.0, commands.StopSlice("s1.1", "n", StopReason.MAKE_ROOM)),
    Happening(3, 12.0, events.SliceEnded("s1.1", "killed")),
)


def test_events(flexray: Run, scheduler: Scheduler) -> None:
    scheduler.answers["happenings"] = lambda epoch, after: Happenings(7, 3, HAPPENED)
    lines = [line.partition(" ")[2] for line in flexray("events").stdout.splitlines()]
    assert lines == ["session S opened: job j1 of eve", "stop slice s1.1: make_room", "slice s1.1 has ended: killed"]
    assert len(flexray("events", "-n", "2").stdout.splitlines()) == 2
    assert flexray("events", "-n", "0").stdout == ""
    (plain,) = map(json.loads, flexray("events", "-n", "1", "--json").stdout.splitlines())
    assert plain == {"number": 3, "at": 12.0, "kind": "SliceEnded", "slice": "s1.1", "message": "killed"}


def test_events_are_followed_until_somebody_interrupts(
    flexray: Run, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(epoch: int, after: int) -> Happenings:
        asked.append((epoch, after))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return Happenings(7, len(asked), HAPPENED[len(asked) - 1 : len(asked)])

    scheduler.answers["happenings"] = answer
    monkeypatch.setattr("flexray.cli.lists._FOLLOW_SECONDS", 0.0)
    assert len(flexray("events", "-f", code=130).stdout.splitlines()) == 3
    assert asked == [(0, 0), (7, 1), (7, 2), (7, 3)]


def test_every_kind_has_words() -> None:
    journal = Path(__file__).parents[1] / "data/golden.jsonl"
    kinds = set()
    for entry in map(json.loads, journal.read_text().splitlines()):
        for plain in [entry["event"]] if "event" in entry else entry["commands"]:
            one = decode(plain)
            kinds.add(type(one))
            assert describe(one) != type(one).__name__ and describe(one).isprintable(), one
    lease = LeaseId("r", 2)
    others = (
        events.SessionClosed("S"), events.NodeLost("n"), events.SliceResized("s1"), events.LeaseYielded(lease)
    )  # fmt: skip
    assert kinds | set(map(type, others)) == {*events.EVENTS, *commands.COMMANDS}
    assert list(map(describe, others))[-1] == "what ran on lease r#2 gave way"
    assert all(describe(one) != type(one).__name__ for one in others)
    assert describe(commands.ResizeSlice("s1", PLACE)) == "give slice s1 0.25 and 4.0 GiB of 394abc/gpu0"
    assert describe(events.ResizeAsked(lease, Share(500))).endswith("lease r#2 asks for a share of 0.5")


# -- completion --------------------------------------------------------------------------------------


def complete(*words: str, begun: str) -> list[str]:
    found = ShellComplete(main, {}, "flexray", "_FLEXRAY_COMPLETE").get_completions(list(words), begun)
    return [item.value for item in found]


def test_names_of_the_last_look_are_completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(click, "get_app_dir", lambda name: str(tmp_path / name))
    assert complete("drain", begun="") == []
    names.remember(SNAPSHOT)
    assert complete("drain", begun="394abc/gpu") == ["394abc/gpu0", "394abc/gpu1", "394abc/gpu2"]
    assert complete("devices", begun="h") == ["host-a"]
    assert complete("requests", "--queue", begun="p") == ["prod"]
    assert complete("explain", begun="r1") == ["r10"]
    assert complete(begun="re") == ["requests"]
    assert complete("usage", "--by", begun="queue,u") == ["queue,user"]
    (tmp_path / "flexray/names.json").write_text("[]")
    assert complete("drain", begun="") == []
