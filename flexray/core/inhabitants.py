"""What kinds of device the pool has, how many of each on how many nodes, and which of them a request may use."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from flexray.core.books import Amounts, Row
from flexray.core.fixed_parts import Grant, Places, Profiles, best_span, granted, lacks_memory, put
from flexray.model.devices import Device, DeviceState, DeviceType, Family
from flexray.model.isolation import Guarantee, Isolation
from flexray.model.lease import Placement
from flexray.model.lifecycle import FilterReason
from flexray.model.request import Request, memory_needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexray.core.placement import Pool


class Kind(NamedTuple):
    """Devices that are alike to every request."""

    family: Family
    type: DeviceType
    isolation: Isolation
    guarantee: Guarantee
    profiles: Profiles = ()


class Placed(NamedTuple):
    """A device, its row in the books, and the number of its kind."""

    device: Device
    row: Row
    kind: int


#: Nodes that are alike to every request: how many devices of each kind, and the totals of the host.
Profile = tuple[tuple[tuple[int, int], ...], Amounts]


class Kinds:
    """Derived from the inventory; numbers of kinds never change."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.all: list[Kind] = []
        self._numbers: dict[Kind, int] = {}
        self._of_device: dict[str, int] = {}
        self._by_node: dict[str, dict[str, Device]] = {}
        self._rows: dict[str, list[Placed]] = {}
        self._profiles: Counter[Profile] | None = None
        self._linked: bool | None = None
        self._filtered: dict[tuple[object, ...], tuple[bool, Counter[FilterReason]]] = {}

    def forget(self) -> None:
        """The inventory has changed."""
        self._profiles = None
        self._linked = None
        self._filtered.clear()

    def add(self, device: Device) -> None:
        """A new device, or a new description of a known one."""
        self._of_device.pop(device.id, None)
        self._rows.pop(device.node, None)
        self._by_node.setdefault(device.node, {})[device.id] = device

    def remove(self, device: Device) -> None:
        """A device has gone."""
        self._of_device.pop(device.id, None)
        self._rows.pop(device.node, None)
        del self._by_node[device.node][device.id]
        if not self._by_node[device.node]:
            del self._by_node[device.node]

    def number(self, device: Device) -> int:
        """The number of a device's kind."""
        found = self._of_device.get(device.id)
        if found is None:
            kind = Kind(device.family, device.type, device.isolation, device.guarantee, device.profiles)
            if kind not in self._numbers:
                self._numbers[kind] = len(self.all)
                self.all.append(kind)
            found = self._of_device[device.id] = self._numbers[kind]
        return found

    def on_node(self, node: str) -> list[Device]:
        """The devices of a node."""
        return list(self._by_node.get(node, {}).values())

    def ready(self, node: str) -> list[Placed]:
        """The devices of a node that take work, with their rows in the books and their kinds."""
        found = self._rows.get(node)
        if found is None:
            rows = self._pool.books.rows
            found = self._rows[node] = [
                Placed(device, rows[device.id], self.number(device))
                for device in self.on_node(node)
                if device.state is DeviceState.READY
            ]
        return found

    def counts(self) -> list[int]:
        """How many devices there are of each kind."""
        profiles = self.profiles
        found = [0] * len(self.all)
        for (kinds, _), nodes in profiles.items():
            for number, count in kinds:
                found[number] += nodes * count
        return found

    def present(self) -> list[Kind]:
        """Kinds of which there are devices."""
        return [self.all[number] for number in sorted({n for kinds, _ in self.profiles for n, _ in kinds})]

    @property
    def linked(self) -> bool:
        """Whether it is known of any device which others it is linked with, or which NUMA node it is on."""
        if self._linked is None:
            self._linked = any(d.links or d.numa >= 0 for there in self._by_node.values() for d in there.values())
        return self._linked

    @property
    def profiles(self) -> Counter[Profile]:
        """How many nodes of each profile there are."""
        if self._profiles is None:
            self._profiles = Counter(
                (tuple(sorted(Counter(map(self.number, self.on_node(node))).items())), row.total)
                for node, row in self._pool.host.rows.items()
            )
        return self._profiles

    # -- filters ------------------------------------------------------------------------------

    def offered_families(self) -> set[Family]:
        """Families of real devices in the pool, or to be added to it; CPU stand-ins serve the ones that are absent."""
        here, to_come = (kind.family for kind in self.present()), (node.family for node in self._pool.can_come)
        return {*here, *to_come} - {Family.CPU}

    def allows(self, kind: Kind, request: Request) -> bool:
        """Whether a kind of device could ever hold (a part of) the request, host and count aside."""
        return self._refusal(kind, request, self._families(request)) is None

    def _families(self, request: Request) -> set[Family]:
        offered = self.offered_families()
        allowed: set[Family] = {Family.CPU, *offered} if request.family is Family.ANY else {request.family}
        return allowed if request.family in offered else allowed | {Family.CPU}

    @staticmethod
    def _refusal(kind: Kind, request: Request, families: set[Family]) -> FilterReason | None:
        if kind.family not in families:
            return FilterReason.FAMILY
        if not request.allows_type(kind.type.name):
            return FilterReason.TYPE
        if memory_needed(request, kind.type.memory) > kind.type.memory:
            return FilterReason.MEMORY
        if kind.profiles and granted(request, kind.type.memory, kind.profiles) is None:
            return FilterReason.MEMORY if lacks_memory(request, kind.profiles) else FilterReason.PROFILE
        if not kind.guarantee.meets(request.least):
            return FilterReason.ISOLATION
        return None

    def filter(self, request: Request) -> tuple[bool, Counter[FilterReason]]:
        """Whether anything could ever hold the request, and how many devices (or nodes) each reason rules out."""
        known = self._filtered.get(request.shape)
        if known is None:
            known = self._filtered[request.shape] = self._filter(request)
        return known

    def _filter(self, request: Request) -> tuple[bool, Counter[FilterReason]]:
        reasons: Counter[FilterReason] = Counter()
        families, fits = self._families(request), False
        for (kinds, total), nodes in self.profiles.items():
            host = _host_refusal(total, request)
            if not request.devices:
                reasons.update({host: nodes} if host else {})
                fits |= host is None
            for number, count in kinds if request.devices else ():
                refusal = self._refusal(self.all[number], request, families) or host
                if refusal is None and count < request.devices:
                    refusal = FilterReason.COUNT
                reasons.update({refusal: nodes * count} if refusal else {})
                fits |= refusal is None
        return fits, reasons

    # -- what is granted ------------------------------------------------------------------------

    def grant(self, kind: Kind, request: Request) -> Grant | None:
        """What a request takes of each device of a kind; None where it may not go."""
        return granted(request, kind.type.memory, kind.profiles) if self.allows(kind, request) else None

    def place(self, request: Request, devices: tuple[Device, ...], places: int | None = None) -> Placement | None:
        """A placement on devices of a kind, which fits in amounts; None where the parts there are in its way.

        Args:
            places: the places that will do; None: all that a new request may count on.
        """
        first = devices[0]
        grant = granted(request, first.type.memory, first.profiles)
        if grant is None:
            return None
        names, span = tuple([device.id for device in devices]), 0
        if grant.spans:
            row = self._pool.books.rows[first.id].places
            assert row is not None
            there = row.reachable() if places is None else places
            span = best_span(first.profiles, grant.spans, Places(there, row.draining, row.idle | row.stopping))
            if not span:
                return None
        return put(first.node, names, grant, span)

    def feasible_devices(self, request: Request) -> Iterator[Device]:
        """Every device that could ever hold (a part of) the request."""
        families = self._families(request)
        allowed = [self._refusal(kind, request, families) is None for kind in self.all]
        for node, row in self._pool.host.rows.items():
            if _host_refusal(row.total, request):
                continue
            devices = self.on_node(node)
            counts = Counter(map(self.number, devices))
            for device in devices:
                number = self.number(device)
                if allowed[number] and counts[number] >= request.devices:
                    yield device


def _host_refusal(total: Amounts, request: Request) -> FilterReason | None:
    if total[0] < request.cpus:
        return FilterReason.CPUS
    return FilterReason.HOST_MEMORY if total[1] < request.host_memory else None
