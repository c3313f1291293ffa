"""The pool: its devices and nodes, their books, and what is learnt; why a request fits nowhere. Changes no books."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from flexray.core.books import Books, Room
from flexray.core.choosing import Chooser, covers
from flexray.core.coming import could_come
from flexray.core.company import Company
from flexray.core.fixed_parts import granted, span_at, whole_row
from flexray.core.inhabitants import Kinds
from flexray.core.landscape import Landscape
from flexray.core.mix import Mix
from flexray.core.speeds import Speeds
from flexray.model.amounts import WHOLE
from flexray.model.devices import Device, DeviceState, Inventory, NewNode
from flexray.model.isolation import Guarantee, Isolation
from flexray.model.lease import Placement
from flexray.model.lifecycle import FilterReason, WaitReason
from flexray.model.request import Request

_AWAY = {DeviceState.UNCLAIMED: WaitReason.USED_BY_RAY, DeviceState.RELEASED: WaitReason.SCALING}
"""What those wait for who would be on a device that is not claimed."""

_AWAY_OR_FULL = (*reversed(_AWAY.values()), WaitReason.DEVICES_SICK, WaitReason.NO_ROOM, WaitReason.HOST_CPUS)
"""Of reasons that hold for equally many devices, the first is told."""


class Pool:
    """The devices and nodes of the pool, their books, and what is derived from them."""

    def __init__(self, can_come: tuple[NewNode, ...] = ()) -> None:
        #: kinds of nodes that can be added.
        self.can_come = can_come
        self.devices: dict[str, Device] = {}
        self.nodes: dict[str, Inventory] = {}
        self.books = Books()
        self.host = Books()
        self.kinds = Kinds(self)
        self.mix = Mix(self.kinds)
        self.speeds = Speeds()
        self.company = Company()
        self.landscape = Landscape(self.host, self._rooms_of)
        self.chooser = Chooser(self)
        #: (task class, share) of who works on a device; set by who keeps the slices.
        self.residents: Callable[[str], Sequence[tuple[str, int]]] = lambda device: ()

    # -- what there is ----------------------------------------------------------------------

    def changed(self, node: str) -> None:
        """Forget what was derived from the inventory. Call after any change of a node or its devices."""
        self.kinds.forget()
        self.mix.inventory_changed()
        self.landscape.touch(node)
        self.chooser.forget()

    def add_device(self, device: Device) -> None:
        """A new device, or a new description of a known one.

        One that is cut otherwise than before keeps its former parts as long as something is held or promised there.
        """
        known, total = self.devices.get(device.id), (WHOLE, device.type.memory)
        if known is None:
            self.books.add(device.id, total, whole_row(device.profiles))
        elif known.profiles != device.profiles:
            if self.books.rows[device.id].untouched:
                self.books.cut(device.id, whole_row(device.profiles))
            else:
                device = dataclasses.replace(
                    device, profiles=known.profiles, isolation=known.isolation, memory_limit=known.memory_limit
                )
        self.books.resize(device.id, total)
        self.devices[device.id] = device
        self.kinds.add(device)
        self.changed(device.node)

    def retire_device(self, name: str) -> None:
        """A device that has left while slices were on it: unusable until they have ended."""
        self.add_device(dataclasses.replace(self.devices[name], state=DeviceState.LOST, reason="it left the pool"))

    def remove_device(self, name: str) -> None:
        """Drop a device that nothing holds."""
        self.books.remove(name)
        device = self.devices.pop(name)
        self.kinds.remove(device)
        self.changed(device.node)

    def saw(self, request: Request) -> None:
        """A request has arrived: learn the mix of shapes from it."""
        if self.mix.saw(request):
            self.mix.swap()
            self.chooser.forget()

    def kind_of(self, placement: Placement) -> tuple[str, Isolation]:
        """Device type and isolation of a place; of one without devices, ``host`` and none."""
        if not placement.devices:
            return "host", Isolation.NONE
        device = self.devices[placement.devices[0]]
        return device.type.name, device.isolation

    def guarantee_of(self, placement: Placement) -> Guarantee:
        """How strongly a slice there is held to its share and memory."""
        return self.devices[placement.devices[0]].guarantee if placement.devices else Guarantee()

    def span_of(self, placement: Placement) -> int:
        """The places that a placement takes of each of its devices, as bits; 0 where only amounts count."""
        return span_at(self.devices[placement.devices[0]].profiles, placement) if placement.start >= 0 else 0

    def has_free(self, placement: Placement) -> bool:
        """Whether all that a placement takes of its devices is held by nobody."""
        rows, span = self.books.rows, self.span_of(placement) if placement.start >= 0 else 0
        for device in placement.devices:
            row = rows.get(device)
            if row is None or not covers(row.free, (placement.share, placement.memory)):
                return False
            if span and (row.places is None or span & ~row.places.free):
                return False
        return True

    def _rooms_of(self, node: str) -> list[Room]:
        """What is left of the node's ready devices; of no use, and left out, are those without any share."""
        ready = self.kinds.ready(node)
        return [room for _, row, kind in ready if (room := row.seen or row.room(kind))[1]]  # most are as they were

    # -- why not -----------------------------------------------------------------------------

    def removed_by(self, request: Request) -> Counter[FilterReason]:
        """How many devices (of a request without devices: nodes) each reason rules out for good."""
        return self.kinds.filter(request)[1]

    def ever_fits(self, request: Request) -> bool:
        """Whether the present inventory could hold the request if nothing else ran."""
        return self.kinds.filter(request)[0]

    def why_not_now(self, request: Request) -> tuple[WaitReason, Counter[str]]:
        """Why no feasible device takes the request now, and how many devices each reason rules out."""
        if not request.devices:
            return WaitReason.HOST_CPUS, Counter({WaitReason.HOST_CPUS.value: len(self.host)})
        if not self.books.rows:
            return WaitReason.SCALING if could_come(self, request) else WaitReason.NO_DEVICES, Counter()
        if not self.ever_fits(request) and could_come(self, request):
            return WaitReason.SCALING, Counter()
        busy: Counter[str] = Counter()
        spare, least, room = [0, 0], (WHOLE, 0), False
        for device in self.kinds.feasible_devices(request):
            row = self.books.rows[device.id]
            if device.state is not DeviceState.READY:
                busy[_AWAY.get(device.state, WaitReason.DEVICES_SICK).value] += 1
                continue
            reach = row.reachable()
            spare = [spare[0] + reach[0], spare[1] + reach[1]]
            grant = granted(request, device.type.memory, device.profiles)
            assert grant is not None
            least = (min(least[0], grant.share), min(least[1] or grant.memory, grant.memory))
            places = row.places.reachable() if row.places is not None else 0
            alone = covers(reach, (grant.share, grant.memory)) and grant.fits(places)
            if not (reach == row.total if request.devices > 1 else alone):
                busy[WaitReason.NO_ROOM.value] += 1
            elif not covers(self.host.rows[device.node].reachable(), request.host):
                busy[WaitReason.HOST_CPUS.value] += 1
            else:
                room = True
        if not busy or (room and request.devices == 1):
            return WaitReason.NEXT_CYCLE, busy
        reason = max(_AWAY_OR_FULL, key=lambda one: busy[one.value])
        enough = spare[0] >= least[0] * request.devices and spare[1] >= least[1]
        return (WaitReason.FRAGMENTED if reason is WaitReason.NO_ROOM and enough else reason), busy
