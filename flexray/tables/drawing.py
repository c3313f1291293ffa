"""What tables have in common: their looks, and how a device, an amount or a time is written."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from flexray.model.amounts import format_memory
from flexray.model.snapshot import DeviceView, SliceView, Snapshot

_BAR = 10
_WIDE = 1000
_FEW = 200
"""Rows of a table that is drawn with colours."""
IDLE_SECONDS = 60.0
"""A holder that does nothing for so long is pointed out: pauses between batches and epochs are shorter."""


def new_table(title: str, *columns: str) -> Table:
    """A table without lines, whose columns are cut rather than wrapped."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    return table


def console_here() -> Console:
    """As wide as the terminal; where there is none, as wide as anything, so that nothing is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def print_table(table: Table) -> None:
    """Colours only where there is a terminal; elsewhere nothing is cut, and lines end where they end."""
    console = Console()
    if console.is_terminal and table.row_count <= _FEW:
        console.print(table, highlight=False)
        return
    for line in _lines(table):
        print(line[: console.width] if console.is_terminal else line)


def _lines(table: Table) -> Iterator[str]:
    """As text; of thousands of rows, in a hundredth of the time that a table with colours takes."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    widths = [max(map(len, column)) for column in columns]
    if table.title:
        yield str(table.title)
    for row in zip(*columns, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def ago(snapshot: Snapshot, at: float) -> str:
    """For how long."""
    return f"{max(0.0, snapshot.now - at):.0f} s"


def short(device: str) -> str:
    """``394abc/gpu0``: enough of the node's id to tell nodes apart."""
    node, _, name = device.rpartition("/")
    return f"{node[:6]}/{name}"


def bar(device: DeviceView) -> str:
    """``#####.....``: how much is held."""
    filled = round(device.share_held * _BAR)
    return "#" * filled + "." * (_BAR - filled)


def memory_of(piece: SliceView) -> str:
    """``0.8 of 4.0 GiB`` where it is known what is used."""
    held = format_memory(piece.memory)
    return held if piece.memory_used is None else f"{format_memory(piece.memory_used)} of {held}"


def state_of(piece: SliceView) -> str:
    """``held, idle 4 min``: somebody else could have it."""
    idle = piece.idle_seconds or 0.0
    if piece.state != "held" or idle < IDLE_SECONDS:
        return piece.state
    return f"{piece.state}, idle {idle / 60:.0f} min"
