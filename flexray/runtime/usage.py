"""What slices really use, beside what they hold: measured on their nodes, merged into what people are shown.

The scheduler's core does not need it, so it is no event: agents report it beside their events, and the scheduler keeps
the latest of each node.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from flexray.model.lease import SliceId
from flexray.model.snapshot import SliceView, Snapshot

if TYPE_CHECKING:  # every process has the messages of this module, and only agents what measures
    from flexray.devices.enforcers.enforcer import Cell, Usage

LOOK_SECONDS = 2.0
"""Between two looks, and two messages of a node: it is for people to read."""

WINDOW_SECONDS = 10.0
"""How busy a slice is, is said of so many seconds: longer than a batch of most work, short enough to be called now."""

IDLE_SHARE = 0.05
"""A slice that uses less than this part of its share is idle: more than a waiting server and its heartbeats use."""


class SliceUse(NamedTuple):
    """What a slice uses. None where nobody can tell.

    Attributes:
        busy: fraction of each device, over the last seconds.
        memory: MiB of each device; of a CPU stand-in beyond what the bare process has.
        idle_seconds: for how long it has used hardly any of its share.
        lately: fraction of each device since the look before: what accounts sum up.
    """

    slice: SliceId
    busy: float | None
    memory: int | None
    idle_seconds: float | None
    lately: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class UsageReport:
    """What the slices of a node use; all that run there, those that are not in it do not."""

    slices: tuple[SliceUse, ...]


class Meter:
    """One slice, from looks at what it has used so far."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, float]] = deque()
        self._idle_since: float | None = None

    def look(self, name: SliceId, cell: Cell, usage: Usage, now: float) -> SliceUse:
        """Take in what it has used until now (seconds of any clock)."""
        count = max(1, len(cell.devices))
        memory = None if usage.memory is None else usage.memory // count
        busy = lately = None
        if usage.busy_seconds is not None:
            before = self._looks[-1] if self._looks else None
            busy = self._busy(usage.busy_seconds / count, now)
            lately = self._lately(before)
        if busy is None or busy * 1000 >= IDLE_SHARE * cell.share:
            self._idle_since = None
            return SliceUse(name, busy, memory, None if busy is None else 0.0, lately)
        if self._idle_since is None:
            self._idle_since = self._looks[0][0]
        return SliceUse(name, busy, memory, now - self._idle_since, lately)

    def _lately(self, before: tuple[float, float] | None) -> float | None:
        """Between the last two looks; None where there are no two, or the account began anew."""
        now, seconds = self._looks[-1]
        if before is None or seconds < before[1] or now <= before[0]:
            return None
        return (seconds - before[1]) / (now - before[0])

    def _busy(self, seconds: float, now: float) -> float | None:
        """Of the time since the oldest look within the window; None at the first look."""
        looks = self._looks
        if looks and seconds < looks[-1][1]:  # a process that has ended took its account with it
            looks.clear()
        looks.append((now, seconds))
        while len(looks) > 2 and now - looks[1][0] >= WINDOW_SECONDS:
            looks.popleft()
        (then, before), passed = looks[0], now - looks[0][0]
        return max(0.0, seconds - before) / passed if passed > 0 and then < now else None


class Metered(Protocol):
    """A slice that runs."""

    @property
    def name(self) -> SliceId: ...

    @property
    def cell(self) -> Cell | None: ...


M = TypeVar("M", bound=Metered)


class UsageWatch(Generic[M]):
    """Looks at slices until cancelled.

    Args:
        slices: those that run now.
        measure: what one of them uses; called in a thread.
        report: told after every look at which there was something to tell.
    """

    def __init__(
        self,
        slices: Callable[[], list[M]],
        measure: Callable[[M], Usage],
        report: Callable[[UsageReport], None],
    ) -> None:
        self._slices, self._measure, self._report = slices, measure, report
        self._meters: dict[SliceId, Meter] = {}
        self._told = False

    async def watch(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            here = self._slices()
            report = await loop.run_in_executor(None, self.look, here, time.monotonic())
            if report.slices or self._told:
                self._report(report)
            self._told = bool(report.slices)

    def look(self, here: Collection[M], now: float) -> UsageReport:
        """What these use, who are all that run."""
        self._meters = {one.name: self._meters.get(one.name, Meter()) for one in here}
        cells = [(one, one.cell) for one in here]
        return UsageReport(
            tuple(
                self._meters[one.name].look(one.name, cell, self._measure(one), now)
                for one, cell in cells
                if cell is not None
            )
        )


def with_usage(snapshot: Snapshot, reports: Mapping[str, UsageReport]) -> Snapshot:
    """The picture with what slices use, by the latest reports of their nodes."""
    uses = {use.slice: use for report in reports.values() for use in report.slices}
    return dataclasses.replace(snapshot, slices=tuple(_with_use(s, uses.get(SliceId(s.id)), snapshot.now)
                                                      for s in snapshot.slices))  # fmt: skip


def _with_use(piece: SliceView, use: SliceUse | None, now: float) -> SliceView:
    if use is None:
        return piece
    held = max(0.0, now - piece.since) if piece.state == "held" else 0.0  # before that, nobody had it
    idle = None if use.idle_seconds is None else min(use.idle_seconds, held)
    return dataclasses.replace(piece, busy=use.busy, memory_used=use.memory, idle_seconds=idle)
