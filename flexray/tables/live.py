"""``flexray top`` on a terminal, or as one page."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live

from flexray.model.snapshot import Snapshot
from flexray.tables.top import View, page, pressed, screen

Keys = Callable[[float], str | None]


def print_page(snapshot: Snapshot) -> None:
    """All of it, once."""
    console = Console()
    for line in page(snapshot, View(), console.width):
        console.print(line, highlight=False, no_wrap=True)


def show_live(look: Callable[[], Snapshot], keys: Keys, every: float) -> None:
    """Draw until ``keys`` says so; it returns a key, or None after so many seconds without one."""
    console, view, snapshot = Console(), View(), look()
    looked = time.monotonic()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(Group(*screen(snapshot, view, *console.size)), refresh=True)
            key = keys(max(0.0, looked + every - time.monotonic()))
            if key is None:
                snapshot, looked = look(), time.monotonic()
                continue
            after = pressed(view, key)
            if after is None:
                return
            view = after
