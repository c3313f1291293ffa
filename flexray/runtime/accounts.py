"""The accounts of a pool that runs: fed by the scheduler."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from flexray.accounting.fold import Fold
from flexray.accounting.ledger import Ledger
from flexray.model.commands import Command
from flexray.model.events import Event
from flexray.model.holding import Holding

_RECENT = 5000


class Accounts:
    """An Observer of the core. ``recent``: the latest holdings that are over, oldest first."""

    def __init__(self) -> None:
        self.recent: deque[Holding] = deque(maxlen=_RECENT)
        self._ledger = Ledger()
        self._fold = Fold(self._ledger, self.recent.append)

    def saw(self, event: Event, now: float) -> None:
        """An event happened."""
        self._fold.saw(event, now)

    def decided(self, commands: Sequence[Command], now: float) -> None:
        """A cycle is over."""
        self._fold.decided(commands, now)

    def history(self, since: float) -> tuple[Holding, ...]:
        """Those of the latest holdings that ended at that time or later, oldest first."""
        return tuple(one for one in self.recent if one.end >= since)
