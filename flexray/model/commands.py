"""What comes out of the core: things to do, in the imperative."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.lease import EnvironmentId, Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.lifecycle import EndReason, StopReason


@dataclass(frozen=True, slots=True)
class StartSlice:
    """Start a slice's process on a node, in an environment."""

    slice: SliceId
    placement: Placement
    environment: EnvironmentId


@dataclass(frozen=True, slots=True)
class StopSlice:
    """Stop a slice's process; SliceEnded follows once it is gone."""

    slice: SliceId
    node: str
    reason: StopReason


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Tell a session that it may run on a slice."""

    session: SessionId
    lease: Lease


@dataclass(frozen=True, slots=True)
class RecallLease:
    """Ask a session to finish what runs on a lease and hand it back: somebody else has waited long."""

    session: SessionId
    lease: LeaseId


@dataclass(frozen=True, slots=True)
class RevokeLease:
    """Tell a session that a lease is gone. If the request starts again, another GrantLease follows.

    ``running`` and ``cause`` are what the slice noted before it went, as in SliceEnded.
    """

    session: SessionId
    lease: LeaseId
    reason: EndReason
    message: str
    requeued: bool
    running: tuple[int, ...] = ()
    cause: str = ""


@dataclass(frozen=True, slots=True)
class FailRequest:
    """Tell a session that a request can never run, with how many devices each reason removed."""

    session: SessionId
    request: RequestId
    reason: EndReason
    message: str
    removed: tuple[tuple[str, int], ...] = ()


Command = StartSlice | StopSlice | GrantLease | RecallLease | RevokeLease | FailRequest
COMMANDS: tuple[type, ...] = Command.__args__
