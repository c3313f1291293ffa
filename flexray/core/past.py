"""What the core remembers of what is over: who was preempted for whom, and how requests ended. The latest only."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import Any

from flexray.core.records import RequestRecord, SliceRecord
from flexray.model.lease import RequestId
from flexray.model.lifecycle import EndReason, RecallReason, RequestState
from flexray.model.snapshot import Preemption

_MOST_PREEMPTIONS = 1_000
_MOST_ENDINGS = 1_000


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended.

    Attributes:
        ran: seconds for which it held its last lease; None if it had none when it ended.
    """

    state: RequestState
    queue: str
    at: float
    ran: float | None
    message: str = ""


class Past:
    """Two bounded memories; their entries never change."""

    def __init__(self) -> None:
        self.preemptions: deque[Preemption] = deque(maxlen=_MOST_PREEMPTIONS)
        self.endings: OrderedDict[RequestId, Ending] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> Past:
        copied = Past()
        copied.preemptions, copied.endings = self.preemptions.copy(), self.endings.copy()
        return copied

    def preempted(
        self,
        victim: RequestRecord,
        record: SliceRecord,
        winner: RequestRecord | None,
        why: tuple[RecallReason, float],
        now: float,
    ) -> None:
        """A lease is taken back.

        Args:
            why: the reason, and how many seconds of work the victim loses at most.
        """
        place, (reason, lost) = record.placement, why
        self.preemptions.append(
            Preemption(
                now,
                reason.value,
                winner.id if winner is not None else "",
                winner.queue if winner is not None else "",
                victim.lease,
                victim.queue,
                record.id,
                place.devices,
                lost * place.share * len(place.devices) / 1000,
            )
        )

    def ended(self, request: RequestRecord, now: float) -> None:
        """A request has ended, in the state that it is in."""
        ran = now - request.leased_at if request.slice is not None and request.attempt else None
        self.endings[request.id] = Ending(request.state, request.queue, now, ran)
        if len(self.endings) > _MOST_ENDINGS:
            self.endings.popitem(last=False)

    def failed(self, request: RequestRecord, reason: EndReason, message: str) -> None:
        """Why a request that has ended did so."""
        self.endings[request.id] = replace(self.endings[request.id], message=f"{reason.value}: {message}")

    def of(self, name: RequestId) -> tuple[Preemption, ...]:
        """The preemptions that a request won or lost, oldest first."""
        return tuple(one for one in self.preemptions if name in (one.winner, one.victim.request))
