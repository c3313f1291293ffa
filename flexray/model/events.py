"""What goes into the core: things that have happened, in the past tense."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Cordon, Inventory
from flexray.model.lease import EnvironmentId, Lease, LeaseId, Placement, RequestId, SessionId, SliceId
from flexray.model.lifecycle import SliceState
from flexray.model.queue import Queue
from flexray.model.request import Request


@dataclass(frozen=True, slots=True)
class NodeReported:
    """A node joined, or what it offers changed. Always the whole inventory."""

    inventory: Inventory


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node died or left; its slices died with it."""

    node: str


@dataclass(frozen=True, slots=True)
class DeviceCordoned:
    """An operator wants a device to take nothing new, or to be empty; a cordon it has already is replaced."""

    cordon: Cordon


@dataclass(frozen=True, slots=True)
class DeviceUncordoned:
    """The operator's cordon of a device is over; one that has none stays as it is."""

    device: str


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A client connected. Slices of its environment may be created while it lives.

    ``user`` and ``job`` are whose it is, as it says; accounts need them, the core does not.
    """

    session: SessionId
    environment: EnvironmentId
    user: str = ""
    job: str = ""


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A client disconnected or died: its requests end, its slices are stopped."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class RequestSubmitted:
    """A session asks for a lease.

    Attributes:
        task_class: function and request; a warm slice of the same class is taken first.
        reusable: whether its slice may serve another lease afterwards (not so for actors).
        restartable: whether it starts again on another slice when its slice is lost.
        parent: the lease whose task submitted it, for requests made inside a slice.
        near: (node, MiB there) for nodes that hold large arguments of the calls that wait, most first, at most four.
        waited: seconds since it was first submitted, to an earlier incarnation of the scheduler.
        attempt: leases it was given by that.
        trace: W3C ``traceparent`` of the call that it is for, where that has a trace.
    """

    id: RequestId
    session: SessionId
    environment: EnvironmentId
    task_class: str
    request: Request
    reusable: bool = True
    restartable: bool = True
    parent: LeaseId | None = None
    near: tuple[tuple[str, int], ...] = ()
    waited: float = 0.0
    attempt: int = 0
    trace: str = ""


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The session no longer wants the request. Ignored once it holds a lease: it releases that instead."""

    id: RequestId


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """The session hands a lease back; nothing of it runs on the slice any more."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class LeaseYielded:
    """The session stopped what ran on a lease that was taken back, and goes on elsewhere: the request starts again."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class LeaseCheckpointed:
    """What runs on a lease has stored its state: stopping it from now on loses only the work since."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class TasksRan:
    """Calls ran to their end on a lease since the last report: how many, and for how many seconds together."""

    lease: LeaseId
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepsRan:
    """A call that goes on did so many steps on a lease since the last report, in so many seconds.

    Steps are alike in all calls of a class and may be few or many: what lies between two looks at ``should_yield()``.
    """

    lease: LeaseId
    steps: float
    seconds: float


@dataclass(frozen=True, slots=True)
class SpeedsRestored:
    """What an earlier incarnation had learnt.

    Attributes:
        rows: (task class, device type, weight in calls, mean of log seconds).
        company: who slows whom down, as ``core.company.Company.rows`` gives it.
    """

    rows: tuple[tuple[str, str, float, float], ...]
    company: tuple[tuple[str, str, str, float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryRestored:
    """What queues had used in the days of an earlier incarnation.

    Attributes:
        rows: (queue, decayed use as a part of its half-life, when that was), as ``core.history.History.rows`` gives it.
    """

    rows: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class QueuesConfigured:
    """The queues of the pool, from now on; always all of them."""

    queues: tuple[Queue, ...]


@dataclass(frozen=True, slots=True)
class LeaseBlocked:
    """The task on a lease waits for tasks of these classes of the session that runs inside its slice."""

    lease: LeaseId
    session: SessionId
    waits_for: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeaseUnblocked:
    """The task on a lease no longer waits."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class ResizeAsked:
    """What runs on a lease wants another share or memory of its device; answered by AnswerResize.

    Attributes:
        share: thousandths of the device, from now on; None: as it is.
        memory: MiB of it, from now on; None: its share of the device's memory if it has just that, else as it is.
        number: names the question in the answer.
    """

    lease: LeaseId
    share: Share | None = None
    memory: MemoryMiB | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class SliceResized:
    """A running slice has the size that ResizeSlice gave it."""

    slice: SliceId


