"""Every life cycle of the core, each as one table.

Rule 1: everything that decides which state may follow which lives in this file.
Rule 2: a pair (state, step) that is not in a table is an error and changes nothing.

A request waits (QUEUED), has a place (RESERVED), holds a lease (LEASED), is asked to
hand it back (DRAINING) and ends. A slice is planned (PENDING: the room it needs is
still being freed), where it cannot begin at once; STARTING, IDLE (warm, nobody holds it),
HELD, STOPPING, GONE.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from flexray.errors import InternalError


class RequestState(str, Enum):
    """Where a request is in its life."""

    QUEUED = "queued"
    """Waiting; its WaitReason says for what."""
    RESERVED = "reserved"
    """The books hold a slice for it that is being freed or started."""
    LEASED = "leased"
    """Its session holds the lease and runs tasks on the slice."""
    DRAINING = "draining"
    """The lease was recalled; the session finishes what runs and hands it back."""
    DONE = "done"
    """The session handed the lease back."""
    FAILED = "failed"
    """It can never run; the reason was sent to its session."""
    CANCELLED = "cancelled"
    """Its session no longer wants it."""


class RequestStep(str, Enum):
    """What can happen to a request."""

    RESERVE = "reserve"
    GRANT = "grant"
    REQUEUE = "requeue"
    RECALL = "recall"
    RELEASE = "release"
    CANCEL = "cancel"
    FAIL = "fail"


class SliceState(str, Enum):
    """Where a slice is in its life."""

    PENDING = "pending"
    """Planned; it starts when the slices in its way have stopped. Holds nothing yet."""
    STARTING = "starting"
    """Its process is being started; from here on it holds its share."""
    IDLE = "idle"
    """Warm and unused: the next lease of its class takes it, or it makes room."""
    HELD = "held"
    """A lease runs on it."""
    STOPPING = "stopping"
    """Its process is being stopped; it still holds its share."""
    GONE = "gone"
    """Its process is known to have ended; its share is free."""


class SliceStep(str, Enum):
    """What can happen to a slice."""

    START = "start"
    HOLD = "hold"
    IDLE = "idle"
    STOP = "stop"
    END = "end"


#: States in which a slice holds its share of the device.
HOLDING = frozenset({SliceState.STARTING, SliceState.IDLE, SliceState.HELD, SliceState.STOPPING})
#: States in which a request still wants or has something.
LIVE = frozenset({RequestState.QUEUED, RequestState.RESERVED, RequestState.LEASED, RequestState.DRAINING})

_R, _RS = RequestState, RequestStep
REQUEST_TABLE: dict[tuple[RequestState, RequestStep], RequestState] = {
    (_R.QUEUED, _RS.RESERVE): _R.RESERVED,
    (_R.QUEUED, _RS.CANCEL): _R.CANCELLED,
    (_R.QUEUED, _RS.FAIL): _R.FAILED,
    (_R.RESERVED, _RS.GRANT): _R.LEASED,
    (_R.RESERVED, _RS.REQUEUE): _R.QUEUED,
    (_R.RESERVED, _RS.CANCEL): _R.CANCELLED,
    (_R.RESERVED, _RS.FAIL): _R.FAILED,
    (_R.LEASED, _RS.RELEASE): _R.DONE,
    (_R.LEASED, _RS.RECALL): _R.DRAINING,
    (_R.LEASED, _RS.REQUEUE): _R.QUEUED,
    (_R.LEASED, _RS.CANCEL): _R.CANCELLED,
    (_R.LEASED, _RS.FAIL): _R.FAILED,
    (_R.DRAINING, _RS.RELEASE): _R.DONE,
    (_R.DRAINING, _RS.REQUEUE): _R.QUEUED,
    (_R.DRAINING, _RS.CANCEL): _R.CANCELLED,
    (_R.DRAINING, _RS.FAIL): _R.FAILED,
}

_S, _SS = SliceState, SliceStep
SLICE_TABLE: dict[tuple[SliceState, SliceStep], SliceState] = {
    (_S.PENDING, _SS.START): _S.STARTING,
    (_S.PENDING, _SS.END): _S.GONE,
    (_S.STARTING, _SS.HOLD): _S.HELD,
    (_S.STARTING, _SS.IDLE): _S.IDLE,
    (_S.STARTING, _SS.STOP): _S.STOPPING,
    (_S.STARTING, _SS.END): _S.GONE,
    (_S.IDLE, _SS.HOLD): _S.HELD,
    (_S.IDLE, _SS.STOP): _S.STOPPING,
    (_S.IDLE, _SS.END): _S.GONE,
    (_S.HELD, _SS.IDLE): _S.IDLE,
    (_S.HELD, _SS.STOP): _S.STOPPING,
    (_S.HELD, _SS.END): _S.GONE,
    (_S.STOPPING, _SS.END): _S.GONE,
}

State = TypeVar("State", bound=Enum)
Step = TypeVar("Step", bound=Enum)


def follow(table: dict[tuple[State, Step], State], state: State, step: Step, who: str) -> State:
    """The state after a step. Raises InternalError, naming the object, when the table has no such pair."""
    try:
        return table[(state, step)]
    except KeyError:
        raise InternalError(f"{who}: no step {step.value!r} from state {state.value!r}") from None


class WaitReason(str, Enum):
    """Why a request is not running yet."""

    NEXT_CYCLE = "next_cycle"
    """There is room for it; the next cycle gives it a place."""
    NO_DEVICES = "no_devices"
    """No node has reported its devices yet."""
    NO_ROOM = "no_room"
    """Every device that could hold it is taken."""
    FRAGMENTED = "fragmented"
    """Enough is free in total, but not on any one device (or node, for several devices)."""
    USED_BY_RAY = "used_by_ray"
    """The devices that could hold it are used by plain Ray work."""
    SCALING = "scaling"
    """Ray's autoscaler is asked for a node, or a device that was given back to Ray is being claimed again."""
    HOST_CPUS = "host_cpus"
    """The nodes with room have too few host cores, or too little host memory, free."""
    DEVICES_SICK = "devices_sick"
    """The devices that could hold it are not healthy, or an operator has cordoned them."""
    QUEUE_LIMIT = "queue_limit"
    """Its queue, or one above it, uses as much as its limit allows."""
    MAKING_ROOM = "making_room"
    """Its place is chosen; slices there are being stopped."""
    FASTER_SOON = "faster_soon"
    """It fits now, but finishes sooner on a faster device that is expected to come free."""
    SLICE_STARTING = "slice_starting"
    """Its slice's process is being started."""
    GANG = "gang"
    """It waits for others of its gang: until they have started, or have come back, or there is room to join them."""


