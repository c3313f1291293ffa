"""What the ledger says, summed up by whom or where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flexray.accounting.ledger import HOUR, UNIT, Amounts, Holder, Ledger
from flexray.errors import UsageError

_FIELDS = {"queue": "queue", "user": "user", "job": "job", "class": "task", "type": "device_type", "node": "node"}
KEYS = (*_FIELDS, "hour")
"""What usage can be summed up by."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Device-seconds of one queue, user, or whatever was asked for.

    The ``compute`` figures are the same in seconds of an nvidia/A100-80GB: x the nominal speed of the device's type.

    Attributes:
        key: as asked, in that order; "" where nobody said whose it was. An hour is its beginning, in seconds
            since 1970.
        leases: how many began.
        guaranteed: share x time of leases.
        granted: that, and what was used beyond the share of what others left idle.
        busy: used of it.
        wasted: granted and not busy.
        unmeasured: granted while nobody could tell what was busy; part of neither of these.
        promised: what the quota of a queue was; None where something else than queues is asked for.
    """

    key: tuple[str, ...]
    leases: int
    guaranteed: float
    granted: float
    busy: float
    wasted: float
    unmeasured: float
    compute_guaranteed: float
    compute_granted: float
    compute_busy: float
    compute_wasted: float
    compute_unmeasured: float
    promised: float | None = None
    compute_promised: float | None = None


@dataclass(frozen=True, slots=True)
class UsageTable:
    """Usage between two times: whole hours, so ``since`` and ``until`` are those that were counted.

    ``rows`` have the most granted first; ``total`` is the sum of them.
    """

    by: tuple[str, ...]
    since: float
    until: float
    rows: tuple[UsageRow, ...]
    total: UsageRow


def usage_table(ledger: Ledger, by: Sequence[str], since: float, until: float) -> UsageTable:
    """Sum up the hours that have a part between two times (seconds since 1970). Raises UsageError."""
    unknown = [key for key in by if key not in KEYS]
    if unknown or not by:
        raise UsageError(f"usage by {unknown[0] if unknown else 'nothing'!r}: give some of {', '.join(KEYS)}")
    sums: dict[tuple[str, ...], dict[str, Amounts]] = {}
    hours: list[int] = []
    for hour, holder, amounts in ledger.rows(since, until):
        hours.append(hour)
        kinds = sums.setdefault(tuple(_part(key, hour, holder) for key in by), {})
        kinds.setdefault(holder.device_type, Amounts()).add(amounts)
    whole: dict[str, Amounts] = {}
    for kinds in sums.values():
        for kind, amounts in kinds.items():
            whole.setdefault(kind, Amounts()).add(amounts)
    promised = _promised(ledger, by, since, until)
    for key in promised:
        sums.setdefault(key, {})
    rows = [_row(key, kinds, ledger.speeds, promised.get(key)) for key, kinds in sums.items()]
    rows.sort(key=(lambda row: row.key) if "hour" in by else (lambda row: (-row.granted, row.key)))
    begin, end = (min(hours) * HOUR / 1e6, min(until, (max(hours) + 1) * HOUR / 1e6)) if hours else (since, until)
    return UsageTable(tuple(by), begin, end, tuple(rows), _row(("total",), whole, ledger.speeds))


def _part(key: str, hour: int, holder: Holder) -> str:
    if key != "hour":
        return str(getattr(holder, _FIELDS[key]))
    return str(hour * HOUR // 1_000_000)


def _promised(ledger: Ledger, by: Sequence[str], since: float, until: float) -> dict[tuple[str, ...], tuple[int, int]]:
    """Units of devices, and of compute; {} where it is not asked of queues."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    if "queue" not in by or not set(by) <= {"queue", "hour"}:
        return found
    for hour, queue, (devices, compute) in ledger.promises(since, until):
        parts = {"queue": queue, "hour": str(hour * HOUR // 1_000_000)}
        key = tuple(parts[name] for name in by)
        before = found.get(key, (0, 0))
        found[key] = (before[0] + devices, before[1] + compute)
    return found


def _row(
    key: tuple[str, ...],
    kinds: dict[str, Amounts],
    speeds: dict[str, float],
    promised: tuple[int, int] | None = None,
) -> UsageRow:
    names = ("guaranteed", "granted", "busy", "wasted", "unmeasured")
    plain = {name: sum(getattr(one, name) for one in kinds.values()) / UNIT for name in names}
    compute = {
        f"compute_{name}": sum(getattr(one, name) * speeds.get(kind, 1.0) for kind, one in kinds.items()) / UNIT
        for name in names
    }
    quota = (None, None) if promised is None else (promised[0] / UNIT, promised[1] / UNIT)
    return UsageRow(
        key, sum(one.leases for one in kinds.values()), **plain, **compute, promised=quota[0], compute_promised=quota[1]
    )
