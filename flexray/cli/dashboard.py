"""``flexray dashboard``: the pool in a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flexray.cli import frame
from flexray.cli.frame import ADDRESS, one_line_errors
from flexray.model.explanation import StartEstimate

if TYPE_CHECKING:
    from flexray.dashboard.source import Source

T = TypeVar("T")


@click.command()
@ADDRESS
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8266, show_default=True, type=click.IntRange(1, 65535))
@click.option("--allow-changes", is_flag=True, help="Let devices be cordoned, drained and uncordoned there.")
@click.option(
    "--token",
    envvar="FLEXRAY_DASHBOARD_TOKEN",
    help="What visitors have to know.  [default: a new one with --allow-changes or where others reach it, else none]",
)
@one_line_errors
def dashboard(address: str, host: str, port: int, allow_changes: bool, token: str | None) -> None:
    """Serve a page that shows the pool, live, until it is interrupted."""
    from flexray.dashboard.access import Access, is_loopback, new_token
    from flexray.dashboard.server import Dashboard, serve

    frame.scheduler_at(address)  # without a pool that is an error now, and not an empty page later
    if not token:
        token = "" if is_loopback(host) and not allow_changes else new_token()
    shown = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host
    where = f"http://{shown}:{port}/{f'?token={token}' if token else ''}"

    async def work() -> None:
        server = Dashboard(pool_source(), Access(host, port, token), allow_changes)
        await serve(server, host, port, lambda: click.echo(f"the pool is at {where}"))

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        return


def pool_source() -> Source:
    """The pool of this cluster, whoever its scheduler is by then."""
    from flexray.dashboard.source import Source
    from flexray.runtime import reading
    from flexray.runtime.asking import find_scheduler
    from flexray.runtime.plain_demand import blocked_demand

    def asked(question: Callable[..., T]) -> Callable[..., Awaitable[T]]:
        return lambda *given: asyncio.to_thread(lambda: question(find_scheduler(), *given))

    async def starts(names: Any) -> Mapping[str, StartEstimate]:
        return {str(name): start for name, start in (await asked(reading.read_starts)(names)).items()}

    return Source(
        snapshot=asked(reading.read_snapshot),
        explanation=asked(reading.read_explanation),
        starts=starts,
        history=asked(reading.read_history),
        demand=lambda: asyncio.to_thread(blocked_demand),
        change_cordons=asked(reading.change_cordons),
    )
