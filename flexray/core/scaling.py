"""What nodes that can be added could hold, and which of them those who wait need. Changes nothing.

What is free now is of no use to those who wait, or they would be there. So they are put, first in line first, into
devices that were given back to Ray or are just being claimed, and what is left over into nodes to be added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from flexray.core.coming import amounts_of, amounts_on
from flexray.core.gang_fit import fits_now
from flexray.core.line import first_in_line
from flexray.core.placement import Pool
from flexray.core.records import RequestRecord
from flexray.core.state import State
from flexray.model.amounts import WHOLE
from flexray.model.devices import DeviceState, DeviceType, Family, NewNode
from flexray.model.request import Request

_MOST = 1000
"""So many of those who wait are looked at: more nodes than they need are not added at once."""


class Bundle(NamedTuple):
    """What a node is to be added for: so many devices of it, and host cores (thousandths) beside them."""

    node: NewNode
    devices: int
    cpus: int


class Lack(NamedTuple):
    """What those who wait need: nodes whose devices were given back to Ray, and devices that are not there."""

    nodes: tuple[str, ...]
    bundles: tuple[Bundle, ...]


@dataclass(slots=True)
class _Device:
    """One device: what is left of it, and what it is asked for as. ``cpus``: thousandths of host cores beside it."""

    type: DeviceType
    family: Family
    share: int
    memory: int
    used: bool = False
    cpus: int = 0


@dataclass(slots=True)
class _Host:
    """A node that those who wait are put on. ``name``: of one that is there, else "" and ``new`` says of which kind."""

    name: str
    new: NewNode | None
    cpus: int
    host_memory: int
    devices: list[_Device]
    groups: list[Bundle] = field(default_factory=list)

    def put(self, pool: Pool, request: Request, only: str) -> str:
        """Put a request here, on devices of type ``only`` if that is given. Returns the type it is on, or ""."""
        if request.cpus > self.cpus or request.host_memory > self.host_memory:
            return ""
        for kind, family in dict.fromkeys((device.type, device.family) for device in self.devices):
            amounts = None if only not in ("", kind.name) else amounts_of(pool, kind, family, request)
            if amounts is None:
                continue
            needed = (WHOLE, kind.memory) if request.devices > 1 else amounts
            there = [d for d in self.devices if d.type == kind and d.share >= needed[0] and d.memory >= needed[1]]
            if len(there) >= request.devices:
                self._take(there[: request.devices], request, needed)
                return kind.name
        return ""

    def _take(self, devices: list[_Device], request: Request, amounts: tuple[int, int]) -> None:
        self.cpus -= request.cpus
        self.host_memory -= request.host_memory
        for device in devices:
            device.share -= amounts[0]
            device.memory -= amounts[1]
            device.used = len(devices) == 1
        if len(devices) == 1:
            devices[0].cpus += request.cpus
        elif self.new is not None:
            self.groups.append(Bundle(self.new, len(devices), request.cpus))

    @property
    def is_used(self) -> bool:
        """Whether anything was put here."""
        return any(device.share < WHOLE or device.used for device in self.devices)

    def bundles(self) -> Iterator[Bundle]:
        """What is asked of a node to be added."""
        if self.new is not None:
            yield from self.groups
            yield from (Bundle(self.new, 1, device.cpus) for device in self.devices if device.used)


class _Rooms:
    """Where those who wait are put."""

    def __init__(self, state: State, coming: Collection[str]) -> None:
        self._pool = state.pool
        there = [_there(state, name, name in coming) for name in sorted(state.pool.nodes)]
        self.hosts = [host for host in there if host.devices]
        #: the first host that may have room for a shape: what is put somewhere stays there.
        self._first: dict[tuple[object, ...], int] = {}

    def put(self, request: Request, only: str) -> str:
        """Put a request somewhere; returns the device type, or "" where nothing can hold it."""
        key = (*request.shape, only)
        for number in range(self._first.get(key, 0), len(self.hosts)):
            found = self.hosts[number].put(self._pool, request, only)
            self._first[key] = number
            if found:
                return found
        for new in self._pool.can_come:
            if only in ("", new.type.name) and amounts_on(self._pool, new, request) is not None:
                self.hosts.append(_new_host(new))
                self._first[key] = len(self.hosts) - 1
                return self.hosts[-1].put(self._pool, request, only)
        return ""


def _there(state: State, name: str, coming: bool) -> _Host:
    states = (DeviceState.RELEASED, DeviceState.UNCLAIMED) if coming else (DeviceState.RELEASED,)
    devices = [d for d in state.pool.kinds.on_node(name) if d.state in states]
    cpus, memory = state.pool.host.rows[name].free
    return _Host(name, None, cpus, memory, [_Device(d.type, d.family, WHOLE, d.type.memory) for d in devices])


def _new_host(new: NewNode) -> _Host:
    devices = [_Device(new.type, new.family, WHOLE, new.type.memory) for _ in range(new.devices)]
    return _Host("", new, new.cpus, new.host_memory, devices)


def lacking(state: State, waited: float, coming: Collection[str]) -> Lack:
    """What those need who have waited for ``waited`` seconds, and are not kept waiting by their queue's limit.

    Args:
        coming: nodes that are new here: their devices that are not claimed yet are about to be.
    """
    rooms = _Rooms(state, coming)
    for request, _ in first_in_line(state, _MOST):
        if not request.stands_in_line:
            continue  # a gang's first member does so for all
        limited = request.limited_by or state.sharing.limited_by(request) is not None
        if not limited and request.request.devices and state.now - request.idle_since >= waited:
            _put(state, rooms, request)
    used = [host for host in rooms.hosts if host.is_used]
    names = tuple(host.name for host in used if host.name and _released(state, host.name))
    return Lack(names, tuple(bundle for host in used for bundle in host.bundles()))


def _put(state: State, rooms: _Rooms, request: RequestRecord) -> None:
    if request.gang is None:
        rooms.put(request.request, "")
        return
    room = fits_now(state.pool, request.request)  # a gang may lack but one member, on the type where most fit
    best = max(room, key=lambda name: (room[name], name), default="")
    for kind, there in ((best, room.get(best, 0)), ("", 0)):
        found = rooms.put(request.request, kind)
        if found:
            for _ in range(request.pieces - there - 1):
                rooms.put(request.request, found)
            return


def _released(state: State, node: str) -> bool:
    return any(device.state is DeviceState.RELEASED for device in state.pool.kinds.on_node(node))


def idle_nodes(state: State) -> list[str]:
    """Nodes all of whose devices, if they have any, could take work, and that nothing is on or planned for."""
    busy = {record.placement.node for record in state.slices.by_id.values()}
    return [
        name
        for name, node in sorted(state.pool.nodes.items())
        if name not in busy and all(device.state is DeviceState.READY for device in node.devices)
    ]
