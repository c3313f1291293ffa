"""Hourly sums of device time, in whole numbers: what is added in parts is exactly what is added at once.

The unit is a thousandth of a device for a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

HOUR = 3_600_000_000
"""Microseconds."""
UNIT = 1_000_000_000
"""A device-second, in units of the ledger."""
_MOST_ROWS = 2000
"""Of one hour; what comes beyond that is booked on OTHERS, so that the sums stay right."""
OTHERS = "(others)"


class Holder(NamedTuple):
    """Whom time is booked on, and where.

    ``task`` is the name of the function; ``node`` the name of the node.
    """

    queue: str
    user: str
    job: str
    task: str
    device_type: str
    node: str


@dataclass(slots=True)
class Amounts:
    """Device time, in units of the ledger.

    Attributes:
        guaranteed: what leases had to themselves: share x time.
        measured: that part of it during which it was measured what was used.
        busy: what was used of devices.
        lent: what of ``busy`` went beyond the share, into what others left idle.
        leases: how many began.
    """

    guaranteed: int = 0
    measured: int = 0
    busy: int = 0
    lent: int = 0
    leases: int = 0

    @property
    def granted(self) -> int:
        """What was had: the share, and what was lent beyond it."""
        return self.guaranteed + self.lent

    @property
    def wasted(self) -> int:
        """What was had and not used, as far as that was measured."""
        return self.measured + self.lent - self.busy

    @property
    def unmeasured(self) -> int:
        """What was had while nobody could tell what was used."""
        return self.guaranteed - self.measured

    def add(self, other: Amounts) -> None:
        """Sum up."""
        self.guaranteed += other.guaranteed
        self.measured += other.measured
        self.busy += other.busy
        self.lent += other.lent
        self.leases += other.leases


class Ledger:
    """Sums by hour (counted from 1970) and holder."""

    def __init__(self) -> None:
        self.hours: dict[int, dict[Holder, Amounts]] = {}
        #: what queues were promised by their own quotas: by hour and queue, units of devices, and of compute.
        self.promised: dict[int, dict[str, tuple[int, int]]] = {}
        #: compute of a device of each type that was seen, relative to nvidia/A100-80GB.
        self.speeds: dict[str, float] = {}
        #: hours that have changed since somebody emptied this.
        self.changed: set[int] = set()

    def at(self, ticks: int, holder: Holder) -> Amounts:
        """The sums of a holder in the hour of that time, to be added to."""
        hour = ticks // HOUR
        rows = self.hours.setdefault(hour, {})
        self.changed.add(hour)
        found = rows.get(holder)
        if found is None:
            if len(rows) >= _MOST_ROWS:
                holder = holder._replace(user=OTHERS, job=OTHERS, task=OTHERS)
            found = rows.setdefault(holder, Amounts())
        return found

    def hold(self, holder: Holder, begin: int, end: int, weight: int) -> None:
        """So many thousandths of a device were held from one time to another, in microseconds since 1970."""
        for at, ticks in _by_hour(begin, end):
            self.at(at, holder).guaranteed += ticks * weight

    def promise(self, queue: str, begin: int, end: int, amounts: tuple[int, int]) -> None:
        """A queue had a quota of so many thousandths of devices, and of compute, from one time to another."""
        for at, ticks in _by_hour(begin, end):
            hour = self.promised.setdefault(at // HOUR, {})
            devices, compute = hour.get(queue, (0, 0))
            hour[queue] = (devices + ticks * amounts[0], compute + ticks * amounts[1])
            self.changed.add(at // HOUR)

    def rows(self, since: float = 0.0, until: float = float("inf")) -> Iterator[tuple[int, Holder, Amounts]]:
        """(hour, holder, sums) of all hours that have a part between two times, in seconds since 1970."""
        for hour in sorted(self.hours):
            if (hour + 1) * HOUR / 1e6 > since and hour * HOUR / 1e6 < until:
                yield from ((hour, holder, self.hours[hour][holder]) for holder in sorted(self.hours[hour]))

    def promises(self, since: float, until: float) -> Iterator[tuple[int, str, tuple[int, int]]]:
        """(hour, queue, what it was promised) in the same way."""
        for hour in sorted(self.promised):
            if (hour + 1) * HOUR / 1e6 > since and hour * HOUR / 1e6 < until:
                yield from ((hour, queue, amounts) for queue, amounts in sorted(self.promised[hour].items()))

    def forget_before(self, hour: int) -> list[int]:
        """Keep nothing of earlier hours; which these were."""
        old = sorted(one for one in self.hours.keys() | self.promised.keys() if one < hour)
        for one in old:
            self.hours.pop(one, None)
            self.promised.pop(one, None)
            self.changed.discard(one)
        return old

    # -- records -------------------------------------------------------------------------------

    def plain(self, hour: int) -> list[Any]:
        """One hour as rows of plain values."""
        types = {holder.device_type for holder in self.hours.get(hour, {})}
        speeds = sorted((name, self.speeds[name]) for name in types & self.speeds.keys())
        rows = sorted(self.hours.get(hour, {}).items())
        promised = sorted(self.promised.get(hour, {}).items())
        return [
            [*map(list, speeds)],
            [[*holder, *astuple(amounts)] for holder, amounts in rows],
            [[queue, *amounts] for queue, amounts in promised],
        ]

    def restore(self, hour: int, plain: Iterable[Any]) -> None:
        """Take in what ``plain`` gave. Raises ValueError, TypeError for anything else."""
        speeds, rows, promised = plain
        width, parts = len(Holder._fields), [(list(map(str, row[:6])), list(map(int, row[6:]))) for row in rows]
        if any(len(key) != width for key, _ in parts):
            raise ValueError("a row of an hour has another length")
        self.speeds = {str(name): float(speed) for name, speed in speeds} | self.speeds
        promises = {str(queue): (int(devices), int(compute)) for queue, devices, compute in promised}
        if parts:
            self.hours[hour] = {Holder(*key): Amounts(*amounts) for key, amounts in parts}
        if promises:
            self.promised[hour] = promises


def _by_hour(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """(a time within the hour, microseconds of it) for all hours between two times."""
    while begin < end:
        until = min(end, (begin // HOUR + 1) * HOUR)
        yield begin, until - begin
        begin = until
