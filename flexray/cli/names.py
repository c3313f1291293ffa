"""Names for shell completion: those that the last command on a terminal has seen.

To ask the pool takes a second or two, which is too long for a key. So a pool that has changed since is completed as it
was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from flexray.model.snapshot import Snapshot

_MOST = 2000


def remember(snapshot: Snapshot) -> None:
    """Keep the names of a pool for this user; where that cannot be written there is no completion."""
    nodes = {node.id: node.name for node in snapshot.nodes}
    devices = [f"{device.node[:6]}/{device.id.rpartition('/')[2]}" for device in snapshot.devices]
    names = {
        "target": sorted([*devices, *nodes.values()])[:_MOST],
        "queue": sorted(queue.name for queue in snapshot.queues)[:_MOST],
        "request": [one.id for one in (*snapshot.waiting, *snapshot.running)][:_MOST],
    }
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        _file().write_text(json.dumps(names))
    except OSError:
        pass


def completion(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What completes names of a kind: "target" (devices and nodes), "queue", "request"."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        try:
            names = json.loads(_file().read_text())[kind]
            return [name for name in names if name.startswith(begun)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    return complete


def _file() -> Path:
    return Path(click.get_app_dir("flexray")) / "names.json"
