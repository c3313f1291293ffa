"""``flexray top``: the pool, live. One page where there is no terminal."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from flexray.cli import frame
from flexray.cli.frame import ADDRESS, one_line_errors

_NAMES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x03": "q",
}
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO.|.", re.DOTALL)
"""What one press sends: a sequence that begins with escape, or a character."""


@click.command()
@ADDRESS
@click.option("--every", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds between looks.")
@click.option("--json", "as_json", is_flag=True, help="Print the snapshot as JSON, once.")
@one_line_errors
def top(address: str, every: float, as_json: bool) -> None:
    """Devices as bars of slices, queues, and what waits; live, with keys. Piped, it prints one page."""
    from flexray.tables.live import print_page, show_live

    scheduler = frame.scheduler_at(address)
    if as_json:
        frame.echo_json(frame.snapshot_of(scheduler))
    elif sys.stdout.isatty() and sys.stdin.isatty():
        with _keyboard() as keys:
            show_live(lambda: frame.snapshot_of(scheduler), keys, every)
    else:
        print_page(frame.snapshot_of(scheduler))


@contextmanager
def _keyboard() -> Iterator[Callable[[float], str | None]]:
    """Keys as they are pressed, without being shown; the terminal is as it was afterwards."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor).key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Keyboard:
    """Keys from a terminal, or from whatever else can be read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read = ""

    def key(self, seconds: float) -> str | None:
        """The next key, by its name if it has one; None when there was none for so long. The end of input quits."""
        if not self._read:
            if not select.select([self._descriptor], [], [], seconds)[0]:
                return None
            read = os.read(self._descriptor, 1024)
            if not read:
                return "q"
            self._read = read.decode(errors="ignore")
        found = _KEY.match(self._read)
        if found is None:
            return ""
        self._read = self._read[found.end() :]
        return _NAMES.get(found[0], "" if len(found[0]) > 1 else found[0])
