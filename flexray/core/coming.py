"""What nodes that can be added could hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexray.model.devices import DeviceType, Family, NewNode
from flexray.model.request import Request, memory_needed

if TYPE_CHECKING:
    from flexray.core.placement import Pool


def could_come(pool: Pool, request: Request) -> NewNode | None:
    """The first kind of node that could be added for (a member of) a request."""
    return next((node for node in pool.can_come if amounts_on(pool, node, request) is not None), None)


def amounts_on(pool: Pool, node: NewNode, request: Request) -> tuple[int, int] | None:
    """Share and memory that a request takes of each device of such a node; None where it may not go there."""
    if not 1 <= request.devices <= node.devices:
        return None
    if request.cpus > node.cpus or request.host_memory > node.host_memory:
        return None
    return amounts_of(pool, node.type, node.family, request)


def amounts_of(pool: Pool, kind: DeviceType, family: Family, request: Request) -> tuple[int, int] | None:
    """The same of a device of a type."""
    known = [one for one in pool.kinds.all if one.type.name == kind.name]
    if known:  # how it is cut, and held to its parts, is known from those that were here
        grants = [grant for one in known if (grant := pool.kinds.grant(one, request)) is not None]
        return (grants[0].share, grants[0].memory) if grants else None
    if request.family not in (Family.ANY, family) or not request.allows_type(kind.name):
        return None
    memory = memory_needed(request, kind.memory)
    return (request.share, memory) if memory <= kind.memory else None
