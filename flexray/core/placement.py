"""Where a request could go: filter, then score. Changes nothing.

``Pool`` joins the books of devices and nodes with what the devices are; ``place``
returns the best Placement with its score, or None.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from flexray.core.books import Amounts, Books, Room
from flexray.core.company import Company
from flexray.core.inhabitants import Kinds
from flexray.core.landscape import Landscape
from flexray.core.mix import Mix
from flexray.core.ranking import Ranking
from flexray.core.scoring import Policy, Scorer
from flexray.core.speeds import Speeds
from flexray.model.amounts import WHOLE, MemoryMiB
from flexray.model.devices import Device, DeviceState, Inventory, Isolation
from flexray.model.lease import Placement
from flexray.model.lifecycle import FilterReason, WaitReason
from flexray.model.request import Request, memory_needed


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement and the weighted, normalised terms that chose it."""

    placement: Placement
    scores: tuple[tuple[str, float], ...]


class Pool:
    """The devices and nodes of the pool, their books, and what is derived from them."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.nodes: dict[str, Inventory] = {}
        self.books = Books()
        self.host = Books()
        self.kinds = Kinds(self)
        self.mix = Mix(self.kinds)
        self.speeds = Speeds()
        self.company = Company()
        self.landscape = Landscape(self.host, self._rooms_of)
        self._rankings: dict[tuple[object, ...], Ranking] = {}
        self._speeds: dict[tuple[object, ...], tuple[tuple[int, int], dict[str, float]]] = {}

    # -- what there is ----------------------------------------------------------------------

    def changed(self, node: str) -> None:
        """Forget what was derived from the inventory. Call after any change of a node or its devices."""
        self.kinds.forget()
        self.mix.inventory_changed()
        self.landscape.touch(node)
        self._rankings.clear()
        self._speeds.clear()

    def add_device(self, device: Device) -> None:
        """A new device, or a new description of a known one."""
        if device.id not in self.devices:
            self.books.add(device.id, (WHOLE, device.type.memory))
        self.books.resize(device.id, (WHOLE, device.type.memory))
        self.devices[device.id] = device
        self.kinds.add(device)
        self.changed(device.node)

    def retire_device(self, name: str) -> None:
        """A device that has left while slices were on it: unusable until they have ended."""
        self.add_device(dataclasses.replace(self.devices[name], state=DeviceState.SICK))

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
            self._rankings.clear()
            self._speeds.clear()

    def kind_of(self, placement: Placement) -> tuple[str, Isolation]:
        """Device type and isolation of a place; of one without devices, ``host`` and none."""
        if not placement.devices:
            return "host", Isolation.NONE
        device = self.devices[placement.devices[0]]
        return device.type.name, device.isolation

    def _rooms_of(self, node: str) -> list[Room]:
        return [row.room(kind) for _, row, kind in self.kinds.ready(node)]

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
            return WaitReason.NO_DEVICES, Counter()
        busy: Counter[str] = Counter()
        spare, least = [0, 0], 0
        for device in self.kinds.feasible_devices(request):
            row, need = self.books.rows[device.id], memory_needed(request, device.type.memory)
            if device.state is not DeviceState.READY:
                sick = device.state is DeviceState.SICK
                busy[(WaitReason.DEVICES_SICK if sick else WaitReason.USED_BY_RAY).value] += 1
                continue
            reach = row.reachable()
            spare = [spare[0] + reach[0], spare[1] + reach[1]]
            least = min(least or need, need)
            if not (reach == row.total if request.devices > 1 else _covers(reach, (request.share, need))):
                busy[WaitReason.NO_ROOM.value] += 1
            elif not _covers(self.host.rows[device.node].reachable(), request.host):
                busy[WaitReason.HOST_CPUS.value] += 1
        if not busy:
            return WaitReason.NEXT_CYCLE, Counter()
        order = [WaitReason.USED_BY_RAY, WaitReason.DEVICES_SICK, WaitReason.NO_ROOM, WaitReason.HOST_CPUS]
        reason = max(order, key=lambda one: busy[one.value])
        enough = spare[0] >= request.share * request.devices and spare[1] >= least
        return (WaitReason.FRAGMENTED if reason is WaitReason.NO_ROOM and enough else reason), busy

    # -- where --------------------------------------------------------------------------------

    def speeds_for(self, task_class: str, request: Request) -> dict[str, float]:
        """Speeds of a class of tasks on the types there are, relative to the fastest the request may use.

        In steps of a fiftieth, so that learning does not make every score new.
        """
        key = (task_class, request.shape, request.throughput)
        version = self.speeds.version(task_class)
        known = self._speeds.get(key)
        if known is None or known[0] != version:
            allowed = [kind.type for kind in self.kinds.present() if self.kinds.allows(kind, request)]
            nominal = {kind.name: kind.speed for kind in allowed}
            exact = self.speeds.relative(task_class, nominal, request.throughput)
            known = self._speeds[key] = (version, {name: round(speed * 50) / 50 for name, speed in exact.items()})
        return known[1]

    def place(self, request: Request, policy: Policy, task_class: str = "") -> Choice | None:
        """The best place the request fits now (counting idle slices as room), or None."""
        self.landscape.refresh()
        speeds = self.speeds_for(task_class, request) if policy.uses_speed else {}
        key = (policy.name, *request.shape, *speeds.items())
        ranking = self._rankings.get(key)
        if ranking is None:
            scorer = Scorer(self, request, policy, speeds)
            ranking = self._rankings[key] = Ranking(self.landscape, scorer.score, policy.band)
        found = ranking.best(lambda node: _covers(self.host.rows[node].reachable(), request.host))
        if found is None:
            return None
        node, scored = found
        scores = tuple(zip(policy.weights, scored.terms, strict=True))
        return Choice(self._placement(request, node, scored.room), scores)

    def _placement(self, request: Request, node: str, room: int) -> Placement:
        if room < 0:
            return Placement(node, (), request.share, MemoryMiB(0))
        found = self.landscape.members(node)
        assert found is not None
        wanted = found.state.rooms[room]
        ready = self.kinds.ready(node)
        if request.devices == 1:
            alike = [one for one in ready if one.kind == wanted.kind and one.row.room(one.kind) == wanted]
            device = min(alike, key=lambda one: one.row.rank).device
            return Placement(node, (device.id,), request.share, request.memory_on(device))
        whole = [one for one in ready if one.kind == wanted.kind and one.row.reachable() == one.row.total]
        whole.sort(key=lambda one: (one.row.uncontested() != one.row.total, one.device.index))
        chosen = sorted((one.device for one in whole[: request.devices]), key=lambda d: d.index)
        return Placement(node, tuple(d.id for d in chosen), request.share, request.memory_on(chosen[0]))


def _covers(amounts: Amounts, need: tuple[int, int]) -> bool:
    return amounts[0] >= need[0] and amounts[1] >= need[1]
