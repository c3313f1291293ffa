"""Usage and advice, as tables and as rows for files."""

from __future__ import annotations

from datetime import datetime, timezone

from rich.table import Table

from flexray.accounting.report import UsageRow, UsageTable
from flexray.tables.drawing import new_table

FIGURES = (
    "leases",
    "guaranteed",
    "granted",
    "busy",
    "wasted",
    "unmeasured",
    "compute_guaranteed",
    "compute_granted",
    "compute_busy",
    "compute_wasted",
    "compute_unmeasured",
    "promised",
    "compute_promised",
)
_SHOWN = ("guaranteed", "granted", "busy", "wasted", "unmeasured", "compute_granted", "compute_busy")
_HOUR = 3600.0


def usage_rows(usage: UsageTable) -> list[dict[str, str | int | float | None]]:
    """One dict a row: the parts of its key by their names, then every figure, in device-seconds."""
    return [
        {**dict(zip(usage.by, _key(usage, row), strict=True)), **{name: getattr(row, name) for name in FIGURES}}
        for row in usage.rows
    ]


def usage_sheet(usage: UsageTable, *, verbose: bool = False) -> Table:
    """For people, in device-hours; ``compute`` in hours of an nvidia/A100-80GB. ``verbose``: every figure."""
    promised = any(row.promised is not None for row in usage.rows)
    shown = FIGURES[1:] if verbose else (("promised", *_SHOWN) if promised else _SHOWN)
    title = f"device-hours from {_clock(usage.since)} to {_clock(usage.until)}"
    table = new_table(title, *usage.by, "leases", *(name.replace("compute_", "compute ") for name in shown), "used")
    for column in table.columns[len(usage.by) :]:
        column.justify = "right"
    for row in usage.rows:
        table.add_row(*(part or "-" for part in _key(usage, row)), *_figures(row, shown))
    if len(usage.rows) > 1:
        table.add_row("total", *("" for _ in usage.by[1:]), *_figures(usage.total, shown))
    return table


def _figures(row: UsageRow, shown: tuple[str, ...]) -> list[str]:
    measured = row.granted - row.unmeasured
    used = f"{row.busy / measured:.0%}" if measured > 0 else "?"
    return [str(row.leases), *(_hours(getattr(row, name)) for name in shown), used]


def _hours(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / _HOUR:.3f}"


def _key(usage: UsageTable, row: UsageRow) -> list[str]:
    return [_clock(float(part)) if by == "hour" else part for by, part in zip(usage.by, row.key, strict=True)]


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
