"""``flexray usage`` and ``flexray advise``."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import Result

from cli.conftest import Scheduler
from flexray.accounting.advice import advise
from flexray.accounting.ledger import HOUR, UNIT, Holder, Ledger
from flexray.accounting.profiles import ClassKey, Profiles
from flexray.accounting.report import UsageTable, usage_table
from flexray.model.commands import GrantLease
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.events import LeaseReleased, NodeReported, RequestSubmitted, SessionOpened
from flexray.model.isolation import Isolation
from flexray.model.journal_lines import commands_line, event_line
from flexray.model.lease import Lease, LeaseId, Placement
from flexray.model.request import Request

Run = Callable[..., Result]


def ledger() -> Ledger:
    made = Ledger()
    made.speeds = {"nvidia/T4": 0.2}
    for user, hours in (("eve", 3), ("tom", 1)):
        holder = Holder("prod", user, "j1", "embed", "nvidia/T4", "host-a")
        made.hold(holder, 0, hours * HOUR, 500)
        made.at(0, holder).leases += 1
    row = made.at(0, Holder("prod", "eve", "j1", "embed", "nvidia/T4", "host-a"))
    row.measured, row.busy = 1800 * UNIT, 450 * UNIT
    return made


@pytest.fixture
def asked(scheduler: Scheduler) -> list[tuple[Sequence[str], float]]:
    """What the pool was asked."""
    questions = []

    def usage(by: Sequence[str], since: float) -> UsageTable:
        questions.append((by, since))
        return usage_table(ledger(), by, 0.0, 10800.0)

    scheduler.answers["usage"] = usage
    return questions


def test_a_table_in_device_hours(flexray: Run, asked: list[tuple[Sequence[str], float]]) -> None:
    before = time.time()
    lines = flexray("usage", "--since", "90m", "--by", "user").stdout.splitlines()
    assert lines[0] == "device-hours from 1970-01-01T00:00:00Z to 1970-01-01T03:00:00Z"
    assert lines[1].split()[:6] == ["user", "leases", "guaranteed", "granted", "busy", "wasted"]
    assert lines[2].split() == ["eve", "1", "1.500", "1.500", "0.125", "0.375", "1.000", "0.300", "0.025", "25%"]
    assert lines[3].split()[:3] == ["tom", "1", "0.500"] and lines[4].split()[:3] == ["total", "2", "2.000"]
    ((by, since),) = asked
    assert by == ["user"] and before - 5400 <= since <= time.time() - 5400


def test_as_json_and_csv(flexray: Run, asked: list[tuple[Sequence[str], float]], tmp_path: Path) -> None:
    found = json.loads(flexray("usage", "--by", "user,hour", "--since", "2026-01-31", "--json").stdout)
    assert found["by"] == ["user", "hour"] and found["total"]["granted"] == 7200
    assert [row["key"] for row in found["rows"]][:2] == [["eve", "0"], ["eve", "3600"]]
    assert asked == [(["user", "hour"], 1769817600.0)]
    path = tmp_path / "usage.csv"
    assert flexray("usage", "--by", "user,hour", "--csv", str(path)).stdout == ""
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 4 and rows[0]["hour"] == "1970-01-01T00:00:00Z"
    assert sum(float(row["granted"]) for row in rows) == 7200
    assert "cannot write" in flexray("usage", "--csv", str(tmp_path / "no" / "x.csv"), code=1).stderr


def test_as_parquet(flexray: Run, asked: list[tuple[Sequence[str], float]], tmp_path: Path) -> None:
    path = tmp_path / "usage.parquet"
    try:
        import pyarrow.parquet
    except ImportError:
        assert "pip install 'flexray-runtime[parquet]'" in flexray("usage", "--parquet", str(path), code=1).stderr
        return
    flexray("usage", "--by", "user", "--parquet", str(path))
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [(row["user"], row["granted"]) for row in rows] == [("eve", 5400.0), ("tom", 1800.0)]


def test_wrong_options(flexray: Run, asked: list[tuple[Sequence[str], float]]) -> None:
    assert "'moon' is not one of queue, user, job" in flexray("usage", "--by", "user,moon", code=2).stderr
    assert "'week' is neither a time such as 90m" in flexray("usage", "--since", "week", code=2).stderr
    assert asked == []


def test_of_a_journal(flexray: Run, tmp_path: Path) -> None:
    kind = DeviceType("x/y", 16384, 0.5)
    node = Inventory("n", "host-a", (Device("n/gpu0", "n", 0, kind, Family.GPU, "fake"),))
    lease = Lease(LeaseId("r", 1), "s1.1", Placement("n", ("n/gpu0",), 500, 8192), "x/y", Isolation.NONE)
    request = RequestSubmitted("r", "S", "E", "embed/1/2", Request(share=500))
    lines = [event_line(100.0, one) for one in (NodeReported(node), SessionOpened("S", "E", "eve"), request)]
    lines += [commands_line(110.0, [GrantLease("S", lease)]), event_line(7310.0, LeaseReleased(lease.lease))]
    path = tmp_path / "journal"
    path.write_text("\n".join(lines))
    found = json.loads(flexray("usage", "--journal", str(path), "--by", "user,node", "--json").stdout)
    (row,) = found["rows"]
    assert (row["key"], row["granted"], row["compute_granted"], row["busy"]) == (["eve", "host-a"], 3600, 1800, 0)
    last = json.loads(flexray("usage", "--journal", str(path), "--since", "1s", "--json").stdout)
    assert last["total"]["granted"] == 55, "of the last hour"
    assert "cannot read" in flexray("usage", "--journal", str(tmp_path / "none"), code=1).stderr


def test_advice(flexray: Run, scheduler: Scheduler) -> None:
    profiles = Profiles()
    for number in range(100):
        profiles.note(ClassKey("embed", 500, 8192, 1), "s1", "r", (0.18, 2150), 2.0 * number)
    scheduler.answers["advice"] = lambda: advise(profiles)
    first, second = flexray("advise").stdout.splitlines()
    assert "asked 0.5 and 8.0 GiB, used 0.18 and 2.1 GiB at p95; a share of 0.2, memory=3GiB," in first
    assert second == (
        "idle for 4 min: 1 of 394abc0123456789/gpu1, held by request r-s1.3 (train): eve, job j1, session S1"
    )
    found = json.loads(flexray("advise", "--json").stdout)
    assert (found["advice"][0]["share"], found["advice"][0]["verdict"]) == (0.2, "smaller")
    assert [one["id"] for one in found["idle"]] == ["s1.3"]
    scheduler.answers["advice"] = lambda: ()
    assert "nothing is known yet" in flexray("advise").stdout
