"""What all commands share: which cluster, what they print, errors in one line and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from flexray.cli.names import remember
from flexray.errors import FlexrayError, NotThere, UnknownQueue
from flexray.model.snapshot import Snapshot

P = ParamSpec("P")
R = TypeVar("R")

NOT_THERE = 3
"""Exit code where nothing of a name is there; click's own for a wrong option is 2, that of any other error 1."""

ADDRESS = click.option(
    "--address", default="auto", show_default=True, help="Ray cluster: HOST:PORT, or auto for the one on this machine."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, with the field names of `status --json`.")
VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Show more columns, and ids in full.")


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """A FlexrayError becomes one line on stderr, and exit code 1, or 3 where something of a name is not there."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FlexrayError as error:
            click.echo(f"flexray: {error}", err=True)
            sys.exit(NOT_THERE if isinstance(error, (NotThere, UnknownQueue)) else 1)
        except KeyboardInterrupt:
            sys.exit(130)  # as shells say of a program that was interrupted

    return run


def scheduler_at(address: str) -> Any:
    """The scheduler of a cluster's pool."""
    from flexray.runtime.asking import find_scheduler

    connect(address)
    return find_scheduler()


def connect(address: str) -> None:
    """Connect this process to a cluster, until it ends."""
    from flexray.runtime.reach import connect_until_exit

    connect_until_exit(address)


def snapshot_of(scheduler: Any) -> Snapshot:
    """The pool now. Its names are remembered for completion where somebody types."""
    from flexray.runtime.reading import read_snapshot

    snapshot = read_snapshot(scheduler)
    if sys.stdout.isatty():
        remember(snapshot)
    return snapshot


def echo_json(value: object) -> None:
    """A dataclass, or dicts and lists of them."""
    from flexray.model.wire import to_plain

    click.echo(json.dumps(to_plain(value), indent=2))
