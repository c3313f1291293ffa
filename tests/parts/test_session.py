"""A client's conversation with a scheduler that may not be there: what it says, how often, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from flexray.errors import ClusterUnreachable, NotConnected
from flexray.model.events import Event, RequestCancelled
from flexray.runtime.protocol import Environment, JoinAgain, Ticket
from flexray.runtime.session import Session

LOST = RuntimeError("nobody knows whether it has arrived")


class FakeLink:
    """Keeps what is said, so that the test may answer."""

    def __init__(self) -> None:
        self.said: list[tuple[str, tuple[Any, ...], Callable[[Any], None]]] = []
        self.over = self.gone = False

    def call(self, method: str, args: tuple[Any, ...], done: Callable[[Any], None]) -> None:
        assert not self.over, f"{method} was called without Ray"
        self.said.append((method, args, done))

    def ask(self, method: str, args: tuple[Any, ...]) -> Any:
        ticket = args[0]
        return JoinAgain(5) if ticket.epoch != 5 else 0

    def look(self) -> None:
        if self.gone:
            raise ClusterUnreachable("no pool")

    def live(self, ticket: Ticket) -> None:
        pass

    def leave(self, ticket: Ticket) -> None:
        pass

    def is_over(self) -> bool:
        return self.over

    def take(self, method: str) -> tuple[tuple[Any, ...], Callable[[Any], None]]:
        """The latest call of a method that has no answer yet."""
        at = max(n for n, one in enumerate(self.said) if one[0] == method)
        _, args, done = self.said.pop(at)
        return args, done

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.said]


class Client:
    """A session, and what it brings about."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.now = 0.0
        self.timers: list[Callable[[], None]] = []
        self.facts: list[Event] = []
        self.heard: list[Any] = []
        self.dead: list[BaseException] = []
        self.session = Session(
            Environment("E", "job"),  # type: ignore[arg-type]
            self.link,
            lambda function, *args: function(*args),
            lambda seconds, function: self.timers.append(function),
            nullcontext(),
            lambda: list(self.facts),
            self.heard.append,
            self.dead.append,
            name="me",
            clock=lambda: self.now,
        )

    def tell(self, *names: str) -> None:
        for name in names:
            self.session.tell(RequestCancelled(name))  # type: ignore[arg-type]
        self.session.flush()

    def time_passes(self, seconds: float = 1.0) -> None:
        self.now += seconds
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()


@pytest.fixture
def client() -> Client:
    made = Client()
    made.session.open()
    return made


def names(events: list[Any]) -> list[str]:
    return [event.id for event in events]


def test_it_joins_the_scheduler_that_answers(client: Client) -> None:
    assert client.session.epoch == 5 and client.link.methods() == ["poll"]
    ticket, seen = client.link.said[0][1]
    assert (ticket[:3], seen) == (("me", 5, 0), 0)
    assert len(ticket.secret) == 32 and Client().session._ticket.secret != ticket.secret


def test_what_may_not_have_arrived_is_said_again_in_order(client: Client) -> None:
    client.tell("a")
    client.tell("b", "c")
    (_, second, later), _ = client.link.take("tell")
    assert (second, names(later)) == (2, ["b", "c"])
    _, done = client.link.take("tell")
    done(LOST)
    client.tell("d")
    client.time_passes()
    (ticket, first, again), done = client.link.take("tell")
    assert (ticket.epoch, first, names(again)) == (5, 1, ["a", "b", "c", "d"])
    done(4)
    client.tell("e")
    (_, first, new), _ = client.link.take("tell")
    assert (first, names(new)) == (5, ["e"])


def test_a_gap_is_filled(client: Client) -> None:
    client.tell("a")
    client.link.take("tell")
    client.tell("b")
    _, done = client.link.take("tell")
    done(0)  # the second came first, and was not taken
    client.time_passes()
    (_, first, events), _ = client.link.take("tell")
    assert (first, names(events)) == (1, ["a", "b"])


def test_messages_are_taken_once(client: Client) -> None:
    _, done = client.link.take("poll")
    done((1, ["x", "y"]))
    (_, seen), again = client.link.take("poll")
    assert seen == 2
    again((1, ["x", "y", "z"]))
    assert client.heard == ["x", "y", "z"]


def test_a_scheduler_that_does_not_know_it_is_told_all(client: Client) -> None:
    client.tell("old")
    _, told = client.link.take("tell")
    client.facts = [RequestCancelled("fact")]  # type: ignore[arg-type]
    _, polled = client.link.take("poll")
    polled(JoinAgain(6))
    told(JoinAgain(6))  # of the conversation before: means nothing any more
    client.tell("later")
    assert client.link.methods() == ["join"]
    (ticket, _, first, events), done = client.link.take("join")
    assert (ticket.epoch, ticket.joins, first, names(events)) == (6, 1, 1, ["fact"])
    done(LOST)
    client.time_passes()
    (_, _, first, events), done = client.link.take("join")
    assert (first, names(events)) == (1, ["fact", "later"])
    done(JoinAgain(7))  # it died again
    (ticket, _, first, events), done = client.link.take("join")
    assert (ticket.epoch, first, names(events)) == (7, 1, ["fact", "later"])
    client.tell("last")
    done(2)
    (ticket, first, events), _ = client.link.take("tell")
    assert (ticket.epoch, first, names(events)) == (7, 3, ["last"])
    assert client.session.epoch == 7 and client.link.methods() == ["poll"]


@pytest.mark.parametrize("why", ["stopped", "silent"])
def test_it_gives_up_when_the_pool_is_gone(client: Client, why: str) -> None:
    _, done = client.link.take("poll")
    client.link.gone = why == "stopped"
    done(LOST)
    for _ in range(70 if why == "silent" else 0):
        client.time_passes()
        for method in client.link.methods():
            client.link.take(method)[1](LOST)
    (error,) = client.dead
    assert isinstance(error, ClusterUnreachable) and client.session.closed


def test_without_ray_nothing_is_sent_and_everything_fails(client: Client) -> None:
    client.link.over = True
    client.tell("a")
    client.session.flush()
    (error,) = client.dead
    assert client.session.closed and isinstance(error, NotConnected) and "Ray was shut down" in str(error)
