"""``flexray run``: a script on a pool, here or on a cluster, that is started for it where there is none."""

from __future__ import annotations

import sys

import click

from flexray.cli.frame import one_line_errors


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--address", help="Ray cluster: HOST:PORT, local for a new one.  [default: the one on this machine, or a new one]"
)
@click.option("--config", type=click.Path(dir_okay=False), help="JSON file with PoolConfig fields.")
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@one_line_errors
def run(address: str | None, config: str | None, script: str, arguments: tuple[str, ...]) -> None:
    """Run a Python script on the pool, and exit as it does. What had to be started for it is stopped afterwards."""
    from flexray.config import load_config
    from flexray.runtime.script import run_script

    sys.exit(run_script([script, *arguments], address, load_config(config) if config is not None else None))
