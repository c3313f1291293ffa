"""How busy a slice is, and for how long its holder has left it idle."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from flexray.devices.enforcers.enforcer import Cell, Usage
from flexray.model.devices import Device, DeviceType, Family
from flexray.model.snapshot import SliceView, Snapshot
from flexray.runtime.usage import Meter, SliceUse, UsageReport, UsageWatch, with_usage
from flexray.tables import print_status

DEVICES = tuple(Device(f"n/gpu{i}", "n", i, DeviceType("x/y", 8192), Family.GPU, "fake") for i in range(2))
CELL = Cell("s1", DEVICES[:1], 250, 250, 2048)
VIEW = SliceView("s1", "n", ("n/gpu0",), 0.25, 2048, "held", "none", "serve/1", "r1", "S", since=100.0, burst=0.25)


@dataclass
class Slice:
    name: str
    cell: Cell | None
    usage: Usage


def watch() -> UsageWatch[Slice]:
    return UsageWatch(lambda: [], lambda one: one.usage, lambda report: None)


def snapshot(*pieces: SliceView, now: float = 500.0) -> Snapshot:
    return Snapshot(now, 1, (), (), pieces, (), (), ())


def test_busy_is_a_part_of_the_device_over_the_last_seconds() -> None:
    meter = Meter()
    assert meter.look("s1", CELL, Usage(5.0, 300), 100.0) == SliceUse("s1", None, 300, None), "one look tells nothing"
    assert meter.look("s1", CELL, Usage(5.5, 300), 102.0).busy == 0.25
    for second in range(104, 124, 2):
        use = meter.look("s1", CELL, Usage(5.5, 300), float(second))
    assert use.busy == 0.0, "what is long past does not count"


def test_accounts_get_what_was_busy_since_the_look_before() -> None:
    meter = Meter()
    looks = [(0.0, 100.0), (1.0, 102.0), (1.5, 104.0), (0.1, 106.0), (1.1, 108.0)]  # it was started again
    used = [meter.look("s1", CELL, Usage(busy), at).lately for busy, at in looks]
    assert used == [None, 0.5, 0.25, None, 0.5]


def test_several_devices_are_busy_on_average() -> None:
    meter, cell = Meter(), replace(CELL, devices=DEVICES, share=1000)
    meter.look("s1", cell, Usage(0.0, 4096), 0.0)
    assert meter.look("s1", cell, Usage(2.0, 4096), 2.0) == SliceUse("s1", 0.5, 2048, 0.0, 0.5)


def test_idle_begins_when_it_stops_working_and_ends_when_it_works() -> None:
    meter = Meter()
    used = 0.0
    for second in range(0, 60, 2):
        use = meter.look("s1", CELL, Usage(used), float(second))
        used += 0.5 if second < 20 else 0.002
    assert use.idle_seconds == pytest.approx(36, abs=4), "a little is still idle: 0.001 of 0.25"
    assert meter.look("s1", CELL, Usage(used + 0.5), 60.0).idle_seconds == 0.0


def test_an_account_that_goes_back_begins_anew() -> None:
    meter = Meter()
    meter.look("s1", CELL, Usage(5.0), 0.0)
    assert meter.look("s1", CELL, Usage(1.0), 2.0).busy is None
    assert meter.look("s1", CELL, Usage(2.0), 4.0).busy == 0.5


def test_what_nobody_can_tell_is_not_idle() -> None:
    meter = Meter()
    meter.look("s1", CELL, Usage(), 0.0)
    assert meter.look("s1", CELL, Usage(), 100.0) == SliceUse("s1", None, None, None)


def test_a_slice_that_is_gone_is_forgotten() -> None:
    looks = watch()
    one = Slice("s1", CELL, Usage(1.0))
    looks.look([one, Slice("starting", None, Usage())], 0.0)
    assert looks.look([], 2.0) == UsageReport(())
    assert looks.look([one], 4.0).slices[0].busy is None


def test_the_snapshot_has_what_its_nodes_reported() -> None:
    report = UsageReport((SliceUse("s1", 0.01, 700, 1000.0),))
    other = replace(VIEW, id="s2")
    first, second = with_usage(snapshot(VIEW, other), {"n": report}).slices
    assert (first.busy, first.memory_used, first.idle_seconds) == (0.01, 700, 400.0), "its holder came at 100"
    assert second == other
    (warm,) = with_usage(snapshot(replace(VIEW, state="idle")), {"n": report}).slices
    assert warm.idle_seconds == 0.0, "nobody holds it"


def test_status_points_out_idle_holders() -> None:
    text = io.StringIO()
    used = replace(VIEW, busy=0.002, memory_used=512, idle_seconds=240.0, burst=1.0)
    unknown = replace(VIEW, id="s2", idle_seconds=59.0)
    print_status(snapshot(used, unknown), console=Console(file=text, width=200))
    rows = [line.strip() for line in text.getvalue().splitlines()]
    first, second = (next(row for row in rows if row.startswith(name)) for name in ("s1", "s2"))
    assert "held, idle 4 min" in first and "0.25 to 1" in first and "512 MiB of 2.0 GiB" in first and "0.00" in first
    assert "idle" not in second and "?" in second
