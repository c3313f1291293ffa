"""What is to happen, in order: by time, at one time by phase, in one phase as it was put in."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from flexray.sim.jobs import Ticks

COMPLETION, HAPPENING, ARRIVAL, WAKE = range(4)
"""The phases of one instant, first to last."""


@dataclass(slots=True)
class Entry:
    """Something to happen. A wake-up alone does not keep a simulation going."""

    act: Callable[[], None]
    wake: bool = False
    dropped: bool = False


@dataclass(slots=True)
class Agenda:
    """Things to happen, by time, phase and the order they were put in."""

    heap: list[tuple[Ticks, int, int, Entry]] = field(default_factory=list)
    count: int = 0
    #: entries that are no wake-ups and not dropped: without any the simulation is over.
    due: int = 0

    def put(self, time: Ticks, phase: int, act: Callable[[], None]) -> Entry:
        """Something to happen at a time."""
        entry = Entry(act, phase == WAKE)
        self.count += 1
        self.due += not entry.wake
        heapq.heappush(self.heap, (time, phase, self.count, entry))
        return entry

    def drop(self, entry: Entry) -> None:
        """It does not happen after all."""
        if not entry.dropped:
            entry.dropped = True
            self.due -= not entry.wake

    def next_time(self) -> Ticks | None:
        """When the next thing happens; None when nothing but wake-ups is left."""
        while self.heap and self.heap[0][3].dropped:
            heapq.heappop(self.heap)
        return self.heap[0][0] if self.due else None

    def take(self, time: Ticks) -> Entry | None:
        """The next entry of this very instant."""
        if self.next_time() != time:
            return None
        entry = heapq.heappop(self.heap)[3]
        self.drop(entry)
        return entry
