"""A snapshot as tables of plain rows, and what changed from one to the next: what browsers are sent.

A large pool has tens of thousands of rows, so a row is a list in the order of the columns, which are named once and
are the fields of ``flexray status --json``; and of a row that was there before only what changed is sent.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from flexray.model.snapshot import DeviceView, NodeView, QueueView, RequestView, SliceView, Snapshot
from flexray.model.wire import to_plain

Row = tuple[Any, ...]
Tables = dict[str, dict[str, Row]]
"""Table -> key of a row (its first column) -> row."""

_VIEWS: dict[str, type] = {
    "nodes": NodeView,
    "devices": DeviceView,
    "slices": SliceView,
    "queues": QueueView,
    "waiting": RequestView,
    "running": RequestView,
}
COLUMNS: dict[str, list[str]] = {
    name: [field.name for field in dataclasses.fields(view)] for name, view in _VIEWS.items()
}
_READ: dict[str, Callable[[Any], Row]] = {name: attrgetter(*columns) for name, columns in COLUMNS.items()}
_BUSY, _IDLE = COLUMNS["slices"].index("busy"), COLUMNS["slices"].index("idle_seconds")
REST = ("now", "epoch", "notes", "preemptions", "classes")
"""Fields of a snapshot that are small, and sent as they are."""


def tables(snapshot: Snapshot) -> Tables:
    """The rows of a snapshot."""
    found: Tables = {}
    for name, read in _READ.items():
        rows: Iterable[Row] = map(read, getattr(snapshot, name))
        found[name] = {row[0]: row for row in (map(_calm, rows) if name == "slices" else rows)}
    return found


def _calm(row: Row) -> Row:
    """Without digits that nobody sees: they would change at every look."""
    busy, idle = row[_BUSY], row[_IDLE]
    if busy is None and idle is None:
        return row
    calm = list(row)
    calm[_BUSY] = None if busy is None else round(busy, 2)
    calm[_IDLE] = None if idle is None else round(idle, -1)
    return tuple(calm)


def difference(before: Tables, after: Tables) -> dict[str, Any]:
    """What changed, by table: ``gone`` (keys), ``new`` (rows), and ``set``: key, column, value, column, value, ..."""
    found = {}
    for name, rows in after.items():
        old = before.get(name, {})
        part = {
            "gone": [key for key in old if key not in rows],
            "new": [row for key, row in rows.items() if key not in old],
            "set": [_cells(old[key], row) for key, row in rows.items() if key in old and old[key] != row],
        }
        if any(part.values()):
            found[name] = {key: value for key, value in part.items() if value}
    return found


def _cells(old: Row, new: Row) -> list[Any]:
    changed = [new[0]]
    for place, (was, now) in enumerate(zip(old, new, strict=True)):
        if was != now:
            changed += (place, now)
    return changed


def rest(snapshot: Snapshot) -> dict[str, Any]:
    """What of a snapshot is in no table."""
    return {name: to_plain(getattr(snapshot, name)) for name in REST}


def text(value: Mapping[str, Any]) -> str:
    """As compact JSON."""
    return json.dumps(value, separators=(",", ":"), default=to_plain)
