"""What a session may tell the scheduler: of its own requests and leases, and of the lease whose task it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flexray.model.events import (
    Event,
    LeaseBlocked,
    LeaseCheckpointed,
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


def allowed(
    event: Event, session: SessionId, environment: EnvironmentId, runs_under: Callable[[LeaseId], bool]
) -> Event | None:
    """The event as it may be told; None for one that the session has no right to.

    Args:
        environment: that the session has joined with.
        runs_under: whether the session is in the process of the slice of this lease.
    """
    if isinstance(event, RequestSubmitted):
        own = event.session == session and event.environment == environment and _is_of(session, event.id)
        if own and event.parent is not None and not runs_under(event.parent):
            event = replace(event, parent=None)  # its task is over by now
        return event if own else None
    if isinstance(event, RequestCancelled):
        return event if _is_of(session, event.id) else None
    if isinstance(event, _OF_ITS_LEASES):
        return event if _is_of(session, event.lease.request) else None
    if isinstance(event, LeaseBlocked):
        return event if event.session == session and runs_under(event.lease) else None
    if isinstance(event, LeaseUnblocked):
        return event if runs_under(event.lease) else None
    return None


def _is_of(session: SessionId, request: RequestId) -> bool:
    """Names of requests begin with that of their session."""
    return request.startswith(f"{session}.")
