"""``flexray status``: all of a pool on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from flexray.model.amounts import format_memory
from flexray.model.snapshot import DeviceView, Snapshot
from flexray.tables.drawing import ago, bar, console_here, memory_of, new_table, short, state_of

_ROWS = 50
"""Slices and waiting requests that are listed; of more requests it is also shown how many there are for what."""
_DEVICES = 64
"""Devices that are listed one by one; of more it is shown how many there are of each type."""
_NAMED = 3
"""Of many that are alike so many are named."""


def print_status(
    snapshot: Snapshot, demand: Sequence[Mapping[str, object]] = (), console: Console | None = None
) -> None:
    """Devices, slices, waiting requests, and Ray demand that cannot be met."""
    console = console or console_here()
    for note in snapshot.notes:
        console.print(f"note: {note}", highlight=False)
    listed = len(snapshot.devices) <= _DEVICES
    console.print(_devices(snapshot) if listed else _types(snapshot))
    _print_guarantees(snapshot, console)
    _print_conditions(snapshot, console)
    if snapshot.slices:
        console.print(_slices(snapshot))
    if len(snapshot.slices) > _ROWS:
        console.print(f"and {len(snapshot.slices) - _ROWS} more: flexray slices", highlight=False)
    if snapshot.waiting:
        console.print(_waiting(snapshot))
    if sum(queue.waiting for queue in snapshot.queues) > _ROWS:
        console.print(_classes(snapshot))
    _print_nodes(snapshot, console, named=listed)
    for entry in demand:
        console.print(f"plain Ray work waits for {entry['resources']} ({entry['count']} times)", highlight=False)
    if len(snapshot.queues) > 1:
        console.print(queue_table(snapshot))
    console.print(
        f"{len(snapshot.nodes)} nodes, {len(snapshot.devices)} devices, {len(snapshot.slices)} slices; "
        f"{sum(q.running for q in snapshot.queues)} requests run, {sum(q.waiting for q in snapshot.queues)} wait",
        highlight=False,
    )


def queue_table(snapshot: Snapshot) -> Table:
    """Queues with what they hold; compute in units of nvidia/A100-80GB."""
    columns = ("quota", "limit", "weight", "waiting", "running", "devices", "compute", "entitled", "borrowed")
    table = new_table("queues", "queue", *columns)
    depth: dict[str, int] = {}
    for queue in snapshot.queues:
        depth[queue.name] = depth.get(queue.parent, -1) + 1
        table.add_row(
            "  " * depth[queue.name] + queue.name,
            queue.quota or "-",
            queue.limit or "-",
            f"{queue.weight:g}",
            str(queue.waiting),
            str(queue.running),
            f"{queue.devices_held:g}",
            f"{queue.compute_held:.3g}",
            f"{queue.compute_entitled:.3g}",
            f"{queue.compute_borrowed:.3g}",
        )
    return table


def print_queues(snapshot: Snapshot, console: Console | None = None) -> None:
    """The queues alone."""
    (console or console_here()).print(queue_table(snapshot))


def _devices(snapshot: Snapshot) -> Table:
    table = new_table("devices", "device", "type", "state", "share held", "memory held", "held by")
    for device in snapshot.devices:
        table.add_row(
            short(device.id),
            device.type,
            device.state,
            f"{bar(device)} {device.share_held:.3g}",
            f"{device.memory_held / 1024:.1f} of {device.memory / 1024:.1f} GiB",
            device.isolation,
        )
    return table


def _types(snapshot: Snapshot) -> Table:
    """Devices that are alike, in one row."""
    table = new_table(
        "devices (each: flexray devices)", "type", "state", "devices", "nodes", "share held", "memory held", "held by"
    )
    alike: dict[tuple[str, str, str], list[DeviceView]] = {}
    for device in snapshot.devices:
        alike.setdefault((device.type, device.state, device.isolation), []).append(device)
    for (kind, state, isolation), devices in sorted(alike.items()):
        memory = sum(device.memory_held for device in devices), sum(device.memory for device in devices)
        table.add_row(
            kind,
            state,
            str(len(devices)),
            str(len({device.node for device in devices})),
            f"{sum(device.share_held for device in devices):.1f}",
            f"{memory[0] / 1024:.1f} of {memory[1] / 1024:.1f} GiB",
            isolation,
        )
    return table


def _print_nodes(snapshot: Snapshot, console: Console, *, named: bool) -> None:
    """Which name the short ids of nodes stand for, and what back ends did not find where something is missing."""
    if not snapshot.devices:
        console.print("No devices. What the nodes' back ends found:")
    there = {device.node for device in snapshot.devices}
    unheld = {device.node for device in snapshot.devices if device.isolation == "none"}
    missing: dict[tuple[str, str], list[str]] = {}
    for node in snapshot.nodes:
        if named and node.id in there:
            console.print(f"{node.id[:6]} is {node.name}", highlight=False)
        for backend, found, reason in node.reports:
            if not found and (not snapshot.devices or (node.id in unheld and backend.startswith("isolation "))):
                missing.setdefault((backend, reason), []).append(node.name)
    for (backend, reason), names in missing.items():
        console.print(f"  {_some(names)}: {backend}: {reason}", highlight=False)


def _some(names: Sequence[str]) -> str:
    """All of them, or the first few and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _print_guarantees(snapshot: Snapshot, console: Console) -> None:
    """What each mechanism in the table gives; one may give more memory limiting on some devices than on others."""
    for isolation, guarantee in sorted({(device.isolation, device.guarantee) for device in snapshot.devices}):
        console.print(f"held by {isolation}: {guarantee}", highlight=False)


