"""What a task can know about where it runs: ``flex.current()``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from flexray.errors import UsageError
from flexray.model.amounts import share_as_float
from flexray.model.devices import Device
from flexray.runtime.protocol import Member, SliceIdentity, Token

if TYPE_CHECKING:
    from flexray.runtime.checkpoints import Attempt, Checkpoints

_ALONE = Member(0, 1, "", 0, 1)
_TORCH_BACKEND = {"nvidia": "cuda", "amd": "cuda", "ascend": "npu", "intel": "xpu"}


@dataclass(frozen=True, slots=True)
class Current:
    """The running task's view of its slice.

    Attributes:
        slice: id of the slice.
        devices: the devices it is on; one, unless whole devices were asked for.
        share: fraction of each device, such as 0.25.
        memory: bytes of each device's memory that the slice was granted.
        isolation: the mechanism that holds the slice to its share: ``none``, ``cgroup``, ``mps``, ...
        guarantee: how strongly it is held to its share and its memory, such as ``hard per slice``.
        notes: what else to know of its limits, such as how they were rounded.
        request: id of the request whose lease this is.
        attempt: counts the leases of that request.
        rank: this member's number within its gang; 0 alone.
        world_size: number of members of its gang; 1 alone.
        rendezvous: ``host:port`` where rank 0 of its gang can listen for the others; "" alone.
    """

    slice: str
    devices: tuple[Device, ...]
    share: float
    memory: int
    isolation: str
    request: str
    attempt: int
    rank: int = 0
    world_size: int = 1
    rendezvous: str = ""
    guarantee: str = "none"
    notes: tuple[str, ...] = ()
    _here: Running | None = field(default=None, repr=False)

    @property
    def device(self) -> Device:
        """The device, or the first of several."""
        return self.devices[0]

    @property
    def torch_device(self) -> str:
        """What to write in ``tensor.to(...)``: ``"cuda:0"`` where torch can use the device, else ``"cpu"``."""
        backend = _TORCH_BACKEND.get(self.device.type.name.split("/")[0])
        torch = sys.modules.get("torch")
        if torch is None:
            try:
                import torch as imported
            except ImportError:
                return "cpu"
            torch = imported
        module = getattr(torch, backend, None) if backend else None
        return f"{backend}:0" if module is not None and module.is_available() else "cpu"

    def should_yield(self) -> bool:
        """Whether the task was asked to stop: preempted, cancelled, or past its timeout. Look now and then, and return.

        A preempted task that raises ``flex.errors.Preempted`` is run again elsewhere; ``checkpoint`` raises it for you.
        """
        return self._running.attempt.flag.raised

    def on_yield(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` once when ``should_yield()`` becomes true; at once if it is already.

        It runs in a thread of flexray's beside the task, and not at all when the task is done before. It should set
        a flag or wake somebody: it cannot end the task, and what it raises is printed.
        """
        self._checkpoints.on_yield(callback, self._running.attempt.flag)

    def checkpoint(self, state: Any, *, every: float = 0.0) -> None:
        """Store the state of this call; a later attempt finds it in ``restored``. Ends a task that is to give way.

        Stored is what pickles, by value. This returns once the client has it, or it is in its ``checkpoint_place``: it
        is safe from the end of the slice then. Only the last one is kept. When the task is asked to give way, the state
        is stored, whatever ``every`` says, and ``flex.errors.Preempted`` raised: it ends here, and goes on elsewhere.

        In a gang, what rank 0 stores is the state of all: every member of the next attempt finds it. On the other
        ranks nothing is stored.

        Args:
            state: arrays and tensors in it are not copied first; tensors come back on the CPU.
            every: seconds since this attempt's start or last checkpoint before which nothing is stored.

        Raises:
            Preempted: the state is stored and the task has to end; let it pass.
            Cancelled: the task was cancelled, or is past its timeout; nothing is stored.
            NotSerializable: the state cannot be pickled.
            UsageError: in an actor's method or a stream, which are never repeated.
            OSError: ``checkpoint_place`` cannot be written to (or what its file system raises).
        """
        self._checkpoints.checkpoint(state, every, self._running.attempt)

    @property
    def restored(self) -> Any:
        """The state of this call's last good checkpoint, from an earlier attempt; None when there is none.

        For the start of an attempt: it is read anew at each look, into memory that is the task's own, and after a
        checkpoint of this attempt it raises UsageError. With ``checkpoint_place`` a failure to read raises OSError;
        a file that is not whole is passed over for the one before.
        """
        return self._checkpoints.restored()

    def __reduce__(self) -> tuple[object, ...]:
        """What it says may be sent elsewhere; what it does works where the task runs only."""
        return (Current, tuple(getattr(self, one.name) for one in fields(self) if one.name != "_here"))

    @property
    def _running(self) -> Running:
        if self._here is None:
            raise UsageError("this flex.current() has been sent elsewhere: ask for it anew where a task runs")
        return self._here

    @property
    def _checkpoints(self) -> Checkpoints:
        return self._running.stage.begin(self._running.attempt)


class StopFlag:
    """Raised to ask a call to stop; lighter than an Event, since every call has one."""

    __slots__ = ("raised",)

    def __init__(self) -> None:
        self.raised = False


class Stage(NamedTuple):
    """Where calls run: slice, lease, what finds or makes the checkpoints of one, and what it is of a gang."""

    identity: SliceIdentity
    token: Token
    begin: Callable[[Attempt], Checkpoints]
    member: Member | None = None


class Running(NamedTuple):
    """One call that runs in this process. Made for every call, so what it shares with others is made once."""

    stage: Stage
    attempt: Attempt

    @property
    def token(self) -> Token:
        """The lease it runs under."""
        return self.stage.token


running: ContextVar[Running | None] = ContextVar("flexray_running", default=None)


def current() -> Current:
    """Where this task runs. Raises UsageError outside a task."""
    here = running.get()
    if here is None:
        raise UsageError("flex.current() works inside a running flexray task or actor method only")
    identity, lease = here.stage.identity, here.token.lease
    member = here.stage.member or _ALONE
    return Current(
        identity.slice,
        identity.devices,
        share_as_float(identity.placement.share),
        identity.placement.memory * 2**20,
        identity.isolation.value,
        lease.request,
        lease.attempt,
        member.rank,
        member.world_size,
        member.rendezvous,
        identity.devices[0].guarantee.describe() if identity.devices else "none",
        identity.notes,
        _here=here,
    )
