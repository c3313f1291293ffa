"""``flexray cordon``, ``drain`` and ``uncordon``: what operators want of devices."""

from __future__ import annotations

import json
from typing import Any

import click

from flexray.cli import frame
from flexray.cli.frame import ADDRESS, one_line_errors
from flexray.cli.names import completion

_TARGET = click.argument("target", metavar="DEVICE|NODE", shell_complete=completion("target"))
_REASON = click.option("--reason", default="", help="Why; shown in `flexray status`.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the devices, as they are then, as JSON.")


@click.command()
@ADDRESS
@_TARGET
@_REASON
@_JSON
@one_line_errors
def cordon(address: str, target: str, reason: str, as_json: bool) -> None:
    """Have a device, or all of a node, take nothing new. What runs there goes on."""
    _tell(_change(address, {"cordon": target, "reason": reason}), as_json)


@click.command()
@ADDRESS
@_TARGET
@_REASON
@click.option("--wait", is_flag=True, help="Return when nothing is left there.")
@_JSON
@one_line_errors
def drain(address: str, target: str, reason: str, wait: bool, as_json: bool) -> None:
    """Cordon a device, or all of a node, and have the work there move off."""
    from flexray.runtime.asking import find_scheduler
    from flexray.runtime.reading import wait_empty

    names = _change(address, {"cordon": target, "reason": reason, "drain": True})
    if wait:
        wait_empty(find_scheduler(), names)
    _tell(names, as_json)


@click.command()
@ADDRESS
@_TARGET
@_JSON
@one_line_errors
def uncordon(address: str, target: str, as_json: bool) -> None:
    """Have a device, or all of a node, take work again that was cordoned or drained."""
    _tell(_change(address, {"uncordon": target}), as_json)


def _change(address: str, change: dict[str, Any]) -> list[str]:
    from flexray.runtime.reading import change_cordons

    return change_cordons(frame.scheduler_at(address), change)


def _tell(names: list[str], as_json: bool) -> None:
    """The devices that were changed, as they are now."""
    from flexray.model.wire import to_plain
    from flexray.runtime.asking import find_scheduler
    from flexray.runtime.reading import read_snapshot

    devices = [device for device in read_snapshot(find_scheduler()).devices if device.id in names]
    if as_json:
        click.echo(json.dumps([to_plain(device) for device in devices], indent=2))
        return
    for device in devices:
        click.echo(f"{device.id}: {device.state}{f' ({device.reason})' if device.reason else ''}")
    for name in sorted(set(names) - {device.id for device in devices}):
        click.echo(f"{name}: not in the pool now")
