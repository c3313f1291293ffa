"""What was: curves of the looks so far, and the leases that are over. Bounded; the oldest go first."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from flexray.model.holding import Holding
from flexray.model.snapshot import Snapshot

_MOST_HOLDINGS = 20_000
_MOST_SAMPLES = 7_200


@dataclass(frozen=True, slots=True)
class Sample:
    """The pool in a few numbers.

    Attributes:
        at: seconds of the scheduler's clock.
        devices: how many there are.
        booked, used: of them, in devices; ``used`` is None where nobody can tell.
        running, waiting: requests.
    """

    at: float
    devices: int
    booked: float
    used: float | None
    running: int
    waiting: int


def sample(snapshot: Snapshot) -> Sample:
    """The pool as it is now."""
    measured = [piece.busy * len(piece.devices) for piece in snapshot.slices if piece.busy is not None]
    return Sample(
        round(snapshot.now, 2),
        len(snapshot.devices),
        round(sum(device.share_held for device in snapshot.devices), 3),
        round(math.fsum(measured), 3) if measured or not snapshot.slices else None,
        sum(queue.running for queue in snapshot.queues),
        sum(queue.waiting for queue in snapshot.queues),
    )


class Past:
    """Samples, and leases that are over."""

    def __init__(self) -> None:
        self.until = 0.0
        """When the last of the leases ended: what ends from then on is still to be asked for."""
        self._samples: deque[Sample] = deque(maxlen=_MOST_SAMPLES)
        self._holdings: deque[Holding] = deque(maxlen=_MOST_HOLDINGS)

    def add_sample(self, one: Sample) -> None:
        self._samples.append(one)

    def add_holdings(self, found: Iterable[Holding]) -> list[Holding]:
        """Take in those that ended at ``until`` or later. Returns those that are new."""
        last = {(one.lease, one.slice) for one in self._holdings if one.end >= self.until}
        new = [one for one in found if (one.lease, one.slice) not in last]
        self._holdings.extend(new)
        self.until = max((one.end for one in new), default=self.until)
        return new

    def samples(self, since: float = 0.0) -> list[Sample]:
        """Those taken since then."""
        return [one for one in self._samples if one.at >= since]

    def holdings(self, since: float = 0.0) -> list[Holding]:
        """Those that ended since then, in the order in which they did."""
        return [one for one in self._holdings if one.end >= since]

    def of(self, request: str) -> list[Holding]:
        """The leases of one request, or of the members of a gang."""
        return [one for one in self._holdings if one.request == request or one.request.startswith(f"{request}.")]