class FilterReason(str, Enum):
    """Why a device could never hold a request."""

    FAMILY = "family"
    """Another family than asked (gpu=, npu=)."""
    TYPE = "type"
    """Its type is not among types=."""
    MEMORY = "memory"
    """It, or the largest part that it is cut into, has less memory than asked."""
    PROFILE = "profile"
    """It is cut into fixed parts, and none of them is as large as asked."""
    ISOLATION = "isolation"
    """Its backend cannot give the isolation asked for."""
    COUNT = "count"
    """Its node has fewer such devices than asked."""
    CPUS = "cpus"
    """Its node has fewer host cores than asked."""
    HOST_MEMORY = "host_memory"
    """Its node has less host memory than asked."""


class StopReason(str, Enum):
    """Why the core stops a slice."""

    MAKE_ROOM = "make_room"
    """It was idle and something else needs the room."""
    EXPIRED = "expired"
    """It was idle for longer than the configured time."""
    SESSION_ENDED = "session_ended"
    """Its session, or the last session of its environment, has ended."""
    NOT_REUSABLE = "not_reusable"
    """It held an actor, or a member of a gang, whose process is not given to anybody else."""
    RESIZED = "resized"
    """It has another size than the leases of its class ask for, so it is not given to anybody else."""
    CANCELLED = "cancelled"
    """Nobody wants it any more."""
    PREEMPTED = "preempted"
    """Its lease was taken back, and what ran did not stop within the grace period."""
    DEVICE_LEFT = "device_left"
    """Its device is no longer in the pool, or is lost."""
    DEVICE_DRAINS = "device_drains"
    """Its device is sick, or an operator drains it."""


class EndReason(str, Enum):
    """Why a lease or a request ended otherwise than by its session's wish."""

    SLICE_LOST = "slice_lost"
    """The slice's process died."""
    NODE_LOST = "node_lost"
    """The node died or left."""
    DEVICE_LOST = "device_lost"
    """The device left the pool or is lost, or what ran there could not move off in time."""
    START_FAILED = "start_failed"
    """The slice could not be started, several times."""
    INFEASIBLE = "infeasible"
    """No device of the inventory could ever hold it."""
    DEADLOCK = "deadlock"
    """Everything that could make room waits, directly or not, for this very request."""
    UNKNOWN_QUEUE = "unknown_queue"
    """Its queue does not exist."""
    QUEUE_RULES = "queue_rules"
    """Its queue does not take such requests."""
    PREEMPTED = "preempted"
    """The pool took it back: for somebody else, or because the work goes on better elsewhere."""


class RecallReason(str, Enum):
    """Why a session is asked to hand a lease back."""

    STARVING = "starving"
    """It has been held for a term, and a request has waited for one; to be stopped, for as long as patience lasts."""
    RECLAIM = "reclaim"
    """Its queue borrows, and a request that is within its own queue's quota needs the room."""
    PRIORITY = "priority"
    """A request of its queue with a higher priority needs the room."""
    REMATCH = "rematch"
    """It goes on on a device type that suits it better, or makes room for one that has waited long."""
    GANG = "gang"
    """A member of its gang is lost, and too few are left."""
    BACKFILL = "backfill"
    """It runs in room that somebody else has reserved, who could start soon, or now."""
    DEFRAGMENT = "defragment"
    """It goes on elsewhere, so that free parts come together for a request that fits on no device."""
    DEVICE_SICK = "device_sick"
    """Its device has a fault that condemns it: it goes on elsewhere."""
    DRAIN = "drain"
    """An operator drains its device: it goes on elsewhere."""