@dataclass(frozen=True, slots=True)
class ResizeRefused:
    """A running slice keeps the size it had; the message says why."""

    slice: SliceId
    message: str


@dataclass(frozen=True, slots=True)
class SliceStarted:
    """A slice's process answers."""

    slice: SliceId


@dataclass(frozen=True, slots=True)
class SliceFailed:
    """A slice could not be started; nothing of it is left."""

    slice: SliceId
    message: str


@dataclass(frozen=True, slots=True)
class SliceEnded:
    """A slice's process and its descendants are known to be gone, asked for or not.

    Attributes:
        message: what is known of why.
        running: calls (numbers of the client) that had started and not finished.
        cause: why the pool or the slice itself ended it: "timeout", "cancel"; "memory" of its device, "host_memory",
            "node_memory" (host memory, when that of its node ran out); "died" when its process ended and nobody had
            asked for that; "" otherwise.
        overrun: where it was memory: MiB it used, and MiB it holds.
    """

    slice: SliceId
    message: str = ""
    running: tuple[int, ...] = ()
    cause: str = ""
    overrun: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class RecoveryBegan:
    """The scheduler was started again: slices and leases of an earlier incarnation are there, and will be reported."""


@dataclass(frozen=True, slots=True)
class RecoveryEnded:
    """All who know of an earlier incarnation have spoken, or have had their time: what nobody holds may go."""


@dataclass(frozen=True, slots=True)
class SliceFound:
    """A slice that an earlier incarnation had started is there; again with another placement once that has changed.

    Attributes:
        placement: what it holds; while its size is being changed, the larger of both.
        host: milli-cores and MiB of host memory that it holds beside the device.
        state: STARTING, IDLE (its process answers, whoever holds it) or STOPPING.
        resized: whether it has another size than its class.
    """

    slice: SliceId
    placement: Placement
    environment: EnvironmentId
    task_class: str
    reusable: bool
    host: tuple[int, int]
    state: SliceState
    resized: bool = False


@dataclass(frozen=True, slots=True)
class LeaseFound:
    """A session that joins again holds a lease which an earlier incarnation had granted.

    Attributes:
        submitted: its request; of a member of a gang, that of the gang.
        lease: as it was granted.
        held: seconds since then; ran: whether something has run to its end on it.
        recalled: whether it was asked back; stop: in the middle of its work.
        closing: of a gang: the session is done with it, what is left of it only ends.
    """

    submitted: RequestSubmitted
    lease: Lease
    held: float = 0.0
    ran: bool = False
    recalled: bool = False
    stop: bool = False
    closing: bool = False


Event = (
    NodeReported
    | NodeLost
    | DeviceCordoned
    | DeviceUncordoned
    | SessionOpened
    | SessionClosed
    | RequestSubmitted
    | RequestCancelled
    | LeaseReleased
    | LeaseYielded
    | LeaseCheckpointed
    | TasksRan
    | StepsRan
    | SpeedsRestored
    | HistoryRestored
    | QueuesConfigured
    | LeaseBlocked
    | LeaseUnblocked
    | ResizeAsked
    | SliceResized
    | ResizeRefused
    | SliceStarted
    | SliceFailed
    | SliceEnded
    | RecoveryBegan
    | RecoveryEnded
    | SliceFound
    | LeaseFound
)
EVENTS: tuple[type, ...] = Event.__args__
