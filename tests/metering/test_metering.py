"""The loop that hands reports over: whoever exports may be slow, or fail, and the others go on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from flexray.model.snapshot import Snapshot
from flexray.runtime import metering, ray_metrics
from flexray.telemetry.tally import Report, Tally

EMPTY = Snapshot(0.0, 1, (), (), (), (), (), ())


class Sink:
    """Keeps reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def take(self, report: Report) -> None:
        self.reports.append(report)


class Broken:
    """Raises whatever it is given."""

    def take(self, report: Report) -> None:
        raise RuntimeError("its library is ill")


class Stuck:
    """Does not come back until it is let go."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    def take(self, report: Report) -> None:
        self.entered.set()
        self.let_go.wait(60)


def made(monkeypatch: pytest.MonkeyPatch, *sinks: Any) -> metering.Metering:
    monkeypatch.setattr(metering, "RayMetrics", Sink)
    one = metering.Metering([], lambda: EMPTY, 0.01)
    one._sinks = list(sinks)
    return one


def test_a_sink_that_fails_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Sink()
    one = made(monkeypatch, Broken(), good)

    async def run() -> None:
        loop = asyncio.create_task(one.run())
        while len(good.reports) < 3:
            await asyncio.sleep(0.01)
        loop.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert one.notes == ("metrics: Broken has failed and is left out: its library is ill",)


def test_a_sink_that_hangs_does_not_stop_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck()
    one = made(monkeypatch, stuck)

    async def run() -> None:
        loop = asyncio.create_task(one.run())
        while not stuck.entered.is_set():
            await asyncio.sleep(0.01)
        for _ in range(10):  # the event loop goes on
            one.woken()
            one.cycle_ended(one.cycle_began())
            await asyncio.sleep(0)
        loop.cancel()
        stuck.let_go.set()

    asyncio.run(asyncio.wait_for(run(), 60))
    names = [key[0] for key, _ in one._tally.report({}).durations]
    assert names.count("flexray.scheduler.cycle.lag") == names.count("flexray.scheduler.decide.duration") == 10


def test_ray_is_told_of_growth_only_and_series_that_are_over_are_0(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, float, dict[str, str]]] = []

    class Fake:
        def __init__(self, name: str, *_: Any, **__: Any) -> None:
            self._name = name

        def inc(self, value: float, labels: dict[str, str]) -> None:
            told.append((self._name, "inc", value, labels))

        def set(self, value: float, labels: dict[str, str]) -> None:
            told.append((self._name, "set", value, labels))

    monkeypatch.setattr(ray_metrics.ray_metrics, "Counter", Fake)
    monkeypatch.setattr(ray_metrics.ray_metrics, "Gauge", Fake)
    sink, tally = ray_metrics.RayMetrics(), Tally()
    tally.count("flexray.leases.granted", "a", by=2)
    sink.take(tally.report({("flexray.queue.waiting", ("a",)): 4.0}))
    tally.count("flexray.leases.granted", "a")
    sink.take(tally.report({}))
    sink.take(tally.report({}))
    assert told == [
        ("flexray_leases_granted", "inc", 2.0, {"queue": "a"}),
        ("flexray_queue_waiting", "set", 4.0, {"queue": "a"}),
        ("flexray_leases_granted", "inc", 1.0, {"queue": "a"}),
        ("flexray_queue_waiting", "set", 0.0, {"queue": "a"}),
    ]


def test_a_pool_that_cannot_be_looked_at_is_said_once_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(monkeypatch)
    monkeypatch.setattr(one, "_picture", lambda: 1 / 0)
    asyncio.run(asyncio.wait_for(one.run(), 60))
    asyncio.run(asyncio.wait_for(one.close(), 60))
    assert [note.partition(":")[0] for note in one.notes] == [
        "metrics are not reported any more",
        "the last metrics are not reported",
    ]
