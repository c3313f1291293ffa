"""How many members of a gang fit, by device type: in the pool as it is, and in one where nothing runs. Changes nothing.

Counted by class of nodes, not by device. Host amounts of a class are known by levels only, so that what fits now may be
a little less; whoever plans finds out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flexray.core.fixed_parts import whole_row
from flexray.core.landscape import CORE_LEVELS, MEMORY_LEVELS, NodeClass
from flexray.model.amounts import WHOLE
from flexray.model.request import Request

if TYPE_CHECKING:
    from flexray.core.placement import Pool

#: Where a request without devices goes.
HOST = "host"
#: More than any gang has.
_NO_END = 1 << 30

_Room = tuple[int, int, int, int, int]
"""Kind, share, memory and places of a device's room, and how many such rooms there are."""


def fits_now(pool: Pool, request: Request) -> dict[str, int]:
    """By device type, how many members there is room for, counting idle slices as room."""
    pool.landscape.refresh()
    found: Counter[str] = Counter()
    for nodes in pool.landscape.inhabited():
        for name, count in members_on(pool, request, nodes).items():
            found[name] += count * len(nodes.members)
    return dict(found)


def members_on(pool: Pool, request: Request, nodes: NodeClass) -> dict[str, int]:
    """By device type, how many members a node of a class has room for."""
    state = nodes.state
    host = (_at_most(CORE_LEVELS, state.cores), _at_most(MEMORY_LEVELS, state.memory))
    rooms = [(room.kind, room.share, room.memory, room.places, count) for _, room, count in nodes.rooms]
    return _members(pool, request, rooms, host)


def most_ever(pool: Pool, request: Request) -> dict[str, int]:
    """By device type, how many members the present inventory could hold if nothing else ran."""
    found: Counter[str] = Counter()
    for (kinds, total), nodes in pool.kinds.profiles.items():
        rooms = [_untouched(pool, number, count) for number, count in kinds]
        for name, count in _members(pool, request, rooms, total).items():
            found[name] += count * nodes
    return dict(found)


def _untouched(pool: Pool, number: int, count: int) -> _Room:
    kind = pool.kinds.all[number]
    return number, WHOLE, kind.type.memory, whole_row(kind.profiles), count


def fits_ever(pool: Pool, request: Request, needed: int) -> bool:
    """Whether so many members could ever run together."""
    return max(most_ever(pool, request).values(), default=0) >= needed


def _members(pool: Pool, request: Request, rooms: Iterable[_Room], host: tuple[int, int]) -> dict[str, int]:
    beside = min(_times(host[0], request.cpus), _times(host[1], request.host_memory))
    if not request.devices:
        return {HOST: beside}
    by_kind: Counter[int] = Counter()
    for number, share, memory, places, count in rooms:
        kind = pool.kinds.all[number]
        grant = pool.kinds.grant(kind, request)
        if grant is None:
            continue
        if request.devices > 1:
            by_kind[number] += count * (share == WHOLE and memory == kind.type.memory)
        else:
            by_kind[number] += count * grant.many(share, memory, places)
    found: Counter[str] = Counter()
    for number, count in by_kind.items():
        found[pool.kinds.all[number].type.name] += count // request.devices
    return {name: min(count, beside) for name, count in found.items()}


def _times(there: int, need: int) -> int:
    return there // need if need else _NO_END


def _at_most(levels: Sequence[int], level: int) -> int:
    """The most that was rounded down to a level."""
    above = bisect_right(levels, level)
    return levels[above] - 1 if above < len(levels) else _NO_END
