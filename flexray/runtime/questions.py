"""What would happen: answered from a copy of the scheduler's state, one question at a time.

The copy is made between two events (about a third of a second with 10,000 requests), so it is not made of very many;
the replay of it runs in a thread, so that events and cycles go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from flexray.core.estimate import estimate_starts
from flexray.core.explaining import explain, explain_ended
from flexray.core.planning import plan
from flexray.core.scheduler import Scheduler
from flexray.errors import UsageError
from flexray.model.explanation import Explanation, StartEstimate
from flexray.model.lease import RequestId
from flexray.model.lifecycle import RequestState
from flexray.model.plan import PlanAnswer
from flexray.model.request import Request

_MOST_REPLAYED = 20_000
"""Requests. With more there is no estimated start, and no plan."""


class Questions:
    """Questions to a core. ``now`` gives the time of its clock."""

    def __init__(self, core: Scheduler, now: Callable[[], float]) -> None:
        self._core, self._now = core, now
        self._one_at_a_time = asyncio.Lock()

    async def explain(self, name: RequestId) -> Explanation | None:
        """Where a request is and why, or how it ended; None for one that is not known (any more)."""
        start = await self._start_of(name)
        state = self._core.state
        return explain(state, name, start) or explain_ended(state, name)

    async def plan(self, request: Request) -> PlanAnswer:
        """When and where a request would start, and what would start now."""
        async with self._one_at_a_time:
            if self._is_long:
                raise UsageError(
                    f"{len(self._core.state.requests)} requests wait and run: a plan is a replay of them all and would "
                    f"keep the scheduler from its work. Ask again when there are at most {_MOST_REPLAYED}"
                )
            return await asyncio.to_thread(plan, self._core.copy(), request, self._now())

    async def starts(self, names: Sequence[RequestId]) -> dict[RequestId, StartEstimate]:
        """When these are expected to start, those that wait; none where so many wait that nothing is replayed."""
        async with self._one_at_a_time:
            if self._is_long or not names:
                return {}
            return await asyncio.to_thread(estimate_starts, self._core.copy(), names, self._now())

    @property
    def _is_long(self) -> bool:
        return len(self._core.state.requests) > _MOST_REPLAYED

    async def _start_of(self, name: RequestId) -> StartEstimate | None:
        async with self._one_at_a_time:
            request = self._core.state.requests.get(name)
            waits = request is not None and request.state in (RequestState.QUEUED, RequestState.RESERVED)
            if not waits or self._is_long:
                return None
            found = await asyncio.to_thread(estimate_starts, self._core.copy(), [name], self._now())
        return found.get(name)
