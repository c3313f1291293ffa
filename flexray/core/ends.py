"""When leases are expected to end, by device type, soonest first."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from flexray.core.records import SliceRecord
from flexray.model.lease import SliceId

#: What starting a slice costs, roughly; a better place has to save at least this.
SLICE_START_SECONDS = 1.0
#: Only so many of the next ends are looked at: those after them are far off in any pool where they are many.
_MOST = 16


class Ends:
    """What was expected when leases were granted. Those that ran on beyond it say nothing any more."""

    def __init__(self, slices: dict[SliceId, SliceRecord]) -> None:
        self._slices = slices
        self._by_kind: dict[str, list[tuple[float, SliceId]]] = {}

    def expect(self, kind: str, end: float, record: SliceRecord) -> None:
        """The present lease of a slice, or the one it is started for, is expected to end then, on the core's clock."""
        record.expected_end = end
        ends = self._by_kind.setdefault(kind, [])
        if len(ends) > 2 * len(self._slices) + _MOST:
            ends[:] = [entry for entry in ends if self._holds(entry)]
        insort(ends, (end, record.id))

    def coming(self, kind: str, now: float) -> Iterator[tuple[float, SliceRecord]]:
        """(expected end, slice) of the next leases to end on a type, from now on."""
        ends, at = self._by_kind.get(kind, []), 0
        while at < min(len(ends), _MOST):
            end, name = ends[at]
            if end < now or not self._holds(ends[at]):
                del ends[at]
            else:
                at += 1
                yield end, self._slices[name]

    def _holds(self, entry: tuple[float, SliceId]) -> bool:
        """Whether an entry is still what is expected."""
        record = self._slices.get(entry[1])
        return record is not None and record.request is not None and record.expected_end == entry[0]
