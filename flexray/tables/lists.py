"""Devices, slices and requests, each as a table of its own. ``verbose`` gives ids in full and more columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from flexray.model.amounts import format_memory
from flexray.model.snapshot import DeviceView, RequestView, SliceView, Snapshot
from flexray.tables.drawing import ago, bar, memory_of, new_table, short, state_of


def device_table(snapshot: Snapshot, devices: Sequence[DeviceView], *, verbose: bool = False) -> Table:
    """Devices: what is held of them, and how busy their slices are."""
    more = ("free", "memory free", "guarantee", "backend", "why not") if verbose else ()
    table = new_table("", "device", "type", "state", "share held", "busy", "memory held", "held by", *more)
    names = {node.id: node.name for node in snapshot.nodes}
    busy = busy_by_device(snapshot)
    for device in devices:
        row = [
            f"{device.id} on {names.get(device.node, device.node)}" if verbose else short(device.id),
            device.type,
            device.state,
            f"{bar(device)} {device.share_held:.3g}",
            "-" if not device.slices else f"{busy[device.id]:.2f}" if device.id in busy else "?",
            f"{format_memory(device.memory_held)} of {format_memory(device.memory)}",
            device.isolation,
        ]
        if verbose:
            free = f"{device.share_free:.3g}"
            row += [free, format_memory(device.memory_free), device.guarantee, device.backend, device.reason]
        table.add_row(*row)
    return table


def busy_by_device(snapshot: Snapshot) -> dict[str, float]:
    """How busy the slices on each device keep it; without those of which nobody can tell."""
    busy: dict[str, float] = {}
    for piece in snapshot.slices:
        for device in piece.devices if piece.busy is not None else ():
            busy[device] = busy.get(device, 0.0) + (piece.busy or 0.0)
    return busy


def slice_table(snapshot: Snapshot, slices: Sequence[SliceView], *, verbose: bool = False) -> Table:
    """Slices, who holds them, and what they use."""
    more = ("user", "job", "session", "isolation") if verbose else ()
    table = new_table("", "slice", "device", "share", "busy", "memory", "state", "for", "task", "request", *more)
    for piece in slices:
        row = [
            piece.id,
            ", ".join(piece.devices if verbose else map(short, piece.devices)),
            f"{piece.share:g}" + (f" to {piece.burst:g}" if piece.burst > piece.share else ""),
            "?" if piece.busy is None else f"{piece.busy:.2f}",
            memory_of(piece),
            state_of(piece),
            ago(snapshot, piece.since),
            piece.task_class if verbose else piece.task_class.partition("/")[0],
            piece.request or "-",
        ]
        whose = (piece.user or "-", piece.job or "-", piece.session or "-", piece.isolation)
        table.add_row(*row, *(whose if verbose else ()))
    return table


def request_table(snapshot: Snapshot, requests: Sequence[RequestView], *, verbose: bool = False) -> Table:
    """Requests: those that wait say for what."""
    more = ("session", "priority", "attempt", "position") if verbose else ()
    table = new_table("", "request", "task", "queue", "asked", "for", "state", "why", *more)
    for one in requests:
        row = [
            one.id,
            one.task_class if verbose else one.task_class.partition("/")[0],
            one.queue,
            one.asked,
            ago(snapshot, one.submitted),
            one.state,
            one.wait_reason,
        ]
        if verbose:
            row += [one.session, str(one.priority), str(one.attempt), str(one.position or "-")]
        table.add_row(*row)
    return table
