"""What the core remembers of requests and slices: mutable, private to the core."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields
from typing import Any

from flexray.core.choosing import Choice
from flexray.model.lease import EnvironmentId, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.lifecycle import (
    LIVE,
    REQUEST_TABLE,
    SLICE_TABLE,
    RequestState,
    RequestStep,
    SliceState,
    SliceStep,
    WaitReason,
    follow,
)
from flexray.model.request import Request


@dataclass(slots=True)
class RequestRecord:
    """One request. ``slice`` is set from RESERVED to DRAINING, ``attempt`` counts the leases it was given.

    Attributes:
        queue: that of ``request``, or another one if that is gone.
        line: requests of one line are alike to the scheduler; within it they go in order of arrival.
        shape: that of ``request``, which makes it anew each time.
    """

    id: RequestId
    session: SessionId
    environment: EnvironmentId
    task_class: str
    request: Request
    reusable: bool
    restartable: bool
    parent: LeaseId | None
    sequence: int
    submitted: float
    near: tuple[tuple[str, int], ...] = ()
    #: since when it has passed over room that it fits, for a faster device that is to come free.
    waits_since: float | None = None
    #: whether it did so in the last cycle.
    passes_over: bool = False
    #: the slice planned for when its lease, which is taken back, is over (see ``preempting.py``).
    next: SliceId | None = None
    #: seconds that being taken back has cost it so far, at most.
    lost: float = 0.0
    #: seconds of work so far, as on its best device type.
    served: float = 0.0
    #: what it takes of the pool, for the books of its queue, while it has a place; whether it counts as waiting there.
    charged: dict[str, tuple[int, int]] | None = None
    counted: bool = False
    #: the queue whose limit kept it waiting in the last cycle, or "".
    limited_by: str = ""
    #: the gang it is a member of.
    gang: GangRecord | None = field(default=None, repr=False, compare=False)
    #: since when it has had no lease.
    idle_since: float = field(init=False)
    state: RequestState = RequestState.QUEUED
    #: what a RESERVED request waits for; why a QUEUED one waits is derived when somebody asks.
    reserve_reason: WaitReason = WaitReason.MAKING_ROOM
    attempt: int = 0
    slice: SliceId | None = None
    leased_at: float = 0.0
    start_failures: int = 0
    #: the place last chosen for it by score.
    choice: Choice | None = None
    shape: tuple[object, ...] = field(init=False)
    queue: str = field(init=False)
    line: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.idle_since = self.submitted
        self.shape = self.request.shape
        self.join(self.request.queue)

    def __deepcopy__(self, memo: dict[int, Any]) -> RequestRecord:
        """By field, since there are many: its tuples hold nothing that changes."""
        copied = memo[id(self)] = object.__new__(RequestRecord)
        for one in _FIELDS:
            value = getattr(self, one)
            setattr(copied, one, value if isinstance(value, _UNCHANGING) else copy.deepcopy(value, memo))
        return copied

    def join(self, queue: str) -> None:
        """Belong to a queue."""
        self.queue = queue
        self.line = (-self.request.priority, queue, self.environment, self.task_class, self.shape)

    @property
    def stands_in_line(self) -> bool:
        """Whether it waits for its turn; of a gang that waits, the first member does so for all."""
        if self.state is not RequestState.QUEUED:
            return False
        return self.gang is None or (self.gang.waits and self.gang.leader is self)

    @property
    def pieces(self) -> int:
        """How many places it has to get at once, if it is the one that stands in line."""
        return self.gang.needed if self.gang is not None and self.stands_in_line else 1

    @property
    def lease(self) -> LeaseId:
        """The id of its present (or last) lease."""
        return LeaseId(self.id, self.attempt)

    def step(self, step: RequestStep) -> None:
        """Move along the life-cycle table."""
        self.state = follow(REQUEST_TABLE, self.state, step, f"request {self.id}")


_FIELDS = tuple(one.name for one in fields(RequestRecord))
_UNCHANGING = (str, int, float, tuple, type(None), Request, Choice)


@dataclass(slots=True)
class GangRecord:
    """A gang: several requests that wait, and are granted, as one.

    Attributes:
        request: what was asked; each member has it too, and gets a place for all of it but ``gang``.
        members: in the order of their index, those that have ended too.
        movable: whether members may be taken back at all: they are no actors, and start again.
        closing: a member is done, or nobody wants the gang any more: what is left of it only ends.
        returning: it is taken back as a whole; when all members are back it starts again, or stands in line.
        since: when members were last granted.
    """

    id: RequestId
    session: SessionId
    request: Request
    members: tuple[RequestRecord, ...]
    movable: bool
    closing: bool = False
    returning: bool = False
    since: float = 0.0

    @property
    def preemptible(self) -> bool:
        """Whether its user allows it to be taken back for others of its queue."""
        return self.movable and self.request.preemptible

    @property
    def elastic(self) -> bool:
        """Whether it may run with fewer members than it has."""
        return self.request.gang is not None and self.request.gang.enough < len(self.members)

    @property
    def live(self) -> list[RequestRecord]:
        """Members that have not ended."""
        return [member for member in self.members if member.state in LIVE]

    @property
    def leader(self) -> RequestRecord:
        """The first member that has not ended, which stands in line for all; of a gang that has ended, the first."""
        return next((member for member in self.members if member.state in LIVE), self.members[0])

    @property
    def waits(self) -> bool:
        """Whether it stands in line: no member has a place."""
        return all(member.state is RequestState.QUEUED for member in self.live)

    @property
    def queued(self) -> list[RequestRecord]:
        """Members without a place."""
        return [member for member in self.members if member.state is RequestState.QUEUED]

    @property
    def reserved(self) -> list[RequestRecord]:
        """Members whose slices are being started."""
        return [member for member in self.members if member.state is RequestState.RESERVED]

    @property
    def running(self) -> list[RequestRecord]:
        """Members that hold a lease which is not being taken back."""
        return [member for member in self.members if member.state is RequestState.LEASED]

    @property
    def leaving(self) -> list[RequestRecord]:
        """Members whose lease is being taken back."""
        return [member for member in self.members if member.state is RequestState.DRAINING]

    @property
    def coming(self) -> list[RequestRecord]:
        """Members for which slices are planned or being started."""
        return [*self.reserved, *(member for member in self.leaving if member.next is not None)]

    @property
    def needed(self) -> int:
        """With so many members it may run."""
        gang = self.request.gang
        assert gang is not None
        ended = sum(member.state in (RequestState.DONE, RequestState.CANCELLED) for member in self.members)
        return min(gang.enough, len(self.members) - ended)

    @property
    def runs(self) -> bool:
        """Whether enough members hold leases."""
        return 0 < self.needed <= len(self.running)


@dataclass(slots=True)
class SliceRecord:
    """One slice. ``request`` is its holder, or the request it is being started for.

    ``beside``, ``reported`` and ``settled`` hold while it is HELD and are kept by ``beside.py``.
    """

    id: SliceId
    placement: Placement
    environment: EnvironmentId
    task_class: str
    reusable: bool
    host: tuple[int, int]
    since: float
    state: SliceState = SliceState.PENDING
    request: RequestId | None = None
    #: its places on each of its devices, as bits, where these are cut into fixed parts.
    span: int = 0
    draining: bool = False
    #: STARTING, and started: others of the gang it is for are not.
    ready: bool = False
    grants: int = 0
    #: whether something has run to its end on its present lease.
    has_run: bool = False
    #: since when the work on its present lease is lost when it is stopped: its grant, or the last checkpoint.
    safe_at: float = 0.0
    #: when its lease is expected to end, as far as anything is known (see ``ends.py``).
    expected_end: float = 0.0
    #: whether others count on its room although its session was not asked for it yet: it stays so when it gets a lease.
    promised: bool = False
    #: whether it has another size than its class, or is getting one.
    resized: bool = False
    #: whether its holder, an actor, was told that its device is to be empty.
    warned: bool = False
    #: until when it may hold room that others have reserved (see ``backfill.py``); None: its room is its own.
    lent_until: float | None = None
    #: requests that wait for its lease to end, because it is on a fast device; some may have given up since.
    awaited: list[RequestId] = field(default_factory=list)
    #: class -> seconds beside slices of it since ``reported``, as far as they were settled.
    beside: dict[str, float] = field(default_factory=dict)
    reported: float = 0.0
    settled: float = 0.0

    @property
    def warm_key(self) -> tuple[EnvironmentId, str]:
        """Leases with an equal key may be given this slice while it is warm."""
        return (self.environment, self.task_class)

    @property
    def stays(self) -> bool:
        """Whether it may serve another lease of its class after this one."""
        return self.reusable and not self.resized

    def step(self, step: SliceStep, now: float) -> None:
        """Move along the life-cycle table."""
        self.state = follow(SLICE_TABLE, self.state, step, f"slice {self.id}")
        self.since = now


@dataclass(slots=True)
class Resize:
    """A change of a held slice's size that is under way.

    Attributes:
        number: that of the question, for the answer.
        was_resized: whether it had another size than its class before.
        begun: whether its agent was told; before that, idle slices have to end.
    """

    lease: LeaseId
    session: SessionId
    number: int
    before: Placement
    after: Placement
    was_resized: bool
    begun: bool = False
