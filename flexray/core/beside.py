"""Who was beside whom, and for how long: kept on the slices that are held, pair by pair.

Two slices of one device are settled with each other up to the later of their ``settled``
times, because settling one settles it with all that are held beside it. So it is enough
to settle a slice when its lease ends and when what ran on it is reported.
"""

from __future__ import annotations

from collections.abc import Iterable

from flexray.core.records import SliceRecord


def begin(record: SliceRecord, now: float) -> None:
    """The slice is held from now on."""
    record.settled = record.reported = now
    record.beside.clear()


def settle(record: SliceRecord, others: Iterable[SliceRecord], now: float) -> None:
    """Add the time since they were last settled to a held slice and to the held ones on its device, once for each."""
    for other in others:
        seconds = now - max(record.settled, other.settled)
        if seconds > 0:
            _note(record, other.task_class, seconds)
            _note(other, record.task_class, seconds)
    record.settled = now


def _note(record: SliceRecord, beside: str, seconds: float) -> None:
    if record.reusable:  # an actor is company, but what runs on it is never reported
        record.beside[beside] = record.beside.get(beside, 0.0) + seconds


def take(record: SliceRecord, now: float) -> dict[str, float]:
    """By class, which part of the time since the last report it was beside a slice; begins anew.

    Two slices of a class count twice: such a part may be above 1.
    """
    span = now - record.reported
    parts = {name: seconds / span for name, seconds in record.beside.items()} if span > 0 else {}
    record.reported = now
    record.beside.clear()
    return parts
