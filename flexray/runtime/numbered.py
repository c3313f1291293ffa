"""Messages between two processes that are neither lost nor taken twice, over calls of which any may fail or come again.

The sender numbers its messages and keeps them until the other side has acknowledged them; whatever is not
acknowledged is sent again, in order. The receiver takes each number once, and none before the one it follows.
Both forget all of it when they begin anew: that is a conversation of its own (see ``protocol.Ticket``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Generic, TypeVar

M = TypeVar("M")


class Outbox(Generic[M]):
    """The sender's side: messages that are not acknowledged, numbered from 1."""

    def __init__(self) -> None:
        self._kept: deque[M] = deque()
        self._first = 1
        self._sent = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def has_unsent(self) -> bool:
        """Whether ``unsent`` would give any."""
        return self._sent < self._first + len(self._kept) - 1

    def put(self, message: M) -> None:
        """Add a message."""
        self._kept.append(message)

    def unsent(self) -> tuple[int, list[M]]:
        """(number of the first, messages) that have not been sent since the last ``rewind``; from now on they have."""
        first = max(self._first, self._sent + 1)
        found = list(islice(self._kept, first - self._first, None))
        self._sent = first + len(found) - 1
        return first, found

    def unacknowledged(self) -> tuple[int, list[M]]:
        """(number of the first, messages) of all that are kept."""
        return self._first, list(self._kept)

    def acknowledge(self, number: int) -> None:
        """The other side has taken all up to that number."""
        while self._kept and self._first <= number:
            self._kept.popleft()
            self._first += 1

    def rewind(self) -> None:
        """What was sent may not have come: all that is kept is unsent again."""
        self._sent = self._first - 1


class Inbox:
    """The receiver's side. ``taken``: number of the last message that was taken, which acknowledges it."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, first: int, messages: Sequence[M]) -> list[M]:
        """Those that are new; none if one before them is missing: they will come again with it."""
        if first > self.taken + 1:
            return []
        new = list(messages[self.taken + 1 - first :])
        self.taken += len(new)
        return new
