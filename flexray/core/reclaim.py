"""Choosing what makes room. Pure choices; ``scheduler.py`` acts on them."""

from __future__ import annotations

from flexray.core.books import Books
from flexray.core.records import SliceRecord
from flexray.core.slices import Slices
from flexray.model.lease import Placement


def _shortfall(books: Books, name: str, amounts: tuple[int, ...]) -> list[int]:
    """What is missing on a row beyond what is free or already coming free and promised to nobody."""
    row = books.rows[name]
    return [int(need - have) for need, have in zip(amounts, books.uncontested()[row], strict=True)]


def _covers(missing: list[int]) -> bool:
    return all(amount <= 0 for amount in missing)


def idle_slices_to_stop(
    slices: Slices, devices: Books, host: Books, placement: Placement, cpus: int
) -> list[SliceRecord]:
    """Idle slices whose end makes room for a placement: longest idle first, none that turns out unneeded.

    Call before the placement is pledged. The room is known to be there (``Pool.place``
    counts idle slices), so the answer always suffices.
    """
    missing = {device: _shortfall(devices, device, (placement.share, placement.memory)) for device in placement.devices}
    host_missing = _shortfall(host, placement.node, (cpus,))
    chosen: list[SliceRecord] = []
    for record in slices.idle.values():
        if all(_covers(m) for m in missing.values()) and _covers(host_missing):
            break
        here = [device for device in record.placement.devices if device in missing]
        helps_device = any(not _covers(missing[device]) for device in here)
        helps_host = record.placement.node == placement.node and record.cpus > 0 and not _covers(host_missing)
        if helps_device or helps_host:
            chosen.append(record)
            _subtract(missing, host_missing, record, here, placement.node, +1)
    for record in list(chosen):  # an early small one may be unneeded once a later large one was chosen
        here = [device for device in record.placement.devices if device in missing]
        _subtract(missing, host_missing, record, here, placement.node, -1)
        if all(_covers(m) for m in missing.values()) and _covers(host_missing):
            chosen.remove(record)
        else:
            _subtract(missing, host_missing, record, here, placement.node, +1)
    return chosen


def _subtract(
    missing: dict[str, list[int]], host: list[int], record: SliceRecord, here: list[str], node: str, sign: int
) -> None:
    for device in here:
        missing[device][0] -= sign * record.placement.share
        missing[device][1] -= sign * record.placement.memory
    if record.placement.node == node:
        host[0] -= sign * record.cpus
