"""Time-decayed use: what was used long ago counts less, by half for each half-life.

    U = 0.5^(dt / half-life) x A                       A used dt ago (KAI)
    dU = a x half-life / ln 2 x (1 - 0.5^(dt / half-life))     for a used evenly over the last dt
    u = U / (capacity x half-life / ln 2)              as a part of the pool: 1 for one who has had
                                                       all of it for ever

u is what is held against a queue (``fairness.shares``, ``division.effective_weights``). Measured against the whole
memory and not against the pool's age, so that the first minutes of a pool decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from flexray.core.division import WHOLE_PAST
from flexray.core.queues import QueueTree


def decayed(amount: float, seconds: float, half_life: float) -> float:
    """What an amount that was used so many seconds ago still counts: 0.5^(seconds / half-life) x amount."""
    return math.pow(0.5, seconds / half_life) * amount


def accrued(amount: float, seconds: float, half_life: float) -> float:
    """What use of an amount, held for the last so many seconds, counts now; amount x seconds for short times."""
    return amount * half_life / math.log(2) * -math.expm1(-math.log(2) * seconds / half_life)


class History:
    """The decayed use of every queue that has a half-life. Call ``note`` whenever what a queue uses changes."""

    def __init__(self, tree: QueueTree) -> None:
        self._half_lives = {name: tree.half_life(name) for name in tree.queues}
        #: by queue: decayed use (amount x seconds), what is used since, and since when.
        self._known: dict[str, tuple[float, int, float]] = {}

    def note(self, name: str, used: int, now: float) -> None:
        """From now on the queue uses so much (worth)."""
        half_life = self._half_lives.get(name)
        if half_life is not None:
            self._known[name] = (self._until(name, half_life, now), used, now)

    def past(self, capacity: int, now: float) -> dict[str, int]:
        """u of every queue in millionths: 1,000,000 for one that has used the whole capacity for ever."""
        if capacity <= 0:
            return {}
        found = {}
        for name, half_life in self._half_lives.items():
            if half_life is not None and name in self._known:
                use = self._until(name, half_life, now)
                found[name] = round(WHOLE_PAST * use * math.log(2) / (capacity * half_life))
        return found

    def rows(self, now: float) -> list[tuple[str, float, float]]:
        """What is remembered: (queue, decayed use as a part of its half-life, now)."""
        found = []
        for name in self._known:
            half_life = self._half_lives[name]
            if half_life is not None:
                found.append((name, self._until(name, half_life, now) / half_life, now))
        return found

    def restore(self, rows: Iterable[tuple[str, float, float]], now: float) -> None:
        """Take over what ``rows`` gave then; what was used since then is not known."""
        for name, part, at in rows:
            half_life = self._half_lives.get(name)
            if half_life is not None:
                used = self._known[name][1] if name in self._known else 0
                self._known[name] = (decayed(part * half_life, max(now - at, 0.0), half_life), used, now)

    def moved(self, tree: QueueTree, now: float) -> History:
        """The same past under another configuration; that of queues it does not have is dropped."""
        other = History(tree)
        for name, (_, used, _) in self._known.items():
            before, after = self._half_lives[name], other._half_lives.get(name)
            if before is not None and after is not None:
                share = self._until(name, before, now) / before  # the same part of the pool in the new memory
                other._known[name] = (share * after, used, now)
        return other

    def _until(self, name: str, half_life: float, now: float) -> float:
        use, amount, since = self._known.get(name, (0.0, 0, now))
        seconds = max(now - since, 0.0)
        return decayed(use, seconds, half_life) + accrued(amount, seconds, half_life)
