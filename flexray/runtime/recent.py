"""What has happened lately, for who asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from flexray.model.commands import Command
from flexray.model.events import (
    Event,
    HistoryRestored,
    LeaseCheckpointed,
    SpeedsRestored,
    StepsRan,
    TasksRan,
)
from flexray.model.happening import Happening, Happenings

_KEPT = 2000
_PASSED_OVER = frozenset({TasksRan, StepsRan, LeaseCheckpointed, SpeedsRestored, HistoryRestored})
"""Reports of progress, of which there are many, and what a scheduler tells itself."""


class Recent:
    """An Observer of the core that remembers the latest events and commands."""

    def __init__(self, epoch: int) -> None:
        self._epoch, self._last = epoch, 0
        self._known: deque[Happening] = deque(maxlen=_KEPT)

    def saw(self, event: Event, now: float) -> None:
        """An event happened."""
        if type(event) not in _PASSED_OVER:
            self._note(event, now)

    def decided(self, commands: Sequence[Command], now: float) -> None:
        """A cycle is over."""
        for command in commands:
            self._note(command, now)

    def after(self, epoch: int, number: int) -> Happenings:
        """What came after a number of an incarnation; all that is known where that is another one."""
        first = number if epoch == self._epoch else 0
        return Happenings(self._epoch, self._last, tuple(one for one in self._known if one.number > first))

    def _note(self, what: Event | Command, now: float) -> None:
        self._last += 1
        self._known.append(Happening(self._last, now, what))
