"""What tables have in common: their looks, and how a device, an amount or a time is written."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from flexray.model.amounts import format_memory
from flexray.model.snapshot import DeviceView, SliceView, Snapshot

_BAR = 10
_WIDE = 1000
IDLE_SECONDS = 60.0
"""A holder that does nothing for so long is pointed out: pauses between batches and epochs are shorter."""


def new_table(title: str, *columns: str) -> Table:
    """A table without lines, whose columns are cut rather than wrapped."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """Colours and a width only where there is a terminal; otherwise nothing is cut, and lines end where they end."""
    console = Console()
    if console.is_terminal:
        console.print(table, highlight=False)
        return
    text = io.StringIO()
    Console(file=text, width=_WIDE).print(table, highlight=False)
    for line in text.getvalue().splitlines():
        print(line.rstrip())


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
