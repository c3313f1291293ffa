"""What client, scheduler, node agents and slices say to each other: plain data, with a protocol number."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from flexray.model.commands import GrantLease, ResizeSlice, StopSlice
from flexray.model.devices import Device
from flexray.model.events import Event
from flexray.model.isolation import Isolation
from flexray.model.lease import EnvironmentId, LeaseId, Placement, SessionId, SliceId
from flexray.runtime.usage import UsageReport

PROTOCOL = 10
"""Raised whenever a message changes; ``init`` refuses a pool that speaks another one."""

NAMESPACE = "flexray"
"""Ray namespace of everything the pool makes. Slices are named by their id in it."""

SCHEDULER_NAME = "flexray-scheduler"


def agent_name(node: str) -> str:
    """Name of a node's agent actor."""
    return f"flexray-agent-{node}"


@dataclass(frozen=True, slots=True)
class Versions:
    """What both sides must have in common."""

    protocol: int
    ray: str
    python: str

    @staticmethod
    def here(ray_version: str) -> Versions:
        """Of this process."""
        return Versions(PROTOCOL, ray_version, f"{sys.version_info.major}.{sys.version_info.minor}")


@dataclass(frozen=True, slots=True)
class Environment:
    """The code and variables a client's tasks need; a slice serves only one.

    Attributes:
        id: hash of the code and variables, and of the job where these are its own.
        job: Ray job whose drivers' output streams get what the tasks print.
        runtime_env: Ray runtime environment, with packages already uploaded.
        sys_path: directories the driver added to ``sys.path``.
        user: the login name of the driver's process.
        submission: id of the job as it was submitted (``ray job submit``), or "".
    """

    id: EnvironmentId
    job: str
    runtime_env: dict[str, Any] = field(default_factory=dict)
    sys_path: tuple[str, ...] = ()
    user: str = ""
    submission: str = ""


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """Everything an agent needs to start a slice, and to tell a later scheduler what it is.

    Attributes:
        reusable: whether it may serve another lease afterwards.
        host: milli-cores and MiB of host memory that are booked for it beside the device.
        key: see ``seals.py``.
        telemetry: environment variables that say what it exports, where its client's do not.
    """

    slice: SliceId
    placement: Placement
    environment: Environment
    task_class: str
    start_timeout: float
    grace_seconds: float
    reusable: bool = True
    host: tuple[int, int] = (0, 0)
    key: bytes = field(default=b"", repr=False)
    telemetry: dict[str, str] = field(default_factory=dict, repr=False)


#: What a scheduler has an agent do.
AgentCommand = SliceSpec | StopSlice | ResizeSlice


class Reports(NamedTuple):
    """What an agent tells the scheduler.

    Attributes:
        first: number of the first event.
        usage: what slices use, if that was measured since the last time.
    """

    first: int
    events: list[Event]
    usage: UsageReport | None


class Inside(NamedTuple):
    """That a session runs in the process of a slice, with what only that knows (see ``seals.py``)."""

    slice: SliceId
    proof: bytes


class Ticket(NamedTuple):
    """Names the conversation of a client with a scheduler that a message belongs to.

    Attributes:
        epoch: which incarnation of the scheduler it is meant for; others refuse it.
        joins: how often the session has joined any: what was said before the last time means nothing.
        secret: known to the session alone; ids of sessions are everybody's to see.
        inside: proves in which slice's process it runs, if in any.
    """

    session: SessionId
    epoch: int
    joins: int
    secret: str = ""
    inside: Inside | None = None


@dataclass(frozen=True, slots=True)
class JoinAgain:
    """The scheduler's answer to a conversation that it does not know: it has been started again, or has closed it.

    Attributes:
        epoch: its own.
    """

    epoch: int


@dataclass(slots=True)
class SliceIdentity:
    """What a slice's process knows of itself.

    ``notes``: what a person should know of the limits it is held to. ``key``: see ``seals.py``.

    Everyone in the process has the same one, in which the slice changes ``placement`` when it gets another size.
    """

    slice: SliceId
    devices: tuple[Device, ...]
    placement: Placement
    isolation: Isolation
    environment: Environment
    notes: tuple[str, ...] = ()
    key: bytes = field(default=b"", repr=False)