def _print_conditions(snapshot: Snapshot, console: Console) -> None:
    """Why devices take no work, what was seen on them, and who uses them without holding a slice."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for device in snapshot.devices:
        if device.reason:
            reasons.setdefault((device.state, device.reason), []).append(short(device.id))
    for (state, reason), names in reasons.items():
        verb = "is" if len(names) == 1 else "are"
        console.print(f"{_some(names)} {verb} {state}: {reason}", highlight=False, markup=False)
    noted = [(note.at, device.id, note.what) for device in snapshot.devices for note in device.notes]
    for at, name, what in sorted(noted)[-_ROWS:]:
        console.print(f"{short(name)}, {ago(snapshot, at)} ago: {what}", highlight=False, markup=False)
    table = new_table("processes that belong to no slice", "device", "pid", "memory", "for")
    for one in [one for device in snapshot.devices for one in device.foreign]:
        memory = "?" if one.memory is None else format_memory(one.memory)
        table.add_row(short(one.device), str(one.pid), memory, ago(snapshot, one.since))
    if table.row_count:
        console.print(table)


def _slices(snapshot: Snapshot) -> Table:
    table = new_table("slices", "slice", "device", "share", "busy", "memory", "state", "for", "task", "request")
    for piece in snapshot.slices[:_ROWS]:
        places = ", ".join(map(short, piece.devices))
        since = f"{max(0.0, snapshot.now - piece.since):.0f} s"
        task = piece.task_class.split("/")[0]
        table.add_row(
            piece.id,
            places,
            f"{piece.share:g}" + (f" to {piece.burst:g}" if piece.burst > piece.share else ""),
            "?" if piece.busy is None else f"{piece.busy:.2f}",
            memory_of(piece),
            state_of(piece),
            since,
            task,
            piece.request or "-",
        )
    return table


def _waiting(snapshot: Snapshot) -> Table:
    table = new_table("waiting", "request", "task", "asked", "for", "state", "why")
    for request in snapshot.waiting[:_ROWS]:
        waited = f"{max(0.0, snapshot.now - request.submitted):.0f} s"
        task = request.task_class.split("/")[0]
        table.add_row(request.id, task, request.asked, waited, request.state, request.wait_reason)
    return table


def _classes(snapshot: Snapshot) -> Table:
    """How many wait for what, where they are too many to be listed."""
    table = new_table(
        "all that stand in line", "task", "queue", "asked", "requests", "for up to", "why the first waits"
    )
    for kind in snapshot.classes:
        waited = ago(snapshot, kind.submitted)
        table.add_row(kind.task, kind.queue, kind.asked, str(kind.waiting), waited, kind.wait_reason)
    return table
