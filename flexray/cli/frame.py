"""What all commands share: which cluster, and errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from flexray.errors import FlexrayError

F = TypeVar("F", bound=Callable[..., Any])

ADDRESS = click.option(
    "--address", default="auto", show_default=True, help="Ray cluster: HOST:PORT, or auto for the one on this machine."
)


def one_line_errors(command: F) -> F:
    """A FlexrayError becomes one line on stderr and exit code 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except FlexrayError as error:
            click.echo(f"flexray: {error}", err=True)
            sys.exit(1)

    return run  # type: ignore[return-value]
