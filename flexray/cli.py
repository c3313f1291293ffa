"""The ``flexray`` command: start, status, stop, demo. Thin: everything it does can be done from Python."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from flexray.errors import FlexrayError

F = TypeVar("F", bound=Callable[..., Any])

_ADDRESS = click.option(
    "--address", default="auto", show_default=True, help="Ray cluster: HOST:PORT, or auto for the one on this machine."
)


def _one_line_errors(command: F) -> F:
    """A FlexrayError becomes one line on stderr and exit code 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except FlexrayError as error:
            click.echo(f"flexray: {error}", err=True)
            sys.exit(1)

    return run  # type: ignore[return-value]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flexray-runtime", prog_name="flexray")
def main() -> None:
    """One pool of accelerators on Ray: exact fractions, warm slices, every decision explained."""


@main.command()
@_ADDRESS
@click.option("--config", type=click.Path(dir_okay=False), help="JSON file with PoolConfig fields.")
@_one_line_errors
def start(address: str, config: str | None) -> None:
    """Start the pool on a Ray cluster (or say what differs if one runs already)."""
    from flexray.config import PoolConfig, load_config
    from flexray.runtime.pool import connect_ray, ensure_pool, greet, read_snapshot, wait_ready

    wanted = load_config(config) if config is not None else None
    connect_ray(address)
    scheduler = ensure_pool(wanted or PoolConfig())
    greet(scheduler, wanted)
    wait_ready(scheduler)
    snapshot = read_snapshot(scheduler)
    click.echo(f"the pool runs: {len(snapshot.devices)} devices on {len(snapshot.nodes)} nodes; see `flexray status`")


@main.command()
@_ADDRESS
@click.option("--json", "as_json", is_flag=True, help="Print the whole snapshot as JSON.")
@_one_line_errors
def status(address: str, as_json: bool) -> None:
    """Show devices, slices and what waits, with reasons."""
    from flexray.model.wire import to_plain
    from flexray.runtime.demand import blocked_demand
    from flexray.runtime.pool import connect_ray, read_snapshot
    from flexray.runtime.session import find_scheduler
    from flexray.tables import print_status

    connect_ray(address)
    snapshot = read_snapshot(find_scheduler())
    demand = blocked_demand()
    if as_json:
        click.echo(json.dumps({**to_plain(snapshot), "ray_demand": demand}, indent=2))
    else:
        print_status(snapshot, demand)


@main.command()
@_ADDRESS
@_one_line_errors
def stop(address: str) -> None:
    """Stop the pool: its slices end, every device goes back to Ray. Safe to call twice."""
    from flexray.runtime.pool import connect_ray, stop_pool

    connect_ray(address)
    click.echo("the pool is stopped" if stop_pool() else "no pool runs on this cluster")


@main.command()
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("flexray-demo"), show_default=True
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to a file."
)
@click.option("--seed", default=1, show_default=True, help="Seed of the stream of requests.")
@_one_line_errors
def demo(out: Path, json_file: Path | None, seed: int) -> None:
    """Serve six models on two devices: whole devices with swapping, then slices. About a minute."""
    from flexray.demo import run

    result = run(out, seed=seed)
    if json_file is not None:
        json_file.write_text(json.dumps(result.as_dict(), indent=2))
