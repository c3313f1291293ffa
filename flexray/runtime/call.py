"""One call on its way: what ``Future`` is made of.

State changes happen under the client's lock, in the client's router thread or in a
thread that waits; readers only look at ``phase``. A call resolves once: the first
outcome wins, later ones are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from flexray.errors import NotConnected, TaskError
from flexray.model.explanation import Explanation
from flexray.model.lease import LeaseId, RequestId, SliceId
from flexray.runtime.packing import unpack, unpack_error
from flexray.runtime.protocol import Payload

if TYPE_CHECKING:
    from flexray.runtime.client import Client
    from flexray.runtime.keeping import Kept
    from flexray.runtime.targets import Target
    from flexray.telemetry.call_spans import CallTrace, MemberTrace

_NO_ARGUMENTS: Payload = ((), {})


class Phase(IntEnum):
    """Where a call is."""

    NEW = 0
    """Its arguments wait for other calls or for Ray objects."""
    BACKLOG = 1
    """It waits in the client for a lease."""
    SENT = 2
    """It is in a slice: queued or running."""
    HERE = 3
    """It runs in this very slice, in the thread that waits for it."""
    DONE = 4
    """It has a value or an error."""


class Kind(IntEnum):
    """What the outcome of a finished call is."""

    PACKED = 0
    """Bytes of the result."""
    VALUE = 1
    """The result itself."""
    REFERENCE = 2
    """An ObjectRef of the result."""
    ERROR = 3
    """The exception, or its packed form."""
    PARTS = 4
    """Kind and outcome of each member of a gang, by rank: the result is the list of their results."""


@dataclass(slots=True)
class Large:
    """What is known of a finished call whose result is in Ray's object store (see repeats.py).

    Attributes:
        repeatable: whether the call still has what it was called with.
        slices: those that own objects which the result refers to.
        again: the call that makes the result again, while it does.
        lost: ObjectRefs of the results that were there before and are gone.
    """

    repeatable: bool
    slices: tuple[SliceId, ...] = ()
    again: Call | None = None
    lost: list[Any] = field(default_factory=list)


class Call:
    """A call of a task or an actor method. Never pickled; ``Future`` says so."""

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_client",
        "_kind",
        "_outcome",
        "alone",
        "attempts",
        "awaited",
        "held",
        "kept",
        "large",
        "lease",
        "method",
        "number",
        "payload",
        "phase",
        "slots",
        "streams",
        "target",
        "trace",
        "waits_for",
    )

    def __init__(self, client: Client, target: Target, number: int, method: str = "") -> None:
        self._client = client
        self.target = target
        self.number = number
        self.method = method
        self.phase = Phase.NEW
        #: packed arguments, and what fills their placeholders (see protocol.Item).
        self.payload: Payload = _NO_ARGUMENTS
        self.slots: tuple[Any, ...] = ()
        self.held: tuple[Any, ...] = ()
        #: its last checkpoint, if it has stored one.
        self.kept: Kept | None = None
        #: more about its result, once there is a large one.
        self.large: Large | None = None
        #: how many arguments are not ready yet.
        self.waits_for = 0
        self.attempts = 0
        self.alone = False
        #: whether a thread sleeps until it is done.
        self.awaited = False
        #: whether it is a generator, whose items another actor call brings; never repeated.
        self.streams = False
        self.lease: LeaseId | None = None
        #: its trace, where it has one, until it is done.
        self.trace: CallTrace | MemberTrace | None = None
        self._kind = Kind.VALUE
        self._outcome: Any = None
        self._callbacks: list[Callable[[Any], None]] | None = None

    @property
    def client(self) -> Client:
        """The client the call belongs to. Raises NotConnected in a forked child, where waiting would never end."""
        if self._client.forked:
            raise NotConnected("this Future belongs to the parent process: flexray does not survive a fork")
        return self._client

    def settle(self, kind: Kind, outcome: Any) -> Sequence[Callable[[Any], None]]:
        """The outcome, once. Called with the client's lock held; returns the callbacks to run without it."""
        if self.phase is Phase.DONE:
            return ()
        self.take(kind, outcome)
        self.phase, self.kept = Phase.DONE, None
        if self.trace is not None:
            failed = kind is Kind.ERROR
            self.trace.done(("TaskError" if isinstance(outcome, bytes) else type(outcome).__name__) if failed else "")
            self.trace = None
        callbacks, self._callbacks = self._callbacks, None
        return callbacks or ()

    def take(self, kind: Kind, outcome: Any) -> None:
        """Have this outcome, also instead of one that is lost. Called with the client's lock held."""
        self._kind, self._outcome = kind, outcome
        if self.large is None:
            if not references_of(kind, outcome):
                self.payload, self.slots, self.held = None, (), ()
                return
            self.large = Large(not self.target.actor and not self.streams)
        if not self.repeatable or not references_of(kind, outcome):
            self.forget_arguments()

    @property
    def repeatable(self) -> bool:
        """Whether it may run again if its result is lost."""
        return self.large is not None and self.large.repeatable and self.attempts < self.target.retries

    def forget_arguments(self) -> None:
        """It will not run again."""
        self.payload, self.slots, self.held = None, (), ()
        if self.large is not None:
            self.large.repeatable = False

    def repeat(self) -> Call:
        """A call like this one, to make its lost result again."""
        again = Call(self._client, self.target, self._client.next_number(), self.method)
        again.payload, again.slots, again.held = self.payload, self.slots, self.held
        again.attempts = self.attempts + 1
        return again

    def on_done(self, callback: Callable[[Any], None]) -> bool:
        """Run ``callback(call)`` when done. False when it is done already; the caller runs it then."""
        with self.client.lock:
            if self.phase is Phase.DONE:
                return False
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(callback)
            return True

    @property
    def settled(self) -> bool:
        """Whether it has its outcome."""
        return self.phase is Phase.DONE

    @property
    def watched(self) -> bool:
        """Whether somebody's callback runs when it is done."""
        return bool(self._callbacks)

    @property
    def is_value(self) -> bool:
        """Whether the outcome of a finished call is the result itself."""
        return self._kind is Kind.VALUE

    @property
    def outcome(self) -> tuple[Kind, Any]:
        """Kind and raw outcome of a finished call."""
        return self._kind, self._outcome

    def failure(self) -> BaseException | None:
        """The exception of a finished call, or None."""
        if self._kind is not Kind.ERROR:
            return None
        if isinstance(self._outcome, bytes):
            self._outcome = unpack_error(self._outcome)
        failure: BaseException = self._outcome
        return failure

    def value(self, deadline: float | None = None) -> Any:
        """The result of a finished call that did not fail; unpacked on first use and kept, but for large ones.

        Args:
            deadline: until when to wait where it has to be made again, by time.monotonic(); None: for ever.
        """
        if self.large is not None:
            return self._client.repeats.fetch(self, deadline)
        if self._kind is Kind.PARTS:
            return [value_of(*part) for part in self._outcome]
        value = value_of(self._kind, self._outcome)
        if self._kind is Kind.PACKED:
            self._kind, self._outcome = Kind.VALUE, value
        return value


