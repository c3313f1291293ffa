"""When those who wait are expected to start, asked of the core during a run, as ``flexray explain`` asks it."""

from __future__ import annotations

from flexray.core.estimate import Replay
from flexray.core.outlook import Outlook
from flexray.core.records import RequestRecord
from flexray.core.scheduler import Scheduler
from flexray.model.lease import RequestId
from flexray.model.lifecycle import RequestState, WaitReason

CHEAP = 60_000
"""What a run spends on estimates by default: copied requests, slices and devices, and 20 for each event replayed."""
_EVENT_COSTS = 20


class Foresight:
    """Asks whenever somebody begins to wait, or waits again, about all who wait then.

    Args:
        budget: how much may be spent; once it is used up, nothing more is asked. The same run always asks the same.
    """

    def __init__(self, budget: float = CHEAP) -> None:
        self._left = budget
        self._seen: set[tuple[RequestId, int]] = set()
        self._first: dict[RequestId, float | None] = {}
        self._last: dict[RequestId, float | None] = {}

    def look(self, core: Scheduler, now: float) -> None:
        """After a cycle."""
        if self._left <= 0:
            return
        waiting = [request for request in core.state.requests.values() if _waits(request)]
        if not {(request.id, request.attempt) for request in waiting} - self._seen:
            return
        self._seen.update((request.id, request.attempt) for request in waiting)
        copy = core.copy()
        replay = Replay(copy, [request.id for request in waiting], now, Outlook(copy.state))
        found = replay.run()
        state = core.state
        self._left -= len(state.requests) + len(state.slices.by_id) + len(state.pool.devices)
        self._left -= _EVENT_COSTS * replay.events
        for name, estimate in found.items():
            at = None if estimate.seconds is None else round(now + estimate.seconds, 6)
            self._first.setdefault(name, at)
            self._last[name] = at

    def said_of(self, name: RequestId) -> tuple[float | None, float | None]:
        """The first and the last time at which a request was expected to start, in seconds of the run."""
        return self._first.get(name), self._last.get(name)


def _waits(request: RequestRecord) -> bool:
    """Whether it waits for others, rather than for its own slice to start."""
    if request.state is RequestState.RESERVED:
        return request.reserve_reason is WaitReason.MAKING_ROOM
    return request.state is RequestState.QUEUED