class Granted(NamedTuple):
    """A lease for its holder, with the seal that its slice asks for."""

    order: GrantLease
    seal: bytes


class Token(NamedTuple):
    """Names the lease a call runs under, and proves it (``seal``); a slice refuses tokens of earlier grants."""

    epoch: int
    grant: int
    session: SessionId
    lease: LeaseId
    seal: bytes


class Code(IntEnum):
    """How one call of a batch ended."""

    VALUE = 0
    """Payload: the packed result."""
    PLAIN = 6
    """Payload: the result itself (see packing.is_plain)."""
    SLOT = 1
    """The result is a return value of this very actor call; payload: its index, and whether it refers to objects that
    the slice owns."""
    KEPT = 2
    """The result is large or holds references: fetch it by a call of its own; payload: whether it refers to objects
    that the slice owns."""
    ERROR = 3
    """Payload: the packed exception."""
    CANCELLED = 4
    """It was cancelled in the slice."""
    TIMEOUT = 5
    """It ran longer than its timeout; payload: seconds."""
    YIELDED = 7
    """It was asked to give way and stopped: it is to run again, here or elsewhere."""


#: Arguments of a call: (args, kwargs) as they are when all are plain, else packed; None when they are one Ray argument.
Payload = tuple[tuple[Any, ...], dict[str, Any]] | bytes | None


#: One call inside a batch, short where it can be: (the client's number for it, its arguments), or with two more:
#: what the top-level placeholders stand for (each an index of a Ray argument, or packed bytes), and first index and
#: number of the nested references that belong to the call, in the batch's list. With one more, the same of references
#: to its checkpoint, best first, where an earlier attempt has left one.
Item = (
    tuple[int, Payload]
    | tuple[int, Payload, tuple[int | bytes, ...], tuple[int, int]]
    | tuple[int, Payload, tuple[int | bytes, ...], tuple[int, int], tuple[int, int]]
)


class Member(NamedTuple):
    """What a call is of its gang.

    Attributes:
        rank: its number among the members; world_size: how many there are.
        rendezvous: ``host:port`` where rank 0 can be reached, if it listens there.
        local_rank: its number among the members on the same node; local_size: how many these are.
    """

    rank: int
    world_size: int
    rendezvous: str
    local_rank: int
    local_size: int


class Batch(NamedTuple):
    """Calls of one class on their way to a slice.

    Attributes:
        token: the lease they run under.
        function: hash of the function, or of the actor's class.
        blob: the packed function if the slice does not have it: bytes, or the index of a Ray argument.
        method: method name for actors, "" for tasks.
        timeout: seconds each call may run, or None.
        patience: seconds that a finished result may wait for company.
        slots: how many of the actor call's return values may carry large results.
        held: which Ray argument is the list of nested references; -1 without one.
        streams: whether the call is a generator whose items go out through ``stream``.
        place: where its calls keep their checkpoints; "": with the client.
        member: what its one call is of a gang; None: it is one by itself.
        traces: W3C ``traceparent`` of those calls that have a trace, by number.
    """

    token: Token
    function: str
    blob: bytes | int | None
    method: str
    timeout: float | None
    items: tuple[Item, ...]
    patience: float
    slots: int = 0
    held: int = -1
    streams: bool = False
    place: str = ""
    member: Member | None = None
    traces: dict[int, str] = {}  # noqa: RUF012 (a NamedTuple's default; nobody changes it)


class Reply(NamedTuple):
    """What a slice answers to a batch, or to a collect.

    Attributes:
        done: (call id, code, payload) of finished calls.
        unfinished: how many calls of this session are still queued or running.
        ran: calls that ran to their end, and
        seconds: their run time together.
        refused: why the slice took nothing, or "".
        missing: hash of a function the slice no longer has, or "".
        ends: when those calls ended that have a trace, by number, in nanoseconds since 1970.
    """

    done: tuple[tuple[int, int, Any], ...]
    unfinished: int
    ran: int = 0
    seconds: float = 0.0
    refused: str = ""
    missing: str = ""
    ends: dict[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The scheduler's answer to a client that connects."""

    epoch: int
    versions: Versions
    config: dict[str, Any]
    address: str
