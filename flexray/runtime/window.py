"""How long a scheduler that was started again waits for those who know what it does not."""

from __future__ import annotations

from collections.abc import Iterable

from flexray.model.lease import SessionId


class Window:
    """Open until every session that was there and every node has spoken, or the time for that is over.

    Args:
        sessions: those that were open when the scheduler before this one died.
    """

    def __init__(self, sessions: Iterable[SessionId], opened: float, seconds: float) -> None:
        self._awaited = dict.fromkeys(sessions)
        self._opened, self._until = opened, opened + seconds
        self.open = True

    def has_spoken(self, session: SessionId) -> None:
        """A session has joined, or left."""
        self._awaited.pop(session, None)

    def closes(self, nodes_reported: bool, now: float) -> bool:
        """Whether it closes now; once."""
        if self.open and ((nodes_reported and not self._awaited) or now >= self._until):
            self.open = False
            return True
        return False

    @property
    def missing(self) -> list[SessionId]:
        """Sessions that have not spoken."""
        return list(self._awaited)

    def describe(self, now: float) -> str:
        """For people, while it is open."""
        return (
            f"the scheduler was started again {now - self._opened:.0f} s ago and finds out what runs: nothing new "
            f"starts before {len(self._awaited)} more clients and all nodes have answered, at most for "
            f"{self._until - now:.0f} s"
        )
