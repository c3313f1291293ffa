"""What a session may tell the scheduler, and what proves that a lease is its own."""

from __future__ import annotations

from typing import Any

import pytest

from flexray.model.amounts import MemoryMiB, Share
from flexray.model.commands import COMMANDS
from flexray.model.events import (
    EVENTS,
    LeaseBlocked,
    LeaseCheckpointed,
    LeaseFound,
    LeaseReleased,
    LeaseUnblocked,
    LeaseYielded,
    NodeLost,
    RequestCancelled,
    RequestSubmitted,
    SessionClosed,
    SessionOpened,
    SliceEnded,
    SpeedsRestored,
    StepsRan,
    TasksRan,
)
from flexray.model.isolation import Isolation
from flexray.model.lease import EnvironmentId, Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.request import Request
from flexray.runtime.kept import Kept
from flexray.runtime.protocol import Inside, Token
from flexray.runtime.rights import may_say
from flexray.runtime.seals import Seals, is_sealed, prove_inside
from parts.test_kept import Store

ME, THEM = SessionId("me"), SessionId("them")
HOME = EnvironmentId("E")
MINE, THEIRS = LeaseId(RequestId("me.1"), 1), LeaseId(RequestId("them.1"), 1)
UNDER = LeaseId(RequestId("them.7"), 2)
"""The lease of the slice that the session runs in."""


def may(event: Any) -> bool:
    return may_say(event, ME, HOME, lambda lease: lease == UNDER)


def found(name: str, lease: LeaseId, session: SessionId = ME) -> LeaseFound:
    place = Placement("n", ("n/gpu0",), Share(500), MemoryMiB(10))
    held = Lease(lease, SliceId("s1"), place, "nvidia/T4", Isolation.NONE)
    return LeaseFound(submitted(name, session), held)


def submitted(name: str, session: SessionId = ME, home: str = "E", parent: LeaseId | None = None) -> RequestSubmitted:
    return RequestSubmitted(RequestId(name), session, EnvironmentId(home), "f", Request(share=1), parent=parent)


OF_LEASES = (LeaseReleased, LeaseYielded, LeaseCheckpointed)


@pytest.mark.parametrize(
    "event",
    [
        submitted("me.2"),
        submitted("me.2", parent=UNDER),
        RequestCancelled(RequestId("me.1")),
        *(kind(MINE) for kind in OF_LEASES),
        TasksRan(MINE, 1, 1.0),
        StepsRan(MINE, 1.0, 1.0),
        LeaseBlocked(UNDER, ME, ("f",)),
        LeaseUnblocked(UNDER),
        found("me.1", MINE),
    ],
)
def test_of_its_own_it_may_say_everything(event: Any) -> None:
    assert may(event)


@pytest.mark.parametrize(
    "event",
    [
        submitted("them.2"),
        submitted("me.2", session=THEM),
        submitted("them.2", session=THEM),
        submitted("me.2", home="another's"),
        submitted("melon.2"),
        RequestCancelled(RequestId("them.1")),
        *(kind(THEIRS) for kind in OF_LEASES),
        TasksRan(THEIRS, 1, 1.0),
        StepsRan(THEIRS, 1.0, 1.0),
        LeaseBlocked(THEIRS, ME, ("f",)),
        LeaseBlocked(MINE, ME, ("f",)),
        LeaseBlocked(UNDER, THEM, ("f",)),
        LeaseUnblocked(THEIRS),
        LeaseUnblocked(MINE),
        found("me.1", THEIRS),
        found("them.1", THEIRS),
        found("them.1", THEIRS, THEM),
        SessionOpened(ME, HOME),
        SessionClosed(ME),
        SessionClosed(THEM),
        NodeLost("n"),
        SliceEnded(SliceId("s")),
        SpeedsRestored(()),
    ],
)
def test_of_others_it_may_say_nothing(event: Any) -> None:
    assert not may(event)


def test_no_other_kind_of_message_passes() -> None:
    """Whatever is added later passes only where ``rights.py`` knows it."""
    known = {
        RequestSubmitted,
        RequestCancelled,
        *OF_LEASES,
        TasksRan,
        StepsRan,
        LeaseBlocked,
        LeaseUnblocked,
        LeaseFound,
    }
    for kind in {*EVENTS, *COMMANDS} - known:
        blank = object.__new__(kind)
        assert not may(blank)


def test_only_the_holder_of_a_lease_has_its_seal() -> None:
    seals, others = Seals(b"one pool"), Seals(b"another")
    one, two = SliceId("s1"), SliceId("s2")
    token = Token(1, 3, ME, MINE, seals.of(one, 1, 3, MINE))
    assert seals.fits(one, token) and is_sealed(seals.key_of(one), token)
    assert seals.fits(one, token._replace(session=THEM)), "an actor's handle may be lent"
    wrong = [token._replace(grant=4), token._replace(epoch=2), token._replace(lease=THEIRS), token._replace(seal=b"")]
    for forged in wrong:
        assert not seals.fits(one, forged) and not is_sealed(seals.key_of(one), forged)
    assert not seals.fits(two, token) and not others.fits(one, token)


def test_a_session_inside_a_slice_proves_it() -> None:
    seals, here = Seals(b"one pool"), SliceId("s1")
    proof = prove_inside(here, seals.key_of(here), ME)
    assert seals.is_inside(ME, proof)
    assert not seals.is_inside(THEM, proof)
    assert not seals.is_inside(ME, Inside(SliceId("s2"), proof.proof))
    assert not seals.is_inside(ME, prove_inside(here, b"", ME))


def test_the_seals_of_a_pool_outlive_its_scheduler() -> None:
    store = Store()
    one, two = (Kept(store).secret() for _ in range(2))
    assert one == two and len(one) == 32
    assert Kept(Store()).secret() != one
    token = Token(1, 3, ME, MINE, Seals(one).of(SliceId("s1"), 1, 3, MINE))
    assert Seals(two).fits(SliceId("s1"), token)
