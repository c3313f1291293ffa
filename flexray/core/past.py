"""What the core remembers of what is over: preemptions, how requests ended, how long work took. The latest only."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import Any

from flexray.core.placement import Pool
from flexray.core.records import RequestRecord, SliceRecord
from flexray.model.lease import RequestId
from flexray.model.lifecycle import EndReason, RecallReason, RequestState
from flexray.model.snapshot import Preemption

_MOST_PREEMPTIONS = 1_000
_MOST_ENDINGS = 1_000
_MOST_RUNS = 1_000


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


@dataclass(frozen=True, slots=True)
class Run:
    """How long a task ran, or a lease on which nothing was reported.

    Attributes:
        work: seconds it would have taken on the fastest type it may use, as far as is known.
        of_declared: its seconds as a part of those its user had declared; None where nothing was.
    """

    task_class: str
    work: float
    of_declared: float | None


class Past:
    """Bounded memories; their entries never change."""

    def __init__(self) -> None:
        self.preemptions: deque[Preemption] = deque(maxlen=_MOST_PREEMPTIONS)
        self.endings: OrderedDict[RequestId, Ending] = OrderedDict()
        self.runs: deque[Run] = deque(maxlen=_MOST_RUNS)

    def __deepcopy__(self, memo: dict[int, Any]) -> Past:
        copied = Past()
        copied.preemptions, copied.endings = self.preemptions.copy(), self.endings.copy()
        copied.runs = self.runs.copy()
        return copied

    def ran(self, pool: Pool, request: RequestRecord, kind: str, seconds: float) -> None:
        """A task of a request took so many seconds on a type."""
        asked = request.request
        speed = pool.chooser.likely_speeds(request.task_class, asked).get(kind, 1.0)
        declared = pool.chooser.declared_on(asked, kind)
        self.runs.append(Run(request.task_class, seconds * speed, seconds / declared if declared else None))

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
                "" if winner is None else winner.gang.id if winner.gang is not None else winner.id,
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

    def gang_ended(self, gang: RequestId, member: RequestId) -> None:
        """A gang has ended as one of its members did."""
        if member in self.endings:
            self.endings[gang] = self.endings[member]

    def failed(self, request: RequestRecord, reason: EndReason, message: str) -> None:
        """Why a request that has ended did so."""
        self.endings[request.id] = replace(self.endings[request.id], message=f"{reason.value}: {message}")

    def of(self, name: RequestId) -> tuple[Preemption, ...]:
        """The preemptions that a request won or lost, oldest first."""
        return tuple(one for one in self.preemptions if name in (one.winner, one.victim.request))
