"""A session tries to get at another's lease, with all that flexray's messages offer and ids that all can see."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import flexray as flex
from flexray.model.events import (
    Event,
    LeaseBlocked,
    LeaseFound,
    LeaseReleased,
    LeaseUnblocked,
    LeaseYielded,
    RequestCancelled,
    RequestSubmitted,
    SessionClosed,
)
from flexray.model.lease import RequestId, SessionId
from flexray.runtime import process
from flexray.runtime.protocol import JoinAgain, Reply, Ticket, Token
from runtime.sample import Counter

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 60
INTRUDER = SessionId("intruder")


@pytest.fixture
def lease() -> Iterator[Any]:
    """That of an actor whose count stands at 1, and stands at 2 after all that was tried."""
    counter = Counter.options(accelerator=0.5).remote()
    assert counter.add.remote(1).result(WAIT) == 1
    (held,) = process.client()._engine.leases.all()
    yield held
    assert counter.add.remote(1).result(WAIT) == 2
    assert process.client()._engine.leases.all() == [held]
    counter.stop()


@pytest.fixture
def scheduler() -> Any:
    return process.client()._link.scheduler


def ask(reference: Any) -> Any:
    import ray

    return ray.get(reference, timeout=WAIT)


def forged(token: Token) -> list[Token]:
    """Its lease under another session's name, the next grant, and a seal that was made up."""
    own = token._replace(session=INTRUDER, seal=bytes(16))
    return [own, own._replace(grant=token.grant + 1), own._replace(epoch=token.epoch + 1), token._replace(seal=b"")]


def test_what_it_says_of_others_leases_is_not_heard(lease: Any, scheduler: Any) -> None:
    session = process.client()._session
    home = session.environment
    ticket = Ticket(INTRUDER, session.epoch, 0, "its own secret")
    assert ask(scheduler.join.remote(ticket, home, 1, [])) == 0
    other = RequestSubmitted(RequestId(f"{session.id}.999"), session.id, home.id, "f", lease.target.request)
    mine = RequestSubmitted(RequestId(f"{INTRUDER}.1"), INTRUDER, home.id, "f", lease.target.request)
    said: list[Event] = [
        LeaseReleased(lease.id),
        LeaseYielded(lease.id),
        LeaseBlocked(lease.id, INTRUDER, ("f",)),
        LeaseUnblocked(lease.id),
        LeaseFound(mine, lease.lease),
        RequestCancelled(lease.id.request),
        SessionClosed(session.id),
        other,
    ]
    before = flex.pool()
    assert ask(scheduler.tell.remote(ticket, 1, said)) == len(said)
    after = flex.pool()
    assert (after.running, after.waiting) == (before.running, before.waiting)
    assert [(one.id, one.request) for one in after.slices] == [(one.id, one.request) for one in before.slices]
    ask(scheduler.leave.remote(ticket))


def test_it_is_not_taken_for_another_session(lease: Any, scheduler: Any) -> None:
    import ray

    session = process.client()._session
    for false in (session._ticket._replace(secret="guessed"), session._ticket._replace(secret="")):
        assert isinstance(ask(scheduler.poll.remote(false, 0)), JoinAgain)
        assert isinstance(ask(scheduler.tell.remote(false, 1, [LeaseReleased(lease.id)])), JoinAgain)
        ask(scheduler.leave.remote(false))
        again = false._replace(joins=9)
        with pytest.raises(ray.exceptions.RayTaskError, match="another client's"):
            ask(scheduler.join.remote(again, session.environment, 1, []))


def test_it_resizes_no_slice_of_others(lease: Any, scheduler: Any) -> None:
    for token in forged(lease.token):
        placement, refused = ask(scheduler.resize.remote(token, 1000, None))
        assert placement is None and refused
    (piece,) = (one for one in flex.pool().slices if one.id == lease.lease.slice)
    assert piece.share == 0.5


def test_the_slice_takes_no_call_of_it(lease: Any) -> None:
    import ray

    for token in forged(lease.token):
        calls = [(1, ((5,), {}))]
        batch = (tuple(token), lease.target.function.key, None, "add", None, calls, 0.0, 0, -1, False)
        reply = Reply(*pickle.loads(ask(lease.handle.run.remote(pickle.dumps(batch)))))
        assert reply.refused and not reply.done
        for tried in (
            lease.handle.take_back.remote(token, [1]),
            lease.handle.cancel.remote(token, 1, True),
            lease.handle.give_way.remote(token),
            lease.handle.collect.remote(token, 0),
            lease.handle.fetch.remote(token, 1),
            lease.handle.next_checkpoint.remote(token, 0),
            lease.handle.close_stream.remote(token, 1),
        ):
            with pytest.raises(ray.exceptions.RayTaskError, match="another session's lease"):
                ask(tried)
