"""What is kept in Ray's key-value store: numbers that rise, and records of which a damaged one stops nobody."""

from __future__ import annotations

import pytest

from flexray.config import PoolConfig
from flexray.model.events import RequestCancelled, SessionOpened
from flexray.model.lease import EnvironmentId, SessionId
from flexray.runtime.conversations import Conversations
from flexray.runtime.kept import QUEUES, SPEEDS, Kept
from flexray.runtime.numbered import Inbox, Outbox
from flexray.runtime.protocol import Environment, JoinAgain, Ticket
from flexray.runtime.service import Service
from flexray.runtime.window import Window


class Store(dict[bytes, bytes]):
    """A store in memory."""

    def put(self, key: bytes, value: bytes) -> None:
        self[key] = value

    def delete(self, key: bytes) -> None:
        self.pop(key, None)

    def keys(self, prefix: bytes) -> list[bytes]:  # type: ignore[override]
        return [key for key in dict.keys(self) if key.startswith(prefix)]


def test_rows_come_back_as_they_were() -> None:
    kept = Kept(Store())
    assert kept.read(SPEEDS, tuple) is None
    kept.write(SPEEDS, [("f", "nvidia/T4", 1.5, 2.0)])
    assert kept.read(SPEEDS, list) == [["f", "nvidia/T4", 1.5, 2.0]] and not kept.notes


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda record: record[:-9], ""),
        (lambda record: b"\xff\x00", ""),
        (lambda record: b'["rows of an earlier version"]', "another version"),
        (lambda record: record.replace(b'"version": 1', b'"version": 9'), "another version"),
        (lambda record: record.replace(b"weight", b"wright"), "checksum"),
        (lambda record: b'{"version": 1}', "rows"),
    ],
)
def test_a_damaged_record_is_set_aside(damage: object, why: str) -> None:
    store = Store()
    Kept(store).write(QUEUES, [({"name": "a", "weight": 1},)])
    store[QUEUES] = damaged = damage(store[QUEUES])  # type: ignore[operator]
    kept = Kept(store)
    assert kept.read(QUEUES, list) is None
    (note,) = kept.notes
    assert "'queues' could not be read" in note and why in note and "without it" in note
    assert store[b"damaged:" + QUEUES] == damaged and QUEUES not in store
    assert Kept(store).read(QUEUES, list) is None


def test_rows_that_mean_nothing_are_set_aside_too() -> None:
    kept = Kept(Store())
    kept.write(SPEEDS, [("f",)])
    assert kept.read(SPEEDS, lambda rows: [(a, b) for a, b in rows]) is None and len(kept.notes) == 1


@pytest.mark.parametrize("key", [b"epoch", b"epoch-copy", None])
def test_epochs_rise_whatever_is_damaged(key: bytes | None) -> None:
    store = Store()
    first = Kept(store).next_epoch([])
    assert Kept(store).next_epoch([0]) == first + 1
    for one in [key] if key is not None else [b"epoch", b"epoch-copy"]:
        store[one] = b"?"
    assert Kept(store).next_epoch([first]) > first + 1
    assert Kept(store).next_epoch([]) > first + 2


def test_two_clusters_do_not_count_alike() -> None:
    assert Kept(Store()).next_epoch([]) != Kept(Store()).next_epoch([])


def test_open_sessions_are_known() -> None:
    store = Store()
    kept = Kept(store)
    for name in ("b", "a"):
        kept.session_opened(name)
    assert Kept(store).sessions() == ["a", "b"]
    kept.session_closed("a")
    assert Kept(store).sessions() == ["b"]


# -- messages ------------------------------------------------------------------------------------


def test_a_gap_is_not_taken_and_a_repetition_once() -> None:
    inbox = Inbox()
    assert inbox.take(2, ["b"]) == [] and inbox.taken == 0
    assert inbox.take(1, ["a", "b"]) == ["a", "b"]
    assert inbox.take(1, ["a", "b", "c"]) == ["c"] and inbox.taken == 3
    assert inbox.take(2, ["b"]) == [] and inbox.taken == 3


def test_what_is_not_acknowledged_is_sent_again() -> None:
    outbox: Outbox[str] = Outbox()
    for message in "abc":
        outbox.put(message)
    assert outbox.unsent() == (1, ["a", "b", "c"]) and outbox.unsent() == (4, [])
    outbox.acknowledge(1)
    outbox.put("d")
    assert outbox.unsent() == (4, ["d"])
    outbox.rewind()
    assert outbox.unsent() == (2, ["b", "c", "d"])
    outbox.acknowledge(9)
    assert len(outbox) == 0 and outbox.unacknowledged() == (5, [])


# -- who is there --------------------------------------------------------------------------------

E = Environment("E", "job")  # type: ignore[arg-type]


