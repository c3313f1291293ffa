"""What the dashboard asks the pool for. It is told how by whoever starts it, so that it knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flexray.model.explanation import Explanation, StartEstimate
from flexray.model.holding import Holding
from flexray.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Source:
    """Questions to one pool. Each may raise a FlexrayError, whose message is shown.

    Attributes:
        snapshot: the pool now.
        explanation: of one request, by id; raises UsageError for one that is not known.
        starts: when these waiting requests are expected to start.
        history: leases that ended at some time (seconds since 1970) or later.
        demand: plain Ray work that waits for accelerators, as ``flexray status --json`` has it.
        change_cordons: cordons or uncordons devices; returns their ids.
    """

    snapshot: Callable[[], Awaitable[Snapshot]]
    explanation: Callable[[str], Awaitable[Explanation]]
    starts: Callable[[Sequence[str]], Awaitable[Mapping[str, StartEstimate]]]
    history: Callable[[float], Awaitable[Sequence[Holding]]]
    demand: Callable[[], Awaitable[list[dict[str, Any]]]]
    change_cordons: Callable[[dict[str, Any]], Awaitable[list[str]]]
