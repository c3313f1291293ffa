"""Leases, placements and the ids that name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NewType

from flexray.model.amounts import MemoryMiB, Share
from flexray.model.isolation import Guarantee, Isolation

RequestId = NewType("RequestId", str)
SliceId = NewType("SliceId", str)
SessionId = NewType("SessionId", str)
EnvironmentId = NewType("EnvironmentId", str)


class LeaseId(NamedTuple):
    """A request and its attempt: a request that starts again gets a new lease."""

    request: RequestId
    attempt: int

    def __str__(self) -> str:
        return f"{self.request}#{self.attempt}"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request would go: devices of one node, the share and memory taken of each.

    Attributes:
        burst: thousandths that may be used while others leave them idle; 0: no more than the share.
        profile: name of the part it is, on a device that is cut into fixed parts, else "".
        start: the first place of that part in the device's row of places; -1 where only amounts count.
    """

    node: str
    devices: tuple[str, ...]
    share: Share
    memory: MemoryMiB
    burst: Share = Share(0)
    profile: str = ""
    start: int = -1


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run on a slice.

    Attributes:
        lease: (request, attempt).
        slice: the slice it runs on.
        placement: what was granted.
        device_type: name of the type of the slice's devices.
        isolation: the mechanism that holds the slice to its share.
        guarantee: how strongly it is held.
        grant: counts the leases of the slice; the slice refuses calls of an earlier one.
    """

    lease: LeaseId
    slice: SliceId
    placement: Placement
    device_type: str
    isolation: Isolation
    grant: int = 1
    guarantee: Guarantee = Guarantee()
