"""Requests as a table, CSV or Parquet: the format for traces that have no reader of their own.

One row per request, one column per key of a request in a scenario (``schema.py``); only
``duration`` and an amount are needed. ``types`` are joined by ``|``, empty cells are
absent, and a duration per type is a column ``duration:<type>``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from flexray.errors import UsageError
from flexray.sim.columns import Row, read_csv
from flexray.sim.reading import did_you_mean, validate
from flexray.sim.schema import RequestEntry

_NUMBERS = ("at", "gpu", "npu", "accelerator", "cpus", "duration", "runtime", "checkpoint_every")
_WHOLE = ("count", "priority")
_TEXTS = ("id", "class", "queue", "memory", "host_memory", "known")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
COLUMNS = (*_TEXTS, *_NUMBERS, *_WHOLE, "types", "preemptible")
"""Every column there may be, beside ``duration:<type>``."""


def read_table(path: Path) -> list[RequestEntry]:
    """The requests of a CSV (or, by its name, Parquet) file, in its order."""
    rows = _read_parquet(path) if path.suffix == ".parquet" else read_csv(path, ())
    for column in rows[0].values:
        if column not in COLUMNS and not str(column).startswith("duration:"):
            raise UsageError(f"{path}: unknown column {column!r}.{did_you_mean(str(column), COLUMNS)}")
    return [validate(RequestEntry, _entry(row, number), row.where) for number, row in enumerate(rows)]


def _entry(row: Row, number: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": f"row{number}"}
    durations: dict[str, float] = {}
    for column in row.values:
        text = row.text(column, "")
        if not text:
            continue
        if column.startswith("duration:"):
            durations[column.removeprefix("duration:")] = row.real(column)
        elif column in _NUMBERS:
            entry[column] = row.real(column)
        elif column in _WHOLE:
            entry[column] = int(row.real(column))
        elif column == "types":
            entry[column] = text.split("|")
        elif column == "preemptible":
            if text.lower() not in _FLAGS:
                raise UsageError(f"{row.where}: {column} is {text!r}; true or false is needed")
            entry[column] = _FLAGS[text.lower()]
        else:
            entry[column] = text
    if durations:
        rest = {"*": entry["duration"]} if "duration" in entry else {}
        entry["duration"] = durations | rest
    return entry


def _read_parquet(path: Path) -> list[Row]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(f"{path}: Parquet files need pyarrow: pip install pyarrow. Or write it as CSV") from None
    try:
        records = parquet.read_table(path).to_pylist()
    except Exception as error:  # pyarrow has an error tree of its own
        raise UsageError(f"cannot read {path}: {error}") from None
    if not records:
        raise UsageError(f"{path}: has no rows")
    return [
        Row({key: "" if value is None else str(value) for key, value in record.items()}, f"{path}, row {number}")
        for number, record in enumerate(records)
    ]
