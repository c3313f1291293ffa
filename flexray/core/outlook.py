"""How long what runs now is going to run: from what users declare, from what was measured, or from what ended lately.

    declared    what its user says (``runtime=``), times what such work took of what was declared for it: of its class,
                or of all, once three have ended
    learnt      as long as the last runs of its class; while they are few, the mean that ``speeds.py`` has of the class
    guessed     as long as the last runs of all classes; as long again as it has run, if none lived as long

Of past runs those count that had lived as long. They differ, and of many leases the first ends
long before the mean of all, so each lease that is asked about is given another one of them, evenly spread over all:
together they end as those did. The first is given the one in the middle.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import count

from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.lifecycle import SliceState

_FEW = 3


class _Lives:
    """How long something lives, in seconds or in parts of what was declared: what ended, and what goes on still.

    What goes on has lived so long at least: without it, long lives would hardly count, since few of them have ended
    (Kaplan and Meier, 1958). The part that lives longer than t is the product, over the ends up to t, of
    1 - 1 / (those that lived as long). Parts of what is declared are
    alike for long and short work, and need none of that.
    """

    def __init__(self, ended: list[float], going_on: list[float] | None = None) -> None:
        on, self._ends, self._after = sorted(going_on or ()), sorted(ended), list[float]()
        part = 1.0
        for number, life in enumerate(self._ends):
            as_long = len(ended) - number + len(on) - bisect_left(on, life)
            part *= 1 - 1 / as_long
            self._after.append(part)

    def left(self, lived: float, place: float) -> float | None:
        """What one of those that had lived as long lives longer; None where none is known to have ended.

        Args:
            place: which one, from 0 for the shortest to below 1 for the longest; of those that are not known to have
                ended, the longest that has.
        """
        shorter = bisect_right(self._ends, lived)
        if shorter == len(self._ends):
            return None
        least = (self._after[shorter - 1] if shorter else 1.0) * (1 - place)
        later = next((n for n in range(shorter, len(self._ends)) if self._after[n] < least - 1e-9), len(self._ends) - 1)
        return self._ends[later] - lived


def _place(number: int) -> float:
    """1/2, 1/4, 3/4, 1/8, ...: evenly spread over 0 to 1, however many are taken (van der Corput's sequence)."""
    bits = number.bit_length()
    return int(f"{number:0{bits}b}"[::-1], 2) / (1 << bits)


class _Histories:
    """Lives by task class, and of all under ""."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[list[float], list[float]]] = {}

    def add(self, goes_on: int, task_class: str, life: float) -> None:
        """One that has ended (0), or that goes on (1)."""
        for key in (task_class, ""):
            self._known.setdefault(key, ([], []))[goes_on].append(life)

    def lives(self) -> dict[str, _Lives]:
        """Those of which enough have ended."""
        return {key: _Lives(*found) for key, found in self._known.items() if len(found[0]) >= (_FEW if key else 1)}


class Outlook:
    """What is known at one moment; lives as long as one replay. Each question is given another place."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._places = map(_place, count(1))
        work, parts = _Histories(), _Histories()
        for run in state.past.runs:
            work.add(0, run.task_class, run.work)
            if run.of_declared is not None:
                parts.add(0, run.task_class, run.of_declared)
        for record in state.slices.by_id.values():
            request = state.holder_of(record)
            if request is not None and record.state is SliceState.HELD and not record.has_run:
                speed, _ = self._units(request, record)
                work.add(1, request.task_class, (state.now - request.leased_at) * speed)
        self._lives, self._parts = work.lives(), parts.lives()

    def whole(self, request: RequestRecord, record: SliceRecord) -> tuple[float | None, str]:
        """Seconds that a task of a request takes on a slice, and what says so; None where nothing is known."""
        return self._left(request, record, 0.0)

    def left(self, request: RequestRecord, record: SliceRecord, now: float) -> tuple[float | None, str]:
        """Seconds until the task that runs on a lease is expected to end, and what says so."""
        ran = max(now - request.leased_at, 0.0)
        left, how = self._left(request, record, ran)
        return (ran, "guessed") if left is None and ran > 0 else (left, how)

    def _left(self, request: RequestRecord, record: SliceRecord, ran: float) -> tuple[float | None, str]:
        own, place = request.task_class, next(self._places)
        speed, declared = self._units(request, record)
        learnt = self._learnt(request, record)
        ways: list[tuple[str, _Lives | None, float]] = []
        if declared is not None:
            parts = self._parts.get(own, self._parts.get("", _Lives([1.0])))
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

    def _units(self, request: RequestRecord, record: SliceRecord) -> tuple[float, float | None]:
        """Speed of a request's work on a slice, relative to the fastest type; seconds that its user declared there."""
        chooser, (kind, _) = self._state.pool.chooser, self._state.pool.kind_of(record.placement)
        speeds = chooser.likely_speeds(request.task_class, request.request)
        return speeds.get(kind, 1.0), chooser.declared_on(request.request, kind)

    def _learnt(self, request: RequestRecord, record: SliceRecord) -> float | None:
        chooser, (kind, _) = self._state.pool.chooser, self._state.pool.kind_of(record.placement)
        return chooser.seconds_for(request.task_class, request.request).get(kind)
