"""Which place comes nearest to holding a request that fits nowhere now, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator

from flexray.core.books import Row
from flexray.core.fixed_parts import Grant, granted
from flexray.core.placement import Pool
from flexray.model.amounts import share_as_float
from flexray.model.devices import Device, DeviceState
from flexray.model.explanation import Nearest
from flexray.model.request import Request

_Found = tuple[float, Nearest]
"""How much is lacking, as parts of what is asked, and the place."""


def nearest_place(pool: Pool, request: Request) -> Nearest | None:
    """The place that lacks least, of equals the first by id; None if none could ever hold the request."""
    found = {0: _nodes, 1: _devices}.get(request.devices, _groups)(pool, request)
    best = min(found, key=lambda one: (one[0], one[1].place), default=None)
    return best[1] if best is not None else None


def _devices(pool: Pool, request: Request) -> Iterator[_Found]:
    for device in pool.kinds.feasible_devices(request):
        if device.state is DeviceState.READY:
            grant = granted(request, device.type.memory, device.profiles)
            assert grant is not None  # it could hold the request
            row = pool.books.rows[device.id]
            share, memory = _there(row)
            lacks = (max(grant.share - share, 0), max(grant.memory - memory, 0))
            places = row.places.reachable() if row.places is not None else 0
            scattered = not any(lacks) and not grant.fits(places)
            host, apart = _host_lacks(pool, device.node, request)
            near = Nearest(
                device.id,
                device.node,
                device.type.name,
                share_as_float(share),
                memory,
                share_as_float(lacks[0]),
                lacks[1],
                0,
                *host,
                _scattered(row, places, grant) if scattered else "",
            )
            # parts that lie in the way count as half of what is asked: something has to end, if less than all of it
            want = max(lacks[0] / grant.share, lacks[1] / max(grant.memory, 1), 0.5 if scattered else 0.0)
            yield max(want, apart), near


def _scattered(row: Row, places: int, grant: Grant) -> str:
    """In words, that the places of a device that are free lie apart."""
    there = row.places.all.bit_count() if row.places is not None else 0
    part = grant.part or "the whole of it"
    return f"{places.bit_count()} of {there} places are free, and {part} fits nowhere between what runs there"


def _groups(pool: Pool, request: Request) -> Iterator[_Found]:
    """Nodes, for several whole devices of one kind."""
    groups: dict[tuple[str, int], list[Device]] = {}
    for device in pool.kinds.feasible_devices(request):
        groups.setdefault((device.node, pool.kinds.number(device)), []).append(device)
    for (node, _), devices in groups.items():
        whole = sum(d.state is DeviceState.READY and _is_whole(pool.books.rows[d.id]) for d in devices)
        lacks = max(request.devices - whole, 0)
        host, apart = _host_lacks(pool, node, request)
        near = Nearest(node, node, devices[0].type.name, float(whole), 0, 0.0, 0, lacks, *host)
        yield max(lacks / request.devices, apart), near


def _is_whole(row: Row) -> bool:
    return row.reachable() == row.total


def _nodes(pool: Pool, request: Request) -> Iterator[_Found]:
    """Nodes, for a request without devices."""
    for node in pool.host.rows:
        host, apart = _host_lacks(pool, node, request)
        yield apart, Nearest(node, node, "", 0.0, 0, 0.0, 0, 0, *host)


def _host_lacks(pool: Pool, node: str, request: Request) -> tuple[tuple[float, int], float]:
    """Host cores and MiB that a node lacks, and the larger of both as a part of what is asked."""
    cores, memory = _there(pool.host.rows[node])
    lacks = (max(request.cpus - cores, 0), max(request.host_memory - memory, 0))
    apart = max(lacks[0] / max(request.cpus, 1), lacks[1] / max(request.host_memory, 1))
    return (share_as_float(lacks[0]), lacks[1]), apart


def _there(row: Row) -> tuple[int, int]:
    """What a new request may count on."""
    first, second = row.reachable()
    return max(first, 0), max(second, 0)
