"""What the slices of each task class really use, as histograms of a fixed size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_BUSY_BINS = 50
"""Each two hundredths of a device; what is above a whole device counts as one."""
_MEMORY_STEPS = 8
"""Bins per doubling: a bound is at most 9 % above what was measured."""
_MEMORY_FIRST, _MEMORY_BINS = 16.0, 136
"""MiB of the first bound; the last one is 2 TiB."""
_MOST_CLASSES = 300
_MOST_PAUSE = 30.0
"""Seconds between two samples of a slice that belong together."""


class ClassKey(NamedTuple):
    """A task as people see it: a function, and what it asks of each device (thousandths, MiB) and of how many."""

    task: str
    share: int
    memory: int
    devices: int


@dataclass(slots=True)
class Profile:
    """What was measured of one class, since ``first`` (seconds since 1970).

    ``seconds``: how long it was looked at, over all its slices. ``at_limit``: looks at which its whole share was busy.
    """

    first: float
    last: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    leases: int = 0
    at_limit: int = 0
    most_memory: int = 0
    busy: list[int] = field(default_factory=lambda: [0] * _BUSY_BINS)
    memory: list[int] = field(default_factory=lambda: [0] * _MEMORY_BINS)

    def note(self, busy: float | None, memory: int | None, share: int) -> None:
        """One sample: a fraction of the device, and MiB."""
        self.samples += 1
        if busy is not None:
            self.busy[min(_BUSY_BINS - 1, max(0, math.ceil(busy * _BUSY_BINS) - 1))] += 1
            self.at_limit += busy * 1000 >= 0.95 * share
        if memory is not None:
            self.most_memory = max(self.most_memory, memory)
            steps = math.ceil(math.log2(max(memory, 1) / _MEMORY_FIRST) * _MEMORY_STEPS)
            self.memory[min(_MEMORY_BINS - 1, max(0, steps))] += 1

    def busy_at(self, part: float) -> float | None:
        """So busy, or less, it was for a part of the time; None where that was never measured."""
        found = _quantile(self.busy, part)
        return None if found is None else (found + 1) / _BUSY_BINS

    def memory_at(self, part: float) -> int | None:
        """MiB, in the same way."""
        found = _quantile(self.memory, part)
        if found is None:
            return None
        return min(self.most_memory, round(_MEMORY_FIRST * 2 ** (found / _MEMORY_STEPS)))

    def stretch(self, share: float) -> float:
        """How many times as long it would have taken with another share.

        What used more than that, for a time, would have had to do the same work with it.
        """
        total = sum(self.busy)
        longer = sum(n * max(1.0, (at + 0.5) / _BUSY_BINS / share) for at, n in enumerate(self.busy))
        return longer / total if total else 1.0


class Profiles:
    """Those of all classes; beyond a number of them the one that was not seen for longest is dropped."""

    def __init__(self) -> None:
        #: those that were not seen for longest first.
        self.known: dict[ClassKey, Profile] = {}
        #: by slice, the lease that it was last seen with, and when.
        self._seen: dict[str, tuple[object, float]] = {}

    def note(
        self, key: ClassKey, slice_id: str, lease: object, use: tuple[float | None, int | None], now: float
    ) -> None:
        """A slice of a class was measured: (busy, MiB)."""
        profile = self.known.pop(key, None)
        if profile is None:
            if len(self.known) >= _MOST_CLASSES:
                del self.known[next(iter(self.known))]
            profile = Profile(now)
        self.known[key] = profile
        before, at = self._seen.get(slice_id, (None, now))
        self._seen[slice_id] = (lease, now)
        profile.leases += before != lease
        profile.seconds += min(max(now - at, 0.0), _MOST_PAUSE) if before == lease else 0.0
        profile.last = now
        profile.note(*use, key.share)

    def forget_slice(self, name: str) -> None:
        """It is gone."""
        self._seen.pop(name, None)

    def __iter__(self) -> Iterator[tuple[ClassKey, Profile]]:
        return iter(sorted(self.known.items()))

    # -- records -------------------------------------------------------------------------------

    def plain(self) -> list[Any]:
        """All of them as rows of plain values, those first that were not seen for longest."""
        return [
            [*key, p.first, p.last, p.samples, p.seconds, p.leases, p.at_limit, p.most_memory, _sparse(p.busy),
             _sparse(p.memory)]
            for key, p in self.known.items()
        ]  # fmt: skip


def profiles_from(rows: Iterable[Any]) -> Profiles:
    """What ``Profiles.plain`` gave. Raises ValueError, TypeError or IndexError for anything else."""
    found = Profiles()
    for task, share, memory, devices, first, last, samples, seconds, leases, limit, most, busy, used in rows:
        profile = Profile(float(first), float(last), int(samples), float(seconds), int(leases), int(limit), int(most))
        for bins, sparse in ((profile.busy, busy), (profile.memory, used)):
            for at, count in sparse:
                bins[int(at)] += int(count)
        found.known[ClassKey(str(task), int(share), int(memory), int(devices))] = profile
    return found


def _sparse(bins: list[int]) -> list[tuple[int, int]]:
    return [(at, count) for at, count in enumerate(bins) if count]


def _quantile(bins: list[int], part: float) -> int | None:
    wanted, passed = part * sum(bins), 0
    for at, count in enumerate(bins):
        passed += count
        if count and passed >= wanted:
            return at
    return None