def conversations() -> tuple[Conversations, list[object], list[float]]:
    applied: list[object] = []
    now = [0.0]
    made = Conversations(5, applied.append, lambda *_: None, lambda *_: None, lambda: now[0], lambda *_: False)
    return made, applied, now


def test_an_unknown_conversation_is_asked_to_join_again() -> None:
    talks, applied, _ = conversations()
    mine = Ticket("me", 5, 0)  # type: ignore[arg-type]
    assert talks.tell(mine, 1, []) == JoinAgain(5) == talks.poll(mine, 0)
    assert talks.join(mine._replace(epoch=4), E, 1, []) == JoinAgain(5)
    events = [RequestCancelled("me.1")]  # type: ignore[arg-type]
    assert talks.join(mine, E, 1, events) == 1 == talks.join(mine, E, 1, events)  # type: ignore[arg-type]
    assert [type(event).__name__ for event in applied] == ["SessionOpened", "RequestCancelled"]
    assert talks.join(mine._replace(joins=1), E, 1, []) == 0
    assert type(applied[2]).__name__ == "SessionClosed"  # it has given up the conversation before
    assert talks.tell(mine, 2, []) == JoinAgain(5) == talks.join(mine, E, 1, [])


@pytest.mark.parametrize(("submission", "job"), [("", "01000000"), ("raysubmit_x", "raysubmit_x")])
def test_the_core_is_told_whose_a_session_is(submission: str, job: str) -> None:
    talks, applied, _ = conversations()
    environment = Environment(EnvironmentId("E"), "01000000", user="eve", submission=submission)
    talks.join(Ticket(SessionId("me"), 5, 0), environment, 1, [])
    assert applied == [SessionOpened(SessionId("me"), EnvironmentId("E"), "eve", job)]


def test_a_session_speaks_of_its_own_only() -> None:
    talks, applied, _ = conversations()
    mine = Ticket("me", 5, 0)  # type: ignore[arg-type]
    talks.join(mine, E, 1, [RequestCancelled("other.1"), RequestCancelled("me.1")])  # type: ignore[arg-type]
    assert [event.id for event in applied[1:]] == ["me.1"]  # type: ignore[attr-defined]


def test_who_is_silent_is_taken_for_dead() -> None:
    talks, applied, now = conversations()
    mine = Ticket("me", 5, 0)  # type: ignore[arg-type]
    talks.join(mine, E, 1, [])
    for second in range(100):
        now[0] = float(second)
        if second == 50:
            talks.poll(mine, 0)
        assert talks.leave_silent(60.0) == []
    assert talks.leave_silent(40.0) == ["me"]
    assert type(applied[-1]).__name__ == "SessionClosed" and talks.poll(mine, 0) == JoinAgain(5)


def test_a_scheduler_that_stood_still_takes_nobody_for_dead() -> None:
    talks, _, now = conversations()
    talks.join(Ticket("me", 5, 0), E, 1, [])  # type: ignore[arg-type]
    for now[0] in (1.0, 500.0, 501.0, 550.0):
        assert talks.leave_silent(60.0) == []
    for second in range(551, 620):
        now[0] = float(second)
        if talks.leave_silent(60.0):
            break
    assert now[0] == 609.0  # after more than a minute of silence, apart from when it stood still


def test_an_agent_serves_the_latest_scheduler_and_tells_it_what_there_is() -> None:
    service = Service()
    assert service.begin(5, lambda: ["there is"]) == 5  # type: ignore[list-item]
    service.report("news")  # type: ignore[arg-type]
    assert service.reports(5, 0) == (1, ["there is", "news"]) and service.reports(5, 1) == (2, ["news"])
    assert service.take(5, 1, ["start"]) == (1, ["start"]) == (1, ["start"])  # type: ignore[list-item]
    assert service.take(5, 1, ["start"]) == (1, [])  # type: ignore[list-item]
    assert service.begin(6, lambda: ["all"]) == 6 == service.begin(4, lambda: ["?"])  # type: ignore[list-item]
    assert service.reports(5, 0) is None and service.take(5, 2, ["stop"]) == (0, [])  # type: ignore[list-item]
    assert service.reports(6, 0) == (1, ["all"])


def test_the_window_closes_when_all_have_spoken_or_time_is_up() -> None:
    window = Window(["a", "b"], 100.0, PoolConfig().rejoin_seconds)  # type: ignore[list-item]
    window.has_spoken("a")  # type: ignore[arg-type]
    assert not window.closes(True, 101.0) and "1 more clients" in window.describe(101.0)
    window.has_spoken("b")  # type: ignore[arg-type]
    assert not window.closes(False, 102.0) and window.closes(True, 102.0) and not window.closes(True, 103.0)
    late = Window(["a"], 100.0, 10.0)  # type: ignore[list-item]
    assert not late.closes(False, 109.9) and late.closes(False, 110.0) and late.missing == ["a"]
