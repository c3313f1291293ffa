"""How long what runs now is going to run: from what users declare, from what was measured, or from what ended lately.

    declared    what its user says (``runtime=``), times what such work took of what was declared for it: of its class,
                or of all, once three have ended
    learnt      as long as the last runs of its class; while they are few, the mean that ``speeds.py`` has of the class
    guessed     as long as the last runs of all classes; as long again as it has run, if none lived as long

Of past runs those count that had lived as long. They differ, and the first of many leases ends long before the mean
of all, so each lease that is asked about is given another one of them, evenly spread over all: together they end as
those did. The first is given the one in the middle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from itertools import count

from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State

_FEW = 3


class _Lives:
    """How long something lived, sorted; in seconds, or in parts of what was declared."""

    def __init__(self, lives: list[float]) -> None:
        self._sorted = sorted(lives)

    def left(self, lived: float, place: float) -> float | None:
        """What one of those that had lived as long lived longer; None where none had.

        Args:
            place: which one, from 0 for the shortest to below 1 for the longest.
        """
        shorter = bisect_right(self._sorted, lived)
        if shorter == len(self._sorted):
            return None
        return self._sorted[shorter + int(place * (len(self._sorted) - shorter))] - lived


def _place(number: int) -> float:
    """1/2, 1/4, 3/4, 1/8, ...: evenly spread over 0 to 1, however many are taken (van der Corput's sequence)."""
    bits = number.bit_length()
    return int(f"{number:0{bits}b}"[::-1], 2) / (1 << bits)


class Outlook:
    """What is known at one moment; lives as long as one replay. Each question is given another place."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._places = map(_place, count(1))
        work, parts = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for run in state.past.runs:
            for key in (run.task_class, ""):
                work[key].append(run.work)
                if run.of_declared is not None:
                    parts[key].append(run.of_declared)
        self._lives = {key: _Lives(found) for key, found in work.items() if len(found) >= _FEW or not key}
        self._parts = {key: _Lives(found) for key, found in parts.items() if len(found) >= _FEW}

    def whole(self, request: RequestRecord, record: SliceRecord) -> tuple[float | None, str]:
        """Seconds that a task of a request takes on a slice, and what says so; None where nothing is known."""
        return self._left(request, record, 0.0)

    def left(self, request: RequestRecord, record: SliceRecord, now: float) -> tuple[float | None, str]:
        """Seconds until the task that runs on a lease is expected to end, and what says so."""
        ran = max(now - request.leased_at, 0.0)
        left, how = self._left(request, record, ran)
        return (ran, "guessed") if left is None and ran > 0 else (left, how)

    def _left(self, request: RequestRecord, record: SliceRecord, ran: float) -> tuple[float | None, str]:
        chooser, own = self._state.pool.chooser, request.task_class
        kind, _ = self._state.pool.kind_of(record.placement)
        speed = chooser.likely_speeds(own, request.request).get(kind, 1.0)
        declared = chooser.declared_on(request.request, kind)
        learnt, place = chooser.seconds_for(own, request.request).get(kind), next(self._places)
        ways: list[tuple[str, _Lives | None, float]] = []
        if declared is not None:
            parts = self._parts.get(own) or self._parts.get("") or _Lives([1.0])
            ways.append(("declared", parts, declared))
        elif own in self._lives:
            ways.append(("learnt", self._lives[own], 1 / speed))
        elif learnt is not None:
            ways.append(("learnt", _Lives([1.0]), learnt))
        ways.append(("guessed", self._lives.get(""), 1 / speed))
        for how, lives, unit in ways:  # work is compared as on the fastest type
            left = lives.left(ran / unit, place) if lives is not None else None
            if left is not None:
                return left * unit, how
        return None, "guessed"
