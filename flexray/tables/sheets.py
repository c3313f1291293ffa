"""Plain tables, and a bar that shows how far something is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table


def print_sheets(
    sheets: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]], console: Console | None = None
) -> None:
    """Plain tables: (title, columns, rows)."""
    console = console or Console()
    for title, columns, rows in sheets:
        table = Table(*columns, title=escape(title), title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table, highlight=False)
        console.print()


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, float], None]]:
    """A bar on stderr, drawn once something reports (done, of how much), and only where that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, visible=False)
        yield lambda done, of: bar.update(task, completed=done, total=of, visible=True)
