"""What calls are made on: a task class with any number of leases, or an actor with one.

Plain records, changed under the client's lock by ``dispatch.py`` and ``client.py``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from flexray.model.lease import Lease, LeaseId, RequestId
from flexray.model.request import Request
from flexray.runtime.call import Call
from flexray.runtime.packing import PackedFunction
from flexray.runtime.protocol import Member, Token

if TYPE_CHECKING:
    from flexray.runtime.gang_run import GangRun

OWNING_SECONDS = 60.0
"""A lease is kept this long after its last call for the objects that its slice owns and somebody may still ask for."""

#: How much weight the newest batch has in the mean run time, when it took longer and when it did not: small tasks
#: that are taken for long ones travel alone, which costs more than the other mistake.
_SLOWER, _FASTER = 0.3, 0.6


@dataclass(slots=True, eq=False)
class HeldLease:
    """A lease this client holds, and what is on its slice."""

    lease: Lease
    handle: Any
    token: Token
    target: Target
    in_flight: dict[int, Call] = field(default_factory=dict)
    #: batches whose answer has not come yet, and whether a collect is under way.
    open_batches: int = 0
    collecting: bool = False
    functions: set[str] = field(default_factory=set)
    #: calls that have run and their seconds, since the scheduler was last told, and when that was.
    ran: int = 0
    ran_seconds: float = 0.0
    told_at: float = field(default_factory=time.monotonic)
    #: since when it is held, and whether the scheduler was told of anything that has run on it.
    since: float = field(default_factory=time.monotonic)
    has_run: bool = False
    idle_since: float = field(default_factory=time.monotonic)
    recalled: bool = False
    #: recalled, and what runs is asked to stop: the lease's request goes on elsewhere.
    giving_way: bool = False
    broken: bool = False
    exclusive: bool = False
    taking_back: bool = False
    #: whether the slice has been asked for the next checkpoint.
    watched: bool = False
    #: when the scheduler was last told of a checkpoint.
    safe_told_at: float = 0.0
    #: when the slice last answered, or was given something to do.
    last_heard: float = field(default_factory=time.monotonic)
    #: whether the lease is another session's, lent with an actor handle.
    borrowed: bool = False
    #: what the calls on it are of a gang.
    member: Member | None = None
    #: finished calls whose results refer to objects that the slice owns, as long as somebody holds their Futures.
    owing: WeakSet[Call] = field(default_factory=WeakSet)

    @property
    def idle(self) -> bool:
        """Whether nothing of this client is on the slice."""
        return not self.in_flight and not self.open_batches

    @property
    def free(self) -> bool:
        """Whether it may be handed back by itself: nothing is on it, and no gang decides about it."""
        return self.idle and self.target.gang is None

    @property
    def lingers(self) -> bool:
        """Whether it is kept though nothing is on it, for objects that would end with its slice."""
        return bool(self.owing) and time.monotonic() - self.idle_since < OWNING_SECONDS

    @property
    def usable(self) -> bool:
        """Whether calls may be sent to its slice."""
        return not self.recalled and not self.broken

    @property
    def wants_collect(self) -> bool:
        """Whether results may come before the answer to a batch, so that somebody has to fetch them."""
        if self.collecting or not self.in_flight:
            return False
        return not self.open_batches if self.target.asynchronous else len(self.in_flight) > 1

    @property
    def id(self) -> LeaseId:
        """The lease's id."""
        return self.lease.lease

    @property
    def node(self) -> str:
        """Id of the node its slice is on."""
        return self.lease.placement.node


@dataclass(eq=False)
class Target:
    """A function (or an actor's class) with its request: one line of calls.

    Attributes:
        key: names it to the scheduler; equal keys may share warm slices.
        name: for people.
        function: the packed function, ``callable`` the function itself.
        retries: how often a call is repeated when its slice is lost.
        timeout: seconds one attempt may run, or None.
        actor: whether there is one instance, on one lease, for life.
    """

    key: str
    name: str
    request: Request
    function: PackedFunction
    callable: Callable[..., Any]
    retries: int
    timeout: float | None
    actor: bool = False
    #: the gang whose only call this is the target of.
    gang: GangRun | None = None
    #: the packed function as an object of its own, when it is large or holds references.
    function_ref: Any = None
    backlog: deque[Call] = field(default_factory=deque)
    leases: dict[LeaseId, HeldLease] = field(default_factory=dict)
    #: requests for leases that have not been granted yet.
    asked: dict[RequestId, None] = field(default_factory=dict)
    #: the lease whose task first used this target, for requests made inside a slice.
    parent: LeaseId | None = None
    streams_waiting: int = 0
    #: actors: whether the class has async methods, so that its calls run on an event loop.
    asynchronous: bool = False
    #: whether the last look found no lease that could take more.
    crowded: bool = False
    mean_seconds: float | None = None
    large_results: bool = False
    #: why every call fails from now on: infeasible, its actor's constructor raised, ...
    failed: BaseException | None = None
    ended: bool = False
    #: actors: whether a handle was sent to another process.
    lent: bool = False
    #: actors: makes a call of the constructor, and whether one has finished on the present slice.
    make_constructor: Callable[[], Call] | None = None
    constructed: bool = False
    #: actors: what fills the placeholders of the constructor's arguments (see Call.slots).
    arguments: tuple[Any, ...] = ()
    #: actors: whether the constructor's arguments are not ready yet; no slice is asked for before they are.
    unready: bool = False
    #: actors: how many of its slices were lost.
    losses: int = 0
    #: actors: why its present slice has to be left, or "".
    leaving: str = ""

    def learn(self, count: int, seconds: float) -> None:
        """Take in measured run times."""
        if count:
            mean = seconds / count
            known = self.mean_seconds
            if known is None:
                self.mean_seconds = mean
            else:
                self.mean_seconds = known + (_SLOWER if mean > known else _FASTER) * (mean - known)


@dataclass(frozen=True, slots=True)
class Loan:
    """An actor's lease as another process may use it; travels inside a pickled handle."""

    lease: Lease
    token: Token
    name: str
    function: str
    timeout: float | None
    asynchronous: bool
