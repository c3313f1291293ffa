"""Who held which slice, from when to when: what timelines and accounts are made of."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.lease import LeaseId, RequestId, SessionId, SliceId

RELEASED = "released"
"""The session handed the lease back."""
SESSION_CLOSED = "session_closed"
"""The session ended, and its leases with it."""
UNSEEN = "unseen"
"""It ended while there was no scheduler; ``end`` is when one last saw it."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease that is over.

    Attributes:
        lease: (request, attempt).
        user, job: whose session it was; "" where nobody said so.
        queue: that of its request, when it ended.
        task_class: function and request; what comes before the first "/" is the function's name.
        node, devices, device_type: where the slice was.
        share: of each of its devices, as a fraction; as it was at the end.
        start, end: seconds of the scheduler's clock, since 1970.
        ended: why: RELEASED, SESSION_CLOSED, UNSEEN, or the value of an EndReason.
    """

    lease: LeaseId
    session: SessionId
    user: str
    job: str
    queue: str
    task_class: str
    slice: SliceId
    node: str
    devices: tuple[str, ...]
    device_type: str
    share: float
    start: float
    end: float
    ended: str

    @property
    def request(self) -> RequestId:
        """The request it was a lease of."""
        return self.lease.request

    @property
    def device_seconds(self) -> float:
        """Share x devices x time, by the share it had at the end."""
        return self.share * len(self.devices) * (self.end - self.start)
