"""What is booked of leases is what the core holds, and what the journal says: summed up in another way."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest
from harness import World, node
from walk import CONFIG, _Walker

from flexray.accounting.fold import Fold
from flexray.accounting.ledger import HOUR, UNIT, Ledger
from flexray.accounting.report import usage_table
from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.model.events import (
    HistoryRestored,
    LeaseReleased,
    NodeReported,
    QueuesConfigured,
    RecoveryEnded,
    SessionOpened,
    SliceFound,
)
from flexray.model.holding import Holding
from flexray.model.lifecycle import RequestState, SliceState
from flexray.model.queue import Queue, QueueAmount
from flexray.model.wire import decode

HOLDERS = (RequestState.LEASED, RequestState.DRAINING)


class Books:
    """A fold, and what it says."""

    def __init__(self, counted_until: float = 0.0) -> None:
        self.ledger, self.over = Ledger(), list[Holding]()
        self.fold = Fold(self.ledger, self.over.append, counted_until)

    def feed(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if "event" in entry:
                self.fold.saw(decode(entry["event"]), entry["now"])
            else:
                self.fold.decided([decode(command) for command in entry["commands"]], entry["now"])

    def seconds(self, **where: str) -> float:
        """Device-seconds guaranteed to holders of which all this is true."""
        rows = [(h, a) for _, h, a in self.ledger.rows() if all(getattr(h, k) == v for k, v in where.items())]
        return sum(amounts.guaranteed for _, amounts in rows) / UNIT


def journal_of(seed: int, steps: int, *, cut: bool = False) -> list[dict[str, Any]]:
    """A random walk without the steps that pretend a restart which has not been."""
    walker = _Walker(random.Random(seed), cut=cut)
    walker.steps = [step for step in walker.steps if step[1] != walker.recover]
    for _ in range(steps):
        walker.step()
    walker.world.decide()
    return walker.world.journal


@pytest.mark.parametrize("seed", [1, 5, 17])
def test_what_is_held_is_what_the_core_holds(seed: int) -> None:
    core, books = build_scheduler(PoolConfig(**CONFIG), 1), Books()
    for entry in journal_of(seed, 400, cut=seed % 2 == 1):
        books.feed([entry])
        if "event" in entry:
            core.apply(decode(entry["event"]), entry["now"])
            continue
        core.decide(entry["now"])
        requests = core.state.requests
        mine = {request.lease: request for request in requests.values() if request.state in HOLDERS}
        assert mine.keys() == books.fold.held.keys()
        for lease, held in books.fold.held.items():
            assert held.holder.queue == mine[lease].queue
            assert held.lease.slice == mine[lease].slice
            record = core.state.slices.by_id[held.lease.slice]
            assert record.id in core.state.resizes or held.share == record.placement.share
        assert books.fold.asking.requests.keys() <= requests.keys() | core.state.gangs.keys(), (
            "what is over is forgotten"
        )
    assert len(books.over) > 10


def summed_from(entries: list[dict[str, Any]]) -> dict[str, float]:
    """By device: share x time of its leases, straight from the lines of a journal, with nothing of the fold."""
    sums: dict[str, float] = defaultdict(float)
    since: dict[str, tuple[float, float, list[str]]] = {}
    sessions: dict[str, str] = {}

    def end(lease: str, now: float) -> None:
        begun, share, devices = since.pop(lease, (now, 0.0, []))
        for device in devices:
            sums[device] += (now - begun) * share

    for entry in entries:
        now = entry["now"]
        for one in [entry["event"]] if "event" in entry else entry["commands"]:
            kind, name = one["kind"], json.dumps(one.get("lease"))
            if kind == "GrantLease":
                lease = one["lease"]
                name, place = json.dumps(lease["lease"]), lease["placement"]
                since[name] = (now, place["share"] / 1000, place["devices"])
                sessions[name] = one["session"]
            elif kind in ("LeaseReleased", "RevokeLease"):
                end(name, now)
            elif kind == "SessionClosed":
                for lease in [lease for lease in since if sessions[lease] == one["session"]]:
                    end(lease, now)
            elif kind == "AnswerResize" and one.get("placement") and name in since:
                devices = since[name][2]
                end(name, now)
                since[name] = (now, one["placement"]["share"] / 1000, devices)
    for lease in list(since):
        end(lease, entries[-1]["now"])
    return dict(sums)


@pytest.mark.parametrize("seed", range(2))
def test_sums_reconcile_with_the_journal(seed: int) -> None:
    entries, books = journal_of(seed, 400), Books()
    books.feed(entries)
    books.fold.settle(entries[-1]["now"])
    by_device = summed_from(entries)
    assert by_device
    for number in range(3):
        mine = sum(amount for device, amount in by_device.items() if device.startswith(f"n{number}/"))
        assert books.seconds(node=f"n{number}") == pytest.approx(mine, abs=1e-3)
    assert books.seconds() == pytest.approx(sum(by_device.values()), abs=1e-3)


def test_an_hour_gets_what_was_held_in_it() -> None:
    world, books = World(node("n", "2xA100")), Books()
    world.apply(SessionOpened("T", "E", "eve", "job7"))
    world.now = 3000.0
    world.submit("r", session="T", gpu=0.5, task_class="embed/1/2")
    world.settle()
    world.now = 7800.0
    world.release("r")
    books.feed(world.journal)
    rows = {hour: (holder, amounts.guaranteed / UNIT) for hour, holder, amounts in books.ledger.rows()}
    assert {hour: seconds for hour, (_, seconds) in rows.items()} == {0: 300.0, 1: 1800.0, 2: 300.0}
    assert rows[0][0] == ("default", "eve", "job7", "embed", "nvidia/A100-80GB", "n")
    (over,) = books.over
    assert (over.start, over.end, over.ended, over.user, over.device_seconds) == (3000, 7800, "released", "eve", 2400)
    assert [hour for hour, _, _ in books.ledger.rows(since=3600.0, until=7200.0)] == [1]


def test_an_hour_comes_back_as_it_was_kept() -> None:
    books, other = Books(), Ledger()
    books.feed(journal_of(1, 150))
    books.fold.settle(5000.0)
    for hour in books.ledger.hours:
        other.restore(hour, json.loads(json.dumps(books.ledger.plain(hour))))
    assert list(other.rows()) == list(books.ledger.rows()) and other.hours
    assert other.speeds.items() <= books.ledger.speeds.items()
    with pytest.raises(ValueError, match="another length"):
        other.restore(1, [[], [["a", "b"]], []])


def test_too_many_holders_of_an_hour_are_booked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexray.accounting.ledger._MOST_ROWS", 3)
    world, books = World(node("n", "1xA100")), Books()
    for number in range(6):
        world.submit(f"r{number}", gpu=0.1, task_class=f"f{number}")
    world.settle()
    books.feed(world.journal)
    books.fold.settle(10.0)
    assert {holder.task for _, holder, _ in books.ledger.rows()} == {"f0", "f1", "f2", "(others)"}
    assert books.seconds() == pytest.approx(6.0) and books.seconds(task="(others)") == pytest.approx(3.0)


def test_what_queues_were_promised() -> None:
    world, books = World(node("n", "1xA100 2xT4")), Books()
    vision = Queue("vision", quota=QueueAmount(types=(("nvidia/T4", 2000), ("nvidia/X*", 1000))))
    world.now = 3000.0
    world.apply(QueuesConfigured((vision, Queue("text", quota=QueueAmount(compute=500)), Queue("rest"))))
    world.submit("r", gpu=1, queue="text", types="nvidia/A100*")
    world.settle()
    world.wait(1000.0)
    world.apply(QueuesConfigured((Queue("text", quota=QueueAmount(devices=2000)),)))
    books.feed(world.journal)
    books.fold.settle(5000.0)
    promised = {
        row.key: (row.promised, row.compute_promised) for row in usage_table(books.ledger, ["queue"], 0, 5000).rows
    }
    assert promised == {("text",): (2000.0, 500.0), ("vision",): (3000.0, 400.0)}
    by_hour = usage_table(books.ledger, ["queue", "hour"], 0, 5000).rows
    assert [(row.key, row.promised, row.granted) for row in by_hour] == [
        (("text", "0"), 0.0, 600.0), (("text", "3600"), 2000.0, 1400.0),
        (("vision", "0"), 1800.0, 0.0), (("vision", "3600"), 1200.0, 0.0),
    ]  # fmt: skip
    assert [row.promised for row in usage_table(books.ledger, ["user"], 0, 5000).rows] == [None]
    again = Ledger()
    for hour in (0, 1):
        again.restore(hour, json.loads(json.dumps(books.ledger.plain(hour))))
    assert again.promised == books.ledger.promised


# -- restarts ----------------------------------------------------------------------------------------


def found(world: World, name: str) -> SliceFound:
    lease = world.leases[name]
    event = world.submitted[name][1]
    state = SliceState.IDLE
    return SliceFound(lease.slice, lease.placement, event.environment, event.task_class, True, (0, 0), state)


@pytest.mark.parametrize("same_process", [True, False], ids=["journal", "records"])
def test_a_lease_that_spans_a_restart_is_counted_once_and_without_a_gap(same_process: bool) -> None:
    """Over a journal the fold goes on; in a pool another one begins with what was kept last, at 95 s."""
    world, books = World(node("n", "2xA100")), Books()
    for name in ("on", "gone", "back"):
        world.submit(name, gpu=0.25)
    world.settle()
    world.wait(95.0)
    books.feed(world.journal)
    if not same_process:
        books.fold.settle(95.0)
        kept = books.ledger.plain(0)
        books = Books(counted_until=95.0)
        books.ledger.restore(0, kept)
    world.now = 130.0
    world.restart(HistoryRestored(()))
    world.apply(NodeReported(node("n", "2xA100")))
    for name in ("on", "gone", "back"):
        world.apply(found(world, name))
    world.open("S")
    world.apply(LeaseReleased(world.leases["back"].lease))  # another session of its says so before it is known
    for name in ("on", "back"):
        world.apply(world.holds(name, held=130.0))
    world.now = 140.0
    world.apply(RecoveryEnded())
    world.leases.pop("back"), world.leases.pop("gone")
    world.settle()
    world.now = 200.0
    world.release("on")
    world.settle()
    books.feed(world.journal)
    ends = {one.request: (one.start, one.end, one.ended) for one in books.over}
    assert ends["on"] == (0.0, 200.0, "released")
    assert ends["back"] == (0.0, 130.0, "released")
    assert books.seconds() == pytest.approx(0.25 * (200 + 130 + 95))
    if same_process:
        assert ends["gone"] == (0.0, 95.0, "unseen")


def test_a_claim_that_is_refused_is_not_counted_again() -> None:
    world, books = World(node("n", "2xA100")), Books()
    world.submit("r", gpu=1)
    world.settle()
    world.wait(50.0)
    world.now = 100.0
    before = world.journal
    world.restart()
    world.apply(NodeReported(node("n", "2xA100")))
    world.open("S")
    world.apply(world.holds("r", held=100.0))
    world.apply(RecoveryEnded())  # no node has the slice
    world.settle()
    books.feed([*before, *world.journal])
    books.fold.settle(100.0)
    assert books.seconds() == pytest.approx(50.0)
    assert [(one.end, one.ended) for one in books.over] == [(50.0, "slice_lost")]


# -- what was used -----------------------------------------------------------------------------------


def test_use_is_booked_on_who_held_the_slice_and_lent_beyond_the_share() -> None:
    world, books = World(node("n", "1xA100")), Books()
    world.submit("a", gpu=0.5, task_class="f")
    world.settle()
    books.feed(world.journal)
    slice_id = world.leases["a"].slice
    books.fold.measured("n", {slice_id: None}, 10.0)
    for at, busy in ((20.0, 0.4), (30.0, 0.8), (40.0, None)):
        books.fold.measured("n", {slice_id: busy}, at)
    books.fold.settle(50.0)
    ((_, holder, amounts),) = books.ledger.rows()
    assert holder.task == "f"
    named = ("guaranteed", "measured", "busy", "lent", "granted", "wasted", "unmeasured")
    assert [getattr(amounts, name) / UNIT for name in named] == [25.0, 10.0, 12.0, 3.0, 28.0, 1.0, 15.0]


def test_a_slice_that_changes_hands_between_two_measurements_is_shared_out() -> None:
    world, books = World(node("n", "1xA100")), Books()

    def feed() -> None:
        books.feed(world.journal)
        world.lines.clear()

    world.submit("a", gpu=1, task_class="f", queue="default")
    world.settle()
    feed()
    slice_id = world.leases["a"].slice
    books.fold.measured("n", {slice_id: None}, 0.0)
    world.apply(SessionOpened("T", "E", "tom"))
    world.submit("b", session="T", gpu=1, task_class="f")
    world.now = 6.0
    world.release("a")
    world.settle()
    assert world.leases["b"].slice == slice_id
    feed()
    books.fold.measured("n", {slice_id: 0.5}, 8.0)
    busy = {holder.user: amounts.busy / UNIT for _, holder, amounts in books.ledger.rows()}
    assert busy == {"": 3.0, "tom": 1.0}
    books.fold.measured("n", {}, 9.0)
    assert books.fold._meters == {}, "a slice that is gone"


def test_hours_are_forgotten() -> None:
    ledger = Ledger()
    books = Books()
    books.feed(journal_of(2, 50))
    (_, holder, _), *_ = books.ledger.rows()
    ledger.hold(holder, 0, 3 * HOUR, 1000)
    assert (ledger.forget_before(2), sorted(ledger.hours), ledger.changed) == ([0, 1], [2], {2})
