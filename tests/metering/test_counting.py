"""What is counted, from events and commands; what there is now, from a snapshot of a real core."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.views import snapshot
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.commands import Command, FailRequest, GrantLease, RecallLease, RevokeLease, StartSlice
from flexray.model.devices import Device, DeviceState, DeviceType, Family, Inventory
from flexray.model.events import (
    Event,
    LeaseReleased,
    NodeReported,
    QueuesConfigured,
    RequestCancelled,
    RequestSubmitted,
    SessionClosed,
    SessionOpened,
    SliceEnded,
    SliceFailed,
    SliceStarted,
    TasksRan,
)
from flexray.model.gang import Gang
from flexray.model.lease import EnvironmentId, LeaseId, RequestId, SessionId, SliceId
from flexray.model.lifecycle import EndReason, RecallReason
from flexray.model.queue import Queue
from flexray.model.request import Request
from flexray.telemetry.counting import Counting
from flexray.telemetry.gauges import gauges
from flexray.telemetry.metrics import METRICS, Kind, prometheus_name
from flexray.telemetry.tally import Key, Tally

ME = SessionId("me")
CARD = DeviceType("nvidia/T4", MemoryMiB(16_000))


class Watched:
    """A core with an observer, and a clock that is turned by hand. Every slice starts a second after its order."""

    def __init__(self) -> None:
        self.now = 100.0
        self.tally = Tally()
        self.counting = Counting(self.tally)
        self.core = build_scheduler(PoolConfig(), 1)
        card = Device("n/gpu0", "n", 0, CARD, Family.GPU, "fake")
        self.see(NodeReported(Inventory("n", "node", (card,))), SessionOpened(ME, EnvironmentId("e")))

    def see(self, *events: Event) -> list[Command]:
        """Take events in and decide until nothing follows."""
        out: list[Command] = []
        line = list(events)
        while line:
            for event in line:
                self.counting.saw(event, self.now)
                self.core.apply(event, self.now)
            commands = list(self.core.decide(self.now))
            self.counting.decided(commands, self.now)
            out += commands
            line = [SliceStarted(one.slice) for one in commands if isinstance(one, StartSlice)]
            self.now += 1.0 if line else 0.0
        return out

    def submit(self, name: str, **fields: object) -> list[Command]:
        """Ask for a part of the card."""
        request = Request(**{"share": Share(250), "memory": MemoryMiB(4_000), **fields})  # type: ignore[arg-type]
        return self.see(RequestSubmitted(RequestId(name), ME, EnvironmentId("e"), "work", request))

    def totals(self) -> dict[Key, float]:
        """Counters."""
        return dict(self.tally.report({}).totals)


@pytest.fixture
def pool() -> Watched:
    return Watched()


def test_a_request_from_its_submission_to_its_end(pool: Watched) -> None:
    granted = [one for one in pool.submit("me.1") if isinstance(one, GrantLease)]
    lease = granted[0].lease.lease
    pool.see(TasksRan(lease, 7, 3.5), LeaseReleased(lease))
    report = pool.tally.report({})
    for name, value in {
        "requests.submitted": 1,
        "leases.granted": 1,
        "tasks.run": 7,
        "tasks.run.time": 3.5,
    }.items():
        assert report.totals[f"flexray.{name}", ("default",)] == value
    assert report.totals["flexray.requests.ended", ("default", "done")] == 1
    assert report.totals["flexray.slices.started", ("nvidia/T4",)] == 1
    assert sorted(report.durations) == [
        (("flexray.request.wait.duration", ("default",)), 1.0),
        (("flexray.slice.start.duration", ("nvidia/T4",)), 1.0),
    ]
    assert pool.tally.report({}).durations == ()


def test_a_repeated_message_counts_once_and_a_name_that_is_no_queue_is_no_label(pool: Watched) -> None:
    pool.submit("me.1")
    pool.submit("me.1")
    pool.submit("me.2", queue="made up, one a day")
    totals = pool.totals()
    assert totals["flexray.requests.submitted", ("default",)] == 1
    assert totals["flexray.requests.ended", ("other", "unknown_queue")] == 1
    assert not any("made up" in label for _, labels in totals for label in labels)
    pool.see(QueuesConfigured((Queue("team"),)))
    pool.submit("me.3", queue="team")
    assert pool.totals()["flexray.requests.submitted", ("team",)] == 1


def test_how_requests_end(pool: Watched) -> None:
    pool.submit("me.1", share=Share(1000), memory=MemoryMiB(16_000))
    pool.submit("me.2")
    pool.submit("me.3")
    pool.submit("me.4", memory=MemoryMiB(99_000))
    pool.see(RequestCancelled(RequestId("me.2")))
    pool.see(SessionClosed(ME))
    ended = {labels[1]: value for (name, labels), value in pool.totals().items() if name == "flexray.requests.ended"}
    assert ended == {"infeasible": 1, "cancelled": 1, "session_ended": 2}
    assert not pool.counting.sessions


def test_a_gang_is_one_request_with_several_leases(pool: Watched) -> None:
    leases = [one.lease.lease for one in pool.submit("me.1", gang=Gang(2)) if isinstance(one, GrantLease)]
    assert len(leases) == 2
    report = pool.tally.report({})
    assert report.totals["flexray.leases.granted", ("default",)] == 2
    assert [key for key, _ in report.durations].count(("flexray.request.wait.duration", ("default",))) == 1
    pool.see(LeaseReleased(leases[0]))
    assert ("flexray.requests.ended", ("default", "done")) not in pool.totals()
    pool.see(LeaseReleased(leases[1]))
    assert pool.totals()["flexray.requests.ended", ("default", "done")] == 1


def test_what_goes_wrong_with_slices_and_leases() -> None:
    tally = Tally()
    counting = Counting(tally)
    lease = LeaseId(RequestId("me.1"), 1)
    counting.saw(SliceFailed(SliceId("s1"), "no"), 0.0)
    for cause in ("memory", "host_memory", "node_memory", "died", "what nobody knows", ""):
        counting.saw(SliceEnded(SliceId("s2"), "text of a user", (), cause), 0.0)
    counting.decided(
        [
            RecallLease(ME, lease, stop=True, reason=RecallReason.RECLAIM),
            RecallLease(ME, lease, stop=False, reason=RecallReason.STARVING),
            RevokeLease(ME, lease, EndReason.NODE_LOST, "", True),
            FailRequest(ME, RequestId("nobody's"), EndReason.INFEASIBLE, ""),
        ],
        0.0,
    )
    assert dict(tally.report({}).totals) == {
        ("flexray.slices.failed", ("other",)): 1,
        **{("flexray.slices.memory_kills", (kind,)): 1 for kind in ("device", "host", "node")},
        **{("flexray.slices.ended", (c,)): 1 for c in ("memory", "host_memory", "node_memory", "died", "other")},
        ("flexray.preemptions", ("reclaim",)): 1,
        ("flexray.leases.recalled", ("starving",)): 1,
        ("flexray.leases.lost", ("node_lost",)): 1,
    }


def test_gauges_of_a_snapshot(pool: Watched) -> None:
    pool.submit("me.1")
    pool.submit("me.2", share=Share(1000), memory=MemoryMiB(16_000))
    pool.now += 50.0
    found = gauges(snapshot(pool.core.state, pool.now, 3, 0), 1)
    device = ("n/gpu0", "nvidia/T4", "n")
    assert found["flexray.device.compute.held", device] == 0.25
    assert found["flexray.device.memory.held", device] == 4_000 * 2**20
    assert found["flexray.queue.waiting", ("default",)] == 1
    assert found["flexray.queue.running", ("default",)] == 1
    assert found["flexray.queue.waiting.oldest", ("default",)] == 50.0
    assert found["flexray.requests.waiting", ("no_room",)] == 1
    assert found["flexray.slices", ("held",)] == 1
    assert found["flexray.scheduler.epoch", ()] == 3
    states = {state.value: found["flexray.device.state", (*device, state.value)] for state in DeviceState}
    assert states == {state.value: float(state is DeviceState.READY) for state in DeviceState}


def test_the_table_has_every_gauge_and_its_labels(pool: Watched) -> None:
    pool.submit("me.1")
    found = gauges(snapshot(pool.core.state, pool.now, 1, 0), 1)
    assert {name for name, _ in found} == {one.name for one in METRICS.values() if one.kind is Kind.GAUGE}
    assert all(len(labels) == len(METRICS[name].labels) for name, labels in found)


def test_names_are_told_apart_by_prometheus_and_histograms_have_buckets() -> None:
    names = [prometheus_name(one) for one in METRICS.values()]
    assert len(set(names)) == len(names)
    for one in METRICS.values():
        assert (one.kind is Kind.HISTOGRAM) == bool(one.buckets)
        assert list(one.buckets) == sorted(set(one.buckets))


def test_durations_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexray.telemetry.tally._KEPT", 5)
    tally = Tally()
    took: Callable[[str, float], None] = tally.took
    for _ in range(50):
        took("flexray.scheduler.cycle.lag", 0.1)
    assert len(tally.report({}).durations) == 5
