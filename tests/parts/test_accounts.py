"""The accounts of a pool: what is kept, what a later scheduler makes of it, and what goes wrong without harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flexray.accounting.report import UsageTable
from flexray.config import PoolConfig
from flexray.errors import UsageError
from flexray.model.commands import GrantLease
from flexray.model.devices import Device, DeviceType, Family, Inventory
from flexray.model.events import LeaseFound, LeaseReleased, NodeReported, RecoveryBegan, RecoveryEnded, SessionOpened
from flexray.model.events import RequestSubmitted as Submitted
from flexray.model.isolation import Isolation
from flexray.model.lease import Lease, LeaseId, Placement
from flexray.model.request import Request
from flexray.model.snapshot import SliceView, Snapshot
from flexray.runtime.accounts import Accounts
from flexray.runtime.kept import USAGE, Kept
from flexray.runtime.usage import SliceUse, UsageReport

NOON = 1_000_000 * 3600.0
PLACE = Placement("n", ("n/gpu0",), 500, 8192)
LEASE = Lease(LeaseId("r", 1), "s1.1", PLACE, "x/y", Isolation.NONE)
SUBMITTED = Submitted("r", "S", "E", "embed/1/2", Request(share=500, memory=8192, queue="default"))
NODE = Inventory("n", "host", (Device("n/gpu0", "n", 0, DeviceType("x/y", 16384, 0.5), Family.GPU, "fake"),))


class Store(dict[bytes, bytes]):
    """A store in memory."""

    def put(self, key: bytes, value: bytes) -> None:
        self[key] = value

    def delete(self, key: bytes) -> None:
        self.pop(key, None)

    def keys(self, prefix: bytes) -> list[bytes]:  # type: ignore[override]
        return [key for key in dict.keys(self) if key.startswith(prefix)]


def accounts(store: Store, now: float = NOON, **config: Any) -> Accounts:
    return Accounts(Kept(store), PoolConfig(**config), now)


def run(one: Accounts, now: float = NOON) -> None:
    """A lease of half a device is granted."""
    for event in (NodeReported(NODE), SessionOpened("S", "E", "eve", "j1"), SUBMITTED):
        one.saw(event, now)
    one.decided([GrantLease("S", LEASE)], now)


def table(one: Accounts, now: float, *by: str, since: float = 0.0) -> UsageTable:
    return one.usage(by or ("user",), since, now, one.read_older(since, now))


def test_usage_is_physical_and_normalised_by_whatever_is_asked() -> None:
    one = accounts(Store())
    run(one)
    for second in range(0, 602, 2):
        busy = 0.1 if second else None
        one.measured("n", UsageReport((SliceUse("s1.1", busy, 2048, 0.0, busy),)), NOON + second)
    found = table(one, NOON + 1000, "user", "job", "class", "type", "node", "queue")
    (row,) = found.rows
    assert row.key == ("eve", "j1", "embed", "x/y", "host", "default") and row.leases == 1
    assert (row.guaranteed, row.granted, row.busy, row.wasted, row.unmeasured) == (500, 500, 60, 240, 200)
    assert (row.compute_granted, row.compute_busy) == (250, 30)
    assert (found.since, found.until, found.total.granted) == (NOON, NOON + 1000, 500)
    assert [one.key for one in table(one, NOON + 4000, "hour").rows] == [("3600000000",), ("3600003600",)]
    with pytest.raises(UsageError, match="usage by 'moon': give some of queue, user"):
        table(one, NOON, "moon")


def test_a_picture_says_whose_slices_are() -> None:
    one = accounts(Store())
    run(one)
    views = tuple(SliceView(name, "n", (), 0.5, 1, "held", "none", "f", "r", "S", 0.0) for name in ("s1.1", "s1.2"))
    shot = one.with_owners(Snapshot(NOON, 1, (), (), views, (), (), ()))
    assert [(view.user, view.job) for view in shot.slices] == [("eve", "j1"), ("", "")]


def test_a_later_scheduler_goes_on_where_the_record_ends() -> None:
    store = Store()
    first = accounts(store)
    run(first)
    first.save(NOON + 3590)
    second = accounts(store, NOON + 3700)
    assert table(second, NOON + 3700).total.granted == pytest.approx(3590 / 2)
    for event in (NodeReported(NODE), RecoveryBegan(), SessionOpened("S", "E", "eve", "j1")):
        second.saw(event, NOON + 3700)
    second.saw(LeaseFound(SUBMITTED, LEASE, held=3700.0), NOON + 3700)
    second.saw(RecoveryEnded(), NOON + 3701)
    second.decided([], NOON + 3701)
    second.saw(LeaseReleased(LEASE.lease), NOON + 4000)
    assert [(one.start, one.end, one.user) for one in second.history(NOON)] == [(NOON, NOON + 4000, "eve")]
    assert second.history(NOON + 4001) == ()
    assert table(second, NOON + 4000).total.granted == pytest.approx(2000)
    second.save(NOON + 4000)
    assert table(accounts(store, NOON + 4000), NOON + 4000, since=NOON + 3600).total.granted == pytest.approx(200)


@pytest.mark.parametrize("in_folder", [False, True])
def test_old_hours_are_dropped_or_stay_in_the_folder(
    tmp_path: Path, in_folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    monkeypatch.setattr("flexray.runtime.accounts._DAYS", 0.5)
    config: dict[str, Any] = {"usage_kept": str(tmp_path / "usage") if in_folder else 0.5}
    one = accounts(store, **config)
    run(one)
    one.save(NOON + 7200)
    one.saw(LeaseReleased(LEASE.lease), NOON + 7200)
    later = NOON + 14 * 3600
    one.save(later)
    assert table(one, later).total.granted == pytest.approx(3600 if in_folder else 0)
    again = accounts(store, later, **config)
    assert table(again, later).total.granted == pytest.approx(3600 if in_folder else 0)
    assert table(again, later, since=NOON + 3600).total.granted == pytest.approx(1800 if in_folder else 0)
    assert bool(store.keys(USAGE)) is False
    if in_folder:
        files = sorted(path.name for path in (tmp_path / "usage").iterdir())
        assert files == ["usage=1000000.json", "usage=1000001.json"]


def test_a_damaged_hour_is_set_aside() -> None:
    store = Store()
    one = accounts(store)
    run(one)
    one.save(NOON + 7000)
    store[USAGE + b"1000000"] = b"{"
    kept = Kept(store)
    two = Accounts(kept, PoolConfig(), NOON + 7000)
    assert "'usage:1000000' could not be read" in kept.notes[0]
    assert table(two, NOON + 7000).total.granted == pytest.approx(3400 / 2)


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store()
    one = accounts(store, usage_kept=str(tmp_path / "file"))
    assert "usage is kept for 7 days in Ray's store instead" in one.notes[0]
    run(one)
    one.save(NOON + 100)
    assert store.keys(USAGE)
    folder = tmp_path / "usage"
    two = accounts(Store(), usage_kept=str(folder))
    run(two)
    folder.rmdir()
    two.save(NOON + 100)
    assert "usage cannot be kept now" in two.notes[0]
    folder.mkdir()
    two.save(NOON + 200)
    assert two.notes == [] and list(folder.iterdir())


def test_a_fault_of_the_accounts_is_told_and_stops_nothing() -> None:
    one = accounts(Store())
    run(one)
    one.measured("n", UsageReport((SliceUse("s1.1", 0.1, 1, 0.0, "?"),)), NOON)  # type: ignore[arg-type]
    one.measured("n", UsageReport((SliceUse("s1.1", 0.1, 1, 0.0, "?"),)), NOON + 2)  # type: ignore[arg-type]
    assert "usage is not counted rightly" in one.notes[0]
    assert table(one, NOON + 10).total.granted == 5


def test_what_classes_need_outlives_the_scheduler() -> None:
    store = Store()
    one = accounts(store)
    run(one)
    for second in range(0, 402, 2):
        one.measured("n", UsageReport((SliceUse("s1.1", 0.15, 2150, 0.0, 0.15),)), NOON + second)
    one.save(NOON + 402)
    (advice,) = accounts(store, NOON + 402).advice([("embed/1/2", "x/y", 3.0, 0.0), ("embed/1/2/steps", "x/y", 9, 9)])
    assert (advice.task, advice.share, advice.memory, advice.call_seconds) == ("embed", 0.15, 3072, 1.0)
    assert (advice.samples, advice.seconds, advice.leases, advice.sure.value) == (201, 400, 1, "medium")
