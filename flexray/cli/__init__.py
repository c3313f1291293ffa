"""The ``flexray`` command: start, run, status, explain, simulate and so on. Thin: Python can do all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flexray.cli import frame
from flexray.cli.dashboard import dashboard
from flexray.cli.devices import cordon, drain, uncordon
from flexray.cli.frame import ADDRESS, one_line_errors
from flexray.cli.lists import devices, events, queues, requests, slices
from flexray.cli.names import completion
from flexray.cli.script import run
from flexray.cli.top import top
from flexray.cli.usage import advise, usage
from flexray.errors import UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flexray-runtime", prog_name="flexray")
def main() -> None:
    """One pool of accelerators on Ray: exact fractions, warm slices, every decision explained."""


for _command in (
    advise,
    cordon,
    dashboard,
    devices,
    drain,
    events,
    queues,
    requests,
    run,
    slices,
    top,
    uncordon,
    usage,
):
    main.add_command(_command)


@main.command()
@ADDRESS
@click.option("--config", type=click.Path(dir_okay=False), help="JSON file with PoolConfig fields.")
@click.option("--queues", type=click.Path(dir_okay=False), help="Queues of the pool: YAML, JSON, or TOML.")
@one_line_errors
def start(address: str, config: str | None, queues: str | None) -> None:
    """Start the pool on a Ray cluster (or say what differs if one runs already)."""
    from flexray.config import PoolConfig, load_config
    from flexray.queue_file import load_queues, plain_queue
    from flexray.runtime.pool import ensure_pool, greet, wait_ready
    from flexray.runtime.reading import read_snapshot

    wanted = load_config(config) if config is not None else None
    if queues is not None:
        entries = [plain_queue(queue) for queue in load_queues(queues)]
        wanted = (wanted or PoolConfig()).model_copy(update={"queues": entries})
    frame.connect(address)
    scheduler = ensure_pool(wanted or PoolConfig())
    greet(scheduler, wanted)
    wait_ready(scheduler)
    snapshot = read_snapshot(scheduler)
    click.echo(f"the pool runs: {len(snapshot.devices)} devices on {len(snapshot.nodes)} nodes; see `flexray status`")


@main.command()
@ADDRESS
@click.option("--json", "as_json", is_flag=True, help="Print the whole snapshot as JSON.")
@one_line_errors
def status(address: str, as_json: bool) -> None:
    """Show devices, slices and what waits, with reasons."""
    from flexray.runtime.plain_demand import blocked_demand

    snapshot = frame.snapshot_of(frame.scheduler_at(address))
    demand = blocked_demand()
    if as_json:
        from flexray.model.wire import to_plain

        click.echo(json.dumps({**to_plain(snapshot), "ray_demand": demand}, indent=2))
    else:
        from flexray.tables import print_status

        print_status(snapshot, demand)


@main.command()
@ADDRESS
@click.argument("request", shell_complete=completion("request"))
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@one_line_errors
def explain(address: str, request: str, as_json: bool) -> None:
    """Say where a request is, why it waits, what would change it, and when it is expected to start."""
    from flexray.model.wire import to_plain
    from flexray.runtime.reading import read_explanation

    found = read_explanation(frame.scheduler_at(address), request)
    click.echo(json.dumps(to_plain(found), indent=2) if as_json else str(found))


@main.command()
@ADDRESS
@click.option("--gpu", type=float, help="How much of a GPU: 0.5, or a whole number of devices.")
@click.option("--npu", type=float, help="The same of an NPU.")
@click.option("--accelerator", type=float, help="The same of a device of any maker.")
@click.option("--memory", help="Device memory, such as 8GiB.")
@click.option("--types", help="Allowed device types, joined by commas: nvidia/A100*.")
@click.option("--queue", help="Name of the queue.", shell_complete=completion("queue"))
@click.option("--priority", type=int, help="Higher goes first within the queue.")
@click.option("--runtime", type=float, help="Seconds it is going to run.")
@click.option("--cpus", type=float, help="Host cores beside the device.")
@click.option("--gang", type=int, help="So many members that start together.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@one_line_errors
def plan(address: str, as_json: bool, types: str | None, **options: Any) -> None:
    """Say when and where a request would start, and what would start now, without submitting anything."""
    from flexray.model.request import request_from_options
    from flexray.model.wire import to_plain
    from flexray.runtime.reading import read_plan

    given = {key: value for key, value in options.items() if value is not None}
    request = request_from_options(given | ({"types": types.split(",")} if types is not None else {}))
    answer = read_plan(frame.scheduler_at(address), request)
    click.echo(json.dumps(to_plain(answer), indent=2) if as_json else str(answer))


@main.command()
@ADDRESS
@one_line_errors
def stop(address: str) -> None:
    """Stop the pool: its slices end, every device goes back to Ray. Safe to call twice."""
    from flexray.runtime.pool import stop_pool

    frame.connect(address)
    click.echo("the pool is stopped" if stop_pool() else "no pool runs on this cluster")


@main.group()
def queue() -> None:
    """Show and change the queues of a running pool. No request is lost by a change."""


@queue.command("show")
@ADDRESS
@click.option("--json", "as_json", is_flag=True, help="Print the queues, and what they hold, as JSON.")
@one_line_errors
def show_queues(address: str, as_json: bool) -> None:
    """Queues, what they were promised, hold and borrow, and how many requests wait."""
    from flexray.model.wire import to_plain
    from flexray.runtime.reading import read_queues, read_snapshot
    from flexray.tables import print_queues

    scheduler = frame.scheduler_at(address)
    snapshot = read_snapshot(scheduler)
    if as_json:
        click.echo(json.dumps({"queues": read_queues(scheduler), "now": to_plain(snapshot.queues)}, indent=2))
    else:
        print_queues(snapshot)


@queue.command("set")
@ADDRESS
@click.argument("name", required=False, shell_complete=completion("queue"))
@click.option("--file", "path", type=click.Path(dir_okay=False), help="All queues anew, from YAML, JSON, or TOML.")
@click.option("--parent", help="The queue it is a part of.")
@click.option("--quota", help="Guaranteed: a number of devices, TYPE=N, or compute=N; several joined by commas.")
@click.option("--limit", help="Used at most, as --quota.")
@click.option("--weight", type=float, help="How what is left is divided.")
@click.option("--priority", type=int, help="Before its siblings of lower priority, of what is left.")
@click.option("--types", help="Device types its requests may use, joined by commas.")
@click.option("--half-life", type=float, help="Seconds after which use counts half against it.")
@click.option("--dry-run", is_flag=True, help="Say what the change would do now, and change nothing.")
@one_line_errors
def set_queue(address: str, name: str | None, path: str | None, dry_run: bool, **fields: Any) -> None:
    """Add a queue, change what is given of one, or take all of them from a file."""
    from flexray.errors import UsageError
    from flexray.queue_file import load_queues, parse_amount_text, plain_queue

    if (name is None) == (path is None):
        raise UsageError("name one queue to set, or give --file with all of them")
    if path is not None:
        change: dict[str, Any] = {"queues": [plain_queue(one) for one in load_queues(path)]}
    else:
        read: dict[str, Callable[[str], Any]] = {"quota": parse_amount_text, "limit": parse_amount_text}
        read["types"] = lambda text: text.split(",")
        given = {key: read[key](value) if key in read else value for key, value in fields.items() if value is not None}
        change = {"set": {"name": name, **given}}
    _change_queues(address, change, dry_run)


@queue.command("remove")
@ADDRESS
@click.argument("name", shell_complete=completion("queue"))
@click.option("--dry-run", is_flag=True, help="Say what the change would do now, and change nothing.")
@one_line_errors
def remove_queue(address: str, name: str, dry_run: bool) -> None:
    """Remove a queue; its requests go on in `default`."""
    _change_queues(address, {"remove": name}, dry_run)


def _change_queues(address: str, change: dict[str, Any], dry_run: bool) -> None:
    from flexray.runtime.reading import change_queues

    lines = change_queues(frame.scheduler_at(address), change, dry_run)
    for line in lines:
        click.echo(line)
    if not lines:
        click.echo("nothing would change now" if dry_run else "done; see `flexray queue show`")


@main.command()
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("flexray-demo"), show_default=True
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to a file."
)
@click.option("--seed", default=1, show_default=True, help="Seed of the stream of requests.")
@one_line_errors
def demo(out: Path, json_file: Path | None, seed: int) -> None:
    """Serve six models on two devices: whole devices with swapping, then slices. About a minute."""
    from flexray.demo import run

    result = run(out, seed=seed)
    if json_file is not None:
        json_file.write_text(json.dumps(result.as_dict(), indent=2))


_FILE = click.Path(dir_okay=False, path_type=Path)


@main.command()
@click.option("--scenario", type=_FILE, help="A scenario: nodes, requests and events, as YAML.")
@click.option("--table", type=_FILE, help="Requests as CSV or Parquet; the nodes are those of --scenario.")
@click.option("--azure", type=_FILE, help="Calls of the Azure LLM trace, CSV; the nodes are those of --scenario.")
@click.option("--journal", type=_FILE, help="Journal of a pool: does it replay? With --policy or --scenario: what if.")
@click.option("--config", type=_FILE, help="Configuration of the pool that wrote the journal, JSON.")
@click.option("--openb-nodes", type=_FILE, help="Node list of the openb trace, CSV.")
@click.option("--openb-tasks", type=_FILE, help="Task list of the openb trace, CSV.")
@click.option(
    "--inflate",
    type=float,
    help="openb: GPU demand that arrives, as a multiple of the GPUs.  [default: 1.3; with --load 8]",
)
@click.option(
    "--seeds", help="openb: seeds of the order of arrival.  [default: 42-51; with --load the order of the trace]"
)
@click.option("--timed", is_flag=True, help="openb: replay creation and deletion times instead.")
@click.option("--load", type=float, help="openb, --timed: compress arrivals to this mean load, as a part of the GPUs.")
@click.option("--clip", type=float, help="openb, --load: the longest life of a task, in seconds.")
@click.option("--workers", type=click.IntRange(min=1), help="openb: processes; one per core by default.")
@click.option("--gavel-trace", type=_FILE, help="Jobs of Gavel's single-device experiment, CSV.")
@click.option("--throughputs", type=_FILE, help="gavel: measured throughputs per job and device type, JSON.")
@click.option("--cluster", help="gavel: how many V100, P100 and K80.  [default: 36:36:36]")
@click.option("--rate", type=float, help="gavel: jobs an hour.  [default: 4.0]")
@click.option("--measure", help="gavel: which jobs count, first:last.  [default: 4000:5000]")
@click.option("--throughputs-known", is_flag=True, help="gavel: give the policy the throughputs instead of learning.")
@click.option("--serve", is_flag=True, help="azure: the calls go to replicas on slices; how many meet an objective?")
@click.option("--cards", help="serve: the cards, such as 8xnvidia/A100-80GB; or nodes by --scenario.")
@click.option("--share", type=float, multiple=True, help="serve: of a card, per replica; several side by side.  [1]")
@click.option("--replicas", type=int, help="serve: how many; by default as many as empty cards hold.")
@click.option("--models", type=int, help="serve: models that the calls are for, one per replica.  [default: 1]")
@click.option("--service", help="serve: how a replica serves, such as decode=0.02,saturation=0.25 (see the docs).")
@click.option("--objective", help="serve: seconds for a call, and for each token of its answer.  [default: 5:0.05]")
@click.option("--policy", "policies", multiple=True, help="Placement policy; several are put side by side.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of scenarios and of results.")
@click.option("--check", is_flag=True, help="Check the core's books at every instant, not only at the end.")
@click.option("--estimates", is_flag=True, help="scenario: estimate every start, not only the first ones.")
@click.option("--html", type=_FILE, help="Write a page of plots to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
@one_line_errors
def simulate(as_json: bool, html: Path | None, **options: Any) -> None:
    """Run the scheduler under a virtual clock."""
    from flexray.sim.sources import Options, run_source
    from flexray.tables import print_sheets, progress_bar

    with progress_bar("simulating") as progress:
        outcome = run_source(Options(**options), progress)
    if html is not None and outcome.page is None:
        raise UsageError("--html: this has no page")
    if html is not None and outcome.page is not None:
        html.write_text(outcome.page(), encoding="utf-8")
    if as_json:
        click.echo(outcome.json)
    else:
        print_sheets(outcome.sheets)
