"""Who held what, and how much was used: what the dashboard has seen since it was started."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from flexray.model.lease import LeaseId
from flexray.model.snapshot import RequestView, SliceView, Snapshot

_MOST_HOLDINGS = 50_000
_MOST_SAMPLES = 7_200


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease from its start to its end.

    Attributes:
        share: fraction of each of the devices.
        start, end: seconds of the scheduler's clock; ``end`` is None while it lasts.
        why: the reason (RecallReason value) if it was taken back, else "".
    """

    lease: LeaseId
    request: str
    session: str
    queue: str
    task_class: str
    slice: str
    devices: tuple[str, ...]
    share: float
    start: float
    end: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """The pool in five numbers: devices that are booked and used (None where nobody can tell), and requests."""

    at: float
    devices: int
    booked: float
    used: float | None
    running: int
    waiting: int


def sample(snapshot: Snapshot) -> Sample:
    """What the curves are made of."""
    measured = [piece.busy * len(piece.devices) for piece in snapshot.slices if piece.busy is not None]
    return Sample(
        round(snapshot.now, 2),
        len(snapshot.devices),
        round(sum(device.share_held for device in snapshot.devices), 3),
        round(math.fsum(measured), 3) if measured or not snapshot.slices else None,
        sum(queue.running for queue in snapshot.queues),
        sum(queue.waiting for queue in snapshot.queues),
    )


class Seen:
    """Holdings and samples of the snapshots so far; bounded, the oldest go first."""

    def __init__(self) -> None:
        self._open: dict[tuple[LeaseId, str], Holding] = {}
        self._closed: deque[Holding] = deque(maxlen=_MOST_HOLDINGS)
        self._samples: deque[Sample] = deque(maxlen=_MOST_SAMPLES)

    def look(self, snapshot: Snapshot) -> Sample:
        """Take in the pool as it is now."""
        running = {request.id: request for request in snapshot.running}
        held = [(piece, running[piece.request]) for piece in snapshot.slices if piece.request in running]
        now = {(LeaseId(request.id, request.attempt), piece.id): (piece, request) for piece, request in held}  # type: ignore[arg-type]
        taken = {one.victim: one for one in snapshot.preemptions}
        for key in [key for key in self._open if key not in now]:
            over, back = self._open.pop(key), taken.get(key[0])
            self._closed.append(replace(over, end=snapshot.now, why=back.reason if back is not None else ""))
        for key, (piece, request) in now.items():
            before = self._open.get(key)
            if before is None or before.share != piece.share:  # a slice may change its share while it is held
                self._open[key] = _holding(key[0], piece, request)
        taken_down = sample(snapshot)
        self._samples.append(taken_down)
        return taken_down

    def holdings(self, since: float = 0.0) -> list[Holding]:
        """Those that had not ended then, first started first."""
        closed = (one for one in self._closed if one.end is not None and one.end >= since)
        return sorted([*closed, *self._open.values()], key=lambda one: (one.start, one.lease, one.slice))

    def samples(self, since: float = 0.0) -> list[Sample]:
        """Those taken since then."""
        return [one for one in self._samples if one.at >= since]


def _holding(lease: LeaseId, piece: SliceView, request: RequestView) -> Holding:
    return Holding(
        lease,
        request.id,
        request.session,
        request.queue,
        request.task_class,
        piece.id,
        piece.devices,
        piece.share,
        piece.since,
    )
