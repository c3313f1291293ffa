"""``flexray devices``, ``slices``, ``queues``, ``requests`` and ``events``: one part of the pool each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from flexray.cli import frame
from flexray.cli.frame import ADDRESS, JSON, VERBOSE, one_line_errors
from flexray.cli.names import completion
from flexray.errors import NotThere, UnknownQueue
from flexray.model.queue import nearest
from flexray.model.snapshot import DeviceView, Snapshot

_TARGET = click.argument("target", metavar="[DEVICE|NODE]", required=False, shell_complete=completion("target"))
_QUEUE = click.option("--queue", help="Only those of this queue.", shell_complete=completion("queue"))
_FOLLOW_SECONDS = 1.0


@click.command()
@ADDRESS
@_TARGET
@JSON
@VERBOSE
@one_line_errors
def devices(address: str, target: str | None, as_json: bool, verbose: bool) -> None:
    """Devices: how much of each is held, how busy it is, and why it takes no work."""
    snapshot = frame.snapshot_of(frame.scheduler_at(address))
    found = _devices_at(snapshot, target)
    if as_json:
        frame.echo_json(found)
        return
    from flexray.tables.drawing import print_table
    from flexray.tables.lists import device_table

    print_table(device_table(snapshot, found, verbose=verbose))


@click.command()
@ADDRESS
@_TARGET
@click.option("--idle", is_flag=True, help="Only those whose holder has used hardly anything for a minute.")
@JSON
@VERBOSE
@one_line_errors
def slices(address: str, target: str | None, idle: bool, as_json: bool, verbose: bool) -> None:
    """Slices: who holds them, for how long, and what of them is used."""
    from flexray.tables.drawing import IDLE_SECONDS

    snapshot = frame.snapshot_of(frame.scheduler_at(address))
    there = {device.id for device in _devices_at(snapshot, target)}
    found = [piece for piece in snapshot.slices if target is None or there & set(piece.devices)]
    if idle:
        found = [one for one in found if one.state == "held" and (one.idle_seconds or 0.0) >= IDLE_SECONDS]
    if as_json:
        frame.echo_json(found)
        return
    from flexray.tables.drawing import print_table
    from flexray.tables.lists import slice_table

    print_table(slice_table(snapshot, found, verbose=verbose))


@click.command()
@ADDRESS
@JSON
@one_line_errors
def queues(address: str, as_json: bool) -> None:
    """Queues: what they were promised, hold and borrow, and how many requests wait."""
    snapshot = frame.snapshot_of(frame.scheduler_at(address))
    if as_json:
        frame.echo_json(snapshot.queues)
        return
    from flexray.tables import queue_table
    from flexray.tables.drawing import print_table

    print_table(queue_table(snapshot))


@click.command()
@ADDRESS
@_QUEUE
@click.option("--waiting", is_flag=True, help="Only those that wait.")
@click.option("--running", is_flag=True, help="Only those that run.")
@JSON
@VERBOSE
@one_line_errors
def requests(address: str, queue: str | None, waiting: bool, running: bool, as_json: bool, verbose: bool) -> None:
    """Requests that wait, with the reason, and that run. `flexray explain ID` says more of one."""
    snapshot = frame.snapshot_of(frame.scheduler_at(address))
    known = [one.name for one in snapshot.queues]
    if queue is not None and queue not in known:
        raise UnknownQueue(f"unknown queue {queue!r}.{nearest(queue, known)}")
    both = waiting == running
    lines = (*(snapshot.waiting if waiting or both else ()), *(snapshot.running if running or both else ()))
    found = [one for one in lines if queue in (None, one.queue)]
    if as_json:
        frame.echo_json(found)
        return
    from flexray.tables.drawing import print_table
    from flexray.tables.lists import request_table

    print_table(request_table(snapshot, found, verbose=verbose))


@click.command()
@ADDRESS
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until interrupted.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="So many of the latest.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line: number, at, and as in the journal.")
@one_line_errors
def events(address: str, follow: bool, lines: int, as_json: bool) -> None:
    """What has happened lately and what the scheduler did, in words."""
    from flexray.runtime.reading import read_happenings

    scheduler = frame.scheduler_at(address)
    found = read_happenings(scheduler)
    _print_happenings(found.happenings[len(found.happenings) - min(lines, len(found.happenings)) :], as_json)
    while follow:
        time.sleep(_FOLLOW_SECONDS)
        found = read_happenings(scheduler, found.epoch, found.last)
        _print_happenings(found.happenings, as_json)


def _print_happenings(happenings: Sequence[Any], as_json: bool) -> None:
    import json

    from flexray.model.wire import encode
    from flexray.tables.words import happening_line

    for one in happenings:
        plain = {"number": one.number, "at": one.at} | encode(one.what) if as_json else None
        click.echo(json.dumps(plain) if plain is not None else happening_line(one))


def _devices_at(snapshot: Snapshot, target: str | None) -> list[DeviceView]:
    """All devices, or what is meant by a name: a device's id or short name, a node's id, the first part of it, or name.

    Raises NotThere.
    """
    from flexray.tables.drawing import short

    if target is None:
        return list(snapshot.devices)
    nodes = {node.id for node in snapshot.nodes if target == node.name or node.id.startswith(target)}
    found = [one for one in snapshot.devices if target in (one.id, short(one.id)) or one.node in nodes]
    if not found:
        known = [*(short(device.id) for device in snapshot.devices), *(node.name for node in snapshot.nodes)]
        raise NotThere(f"there is no device or node {target!r}.{nearest(target, known)}")
    return found
