"""What a watcher of the core is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flexray.model.commands import Command
from flexray.model.events import Event


class Observer(Protocol):
    """Sees every event and the commands of every cycle, in order, in the scheduler's loop; must not block or raise."""

    def saw(self, event: Event, now: float) -> None:
        """The core is about to take an event in."""

    def decided(self, commands: Sequence[Command], now: float) -> None:
        """A cycle is over; ``commands`` are what it wants done."""
