"""What a task can know about where it runs: ``flex.current()``."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from flexray.errors import UsageError
from flexray.model.amounts import share_as_float
from flexray.model.devices import Device
from flexray.runtime.protocol import SliceIdentity, Token

_TORCH_BACKEND = {"nvidia": "cuda", "amd": "cuda", "ascend": "npu", "intel": "xpu"}


@dataclass(frozen=True, slots=True)
class Current:
    """The running task's view of its slice.

    Attributes:
        slice: id of the slice.
        devices: the devices it is on; one, unless whole devices were asked for.
        share: fraction of each device, such as 0.25.
        memory: bytes of each device's memory that the slice was granted.
        isolation: what is really enforced: ``none``, ``framework``, ...
        request: id of the request whose lease this is.
        attempt: counts the leases of that request.
        rank: this member's number within its gang; 0 alone.
        world_size: number of members of its gang; 1 alone.
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
    _yield: StopFlag = field(default_factory=lambda: StopFlag(), repr=False)

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
        """Whether the task was asked to stop: cancelled, or past its timeout. Look now and then, and return."""
        return self._yield.raised


class StopFlag:
    """Raised to ask a call to stop; lighter than an Event, since every call has one."""

    __slots__ = ("raised",)

    def __init__(self) -> None:
        self.raised = False


class Running(NamedTuple):
    """One call that runs in this process: the slice, the lease it runs under, and its flag."""

    identity: SliceIdentity
    token: Token
    flag: StopFlag


running: ContextVar[Running | None] = ContextVar("flexray_running", default=None)


def current() -> Current:
    """Where this task runs. Raises UsageError outside a task."""
    here = running.get()
    if here is None:
        raise UsageError("flex.current() works inside a running flexray task or actor method only")
    identity, lease = here.identity, here.token.lease
    return Current(
        identity.slice,
        identity.devices,
        share_as_float(identity.placement.share),
        identity.placement.memory * 2**20,
        identity.isolation,
        lease.request,
        lease.attempt,
        _yield=here.flag,
    )
