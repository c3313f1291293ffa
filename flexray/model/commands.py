"""What comes out of the core: things to do, in the imperative."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.lease import EnvironmentId, Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.lifecycle import EndReason, RecallReason, StopReason


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
    """Tell a session that it may run on a slice.

    ``gang`` names the leases of all members that run together from now on, in the order of their ranks; () for a
    request by itself. Members are granted at once; a gang that grows is told with each new member.
    """

    session: SessionId
    lease: Lease
    gang: tuple[LeaseId, ...] = ()


@dataclass(frozen=True, slots=True)
class RecallLease:
    """Ask a session to hand a lease back.

    Attributes:
        stop: what runs is to stop where it is (``should_yield()``), and is stopped by force after the pool's grace
            period; otherwise it runs to its end.
        winner: the request that needs the room; "" where the work itself goes on better elsewhere.
    """

    session: SessionId
    lease: LeaseId
    stop: bool = False
    reason: RecallReason = RecallReason.STARVING
    winner: str = ""


@dataclass(frozen=True, slots=True)
class RevokeLease:
    """Tell a session that a lease is gone. If the request starts again, another GrantLease follows.

    ``running``, ``cause`` and ``overrun`` are as in SliceEnded.
    """

    session: SessionId
    lease: LeaseId
    reason: EndReason
    message: str
    requeued: bool
    running: tuple[int, ...] = ()
    cause: str = ""
    overrun: tuple[int, int] | None = None


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
