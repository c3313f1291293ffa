"""How long what runs now is going to run: from what users declare, from what was measured, or from what ended lately.

    declared    what its user says (``runtime=``), times what such work really took of what was declared: the median of
                its class, or of all, once three have ended
    learnt      from the last runs of its class: the mean of what those that had lived as long lived longer, or
                the mean that ``speeds.py`` has of its class
    guessed     the same from the last runs of all classes; as long again as it has run, if none lived as long

One that has outlived what was declared is guessed as well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from itertools import accumulate
from statistics import median

from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State

_FEW = 3


class _Lives:
    """Seconds that some work took, sorted."""

    def __init__(self, seconds: list[float]) -> None:
        self._sorted = sorted(seconds)
        self._sums = [*accumulate(reversed(self._sorted), initial=0.0)]

    def left(self, ran: float) -> float | None:
        """What those that had lived as long lived longer, in the mean; None where none had."""
        longer = len(self._sorted) - bisect_right(self._sorted, ran)
        return self._sums[longer] / longer - ran if longer else None


class Outlook:
    """What is known at one moment; lives as long as one replay."""

    def __init__(self, state: State) -> None:
        self._state = state
        work, parts = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for run in state.past.runs:
            for key in (run.task_class, ""):
                work[key].append(run.work)
                if run.of_declared is not None:
                    parts[key].append(run.of_declared)
        self._lives = {key: _Lives(found) for key, found in work.items() if len(found) >= _FEW or not key}
        self._parts = {key: median(found) for key, found in parts.items() if len(found) >= _FEW}

    def whole(self, request: RequestRecord, record: SliceRecord) -> tuple[float | None, str]:
        """Seconds that a task of a request takes on a slice, and what says so; None where nothing is known."""
        pool, own = self._state.pool, request.task_class
        kind, _ = pool.kind_of(record.placement)
        declared = pool.chooser.declared_on(request.request, kind)
        if declared is not None:
            return declared * self._parts.get(own, self._parts.get("", 1.0)), "declared"
        learnt = pool.chooser.seconds_for(own, request.request).get(kind)
        if own in self._lives or learnt is None:
            return self._lived(request, kind, 0.0, own if own in self._lives else "")
        return learnt, "learnt"

    def left(self, request: RequestRecord, record: SliceRecord, now: float) -> tuple[float | None, str]:
        """Seconds until the task that runs on a lease is expected to end, and what says so."""
        ran = max(now - request.leased_at, 0.0)
        whole, how = self.whole(request, record)
        kind, _ = self._state.pool.kind_of(record.placement)
        if how == "learnt" and request.task_class in self._lives:
            left, _ = self._lived(request, kind, ran, request.task_class)
            if left is not None:
                return left, how
        elif whole is not None and whole > ran and how != "guessed":
            return whole - ran, how
        left, _ = self._lived(request, kind, ran, "")
        return (ran, "guessed") if left is None and ran > 0 else (left, "guessed")

    def _lived(self, request: RequestRecord, kind: str, ran: float, key: str) -> tuple[float | None, str]:
        """From runs of a class, or of all: work is compared as on the fastest type."""
        lives = self._lives.get(key)
        speed = self._state.pool.chooser.likely_speeds(request.task_class, request.request).get(kind, 1.0)
        left = lives.left(ran * speed) if lives is not None else None
        return (None if left is None else left / speed), ("learnt" if key else "guessed")
