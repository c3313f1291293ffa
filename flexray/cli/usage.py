"""``flexray usage`` and ``flexray advise``: who held and used what, and how much would have been enough."""

from __future__ import annotations

import csv
import importlib
import re
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from flexray.accounting.report import KEYS, UsageTable
from flexray.cli import frame
from flexray.cli.frame import ADDRESS, VERBOSE, one_line_errors
from flexray.errors import UsageError
from flexray.model.snapshot import Snapshot

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_FILE = click.Path(dir_okay=False, path_type=Path)


def _since(context: click.Context, parameter: click.Parameter, value: str) -> tuple[bool, float]:
    """(whether it counts back from the end, seconds)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value)
    if found:
        return True, float(found[1]) * _SECONDS[found[2]]
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        message = f"{value!r} is neither a time such as 90m, 12h or 7d, nor a date such as 2026-01-31"
        raise click.BadParameter(message) from None
    return False, (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()


def _keys(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    keys = tuple(value.split(","))
    for key in keys:
        if key not in KEYS:
            raise click.BadParameter(f"{key!r} is not one of {', '.join(KEYS)}")
    return keys


def _complete_keys(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The last one of several."""
    before, comma, last = begun.rpartition(",")
    return [f"{before}{comma}{key}" for key in KEYS if key.startswith(last)]


@click.command()
@ADDRESS
@click.option("--since", callback=_since, default="7d", show_default=True, help="So long ago, or a date (UTC).")
@click.option(
    "--by",
    callback=_keys,
    shell_complete=_complete_keys,
    default="queue",
    show_default=True,
    help=f"Some of {','.join(KEYS)}.",
)
@click.option("--journal", type=_FILE, help="Of this journal instead of a pool; what was busy is not in it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, in device-seconds.")
@click.option("--csv", "csv_file", type=_FILE, help="Write the rows to a file, in device-seconds.")
@click.option("--parquet", "parquet_file", type=_FILE, help="The same as Parquet; needs pyarrow.")
@VERBOSE
@one_line_errors
def usage(
    address: str,
    since: tuple[bool, float],
    by: tuple[str, ...],
    journal: Path | None,
    as_json: bool,
    csv_file: Path | None,
    parquet_file: Path | None,
    verbose: bool,
) -> None:
    """Who was granted how much of the devices, for how long, and what of it was used. Counted in whole hours."""
    found = _of_journal(journal, since, by) if journal is not None else _of_pool(address, since, by)
    if csv_file is not None:
        _write_csv(csv_file, found)
    if parquet_file is not None:
        _write_parquet(parquet_file, found)
    if as_json:
        frame.echo_json(found)
    elif csv_file is None and parquet_file is None:
        from flexray.tables.drawing import print_table
        from flexray.tables.usage import usage_sheet

        print_table(usage_sheet(found, verbose=verbose))


@click.command()
@ADDRESS
@click.option("--json", "as_json", is_flag=True, help="Print the advice, and who holds slices idle, as JSON.")
@one_line_errors
def advise(address: str, as_json: bool) -> None:
    """How much each task should ask for, by what it was seen to use, and who holds slices without using them."""
    from flexray.runtime.reading import read_advice

    scheduler = frame.scheduler_at(address)
    advice, snapshot = read_advice(scheduler), frame.snapshot_of(scheduler)
    if as_json:
        frame.echo_json({"advice": advice, "idle": _idle(snapshot)})
        return
    for one in advice:
        click.echo(str(one))
    for piece in _idle(snapshot):
        task = piece.task_class.partition("/")[0]
        idle = (piece.idle_seconds or 0.0) / 60
        held = f"{piece.share:g} of {', '.join(piece.devices)}"
        whose = ", ".join(filter(None, (piece.user, piece.job and f"job {piece.job}", f"session {piece.session}")))
        click.echo(f"idle for {idle:.0f} min: {held}, held by request {piece.request} ({task}): {whose}")
    if not advice:
        click.echo("nothing is known yet: slices are looked at while something runs on them")


def _idle(snapshot: Snapshot) -> list[Any]:
    from flexray.tables.drawing import IDLE_SECONDS

    idle = [one for one in snapshot.slices if one.state == "held" and (one.idle_seconds or 0.0) >= IDLE_SECONDS]
    return sorted(idle, key=lambda one: -(one.idle_seconds or 0.0) * one.share * len(one.devices))


def _of_pool(address: str, since: tuple[bool, float], by: tuple[str, ...]) -> UsageTable:
    from flexray.runtime.reading import read_usage

    back, seconds = since
    return read_usage(frame.scheduler_at(address), by, time.time() - seconds if back else seconds)


def _of_journal(path: Path, since: tuple[bool, float], by: tuple[str, ...]) -> UsageTable:
    """Counted to the last entry of the journal."""
    from flexray.accounting.fold import Fold
    from flexray.accounting.ledger import Ledger
    from flexray.accounting.report import usage_table
    from flexray.model.wire import decode
    from flexray.sim.journal import read_journal

    entries, ledger = read_journal(path), Ledger()
    fold, end = Fold(ledger, lambda holding: None), float(entries[-1]["now"])
    for entry in entries:
        if "event" in entry:
            fold.saw(decode(entry["event"]), entry["now"])
        else:
            fold.decided([decode(command) for command in entry["commands"]], entry["now"])
    fold.settle(end)
    back, seconds = since
    return usage_table(ledger, by, end - seconds if back else seconds, end)


def _write_csv(path: Path, found: UsageTable) -> None:
    from flexray.tables.usage import FIGURES, usage_rows

    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*found.by, *FIGURES])
            writer.writeheader()
            writer.writerows(usage_rows(found))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from None


def _write_parquet(path: Path, found: UsageTable) -> None:
    from flexray.tables.usage import usage_rows

    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        message = "needs pyarrow: pip install 'flexray-runtime[parquet]'. Or write --csv"
        raise UsageError(f"--parquet {message}") from None
    try:
        parquet.write_table(arrow.Table.from_pylist(usage_rows(found)), path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from None