def value_of(kind: Kind, outcome: Any) -> Any:
    """What an outcome that is no reference stands for."""
    if kind is Kind.PACKED:
        try:
            return unpack(outcome)
        except Exception as error:
            raise TaskError(f"the result cannot be unpickled here: {type(error).__name__}: {error}") from error
    return outcome


def references_of(kind: Kind, outcome: Any) -> tuple[Any, ...]:
    """The ObjectRefs of an outcome: one, or those among a gang's parts."""
    if kind is Kind.REFERENCE:
        return (outcome,)
    return tuple(part for of, part in outcome if of is Kind.REFERENCE) if kind is Kind.PARTS else ()


def describe_call(phase: Phase, ahead: int, found: Explanation | None, request: RequestId | None) -> Explanation:
    """An Explanation of a call: what its request says, else what the client knows.

    Args:
        ahead: calls of the same task that go first, in the client or on its slice.
    """
    first = f"{ahead} {'call' if ahead == 1 else 'calls'} of the same task {'goes' if ahead == 1 else 'go'} first"
    if found is not None and not found.over and phase in (Phase.BACKLOG, Phase.SENT):
        return replace(found, needs="; ".join(filter(None, (found.needs, first if ahead else ""))))
    state = {
        Phase.NEW: "waiting for arguments",
        Phase.BACKLOG: "waiting in the client",
        Phase.SENT: "running",
        Phase.HERE: "running in its parent's slice",
        Phase.DONE: "done",
    }[phase]
    return Explanation(request or "", state, needs=first if phase is Phase.BACKLOG else "")
