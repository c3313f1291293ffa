"""Choosing what makes room: the fewest slices whose end lets a placement start. Pure; ``scheduler.py`` acts."""

from __future__ import annotations

from collections.abc import Iterable

from flexray.core.books import Row
from flexray.core.placement import Pool
from flexray.core.records import SliceRecord
from flexray.core.slices import Slices
from flexray.model.lease import Placement

#: Amounts still missing, by the name of a device or node; third, the places of a device, as bits.
Missing = dict[str, list[int]]
_Held = list[tuple[str, tuple[int, ...]]]


def idle_slices_to_stop(slices: Slices, pool: Pool, placement: Placement, host: tuple[int, int]) -> list[SliceRecord]:
    """Idle slices whose end makes room for a placement: longest idle first, none that turns out unneeded.

    Call before the placement is pledged. The room is known to be there (``Pool.place``
    counts idle slices), so the answer always suffices.
    """
    idle = slices.idle_on(placement.node)
    return needed_of(idle, missing_for(pool, placement, host, count_idle=False), placement.node) if idle else []


def missing_for(pool: Pool, placement: Placement, asked: tuple[int, int], *, count_idle: bool) -> Missing:
    """What a placement lacks beyond what is free or coming free (and, if counted, idle) and promised to nobody."""
    there = Row.reachable if count_idle else Row.uncontested
    missing, span = {}, pool.span_of(placement)
    for device in placement.devices:
        row = pool.books.rows[device]
        share, memory = there(row)
        places = 0 if row.places is None else row.places.reachable() if count_idle else row.places.uncontested()
        missing[device] = [placement.share - share, placement.memory - memory, span & ~places]
    cores, host_memory = there(pool.host.rows[placement.node])
    missing[placement.node] = [asked[0] - cores, asked[1] - host_memory, 0]
    return missing


def lacking_now(pool: Pool, planned: SliceRecord, going: Iterable[SliceRecord]) -> Missing:
    """What a planned slice lacks beyond what is free or held by slices that stop, or that are going."""
    place = planned.placement
    host = pool.host.rows[place.node]
    lacking = {place.node: [*(planned.host[kind] - host.free[kind] - host.stopping[kind] for kind in (0, 1)), 0]}
    for device in place.devices:
        row, need = pool.books.rows[device], (place.share, place.memory)
        places = 0 if row.places is None else row.places.free | row.places.stopping
        amounts = (need[kind] - row.free[kind] - row.stopping[kind] for kind in (0, 1))
        lacking[device] = [*amounts, planned.span & ~places]
    for record in going:
        _subtract(lacking, _held(record, lacking, place.node), +1)
    return lacking


def needed_of(candidates: Iterable[SliceRecord], missing: Missing, node: str) -> list[SliceRecord]:
    """Of the candidates, in their order, those whose end covers what is missing; none that turns out unneeded."""
    chosen: list[tuple[SliceRecord, _Held]] = []
    for record in candidates:
        if covered(missing):
            break
        held = _held(record, missing, node)
        if any(max(missing[name]) > 0 and any(amounts) for name, amounts in held):
            chosen.append((record, held))
            _subtract(missing, held, +1)
    for record, held in list(chosen):  # an early small one may be unneeded once a later large one was chosen
        _subtract(missing, held, -1)
        if covered(missing):
            chosen.remove((record, held))
        else:
            _subtract(missing, held, +1)
    return [record for record, _ in chosen]


def covered(missing: Missing) -> bool:
    """Whether nothing is missing any more."""
    return all(amount <= 0 for amounts in missing.values() for amount in amounts)


def _held(record: SliceRecord, missing: Missing, node: str) -> _Held:
    """What a slice holds of the devices, and of the node, that matter; of its places those that are missing.

    No two slices hold a place, so that the bits of several may be added and taken away like amounts.
    """
    place, span = record.placement, record.span
    held: _Held = [(d, (place.share, place.memory, span & missing[d][2])) for d in place.devices if d in missing]
    return [*held, (node, (*record.host, 0))] if place.node == node else held


def _subtract(missing: Missing, held: _Held, sign: int) -> None:
    for name, amounts in held:
        missing[name] = [lack - sign * amount for lack, amount in zip(missing[name], amounts, strict=True)]
