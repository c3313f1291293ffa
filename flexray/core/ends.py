"""When leases are expected to end, by device type, soonest first."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from flexray.core.records import SliceRecord
from flexray.model.lease import SliceId
from flexray.model.lifecycle import SliceState

#: Only so many of the next ends are looked at: those after them are far off in any pool where they are many.
_MOST = 16


class Ends:
    """What was expected when leases were granted. Those that ran on beyond it say nothing any more."""

    def __init__(self, slices: dict[SliceId, SliceRecord]) -> None:
        self._slices = slices
        self._by_kind: dict[str, list[tuple[float, SliceId, int]]] = {}

    def expect(self, kind: str, end: float, record: SliceRecord) -> None:
        """The present lease of a slice is expected to end then (seconds on the core's clock)."""
        insort(self._by_kind.setdefault(kind, []), (end, record.id, record.grants))

    def coming(self, kind: str, now: float) -> Iterator[tuple[float, SliceRecord]]:
        """(expected end, slice) of the next leases to end on a type, from now on."""
        ends = self._by_kind.get(kind, [])
        while ends and (ends[0][0] < now or not self._holds(ends[0])):
            del ends[0]
        for entry in ends[:_MOST]:
            if self._holds(entry):
                yield entry[0], self._slices[entry[1]]

    def _holds(self, entry: tuple[float, SliceId, int]) -> bool:
        """Whether the lease that an entry is of is still held."""
        record = self._slices.get(entry[1])
        return record is not None and record.grants == entry[2] and record.state is SliceState.HELD
