"""An agent's side of its conversation with the scheduler: whom it serves, what it tells and is told. No Ray here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flexray.model.events import Event
from flexray.runtime.numbered import Inbox, Outbox
from flexray.runtime.protocol import AgentCommand


class Service:
    """Serves one scheduler at a time, the one with the highest epoch that has come; earlier ones are refused."""

    def __init__(self) -> None:
        self.epoch = 0
        self._reports: Outbox[Event] = Outbox()
        self._commands = Inbox()

    def begin(self, epoch: int, facts: Callable[[], Iterable[Event]]) -> int:
        """A scheduler has come; one that is new hears ``facts`` first. Returns the epoch of the one that is served."""
        if epoch > self.epoch:
            self.epoch = epoch
            self._reports, self._commands = Outbox(), Inbox()
            for fact in facts():
                self.report(fact)
        return self.epoch

    def report(self, event: Event) -> None:
        """Something has happened. Before a scheduler has come nobody hears of it: it is told what there is then."""
        self._reports.put(event)

    def reports(self, epoch: int, seen: int) -> tuple[int, list[Event]] | None:
        """(number of the first, events) after number ``seen``, which acknowledges those before. None: not served."""
        if epoch != self.epoch:
            return None
        self._reports.acknowledge(seen)
        return self._reports.unacknowledged()

    def take(self, epoch: int, first: int, commands: list[AgentCommand]) -> tuple[int, list[AgentCommand]]:
        """(number of the last command that was taken, those to be carried out now)."""
        if epoch != self.epoch:
            return 0, []
        new = self._commands.take(first, commands)
        return self._commands.taken, new
