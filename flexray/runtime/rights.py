"""What a session may tell the scheduler: of its own requests and leases, and of the lease whose task it runs in."""

from __future__ import annotations

from collections.abc import Callable

from flexray.model.events import (
    Event,
    LeaseBlocked,
    LeaseCheckpointed,
    LeaseFound,
    LeaseReleased,
    LeaseUnblocked,
    LeaseYielded,
    RequestCancelled,
    RequestSubmitted,
    StepsRan,
    TasksRan,
)
from flexray.model.lease import EnvironmentId, LeaseId, RequestId, SessionId

_OF_ITS_LEASES = (LeaseReleased, LeaseYielded, LeaseCheckpointed, TasksRan, StepsRan)


def may_say(event: Event, session: SessionId, home: EnvironmentId, runs_under: Callable[[LeaseId], bool]) -> bool:
    """Whether a session has the right to tell this.

    Args:
        home: the environment that it has joined with.
        runs_under: whether it is in the process of the slice of a lease.
    """
    if isinstance(event, RequestSubmitted):
        return event.session == session and event.environment == home and _is_of(session, event.id)
    if isinstance(event, RequestCancelled):
        return _is_of(session, event.id)
    if isinstance(event, _OF_ITS_LEASES):
        return _is_of(session, event.lease.request)
    if isinstance(event, LeaseFound):
        return may_say(event.submitted, session, home, runs_under) and _is_of(session, event.lease.lease.request)
    if isinstance(event, LeaseBlocked):
        return event.session == session and runs_under(event.lease)
    return isinstance(event, LeaseUnblocked) and runs_under(event.lease)


def _is_of(session: SessionId, request: RequestId) -> bool:
    """Names of requests begin with that of their session."""
    return request.startswith(f"{session}.")
